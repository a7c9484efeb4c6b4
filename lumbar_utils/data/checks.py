"""Checks of one case: its files, its image, the shapes in its mask, and the mask over the image.

Orientation is judged by the mask alone: levels follow one another downwards; and a lumbar spine is hollow at the back,
so from step to step between centroids it bends towards the right of an image whose front is left. The bend is measured
by a straight line through the steps' directions; a spine that bends by MIRRORED_DEG or less is nearly straight and
has no side to tell.
"""

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from lumbar_utils import LEVELS, StudyError
from lumbar_utils.data.images import read_image, read_mask

REPEATED = 0.25  # a second piece of at least this share of the first is another body, a smaller one a speck
# Towards the left, from first to last step. Measured: clean phantoms bend to the right by 8 to 68 degrees, the real
# slices by 3 to 55; of these, mirrored, nine in ten would be found.
MIRRORED_DEG = 10
FLAT = 2.0  # standard deviation in grey values below which an image shows nothing
# Largest share of white pixels. Measured: at most 0.18 and 0.39 in 514 phantoms, 0.06 and 0.03 in the real slices
MAX_WHITE = {"image": 0.30, "bodies": 0.60}
# Measured in 1542 phantoms and the real slices: a body's median grey value is that of the image's 0.45 quantile or
# higher, and 0.38 of the image's mean or more.
AIR_RANK, AIR_SHARE_OF_MEAN = 0.25, 0.3
SIDE, WAVES = 64, 16  # an image is shrunk to 64 x 64 pixels, its 16 x 16 longest waves make 255 bits without the mean


class Fault(NamedTuple):
    """A fault of one of audit.KINDS, with numbers."""

    kind: str
    what: str


@dataclasses.dataclass(frozen=True)
class Case:
    """A checked case: its faults, and features for comparison with other cases, None without a usable image.

    pixels : hash of the decoded image. waves : as from `perceptual_hash`. mean, deviation : of the grey values.
    """

    case: str
    patient: str
    faults: list[Fault]
    pixels: str | None = None
    waves: np.ndarray | None = None
    mean: float = float("nan")
    deviation: float = float("nan")


def check_case(folder: Path, row: pd.Series, labels: dict[int, str], annotated: tuple[str, ...]) -> Case:
    """Check one row of a table of cases; files that cannot be read become faults and raise nothing."""
    levels = {value: name for value, name in enumerate(LEVELS, 1) if name in annotated}
    faults, image, mask = [], None, None
    try:
        image = read_image(folder / row["image"])
    except (StudyError, OSError) as error:
        faults.append(Fault("unreadable", str(error)))
    if levels and row["mask"]:  # a data set for prediction annotates no level, and needs no masks
        try:
            mask = read_mask(folder / row["mask"], labels)
        except (StudyError, OSError) as error:
            mask = read_tolerantly(folder / row["mask"], labels)
            faults.append(Fault("unreadable" if mask is None else "label", str(error)))
    if mask is not None:
        faults += mask_faults(mask, levels)
    if image is None:
        return Case(row["case"], row["patient"], faults)
    if mask is not None and mask.shape != image.shape:
        faults.append(Fault("size", f"mask {row['mask']} has the shape {mask.shape} but its image {image.shape}"))
        mask = None
    faults += _image_faults(image, mask, levels)
    pixels = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
    waves = None if image.std() < FLAT else perceptual_hash(image)
    return Case(row["case"], row["patient"], faults, pixels, waves, float(image.mean()), float(image.std()))


def read_tolerantly(path: Path, labels: dict[int, str]) -> np.ndarray | None:
    """The label map, unnamed labels as background; None if it cannot be read at all."""
    try:
        return read_mask(path, dict.fromkeys(range(256), "unnamed") | labels)
    except (StudyError, OSError):
        return None


def _image_faults(image: np.ndarray, mask: np.ndarray | None, levels: dict[int, str]) -> Iterator[Fault]:
    if image.std() < FLAT:
        yield Fault("flat", f"grey values from {image.min()} to {image.max()}, standard deviation {image.std():.1f}")
        return
    bodies = np.zeros(0, np.uint8) if mask is None else image[np.isin(mask, list(levels))]
    white = {"image": (image == 255).mean(), "bodies": (bodies == 255).mean() if bodies.size else 0}
    if any(white[where] > most for where, most in MAX_WHITE.items()):
        yield Fault("saturated", f"white are {white['image']:.0%} of the image and {white['bodies']:.0%} of the bodies")
    dark = _over_air(image, mask, levels) if bodies.size else []
    if dark:
        yield Fault("over-air", f"median grey value of {', '.join(dark)}; of the whole image {np.median(image):.0f}")


def _over_air(image: np.ndarray, mask: np.ndarray, levels: dict[int, str]) -> list[str]:
    """Levels whose mask is as dark as the image's background: among its darkest pixels, and far below its mean."""
    below = np.cumsum(np.bincount(image.ravel(), minlength=256)) / image.size
    dark = []
    for value, name in levels.items():
        if (mask == value).any():
            grey = np.median(image[mask == value])
            if below[int(grey)] < AIR_RANK or grey < AIR_SHARE_OF_MEAN * image.mean():
                dark.append(f"{name} is {grey:.0f}")
    return dark


def perceptual_hash(image: np.ndarray) -> np.ndarray:
    """(255,) float32 of 1 and -1: which of the image's longest waves lie above their median.

    The usual hash of a discrete cosine transform (Zauner 2010, phash.org) with more bits: images of spines resemble
    one another more than holiday photographs do.
    """
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    lowest = cv2.dct(small)[:WAVES, :WAVES].ravel()[1:]
    return np.where(lowest > np.median(lowest), 1, -1).astype(np.float32)


class Body(NamedTuple):
    """One level in a label map. pieces: areas in px, largest first; centre: (x, y) of the largest piece in px."""

    name: str
    pieces: list[int]
    holes: int
    centre: np.ndarray


def _bodies(mask: np.ndarray, levels: dict[int, str]) -> list[Body]:
    """The levels in a (height, width) label map, from L1 on. levels : value -> name."""
    from scipy.ndimage import binary_fill_holes

    bodies = []
    for value, name in levels.items():
        inside = mask == value
        if not inside.any():
            continue
        _, _, boxes, centres = cv2.connectedComponentsWithStats(inside.view(np.uint8), connectivity=8)
        areas = boxes[1:, cv2.CC_STAT_AREA]
        x, y, width, height = cv2.boundingRect(inside.view(np.uint8))
        crop = inside[y : y + height, x : x + width]
        holes = int((binary_fill_holes(crop) & ~crop).sum())
        bodies.append(Body(name, sorted(areas.tolist(), reverse=True), holes, centres[1 + areas.argmax()]))
    return bodies


def mask_faults(mask: np.ndarray, levels: dict[int, str]) -> Iterator[Fault]:
    """Every fault of a (height, width) label map. levels : value -> name of the annotated levels, from L1 on."""
    bodies, names = _bodies(mask, levels), list(levels.values())
    if not bodies:
        yield Fault("empty-mask", f"the mask holds none of {', '.join(names)}")
        return
    first, last = bodies[0].name, bodies[-1].name
    missing = [name for name in names if name not in [body.name for body in bodies]]
    inner = [name for name in missing if names.index(first) < names.index(name) < names.index(last)]
    ends = [name for name in missing if name not in inner]
    if inner:
        yield Fault("gap", f"{', '.join(inner)} is missing between {first} and {last}")
    if ends:
        yield Fault("missing-end", f"{', '.join(ends)} is missing; the mask goes from {first} to {last}")
    yield from _pieces(bodies)
    yield from _orientation(bodies)
    edge = np.unique(np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]))
    cut = [name for value, name in levels.items() if value in edge]
    if cut:
        yield Fault("border", f"{', '.join(cut)} touches the image's edge")


def _pieces(bodies: list[Body]) -> Iterator[Fault]:
    repeated, fragments, holes = [], [], []
    for name, pieces, hole, _ in bodies:
        specks = [area for area in pieces[1:] if area < REPEATED * pieces[0]]
        if len(pieces) > 1 + len(specks):
            repeated.append(f"{name} in pieces of {pieces[0]} and {pieces[1]} px")
        if specks:
            fragments.append(f"{len(specks)} of {name} ({sum(specks)} px)")
        if hole:
            holes.append(f"{name} ({hole} px)")
    if repeated:
        yield Fault("repeated-level", "; ".join(repeated))
    if fragments:
        yield Fault("fragments", f"small pieces: {', '.join(fragments)}")
    if holes:
        yield Fault("holes", f"holes in {', '.join(holes)}")


def _orientation(bodies: list[Body]) -> Iterator[Fault]:
    """At most one fault: in a wrong order up is unknown, and in an image that is not head up so is front."""
    if len(bodies) < 2:
        return
    names, centres = [body.name for body in bodies], np.array([body.centre for body in bodies])
    steps = np.diff(centres, axis=0)
    across, down = np.abs(centres[-1] - centres[0])
    order = ", ".join(names[place] for place in np.argsort(centres[:, 1]))
    bend = bend_deg(centres) if len(bodies) > 3 else 0
    if across > down and np.ptp(np.sign(steps[:, 0])) == 0:
        yield Fault("on-its-side", f"{names[0]} to {names[-1]}: {across:.0f} px across, {down:.0f} px down")
    elif (steps[:, 1] < 0).all():
        yield Fault("upside-down", f"from top to bottom the levels are {order}")
    elif (steps[:, 1] < 0).any():
        yield Fault("order", f"from top to bottom the levels are {order}")
    elif bend < -MIRRORED_DEG:
        yield Fault("mirrored", f"from {names[0]} to {names[-1]} the spine bends {-bend:.0f} degrees towards the left")


def bend_deg(centres: np.ndarray) -> float:
    """Degrees by which a column turns to the right on its way down, by a line through its steps' directions.

    centres : (bodies, 2) of x, y in px, from head to feet, three or more.
    """
    steps = np.diff(centres, axis=0)
    directions = np.degrees(np.arctan2(steps[:, 0], steps[:, 1]))
    return float(np.polyfit(np.arange(len(steps)), directions, 1)[0] * (len(steps) - 1))
