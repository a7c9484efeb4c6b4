"""The command line: `python -m lumbar_utils COMMAND`."""

import itertools
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from lumbar_utils import MODELS, Failure, StudyError
from lumbar_utils.study import CONVERTED, DATA, PRETRAINED, Grid, Study, kind_and_path, record_of, with_absolute_paths

NETWORK_FORMATS = ("safetensors", "onnx")  # of `export`, beside those of figures and tables

UsageError = typer.BadParameter.__base__  # of typer's own copy of click, where it has no public name


class Commands(typer.core.TyperGroup):
    """Commands whose errors are one line each, with an exit code.

    2 for what cannot be used, 1 for what failed, 130 for Ctrl-C.
    """

    def main(self, args: Sequence[str] | None = None, **settings) -> None:
        """Run a command; without one, print the help."""
        args = sys.argv[1:] if args is None else list(args)
        message = ""
        try:
            _refuse_empty(args)
            code = super().main(args or ["--help"], **settings | {"standalone_mode": False})
            if code == 130:
                message = "interrupted; the same command goes on from here"
        except (StudyError, OSError) as error:
            code, message = 2, f"{type(error).__name__}: {error}"
        except UsageError as error:
            line = " ".join(error.format_message().split()).rstrip(".")
            code, message = 2, f"{line}; see `{error.ctx.command_path} --help`"
        except Failure as error:
            code, message = 1, str(error)
        if message:
            typer.echo(message, err=True)
        sys.exit(code)


def _refuse_empty(args: Sequence[str]) -> None:
    """Raise StudyError for an empty text, as of a script's variable that was never set: it would stand for a folder."""
    for before, arg in itertools.pairwise(["the command", *args]):
        is_empty, is_option = not arg.strip(), re.fullmatch(r"--[\w-]+=", arg)
        if is_empty or is_option:
            name = before if is_empty else arg[:-1]
            raise StudyError(f"{name} is given an empty text; give a value, or leave it out")


class Lists(typer.core.TyperCommand):
    """A command whose options that can be repeated also take several values at once: `--seeds 0 1 2`."""

    def parse_args(self, ctx, args: list[str]) -> list[str]:
        """Repeat such an option before each of its values."""
        repeatable = {name for parameter in self.params if parameter.multiple for name in parameter.opts}
        written, option = [], None
        for arg in args:
            if arg.startswith("-"):
                option = arg if arg in repeatable else None
            elif option and written[-1] != option:
                written.append(option)
            written.append(arg)
        return super().parse_args(ctx, written)


app = typer.Typer(cls=Commands, add_completion=False, pretty_exceptions_enable=False)


def _with_record(folder: Path | None) -> Path | None:
    """The absolute path of a study's folder. Raises StudyError at once if it is not one."""
    if folder is None:
        return None
    record_of(folder.resolve())
    return folder.resolve()


def _with_networks(folder: Path) -> Path:
    """As `_with_record`; `pretrained` stands for the networks that come with the project."""
    return _with_record(PRETRAINED if folder == Path("pretrained") and not folder.exists() else folder)


# arguments and options
StudyFolder = Annotated[
    Path, typer.Argument(help="folder of a study or grid, with its study.json", callback=_with_record)
]
Source = Annotated[str, typer.Argument(help="phantom, a folder, or KIND:PATH: see data/README.md")]
Profile = Annotated[
    str | None, typer.Option(help="smoke, quick, patients or paper; auto, the default: paper with a GPU, else quick")
]
Dataset = Annotated[str | None, typer.Option(help="phantom (the default), a folder, or KIND:PATH: see data/README.md")]
Seed = Annotated[int | None, typer.Option(help="seed of everything that is drawn; 0")]
Runs = Annotated[Path | None, typer.Option(help="folder with one folder per study; data/runs")]
Settings = Annotated[list[str], typer.Option("--set", help="FIELD=VALUE, any other setting; repeatable")]
Accept = Annotated[list[str], typer.Option(help="a finding of the audit that is right; `holes:*` for many; repeatable")]
Slices = Annotated[int, typer.Option(help="taken from a volume, about its mid-sagittal one", min=1)]
# options of `run` for a single study
Only = Annotated[list[str], typer.Option(help="a notebook by its number, 05; repeatable")]
Add = Annotated[list[str], typer.Option(help="NAME=FOLDER, label maps of another tool as one more column; repeatable")]
TestDataset = Annotated[str, typer.Option(help="then test the networks on all patients of this one too")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="list the jobs, and which of them are finished")]
# options of `run` for a grid
Seeds = Annotated[list[int], typer.Option(help="a grid: under each of these seeds, 0 1 2")]
Folds = Annotated[int, typer.Option(help="a grid: on each of so many folds", min=0)]
Models = Annotated[list[str], typer.Option(help="of a grid: unet hrnet efficientnet, tu-NAME")]
Datasets = Annotated[list[str], typer.Option(help="a grid on each of these data sets")]
Workers = Annotated[int, typer.Option(help="jobs of a grid at once; as many as fit", min=0)]
Threads = Annotated[int, typer.Option(help="of each job; the cores, shared", min=0)]
Scheduler = Annotated[str, typer.Option(help="address or file of a Dask scheduler that runs the jobs")]
Keep = Annotated[
    Literal["final", "last", "none"] | None,
    typer.Option(help="checkpoints that a grid's jobs leave: final, last (both) or none"),
]


@app.callback()
def main() -> None:
    """Compare U-Net, HRNet and EfficientNet at segmenting lumbar vertebrae in sagittal MRI."""
    os.environ["MPLBACKEND"] = "agg"  # figures go to files; to import matplotlib for this would take a second
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None where it is closed
        # a terminal not in UTF-8 shows the code of a letter it lacks, and a log each line at once
        stream.reconfigure(errors="backslashreplace", line_buffering=True)


@app.command(cls=Lists)
def run(
    profile: Profile = None, dataset: Dataset = None, seed: Seed = None, runs: Runs = None,
    settings: Settings = (), only: Only = (), accept: Accept = (), add: Add = (), test_dataset: TestDataset = "",
    seeds: Seeds = (), folds: Folds = 0, models: Models = (), datasets: Datasets = (),
    workers: Workers = 0, threads: Threads = 0, scheduler: Scheduler = "", keep: Keep = None, dry_run: DryRun = False,
) -> None:  # fmt: skip
    """Run the notebooks 01-06 in order and write the report; what is finished and up to date is not done again.

    With several seeds, folds or data sets a grid: every network under every one, as many jobs at once as fit.
    """
    is_grid = any((seeds, folds, models, datasets, workers, threads, scheduler, keep))
    others = _parse(add, "--add")
    if is_grid:
        settings = [*settings, f"folds={folds}"] if folds else settings
        pairs = _parse(settings)
        _refuse({
            "--only": only, "--add": add, "--test-dataset": test_dataset, "--seed": seeds and seed is not None,
            "--dataset": datasets and dataset, "--set seed": "seed" in pairs, "--set fold": "fold" in pairs,
        }, "it is of a single study; a grid has --seeds, --folds, --models and --datasets instead")  # fmt: skip
    sources = dict.fromkeys(datasets or [dataset])  # each once
    options = {"profile": profile, "seed": seed, "runs": runs, "accept": accept}
    studies = [_study(settings, dataset=source, **options) for source in sources]
    from lumbar_utils import pipeline  # loads pandas

    pipeline.notebooks(only)  # refuses one that does not exist before data are read
    if test_dataset:
        studies.append(studies[0].tested_on(_from_here(test_dataset)))
    if len(studies) > 1 and (accept or test_dataset) and not dry_run:
        studies = _accepting(studies, accept)  # a data set that cannot be read is refused before any training
    grids = [Grid(study, tuple(seeds or [study.seed])) for study in studies] if is_grid else []
    models = list(dict.fromkeys(models or MODELS))
    if dry_run:
        print(*(pipeline.describe_jobs(each, models) for each in grids or studies), sep="\n\n")
    elif is_grid:
        _run_grids(grids, models, workers, threads, scheduler, keep or "final")
    else:
        _run_studies(studies, only, others)


def _accepting(studies: list[Study], accept: Sequence[str]) -> list[Study]:
    """Studies of several data sets, each accepting those findings that its own has; see `accepted_of_each`."""
    from lumbar_utils.data.audit import accepted_of_each
    from lumbar_utils.data.sources import load

    each = accepted_of_each([load(study) for study in studies], accept, studies[0].cache)
    return [Study(**study.settings | {"accept": fitting}) for study, fitting in zip(studies, each, strict=True)]


def _run_studies(studies: list[Study], only: Sequence[str], add: dict[str, str]) -> None:
    """Run a study, and the test of its networks on another data set. add : label maps of the first one's cases."""
    from lumbar_utils import cluster

    others = {name: Path(folder).expanduser().resolve() for name, folder in add.items()}
    for study in studies:
        cluster.run_study(study, only, others if study is studies[0] else {})
        _print_folders(study)


def _run_grids(grids: list[Grid], models: list[str], workers: int, threads: int, scheduler: str, keep: str) -> None:
    """Run grids. Raises Failure if a job failed."""
    from lumbar_utils import cluster, pipeline

    failures = cluster.run(grids, models, workers, threads, scheduler, keep)
    for grid in grids:
        _print_folders(grid)
    jobs = [job for grid in grids for job in pipeline.jobs_of(grid, models)]
    print(pipeline.count_states(pipeline.table_of(jobs)))
    if failures:
        raise Failure("\n".join(failures))


@app.command()
def status(study: StudyFolder) -> None:
    """Say how far a study or a grid is: each job finished, running, failed or waiting, and the time left."""
    from lumbar_utils import pipeline

    print(pipeline.status(study))


@app.command()
def train(
    profile: Profile = None, dataset: Dataset = None, seed: Seed = None, runs: Runs = None, settings: Settings = (),
    model: Annotated[
        list[str], typer.Option(help="unet, hrnet, efficientnet, or tu-NAME for timm's; repeatable")
    ] = tuple(MODELS),
    accept: Accept = (),
) -> None:  # fmt: skip
    """Train without a notebook, on several GPUs too; the notebooks then find the networks trained."""
    study = _study(settings, profile=profile, dataset=dataset, seed=seed, runs=runs, accept=accept)
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
    slices: Slices = 1,
) -> None:
    """Write a source into a folder of images, masks, cases.csv and dataset.json."""
    kind, path = kind_and_path(source, Path.cwd())
    if kind not in CONVERTED:
        raise StudyError(f"{source} is no source to import; name it as KIND:PATH, KIND one of {', '.join(CONVERTED)}")
    if destination.exists():
        raise StudyError(f"{destination} exists already; remove it, or name another folder to write into")
    from lumbar_utils.data import sources

    print(sources.convert(kind, path or sources.find_raw(kind), destination.resolve(), slices))


@app.command()
def predict(
    study: Annotated[Path, typer.Argument(help="folder of a study, or `pretrained`", callback=_with_networks)],
    model: Annotated[str, typer.Argument(help="unet, hrnet, efficientnet or tu-NAME")],
    source: Annotated[str, typer.Argument(help="volume (.nii.gz, .nii, .mha, .nrrd), DICOM, or as of `run --dataset`")],
    destination: Annotated[Path, typer.Argument(help="new folder for label maps and a picture to look them over")],
    slices: Slices = 1,
    dicom_seg: Annotated[bool, typer.Option("--dicom-seg", help="of DICOM images, write a DICOM SEG too")] = False,
) -> None:
    """Apply a network that a study trained: to every slice of a scan, or to the images of any source."""
    from lumbar_utils.data.sources import is_scan

    source, destination = _from_here(source), destination.resolve()
    if is_scan(source):
        _refuse({"--slices": slices > 1}, "of a scan every slice is labelled; leave it out, or name KIND:PATH")
        from lumbar_utils.scan import predict_scan

        print(predict_scan(study, model, Path(source), destination, dicom_seg))
        return
    _refuse({"--dicom-seg": dicom_seg}, f"{source} is no DICOM image or folder of them, named without KIND:")
    from lumbar_utils.application import predict_source

    print(predict_source(study, model, source, destination, slices))


@app.command()
def fetch(
    kind: Annotated[str, typer.Argument(help="composite or spider")],
    to: Annotated[Path | None, typer.Option(help="folder that holds the data sets; data/raw")] = None,
) -> None:
    """Download a public data set; an interrupted download is continued."""
    from lumbar_utils.data import download

    if kind not in download.SOURCES:
        raise StudyError(f"{kind!r} cannot be fetched; known are {', '.join(download.SOURCES)}")
    download.fetch(download.SOURCES[kind], to.resolve() if to else DATA / "raw")


@app.command()
def audit(
    dataset: Source,
    accept: Accept = (),
    to: Annotated[Path | None, typer.Option(help="folder for table and figure; data/runs/audit-NAME")] = None,
) -> None:
    """Say what is wrong with a data set: broken files, misnamed levels, one patient under two names, and more."""
    from lumbar_utils.data import sources

    study = Study("quick", dataset=_from_here(dataset))
    source = sources.locate(study)
    from lumbar_utils import records
    from lumbar_utils.data.audit import audit, pictures, report
    from lumbar_utils.output import figures

    findings = audit(source, accepted=accept)
    folder = to.resolve() if to else study.runs / f"audit-{Path(study.dataset).name}"
    records.write_csv(folder / "findings.csv", findings)
    page = figures.audit_page(findings, pictures(source, findings), source.name)
    figures.save(page, folder, "findings", figures.audit_caption(findings, source.name))
    print(report(findings, folder / "findings.csv"))
    if (findings["severity"] == "error").any():
        raise typer.Exit(1)


@app.command()
def export(
    study: StudyFolder,
    to: Annotated[Path, typer.Option(help="folder to write into")],
    formats: Annotated[
        list[str],
        typer.Option(
            "--format",
            help="pdf, svg, png, tiff, png600, tiff600; csv, tex, md, html; networks as safetensors, onnx; repeatable",
        ),
    ] = (),
    only: Annotated[list[str], typer.Option(help="a figure or table by its name, fig5; repeatable")] = (),
) -> None:
    """Gather a study's figures, tables and captions in the formats of journals, or its networks for other programs."""
    from lumbar_utils.output.export import export

    to_networks = [name for name in formats if name in NETWORK_FORMATS]
    others = [name for name in formats if name not in NETWORK_FORMATS]
    written, missing = [], []
    if to_networks:
        from lumbar_utils.exchange import export_networks

        written = export_networks(study, to.resolve(), to_networks)
    if others or not to_networks:
        files, missing = export(study, to.resolve(), others, only)
        written += files
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
        from lumbar_utils import cluster

        made = Study(**expected.record["settings"] | {"runs": runs})
        cluster.run_study(made)
        study = made.folder
    found = verify.read(study or verify.newest(runs, expected))
    cells = verify.compare(expected.table, found.table)
    print(verify.report(cells, expected, found))
    if not cells["holds"].all():
        raise typer.Exit(1)


@app.command()
def report(study: StudyFolder) -> None:
    """Write report.html and record/ into a study's folder: all that it holds on one page, and what is missing."""
    from lumbar_utils.output.report import write

    print(write(study))


def _refuse(given: dict[str, object], why: str) -> None:
    """Raise StudyError for options that cannot be used. given : option -> its value, empty if not given."""
    options = [option for option, value in given.items() if value]
    if options:
        raise StudyError(f"{' and '.join(options)} cannot be used here: {why}")


def _from_here(dataset: str) -> str:
    """The data set with its path made absolute from the current folder, not from the project's root."""
    return with_absolute_paths({"dataset": dataset}, Path.cwd())["dataset"]


def _study(settings: Sequence[str], **options) -> Study:
    """The study of `--set` and of options, None or empty if not given; relative paths start in the current folder."""
    given = {name: value for name, value in options.items() if value not in (None, (), [])}
    pairs = _parse(settings)
    for name in given.keys() & pairs.keys():
        raise StudyError(f"--{name} and --set {name} are both given; give one of them")
    return Study(**with_absolute_paths(given | pairs, Path.cwd()))


def _parse(texts: Sequence[str], option: str = "--set") -> dict[str, str]:
    """The pairs in texts like NAME=VALUE; Study validates the values of settings, and converts their types."""
    pairs = {}
    for text in texts:
        field, _, value = text.partition("=")
        if not field.strip() or not value.strip():
            raise StudyError(f"{option} {text} needs the form NAME=VALUE")
        if field in pairs:
            raise StudyError(f"{option} {field} is given twice, as {pairs[field]} and as {value}; give it once")
        pairs[field] = value
    return pairs


def _print_folders(study: Study | Grid) -> None:
    """Print Table II, and where everything is."""
    table = study.folder / "tables" / "table2.md"
    if table.exists():
        print(f"\n{table.read_text(encoding='utf-8')}")
    for name in ("report.html", "tables", "figures", "notebooks"):
        print(f"{name.removesuffix('.html'):10} {study.folder / name}")


if __name__ == "__main__":
    app()
