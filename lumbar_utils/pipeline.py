"""The notebooks as jobs: what each is made from, what it makes, and how far it is. `cluster` runs them."""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lumbar_utils import FURTHER, MODELS, StudyError, freshness, records
from lumbar_utils.data.folder import read
from lumbar_utils.execution import parameters
from lumbar_utils.output.registry import FIGURES, TABLES, made_by
from lumbar_utils.study import Grid, Study, clone, kind_and_path, read_study

STATES = ("finished", "running", "failed", "waiting")  # of a job
# number of a notebook -> the files of networks that it reads, in the folders of studies
OF_NETWORKS = ("*/label_maps/*", "*/fit.json", "*/history.csv", "*/robustness.csv", "*/cost.csv")
READS = {"05": OF_NETWORKS, "06": OF_NETWORKS}
# number of a notebook -> the files that it makes beside figures and tables; a training makes the folder of its network
MAKES = {
    "01": ("cases.csv", "split.csv"),
    "05": ("*.csv", "scores.json", "*/label_maps/*", "*/history.csv", "*/fit.json", "*/predict.json"),
    "06": ("bodies_in_order.csv",),
}


def notebooks(only: Sequence[str] = ()) -> list[Path]:
    """The study's notebooks in order, or those whose names begin with one of `only` ("05", "5", "02_train")."""
    every = sorted((clone() / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    beginnings = tuple(name.zfill(2) if name.isdigit() else name for name in only or [""])
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

    @property
    def data(self) -> str:
        """Fingerprint of the study's data, as they were last prepared; "" before."""
        return records.read_json(self.study.folder / "study.json").get("data", {}).get("fingerprint", "")

    def made_from(self, data: str) -> str:
        """Fingerprint of the notebook, the package, the settings, the files it reads, and the data.

        data : fingerprint of the cohort.
        """
        read = []
        for study in self.study.studies if isinstance(self.study, Grid) else [self.study]:
            found = _matching(study.folder, READS.get(self.number, ()))
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
        """The files that it has made, without checkpoints; of notebook 05 also the label maps that it gathered."""
        patterns = list(MAKES.get(self.number, [f"{self.model}/**/*"]))
        if self.model in ("", *MODELS):
            patterns += [f"figures/{name}.*" for name in made_by(FIGURES, self.number)]
            patterns += [f"tables/{name}.*" for name in made_by(TABLES, self.number)]
        return [path for path in _matching(self.study.folder, patterns) if path.suffix != ".ckpt"]


def _matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """The files that match: for each pattern in the order of their names, without hidden ones."""
    found = []
    for pattern in patterns:
        found += [path for path in sorted(folder.glob(pattern)) if path.is_file() and path.name[0] != "."]
    return found


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
    today = functools.cache(_fingerprint_today)  # a data set is read once
    return pd.DataFrame([_row_of(job, today(job.study.dataset) or job.data) for job in jobs])


def _fingerprint_today(dataset: str) -> str:
    """That of a folder as it is; "" for other data, which take long to read."""
    kind, path = kind_and_path(dataset)
    return read(path).fingerprint if kind == "folder" and path.is_dir() else ""


def _row_of(job: Job, data: str) -> dict:
    study, state = job.study, state_of(job, data)
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


def state_of(job: Job, data: str) -> str:
    """One of STATES. data : fingerprint of the cohort."""
    if job.is_finished(data):
        return "finished"
    if records.is_locked(job.file(".lock")):
        return "running"
    return "failed" if job.file(".error.json").exists() else "waiting"


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
