"""Predicted vertebrae matched to those of the reference, and the kind of each error.

A perfect outline under a neighbour's name scores as badly as none, but is another failure. So predicted vertebrae are
matched to the reference by overlap alone, and their names are compared afterwards.
"""

from functools import partial
from itertools import product

import cv2
import numpy as np
import pandas as pd

from lumbar_utils.scores.metrics import distances, overlap
from lumbar_utils.scores.statistics import with_interval

MATCH_IOU = 0.5  # above it: at most one predicted vertebra can match
MIN_AREA = 0.1  # of a typical vertebra: smaller predicted components are ignored
SPLIT_SHARE = 0.25  # of a vertebra: two components that large split it
OUTCOMES = ("right", "one up", "one down", "other", "missing", "extra")
COLUMNS = ("level", "named", "outcome", "merged", "split", "f1", "hd95", "unit")


def match_instances(pred: np.ndarray, true: np.ndarray, levels: dict[int, str], spacing_mm: float) -> list[tuple]:
    """Rows (see COLUMNS): one per vertebra of the reference, then one per predicted vertebra without a match.

    pred, true : (height, width) label maps of one shape. levels : value -> name of the levels to score, L1 first.
    A predicted vertebra is a connected component of one label; it matches the vertebra of the reference with which its
    IoU exceeds 0.5.
    level : name in the reference, empty for an extra one. named : predicted name, empty for a missing one.
    outcome : right; one up (L3 named L2); one down; other; missing; extra.
    merged : one component covers more than half of this vertebra and of another. split : two components cover at least
    a quarter of this vertebra each.
    f1, hd95 : of the matched outlines, whatever the names; nan without a match. unit : of hd95, mm or px.
    """
    values = [value for value in levels if (true == value).any()]
    areas = np.array([(true == value).sum() for value in values]).reshape(-1, 1)
    # of the reference's vertebrae; of the largest predicted level where the reference has none
    typical = np.median(areas) if values else max((pred == value).sum() for value in levels)
    predicted = _components(pred, levels, max(1, MIN_AREA * typical))
    predicted_areas = np.array([mask.sum() for _, mask in predicted])
    shared = np.array([(mask & (true == value)).sum() for value, (_, mask) in product(values, predicted)], int)
    shared = shared.reshape(len(values), len(predicted))
    iou = shared / (areas + predicted_areas - shared)
    covered = shared > areas / 2
    merged = (covered & (covered.sum(axis=0) > 1)).any(axis=1)
    split = (shared >= SPLIT_SHARE * areas).sum(axis=1) > 1
    unit = "px" if np.isnan(spacing_mm) else "mm"
    rows = []
    for row, value in enumerate(values):
        merged_split = bool(merged[row]), bool(split[row])
        matches = np.flatnonzero(iou[row] > MATCH_IOU)
        if not len(matches):
            rows.append((levels[value], "", "missing", *merged_split, np.nan, np.nan, unit))
            continue
        name, component = predicted[matches[0]]
        outcome = {0: "right", -1: "one up", 1: "one down"}.get(name - value, "other")
        f1 = overlap(component, true == value)["f1"]
        hd95 = distances(component, true == value, spacing_mm)[f"hd95_{unit}"]
        rows.append((levels[value], levels[name], outcome, *merged_split, f1, hd95, unit))
    for column in np.flatnonzero(~(iou > MATCH_IOU).any(axis=0)):
        rows.append(("", levels[predicted[column][0]], "extra", False, False, np.nan, np.nan, unit))
    return rows


def _components(pred: np.ndarray, levels: dict[int, str], least: float) -> list[tuple[int, np.ndarray]]:
    """(value, mask) of each predicted vertebra: 8-connected components of a level, of `least` pixels or more."""
    components = []
    for value in levels:
        count, numbered = cv2.connectedComponents((pred == value).astype(np.uint8))
        masks = [numbered == number for number in range(1, count)]
        components += [(value, mask) for mask in masks if mask.sum() >= least]
    return components


def summarise_instances(bodies: pd.DataFrame) -> pd.DataFrame:
    """One row per (model, metric): value, low, high (95 % interval over patients), n patients, count behind a share.

    bodies : of an Evaluation: model, patient and COLUMNS. Shares are of the reference's vertebrae, except that `rightly
    named` and the outlines are of those found under any name. `right` is found and rightly named. Vertebrae are pooled,
    so a patient with more of them has more weight.
    """
    rows = []
    for model, own in bodies.groupby("model", sort=False):
        patient = own["patient"].astype(str)
        for metric, (numerator, denominator) in _shares(own).items():
            sums = pd.DataFrame({"numerator": numerator, "denominator": denominator}, dtype=float)
            by_patient = sums.groupby(patient).sum().query("denominator > 0").to_numpy()
            if len(by_patient):
                count = np.nan if metric.startswith("outline") else sums["numerator"].sum()
                interval = with_interval(partial(_ratio_of_sums, by_patient), np.arange(len(by_patient)))
                rows.append((model, metric, *interval, len(by_patient), count))
    return pd.DataFrame(rows, columns=["model", "metric", "value", "low", "high", "n", "count"])


def _shares(bodies: pd.DataFrame) -> dict[str, tuple[pd.Series, pd.Series]]:
    """Metric -> (numerator, denominator), one value per row of `bodies`; HD95 only where all are in one unit."""
    in_reference, matched = bodies["level"] != "", bodies["f1"].notna()
    shares = {
        "found": (matched, in_reference),
        "rightly named": (bodies["outcome"] == "right", matched),
        "outline F1": (bodies["f1"].fillna(0), matched),
    }
    units = bodies["unit"].unique()
    if len(units) == 1:
        shares[f"outline HD95, {units[0]}"] = (bodies["hd95"].fillna(0), matched)
    for outcome in OUTCOMES:
        shares[outcome] = (bodies["outcome"] == outcome, in_reference)
    for error in ("merged", "split"):
        shares[error] = (bodies[error], in_reference)
    return shares


def _ratio_of_sums(sums: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Ratio of the total numerator to the total denominator. sums : (patients, 2). rows : (..., n) -> (...)."""
    numerator, denominator = np.moveaxis(sums[rows].sum(axis=-2), -1, 0)
    return numerator / denominator
