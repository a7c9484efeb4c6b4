"""How far a study or a grid is, read off its folders at any time, and what is still to come will cost."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lumbar_utils import MODELS, records
from lumbar_utils.pipeline import Step
from lumbar_utils.records import COSTS
from lumbar_utils.study import ROOT, Study

REFERENCE = ROOT / "figures" / "reference"
STATES = ("finished", "running", "failed", "waiting")


def cells(steps: Sequence[Step]) -> pd.DataFrame:
    """One row a step: dataset, seed, fold, step, model, state (of STATES), epoch, epochs, val_f1 (the best yet), the
    columns of COSTS (nan before it is finished), error.

    A step whose settings, data or code have changed since is waiting.
    """
    return pd.DataFrame([_cell(step) for step in steps])


def _cell(step: Step) -> dict:
    study, state = step.study, state_of(step)
    told = records.read_json(step.file(".json")) if state == "finished" else {}
    history = study.folder / step.model / "history.csv"
    best = pd.read_csv(history)["val_f1"] if step.model and history.exists() else pd.Series(dtype=float)
    return {
        "dataset": Path(study.dataset).name, "seed": study.seed, "fold": study.fold, "step": step.name,
        "model": step.model, "state": state, "epoch": len(best), "epochs": study.epochs if step.model else 0,
        "val_f1": best.max(), **{name: told.get(name, float("nan")) for name in COSTS},
        "error": records.read_json(step.file(".error.json")).get("error", "") if state == "failed" else "",
    }  # fmt: skip


def state_of(step: Step) -> str:
    """One of STATES, as the folder tells."""
    data = records.read_json(step.study.folder / "study.json").get("data", {}).get("fingerprint", "")
    if step.is_finished(data):
        return "finished"
    lock = step.file(".lock")
    if lock.exists():
        with records.alone(lock) as held:
            if held is None:
                return "running"
    return "failed" if step.file(".error.json").exists() else "waiting"


def work(study: Study, images: int) -> float:
    """What training takes time in proportion to: pixels seen, over all epochs, of a data set of so many images."""
    validating = 1 - study.train_fraction - study.test_fraction
    share = 1 - 1 / study.folds - validating if study.folds else study.train_fraction
    return study.epochs * images * share * study.height * study.width


def measured(runs: Path) -> pd.DataFrame:
    """What finished steps have cost: one row a step, with profile, name, work, and the columns of COSTS.

    Of the studies in `runs`, and of the reference study, which was made on another machine, perhaps: column `here`.
    """
    rows = []
    for folder in [REFERENCE, *sorted(file.parent for file in runs.glob("*/study.json"))]:
        told, table = records.read_json(folder / "study.json"), folder / "cells.csv"
        found = pd.read_csv(table).to_dict("records") if table.exists() else records.costs_of(folder).to_dict("records")
        settings = {name: value for name, value in told.get("settings", {}).items() if name in SCALES}
        for row in found if told and "grid" not in told else ():
            of = work(Study(**settings), told["data"]["cases"])
            rows.append({"here": folder != REFERENCE, "profile": settings["profile"], "work": of, **row})
    return pd.DataFrame(rows, columns=["here", "profile", "work", "step", *COSTS])


SCALES = ("profile", "epochs", "height", "width", "folds", "fold", "train_fraction", "test_fraction")


def estimates(steps: Sequence[Step], images: int) -> pd.DataFrame:
    """One row a step: step, the columns of COSTS, source; nan where nothing alike was ever measured.

    Medians of finished steps of the same name and profile, of this folder of runs before the reference's; seconds of
    training are taken in proportion to its work.
    """
    known = measured(steps[0].study.runs) if steps else pd.DataFrame()
    rows = []
    for step in steps:
        alike = known[(known["step"] == step.name) & (known["profile"] == step.study.profile)]
        alike = alike[alike["here"]] if alike["here"].any() else alike
        found = {name: alike[name].median() for name in COSTS}
        if step.model:
            found["seconds"] = (alike["seconds"] / alike["work"]).median() * work(step.study, images)
        rows.append({"step": step.name, **found, "source": _source(alike)})
    return pd.DataFrame(rows, columns=["step", *COSTS, "source"])


def _source(alike: pd.DataFrame) -> str:
    if alike.empty:
        return "not measured yet"
    return f"{len(alike)} finished here" if alike["here"].any() else "the reference study"


def said(table: pd.DataFrame) -> str:
    """Cells as text, one line each, and a line that counts the states."""
    shown = table.assign(
        epoch=[f"{row.epoch}/{row.epochs}" if row.epochs else "" for row in table.itertuples()],
        model=table["model"].replace(MODELS),
        error=[text.splitlines()[1].strip()[:60] if text.count("\n") else text[:60] for text in table["error"]],
    )[["seed", "fold", "step", "state", "epoch", "val_f1", "seconds", "memory_mb", "error"]]
    text = shown.to_string(index=False, na_rep="", float_format=lambda value: f"{value:.4g}")
    return f"{text}\n\n{counted(table)}"


def counted(table: pd.DataFrame) -> str:
    """12 cells: 10 finished, 1 running, 1 failed."""
    counts = table["state"].value_counts()
    return f"{len(table)} cell{'s' * (len(table) != 1)}: " + ", ".join(
        f"{counts[state]} {state}" for state in STATES if state in counts
    )


def time_left(table: pd.DataFrame, costs: pd.DataFrame, at_once: int) -> float:
    """Seconds until all cells are finished, so many at a time; what runs is half done, on average."""
    share = table["state"].map({"finished": 0, "running": 0.5, "failed": 1, "waiting": 1}).to_numpy()
    return float((costs["seconds"].to_numpy() * share).sum() / max(1, at_once))


def duration(seconds: float) -> str:
    """2 h 05 min, 12 min, 40 s; `unknown` for nan."""
    if pd.isna(seconds):
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"
