"""The results of a grid's runs, together in the grid's folder."""

import dataclasses
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lumbar_utils import LEVELS, MODELS, StudyError, freshness, records
from lumbar_utils.data.folder import Cohort
from lumbar_utils.data.preparation import prepare
from lumbar_utils.output.registry import drawn_from_scores
from lumbar_utils.study import Grid, Study

FILES_OF_A_NETWORK = ("history.csv", "robustness.csv", "cost.csv")  # beside its label maps


def describe(grid: Grid, **facts) -> None:
    """Write study.json into the grid's folder; the first run must have been prepared.

    facts : threads of a job, models; those that were recorded before and are not given stay.
    """
    record = records.read_json(grid.study.folder / "study.json")
    before = records.read_json(grid.folder / "study.json").get("grid", {})
    folds = f"{grid.study.folds} folds" if grid.study.folds else record["data"]["split"]
    record["data"]["split"] = f"{folds}, under each of the seeds {', '.join(map(str, grid.seeds))}"
    own = {"fingerprint": grid.fingerprint, "settings": grid.settings}
    own["grid"] = before | {"seeds": list(grid.seeds)} | facts
    records.write_json(grid.folder / "study.json", record | own)


def networks_of(grid: Grid, models: Sequence[str]) -> list[str]:
    """The networks that a grid was run with before, and these."""
    earlier = records.read_json(grid.folder / "study.json").get("grid", {}).get("models", [])
    return list(dict.fromkeys([*earlier, *models]))


def threads_of(grids: list[Grid]) -> int:
    """Threads of a job that the grids were started with, and must keep for the same bits; 0 for new grids."""
    threads = [records.read_json(grid.folder / "study.json").get("grid", {}).get("threads", 0) for grid in grids]
    return max(threads, default=0)


def gather(study: Study | Grid, add: dict[str, str]) -> tuple[Cohort, dict[str, Path]]:
    """What is to be scored: the cases, each with its `split`, and model -> folder of label maps of the test cases.

    add : name -> folder of another tool's label maps: see `external.add`.
    In a grid a test case is an image under one seed, named `<case>.seed<seed>` if there are several, and is predicted
    by networks that were not trained on its patient; columns `seed` and `fold` say which. Runs in which a network is
    not finished are left out, so that all networks are compared on the same cases; StudyError if no run is left.
    """
    from lumbar_utils.scores.evaluation import label_maps
    from lumbar_utils.scores.external import add_all

    if isinstance(study, Grid):
        cohort, models = _gather_grid(study)
    else:
        cohort = prepare(study)
        cohort = dataclasses.replace(cohort, cases=cohort.cases.assign(seed=study.seed, fold=study.fold))
        models = tuple(MODELS)
    add_all(study, cohort, add)
    return cohort, label_maps(study, cohort, models)


def finished_models(study: Study, cohort: Cohort) -> set[str]:
    """Networks that are trained with these settings, data and code, and have predicted the test cases."""
    finished = set()
    for folder in (file.parent for file in study.folder.glob("*/fit.json")):
        made_from = freshness.predicted(study, cohort.fingerprint, folder.name)
        complete = all((folder / name).exists() for name in FILES_OF_A_NETWORK)
        if complete and records.is_finished(folder / "predict.json", made_from):
            finished.add(folder.name)
    return finished


def _gather_grid(grid: Grid) -> tuple[Cohort, list[str]]:
    """The cases of all complete runs, and the networks that they have, with their label maps in the grid's folder."""
    runs, asked_for = [], networks_of(grid, ())
    for study in grid.studies:
        cohort = prepare(study)
        finished = finished_models(study, cohort)
        runs.append((study, cohort, finished & set(asked_for) if asked_for else finished))
    models = set.union(*(finished for *_, finished in runs))
    complete = [(study, cohort) for study, cohort, finished in runs if models and finished == models]
    if not complete:
        wanted = ", ".join(sorted(models) or MODELS)
        raise StudyError(f"none of the {len(runs)} runs has {wanted} finished; run the grid")
    describe(grid)
    for study, _, finished in runs:
        if finished != models:
            print(f"left out: {run_name(study)}, where {', '.join(sorted(models - finished))} is not finished")
    cases = pd.concat([_test_cases(grid, *run) for run in complete], ignore_index=True)
    records.write_csv(grid.folder / "cases.csv", cases)
    records.write_csv(grid.folder / "split.csv", cases[["seed", "fold", "patient", "split"]].drop_duplicates())
    annotated = set.intersection(*(set(cohort.annotated) for _, cohort in complete))
    annotated = tuple(level for level in LEVELS if level in annotated)
    cohort = dataclasses.replace(complete[0][1], cases=cases, annotated=annotated)
    for file in grid.folder.glob("*/fit.json"):
        if file.parent.name not in models:
            shutil.rmtree(file.parent)  # of a network that was gathered before, and is no longer finished
    for model in models:
        _gather_model(grid, model, cases, [study for study, _ in complete], cohort.fingerprint)
    for file in (grid.study.folder / "figures").glob("[!.]*"):  # those of data and networks
        if file.stem not in drawn_from_scores():
            _link_file(file, grid.folder / "figures" / file.name)
    return cohort, [name for name in [*MODELS, *sorted(models - set(MODELS))] if name in models]


def run_name(study: Study) -> str:
    """seed 0, fold 1; without the fold where a study has no folds."""
    return f"seed {study.seed}, fold {study.fold}" if study.folds else f"seed {study.seed}"


def _test_cases(grid: Grid, study: Study, cohort: Cohort) -> pd.DataFrame:
    """The test cases of a run under their names in the grid; column `case_there` has their names in the run."""
    test = cohort.cases[cohort.cases["split"] == "test"].assign(seed=study.seed, fold=study.fold)
    ending = f".seed{study.seed}" if len(grid.seeds) > 1 else ""
    return test.assign(case_there=test["case"], case=test["case"].astype(str) + ending)


def _gather_model(grid: Grid, model: str, cases: pd.DataFrame, studies: list[Study], data: str) -> None:
    """Put the label maps of all runs into one folder, and beside it their histories, robustness and cost.

    data : fingerprint of the cohort.
    """
    folder, networks = grid.folder / model, [study.folder / model for study in studies]
    label_maps = {(study.seed, study.fold): study.folder / model / "label_maps" for study in studies}
    shutil.rmtree(folder / "label_maps", ignore_errors=True)
    for case in cases.itertuples():
        for ending in (".png", ".npz"):
            there = label_maps[case.seed, case.fold] / f"{case.case_there}{ending}"
            _link_file(there, folder / "label_maps" / f"{case.case}{ending}")
    history, robustness, cost = (_joined(networks, name) for name in FILES_OF_A_NETWORK)
    records.write_csv(folder / "history.csv", history.groupby(["model", "epoch"], as_index=False).mean())
    records.write_csv(folder / "robustness.csv", robustness)
    mean_seconds = round(cost["training_seconds"].mean(), 1)
    records.write_csv(folder / "cost.csv", cost.head(1).assign(training_seconds=mean_seconds, runs=len(studies)))
    fits = [records.read_json(network / "fit.json") for network in networks]
    predictions = [records.read_json(network / "predict.json") for network in networks]
    made_from, files = records.fingerprint(predictions), sorted((folder / "label_maps").iterdir())
    provenance = _merged([prediction["provenance"] for prediction in predictions])
    records.mark_finished(folder / "predict.json", made_from, files, provenance=provenance, data=data)
    facts = {name: fits[0][name] for name in ("seconds", "parameters")}
    provenance = _merged([fit["provenance"] for fit in fits])
    records.mark_finished(folder / "fit.json", made_from, [folder / "history.csv"], provenance=provenance, **facts)


def _joined(folders: list[Path], name: str) -> pd.DataFrame:
    return pd.concat([records.read_csv(folder / name) for folder in folders], ignore_index=True)


def _merged(provenances: list[dict]) -> dict:
    """Provenances as one; a value in which they differ names each."""
    merged = {}
    for name, value in provenances[0].items():
        values = [provenance[name] for provenance in provenances]
        merged[name] = _merged(values) if isinstance(value, dict) else " / ".join(dict.fromkeys(values))
    return merged


def _link_file(source: Path, target: Path) -> None:
    """The same file under two names, which takes no space; a copy where the disk has no such links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
