"""The honest test of the phantom: train on phantoms alone, score on real slices that no network has seen.

    python tests/benchmarks/phantom_to_real.py DATASET FOLDER [FIELD=VALUE ...]

DATASET is a folder of real slices in the form of data/README.md; FOLDER keeps the trained networks and
`phantom_to_real.csv`; FIELD=VALUE changes the study that is trained, phantom_contrast=T2-SPACE for instance.
A level that the real masks do not outline is predicted, and neither scored nor counted as anything else.
"""

import dataclasses
import sys
from pathlib import Path

from lumbar_utils import LEVELS, MODELS
from lumbar_utils.evaluation import evaluate
from lumbar_utils.prediction import trained_network, write_label_maps
from lumbar_utils.preparation import prepare
from lumbar_utils.study import Study
from lumbar_utils.summary import summarise
from lumbar_utils.training import fit


def main(dataset: str, folder: Path, settings: dict) -> None:
    drawn = Study(runs=folder, **settings)
    real = Study(drawn.profile, dataset=str(Path(dataset).resolve()), runs=folder / "real")
    phantoms, slices = prepare(drawn), prepare(real)
    slices = dataclasses.replace(slices, cases=slices.cases.assign(split="test"))
    folders = {}
    for model in MODELS:
        fit(drawn, phantoms, model)
        network, maps_of = trained_network(drawn, model, drawn.folder / model), drawn.folder / model / "real_label_maps"
        write_label_maps(real, slices, network, list(range(len(LEVELS) + 1)), maps_of)
        folders[model] = maps_of
    table = summarise(evaluate(slices, folders)).pivot(index="metric", columns="model", values="value")
    table.to_csv(drawn.folder / "phantom_to_real.csv")
    patients = slices.cases["patient"].nunique()
    print(f"trained on {phantoms.name}, scored on {len(slices.cases)} slices of {patients} patients ({slices.name})")
    print(table[list(MODELS)].round(3).to_string())


if __name__ == "__main__":
    pairs = (setting.partition("=") for setting in sys.argv[3:])
    main(sys.argv[1], Path(sys.argv[2]).resolve(), {field: value for field, _, value in pairs})
