"""Where on the spine label maps are wrong: the errors of all test cases on one mean spine.

Each vertebra of a reference is brought onto a grid of its own: its centre to the middle, the direction of the spine
downwards, its lengths along and across the spine to one. Errors are counted there, and the grids are then laid out as
the vertebrae lie on average.
"""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from lumbar_utils.data.folder import Cohort
from lumbar_utils.scores.evaluation import annotated_levels, read_label_map

KINDS = ("missed", "invented", "misnamed")
# a vertebra's grid: how far it reaches along and across the spine, in lengths of the body, which itself reaches to 1.7
REACH, STEP = (5.0, 4.0), 0.1
OUTSIDE = 255  # of the image


class Frame(NamedTuple):
    """Where a body lies: its centre (x, y) in pixels, the unit vector down the spine, its lengths along and across.

    A length is the standard deviation of a body's area: that of n rows is n / sqrt(12).
    """

    centre: np.ndarray
    down: np.ndarray
    lengths: np.ndarray


@dataclasses.dataclass(frozen=True)
class ErrorMap:
    """Shares of cases on the mean spine, each (height, width); nan where fewer than half of a level's cases reach.

    levels : names, from the top. cases : of each level, how many have it. centres : (levels, 2) x, y in the map.
    owner : place in `levels` of the vertebra to whose grid a pixel belongs.
    body : share of the level's cases whose pixel is of the vertebra: its mean outline is where this is a half.
    errors : model -> kind (of KINDS) -> share: a vertebra's pixel taken for background; background for a vertebra; a
        pixel of a vertebra given another's name.
    pixel_mm : side of a pixel of the map; nan where the side of some case's is not known.
    """

    levels: tuple[str, ...]
    cases: np.ndarray
    centres: np.ndarray
    owner: np.ndarray
    body: np.ndarray
    errors: dict[str, dict[str, np.ndarray]]
    pixel_mm: float


def frames(label_map: np.ndarray, values: list[int]) -> dict[int, Frame]:
    """The frame of each of the levels in a (height, width) label map; values : of those to look for, from the top.

    The direction of the spine is that from the body above to the body below, of those that are there; the first and
    the last have one neighbour. A body alone looks straight down.
    """
    bodies = {value: np.argwhere(label_map == value)[:, ::-1] for value in values}
    bodies = {value: xy for value, xy in bodies.items() if len(xy)}
    centres, found = [xy.mean(axis=0) for xy in bodies.values()], {}
    for place, (value, xy) in enumerate(bodies.items()):
        way = centres[min(place + 1, len(centres) - 1)] - centres[max(place - 1, 0)]
        down = way / np.linalg.norm(way) if way.any() else np.array([0.0, 1.0])
        spread = (xy - centres[place]) @ np.stack([down, _across(down)]).T
        found[value] = Frame(centres[place], down, np.sqrt(spread.var(axis=0) + 1 / 12))  # a pixel has an extent too
    return found


def _across(down: np.ndarray) -> np.ndarray:
    """(..., 2) unit vectors at right angles to others, to the right where those look down."""
    return np.stack([down[..., 1], -down[..., 0]], axis=-1)


def error_map(cohort: Cohort, folders: dict[str, Path]) -> ErrorMap:
    """Where the label maps of the test cases are wrong; folders : model -> folder of <case>.png.

    Images are read once and held one at a time. What lies where a case has no vertebra of that level is not counted.
    """
    names, rows = annotated_levels(cohort), []
    shape = (len(names), *_grid().shape[:2])
    body, reached = np.zeros(shape), np.zeros(shape)
    wrong = {model: np.zeros((len(KINDS), *shape)) for model in folders}
    for number, (_, case) in enumerate(cohort.cases[cohort.cases["split"] == "test"].iterrows()):
        true = _annotated(cohort.mask(case), names)
        maps = {model: _annotated(read_label_map(at, case, true.shape), names) for model, at in folders.items()}
        for value, frame in frames(true, list(names)).items():
            level, places = list(names).index(value), _places(frame, true.shape)
            real = _at(true, places)
            body[level] += real == value
            reached[level] += real != OUTSIDE
            for model, label_map in maps.items():
                wrong[model][:, level] += _kinds(real, _at(label_map, places))
            rows.append((number, level, case["spacing_mm"], frame))
    return _laid_out(tuple(names.values()), rows, body, reached, wrong)


def _annotated(label_map: np.ndarray, names: dict[int, str]) -> np.ndarray:
    return np.where(np.isin(label_map, [*names]), label_map, 0)


def _grid() -> np.ndarray:
    """(height, width, 2) places on a vertebra's grid, along and across the spine, in lengths."""
    along, across = (np.arange(-round(reach / STEP), round(reach / STEP) + 1) * STEP for reach in REACH)
    return np.stack(np.meshgrid(along, across, indexing="ij"), axis=-1)


def _places(frame: Frame, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row and column in an image of each place of a body's grid, and whether the image reaches there."""
    x, y = np.moveaxis(frame.centre + (_grid() * frame.lengths) @ np.stack([frame.down, _across(frame.down)]), -1, 0)
    row, column = np.rint(y).astype(int), np.rint(x).astype(int)
    inside = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
    return row.clip(0, shape[0] - 1), column.clip(0, shape[1] - 1), inside


def _at(label_map: np.ndarray, places: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    row, column, inside = places
    return np.where(inside, label_map[row, column], OUTSIDE)


def _kinds(true: np.ndarray, pred: np.ndarray) -> np.ndarray:
    """(KINDS, height, width) which pixels are wrong in which way; none outside of the image."""
    return np.stack([(true > 0) & (pred == 0), (true == 0) & (pred > 0), (true > 0) & (pred > 0) & (true != pred)])


def _laid_out(levels: tuple[str, ...], rows: list[tuple], body, reached, wrong) -> ErrorMap:
    """The vertebrae's grids as shares, on the mean spine. rows : (case, level, spacing_mm, frame), one a vertebra.

    body, reached : (levels, height, width) counts of cases; wrong : model -> (KINDS, levels, height, width).
    """
    centres, downs, lengths, size_mm = _mean_spine(rows, len(levels))
    low, high = np.nanmin(centres, axis=0) - REACH[::-1], np.nanmax(centres, axis=0) + REACH[::-1]
    x, y = np.meshgrid(np.arange(low[0], high[0], STEP), np.arange(low[1], high[1], STEP))
    away = np.stack([x, y], axis=-1)[None] - centres[:, None, None]
    axes = np.stack([downs, _across(downs)], axis=1)
    local = np.einsum("lhwi,lki->lhwk", away, axes) / lengths[:, None, None]
    owner = np.nan_to_num((local**2).sum(axis=-1), nan=np.inf).argmin(axis=0)
    own = np.take_along_axis(local, owner[None, ..., None], axis=0)[0]
    place = np.rint((own + REACH) / STEP).astype(int)
    there = ((place >= 0) & (place < body.shape[1:])).all(axis=-1)
    at = (owner, *np.moveaxis(place.clip(0, np.array(body.shape[1:]) - 1), -1, 0))
    cases = pd.Series([level for _, level, _, _ in rows]).value_counts().reindex(range(len(levels)), fill_value=0)
    cases = cases.to_numpy()
    counts = np.where(there & (2 * reached[at] >= cases[owner]), reached[at], np.nan)
    errors = {model: dict(zip(KINDS, counted[(slice(None), *at)] / counts, strict=True))
              for model, counted in wrong.items()}  # fmt: skip
    return ErrorMap(levels, cases, (centres - low) / STEP, owner, body[at] / counts, errors, STEP * size_mm)


def _mean_spine(rows: list[tuple], levels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Of each level its mean centre (x, y), direction and lengths, in sizes of a spine; and that size in mm, if known.

    A spine's size is the median of its bodies' lengths. Cases lie where they agree best with the mean, so that one
    that shows a few levels moves none of them. nan for a level that no case has.
    """
    case, level, spacing, of = (list(column) for column in zip(*rows, strict=True))
    table = pd.DataFrame({"case": case, "level": level, "spacing": spacing})
    size = pd.Series([np.sqrt(frame.lengths.prod()) for frame in of]).groupby(table["case"]).transform("median")
    xy = pd.DataFrame([frame.centre for frame in of]).div(size, axis=0)
    centres = pd.DataFrame(0.0, index=range(levels), columns=[0, 1])
    for _ in range(50):  # in turn: cases onto the mean, the mean from the cases
        shifts = (xy - centres.loc[level].set_axis(xy.index)).groupby(table["case"]).transform("mean")
        centres = (xy - shifts).groupby(table["level"]).mean().reindex(range(levels))
    downs = pd.DataFrame([frame.down for frame in of]).groupby(table["level"]).mean()
    downs = downs.div(np.linalg.norm(downs, axis=1), axis=0).reindex(range(levels))
    lengths = pd.DataFrame([frame.lengths for frame in of]).div(size, axis=0).groupby(table["level"]).mean()
    size_mm = float((size * table["spacing"]).mean(skipna=False))
    return centres.to_numpy(), downs.to_numpy(), lengths.reindex(range(levels)).to_numpy(), size_mm


def peaks(found: ErrorMap) -> pd.DataFrame:
    """Where each model is wrong most often: model, what (outline, name), share of cases in [0, 1], level.

    `outline` : missed or invented; `name` : a vertebra's pixel under another's name.
    """
    rows = []
    for model, kinds in found.errors.items():
        for what, share in {"outline": kinds["missed"] + kinds["invented"], "name": kinds["misnamed"]}.items():
            place = np.unravel_index(np.nanargmax(share), share.shape)
            rows.append((model, what, float(share[place]), found.levels[found.owner[place]]))
    return pd.DataFrame(rows, columns=["model", "what", "share", "level"])
