"""Which name each vertebra is given: by the network alone, and once its names are put in order."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from lumbar_utils import records
from lumbar_utils.data.folder import Cohort
from lumbar_utils.scores.evaluation import Evaluation, read_probabilities
from lumbar_utils.scores.instances import summarise_instances
from lumbar_utils.scores.ordering import ordered
from lumbar_utils.scores.summary import summarise


def put_in_order(cohort: Cohort, folders: dict[str, Path]) -> dict[str, Path]:
    """Label maps of the test cases with their names in order, written beside the networks' own.

    Slices of a patient, of one contrast and one size, are taken for slices of one volume, and named together; of a grid
    those alone that one seed's network predicted.
    folders : model -> folder of <case>.npz with probabilities; those without are left out.
    Returns model -> folder `ordered` next to each. See `ordering`.
    """
    test, put = cohort.cases[cohort.cases["split"] == "test"], {}
    patients = test.groupby([name for name in ("patient", "contrast", "seed") if name in test], dropna=False)["case"]
    for model, folder in folders.items():
        if not all((folder / f"{case}.npz").exists() for case in test["case"]):
            continue
        put[model] = folder.with_name("ordered")
        shutil.rmtree(put[model], ignore_errors=True)  # it may hold cases that are no longer tested
        for _, cases in patients:
            maps = {case: read_probabilities(folder, case) for case in cases}
            for case, probabilities in maps.items():
                on_this_grid = [other for other in maps.values() if other.shape == probabilities.shape]
                label_map = ordered(probabilities, np.mean(on_this_grid, axis=0))
                with records.atomic_file(put[model] / f"{case}.png") as temporary:
                    cv2.imwrite(str(temporary), label_map)
    return put


def summarise_names(own: Evaluation, in_order: Evaluation) -> pd.DataFrame:
    """Before and after names are put in order, one row a (model, metric): value, low, high (95 % over patients), n.

    metric : `right`, the share of vertebrae that are found and rightly named, and F1 as in Table II.
    """
    tables = []
    for when, found in {"own names": own, "in order": in_order}.items():
        bodies = summarise_instances(found.bodies)
        right = bodies[bodies["metric"] == "right"].drop(columns="count")
        tables.append(right.assign(metric=f"right, {when}"))
        tables.append(summarise(found, ["f1"]).assign(metric=f"F1, {when}"))
    return pd.concat(tables, ignore_index=True).sort_values("metric", kind="stable", ignore_index=True)
