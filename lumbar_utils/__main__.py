"""The command line: `python -m lumbar_utils COMMAND`."""

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import typer

from lumbar_utils import MODELS, Failure, StudyError
from lumbar_utils.study import CONVERTED, DATA, Study, begun_at, kind_and_path, record_of

UsageError = typer.BadParameter.__base__  # of typer's own copy of click, where it has no public name


class Commands(typer.core.TyperGroup):
    """Commands whose errors are one line each."""

    def parse_args(self, ctx, args: list[str]) -> list[str]:
        """Refuse what is empty, a script's variable that was never set for instance, before it stands for a folder."""
        with _one_line():
            empty = [before for before, arg in zip(["", *args], args, strict=False) if not arg.strip()]
            empty += [arg[:-1] for arg in args if re.fullmatch(r"--[\w-]+=", arg)]
            if empty:
                raise StudyError(f"{empty[0] or 'the command'} is given an empty text; give a value, or leave it out")
            return super().parse_args(ctx, args or ["--help"])

    def invoke(self, ctx):
        """Run the command, or say why not."""
        with _one_line():
            return super().invoke(ctx)


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


app = typer.Typer(cls=Commands, add_completion=False, pretty_exceptions_enable=False)


def _with_record(folder: Path | None) -> Path | None:
    """The absolute path of a study's folder, refused at once where it is none."""
    if folder is not None:
        record_of(folder.resolve())
    return folder and folder.resolve()


Profile = Annotated[str, typer.Option(help="smoke, quick, patients or paper; auto: paper with a GPU, else quick")]
Source = Annotated[str, typer.Option(help="phantom, a folder, or KIND:PATH: see data/README.md")]
Seed = Annotated[int, typer.Option(help="seed of everything that is drawn")]
Runs = Annotated[Path | None, typer.Option(help="folder that holds one folder a study; data/runs")]
Settings = Annotated[list[str], typer.Option("--set", help="FIELD=VALUE, any other setting; repeatable")]
StudyFolder = Annotated[
    Path, typer.Argument(help="folder of a study or grid, with its study.json", callback=_with_record)
]
Accept = Annotated[list[str], typer.Option(help="a finding of the audit that is right; repeatable")]


@app.callback()
def main() -> None:
    """Compare U-Net, HRNet and EfficientNet at segmenting lumbar vertebrae in sagittal MRI."""
    os.environ["MPLBACKEND"] = "agg"  # figures go to files; to import matplotlib for this would take a second
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None where it is closed
        stream.reconfigure(errors="backslashreplace")  # a terminal not in UTF-8 shows the code of a letter it lacks


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
    test_dataset: Annotated[str, typer.Option(help="then test the networks on all patients of this one too")] = "",
    seeds: Annotated[list[int], typer.Option(help="a grid: under each of these seeds, 0 1 2")] = [],  # noqa: B006
    folds: Annotated[int, typer.Option(help="a grid: on each of so many folds", min=0)] = 0,
    models: Annotated[list[str], typer.Option(help="of a grid: unet hrnet efficientnet, tu-NAME")] = [],  # noqa: B006
    datasets: Annotated[list[str], typer.Option(help="a grid on each of these data sets")] = [],  # noqa: B006
    workers: Annotated[int, typer.Option(help="cells of a grid at once; as many as fit", min=0)] = 0,
    threads: Annotated[int, typer.Option(help="of each cell; the cores, shared", min=0)] = 0,
    scheduler: Annotated[str, typer.Option(help="address or file of a Dask scheduler that runs the cells")] = "",
    keep: Annotated[
        Literal["best", "last", "none"] | None,
        typer.Option(help="checkpoints of a grid's finished cells: best, last (both) or none"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="list what is to be run, and what it will cost")] = False,
) -> None:
    """Run the notebooks 01-05 in order and write the report; what is finished and up to date is not done again.

    With several seeds, folds or data sets a grid: every network under every one, as many at once as the machine bears.
    """
    if any((seeds, folds, models, datasets, workers, threads, scheduler, keep)):
        given = [*settings, *([f"folds={folds}"] if folds else [])]
        pairs = _parse(given)
        _refuse_of_one_study({
            "--only": only, "--add": add, "--test-dataset": test_dataset,
            "--seed": seeds and seed, "--dataset": datasets and dataset != "phantom",
            "--set seed": "seed" in pairs, "--set fold": "fold" in pairs,
            "--set dataset": datasets and "dataset" in pairs,
        })  # fmt: skip
        sources = dict.fromkeys(datasets or [dataset])
        studies = [_study(profile, source, seed, runs, given, accept) for source in sources]
        if len(studies) > 1 and accept and not dry_run:
            studies = _accepting(studies, accept)
        models = list(dict.fromkeys(models or MODELS))
        if _run_grids(studies, seeds or [seed], models, workers, threads, scheduler, keep or "best", dry_run):
            raise typer.Exit(1)
        return
    folders = _parse(add, "--add", "NAME=FOLDER")
    if only:
        from lumbar_utils.pipeline import notebooks

        notebooks(only)  # refused before torch is loaded, which the profile `auto` asks for a GPU
    study = _study(profile, dataset, seed, runs, settings, accept)
    from lumbar_utils import pipeline

    if dry_run:
        from lumbar_utils import forecast

        print(forecast.plan([study], *pipeline.side_by_side(len(MODELS), study)))
        return
    others = {name: Path(folder).expanduser().resolve() for name, folder in folders.items()}
    studies = [study, study.tested_on(_from_here(test_dataset))] if test_dataset else [study]
    if test_dataset:
        studies = _accepting(studies, accept)  # a data set that cannot be read is refused before any training
    for made, added in zip(studies, (others, {}), strict=False):  # label maps are added of the first one's cases
        pipeline.run(made, only, say=lambda line: print(line, flush=True), others=added)
        _conclude(made)


def _accepting(studies: list[Study], accept: list[str]) -> list[Study]:
    """Studies of several data sets, each accepting those findings that its own has; see `accepted_of_each`."""
    from lumbar_utils.data.audit import accepted_of_each
    from lumbar_utils.data.sources import load

    each = accepted_of_each([load(study) for study in studies], accept, studies[0].cache)
    return [Study(**study.settings | {"accept": fitting}) for study, fitting in zip(studies, each, strict=True)]


def _refuse_of_one_study(given: dict[str, object]) -> None:
    """Raise StudyError for what a grid would not heed. given : option -> what it was given, empty for nothing."""
    unheeded = [option for option, value in given.items() if value]
    if unheeded:
        raise StudyError(
            f"{' and '.join(unheeded)}: of a single study; a grid has --seeds, --folds, --models and --datasets instead"
        )


def _run_grids(studies, seeds, models: list[str], workers, threads, scheduler, keep: str, dry_run: bool) -> list[str]:
    """Run the grid of each study, or say what it will cost; returns words on each cell that failed."""
    from lumbar_utils.grid import Grid, threads_of
    from lumbar_utils.pipeline import cells_of

    grids = [Grid(study, tuple(seeds)) for study in studies]
    steps = [step for grid in grids for step in cells_of(grid, tuple(models))]
    from lumbar_utils import cluster, forecast, progress

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
def status(study: StudyFolder) -> None:
    """Say how far a study or a grid is: each cell finished, running, failed or waiting, and the time left."""
    from lumbar_utils import forecast

    print(forecast.status(study))


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
    study = _study(profile, dataset, seed, runs, settings, accept)
    from lumbar_utils.data.preparation import prepare
    from lumbar_utils.networks.training import fit

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
    kind, path = kind_and_path(source, Path.cwd())
    if kind not in CONVERTED:
        raise StudyError(f"{source} is no source to import; name it as KIND:PATH, KIND one of {', '.join(CONVERTED)}")
    from lumbar_utils.data import sources

    print(sources.convert(kind, path or sources.find_raw(kind), destination.resolve(), slices))


@app.command()
def predict(
    study: StudyFolder,
    model: Annotated[str, typer.Argument(help="unet, hrnet, efficientnet or tu-NAME")],
    source: Annotated[str, typer.Argument(help="phantom, a folder, or KIND:PATH: see data/README.md")],
    destination: Annotated[Path, typer.Argument(help="new folder for label maps and a sheet to look them over")],
    slices: Annotated[int, typer.Option(help="taken from a volume, about its mid-sagittal one", min=1)] = 1,
) -> None:
    """Apply a network that a study trained to the images of any source."""
    from lumbar_utils.application import predict_source

    print(predict_source(study, model, _from_here(source), destination.resolve(), slices))


@app.command()
def fetch(
    kind: Annotated[str, typer.Argument(help="composite or spider")],
    to: Annotated[Path | None, typer.Option(help="folder that holds the data sets; data/raw")] = None,
) -> None:
    """Download a public data set; one that was interrupted goes on from where it was."""
    from lumbar_utils.data import fetching

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
    from lumbar_utils.data import sources

    study = Study("quick", dataset=_from_here(dataset))
    source = sources.locate(study)
    from lumbar_utils import records
    from lumbar_utils.data.audit import audit
    from lumbar_utils.data.audit.report import pictures, report
    from lumbar_utils.output import captions, figures

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
    study: StudyFolder,
    to: Annotated[Path, typer.Option(help="folder to write into")],
    formats: Annotated[
        list[str], typer.Option("--format", help="pdf, svg, png, tiff, png600, tiff600; csv, tex, md, html; repeatable")
    ] = [],  # noqa: B006
    only: Annotated[list[str], typer.Option(help="a figure or table by its name, fig5; repeatable")] = [],  # noqa: B006
) -> None:
    """Gather a study's figures, tables and captions in the formats of journals; say what is missing."""
    from lumbar_utils.output.export import export

    written, missing = export(study, to.resolve(), formats, only)
    print(f"{len(written)} files -> {to.resolve()}")
    if missing:
        print("missing, since the study has not made it yet:", *missing, sep="\n  ")


@app.command()
def verify(
    study: Annotated[
        Path | None,
        typer.Argument(help="folder of a finished study; the newest like the reference", callback=_with_record),
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
    from lumbar_utils.output import verify

    if study and run:
        raise StudyError(f"--run makes a study itself, so it needs no {study}; leave one of the two out")
    expected = verify.read((reference or verify.REFERENCE).resolve())
    runs = (runs or DATA / "runs").resolve()
    if run:
        from lumbar_utils import pipeline

        made = Study(**expected.record["settings"] | {"runs": runs})
        pipeline.run(made, say=lambda line: print(line, flush=True))
    found = verify.read(study or (made.folder if run else verify.newest(runs, expected)))
    cells = verify.compare(expected.table, found.table)
    print(verify.report(cells, expected, found))
    if not cells["holds"].all():
        raise typer.Exit(1)


@app.command()
def report(study: StudyFolder) -> None:
    """Write report.html and record/ into a study's folder: all that it holds on one page, and what is missing."""
    from lumbar_utils.output.report import write

    print(write(study))


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """Errors as one clear line, and an exit code: 2 for what cannot be used, 1 for what failed, 130 for Ctrl-C."""
    try:
        yield
    except (StudyError, OSError) as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        raise typer.Exit(2) from None
    except UsageError as error:
        line = " ".join(error.format_message().split()).rstrip(".")
        typer.echo(f"{line}; see `{error.ctx.command_path} --help`", err=True)
        raise typer.Exit(2) from None
    except Failure as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command goes on from here", err=True)
        raise typer.Exit(130) from None


def _from_here(dataset: str) -> str:
    """A data set's relative path begins where the command is given, not at the project's root."""
    return begun_at(Path.cwd(), {"dataset": dataset})["dataset"]


def _study(profile: str, dataset: str, seed: int, runs: Path | None, settings: list[str], accept: list[str]) -> Study:
    """Of the options and of `--set`; relative paths begin where the command is given."""
    usual = {"profile": "auto", "dataset": "phantom", "seed": 0, "runs": None, "accept": []}
    named = {"profile": profile, "dataset": dataset, "seed": seed, "runs": runs, "accept": accept}
    named, pairs = {name: value for name, value in named.items() if value != usual[name]}, _parse(settings)
    for name in named.keys() & pairs.keys():
        raise StudyError(f"--{name} and --set {name} are both given; give one of them")
    return Study(**begun_at(Path.cwd(), named | pairs))


def _parse(settings: list[str], option: str = "--set", form: str = "FIELD=VALUE, --set epochs=12 for instance") -> dict:
    """Pairs with = between; the values of settings are validated, and turned into their types, by Study."""
    pairs = {}
    for setting in settings:
        field, _, value = setting.partition("=")
        if not field.strip() or not value.strip():
            raise StudyError(f"{option} {setting} needs {form}")
        if field in pairs:
            raise StudyError(f"{option} {field} is given twice, as {pairs[field]} and as {value}; give it once")
        pairs[field] = value
    return pairs


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
