"""The notebooks in order as steps: what each is made from, and only those run that are missing or stale."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from pathlib import Path

import joblib
import psutil

from lumbar_utils import FURTHER, MODELS, Failure, StudyError, freshness, records
from lumbar_utils.data.folder import Cohort
from lumbar_utils.data.preparation import prepare
from lumbar_utils.grid import Grid
from lumbar_utils.output import report
from lumbar_utils.output.registry import made_by
from lumbar_utils.study import Study, clone

MEMORY_MB = 2500  # of a training, before one was measured
MADE_HERE = ("notebooks", "record", "report.html", "study.json")  # by this module, and by no notebook
# files of earlier notebooks, in the study
READS = {
    "05_evaluate_and_compare": ("*/label_maps/*", "*/fit.json", "*/history.csv", "*/robustness.csv", "*/cost.csv"),
}


def notebooks(only: Sequence[str] = ()) -> list[Path]:
    """The study's notebooks in order, or those whose names begin with one of `only` ("05", "02_train")."""
    every = sorted((clone() / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    only = [wanted.zfill(2) if wanted.isdigit() else wanted for wanted in only]  # 5 is 05
    for wanted in only:
        if not any(path.name.startswith(wanted) for path in every):
            raise StudyError(f"no notebook begins with {wanted!r}; there are {', '.join(path.stem for path in every)}")
    return [path for path in every if not only or path.name.startswith(tuple(only))]


def parameters(study: Study | Grid) -> dict:
    """The study as the plain values that a notebook's parameters cell holds; of a grid its seeds too."""
    given = study.settings
    named = {name: given[name] for name in ("profile", "dataset", "seed", "runs")}
    usual = Study(profile=given["profile"]).settings
    other = {key: value for key, value in given.items() if key not in named and value != usual[key]}
    return named | {"overrides": other} | ({"seeds": list(study.seeds)} if isinstance(study, Grid) else {})


@dataclasses.dataclass(frozen=True)
class Step:
    """One notebook of a study, or the last one of a grid.

    model : the network that a training notebook trains; "" for the other notebooks.
    """

    study: Study | Grid
    notebook: Path
    model: str = ""

    @property
    def name(self) -> str:
        """That of the notebook, and of its executed copy."""
        number, _, _ = self.notebook.stem.partition("_")
        return self.notebook.stem if self.model in ("", *MODELS) else f"{number}_train_{self.model}"

    def file(self, ending: str) -> Path:
        """A file of this step's own in the study's folder: .ipynb (the executed copy), .json (its record), .log."""
        return self.study.folder / "notebooks" / f"{self.name}{ending}"

    @property
    def parameters(self) -> dict:
        """What the notebook is given."""
        return parameters(self.study) | ({"model": self.model} if self.model else {})

    def made_from(self, data: str) -> str:
        """What an executed notebook depends on: itself, the package, the study, what it reads, and the data."""
        folders = [member.folder for member in getattr(self.study, "members", [self.study])]
        patterns = READS.get(self.notebook.stem, ())
        read = [file for folder in folders for pattern in patterns for file in sorted(folder.glob(pattern))]
        network = freshness.trained(self.study, data, self.model) if self.model else ""
        accepted = self.study.settings["accept"] if self.notebook.stem.startswith("01") else ()  # it shows the findings
        files = records.fingerprint_files([self.notebook, *read])
        return freshness.made_from("notebook", self.study.fingerprint, data, network, accepted, files)

    def is_finished(self, data: str) -> bool:
        """Whether it was run, on data of this fingerprint, and all that it made is still there."""
        record, network = self.file(".json"), self.study.folder / self.model / "fit.json"
        whole = records.is_whole(record) and not records.cut_off(network)
        return whole and records.is_finished(record, self.made_from(data))

    def made(self) -> list[Path]:
        """Its files: of a training notebook those of its network, of 05 all of the study's that were made up to now."""
        folder, number = self.study.folder, self.notebook.stem[:2]
        files = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
        kept = [path for path in files if not path.name.startswith(".") and path.parts[0] not in MADE_HERE]
        if number != "05":
            own = set(made_by(number)) if self.model in ("", *MODELS) else set()
            own |= {"cases", "split"} if number == "01" else set()
            kept = [path for path in kept if path.parts[0] == self.model or path.stem in own]
        return [folder / path for path in kept if path.suffix != ".ckpt"]


def steps_of(study: Study, only: Sequence[str] = ()) -> list[Step]:
    """The notebooks of a study in order."""
    return [Step(study, path, _model_of(path)) for path in notebooks(only)]


def cells_of(grid: Grid, models: tuple[str, ...] = tuple(MODELS)) -> list[Step]:
    """The cells of a grid, run by run: notebook 01 of its first member, then the training notebooks of all.

    Raises StudyError for a network that there is not.
    """
    for model in models:
        if model not in MODELS and not model.startswith(FURTHER):
            raise StudyError(f"unknown network {model!r}; there are {', '.join(MODELS)}, and {FURTHER}NAME of timm's")
    trained_by = {model: path for path in notebooks() if (model := _model_of(path))}
    first = [Step(grid.study, notebooks(["01"])[0])]
    return first + [
        Step(member, trained_by.get(model, trained_by["efficientnet"]), model)
        for member in grid.members for model in models
    ]  # fmt: skip


def _model_of(notebook: Path) -> str:
    return notebook.stem.partition("_train_")[2]


def run(
    study: Study, only: Sequence[str] = (), say: Callable[[str], None] = print, others: dict[str, Path] | None = None
) -> None:
    """Execute the notebooks in order, then write the report; a notebook that is up to date is left alone, and named.

    others : name -> folder of another tool's label maps, a further column of the comparison: see `external.add`.
    Raises Failure at the first notebook that fails, and StudyError on input that cannot be used.
    """
    from lumbar_utils.scores.external import add_all  # and with it scipy

    steps = steps_of(study, only)
    if study.device in ("cuda", "mps"):
        from lumbar_utils.networks.devices import device_of  # and with it torch

        device_of(study)  # refused before any training where there is none
    cohort = prepare(study)
    records.remove_remains(study.folder, older_s=3600)
    add_all(study, cohort, others or {})
    say(f"{cohort.name}: {len(cohort.cases)} images of {cohort.cases['patient'].nunique()} patients -> {study.folder}")
    try:
        for at_once in _stages(steps):
            _bring_up_to_date(at_once, cohort, say)
    except Failure:
        report.write(study.folder)  # or an earlier one would go on telling of a study without a fault
        raise
    report.write(study.folder)


def _stages(steps: list[Step]) -> list[list[Step]]:
    """Steps in order, those that train networks together: none of them reads what another makes."""
    return [list(group) for _, group in itertools.groupby(steps, key=lambda step: bool(step.model))]


def _bring_up_to_date(steps: list[Step], cohort: Cohort, say: Callable[[str], None]) -> None:
    """Run those of some steps that are not finished, as many at once as the cores bear, the last of them first.

    Two trainings of one thread each take two cores a third less time than one after the other with two threads. The
    last notebook's network, EfficientNet, takes longest.
    """
    todo = []
    for step in steps:
        if step.is_finished(cohort.fingerprint):
            say(f"{step.name}: up to date")
        else:
            todo.insert(0, step)
    from lumbar_utils.execution import ended, with_threads

    workers, environment = 1, {}
    if len(todo) > 1:
        workers, threads = side_by_side(len(todo), steps[0].study)
        environment = with_threads(threads) if workers > 1 else {}
    with futures.ThreadPoolExecutor(workers) as pool:
        jobs = [pool.submit(_do_alone, step, cohort, say, environment) for step in todo]
        with ended(jobs):
            for job in futures.as_completed(jobs):
                job.result()


def side_by_side(trainings: int, study: Study) -> tuple[int, int]:
    """How many trainings run at once, and threads of each: as many as cores and memory bear; on a GPU one."""
    from lumbar_utils.networks.devices import device_of  # and with it torch

    cores, room = joblib.cpu_count(), int(psutil.virtual_memory().available / 1e6 / MEMORY_MB)
    workers = max(1, min(trainings, cores, room)) if device_of(study) == "cpu" else 1
    return workers, cores // workers


def _do_alone(step: Step, cohort: Cohort, say: Callable[[str], None], environment: dict[str, str]) -> None:
    with records.alone(step.file(".lock")) as held:
        if held is None:
            raise StudyError(f"another process runs {step.name} in {step.study.folder} just now; wait for its end")
        say(f"{step.name}: running")
        seconds = do(step, cohort, say, held, environment)
        say(f"{step.name}: done in {seconds:.0f} s")


def do(
    step: Step, cohort: Cohort, say: Callable[[str], None] = print, held: int = -1,
    environment: dict[str, str] | None = None,
) -> float:  # fmt: skip
    """Execute a step's notebook and put on record that it is finished; returns seconds. Raises Failure.

    held : descriptor of a lock that the kernel is to hold too, so that it lasts until both have ended. environment :
    variables of the kernel's own.
    """
    from lumbar_utils.execution import Watch, execute

    step.file(".json").unlink(missing_ok=True)
    started = time.monotonic()
    executed = step.file(".ipynb")
    with Watch(step.study.folder / step.model / "history.csv", say) as watch:
        execute(step.notebook, executed, step.parameters, held, environment, watch.started)
    seconds = round(time.monotonic() - started, 1)
    files = [executed, *step.made()]
    kept = [*files, *(step.study.folder / step.model / "checkpoints").glob("best.ckpt")]
    made_from = step.made_from(cohort.fingerprint)
    records.mark_finished(
        step.file(".json"), made_from, files, seconds=seconds, memory_mb=round(watch.memory_mb),
        disk_mb=round(sum(file.stat().st_size for file in kept) / 1e6, 1),
    )  # fmt: skip
    return seconds
