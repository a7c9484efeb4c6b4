"""Where the variance of a score comes from: patients, seeds, folds. One seed and one split decide nothing.

    python tests/benchmarks/variance.py DATASET FOLDER [--models ...] [--seeds 3] [--folds 3] [--size 96] [--epochs 16]

Trains each model on every fold under every seed (a seed deals the patients to folds anew), so that each patient is
tested once a seed, by a network that has not seen it. FOLDER keeps the studies, so that a second call goes on where the
first was, and gets `variance_scores.csv` (model, seed, fold, patient, value: mean F1 over levels) and `variance.csv`
(model, part, variance, share; see `statistics.variance_components`).
"""

import argparse
from itertools import product
from pathlib import Path

import pandas as pd

from lumbar_utils import MODELS, records
from lumbar_utils.data.preparation import prepare
from lumbar_utils.networks.prediction import predict
from lumbar_utils.networks.training import fit
from lumbar_utils.scores import statistics
from lumbar_utils.scores.evaluation import evaluate
from lumbar_utils.scores.summary import per_patient
from lumbar_utils.study import Study


def scores_of(study: Study, models: list[str]) -> pd.DataFrame:
    """model, patient, value of one fold under one seed."""
    cohort = prepare(study)
    for model in models:
        fit(study, cohort, model)
    folders = {model: predict(study, cohort, model) for model in models}
    table = per_patient(evaluate(cohort, folders)).rename_axis("patient").reset_index()
    return table.melt("patient", var_name="model").assign(seed=study.seed, fold=study.fold)


def main(asked: argparse.Namespace) -> None:
    settings = {
        "height": asked.size,
        "width": asked.size,
        "epochs": asked.epochs,
        "folds": asked.folds,
        "device": "cpu",
    }
    settings |= {"dataset": asked.dataset, "runs": asked.folder / "runs", "cache": asked.folder / "cache"}
    tables = []
    for seed, fold in product(range(asked.seeds), range(asked.folds)):
        tables.append(scores_of(Study("quick", seed=seed, fold=fold, **settings), asked.models))
        scores = pd.concat(tables, ignore_index=True)
        records.write_csv(asked.folder / "variance_scores.csv", scores)
    parts = [
        statistics.variance_components(rows).assign(model=model) for model, rows in scores.groupby("model", sort=False)
    ]
    records.write_csv(asked.folder / "variance.csv", pd.concat(parts, ignore_index=True))
    print(scores.groupby(["model", "seed"])["value"].mean().unstack().round(3).to_string())
    print(pd.concat(parts).round(4).to_string(index=False))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=lambda path: path if path == "phantom" else str(Path(path).resolve()))
    parser.add_argument("folder", type=lambda path: Path(path).resolve())
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    for option, default in (("seeds", 3), ("folds", 3), ("size", 96), ("epochs", 16)):
        parser.add_argument(f"--{option}", type=int, default=default)
    main(parser.parse_args())
