"""What a study's folder holds, and what is missing from it."""

import dataclasses
import json
from functools import cached_property
from pathlib import Path

import pandas as pd

from lumbar_utils import MODELS, freshness, model_name, records
from lumbar_utils.output.registry import FIGURES, TABLES, made_by
from lumbar_utils.output.tables import images_of
from lumbar_utils.study import record_of

SIDES = ("train", "validation", "test")
NETWORK_FILES = ("fit.json", "predict.json", "robustness.csv", "cost.csv")
FILES = {  # notebook -> what it writes into the study's folder, without its figures
    "01_data_exploration": ["cases.csv", "split.csv"],
    "02_train_unet": [f"unet/{name}" for name in NETWORK_FILES],
    "03_train_hrnet": [f"hrnet/{name}" for name in NETWORK_FILES],
    "04_train_efficientnet": [f"efficientnet/{name}" for name in NETWORK_FILES],
    "05_evaluate_and_compare": ["scores.csv"],
    "06_appendix": [],
}


def expected_files(notebook: str) -> list[str]:
    """Files that a notebook of FILES writes into the study's folder, tables and figures included."""
    tables = [f"tables/{name}.csv" for name in made_by(TABLES, notebook[:2])]
    figures = [f"figures/{name}.png" for name in made_by(FIGURES, notebook[:2])]
    return [*FILES[notebook], *tables, *figures]


@dataclasses.dataclass(frozen=True)
class Notebook:
    """An executed copy of a notebook.

    state : done, failed, unfinished, or "not run" where there is no copy. started : in UTC. seconds : nan if unknown.
    cells : one row a code cell: cell (its number), line (its first), seconds (nan if it did not run), status.
    """

    name: str
    state: str
    started: str = ""
    seconds: float = float("nan")
    error: str = ""
    cells: pd.DataFrame = dataclasses.field(default_factory=pd.DataFrame)


@dataclasses.dataclass(frozen=True)
class Results:
    """A study's folder and its study.json; files are read when asked for, and one that is absent reads as empty."""

    folder: Path
    study: dict

    @property
    def data(self) -> dict:
        """What study.json says of the data."""
        return self.study["data"]

    @property
    def note(self) -> str:
        """The warning beside every result on synthetic images; empty for measured ones."""
        return "Synthetic images: this says nothing about patients." if self.data["synthetic"] else ""

    def has(self, file: str) -> bool:
        """Whether the study has a file, by its path in the folder."""
        return (self.folder / file).exists()

    def csv(self, file: str) -> pd.DataFrame:
        """A table of the study; empty if it is absent."""
        return records.read_csv(self.folder / file) if self.has(file) else pd.DataFrame()

    def text(self, file: str) -> str:
        """A text file of the study; empty if it is absent."""
        return (self.folder / file).read_text(encoding="utf-8").strip() if self.has(file) else ""

    @cached_property
    def cases(self) -> pd.DataFrame:
        """cases.csv, with patient and split; empty before the data were prepared."""
        return self.csv("cases.csv") if self.has("cases.csv") else pd.DataFrame(columns=["case", "patient", "split"])

    @cached_property
    def split(self) -> pd.DataFrame:
        """Size of each side of the split that has cases: side, patients, images."""
        sides = {side: cases for side, cases in self.cases.groupby("split")}
        rows = [(side, sides[side]["patient"].nunique(), images_of(sides[side])) for side in SIDES if side in sides]
        return pd.DataFrame(rows, columns=["side", "patients", "images"])

    @property
    def networks(self) -> list[str]:
        """Networks that the study trains: the three, or those of the grid."""
        return self.study.get("grid", {}).get("models", list(MODELS))

    @property
    def seeds(self) -> list[int]:
        """The study's seed, or those of the grid."""
        return self.study.get("grid", {}).get("seeds", [self.study["settings"]["seed"]])

    @cached_property
    def models(self) -> dict[str, str]:
        """Key -> name in print: `networks`, then every other model that was trained or has label maps here."""
        files = [*self.folder.glob("*/fit.json"), *self.folder.glob("*/predict.json")]
        further = sorted({file.parent.name for file in files} - set(self.networks))
        return {model: model_name(model) for model in [*self.networks, *further]}

    @cached_property
    def training(self) -> pd.DataFrame:
        """Training so far, one row a network: model, parameters, epochs, best_epoch, best_val_f1, seconds, finished.

        A network that was trained on other data than the study has today counts as unfinished.
        """
        rows = []
        for model in self.models:
            history = self.csv(f"{model}/history.csv")
            if history.empty:
                continue
            fit = records.read_json(self.folder / model / "fit.json")
            best = history.loc[history["val_f1"].idxmax()]
            data = self.data["fingerprint"]
            rows.append({
                "model": model,
                "parameters": fit.get("parameters"),
                "epochs": len(history),
                "best_epoch": int(best["epoch"]),
                "best_val_f1": best["val_f1"],
                "seconds": history["seconds"].sum(),
                "finished": bool(fit) and fit.get("data", data) == data,
            })  # fmt: skip
        return pd.DataFrame(rows)

    @cached_property
    def provenance(self) -> dict[str, dict]:
        """Result, in words -> lumbar_utils, commit, packages and environment of the run that made it."""
        found = {}
        for result, made in records.recorded_provenance(self.folder).items():
            model, _, step = result.rpartition("/")
            name = self.models.get(model, model)
            words = {"fit": f"training of {name}", "predict": f"label maps of {name}"}
            found[words.get(step, step)] = made
        return found

    @cached_property
    def findings(self) -> pd.DataFrame:
        """Findings of the audit: severity, kind, case, what."""
        rows = []
        for name, text in self.data.get("findings", {}).items():
            kind, _, case = name.partition(":")
            severity, _, what = text.partition(": ")
            rows.append((severity, kind, case, what))
        return pd.DataFrame(rows, columns=["severity", "kind", "case", "what"])

    @cached_property
    def jobs(self) -> pd.DataFrame:
        """The jobs of a grid when it was last compared, as from `pipeline.table_of`; empty for a study."""
        return self.csv("cells.csv")

    @property
    def own_notebooks(self) -> list[str]:
        """Notebooks that run in this folder; of a grid 05 and 06, as the others run in the folders of its runs."""
        names = list(FILES)
        return names[-2:] if "grid" in self.study else names

    @cached_property
    def notebooks(self) -> list[Notebook]:
        """`own_notebooks` in order, run or not, then any other executed copy."""
        copies = {file.stem: file for file in sorted((self.folder / "notebooks").glob("[!.]*.ipynb"))}
        names = dict.fromkeys([*self.own_notebooks, *copies])
        return [read_notebook(copies[name]) if name in copies else Notebook(name, "not run") for name in names]

    @cached_property
    def missing(self) -> dict[str, list[str]]:
        """What is missing: notebook -> files that it has not written, job of a grid -> its state, stale -> why."""
        missing = {}
        for notebook in self.own_notebooks:
            missing[notebook] = [file for file in expected_files(notebook) if not self.has(file)]
        for job in self.jobs.itertuples():
            if job.state != "finished":
                error = "" if pd.isna(job.error) else f": {job.error}"
                missing[f"{job.step} in {job.study}"] = [f"{job.state}{error}"]
        missing["stale"] = [self.stale] if self.stale else []
        return {name: items for name, items in missing.items() if items}

    @cached_property
    def stale(self) -> str:
        """Why scores, tables and figures do not belong to what lies in the folder today; "" if they do."""
        return freshness.stale_scores(self.folder)


def read(folder: Path) -> Results:
    """The results in a study's folder. Raises StudyError where there is no study.json."""
    return Results(folder, record_of(folder))


def read_notebook(file: Path) -> Notebook:
    """An executed copy, as papermill leaves it."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError:  # papermill is writing it just now
        return Notebook(file.stem, "unfinished")
    rows, errors = [], []
    for number, cell in enumerate(content["cells"]):
        if cell["cell_type"] == "code":
            run = cell["metadata"].get("papermill", {})
            line = "".join(cell["source"]).strip().partition("\n")[0]
            status = run.get("status", "not run")
            rows.append({"cell": number, "line": line, "seconds": run.get("duration"), "status": status})
            errors += [output for output in cell["outputs"] if output["output_type"] == "error"]
    run = content["metadata"].get("papermill", {})
    return Notebook(
        file.stem,
        _state(run),
        started=(run.get("start_time") or "")[:19].replace("T", " "),
        seconds=run.get("duration") or float("nan"),
        error=f"{errors[0]['ename']}: {errors[0]['evalue']}" if errors else "",
        cells=pd.DataFrame(rows),
    )


def _state(run: dict) -> str:
    """State of a notebook from papermill's metadata."""
    if run.get("exception"):
        return "failed"
    return "done" if run.get("end_time") else "unfinished"
