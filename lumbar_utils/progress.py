"""How far a study or a grid is, read off its folders at any time."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lumbar_utils import MODELS, records
from lumbar_utils.data.folder import read
from lumbar_utils.pipeline import Step
from lumbar_utils.records import COSTS
from lumbar_utils.study import kind_and_path

STATES = ("finished", "running", "failed", "waiting")
CHANGED = "finished before code, data or settings changed"


def cells(steps: Sequence[Step]) -> pd.DataFrame:
    """One row a step: dataset, study (its folder's name), seed, fold, step, model, state (of STATES), epoch, epochs,
    val_f1 (the best yet), the columns of COSTS (nan before it is finished), error (or why a finished one waits again).

    A step whose settings, data or code have changed since is waiting.
    """
    read_before: dict[str, str] = {}
    return pd.DataFrame([_cell(step, read_before) for step in steps])


def _cell(step: Step, read_before: dict[str, str]) -> dict:
    study, state = step.study, state_of(step, read_before)
    told = records.read_json(step.file(".json")) if state == "finished" else {}
    history = study.folder / step.model / "history.csv"
    best = records.read_csv(history)["val_f1"] if step.model and history.exists() else pd.Series(dtype=float)
    return {
        "dataset": Path(study.dataset).name, "study": study.folder.name, "seed": study.seed, "fold": study.fold,
        "step": step.name, "model": step.model, "state": state, "epoch": len(best),
        "epochs": study.epochs if step.model else 0, "val_f1": best.max(),
        **{name: told.get(name, float("nan")) for name in COSTS},
        "error": _why(step, state),
    }  # fmt: skip


def _why(step: Step, state: str) -> str:
    if state == "failed":
        return records.read_json(step.file(".error.json")).get("error", "")
    return CHANGED if state == "waiting" and step.file(".json").exists() else ""


def state_of(step: Step, read_before: dict[str, str] | None = None) -> str:
    """One of STATES, as the study's folder and its data tell. read_before : see `_fingerprint_of_data`."""
    if step.is_finished(_fingerprint_of_data(step, {} if read_before is None else read_before)):
        return "finished"
    if records.is_held(step.file(".lock")):
        return "running"
    return "failed" if step.file(".error.json").exists() else "waiting"


def _fingerprint_of_data(step: Step, read_before: dict[str, str]) -> str:
    """Of a folder as it is today; of other kinds of data, which take long to read, as the study has recorded it.

    read_before : data set -> fingerprint, of the folders that were read already; this one is added.
    """
    source = step.study.settings["dataset"]
    kind, path = kind_and_path(source)
    if kind != "folder" or not path.is_dir():
        return records.read_json(step.study.folder / "study.json").get("data", {}).get("fingerprint", "")
    if source not in read_before:
        read_before[source] = read(path).fingerprint
    return read_before[source]


def said(table: pd.DataFrame) -> str:
    """Cells as text, one line each, and a line that counts the states."""
    shown = table.assign(
        epoch=[f"{row.epoch}/{row.epochs}" if row.epochs else "" for row in table.itertuples()],
        model=table["model"].replace(MODELS),
        error=[text.splitlines()[1].strip()[:80] if text.count("\n") else text[:80] for text in table["error"]],
    )[["seed", "fold", "step", "state", "epoch", "val_f1", "seconds", "memory_mb", "error"]]
    text = shown.to_string(index=False, na_rep="", float_format=lambda value: f"{value:.4g}")
    return f"{text}\n\n{counted(table)}"


def counted(table: pd.DataFrame) -> str:
    """12 cells: 10 finished, 1 running, 1 failed."""
    counts = table["state"].value_counts()
    return f"{len(table)} cell{'s' * (len(table) != 1)}: " + ", ".join(
        f"{counts[state]} {state}" for state in STATES if state in counts
    )
