"""The notebooks as jobs: what each is made from, and the execution of those that are missing or stale."""

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
from lumbar_utils.output import report
from lumbar_utils.output.registry import made_by, tables_by
from lumbar_utils.study import Grid, Study, clone

MEMORY_MB = 2500  # of a training, where none was measured yet
NOT_BY_NOTEBOOKS = ("notebooks", "record", "report.html", "study.json")  # in a study's folder, written by this package
# notebook -> the files of earlier notebooks that it reads
OF_NETWORKS = ("*/label_maps/*", "*/fit.json", "*/history.csv", "*/robustness.csv", "*/cost.csv")
READS = {"05_evaluate_and_compare": OF_NETWORKS, "06_appendix": OF_NETWORKS}


def notebooks(only: Sequence[str] = ()) -> list[Path]:
    """The study's notebooks in order, or those whose names begin with one of `only` ("05", "5", "02_train")."""
    every = sorted((clone() / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    if not only:
        return every
    beginnings = tuple(name.zfill(2) if name.isdigit() else name for name in only)
    for beginning in beginnings:
        if not any(path.name.startswith(beginning) for path in every):
            names = ", ".join(path.stem for path in every)
            raise StudyError(f"no notebook begins with {beginning!r}; there are {names}")
    return [path for path in every if path.name.startswith(beginnings)]


def parameters(study: Study | Grid) -> dict:
    """The study as the plain values of a notebook's parameters cell; of a grid the seeds too."""
    settings = study.settings
    usual = Study(profile=settings["profile"]).settings
    values = {name: settings[name] for name in ("profile", "dataset", "seed", "runs")}
    overrides = {name: value for name, value in settings.items() if name not in values and value != usual[name]}
    values["overrides"] = overrides
    if isinstance(study, Grid):
        values["seeds"] = list(study.seeds)
    return values


@dataclasses.dataclass(frozen=True)
class Job:
    """One notebook of a study, or the last one of a grid.

    model : the network that a training notebook trains; "" for the other notebooks.
    """

    study: Study | Grid
    notebook: Path
    model: str = ""

    @property
    def number(self) -> str:
        """The notebook's: 01 to 06."""
        return self.notebook.stem[:2]

    @property
    def name(self) -> str:
        """The notebook's, with the network where it is none of the three; also the name of the executed copy."""
        return self.notebook.stem if self.model in ("", *MODELS) else f"{self.number}_train_{self.model}"

    def file(self, ending: str) -> Path:
        """A file of the job in the study's folder: .ipynb (executed copy), .json (completion record), .log, .lock."""
        return self.study.folder / "notebooks" / f"{self.name}{ending}"

    @property
    def parameters(self) -> dict:
        """The values for the notebook's parameters cell."""
        values = parameters(self.study)
        return values | {"model": self.model} if self.model else values

    def made_from(self, data: str) -> str:
        """Fingerprint of the notebook, the package, the settings, the files it reads, and the data.

        data : fingerprint of the cohort.
        """
        studies = self.study.studies if isinstance(self.study, Grid) else [self.study]
        read = []
        for study, pattern in itertools.product(studies, READS.get(self.notebook.stem, ())):
            found = sorted(study.folder.glob(pattern))
            read += [file for file in found if file.parent.name != "tables"]  # tables/cost.csv is notebook 06's own
        if self.number == "06":
            read += sorted(self.study.folder.glob("scores.csv"))
        network = freshness.trained(self.study, data, self.model) if self.model else ""
        accepted = self.study.settings["accept"] if self.number == "01" else ()  # 01 shows the findings of the audit
        files = records.fingerprint_files([self.notebook, *read])
        return freshness.made_from("notebook", self.study.fingerprint, data, network, accepted, files)

    def is_finished(self, data: str) -> bool:
        """Whether it was run on data of this fingerprint, and all that it made is still there."""
        record = self.file(".json")
        if not records.is_complete(record) or records.truncated_files(self.study.folder / self.model / "fit.json"):
            return False
        return records.is_finished(record, self.made_from(data))

    def outputs(self) -> list[Path]:
        """The files that it has made, without checkpoints; of notebook 05 all but those of the appendix."""
        folder, files = self.study.folder, []
        for path in sorted(folder.rglob("*")):
            place = path.relative_to(folder).parts[0]
            skipped = path.name.startswith(".") or path.suffix == ".ckpt" or place in NOT_BY_NOTEBOOKS
            if path.is_file() and not skipped and self._has_made(place, path.stem):
                files.append(path)
        return files

    def _has_made(self, place: str, stem: str) -> bool:
        """Whether a file is this job's. place : the first part of its path in the study's folder."""
        if place in ("figures", "tables"):
            further_network = self.model not in ("", *MODELS)
            return not further_network and stem in (*made_by(self.number), *tables_by(self.number))
        if self.number == "01":
            return stem in ("cases", "split")
        if self.number == "06":
            return stem == "bodies_in_order"
        return self.number == "05" or place == self.model


def jobs_of(study: Study | Grid, models: Sequence[str] = tuple(MODELS)) -> list[Job]:
    """The notebooks of a study; or of a grid notebook 01 once, and for each run the training notebooks.

    models : networks of a grid. Raises StudyError for one that does not exist.
    """
    trainings = {_model_of(path): path for path in notebooks() if _model_of(path)}
    if isinstance(study, Study):
        return [Job(study, path, _model_of(path)) for path in notebooks()]
    for model in models:
        if model not in MODELS and not model.startswith(FURTHER):
            raise StudyError(f"unknown network {model!r}; there are {', '.join(MODELS)}, and {FURTHER}NAME of timm's")
    jobs = [Job(study.study, notebooks(["01"])[0])]
    for run, model in itertools.product(study.studies, models):
        jobs.append(Job(run, trainings.get(model, trainings["efficientnet"]), model))
    return jobs


def _model_of(notebook: Path) -> str:
    return notebook.stem.partition("_train_")[2]


def run(
    study: Study, only: Sequence[str] = (), say: Callable[[str], None] = print, others: dict[str, Path] | None = None
) -> None:
    """Execute the notebooks in order, then write the report; a notebook that is up to date is skipped, and named.

    others : name -> folder of another tool's label maps, one more column of the comparison: see `external.add`.
    Raises Failure at the first notebook that fails, and StudyError on input that cannot be used.
    """
    from lumbar_utils.scores.external import add_all  # loads scipy

    chosen = notebooks(only)
    if study.device in ("cuda", "mps"):
        from lumbar_utils.networks.devices import device_of  # loads torch

        device_of(study)  # refuses a device that is not here before any training
    cohort = prepare(study)
    records.remove_temporary_files(study.folder, older_s=3600)
    add_all(study, cohort, others or {})
    say(f"{cohort.name}: {len(cohort.cases)} images of {cohort.cases['patient'].nunique()} patients -> {study.folder}")
    jobs = [job for job in jobs_of(study) if job.notebook in chosen]
    try:
        for _, stage in itertools.groupby(jobs, key=_stage):
            _run_stage(list(stage), cohort, say)
    except Failure:
        report.write(study.folder)  # or the report of an earlier run would hide the failure
        raise
    report.write(study.folder)


def _stage(job: Job) -> str:
    """Jobs of one stage do not read each other's files: the trainings are one stage, every other notebook its own."""
    return "training" if job.model else job.number


def _run_stage(jobs: list[Job], cohort: Cohort, say: Callable[[str], None]) -> None:
    """Run the jobs that are not finished, as many at once as cores and memory allow, the last one first.

    Two trainings of one thread each take two cores a third less time than one after the other with two threads. The
    last notebook's network, EfficientNet, takes longest.
    """
    todo = []
    for job in jobs:
        if job.is_finished(cohort.fingerprint):
            say(f"{job.name}: up to date")
        else:
            todo.append(job)
    if not todo:
        return
    from lumbar_utils.execution import end_kernels_after, with_threads

    workers, threads = side_by_side(len(todo), todo[0].study) if len(todo) > 1 else (1, 0)
    environment = with_threads(threads) if workers > 1 else {}
    with futures.ThreadPoolExecutor(workers) as pool:
        running = [pool.submit(_run_exclusively, job, cohort, say, environment) for job in reversed(todo)]
        with end_kernels_after(running):
            for future in futures.as_completed(running):
                future.result()


def side_by_side(trainings: int, study: Study) -> tuple[int, int]:
    """How many trainings run at once, and the threads of each: as many as cores and memory allow; on a GPU one."""
    from lumbar_utils.networks.devices import device_of  # loads torch

    cores = joblib.cpu_count()
    workers = min(trainings, cores, trainings_in_memory()) if device_of(study) == "cpu" else 1
    return workers, cores // workers


def trainings_in_memory() -> int:
    """How many trainings the free memory has room for, at least one."""
    return max(1, int(psutil.virtual_memory().available / 1e6 / MEMORY_MB))


def _run_exclusively(job: Job, cohort: Cohort, say: Callable[[str], None], environment: dict[str, str]) -> None:
    with records.file_lock(job.file(".lock")) as lock:
        if lock is None:
            raise StudyError(f"another process runs {job.name} in {job.study.folder} just now; wait for its end")
        say(f"{job.name}: running")
        seconds = run_job(job, cohort, lock, say, environment)
        say(f"{job.name}: done in {seconds:.0f} s")


def run_job(
    job: Job, cohort: Cohort, lock: int, say: Callable[[str], None] = print, environment: dict[str, str] | None = None
) -> float:
    """Execute a job's notebook and record that it is finished; returns seconds. Raises Failure.

    lock : descriptor of the job's lock, which the kernel inherits: if this process is killed, nobody else starts the
    job before the kernel has ended too. environment : further variables of the kernel.
    """
    from lumbar_utils.execution import Watch, execute

    job.file(".json").unlink(missing_ok=True)
    started = time.monotonic()
    executed = job.file(".ipynb")
    with Watch(job.study.folder / job.model / "history.csv", say) as watch:
        execute(job.notebook, executed, job.parameters, lock, environment, watch.started)
    seconds = round(time.monotonic() - started, 1)
    files = [executed, *job.outputs()]
    weights = (job.study.folder / job.model / "checkpoints").glob("best.ckpt")
    disk = sum(file.stat().st_size for file in [*files, *weights])
    costs = {"seconds": seconds, "memory_mb": round(watch.memory_mb), "disk_mb": round(disk / 1e6, 1)}
    records.mark_finished(job.file(".json"), job.made_from(cohort.fingerprint), files, **costs)
    return seconds
