"""The notebooks as jobs: what each is made from, how far each is, and the execution of those missing or stale."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from pathlib import Path

import joblib
import pandas as pd
import psutil

from lumbar_utils import FURTHER, MODELS, Failure, StudyError, freshness, records
from lumbar_utils.data.folder import Cohort, read
from lumbar_utils.data.preparation import prepare
from lumbar_utils.execution import end_kernels_after, execute, parameters, report_epochs, with_threads
from lumbar_utils.output import report
from lumbar_utils.output.registry import FIGURES, TABLES, made_by
from lumbar_utils.study import Grid, Study, clone, kind_and_path, read_study

STATES = ("finished", "running", "failed", "waiting")  # of a job
MEMORY_MB = 2500  # of a training
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
            made = [*made_by(FIGURES, self.number), *made_by(TABLES, self.number)]
            return not further_network and stem in made
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


# How far jobs are, read from their files at any time


def table_of(jobs: Sequence[Job]) -> pd.DataFrame:
    """One row a job; one whose settings, data or code have changed since is waiting.

    Columns: dataset, study (its folder's name), seed, fold, step (the job's name), model, state (of STATES), epoch,
    epochs, val_f1 (the best so far), seconds (nan unless finished), error (or why it is waiting again).
    """
    fingerprints: dict[str, str] = {}
    return pd.DataFrame([_row_of(job, fingerprints) for job in jobs])


def _row_of(job: Job, fingerprints: dict[str, str]) -> dict:
    study, state = job.study, state_of(job, fingerprints)
    history = study.folder / job.model / "history.csv"
    val_f1 = records.read_csv(history)["val_f1"] if job.model and history.exists() else pd.Series(dtype=float)
    seconds, error = float("nan"), ""
    if state == "finished":
        seconds = records.read_json(job.file(".json"))["seconds"]
    elif state == "failed":
        error = records.read_json(job.file(".error.json")).get("error", "")
    elif state == "waiting" and job.file(".json").exists():
        error = "finished before code, data or settings changed"
    return {
        "dataset": Path(study.dataset).name, "study": study.folder.name, "seed": study.seed, "fold": study.fold,
        "step": job.name, "model": job.model, "state": state, "epoch": len(val_f1),
        "epochs": study.epochs if job.model else 0, "val_f1": val_f1.max(), "seconds": seconds, "error": error,
    }  # fmt: skip


def state_of(job: Job, fingerprints: dict[str, str]) -> str:
    """One of STATES. fingerprints : of data sets that were read before, by name; see `_fingerprint_of_data`."""
    if job.is_finished(_fingerprint_of_data(job.study, fingerprints)):
        return "finished"
    if records.is_locked(job.file(".lock")):
        return "running"
    return "failed" if job.file(".error.json").exists() else "waiting"


def _fingerprint_of_data(study: Study, fingerprints: dict[str, str]) -> str:
    """That of a folder as it is today; that of other data, which take long to read, as the study has recorded it.

    fingerprints : data set -> fingerprint; a folder that is read is added.
    """
    source = study.settings["dataset"]
    kind, path = kind_and_path(source)
    if kind != "folder" or not path.is_dir():
        return records.read_json(study.folder / "study.json").get("data", {}).get("fingerprint", "")
    if source not in fingerprints:
        fingerprints[source] = read(path).fingerprint
    return fingerprints[source]


def count_states(table: pd.DataFrame) -> str:
    """12 jobs: 10 finished, 1 running, 1 failed. table : with a column state."""
    counts = table["state"].value_counts()
    states = ", ".join(f"{counts[state]} {state}" for state in STATES if state in counts)
    return f"{len(table)} job{'s' * (len(table) != 1)}: {states}"


def describe_jobs(study: Study | Grid, models: Sequence[str] = tuple(MODELS)) -> str:
    """Every job of a study or grid with its state, as text, and how long those that are not finished will take."""
    table = table_of(jobs_of(study, models))
    lines = table.drop(columns=["dataset", "study", "model"]).assign(error=table["error"].map(_short))
    text = lines.to_string(index=False, na_rep="", float_format="{:.4g}".format)
    return f"{study.folder.name}\n{text}\n\n{count_states(table)}{time_left(table)}"


def _short(error: str) -> str:
    """The second line of an error of several lines, which says what went wrong; 80 characters of it."""
    lines = error.splitlines()
    return lines[1].strip()[:80] if len(lines) > 1 else error[:80]


def time_left(table: pd.DataFrame) -> str:
    """`; 12 min left`, at the number of jobs that run now, each as long as those of its network that are finished.

    Empty if none is left, or nothing like it is finished yet. table : of `table_of`.
    """
    usual = table.groupby("model")["seconds"].mean()
    left = table.loc[table["state"] != "finished", "model"].map(usual)
    if left.empty or left.isna().any():
        return ""
    at_once = max(1, (table["state"] == "running").sum())
    return f"; {left.sum() / at_once / 60:.0f} min left"


def status(folder: Path) -> str:
    """How far the study or grid in a folder is."""
    models = records.read_json(folder / "study.json").get("grid", {}).get("models", MODELS)
    return describe_jobs(read_study(folder), models)


# Execution


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
        from lumbar_utils.machine import device_of  # loads torch

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
    workers, threads = side_by_side(len(todo), todo[0].study) if len(todo) > 1 else (1, 0)
    environment = with_threads(threads) if workers > 1 else {}
    with futures.ThreadPoolExecutor(workers) as pool:
        running = [pool.submit(_run_exclusively, job, cohort, say, environment) for job in reversed(todo)]
        with end_kernels_after(running):
            for future in futures.as_completed(running):
                future.result()


def side_by_side(trainings: int, study: Study) -> tuple[int, int]:
    """How many trainings run at once, and the threads of each: as many as cores and memory allow; on a GPU one."""
    from lumbar_utils.machine import device_of  # loads torch

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
    job.file(".json").unlink(missing_ok=True)
    started = time.monotonic()
    executed = job.file(".ipynb")
    with report_epochs(job.study.folder / job.model / "history.csv", say):
        execute(job.notebook, executed, job.parameters, lock, environment)
    seconds = round(time.monotonic() - started, 1)
    files = [executed, *job.outputs()]
    records.mark_finished(job.file(".json"), job.made_from(cohort.fingerprint), files, seconds=seconds)
    return seconds
