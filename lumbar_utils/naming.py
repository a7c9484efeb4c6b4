"""Which name each vertebra is given: by the network alone, and once its names are put in order."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from lumbar_utils import metrics, records
from lumbar_utils.datasets.folder import Cohort
from lumbar_utils.evaluation import annotated_levels, read_label_map, read_probabilities
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


def names_of(cohort: Cohort, folders: dict[str, Path]) -> pd.DataFrame:
    """One row a vertebra in the test cases' references: case, patient, model, level, named, f1 in [0, 1].

    named : the level that most of its pixels are named, or `missed`. folders : model -> folder of <case>.png.
    """
    levels, rows = annotated_levels(cohort), []
    for _, case in cohort.cases[cohort.cases["split"] == "test"].iterrows():
        true = cohort.mask(case)
        for model, folder in folders.items():
            pred = read_label_map(folder, case, true.shape)
            f1 = {level: value for level, name, value in metrics.score_case(pred, true, levels) if name == "f1"}
            given = metrics.names_given(pred, true, levels)
            rows += [(case["case"], case["patient"], model, level, named, f1[level]) for level, named in given]
    return pd.DataFrame(rows, columns=["case", "patient", "model", "level", "named", "f1"])


def summarise_names(own: pd.DataFrame, in_order: pd.DataFrame) -> pd.DataFrame:
    """Model by model, before and after names are put in order: share of vertebrae rightly named, and their mean F1.

    own, in_order : as from `names_of`. Cases are averaged within a patient, patients within a level, then levels.
    """
    columns = {}
    for when, table in {"own": own, "in order": in_order}.items():
        scored = table.assign(right=(table["named"] == table["level"]).astype(float))
        by_patient = scored.groupby(["model", "level", "patient"], sort=False)[["right", "f1"]].mean()
        means = by_patient.groupby(["model", "level"], sort=False).mean().groupby("model", sort=False).mean()
        columns |= {("rightly named", when): means["right"], ("F1", when): means["f1"]}
    return pd.DataFrame(columns)[["rightly named", "F1"]]
