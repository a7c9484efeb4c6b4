"""What lies in a study's folder, and what is missing from it."""

import dataclasses
import json
from functools import cached_property
from pathlib import Path

import pandas as pd

from lumbar_utils import MODELS, freshness, records
from lumbar_utils.data.folder import Cohort
from lumbar_utils.output.export import FIGURES, TABLES
from lumbar_utils.study import record_of

_OF_A_NETWORK = ("fit.json", "predict.json", "robustness.csv", "cost.csv")
_NOTEBOOKS = (
    "01_data_exploration",
    "02_train_unet",
    "03_train_hrnet",
    "04_train_efficientnet",
    "05_evaluate_and_compare",
)


def _expected(notebook: str) -> tuple[str, ...]:
    """Files that a notebook leaves in the study's folder."""
    number, network = notebook[:2], notebook.partition("_train_")[2]
    files = ["cases.csv", "split.csv"] if number == "01" else []
    files += [f"{network}/{name}" for name in _OF_A_NETWORK] if network else []
    files += ["scores.csv", *(f"tables/{name}.csv" for name in TABLES)] if number == "05" else []
    return (*files, *(f"figures/{name}.png" for name, maker in FIGURES.items() if maker == number))


EXPECTED = {name: _expected(name) for name in _NOTEBOOKS}


@dataclasses.dataclass(frozen=True)
class Notebook:
    """One executed copy: state (done, failed, unfinished, not run), when, how long, and its code cells.

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
    """A study's folder, read where it is asked for; what is not there is empty, never an error."""

    folder: Path
    study: dict

    @property
    def data(self) -> dict:
        """What study.json says of the data."""
        return self.study["data"]

    @property
    def note(self) -> str:
        """What has to stand beside every result: empty for measured images."""
        return "Synthetic images: this says nothing about patients." if self.data["synthetic"] else ""

    @cached_property
    def cases(self) -> pd.DataFrame:
        """cases.csv, with patient and split; empty before the data were prepared."""
        file = self.folder / "cases.csv"
        wanted = pd.DataFrame(columns=["case", "patient", "split"])
        return records.read_csv(file) if file.exists() else wanted

    @cached_property
    def cohort(self) -> Cohort:
        """The cases without their images: enough to say in words what was measured on."""
        data = self.data
        about = (data["name"], data["licence"], data["synthetic"], {}, tuple(data["annotated"]))
        return Cohort(self.folder, *about, self.cases, data["fingerprint"])

    @property
    def networks(self) -> list[str]:
        """What the study or grid trains: the three, or those that the grid was given."""
        return self.study.get("grid", {}).get("models", list(MODELS))

    @cached_property
    def models(self) -> dict[str, str]:
        """Key -> printed name: its networks, then all others that have a folder of label maps or of training."""
        found = {file.parent.name for kind in ("fit.json", "predict.json") for file in self.folder.glob(f"*/{kind}")}
        return {name: MODELS.get(name, name) for name in [*self.networks, *sorted(found - set(self.networks))]}

    def csv(self, name: str) -> pd.DataFrame:
        """A CSV file of the study; empty if it is absent."""
        file = self.folder / name
        return records.read_csv(file) if file.exists() else pd.DataFrame()

    def has(self, *names: str) -> bool:
        """Whether files of the study are all there."""
        return all((self.folder / name).exists() for name in names)

    @cached_property
    def training(self) -> pd.DataFrame:
        """One row a network that was begun: model, parameters, epochs, best_epoch, best_val_f1, seconds, finished.

        One that was trained on other data than the study has today is not finished.
        """
        rows, today = [], self.data["fingerprint"]
        for model in self.models:
            history, fit = self.csv(f"{model}/history.csv"), records.read_json(self.folder / model / "fit.json")
            if len(history):
                best = history.loc[history["val_f1"].idxmax()]
                rows.append({
                    "model": model, "parameters": fit.get("parameters"), "epochs": len(history),
                    "best_epoch": int(best["epoch"]), "best_val_f1": best["val_f1"],
                    "seconds": history["seconds"].sum(), "finished": bool(fit) and fit.get("data", today) == today,
                })  # fmt: skip
        return pd.DataFrame(rows)

    @cached_property
    def provenance(self) -> dict[str, dict]:
        """Result, in words -> lumbar_utils, commit, packages and environment, as recorded by the run that made it."""
        found = {}
        for result, made in records.recorded_provenance(self.folder).items():
            model, _, what = result.rpartition("/")
            name = self.models.get(model, model)
            found[{"fit": f"training of {name}", "predict": f"label maps of {name}"}.get(what, what)] = made
        return found

    @cached_property
    def findings(self) -> pd.DataFrame:
        """What the audit found: severity, kind, case, what."""
        found = self.data.get("findings", {})
        rows = [(*said.partition(": ")[::2], *name.partition(":")[::2]) for name, said in found.items()]
        return pd.DataFrame(rows, columns=["severity", "what", "kind", "case"])[["severity", "kind", "case", "what"]]

    @property
    def seeds(self) -> list[int]:
        """One, or those of a grid."""
        return self.study.get("grid", {}).get("seeds", [self.study["settings"]["seed"]])

    @cached_property
    def cells(self) -> pd.DataFrame:
        """Of a grid, its cells as they were when it was compared last, as from `progress.cells`; empty of a study."""
        return self.csv("cells.csv")

    @property
    def _expected(self) -> dict[str, tuple[str, ...]]:
        """EXPECTED; of a grid the last notebook's, as the others lie with its members."""
        return {name: EXPECTED[name] for name in (_NOTEBOOKS[-1:] if "grid" in self.study else _NOTEBOOKS)}

    @cached_property
    def notebooks(self) -> list[Notebook]:
        """The study's own in order, run or not, then any other executed copy."""
        copies = {file.stem: file for file in sorted((self.folder / "notebooks").glob("[!.]*.ipynb"))}
        return [_notebook(name, copies.get(name)) for name in dict.fromkeys([*self._expected, *copies])]

    @cached_property
    def missing(self) -> dict[str, list[str]]:
        """Notebook -> files that it makes and that are not there, cell of a grid -> its state; only where one lacks."""
        lacking = {name: [file for file in files if not self.has(file)] for name, files in self._expected.items()}
        unfinished = self.cells[self.cells["state"] != "finished"] if len(self.cells) else self.cells
        for cell in unfinished.itertuples():
            lacking[f"{cell.step} in {cell.study}"] = [
                cell.state if pd.isna(cell.error) else f"{cell.state}: {cell.error}"
            ]
        lacking["stale"] = [self.stale] if self.stale else []
        return {name: words for name, words in lacking.items() if words}

    @cached_property
    def stale(self) -> str:
        """Why scores, tables and figures are not of what lies in the folder today; "" if they are."""
        return freshness.stale_scores(self.folder)

    @cached_property
    def reading(self) -> str:
        """The paragraph of notebook 05 on Table II; empty before it is there."""
        file = self.folder / "tables" / "reading.txt"
        return file.read_text(encoding="utf-8").strip() if file.exists() else ""


def read(folder: Path) -> Results:
    """The results in a study's folder. Raises StudyError where there is no study.json."""
    return Results(folder, record_of(folder))


def _notebook(name: str, file: Path | None) -> Notebook:
    if file is None:
        return Notebook(name, "not run")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError:  # papermill is writing it just now
        return Notebook(name, "unfinished")
    run = content["metadata"].get("papermill", {})
    state = "failed" if run.get("exception") else "done" if run.get("end_time") else "unfinished"
    cells = pd.DataFrame([_cell(number, cell) for number, cell in enumerate(content["cells"]) if _is_code(cell)])
    errors = [out for cell in content["cells"] for out in cell.get("outputs", []) if out["output_type"] == "error"]
    error = f"{errors[0]['ename']}: {errors[0]['evalue']}" if errors else ""
    started = (run.get("start_time") or "")[:19].replace("T", " ")
    return Notebook(name, state, started, run.get("duration") or float("nan"), error, cells)


def _is_code(cell: dict) -> bool:
    return cell["cell_type"] == "code"


def _cell(number: int, cell: dict) -> dict:
    """Number, first line, seconds and status of a code cell, as papermill left them."""
    lines = "".join(cell["source"]).strip().splitlines()
    run = cell["metadata"].get("papermill", {})
    seconds, status = run.get("duration"), run.get("status", "not run")
    return {"cell": number, "line": lines[0] if lines else "", "seconds": seconds, "status": status}
