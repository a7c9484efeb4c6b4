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

UNITS = ("per patient", "per image")
ABSENT = {"left out": np.nan, "as 0": 0.0, "as 1": 1.0}  # score of a class that neither map has
COCO_NAMES = {"map_coco": "IoU .50 to .95", "map_50": "IoU .50", "map_75": "IoU .75"}


def score_definitions(evaluation: Evaluation) -> pd.DataFrame:
    """One row per (definition, metric, model): value in [0, 1]. metric : precision, recall, f1 or map.

    Precision, recall and F1 share their definitions.
    """
    rows = []
    for model in models_of(evaluation):
        confusions, patients = _confusions(evaluation, model)
        scored = set(evaluation.curves["level"])
        counts = _count_pixels(confusions, [value for value, level in enumerate(LEVELS, 1) if level in scored])
        for definition, values in _overlap_definitions(counts, patients).items():
            precision, recall = values["precision"], values["recall"]
            of_means = values | {"f1": 2 * precision * recall / max(precision + recall, 1e-12)}
            for name, scores in ((definition, values), (f"{definition}; F1 of the means", of_means)):
                rows += [(name, metric, model, float(value)) for metric, value in scores.items()]
        for name, value in _map_definitions(evaluation, model, counts, confusions.sum()).items():
            rows.append((name, "map", model, value))
    return pd.DataFrame(rows, columns=["definition", "metric", "model", "value"])


def _confusions(evaluation: Evaluation, model: str) -> tuple[np.ndarray, np.ndarray]:
    """(cases, 7, 7) pixels by true and predicted class, and the number of each case's patient."""
    rows = evaluation.pixels[evaluation.pixels["model"] == model]
    case, names = pd.factorize(rows["case"])
    confusions = np.zeros((len(names), 7, 7), np.int64)
    confusions[case, rows["true"], rows["pred"]] = rows["pixels"]
    patients = pd.Index(patients_of(evaluation))
    return confusions, patients.get_indexer(rows.drop_duplicates("case")["patient"].astype(str))


def _count_pixels(confusions: np.ndarray, levels: list[int]) -> dict[str, np.ndarray]:
    """Name of a set of classes -> (3, cases, classes) pixels in both maps, in the prediction, in the reference."""
    diagonal = np.diagonal(confusions, axis1=1, axis2=2)
    of_classes = np.stack([diagonal, confusions.sum(axis=1), confusions.sum(axis=2)])
    maps = confusions[:, 1:, 1:], confusions[:, :, 1:], confusions[:, 1:]
    vertebra = np.stack([pixels.sum(axis=(1, 2)) for pixels in maps])[..., None]
    background, each = of_classes[..., :1], of_classes[..., levels]
    all_classes = np.concatenate([background, each], axis=2)
    return {
        "each level": each,
        "each level, and background": all_classes,
        "levels together": each.sum(axis=2, keepdims=True),
        "levels together, and background": all_classes.sum(axis=2, keepdims=True),
        "any vertebra": vertebra,
        "any vertebra, and background": np.concatenate([background, vertebra], axis=2),
    }


def _overlap_definitions(counts: dict[str, np.ndarray], patients: np.ndarray) -> dict[str, dict[str, float]]:
    """Definition -> metric -> value of precision, recall and F1. counts, patients : of each case."""
    definitions = {}
    for name, pixels in counts.items():
        pooled = _ratios(pixels.sum(axis=1, keepdims=True), np.nan)
        definitions[f"all images; {name}"] = {metric: np.nanmean(ratio) for metric, ratio in pooled.items()}
        for unit, absent in product(UNITS, ABSENT):
            ratios = _ratios(pixels, ABSENT[absent])
            groups = patients if unit == "per patient" else np.arange(len(patients))
            of_cases = {metric: ratio.mean(axis=1).to_frame() for metric, ratio in ratios.items()}
            for first, values in (("", ratios), (", classes first", of_cases)):
                means = {metric: _mean(value, groups) for metric, value in values.items()}
                definitions[f"{unit}{first}; {name}; absent {absent}"] = means
    return definitions


def _ratios(counts: np.ndarray, absent: float) -> dict[str, pd.DataFrame]:
    """Precision, recall and F1, each (cases, classes); `absent` where neither map has the class, 0 where one has."""
    both, predicted, real = counts
    fractions = {"precision": (both, predicted), "recall": (both, real), "f1": (2 * both, predicted + real)}
    ratios = {}
    for metric, (numerator, denominator) in fractions.items():
        ratio = np.where(predicted + real > 0, numerator / np.maximum(denominator, 1), absent)
        ratios[metric] = pd.DataFrame(ratio)
    return ratios


def _mean(values: pd.DataFrame, groups: np.ndarray) -> float:
    """(cases, classes) -> mean over classes of the mean over groups of the mean over a group's cases; nan left out."""
    return float(values.groupby(groups).mean().mean().mean())


def _map_definitions(
    evaluation: Evaluation, model: str, counts: dict[str, np.ndarray], pixels: int
) -> dict[str, float]:
    """Definition -> mAP; a model without probabilities has fewer. pixels : of all images."""
    patients = np.arange(len(patients_of(evaluation)))
    values = {}
    for metric, name in COCO_NAMES.items():
        values[f"COCO, whole vertebrae, {name}"] = float(statistic(evaluation, model, metric)(patients))
    for name in ("each level", "each level, and background", "any vertebra", "any vertebra, and background"):
        precisions = [_label_map_precision(*of_class, pixels) for of_class in counts[name].sum(axis=1).T]
        values[f"pixels, {name}, label maps"] = float(np.nanmean(precisions))
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
