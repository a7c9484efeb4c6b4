"""Files against files: label maps on disk scored against reference masks on disk."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd

from lumbar_utils import FURTHER, LEVELS, MODELS, StudyError, metrics, records
from lumbar_utils.datasets.folder import Cohort, read_mask
from lumbar_utils.study import Study

WHOLE_TEST_SET = "all"  # stands for the case and the patient of a metric that has no value for a single image


@dataclasses.dataclass(frozen=True)
class Example:
    """One case to look at: image (height, width) uint8, label maps of that shape, F1 as the mean over its levels."""

    case: str
    image: np.ndarray
    reference: np.ndarray
    spacing_mm: float
    prediction: np.ndarray | None = None
    f1: float | None = None


def examples(cohort: Cohort, cases: list[str], folder: Path | None = None) -> list[Example]:
    """Cases to look at, in the order named; with the label maps of a folder where one is given."""
    table, levels = cohort.cases.set_index("case", drop=False), annotated_levels(cohort)
    found = []
    for _, case in table.loc[cases].iterrows():
        example = Example(case["case"], cohort.image(case), cohort.mask(case), case["spacing_mm"])
        if folder:
            pred = read_label_map(folder, case, example.image.shape)
            f1 = [value for _, name, value in metrics.score_case(pred, example.reference, levels) if name == "f1"]
            example = dataclasses.replace(example, prediction=pred, f1=float(np.mean(f1)))
        found.append(example)
    return found


def telling_cases(scores: pd.DataFrame, model: str) -> list[str]:
    """The best, the median and the worst test case of a model, by the mean F1 of its levels."""
    rows = scores[(scores["model"] == model) & (scores["metric"] == "f1")]
    ranked = rows.groupby("case")["value"].mean().sort_values(ascending=False, kind="stable").index
    return list(dict.fromkeys([ranked[0], ranked[len(ranked) // 2], ranked[-1]]))


def annotated_levels(cohort: Cohort) -> dict[int, str]:
    """Value in a label map -> name, of the levels that the data set annotates."""
    return {LEVELS.index(level) + 1: level for level in cohort.annotated}


def label_maps(study: Study) -> dict[str, Path]:
    """model -> folder of the label maps that its notebook left, whole: the three networks, then further ones.

    Raises StudyError where one of the three has none.
    """
    models = [*MODELS, *sorted(record.parent.name for record in study.folder.glob(f"{FURTHER}*/predict.json"))]
    for model in models:
        if not records.is_whole(study.folder / model / "predict.json"):
            raise StudyError(f"{model} has no label maps in {study.folder / model}; run its training notebook first")
    return {model: study.folder / model / "label_maps" for model in models}


def read_label_map(folder: Path, case: pd.Series, shape: tuple[int, int]) -> np.ndarray:
    """(height, width) uint8 label map that a method wrote for a case; StudyError if absent or of another size."""
    file = folder / f"{case['case']}.png"
    if not file.exists():
        raise StudyError(f"{folder} has no label map for case {case['case']}; predict every case of the test set")
    label_map = read_mask(file, {value: level for value, level in enumerate(LEVELS, 1)})
    if label_map.shape != shape:
        raise StudyError(f"label map {file} has shape {label_map.shape} but its image {shape}; write it on that grid")
    return label_map


def read_probabilities(folder: Path, case: str) -> np.ndarray | None:
    """(6, height, width) float32 in [0, 1], steps of 1/255, one map a level L1..S1; None where a method gives none."""
    file = folder / f"{case}.npz"
    if not file.exists():
        return None
    with np.load(file, allow_pickle=False) as content:
        return content["probabilities"].astype(np.float32) / 255


def evaluate(cohort: Cohort, folders: dict[str, Path]) -> pd.DataFrame:
    """Score label maps of the test cases, one row a (case, patient, level, model, metric): value in [0, 1].

    folders : model -> folder of <case>.png, and <case>.npz with probabilities where the method gives them.
    Metrics precision, recall, f1 and ap_pixel are of a case; ap_coco, of the whole test set, has case `all`.
    """
    levels = annotated_levels(cohort)
    tables = [_score_model(cohort, model, folder, levels) for model, folder in folders.items()]
    return pd.concat(tables, ignore_index=True)


def _score_model(cohort: Cohort, model: str, folder: Path, levels: dict[int, str]) -> pd.DataFrame:
    rows, images = [], []
    for _, case in cohort.cases[cohort.cases["split"] == "test"].iterrows():
        true = cohort.mask(case)
        pred = read_label_map(folder, case, true.shape)
        stacked = read_probabilities(folder, case["case"])
        maps = None if stacked is None else dict(enumerate(stacked, 1))
        sureness = {value: 1.0 if maps is None else _mean(maps[value], pred == value) for value in levels}
        images.append((pred, true, sureness))
        for level, metric, value in metrics.score_case(pred, true, levels, maps):
            rows.append((case["case"], case["patient"], level, model, metric, value))
    for level, value in metrics.coco_average_precision(images, levels).items():
        rows.append((WHOLE_TEST_SET, WHOLE_TEST_SET, level, model, "ap_coco", value))
    return pd.DataFrame(rows, columns=["case", "patient", "level", "model", "metric", "value"])


def _mean(probability: np.ndarray, inside: np.ndarray) -> float:
    return float(probability[inside].mean()) if inside.any() else 0.0


def summarise(scores: pd.DataFrame) -> pd.DataFrame:
    """One row a (model, metric): value. Cases are averaged within a patient, patients within a level, then levels.

    scores : as from `evaluate`. Metrics are named as in Table II: precision, recall, f1, map_pixel, map_coco.
    """
    names = {"ap_pixel": "map_pixel", "ap_coco": "map_coco"}
    named = scores.replace({"metric": names})
    by_patient = named.groupby(["model", "metric", "level", "patient"], sort=False)["value"].mean()
    by_level = by_patient.groupby(["model", "metric", "level"], sort=False).mean()
    return by_level.groupby(["model", "metric"], sort=False).mean().reset_index()
