"""The same predictions under every reasonable definition of precision, recall, F1 and mAP.

A paper that prints "F1" and no definition may mean any of these. What is told apart: which pixels are pooled before a
ratio is taken, which classes are averaged, whether background is one of them, and what an absent vertebra counts.
"""

from itertools import product

import numpy as np
import pandas as pd

from lumbar_utils import LEVELS
from lumbar_utils.scores import paper
from lumbar_utils.scores.evaluation import ANY_LEVEL, Evaluation
from lumbar_utils.scores.metrics import average_precision
from lumbar_utils.scores.summary import COCO_METRICS, models_of, patients_of, statistic

POOLED = ("all images", "per patient", "per image")
CLASSES = ("each level", "levels together", "any vertebra")
EMPTY = ("left out", "as 0", "as 1")
OVERLAP = ("precision", "recall", "f1")


def multiverse(found: Evaluation) -> pd.DataFrame:
    """One row a (definition, metric, model): value in [0, 1]. metric : precision, recall, f1 or map.

    A definition of the first three is one for all of them.
    """
    rows = []
    for model in models_of(found):
        rows += [(name, metric, model, value) for name, metric, value in _overlaps(found, model)]
        rows += [(name, "map", model, value) for name, value in _precisions(found, model).items()]
    return pd.DataFrame(rows, columns=["definition", "metric", "model", "value"])


def _overlaps(found: Evaluation, model: str) -> list[tuple[str, str, float]]:
    """Rows (definition, metric, value) of precision, recall and F1."""
    counts, patients = _confusions(found, model)
    rows = []
    for classes, background in product(CLASSES, (False, True)):
        both, predicted, real = _class_counts(counts, _levels(found), classes, background)
        name = f"{classes}{', and background' if background else ''}"
        pooled = _ratios(*(part.sum(axis=0, keepdims=True) for part in (both, predicted, real)), np.nan)
        rows += _named(f"all images; {name}", {metric: np.nanmean(value) for metric, value in pooled.items()})
        for unit, empty in product(POOLED[1:], EMPTY):
            ratios = _ratios(both, predicted, real, {"left out": np.nan, "as 0": 0.0, "as 1": 1.0}[empty])
            groups = patients if unit == "per patient" else np.arange(len(patients))
            means = {metric: _mean(value, groups) for metric, value in ratios.items()}
            rows += _named(f"{unit}; {name}; absent {empty}", means)
            first = {metric: _mean(_over_classes(value), groups) for metric, value in ratios.items()}
            rows += _named(f"{unit}, classes first; {name}; absent {empty}", first)
    return rows


def _named(definition: str, means: dict[str, float]) -> list[tuple[str, str, float]]:
    """Rows of a definition, and of its twin, whose F1 is the harmonic mean of its mean precision and recall."""
    precision, recall = means["precision"], means["recall"]
    twin = {"precision": precision, "recall": recall, "f1": 2 * precision * recall / max(precision + recall, 1e-12)}
    both = {definition: means, f"{definition}; F1 of the means": twin}
    return [(name, metric, float(values[metric])) for name, values in both.items() for metric in OVERLAP]


def _confusions(found: Evaluation, model: str) -> tuple[np.ndarray, np.ndarray]:
    """(cases, 7, 7) pixels of a class that went to which, and the patient of each case as a number."""
    rows = found.pixels[found.pixels["model"] == model]
    case, names = pd.factorize(rows["case"])
    counts = np.zeros((len(names), 7, 7), np.int64)
    counts[case, rows["true"], rows["pred"]] = rows["pixels"]
    patients = {patient: number for number, patient in enumerate(patients_of(found))}
    return counts, rows.drop_duplicates("case")["patient"].astype(str).map(patients).to_numpy()


def _levels(found: Evaluation) -> list[int]:
    """Values of the levels that are scored."""
    return [LEVELS.index(level) + 1 for level in LEVELS if level in set(found.curves["level"])]


def _class_counts(counts: np.ndarray, levels: list[int], classes: str, background: bool) -> tuple[np.ndarray, ...]:
    """Pixels in both maps, in the prediction, in the reference: each (cases, classes)."""
    chosen = [0, *levels] if background else levels
    both, predicted, real = (
        part[:, chosen] for part in (np.diagonal(counts, axis1=1, axis2=2), counts.sum(axis=1), counts.sum(axis=2))
    )
    if classes == "levels together":
        both, predicted, real = (part.sum(axis=1, keepdims=True) for part in (both, predicted, real))
    if classes == "any vertebra":
        vertebra = (counts[:, 1:, 1:].sum((1, 2)), counts[:, :, 1:].sum((1, 2)), counts[:, 1:, :].sum((1, 2)))
        first = (both[:, :1], predicted[:, :1], real[:, :1]) if background else (both[:, :0],) * 3
        both, predicted, real = (np.column_stack(pair) for pair in zip(first, vertebra, strict=True))
    return both, predicted, real


def _ratios(both: np.ndarray, predicted: np.ndarray, real: np.ndarray, absent: float) -> dict[str, np.ndarray]:
    """Precision, recall, F1 of counts; `absent` where neither map has the class, 0 where one has."""
    there = predicted + real > 0

    def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
        return np.where(there, above / np.maximum(below, 1), absent)

    return {"precision": ratio(both, predicted), "recall": ratio(both, real), "f1": ratio(2 * both, predicted + real)}


def _mean(values: np.ndarray, groups: np.ndarray) -> float:
    """(cases, classes) -> mean over classes of the mean over groups of the mean over a group's cases, without nan."""
    return float(pd.DataFrame(values).groupby(groups).mean().mean().mean())


def _over_classes(values: np.ndarray) -> np.ndarray:
    """(cases, classes) -> (cases, 1) mean over the classes that a case has; nan where it has none."""
    return pd.DataFrame(values).mean(axis=1).to_numpy()[:, None]


def _precisions(found: Evaluation, model: str) -> dict[str, float]:
    """Definition -> mAP."""
    every = np.arange(len(patients_of(found)))
    values = {
        f"COCO, whole vertebrae, {name}": float(statistic(found, model, metric)(every))
        for metric, name in zip(COCO_METRICS, ("IoU .50 to .95", "IoU .50", "IoU .75"), strict=True)
    }
    counts, _ = _confusions(found, model)
    for classes, background in product(("each level", "any vertebra"), (False, True)):
        both, predicted, real = (
            part.sum(axis=0) for part in _class_counts(counts, _levels(found), classes, background)
        )
        hard = np.array([_hard(*of_class, counts.sum()) for of_class in zip(both, predicted, real, strict=True)])
        name = f"pixels, {classes}{', and background' if background else ''}, label maps"
        values[name] = float(np.nanmean(hard))
    curves = found.curves[found.curves["model"] == model]
    if not curves["pixels"].any():
        return values
    values["pixels, each level, per patient"] = float(statistic(found, model, "map_pixel")(every))
    for interpolated, how in ((False, ""), (True, ", interpolated")):
        area = {
            level: average_precision(rows[["hits", "pixels"]].to_numpy().T, interpolated)
            for level, rows in curves.groupby("level", sort=False)
        }
        values[f"pixels, any vertebra, all images{how}"] = area.pop(ANY_LEVEL)
        values[f"pixels, each level, all images{how}"] = float(np.nanmean(list(area.values())))
    return values


def _hard(both: int, predicted: int, real: int, pixels: int) -> float:
    """Average precision of a label map, a curve of one threshold beside "all pixels"; nan if nothing is to be found."""
    if not real:
        return float("nan")
    precision, recall = both / max(predicted, 1), both / real
    return precision * recall + (1 - recall) * real / pixels


def distinct(universe: pd.DataFrame) -> pd.DataFrame:
    """The same without definitions that give every model the numbers of one before: where no level is absent, say."""
    kept = []
    for _, table in universe.groupby("metric", sort=False):
        wide = table.pivot(index="definition", columns="model", values="value")
        wide = wide.loc[list(dict.fromkeys(table["definition"]))].round(12).drop_duplicates()
        kept.append(table[table["definition"].isin(wide.index)])
    return pd.concat(kept, ignore_index=True)


def spread(universe: pd.DataFrame) -> pd.DataFrame:
    """One row a metric: how many definitions that differ, how far they move each model, who leads under how many.

    Models that share the lead all lead. orders : rankings that occur, of the models that have all definitions.
    """
    rows = {}
    for metric, table in distinct(universe).groupby("metric", sort=False):
        wide = table.pivot(index="definition", columns="model", values="value").round(12)
        leads = wide.eq(wide.max(axis=1), axis=0).sum()
        orders = wide.dropna(axis=1).rank(axis=1, ascending=False).astype(str).agg(" ".join, axis=1)
        rows[metric] = {"definitions": len(wide), "orders": orders.nunique()}
        for model in wide:
            low, high = wide[model].min(), wide[model].max()
            rows[metric] |= {f"{model}_low": low, f"{model}_high": high, f"{model}_leads": int(leads[model])}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("metric").reset_index()


def nearest(universe: pd.DataFrame) -> pd.DataFrame:
    """Definitions by how near they come to the paper's columns, one row each: kind, definition, distance, same_order.

    kind : `precision, recall, F1` or `mAP`. distance : root mean square difference of the three models' numbers;
    pattern : the same once each metric's mean over the models is taken off, so that better images do not count.
    same_order : in how many of its metrics the models stand in the paper's order.
    """
    table = universe[universe["model"].isin(list(paper.RESULTS))]
    printed = [paper.result(model, metric) for model, metric in zip(table["model"], table["metric"], strict=True)]
    table = table.assign(paper=printed, kind=np.where(table["metric"] == "map", "mAP", "precision, recall, F1"))
    rows = []
    for (kind, definition), part in table.groupby(["kind", "definition"], sort=False):
        ours, theirs = (part.pivot(index="metric", columns="model", values=name) for name in ("value", "paper"))
        apart = (ours - theirs).to_numpy()
        pattern = apart - apart.mean(axis=1, keepdims=True)
        same = (ours.rank(axis=1) == theirs.rank(axis=1)).all(axis=1).sum()
        rows.append((kind, definition, np.sqrt((apart**2).mean()), np.sqrt((pattern**2).mean()), int(same)))
    found = pd.DataFrame(rows, columns=["kind", "definition", "distance", "pattern", "same_order"])
    return found.sort_values(["kind", "pattern"], ascending=[False, True], ignore_index=True)
