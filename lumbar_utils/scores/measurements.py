"""Heights, depths and angles of vertebral bodies, discs, slips and lordosis, measured on label maps.

A body is reduced to the four straight sides of its convex hull, which close the hollows of end plates and walls; two
sides cross in a corner. An end plate is thus the line over its rims. Spurs of a mask are cut off before, and so are the
tips of long osteophytes. The hull goes over the steps of the pixels: a tilted body comes out up to a pixel larger.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from scipy import ndimage

from lumbar_utils import LEVELS, StudyError

MIN_PIXELS = 50  # of a body, and
MIN_SHARE = 0.25  # of the largest body of the slice: what is smaller is a fragment
SPUR = 0.35  # of a body's side, the root of its area: what is narrower and juts out is cut off
FITTED = np.linspace(0.2, 0.8, 25)  # shares of a side to which its line is fitted: beyond them corners are rounded
TURNS = 8  # of a body's axes, until they are those of its end plates
MIDDLE = 0.06  # of the depth, to either side of its middle: there the hollow of an end plate is averaged
SLICES = 1  # to either side of a body's middle slice
NAMES = [*LEVELS, *map("-".join, pairwise(LEVELS))]
UPPER, LOWER = "upper end plate angle", "lower end plate angle"


class Body(NamedTuple):
    """Corners of a vertebral body and the middles of its hollow end plates: (x, y) in px.

    The first pixel's centre is (0, 0); x grows towards the back, y towards the feet.
    """

    front_top: np.ndarray
    back_top: np.ndarray
    back_bottom: np.ndarray
    front_bottom: np.ndarray
    middle_top: np.ndarray
    middle_bottom: np.ndarray


def measure(label_map: np.ndarray, spacing_mm: float) -> pd.DataFrame:
    """One row per level or pair of levels and measure: level, measure, value, unit (mm or px, deg, %, ratio).

    label_map : (height, width) or (slices, height, width) of 0 background, 1..6 = L1..S1; head up, front left.
    spacing_mm : side of the square pixels within a slice; nan if unknown, then lengths are in px.

    L1 to L5: anterior, middle and posterior height (between corners; the middle one between the hollow end plates),
    depth (mean of both end plates), wedge ratio (anterior / posterior height; Genant 1993, doi
    10.1002/jbmr.5650080915), upper and lower end plate angle to the image's rows, positive where the back is higher.
    S1 is part of the sacrum: only depth and angle of its upper end plate.
    Neighbours, as L4-L5: anterior, middle and posterior disc height, perpendicular to the bisector of the two end
    plates (Frobin 1997, doi 10.1016/S0268-0033(96)00067-8); disc angle, positive where higher in front; slip, from the
    back corner of the lower body to that of the upper one along the lower body's upper end plate, positive forwards,
    and slip share, in % of that end plate's depth (Taillard 1954, Acta Orthop Scand 24:115).
    Lordosis: L1-S1, the Cobb angle of the upper end plates; L1-L5, of L1's upper and L5's lower one; positive where the
    back is hollow, nan where one of the two is absent.

    Bodies that are absent, fragments or cut by the image's border have no rows. In a volume a body is measured in its
    middle slice and one to either side, neighbours in those between their middles, and the median is taken: bodies are
    rounded towards their sides, and a scoliotic spine has no one slice through the middle of all.
    Raises StudyError for another shape or other labels.
    """
    if label_map.ndim not in (2, 3) or not np.isin(np.unique(label_map), range(len(LEVELS) + 1)).all():
        raise StudyError(
            f"cannot measure a label map of shape {label_map.shape} with values {np.unique(label_map)[:9].tolist()}; "
            "give (height, width) or (slices, height, width) of 0 for background and 1 to 6 for L1 to S1"
        )
    slices = label_map.reshape(-1, *label_map.shape[-2:])
    middles, rows = _middle_slices(slices), []
    for number in np.flatnonzero(slices.any(axis=(1, 2))):
        for row in _measure_bodies(find_bodies(slices[number]), spacing_mm):
            if abs(number - np.mean([middles[level] for level in row[0].split("-")])) <= SLICES:
                rows.append(row)
    table = pd.DataFrame(rows, columns=["level", "measure", "unit", "value"]).astype({"value": float}).dropna()
    table = table.groupby(["level", "measure", "unit"], sort=False)["value"].median().reset_index()
    table["value"] = table["value"].round(4) + 0.0  # no -0.0
    table = table.sort_values("level", key=lambda names: names.map(NAMES.index), kind="stable", ignore_index=True)
    angles = table.set_index(["level", "measure"])["value"]
    top, sacrum, bottom = (angles.get(key, np.nan) for key in (("L1", UPPER), ("S1", UPPER), ("L5", LOWER)))
    rows = [("L1-S1", "lordosis", "deg", sacrum - top), ("L1-L5", "lordosis", "deg", bottom - top)]
    table = pd.concat([table, pd.DataFrame(rows, columns=table.columns)], ignore_index=True)
    return table[["level", "measure", "value", "unit"]]


def find_bodies(label_map: np.ndarray) -> dict[str, Body]:
    """Level -> body, of the levels of one slice (height, width) that are neither fragments nor cut by its border."""
    height, width = label_map.shape
    found = {}
    for value, level in enumerate(LEVELS, 1):
        _, numbers, boxes, _ = cv2.connectedComponentsWithStats((label_map == value).astype(np.uint8))
        if len(boxes) > 1:
            number = 1 + boxes[1:, cv2.CC_STAT_AREA].argmax()
            found[level] = numbers == number, boxes[number]
    least = max([MIN_PIXELS, *(MIN_SHARE * box[cv2.CC_STAT_AREA] for _, box in found.values())])
    found = {level: (mask, box) for level, (mask, box) in found.items() if box[cv2.CC_STAT_AREA] >= least}
    centres = [box[:2] + box[2:4] / 2 for _, box in found.values()]
    bodies = {}
    for number, (level, (mask, (left, top, across, down, _))) in enumerate(found.items()):
        if left > 0 and top > 0 and left + across < width and top + down < height:
            above, below = centres[max(number - 1, 0)], centres[min(number + 1, len(centres) - 1)]
            of_bottom = 0.0 if level == "S1" else 0.5  # the lower end of S1 has a direction of its own
            window = mask[top - 1 : top + down + 1, left - 1 : left + across + 1]
            body = _body(_without_spurs(window), below - above, of_bottom)
            bodies[level] = Body(*(np.array([left - 1, top - 1]) + body))
    return bodies


def _without_spurs(mask: np.ndarray) -> np.ndarray:
    """A mask, with a margin, without its holes and without what is narrow and juts out; its corners stay."""
    filled = ndimage.binary_fill_holes(mask).astype(np.uint8)
    radius = SPUR / 2 * np.sqrt(filled.sum())
    core = cv2.morphologyEx(filled, cv2.MORPH_OPEN, _disk(radius))
    _, numbers, boxes, _ = cv2.connectedComponentsWithStats(core)
    if len(boxes) < 2:  # all of it is narrow
        return filled > 0
    largest = numbers == 1 + boxes[1:, cv2.CC_STAT_AREA].argmax()
    # a disk misses a right corner by 0.41 of its radius
    return (filled > 0) & (cv2.dilate(largest.astype(np.uint8), _disk(radius / 2)) > 0)


def _disk(radius: float) -> np.ndarray:
    side = 2 * max(1, round(radius)) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))


def _body(mask: np.ndarray, down: np.ndarray, of_bottom: float) -> np.ndarray:
    """(6, 2) the points of a Body.

    mask : with a margin. down : (x, y) along the spine; (0, 0) if unknown. of_bottom : share of the lower end plate,
        beside the upper one, in the direction of the body's axes.
    """
    points = _edge_points(mask)
    centre = points.mean(axis=0)
    down = down / np.hypot(*down) if down[1] > 0 else np.array([0.0, 1.0])
    for _ in range(TURNS):
        axes = np.array([[down[1], -down[0]], down])  # towards the back, towards the feet
        along, across = axes @ (points - centre).T
        ends = along.min(), along.max()
        top, bottom = _fit_side(along, across, ends), -_fit_side(along, -across, ends)
        down = axes[1] - ((1 - of_bottom) * top[0] + of_bottom * bottom[0]) * axes[0]
        down /= np.hypot(*down)
    front = _fit_side(across, along, [np.polyval(line, ends[0]) for line in (top, bottom)])
    back = -_fit_side(across, -along, [np.polyval(line, ends[1]) for line in (top, bottom)])
    corners = [_crossing(top, front), _crossing(top, back), _crossing(bottom, back), _crossing(bottom, front)]
    middle = np.mean([corner[0] for corner in corners])
    near = np.abs(along - middle) <= MIDDLE * np.ptp(along)
    level = (np.polyval(top, middle) + np.polyval(bottom, middle)) / 2
    halves = [across[near & (across < level)], across[near & (across > level)]]
    middles = [(middle, edge.mean() if len(edge) else np.nan) for edge in halves]  # nan: in pieces, or bent
    return centre + np.array([*corners, *middles]) @ axes


def _edge_points(mask: np.ndarray) -> np.ndarray:
    """(points, 2) the middles (x, y) of the pixels' sides between a mask and its surroundings."""
    rows, columns = np.nonzero(mask[1:] != mask[:-1])
    lying = np.stack([columns, rows + 0.5], axis=1)
    rows, columns = np.nonzero(mask[:, 1:] != mask[:, :-1])
    return np.concatenate([lying, np.stack([columns + 0.5, rows], axis=1)])


def _fit_side(along: np.ndarray, across: np.ndarray, ends: Sequence[float]) -> np.ndarray:
    """(slope, intercept) of a line, across over along: the side of the convex hull where `across` is least.

    ends : where the side begins and ends, along.
    """
    hull = cv2.convexHull(np.stack([along, across], axis=1).astype(np.float32))[:, 0]
    hull = np.roll(hull, -hull[:, 0].argmin(), axis=0)  # OpenCV goes round by the least `across` first
    side = hull[: hull[:, 0].argmax() + 1]
    places = ends[0] + FITTED * (ends[1] - ends[0])
    return np.polyfit(places, np.interp(places, side[:, 0], side[:, 1]), 1)


def _crossing(end_plate: np.ndarray, wall: np.ndarray) -> tuple[float, float]:
    """(along, across) of the corner of two lines: an end plate, across over along, and a wall, along over across."""
    along = (wall[0] * end_plate[1] + wall[1]) / (1 - wall[0] * end_plate[0])
    return along, end_plate[0] * along + end_plate[1]


def _middle_slices(slices: np.ndarray) -> dict[str, int]:
    """Level -> the slice up to which half of its volume lies."""
    middles = {}
    for value, level in enumerate(LEVELS, 1):
        volume = (slices == value).sum(axis=(1, 2)).cumsum()
        middles[level] = int(np.searchsorted(volume, volume[-1] / 2))
    return middles


def _measure_bodies(bodies: dict[str, Body], spacing_mm: float) -> list[tuple[str, str, str, float]]:
    """Rows (level, measure, unit, value) of the bodies of one slice and of its neighbours."""
    side, length = (1.0, "px") if np.isnan(spacing_mm) else (spacing_mm, "mm")
    bodies = {level: Body(*(side * np.array(body))) for level, body in bodies.items()}
    rows = []
    for level, body in bodies.items():
        rows += [(level, *row) for row in _body_rows(body, length, level == "S1")]
    for above, below in pairwise(LEVELS):
        if above in bodies and below in bodies:
            rows += [(f"{above}-{below}", *row) for row in _pair_rows(bodies[above], bodies[below], length)]
    return rows


def _body_rows(body: Body, length: str, is_sacral: bool) -> list[tuple[str, str, float]]:
    upper, upper_angle = _end_plate(body.front_top, body.back_top)
    if is_sacral:
        return [("depth", length, upper), (UPPER, "deg", upper_angle)]
    lower, lower_angle = _end_plate(body.front_bottom, body.back_bottom)
    anterior = np.hypot(*(body.front_bottom - body.front_top))
    posterior = np.hypot(*(body.back_bottom - body.back_top))
    return [
        ("anterior height", length, anterior),
        ("middle height", length, np.hypot(*(body.middle_bottom - body.middle_top))),
        ("posterior height", length, posterior),
        ("depth", length, (upper + lower) / 2),
        ("wedge ratio", "ratio", anterior / posterior),
        (UPPER, "deg", upper_angle),
        (LOWER, "deg", lower_angle),
    ]


def _pair_rows(above: Body, below: Body, length: str) -> list[tuple[str, str, float]]:
    upper_depth, upper_angle = _end_plate(above.front_bottom, above.back_bottom)
    lower_depth, lower_angle = _end_plate(below.front_top, below.back_top)
    upper = (above.back_bottom - above.front_bottom) / upper_depth
    lower = (below.back_top - below.front_top) / lower_depth
    bisector = (upper + lower) / np.hypot(*(upper + lower))
    towards_feet = np.array([-bisector[1], bisector[0]])
    slip = (below.back_top - above.back_bottom) @ lower
    return [
        ("anterior disc height", length, (below.front_top - above.front_bottom) @ towards_feet),
        ("middle disc height", length, (below.middle_top - above.middle_bottom) @ towards_feet),
        ("posterior disc height", length, (below.back_top - above.back_bottom) @ towards_feet),
        ("disc angle", "deg", lower_angle - upper_angle),
        ("slip", length, slip),
        ("slip share", "%", 100 * slip / lower_depth),
    ]


def _end_plate(front: np.ndarray, back: np.ndarray) -> tuple[float, float]:
    """Depth, and the angle to the image's rows in degrees, positive where the back edge lies higher."""
    across, down = back - front
    return float(np.hypot(across, down)), float(np.degrees(np.arctan2(-down, across)))
