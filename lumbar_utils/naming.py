"""Which name each vertebra is given: by the network alone, and once its names are put in order."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from lumbar_utils import records
from lumbar_utils.datasets.folder import Cohort
from lumbar_utils.evaluation import Evaluation, read_probabilities
from lumbar_utils.ordering import ordered


def put_in_order(cohort: Cohort, folders: dict[str, Path]) -> dict[str, Path]:
    """Label maps of the test cases with their names in order, written beside the networks' own.

    Slices of a patient, of one contrast and one size, are taken for slices of one volume, and named together.
    folders : model -> folder of <case>.npz with probabilities; those without are left out.
    Returns model -> folder `ordered` next to each. See `ordering`.
    """
    test, put = cohort.cases[cohort.cases["split"] == "test"], {}
    patients = test.groupby([name for name in ("patient", "contrast") if name in test])["case"]
    for model, folder in folders.items():
        if any(read_probabilities(folder, case) is None for case in test["case"]):
            continue
        put[model] = folder.with_name("ordered")
        for _, cases in patients:
            maps = {case: read_probabilities(folder, case) for case in cases}
            for case, probabilities in maps.items():
                on_this_grid = [other for other in maps.values() if other.shape == probabilities.shape]
                label_map = ordered(probabilities, np.mean(on_this_grid, axis=0))
                with records.replacing(put[model] / f"{case}.png") as temporary:
                    cv2.imwrite(str(temporary), label_map)
    return put


def summarise_names(own: Evaluation, in_order: Evaluation) -> pd.DataFrame:
    """Model by model, before and after names are put in order: share of vertebrae rightly named, and their mean F1.

    A vertebra that is not found is not rightly named. Cases are averaged within a patient, patients within a level,
    then levels.
    """
    columns = {}
    for when, found in {"own": own, "in order": in_order}.items():
        real = found.bodies[found.bodies["level"] != ""]
        right = real.assign(value=(real["outcome"] == "right").astype(float))
        f1 = found.scores[found.scores["metric"] == "f1"]
        for what, table in {"rightly named": right, "F1": f1}.items():
            by_patient = table.groupby(["model", "level", "patient"], sort=False)["value"].mean()
            by_level = by_patient.groupby(["model", "level"], sort=False).mean()
            columns[what, when] = by_level.groupby("model", sort=False).mean()
    return pd.DataFrame(columns)[["rightly named", "F1"]]
