"""Errors taken apart: was a vertebra found, how well is it outlined, and which name was it given?

A perfect outline under a neighbour's name scores as badly as none, and is another failure. So what is predicted is
matched to the reference whatever its name, and only then the names are compared.
"""

import cv2
import numpy as np
import pandas as pd

from lumbar_utils.metrics import distances, overlap_of

SMALLEST = 0.1  # of the median body in the reference: what is smaller is a speck, and no vertebra
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
    pieces = _pieces(pred, levels, np.median([mask.sum() for mask in real.values()]) if real else 0)
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
    """One row a model: how many vertebrae there are and were found, named and outlined in which way.

    bodies : model and the columns of COLUMNS. found, rightly_named : shares, of all and of those found; outline_f1 and
    outline_hd95 (in mm; px where no spacing is known) : means over those found, whatever their name; the rest counts.
    """
    rows = {}
    for model, table in bodies.groupby("model", sort=False):
        real, extra = table[table["level"] != ""], (table["outcome"] == "extra").sum()
        found = real[real["outcome"] != "missing"]
        units = found["unit"].unique()
        rows[model] = {
            "vertebrae": len(real), "found": len(found) / max(1, len(real)),
            "outline_f1": found["f1"].mean(),
            "outline_hd95": found["hd95"].mean() if len(units) == 1 else np.nan,
            "unit": ", ".join(units),
            "rightly_named": (found["outcome"] == "right").mean(),
            **{name.replace(" ", "_"): int((real["outcome"] == name).sum()) for name in OUTCOMES[1:5]},
            "extra": int(extra), "merged": int(real["merged"].sum()), "split": int(real["split"].sum()),
        }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model").reset_index()
