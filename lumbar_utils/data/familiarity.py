"""Whether a scan is like the images that networks were trained on: its field of view and its grey values.

A simple safeguard: it notices images that were inverted, cropped, padded, of noise, or of another scale. It does not
tell a T1 image from a T2 image, whose grey values have the same ranges over a whole image.
"""

import contextlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from lumbar_utils import StudyError, records
from lumbar_utils.data import folder as canonical
from lumbar_utils.data.folder import Cohort
from lumbar_utils.study import ROOT, kind_and_path, record_of

ENOUGH = 300  # images to take ranges of
NEAR_BLACK = 26  # a tenth of the range of 8 bits
MARGIN = 0.25  # of a range's width, beyond each of its ends
MARGIN_MM = 0.15  # of a length itself: all images of a data set may have one field of view
FIELD_OF_VIEW = {"height_mm": "high", "width_mm": "wide"}
GREY_VALUES = {
    "near_black": "share of near-black pixels",
    "skewness": "skewness of the grey values",
    "median_to_bright": "median over 90th percentile",
}


def seen(images: Iterable[np.ndarray], spacings: Iterable[float]) -> dict:
    """What the images of a training are like, as JSON values: `images`, their number, and the ranges [low, high].

    images : (height, width) uint8, as the data set has them. spacings : side of a pixel in mm, nan if unknown.
    height_mm and width_mm, the field of view, run from the smallest to the largest (absent where no spacing is known);
    near_black, skewness and median_to_bright from the 1st to the 99th percentile; see GREY_VALUES.
    """
    rows = []
    for image, spacing_mm in zip(images, spacings, strict=True):
        sides = np.array(image.shape) * spacing_mm
        rows.append((*sides, *grey_values(image).values()))
    if not rows:
        return {"images": 0}
    table = np.array(rows, float)
    ranges = {"images": len(rows)}
    known = table[np.isfinite(table[:, 0])]
    if len(known):
        for name, values in zip(FIELD_OF_VIEW, known[:, :2].T, strict=True):
            ranges[name] = [float(values.min()), float(values.max())]
    for name, values in zip(GREY_VALUES, table[:, 2:].T, strict=True):
        ranges[name] = np.percentile(values, (1, 99)).tolist()
    return ranges


def grey_values(image: np.ndarray) -> dict[str, float]:
    """Name of GREY_VALUES -> value, of a (height, width) uint8 image."""
    shares = np.bincount(image.ravel(), minlength=256) / image.size
    grey = np.arange(256)
    mean = shares @ grey
    variance = shares @ (grey - mean) ** 2
    median, bright = np.searchsorted(np.cumsum(shares), (0.5, 0.9))
    return {
        "near_black": float(shares[:NEAR_BLACK].sum()),
        "skewness": float(shares @ (grey - mean) ** 3 / variance**1.5) if variance else 0.0,
        "median_to_bright": float(median / max(bright, 1)),
    }


def unlike(ranges: dict, images: Iterable[np.ndarray], spacing_mm: float) -> list[str]:
    """Sentences where a scan lies outside of what was seen, beyond a margin: what it is, what was seen, what follows.

    ranges : of `seen`. images : slices of one volume, (height, width) uint8, which count by their median.
    spacing_mm : side of a pixel.
    """
    images, sentences = list(images), []
    sides_mm = dict(zip(FIELD_OF_VIEW, np.array(images[0].shape) * spacing_mm, strict=True))
    sides = [
        f"{side_mm:.0f} mm {FIELD_OF_VIEW[name]} (in training {_span(ranges[name], 0)})"
        for name, side_mm in sides_mm.items()
        if name in ranges and _is_outside(side_mm, ranges[name], MARGIN_MM * side_mm)
    ]
    if sides:
        sentences.append(f"The field of view is {' and '.join(sides)}: vertebrae may be missed or given wrong names.")
    table = [list(grey_values(image).values()) for image in images]
    medians = dict(zip(GREY_VALUES, np.median(table, axis=0), strict=True))
    values = [
        f"{GREY_VALUES[name]} {value:.2f} (in training {_span(ranges[name], 2)})"
        for name, value in medians.items()
        if name in ranges and _is_outside(value, ranges[name], MARGIN * np.ptp(ranges[name]))
    ]
    if values:
        sentences.append(f"The contrast is unusual: {', '.join(values)}. Vertebrae may be missed or outlined wrongly.")
    return sentences


def _is_outside(value: float, limits: list[float], margin: float) -> bool:
    return not limits[0] - margin <= value <= limits[1] + margin


def _span(limits: list[float], digits: int) -> str:
    """`low to high`, or one number where they are the same."""
    return " to ".join(dict.fromkeys(f"{limit:.{digits}f}" for limit in limits))


def seen_by(trained: Path) -> dict:
    """`seen` of the networks in a study's folder: its seen.json, else from the images that they were trained on.

    Empty where there is no such file, and the images are no longer where they were, or have changed.
    """
    if (trained / "seen.json").exists():
        return records.read_json(trained / "seen.json")
    record = record_of(trained)
    fingerprint = record.get("data", {}).get("fingerprint")
    for folder in _folders_of_data(record["settings"]):
        with contextlib.suppress(StudyError, OSError):
            cohort = canonical.read(folder)
            if cohort.fingerprint == fingerprint:
                return _seen_of(cohort, records.read_csv(trained / "cases.csv"))
    return {}


def _folders_of_data(settings: dict) -> list[Path]:
    """Folders that may hold a study's images: its data set, or what was drawn or converted for it."""
    kind, path = kind_and_path(settings["dataset"])
    return [path] if kind == "folder" else sorted((ROOT / settings["cache"]).glob(f"{kind}-*"))


def _seen_of(cohort: Cohort, cases: pd.DataFrame) -> dict:
    """cases : of the study, with case and split."""
    trained_on = cases.loc[cases["split"] == "train", "case"]
    rows = cohort.cases[cohort.cases["case"].isin(trained_on)]
    rows = rows.iloc[:: 1 + len(rows) // ENOUGH]
    return seen((cohort.image(row) for _, row in rows.iterrows()), rows["spacing_mm"])
