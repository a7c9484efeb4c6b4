"""How far jobs are, read from their files at any time, and what the rest will cost, by what others have cost."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lumbar_utils import MODELS, records
from lumbar_utils.data import sources
from lumbar_utils.data.folder import read
from lumbar_utils.pipeline import Job, jobs_of
from lumbar_utils.records import COSTS
from lumbar_utils.study import PROFILES, ROOT, Grid, Study, kind_and_path, read_study

STATES = ("finished", "running", "failed", "waiting")
STALE = "finished before code, data or settings changed"
REFERENCE = ROOT / "figures" / "reference"  # a study whose costs are known, perhaps of another machine


def table_of(jobs: Sequence[Job]) -> pd.DataFrame:
    """One row a job; one whose settings, data or code have changed since is waiting.

    Columns: dataset, study (its folder's name), seed, fold, step (the job's name), model, state (of STATES), epoch,
    epochs, val_f1 (the best yet), those of COSTS (nan unless finished), error (or why it is waiting again).
    """
    fingerprints: dict[str, str] = {}
    return pd.DataFrame([_row_of(job, fingerprints) for job in jobs])


def _row_of(job: Job, fingerprints: dict[str, str]) -> dict:
    study, state = job.study, state_of(job, fingerprints)
    record = records.read_json(job.file(".json")) if state == "finished" else {}
    history = study.folder / job.model / "history.csv"
    val_f1 = records.read_csv(history)["val_f1"] if job.model and history.exists() else pd.Series(dtype=float)
    error = ""
    if state == "failed":
        error = records.read_json(job.file(".error.json")).get("error", "")
    elif state == "waiting" and job.file(".json").exists():
        error = STALE
    return {
        "dataset": Path(study.dataset).name, "study": study.folder.name, "seed": study.seed, "fold": study.fold,
        "step": job.name, "model": job.model, "state": state, "epoch": len(val_f1),
        "epochs": study.epochs if job.model else 0, "val_f1": val_f1.max(),
        **{name: record.get(name, float("nan")) for name in COSTS},
        "error": error,
    }  # fmt: skip


def state_of(job: Job, fingerprints: dict[str, str] | None = None) -> str:
    """One of STATES. fingerprints : of data sets that were read before, by name; see `_fingerprint_of_data`."""
    if job.is_finished(_fingerprint_of_data(job.study, {} if fingerprints is None else fingerprints)):
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


def status(folder: Path) -> str:
    """How far the study or grid in a folder is, and the time left at the number of jobs that run now."""
    study = read_study(folder)
    record = records.read_json(folder / "study.json")
    jobs = jobs_of(study, record.get("grid", {}).get("models", MODELS))
    table = table_of(jobs)
    lines = table.assign(
        epoch=[f"{row.epoch}/{row.epochs}" if row.epochs else "" for row in table.itertuples()],
        error=[_short(error) for error in table["error"]],
    )[["seed", "fold", "step", "state", "epoch", "val_f1", "seconds", "memory_mb", "error"]]
    text = lines.to_string(index=False, na_rep="", float_format=lambda value: f"{value:.4g}")
    summary = count_states(table)
    if (table["state"] != "finished").any():
        running = int((table["state"] == "running").sum())
        summary += f"; {duration(time_left(table, estimate(jobs, record['data']['cases']), running))} left"
    return f"{text}\n\n{summary}"


def _short(error: str) -> str:
    """The second line of an error of several lines, which says what went wrong; 80 characters of it."""
    lines = error.splitlines()
    return lines[1].strip()[:80] if len(lines) > 1 else error[:80]


def work(settings: dict, images: int) -> float:
    """Pixels that a training on a data set of so many images sees, over all epochs; its time is in proportion to it."""
    share = settings["train_fraction"]
    if settings["folds"]:
        share = settings["train_fraction"] + settings["test_fraction"] - 1 / settings["folds"]
    seen = max(images * share, settings["images_per_epoch"])
    return settings["epochs"] * seen * settings["height"] * settings["width"]


def measured(runs: Path) -> pd.DataFrame:
    """One row a finished job: here, profile, work, step (its name), and the columns of COSTS.

    Of the studies in the folder `runs`, and of the reference study (`here` is False), perhaps of another machine.
    """
    rows = []
    for folder in [REFERENCE, *sorted(file.parent for file in runs.glob("*/study.json"))]:
        record = records.read_json(folder / "study.json")
        if not record or "grid" in record:
            continue
        profile, images = record["settings"]["profile"], record["data"]["cases"]
        of_study = {"here": folder != REFERENCE, "profile": profile}
        of_study["work"] = work(PROFILES[profile] | record["settings"], images)  # an older record lacks newer settings
        table = folder / "cells.csv"
        costs = pd.read_csv(table) if table.exists() else records.costs_of(folder)
        rows += [of_study | row for row in costs.to_dict("records")]
    return pd.DataFrame(rows, columns=["here", "profile", "work", "step", *COSTS])


def estimate(jobs: Sequence[Job], images: int) -> pd.DataFrame:
    """One row a job: step (its name), the columns of COSTS, source; nan where nothing similar was measured.

    Medians of finished jobs of the same name and profile, of the same folder of runs rather than of the reference;
    seconds of a training are in proportion to its work.
    """
    known = measured(jobs[0].study.runs) if jobs else pd.DataFrame()
    rows = []
    for job in jobs:
        similar = known[(known["step"] == job.name) & (known["profile"] == job.study.profile)]
        own_work = work(job.study.settings, images)
        if job.model:  # a study without training tests networks as they are, which takes another time
            similar = similar[(similar["work"] > 0) == (own_work > 0)]
        if similar["here"].any():
            similar = similar[similar["here"]]
        costs = {name: similar[name].median() for name in COSTS}
        if job.model and own_work:
            costs["seconds"] = (similar["seconds"] / similar["work"]).median() * own_work
        rows.append({"step": job.name, **costs, "source": _source(similar)})
    return pd.DataFrame(rows, columns=["step", *COSTS, "source"])


def _source(similar: pd.DataFrame) -> str:
    if similar.empty:
        return "not measured yet"
    return f"{len(similar)} finished here" if similar["here"].any() else "the reference study"


def time_left(table: pd.DataFrame, costs: pd.DataFrame, at_once: int) -> float:
    """Seconds until all jobs are finished, so many at once; a running job counts half.

    table : of `table_of`. costs : of `estimate`, for the same jobs.
    """
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


def megabytes(value: float) -> str:
    """1,234 MB; `unknown` for nan."""
    return "unknown" if pd.isna(value) else f"{value:,.0f} MB"


def plan(study: Study | Grid, at_once: int, threads: int, models: Sequence[str] = tuple(MODELS)) -> str:
    """Every job of a study or grid, whether it is finished, its cost; and the cost of the rest, so many jobs at once.

    Disk is what remains, with the best checkpoint of each network.
    """
    first = study.study if isinstance(study, Grid) else study
    jobs, images = jobs_of(study, models), len(sources.load(first).cases)
    table, costs = table_of(jobs), estimate(jobs, images)
    lines = table[["seed", "fold", "step", "state"]].assign(
        time=costs["seconds"].map(duration), memory=costs["memory_mb"].map(megabytes),
        disk=costs["disk_mb"].map(megabytes), measured=costs["source"],
    )  # fmt: skip
    todo = costs[table["state"].to_numpy() != "finished"]
    summary = (
        f"{count_states(table)}; {at_once} at once, {threads} threads each: "
        f"{duration(time_left(table, costs, at_once))}, "
        f"{megabytes(min(at_once, len(todo)) * todo['memory_mb'].max())} of memory at most, "
        f"{megabytes(todo['disk_mb'].sum(min_count=1))} of disk"
    )
    if isinstance(study, Grid):
        summary += _comparison(first, images)
    return f"{study.folder.name}\n{lines.to_string(index=False)}\n\n{summary}{_phantoms_first(first, at_once)}"


def _comparison(study: Study, images: int) -> str:
    """The cost of a grid's notebooks 05 and 06, measured on the test set of one run."""
    cost = estimate(jobs_of(study)[-2:], images)
    seconds, memory = cost["seconds"].sum(skipna=False), megabytes(cost["memory_mb"].max())
    return f"; then notebooks 05 and 06, which took {duration(seconds)} and {memory} of memory on one run"


def _phantoms_first(study: Study, at_once: int) -> str:
    """The time of the trainings on phantoms that a study starts from, unless they are finished."""
    if study.start_from != "phantoms" or all((study.start / model / "fit.json").exists() for model in MODELS):
        return ""
    trainings = [job for job in jobs_of(study.phantoms) if job.model]
    seconds = estimate(trainings, study.phantom_patients)["seconds"].sum(skipna=False)
    return f"; before that phantoms, once for all studies: {duration(seconds / at_once)}"
