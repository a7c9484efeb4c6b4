"""Errors taken apart: was a vertebra found, how well is it outlined, and which name was it given?

A perfect outline under a neighbour's name scores as badly as none, and is another failure. So what is predicted is
matched to the reference whatever its name, and only then the names are compared.
"""

from functools import partial
from itertools import product

import cv2
import numpy as np
import pandas as pd

from lumbar_utils.scores.metrics import distances, overlap_of
from lumbar_utils.scores.statistics import with_interval

SMALLEST = 0.1  # of the median body in the reference, or of the largest name without one: smaller ones are specks
PART = 0.25  # of a body: two pieces as large as this split it
OUTCOMES = ("right", "one up", "one down", "other", "missing", "extra")
COLUMNS = ("level", "named", "outcome", "merged", "split", "f1", "hd95", "unit")


def take_apart(pred: np.ndarray, true: np.ndarray, levels: dict[int, str], spacing_mm: float) -> list[tuple]:
    """Rows (see COLUMNS), one a vertebra of the reference, then one a predicted vertebra that is none.

    pred, true : (height, width) label maps of one shape. levels : value -> name, L1 first, of the levels to look at.
    A predicted vertebra is a connected piece under one name; it is matched to the body with which its IoU exceeds 0.5,
    of which there can be but one.
    level : name in the reference, empty for an extra one. named : name of the piece, empty if missing.
    outcome : right; one up (L3 named L2); one down; other; missing; extra.
    merged : one piece holds more than half of this body and of another. split : two pieces hold a quarter of it each.
    f1, hd95 : of body and piece, name aside; nan without a match. unit : of hd95, mm or px.
    """
    real = {value: true == value for value in levels if (true == value).any()}
    sizes = [body.sum() for body in real.values()]
    typical = np.median(sizes) if sizes else max((pred == value).sum() for value in levels)
    pieces = _pieces(pred, levels, float(typical))
    shared = np.array([[(body & piece).sum() for _, piece in pieces] for body in real.values()])
    shared = shared.reshape(len(real), len(pieces))
    areas = np.array([body.sum() for body in real.values()]).reshape(-1, 1)
    iou = shared / (areas + np.array([piece.sum() for _, piece in pieces]) - shared) if shared.size else shared * 1.0
    merges = (shared > areas / 2).sum(axis=0) > 1
    unit, rows = "px" if np.isnan(spacing_mm) else "mm", []
    for row, (value, body) in enumerate(real.items()):
        merged = bool((merges & (shared[row] > areas[row] / 2)).any())
        split = bool((shared[row] >= PART * areas[row]).sum() > 1)
        match = np.flatnonzero(iou[row] > 0.5)
        if not len(match):
            rows.append((levels[value], "", "missing", merged, split, np.nan, np.nan, unit))
            continue
        name, piece = pieces[match[0]]
        f1 = overlap_of(int(shared[row, match[0]]), int(piece.sum()), int(body.sum()))["f1"]
        hd95 = distances(piece, body, spacing_mm)[f"hd95_{unit}"]
        rows.append((levels[value], levels[name], _naming(name - value), merged, split, f1, hd95, unit))
    extra = [name for number, (name, _) in enumerate(pieces) if not (iou[:, number] > 0.5).any()]
    return rows + [("", levels[name], "extra", False, False, np.nan, np.nan, unit) for name in extra]


def _naming(shift: int) -> str:
    return {0: "right", -1: "one up", 1: "one down"}.get(shift, "other")


def _pieces(pred: np.ndarray, levels: dict[int, str], typical: float) -> list[tuple[int, np.ndarray]]:
    """(value, mask) of each predicted vertebra; corners that touch connect."""
    found = []
    for value in levels:
        count, pieces = cv2.connectedComponents((pred == value).astype(np.uint8))
        masks = [pieces == piece for piece in range(1, count)]
        found += [(value, mask) for mask in masks if mask.sum() >= max(1, SMALLEST * typical)]
    return found


def summarise_bodies(bodies: pd.DataFrame) -> pd.DataFrame:
    """One row a (model, metric): value, low, high (95 % over patients), n patients, and the count behind a share.

    bodies : model, patient and the columns of COLUMNS. Shares are of the reference's vertebrae, `rightly named` and the
    outlines of those found, whatever their name; `right` is found and rightly named. Vertebrae are pooled: a patient
    with more of them weighs more.
    """
    real, found = bodies["level"] != "", bodies["f1"].notna()
    of_real = {name: bodies["outcome"] == name for name in OUTCOMES} | {
        "merged": bodies["merged"],
        "split": bodies["split"],
    }
    parts = {"found": (found, real), "rightly named": (bodies["outcome"] == "right", found)}
    parts |= {f"outline {name}": (bodies[column].fillna(0), found) for name, column in _outlines(bodies).items()}
    parts |= {name: (chosen, real) for name, chosen in of_real.items()}
    rows = []
    for (model, own), (metric, (above, below)) in product(bodies.groupby("model", sort=False), parts.items()):
        sums = pd.DataFrame({"above": above[own.index].astype(float), "below": below[own.index].astype(float)})
        count = np.nan if metric.startswith("outline") else sums["above"].sum()
        sums = sums.groupby(own["patient"].astype(str)).sum()
        sums = sums[sums["below"] > 0].to_numpy()
        if len(sums):
            value, low, high = with_interval(partial(_ratio, sums), np.arange(len(sums)))
            rows.append((model, metric, value, low, high, len(sums), count))
    return pd.DataFrame(rows, columns=["model", "metric", "value", "low", "high", "n", "count"])


def _outlines(bodies: pd.DataFrame) -> dict[str, str]:
    """Name in print -> column; a distance only where all of it is in one unit."""
    units = bodies["unit"].unique()
    return {"F1": "f1"} | ({f"HD95, {units[0]}": "hd95"} if len(units) == 1 else {})


def _ratio(sums: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(..., n) rows of (patients, 2) sums -> (...) ratio of their totals."""
    above, below = np.moveaxis(sums[rows].sum(axis=-2), -1, 0)
    return above / below
