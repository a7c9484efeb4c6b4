"""Sensitivity to the metric's definition: the same label maps under every usual definition of each metric.

A paper that prints "F1" without a definition may mean any of these. They differ in the pixels that are pooled before a
ratio is taken, the classes that are averaged, whether background is one of them, and the score of an absent vertebra.
"""

from itertools import product

import numpy as np
import pandas as pd

from lumbar_utils import LEVELS
from lumbar_utils.scores import paper
from lumbar_utils.scores.evaluation import ANY_LEVEL, Evaluation
from lumbar_utils.scores.metrics import average_precision
from lumbar_utils.scores.summary import models_of, patients_of, statistic

CLASSES = ("each level", "levels together", "any vertebra")
UNITS = ("per patient", "per image")
ABSENT = {"left out": np.nan, "as 0": 0.0, "as 1": 1.0}  # score of a class that neither map has
COCO_NAMES = {"map_coco": "IoU .50 to .95", "map_50": "IoU .50", "map_75": "IoU .75"}


def score_definitions(evaluation: Evaluation) -> pd.DataFrame:
    """One row per (definition, metric, model): value in [0, 1]. metric : precision, recall, f1 or map.

    Precision, recall and F1 share their definitions.
    """
    rows = []
    for model in models_of(evaluation):
        for definition, values in _overlap_definitions(evaluation, model).items():
            rows += [(definition, metric, model, float(value)) for metric, value in values.items()]
        rows += [(name, "map", model, value) for name, value in _map_definitions(evaluation, model).items()]
    return pd.DataFrame(rows, columns=["definition", "metric", "model", "value"])


def _overlap_definitions(evaluation: Evaluation, model: str) -> dict[str, dict[str, float]]:
    """Definition -> metric -> value of precision, recall and F1."""
    confusions, patients = _confusions(evaluation, model)
    definitions = {}
    for classes, background in product(CLASSES, (False, True)):
        counts = _class_counts(confusions, _levels(evaluation), classes, background)
        name = _class_name(classes, background)
        pooled = _ratios(counts.sum(axis=1, keepdims=True), np.nan)
        definitions[f"all images; {name}"] = {metric: np.nanmean(ratio) for metric, ratio in pooled.items()}
        for unit, absent in product(UNITS, ABSENT):
            ratios = _ratios(counts, ABSENT[absent])
            groups = patients if unit == "per patient" else np.arange(len(patients))
            of_classes = {metric: _mean(ratio, groups) for metric, ratio in ratios.items()}
            of_cases = {metric: _mean(_mean_of_classes(ratio), groups) for metric, ratio in ratios.items()}
            definitions[f"{unit}; {name}; absent {absent}"] = of_classes
            definitions[f"{unit}, classes first; {name}; absent {absent}"] = of_cases
    return _with_f1_of_means(definitions)


def _with_f1_of_means(definitions: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Each definition, and after it the one whose F1 is the harmonic mean of its mean precision and recall."""
    both = {}
    for name, values in definitions.items():
        precision, recall = values["precision"], values["recall"]
        both[name] = values
        both[f"{name}; F1 of the means"] = values | {"f1": 2 * precision * recall / max(precision + recall, 1e-12)}
    return both


def _class_name(classes: str, background: bool) -> str:
    return f"{classes}, and background" if background else classes


def _confusions(evaluation: Evaluation, model: str) -> tuple[np.ndarray, np.ndarray]:
    """(cases, 7, 7) pixels by true and predicted class, and the number of each case's patient."""
    rows = evaluation.pixels[evaluation.pixels["model"] == model]
    case, names = pd.factorize(rows["case"])
    confusions = np.zeros((len(names), 7, 7), np.int64)
    confusions[case, rows["true"], rows["pred"]] = rows["pixels"]
    patients = pd.Index(patients_of(evaluation))
    return confusions, patients.get_indexer(rows.drop_duplicates("case")["patient"].astype(str))


def _levels(evaluation: Evaluation) -> list[int]:
    """Values of the levels that are scored."""
    scored = set(evaluation.curves["level"])
    return [value for value, level in enumerate(LEVELS, 1) if level in scored]


def _class_counts(confusions: np.ndarray, levels: list[int], classes: str, background: bool) -> np.ndarray:
    """(3, cases, classes) pixels in both maps, in the prediction, in the reference."""
    diagonal = np.diagonal(confusions, axis1=1, axis2=2)
    counts = np.stack([diagonal, confusions.sum(axis=1), confusions.sum(axis=2)])
    if classes == "any vertebra":
        both = confusions[:, 1:, 1:].sum((1, 2))
        vertebra = np.stack([both, confusions[:, :, 1:].sum((1, 2)), confusions[:, 1:, :].sum((1, 2))])
        counts = np.concatenate([counts[..., :1], vertebra[..., None]], axis=2)
        return counts if background else counts[..., 1:]
    counts = counts[..., [0, *levels] if background else levels]
    return counts.sum(axis=2, keepdims=True) if classes == "levels together" else counts


def _ratios(counts: np.ndarray, absent: float) -> dict[str, np.ndarray]:
    """Precision, recall and F1, each (cases, classes); `absent` where neither map has the class, 0 where one has."""
    both, predicted, real = counts
    present = predicted + real > 0
    fractions = {"precision": (both, predicted), "recall": (both, real), "f1": (2 * both, predicted + real)}
    ratios = {}
    for metric, (numerator, denominator) in fractions.items():
        ratios[metric] = np.where(present, numerator / np.maximum(denominator, 1), absent)
    return ratios


def _mean(values: np.ndarray, groups: np.ndarray) -> float:
    """(cases, classes) -> mean over classes of the mean over groups of the mean over a group's cases; nan left out."""
    return float(pd.DataFrame(values).groupby(groups).mean().mean().mean())


def _mean_of_classes(values: np.ndarray) -> np.ndarray:
    """(cases, classes) -> (cases, 1) mean over the classes of a case; nan where it has none."""
    return pd.DataFrame(values).mean(axis=1).to_numpy()[:, None]


def _map_definitions(evaluation: Evaluation, model: str) -> dict[str, float]:
    """Definition -> mAP; a model without probabilities has fewer."""
    patients = np.arange(len(patients_of(evaluation)))
    values = {}
    for metric, name in COCO_NAMES.items():
        values[f"COCO, whole vertebrae, {name}"] = float(statistic(evaluation, model, metric)(patients))
    confusions, _ = _confusions(evaluation, model)
    for classes, background in product(("each level", "any vertebra"), (False, True)):
        counts = _class_counts(confusions, _levels(evaluation), classes, background).sum(axis=1)
        precisions = [_label_map_precision(*of_class, confusions.sum()) for of_class in counts.T]
        values[f"pixels, {_class_name(classes, background)}, label maps"] = float(np.nanmean(precisions))
    curves = evaluation.curves[evaluation.curves["model"] == model]
    if not curves["pixels"].any():
        return values
    values["pixels, each level, per patient"] = float(statistic(evaluation, model, "map_pixel")(patients))
    for interpolated, how in ((False, ""), (True, ", interpolated")):
        areas = {}
        for level, rows in curves.groupby("level", sort=False):
            areas[level] = average_precision(rows[["hits", "pixels"]].to_numpy().T, interpolated)
        values[f"pixels, any vertebra, all images{how}"] = areas.pop(ANY_LEVEL)
        values[f"pixels, each level, all images{how}"] = float(np.nanmean(list(areas.values())))
    return values


def _label_map_precision(both: int, predicted: int, real: int, pixels: int) -> float:
    """Average precision of a label map: a curve of one threshold, and of "all pixels"; nan without the class."""
    if not real:
        return float("nan")
    precision, recall = both / max(predicted, 1), both / real
    return precision * recall + (1 - recall) * real / pixels


def distinct_definitions(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of definitions that differ: of those with the same numbers for every model, the first.

    table : as from `score_definitions`; so for the functions below.
    """
    tables = []
    for _, rows in table.groupby("metric", sort=False):
        values = rows.pivot(index="definition", columns="model", values="value")
        values = values.loc[list(dict.fromkeys(rows["definition"]))].round(12).drop_duplicates()
        tables.append(rows[rows["definition"].isin(values.index)])
    return pd.concat(tables, ignore_index=True)


def spread_over_definitions(table: pd.DataFrame) -> pd.DataFrame:
    """One row per metric: how many definitions differ, each model's lowest and highest value, and who leads.

    definitions : number that differ. orders : number of rankings, of the models that have all definitions.
    <model>_low, <model>_high : in [0, 1]. <model>_leads : definitions with the highest value, shared or not.
    """
    rows = {}
    for metric, part in distinct_definitions(table).groupby("metric", sort=False):
        values = part.pivot(index="definition", columns="model", values="value").round(12)
        leads = values.eq(values.max(axis=1), axis=0).sum()
        orders = values.dropna(axis=1).rank(axis=1, ascending=False).astype(str).agg(" ".join, axis=1)
        rows[metric] = {"definitions": len(values), "orders": orders.nunique()}
        for model in values:
            rows[metric][f"{model}_low"] = values[model].min()
            rows[metric][f"{model}_high"] = values[model].max()
            rows[metric][f"{model}_leads"] = int(leads[model])
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("metric").reset_index()


def nearest_to_paper(table: pd.DataFrame) -> pd.DataFrame:
    """Definitions by how close they come to the paper: kind, definition, distance, pattern, same_order.

    kind : `precision, recall, F1` or `mAP`. distance : root mean square difference from the paper's numbers.
    pattern : the same after subtracting each metric's mean over the models, so that easier images do not count.
    same_order : number of the kind's metrics in which the models stand in the paper's order.
    """
    table = table[table["model"].isin(list(paper.RESULTS))]
    printed = [paper.result(model, metric) for model, metric in zip(table["model"], table["metric"], strict=True)]
    table = table.assign(paper=printed, kind=np.where(table["metric"] == "map", "mAP", "precision, recall, F1"))
    rows = []
    for (kind, definition), part in table.groupby(["kind", "definition"], sort=False):
        ours, theirs = (part.pivot(index="metric", columns="model", values=name) for name in ("value", "paper"))
        difference = (ours - theirs).to_numpy()
        pattern = difference - difference.mean(axis=1, keepdims=True)
        same_order = (ours.rank(axis=1) == theirs.rank(axis=1)).all(axis=1).sum()
        rows.append((kind, definition, np.sqrt((difference**2).mean()), np.sqrt((pattern**2).mean()), int(same_order)))
    nearest = pd.DataFrame(rows, columns=["kind", "definition", "distance", "pattern", "same_order"])
    return nearest.sort_values(["kind", "pattern"], ascending=[False, True], ignore_index=True)
