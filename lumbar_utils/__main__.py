"""The command line: `python -m lumbar_utils COMMAND`."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from lumbar_utils import MODELS, Failure, StudyError
from lumbar_utils.study import CONVERTED, DATA, Study, kind_and_path


class Lists(typer.core.TyperCommand):
    """A command whose options that can be repeated also take several values at once: `--seeds 0 1 2`."""

    def parse_args(self, ctx, args: list[str]) -> list[str]:
        """Write such an option before each of its values."""
        lists, written, option = {name for it in self.params if it.multiple for name in it.opts}, [], None
        for arg in args:
            if arg.startswith("-"):
                option, values = (arg, 0) if arg in lists else (None, 0)
            elif option:
                written += [option] if values else []
                values += 1
            written.append(arg)
        return super().parse_args(ctx, written)


app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

Profile = Annotated[str, typer.Option(help="smoke, quick or paper; auto: paper with a GPU, else quick")]
Source = Annotated[str, typer.Option(help="phantom, a folder, or KIND:PATH: see data/README.md")]
Seed = Annotated[int, typer.Option(help="seed of everything that is drawn")]
Runs = Annotated[Path | None, typer.Option(help="folder that holds one folder a study; data/runs")]
Settings = Annotated[list[str], typer.Option("--set", help="FIELD=VALUE, any other setting; repeatable")]
Accept = Annotated[list[str], typer.Option(help="a finding of the audit that is right; repeatable")]


@app.callback()
def main() -> None:
    """Compare U-Net, HRNet and EfficientNet at segmenting lumbar vertebrae in sagittal MRI."""
    import matplotlib

    matplotlib.use("agg")  # figures go to files, whatever MPLBACKEND says
    for stream in (sys.stdout, sys.stderr):  # a terminal that is not in UTF-8 shows the code of a letter that it lacks
        stream.reconfigure(errors="backslashreplace")


@app.command(cls=Lists)
def run(
    profile: Profile = "auto",
    dataset: Source = "phantom",
    seed: Seed = 0,
    runs: Runs = None,
    settings: Settings = [],  # noqa: B006
    only: Annotated[list[str], typer.Option(help="a notebook by its number, 05; repeatable")] = [],  # noqa: B006
    accept: Accept = [],  # noqa: B006
    add: Annotated[
        list[str], typer.Option(help="NAME=FOLDER, label maps of another tool as one more column; repeatable")
    ] = [],  # noqa: B006
    seeds: Annotated[list[int], typer.Option(help="a grid: under each of these seeds, 0 1 2")] = [],  # noqa: B006
    folds: Annotated[int, typer.Option(help="a grid: on each of so many folds", min=0)] = 0,
    models: Annotated[list[str], typer.Option(help="of a grid: unet hrnet efficientnet, tu-NAME")] = [],  # noqa: B006
    datasets: Annotated[list[str], typer.Option(help="a grid on each of these data sets")] = [],  # noqa: B006
    workers: Annotated[int, typer.Option(help="cells of a grid at once; as many as fit", min=0)] = 0,
    threads: Annotated[int, typer.Option(help="of each cell; the cores, shared", min=0)] = 0,
    scheduler: Annotated[str, typer.Option(help="address or file of a Dask scheduler that runs the cells")] = "",
    keep: Annotated[str, typer.Option(help="checkpoints of a grid's finished cells: best, last (both) or none")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="list what is to be run, and what it will cost")] = False,
) -> None:
    """Run the notebooks 01-05 in order and write the report; what is finished and up to date is not done again.

    With several seeds, folds or data sets a grid: every network under every one, as many at once as the machine bears.
    """
    from lumbar_utils import pipeline

    if any((seeds, folds, models, datasets, workers, threads, scheduler, keep)):
        with _told():
            from lumbar_utils.grid import Grid

            if only or add:
                raise StudyError(
                    "--only and --add are of a single study; a grid takes its notebooks and networks as they are"
                )
            given = [*settings, *([f"folds={folds}"] if folds else [])]
            studies = [_study(profile, source, seed, runs, given, accept) for source in datasets or [dataset]]
            grids = [Grid(study, tuple(seeds or [seed])) for study in studies]
            failed = _run_grids(grids, models or list(MODELS), workers, threads, scheduler, keep or "best", dry_run)
        if failed:
            raise typer.Exit(1)
        return
    with _told():
        study = _study(profile, dataset, seed, runs, settings, accept)
        folders = _parse(add, "--add", "NAME=FOLDER")
        if dry_run:
            import joblib

            from lumbar_utils import forecast

            print(forecast.plan([study], 1, joblib.cpu_count()))
            return
        others = {name: Path(folder).expanduser().resolve() for name, folder in folders.items()}
        pipeline.run(study, only, say=lambda line: print(line, flush=True), others=others)
        _conclude(study)


def _run_grids(grids, models: list[str], workers, threads, scheduler, keep: str, dry_run: bool) -> list[str]:
    """Run grids, or say what they will cost; returns words on each cell that failed."""
    from lumbar_utils import cluster, forecast, progress
    from lumbar_utils.grid import threads_of
    from lumbar_utils.pipeline import cells_of

    steps = [step for grid in grids for step in cells_of(grid, tuple(models))]
    engine = cluster.Engine.of(len(steps), workers, threads or threads_of(grids), scheduler, keep)
    if dry_run:
        print(forecast.plan(grids, engine.workers, engine.threads, tuple(models)))
        return []
    failed = cluster.run(grids, engine, tuple(models), say=lambda line: print(line, flush=True))
    for grid in grids:
        _conclude(grid)
    print(progress.counted(progress.cells(steps)))
    for words in failed:
        typer.echo(f"failed: {words}", err=True)
    return failed


@app.command()
def status(study: Annotated[Path, typer.Argument(help="folder of a study or grid, running or not")]) -> None:
    """Say how far a study or a grid is: each cell finished, running, failed or waiting, and the time left."""
    with _told():
        from lumbar_utils import forecast

        print(forecast.status(study.resolve()))


@app.command()
def train(
    profile: Profile = "auto",
    dataset: Source = "phantom",
    seed: Seed = 0,
    runs: Runs = None,
    settings: Settings = [],  # noqa: B006
    model: Annotated[
        list[str], typer.Option(help="unet, hrnet, efficientnet, or tu-NAME for timm's; repeatable")
    ] = list(MODELS),  # noqa: B006
    accept: Accept = [],  # noqa: B006
) -> None:
    """Train without a notebook, on several GPUs too; the notebooks then find the networks trained."""
    from lumbar_utils.preparation import prepare
    from lumbar_utils.training import fit

    with _told():
        study = _study(profile, dataset, seed, runs, settings, accept)
        cohort = prepare(study)
        for name in model:
            fit(study, cohort, name)
            print(study.folder / name)


@app.command("import")
def import_(
    source: Annotated[str, typer.Argument(help="KIND:PATH; kinds are composite, spider, dicom, nifti")],
    destination: Annotated[Path, typer.Argument(help="folder to write, in the form of data/README.md")],
    slices: Annotated[int, typer.Option(help="taken from a volume, about its mid-sagittal one", min=1)] = 1,
) -> None:
    """Write a source into a folder of images, masks, cases.csv and dataset.json."""
    from lumbar_utils import datasets

    with _told():
        kind, path = kind_and_path(source, Path.cwd())
        if kind not in CONVERTED:
            raise StudyError(
                f"{source} is no source to import; name it as KIND:PATH, KIND one of {', '.join(CONVERTED)}"
            )
        print(datasets.convert(kind, path or datasets.find_raw(kind), destination.resolve(), slices))


@app.command()
def predict(
    study: Annotated[Path, typer.Argument(help="folder of a study, with its study.json")],
    model: Annotated[str, typer.Argument(help="unet, hrnet, efficientnet or tu-NAME")],
    source: Annotated[str, typer.Argument(help="phantom, a folder, or KIND:PATH: see data/README.md")],
    destination: Annotated[Path, typer.Argument(help="new folder for label maps and a sheet to look them over")],
    slices: Annotated[int, typer.Option(help="taken from a volume, about its mid-sagittal one", min=1)] = 1,
) -> None:
    """Apply a network that a study trained to the images of any source."""
    with _told():
        from lumbar_utils.application import predict_source

        print(predict_source(study.resolve(), model, _from_here(source), destination.resolve(), slices))


@app.command()
def fetch(
    kind: Annotated[str, typer.Argument(help="composite or spider")],
    to: Annotated[Path | None, typer.Option(help="folder that holds the data sets; data/raw")] = None,
) -> None:
    """Download a public data set; one that was interrupted goes on from where it was."""
    from lumbar_utils.datasets import fetching

    with _told():
        if kind not in fetching.SOURCES:
            raise StudyError(f"{kind!r} cannot be fetched; known are {', '.join(fetching.SOURCES)}")
        fetching.fetch(fetching.SOURCES[kind], to.resolve() if to else DATA / "raw")


@app.command()
def audit(
    dataset: Annotated[str, typer.Argument(help="phantom, a folder, or KIND:PATH: see data/README.md")],
    accept: Annotated[list[str], typer.Option(help="a finding that is right, `holes:*` for many; repeatable")] = [],  # noqa: B006
    to: Annotated[Path | None, typer.Option(help="folder for table and figure; data/runs/audit-NAME")] = None,
) -> None:
    """Say what is wrong with a data set: broken files, misnamed levels, one patient under two names, and more."""
    from lumbar_utils import captions, datasets, figures, records
    from lumbar_utils.audit import audit
    from lumbar_utils.audit.report import pictures, report

    with _told():
        study = Study("quick", dataset=_from_here(dataset))
        source = datasets.locate(study)
        findings = audit(source, accepted=accept)
        folder = to.resolve() if to else study.runs / f"audit-{Path(study.dataset).name}"
        records.write_csv(folder / "findings.csv", findings)
        page = figures.audit_page(findings, pictures(source, findings), source.name)
        figures.save(page, folder, "findings", captions.audit(findings, source.name))
        print(report(findings, folder / "findings.csv"))
    if (findings["severity"] == "error").any():
        raise typer.Exit(1)


@app.command()
def export(
    study: Annotated[Path, typer.Argument(help="folder of a study, with its study.json")],
    to: Annotated[Path, typer.Option(help="folder to write into")],
    formats: Annotated[
        list[str], typer.Option("--format", help="pdf, svg, png, tiff, png600, tiff600; csv, tex, md, html; repeatable")
    ] = [],  # noqa: B006
    only: Annotated[list[str], typer.Option(help="a figure or table by its name, fig5; repeatable")] = [],  # noqa: B006
) -> None:
    """Gather a study's figures, tables and captions in the formats of journals; say what is missing."""
    with _told():
        from lumbar_utils.export import export

        written, missing = export(study.resolve(), to.resolve(), formats, only)
        print(f"{len(written)} files -> {to.resolve()}")
    if missing:
        print("missing, since the study has not made it yet:", *missing, sep="\n  ")


@app.command()
def verify(
    study: Annotated[
        Path | None, typer.Argument(help="folder of a finished study; the newest like the reference")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="another study, or a folder that `export` wrote; figures/reference")
    ] = None,
    runs: Runs = None,
    run: Annotated[
        bool, typer.Option("--run", help="first make the reference's study, or what is missing of it")
    ] = False,
) -> None:
    """Compare a study's Table II with the reference's, cell by cell; exit code 1 where one moved beyond tolerance."""
    from lumbar_utils import pipeline, verify

    with _told():
        if study and run:
            raise StudyError(f"--run makes a study itself, so it needs no {study}; leave one of the two out")
        expected = verify.read((reference or verify.REFERENCE).resolve())
        runs = (runs or DATA / "runs").resolve()
        if run:
            made = Study(**expected.record["settings"] | {"runs": runs})
            pipeline.run(made, say=lambda line: print(line, flush=True))
        found = verify.read(study.resolve() if study else made.folder if run else verify.newest(runs, expected))
        cells = verify.compare(expected.table, found.table)
        print(verify.report(cells, expected, found))
    if not cells["holds"].all():
        raise typer.Exit(1)


@app.command()
def report(study: Annotated[Path, typer.Argument(help="folder of a study, finished or not")]) -> None:
    """Write report.html and record/ into a study's folder: all that it holds on one page, and what is missing."""
    with _told():
        from lumbar_utils.report import write

        print(write(study.resolve()))


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Errors as one clear line, and an exit code: 2 for what cannot be used, 1 for what failed, 130 for Ctrl-C."""
    try:
        yield
    except (StudyError, OSError) as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        raise typer.Exit(2) from None
    except Failure as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command goes on from here", err=True)
        raise typer.Exit(130) from None


def _from_here(dataset: str) -> str:
    """A data set's relative path begins where the command is given, not at the project's root."""
    kind, path = kind_and_path(dataset, Path.cwd())
    return kind if path is None else f"{kind}:{path}"


def _study(profile: str, dataset: str, seed: int, runs: Path | None, settings: list[str], accept: list[str]) -> Study:
    named = {"profile": profile, "dataset": _from_here(dataset), "seed": seed}
    named |= ({"runs": runs.resolve()} if runs else {}) | ({"accept": accept} if accept else {})
    return Study(**named | _parse(settings))


def _parse(settings: list[str], option: str = "--set", form: str = "FIELD=VALUE, --set epochs=12 for instance") -> dict:
    """Pairs with = between; the values of settings are validated, and turned into their types, by Study."""
    pairs = [setting.partition("=") for setting in settings]
    for field, equals, _ in pairs:
        if not equals:
            raise StudyError(f"{option} {field} needs {form}")
    return {field: value for field, _, value in pairs}


def _conclude(study) -> None:
    """Where everything is, and the table itself."""
    table = study.folder / "tables" / "table2.md"
    if table.exists():
        print(f"\n{table.read_text(encoding='utf-8')}")
    for what, name in {
        "report": "report.html",
        "tables": "tables",
        "figures": "figures",
        "notebooks": "notebooks",
    }.items():
        print(f"{what:10} {study.folder / name}")


if __name__ == "__main__":
    app()
