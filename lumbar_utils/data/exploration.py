"""The data before any training: image sizes, intensities, area and position of each level."""

import numpy as np
import pandas as pd

from lumbar_utils import LEVELS
from lumbar_utils.data.folder import Cohort

BINS = 64  # of grey values


def explore(cohort: Cohort) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Three tables from one pass over a cohort's images.

    sizes : case, patient, height and width (px), height_mm and width_mm (nan without spacing), levels (how many).
    areas : case, level, area (mm2, or px where the spacing is unknown), unit, x and y of the centroid as a share of
        the image's width and height; a level that is not in the image has no row.
    intensities : tissue (`background` or a level), grey (middle of a bin, 0..255), share of the tissue's pixels.
    """
    sizes, areas = [], []
    counts = np.zeros((len(LEVELS) + 1, BINS), np.int64)
    for _, case in cohort.cases.iterrows():
        image, mask, spacing = cohort.image(case), cohort.mask(case), case["spacing_mm"]
        rows = _areas(case, mask)
        sizes.append((case["case"], case["patient"], *mask.shape, *(side * spacing for side in mask.shape), len(rows)))
        areas += rows
        np.add.at(counts, (mask.ravel(), image.ravel() // (256 // BINS)), 1)
    return (
        pd.DataFrame(sizes, columns=["case", "patient", "height", "width", "height_mm", "width_mm", "levels"]),
        pd.DataFrame(areas, columns=["case", "level", "area", "unit", "x", "y"]),
        _shares(counts),
    )


def _areas(case: pd.Series, mask: np.ndarray) -> list[tuple]:
    height, width = mask.shape
    pixel, unit = case["spacing_mm"] ** 2, "mm2"
    if np.isnan(pixel):
        pixel, unit = 1, "px"
    rows = []
    for value, level in enumerate(LEVELS, 1):
        ys, xs = np.nonzero(mask == value)
        if len(ys):
            x, y = (xs.mean() + 0.5) / width, (ys.mean() + 0.5) / height
            rows.append((case["case"], level, len(ys) * pixel, unit, x, y))
    return rows


def _shares(counts: np.ndarray) -> pd.DataFrame:
    """counts : (tissues, BINS) pixels."""
    grey = (np.arange(BINS) + 0.5) * 256 / BINS
    tables = [
        pd.DataFrame({"tissue": tissue, "grey": grey, "share": row / row.sum()})
        for tissue, row in zip(("background", *LEVELS), counts, strict=True)
        if row.sum()
    ]
    return pd.concat(tables, ignore_index=True)
