"""What is wrong with one label map, judged by its shapes alone.

Orientation: levels follow one another downwards; and a lumbar spine is hollow at the back, so from step to step between
centroids it bends towards the right of an image whose front is left. How far it bends is measured by a straight line
through the steps' directions. A spine nearly straight has no side to tell: up to MIRRORED_DEG nothing is said.
"""

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

from lumbar_utils.data.audit.kinds import Fault

REPEATED = 0.25  # a second piece of at least this share of the first is another body, a smaller one a speck
# Towards the left, from first to last step. Measured: clean phantoms bend to the right by 8 to 68 degrees, the real
# slices by 3 to 55; of these, mirrored, nine in ten would be told.
MIRRORED_DEG = 10


class Body(NamedTuple):
    """One level in a label map. pieces: areas in px, largest first; centre: (x, y) of the largest piece in px."""

    name: str
    pieces: list[int]
    holes: int
    centre: np.ndarray


def bodies(mask: np.ndarray, levels: dict[int, str]) -> list[Body]:
    """The levels that a (height, width) label map holds, from L1 on. levels : value -> name."""
    from scipy.ndimage import binary_fill_holes

    found = []
    for value, name in levels.items():
        inside = mask == value
        if not inside.any():
            continue
        _, _, boxes, centres = cv2.connectedComponentsWithStats(inside.view(np.uint8), connectivity=8)
        areas = boxes[1:, cv2.CC_STAT_AREA]
        x, y, width, height = cv2.boundingRect(inside.view(np.uint8))
        crop = inside[y : y + height, x : x + width]
        holes = int((binary_fill_holes(crop) & ~crop).sum())
        found.append(Body(name, sorted(areas.tolist(), reverse=True), holes, centres[1 + areas.argmax()]))
    return found


def faults(mask: np.ndarray, levels: dict[int, str]) -> Iterator[Fault]:
    """Every fault of a (height, width) label map. levels : value -> name of the annotated levels, from L1 on."""
    found = bodies(mask, levels)
    if not found:
        yield Fault("empty-mask", f"the mask holds none of {', '.join(levels.values())}")
        return
    yield from _missing([body.name for body in found], list(levels.values()))
    yield from _pieces(found)
    yield from _orientation(found)
    edge = np.unique(np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]))
    if cut := [name for value, name in levels.items() if value in edge]:
        yield Fault("border", f"{', '.join(cut)} touches the image's edge")


def _missing(present: list[str], annotated: list[str]) -> Iterator[Fault]:
    places = [annotated.index(name) for name in present]
    inner = [name for name in annotated[places[0] : places[-1]] if name not in present]
    if inner:
        yield Fault("gap", f"{', '.join(inner)} is missing between {present[0]} and {present[-1]}")
    if ends := annotated[: places[0]] + annotated[places[-1] + 1 :]:
        yield Fault("missing-end", f"{', '.join(ends)} is missing; the mask goes from {present[0]} to {present[-1]}")


def _pieces(found: list[Body]) -> Iterator[Fault]:
    twice = [body for body in found if len(body.pieces) > 1 and body.pieces[1] >= REPEATED * body.pieces[0]]
    if twice:
        areas = "; ".join(f"{body.name} in pieces of {body.pieces[0]} and {body.pieces[1]} px" for body in twice)
        yield Fault("repeated-level", areas)
    specks = {body.name: [area for area in body.pieces[1:] if area < REPEATED * body.pieces[0]] for body in found}
    if told := [f"{len(areas)} of {name} ({sum(areas)} px)" for name, areas in specks.items() if areas]:
        yield Fault("fragments", f"small pieces: {', '.join(told)}")
    if told := [f"{body.name} ({body.holes} px)" for body in found if body.holes]:
        yield Fault("holes", f"holes in {', '.join(told)}")


def _orientation(found: list[Body]) -> Iterator[Fault]:
    """At most one fault: a wrong order hides which side is up, and what is not head up has no front to tell."""
    if len(found) < 2:
        return
    names, centres = [body.name for body in found], np.array([body.centre for body in found])
    steps = np.diff(centres, axis=0)
    across, down = np.abs(centres[-1] - centres[0])
    order = ", ".join(names[place] for place in np.argsort(centres[:, 1]))
    if across > down and np.ptp(np.sign(steps[:, 0])) == 0:
        yield Fault("on-its-side", f"{names[0]} to {names[-1]}: {across:.0f} px across, {down:.0f} px down")
    elif (steps[:, 1] < 0).all():
        yield Fault("upside-down", f"from top to bottom the levels are {order}")
    elif (steps[:, 1] < 0).any():
        yield Fault("order", f"from top to bottom the levels are {order}")
    elif len(found) > 3 and (bend := bend_deg(centres)) < -MIRRORED_DEG:
        yield Fault("mirrored", f"from {names[0]} to {names[-1]} the spine bends {-bend:.0f} degrees towards the left")


def bend_deg(centres: np.ndarray) -> float:
    """Degrees by which a column turns to the right on its way down, by a line through its steps' directions.

    centres : (bodies, 2) of x, y in px, from head to feet, three or more.
    """
    steps = np.diff(centres, axis=0)
    directions = np.degrees(np.arctan2(steps[:, 0], steps[:, 1]))
    return float(np.polyfit(np.arange(len(steps)), directions, 1)[0] * (len(steps) - 1))
