"""What is still to come of a study or a grid will cost so much, by what was measured before."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lumbar_utils import MODELS, progress, records
from lumbar_utils.data import sources
from lumbar_utils.grid import Grid, read
from lumbar_utils.pipeline import Step, cells_of, steps_of
from lumbar_utils.records import COSTS
from lumbar_utils.study import ROOT, Study

REFERENCE = ROOT / "figures" / "reference"
SCALES = (
    "profile", "epochs", "images_per_epoch", "height", "width", "folds", "fold", "train_fraction", "test_fraction",
)  # fmt: skip


def work(study: Study, images: int) -> float:
    """What training takes time in proportion to: pixels seen, over all epochs, of a data set of so many images."""
    validating = 1 - study.train_fraction - study.test_fraction
    share = 1 - 1 / study.folds - validating if study.folds else study.train_fraction
    return study.epochs * max(images * share, study.images_per_epoch) * study.height * study.width


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


def plan(studies: Sequence[Study | Grid], at_once: int, threads: int, models: tuple[str, ...] = tuple(MODELS)) -> str:
    """What a run will do, so many cells of so many threads at once: every cell, whether it is finished, its cost.

    Disk is of what stays, best.ckpt of each network with it.
    """
    told = []
    for study in studies:
        first = study.study if isinstance(study, Grid) else study
        steps, images = _steps(study, models), len(sources.load(first).cases)
        table, costs = progress.cells(steps), estimates(steps, images)
        shown = table[["seed", "fold", "step", "state"]].assign(
            time=costs["seconds"].map(duration), memory=costs["memory_mb"].map(_mb), disk=costs["disk_mb"].map(_mb),
            measured=costs["source"],
        )  # fmt: skip
        todo = costs[table["state"].to_numpy() != "finished"]
        memory = min(at_once, len(todo)) * todo["memory_mb"].max()
        told.append(
            f"{study.folder.name}\n{shown.to_string(index=False)}\n\n{progress.counted(table)}; {at_once} at once, "
            f"{threads} threads each: {duration(time_left(table, costs, at_once))}, "
            f"{_mb(memory)} of memory at most, {_mb(todo['disk_mb'].sum(min_count=1))} of disk"
            f"{_comparison(first, images) if isinstance(study, Grid) else ''}{_phantoms_first(first, at_once)}"
        )
    return "\n\n".join(told)


def _steps(study: Study | Grid, models: tuple[str, ...]) -> list[Step]:
    return cells_of(study, models) if isinstance(study, Grid) else steps_of(study)


def _comparison(study: Study, images: int) -> str:
    """Notebook 05 after the cells; it was measured on the test set of one run."""
    cost = estimates(steps_of(study, ["05"]), images).iloc[0]
    told = f"{duration(cost['seconds'])} and {_mb(cost['memory_mb'])} of memory"
    return f"; then notebook 05, which took {told} on one run"


def _phantoms_first(study: Study, at_once: int) -> str:
    """How long networks are trained on phantoms before, where the study starts from them and nobody has done so yet."""
    if study.start_from != "phantoms" or all((study.start / model / "fit.json").exists() for model in MODELS):
        return ""
    costs = estimates(steps_of(study.phantoms, ["02", "03", "04"]), study.phantom_patients)
    return f"; before that phantoms, once for all studies: {duration(costs['seconds'].sum(skipna=False) / at_once)}"


def _mb(value: float) -> str:
    return "unknown" if value != value else f"{value:,.0f} MB"


def status(folder: Path) -> str:
    """How far the study or grid in a folder is, and how long it will take on, at the number of cells that run now."""
    study = read(folder)
    told = records.read_json(folder / "study.json")
    models = tuple(told.get("grid", {}).get("models", MODELS))
    steps = _steps(study, models)
    table = progress.cells(steps)
    costs = estimates(steps, told["data"]["cases"])
    left = time_left(table, costs, int((table["state"] == "running").sum()))
    more = f"; {duration(left)} left" if (table["state"] != "finished").any() else ""
    return f"{progress.said(table)}{more}"
