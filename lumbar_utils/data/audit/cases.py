"""What is wrong with one case, by itself: its files, its image, its label map, and the two laid over one another."""

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from lumbar_utils import LEVELS, StudyError
from lumbar_utils.data.audit import geometry, likeness
from lumbar_utils.data.audit.kinds import Fault
from lumbar_utils.data.folder import read_image, read_mask

FLAT = 2.0  # standard deviation in grey values below which an image shows nothing
# Share of white pixels. Measured: at most 0.18 and 0.39 in 514 phantoms, 0.06 and 0.03 in the real slices
SATURATED = {"image": 0.30, "bodies": 0.60}
# Measured in 1542 phantoms and the real slices: a body's median grey value is that of the image's 0.45 quantile or
# higher, and 0.38 of the image's mean or more.
AIR_RANK, AIR_SHARE_OF_MEAN = 0.25, 0.3


@dataclasses.dataclass(frozen=True)
class Seen:
    """One case: its faults, and what it is compared with others by; the latter None without a usable image.

    pixels : hash of the decoded image. waves : as from `likeness.waves`. mean, deviation : of the grey values.
    """

    case: str
    patient: str
    faults: list[Fault]
    pixels: str | None = None
    waves: np.ndarray | None = None
    mean: float = float("nan")
    deviation: float = float("nan")


def inspect(folder: Path, row: pd.Series, labels: dict[int, str], annotated: tuple[str, ...]) -> Seen:
    """Look at one row of a table of cases; files that cannot be read become faults and stop nothing."""
    levels = {value: name for value, name in enumerate(LEVELS, 1) if name in annotated}
    image, faults = _read(read_image, folder / row["image"])
    mask = None
    if levels and row["mask"]:  # a data set for prediction annotates no level, and needs no masks
        mask, more = _read_labels(folder / row["mask"], labels)
        faults += more
    if mask is not None:
        faults += geometry.faults(mask, levels)
    if image is None:
        return Seen(row["case"], row["patient"], faults)
    if mask is not None and mask.shape != image.shape:
        (height, width), (rows, columns) = mask.shape, image.shape
        what = f"mask {row['mask']} is {width}x{height} but its image is {columns}x{rows}"
        faults.append(Fault("size", what, "export both from the same slice"))
        mask = None
    faults += _of_image(image, mask, levels)
    flat = any(fault.kind == "flat" for fault in faults)
    pixels = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
    waves = None if flat else likeness.waves(image)
    return Seen(row["case"], row["patient"], faults, pixels, waves, float(image.mean()), float(image.std()))


def _read(reader, path: Path, *more) -> tuple[np.ndarray | None, list[Fault]]:
    """The pixels, or none and the reader's own words: what, and after it the remedy."""
    try:
        return reader(path, *more), []
    except StudyError as error:
        what, _, remedy = str(error).partition("; ")
    except OSError as error:
        what, remedy = f"{path} cannot be read: {error.strerror or error}", ""
    return None, [Fault("unreadable", what, remedy)]


def _read_labels(path: Path, labels: dict[int, str]) -> tuple[np.ndarray | None, list[Fault]]:
    """The label map; with labels that nobody named it is still of use, those pixels as background."""
    mask, faults = _read(read_mask, path, labels)
    if faults and (mask := tolerant(path, labels)) is not None:
        faults = [fault._replace(kind="label") for fault in faults]
    return mask, faults


def tolerant(path: Path, labels: dict[int, str]) -> np.ndarray | None:
    """The label map whose labels without a name are background; None if it cannot be read at all."""
    return _read(read_mask, path, dict.fromkeys(range(256), "unnamed") | labels)[0]


def _of_image(image: np.ndarray, mask: np.ndarray | None, levels: dict[int, str]) -> Iterator[Fault]:
    if image.std() < FLAT:
        yield Fault("flat", f"grey values from {image.min()} to {image.max()}, standard deviation {image.std():.1f}")
        return
    inside = np.zeros(0, np.uint8) if mask is None else image[np.isin(mask, list(levels))]
    white = {"image": (image == 255).mean(), "bodies": (inside == 255).mean() if inside.size else 0}
    if any(white[where] > most for where, most in SATURATED.items()):
        yield Fault("saturated", f"white are {white['image']:.0%} of the image and {white['bodies']:.0%} of the bodies")
    if inside.size and (dark := _over_air(image, mask, levels)):
        yield Fault("over-air", f"median grey value of {', '.join(dark)}; of the whole image {np.median(image):.0f}")


def _over_air(image: np.ndarray, mask: np.ndarray, levels: dict[int, str]) -> list[str]:
    """Levels whose mask is as dark as the image's background: among its darkest pixels, and far below its mean."""
    below = np.cumsum(np.bincount(image.ravel(), minlength=256)) / image.size
    medians = {name: np.median(image[mask == value]) for value, name in levels.items() if (mask == value).any()}
    return [
        f"{name} is {grey:.0f}"
        for name, grey in medians.items()
        if below[int(grey)] < AIR_RANK or grey < AIR_SHARE_OF_MEAN * image.mean()
    ]
