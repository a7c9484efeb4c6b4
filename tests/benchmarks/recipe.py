"""The recipe of training, compared on unseen patients: one table, each row one change of the default.

    python tests/benchmarks/recipe.py DATASET FOLDER [--start RUN] [--rows ...] [--models hrnet ...] [--folds 0 1 2]

DATASET is a folder of slices in the form of data/README.md. FOLDER holds every trained network, so that a second call
resumes where the first ended, `recipe.csv`, a row a training, and `curves.png`, learning curves of the first fold.
With --start all rows but `at random` start from the networks of that study. Each training is a process of its own on
one thread.
Columns: `f1` is the study's (mean over levels), of the network's own label maps;
`ordered` with names put in order slice by slice, `ordered by patient` by all slices of a patient together; `any_level`
is the Dice of vertebra against background; `shifted` the share of outlined reference vertebrae whose greater part is
given the name of a neighbour.
"""

import argparse
import concurrent.futures
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lumbar_utils import records
from lumbar_utils.data.folder import Cohort
from lumbar_utils.data.preparation import prepare
from lumbar_utils.scores import metrics
from lumbar_utils.scores.evaluation import annotated_levels, read_label_map, read_probabilities
from lumbar_utils.scores.ordering import relabel, relabel_all
from lumbar_utils.study import Study

FOLDS = 3
RECIPES = {
    "default": {},
    "another seed": {"seed": 1},
    "learning rate times four": {"learning_rate": 4e-3},
    "augmentation none": {"augmentation": "none"},
    "augmentation geometric": {"augmentation": "geometric"},
    "not moved": {"shift": 0.0},
    "learning rate over four": {"learning_rate": 2.5e-4},
    "at random": {"start_from": "none", "learning_rate": 4e-3},
    "four times as long": {"epochs": 4},
    "half of the start": {"start_share": 0.5},
    "160 x 160": {"height": 160, "width": 160},
}


def study_of(arguments: argparse.Namespace, row: str, fold: int) -> Study:
    """The study of one row on one fold; `epochs` in its changes is a factor."""
    changes = RECIPES[row]
    start = {"start_from": arguments.start} if arguments.start else {}
    settings = start | changes | {"epochs": round(arguments.epochs * changes.get("epochs", 1))}
    place = {"runs": arguments.folder / "runs", "cache": arguments.folder / "cache"}
    return Study("quick", dataset=arguments.dataset, folds=FOLDS, fold=fold, device="cpu", **place, **settings)


def names(pred: np.ndarray, true: np.ndarray, levels: dict[int, str]) -> list[int]:
    """For each reference body of which anything is outlined: the difference of the commonest name and its own."""
    shifts = []
    for value in levels:
        inside = pred[(true == value) & (pred > 0)]
        if len(inside):
            shifts.append(int(np.bincount(inside).argmax()) - value)
    return shifts


def looked_over(cohort: Cohort, folder: Path) -> dict:
    """Dice of any level against background, and the share of vertebrae given the name of another level."""
    levels, overlap, shifts = annotated_levels(cohort), [], []
    for _, case in cohort.cases[cohort.cases["split"] == "test"].iterrows():
        true = cohort.mask(case)
        pred = read_label_map(folder, case, true.shape)
        pred[~np.isin(pred, list(levels))] = 0  # S1 on slices that do not annotate it
        overlap.append(2 * ((pred > 0) & (true > 0)).sum() / max(1, (pred > 0).sum() + (true > 0).sum()))
        shifts += names(pred, true, levels)
    return {"any_level": np.mean(overlap), "shifted": np.mean(np.array(shifts) != 0)}


def f1(cohort: Cohort, folder: Path) -> dict[str, float]:
    """F1 of each level, cases averaged within a patient, as the study does."""
    rows, levels = [], annotated_levels(cohort)
    for _, case in cohort.cases[cohort.cases["split"] == "test"].iterrows():
        true = cohort.mask(case)
        scores = metrics.f1_by_level(read_label_map(folder, case, true.shape), true, levels)
        rows += [(case["patient"], level, value) for level, value in scores.items()]
    table = pd.DataFrame(rows, columns=["patient", "level", "f1"])
    return table.groupby(["level", "patient"])["f1"].mean().groupby("level").mean().to_dict()


def put_in_order(cohort: Cohort, folder: Path, into: Path) -> Path:
    """Slice by slice; `relabel_all` lets the slices of a patient decide together."""
    into.mkdir(parents=True, exist_ok=True)
    for case in cohort.cases.loc[cohort.cases["split"] == "test", "case"]:
        cv2.imwrite(str(into / f"{case}.png"), relabel(read_probabilities(folder, case)))
    return into


def measure(study: Study, model: str) -> dict:
    """Train, predict, score on the fold's patients."""
    from lumbar_utils.networks.prediction import predict
    from lumbar_utils.networks.training import fit

    cohort = prepare(study)
    history = fit(study, cohort, model)
    own, place = predict(study, cohort, model), study.folder / model
    together = relabel_all(cohort, {model: own})[model]
    scores = {"f1": own, "ordered": put_in_order(cohort, own, place / "slice_by_slice"),
              "ordered by patient": together}  # fmt: skip
    by_level = {name: f1(cohort, folder) for name, folder in scores.items()}
    result = {name: np.mean(list(levels.values())) for name, levels in by_level.items()}
    return (
        result
        | looked_over(cohort, own)
        | by_level["f1"]
        | {"val_f1": history["val_f1"].iloc[-1], "seconds": history["seconds"].sum()}
    )


def draw_curves(arguments: argparse.Namespace) -> None:
    """F1 on the validation patients of the first fold epoch by epoch, one curve a recipe and a panel a model."""
    fig, axes = plt.subplots(
        1, len(arguments.models), figsize=(3.5 * len(arguments.models) + 1.8, 3.2), squeeze=False, layout="constrained"
    )
    for ax, model in zip(axes[0], arguments.models, strict=True):
        for number, name in enumerate(arguments.rows):
            history = study_of(arguments, name, arguments.folds[0]).folder / model / "history.csv"
            if history.exists():
                table = pd.read_csv(history)
                style = ("-", "--", ":")[number // 10]
                passed = table["epoch"] / len(table)
                ax.plot(passed, table["val_f1"], style, color=f"C{number % 10}", linewidth=1, label=name)
        ax.set(xlabel="share of the training", ylabel="F1 on validation patients", title=model)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center", fontsize=6)
    fig.savefig(arguments.folder / "curves.png", dpi=150)


def in_its_own_process(arguments: argparse.Namespace, row: str, model: str, fold: int) -> dict:
    """What `measure` returns, or the last lines of the error as `error`."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    start = ["--start", arguments.start] if arguments.start else []
    command = [sys.executable, __file__, arguments.dataset, str(arguments.folder), *start]
    command += ["--epochs", str(arguments.epochs), "--one", row, model, str(fold)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return {"error": done.stderr[-500:]} if done.returncode else json.loads(done.stdout.splitlines()[-1])


def table_of(arguments: argparse.Namespace) -> None:
    """Train and measure every row, model and fold, and write recipe.csv after each."""
    chosen = list(itertools.product(arguments.rows, arguments.models, arguments.folds))
    rows = []
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        running = {pool.submit(in_its_own_process, arguments, *training): training for training in chosen}
        for done in concurrent.futures.as_completed(running):
            row, model, fold = running[done]
            rows.append({"row": row, "model": model, "fold": fold} | done.result())
            records.write_csv(arguments.folder / "recipe.csv", pd.DataFrame(rows))
            print(rows[-1], flush=True)
    draw_curves(arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=lambda path: str(Path(path).resolve()))
    parser.add_argument("folder", type=lambda path: Path(path).resolve())
    parser.add_argument("--start", type=lambda path: str(Path(path).resolve()), help="folder of a study")
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--rows", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--models", nargs="+", default=["unet", "hrnet"])
    parser.add_argument("--folds", nargs="+", type=int, default=list(range(FOLDS)))
    parser.add_argument("--one", nargs=3, metavar=("ROW", "MODEL", "FOLD"), help="one training, in this process")
    arguments = parser.parse_args()
    if not arguments.one:
        return table_of(arguments)
    row, model, fold = arguments.one
    print(json.dumps(measure(study_of(arguments, row, int(fold)), model)))


if __name__ == "__main__":
    main()
