"""Spatial distribution of errors: the errors of all test cases, projected onto one mean spine.

Each vertebra of a reference is resampled onto a normalised grid of its level: centred, the spine pointing down, its
length along and across the spine scaled to one. Errors are counted there per level, and the grids are then placed as
the vertebrae lie on average.
"""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from lumbar_utils.data.folder import Cohort
from lumbar_utils.scores.evaluation import annotated_levels, read_label_map

ERROR_KINDS = ("missed", "invented", "misnamed")
REACH = (5.0, 4.0)  # of a vertebra's grid from its centre along and across the spine, in lengths; the body ends at 1.7
STEP = 0.1  # of the grid, in lengths
OUTSIDE = 255  # value of grid points outside of the image


class Frame(NamedTuple):
    """Pose of a vertebra: centre (x, y) in pixels, unit vector down the spine, lengths along and across it.

    A length is the standard deviation of the area's coordinates in pixels: n / sqrt(12) for n rows.
    """

    centre: np.ndarray
    down: np.ndarray
    lengths: np.ndarray


@dataclasses.dataclass(frozen=True)
class ErrorMap:
    """Shares of cases on the mean spine, each (height, width); nan where the images of most cases do not reach.

    levels : names, from the top. cases : number of cases with each level. centres : (levels, 2) x, y in the map.
    owner : index in `levels` of the vertebra to whose grid a pixel belongs.
    body : share of the level's cases with the vertebra at this pixel; 0.5 is the mean outline.
    errors : model -> kind (of ERROR_KINDS) -> share. missed : a vertebra labelled as background. invented : background
        labelled as a vertebra. misnamed : a vertebra labelled as another.
    pixel_mm : side of a pixel of the map; nan if that of any case is unknown.
    """

    levels: tuple[str, ...]
    cases: np.ndarray
    centres: np.ndarray
    owner: np.ndarray
    body: np.ndarray
    errors: dict[str, dict[str, np.ndarray]]
    pixel_mm: float


def frames(label_map: np.ndarray, values: list[int]) -> dict[int, Frame]:
    """The frame of each level in a (height, width) label map. values : of the levels to look for, from the top.

    The spine's direction at a vertebra is from the next one above to the next one below; the first and the last use
    their single neighbour. A vertebra alone points straight down.
    """
    vertebrae = {value: np.argwhere(label_map == value)[:, ::-1] for value in values}
    vertebrae = {value: xy for value, xy in vertebrae.items() if len(xy)}
    centres = [xy.mean(axis=0) for xy in vertebrae.values()]
    found = {}
    for number, (value, xy) in enumerate(vertebrae.items()):
        above, below = max(number - 1, 0), min(number + 1, len(centres) - 1)
        direction = centres[below] - centres[above]
        down = direction / np.linalg.norm(direction) if direction.any() else np.array([0.0, 1.0])
        local = (xy - centres[number]) @ np.stack([down, _across(down)]).T
        lengths = np.sqrt(local.var(axis=0) + 1 / 12)  # a pixel's own extent included
        found[value] = Frame(centres[number], down, lengths)
    return found


def _across(down: np.ndarray) -> np.ndarray:
    """(..., 2) unit vectors perpendicular to `down`, pointing right where it points down."""
    return np.stack([down[..., 1], -down[..., 0]], axis=-1)


def error_map(cohort: Cohort, folders: dict[str, Path]) -> ErrorMap:
    """Errors of the test cases' label maps on the mean spine. folders : model -> folder of <case>.png.

    Masks are read one case at a time. A case counts for the levels that its reference has.
    """
    names, rows = annotated_levels(cohort), []
    shape = (len(names), *_grid().shape[:2])
    body, inside = np.zeros(shape), np.zeros(shape)
    errors = {model: np.zeros((len(ERROR_KINDS), *shape)) for model in folders}
    for number, (_, case) in enumerate(cohort.cases[cohort.cases["split"] == "test"].iterrows()):
        true = _annotated(cohort.mask(case), names)
        maps = {model: _annotated(read_label_map(at, case, true.shape), names) for model, at in folders.items()}
        for value, frame in frames(true, list(names)).items():
            level = list(names).index(value)
            reference = _resample(true, frame)
            body[level] += reference == value
            inside[level] += reference != OUTSIDE
            for model, label_map in maps.items():
                errors[model][:, level] += _errors(reference, _resample(label_map, frame))
            rows.append((number, level, case["spacing_mm"], frame))
    return _project(tuple(names.values()), rows, body, inside, errors)


def _annotated(label_map: np.ndarray, names: dict[int, str]) -> np.ndarray:
    return np.where(np.isin(label_map, [*names]), label_map, 0)


def _grid() -> np.ndarray:
    """(height, width, 2) points of a vertebra's grid, along and across the spine, in lengths."""
    along, across = (np.arange(-round(reach / STEP), round(reach / STEP) + 1) * STEP for reach in REACH)
    return np.stack(np.meshgrid(along, across, indexing="ij"), axis=-1)


def _resample(label_map: np.ndarray, frame: Frame) -> np.ndarray:
    """Nearest value of a label map at each point of a vertebra's grid; OUTSIDE beyond the image."""
    height, width = label_map.shape
    x, y = np.moveaxis(frame.centre + (_grid() * frame.lengths) @ np.stack([frame.down, _across(frame.down)]), -1, 0)
    row, column = np.rint(y).astype(int), np.rint(x).astype(int)
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    return np.where(inside, label_map[row.clip(0, height - 1), column.clip(0, width - 1)], OUTSIDE)


def _errors(true: np.ndarray, pred: np.ndarray) -> np.ndarray:
    """(ERROR_KINDS, height, width) bool: errors of each kind; none outside of the image, where both are OUTSIDE."""
    return np.stack([(true > 0) & (pred == 0), (true == 0) & (pred > 0), (true > 0) & (pred > 0) & (true != pred)])


def _project(
    levels: tuple[str, ...], rows: list[tuple], body: np.ndarray, inside: np.ndarray, errors: dict[str, np.ndarray]
) -> ErrorMap:
    """The levels' grids as shares of cases, placed on the mean spine.

    rows : (case, level, spacing_mm, frame), one per vertebra. body, inside : (levels, height, width) numbers of cases
    with the vertebra, and with an image, at a grid point. errors : model -> (ERROR_KINDS, levels, height, width).
    """
    centres, downs, lengths, size_mm = _mean_spine(rows, len(levels))
    low, high = np.nanmin(centres, axis=0) - REACH[::-1], np.nanmax(centres, axis=0) + REACH[::-1]
    x, y = np.meshgrid(np.arange(low[0], high[0], STEP), np.arange(low[1], high[1], STEP))
    offsets = np.stack([x, y], axis=-1)[None] - centres[:, None, None]
    axes = np.stack([downs, _across(downs)], axis=1)
    local = np.einsum("lhwi,lki->lhwk", offsets, axes) / lengths[:, None, None]
    owner = np.nan_to_num((local**2).sum(axis=-1), nan=np.inf).argmin(axis=0)
    own = np.take_along_axis(local, owner[None, ..., None], axis=0)[0]
    point = np.rint((own + REACH) / STEP).astype(int)
    on_grid = ((point >= 0) & (point < body.shape[1:])).all(axis=-1)
    at = (owner, *np.moveaxis(point.clip(0, np.array(body.shape[1:]) - 1), -1, 0))
    cases = np.bincount([level for _, level, _, _ in rows], minlength=len(levels))
    counts = np.where(on_grid & (2 * inside[at] >= cases[owner]), inside[at], np.nan)
    shares = {}
    for model, errors_of_kinds in errors.items():
        shares[model] = dict(zip(ERROR_KINDS, errors_of_kinds[(slice(None), *at)] / counts, strict=True))
    return ErrorMap(levels, cases, (centres - low) / STEP, owner, body[at] / counts, shares, STEP * size_mm)


def _mean_spine(rows: list[tuple], levels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Mean centre (x, y), direction and lengths of each level, in units of the spine's size; and that size in mm.

    A spine's size is the median length of its vertebrae. Cases are shifted to agree best with the mean, so that a case
    with a few levels does not move them. nan for a level that no case has, and for an unknown size.
    """
    table = pd.DataFrame(rows, columns=["case", "level", "spacing", "frame"])
    length = pd.Series([np.sqrt(frame.lengths.prod()) for frame in table["frame"]])
    size = length.groupby(table["case"]).transform("median")
    xy = pd.DataFrame([frame.centre for frame in table["frame"]]).div(size, axis=0)
    centres = pd.DataFrame(0.0, index=range(levels), columns=[0, 1])
    for _ in range(50):  # alternately: shift the cases onto the mean, average the cases
        shifts = (xy - centres.loc[table["level"]].set_axis(xy.index)).groupby(table["case"]).transform("mean")
        centres = (xy - shifts).groupby(table["level"]).mean().reindex(range(levels))
    downs = pd.DataFrame([frame.down for frame in table["frame"]]).groupby(table["level"]).mean()
    downs = downs.div(np.linalg.norm(downs, axis=1), axis=0).reindex(range(levels))
    lengths = pd.DataFrame([frame.lengths for frame in table["frame"]]).div(size, axis=0).groupby(table["level"]).mean()
    size_mm = float((size * table["spacing"]).mean(skipna=False))
    return centres.to_numpy(), downs.to_numpy(), lengths.reindex(range(levels)).to_numpy(), size_mm


def peaks(projected: ErrorMap) -> pd.DataFrame:
    """The pixel where each model is wrong most often: model, what (outline, name), share of cases in [0, 1], level.

    outline : missed or invented. name : misnamed.
    """
    rows = []
    for model, kinds in projected.errors.items():
        for what, share in {"outline": kinds["missed"] + kinds["invented"], "name": kinds["misnamed"]}.items():
            place = np.unravel_index(np.nanargmax(share), share.shape)
            rows.append((model, what, float(share[place]), projected.levels[projected.owner[place]]))
    return pd.DataFrame(rows, columns=["model", "what", "share", "level"])
