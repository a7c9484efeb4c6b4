"""Slices of any source, written as the canonical folder: whole, or not at all."""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from lumbar_utils import StudyError
from lumbar_utils.records import atomic_folder


@dataclasses.dataclass(frozen=True)
class Slice:
    """One image of a source, head up and front left.

    image : (height, width) uint8.
    mask : of that shape, uint8, its values named by the description's labels; None where the source has none.
    spacing_mm : side of a square pixel, nan if unknown. facts : further columns of cases.csv.
    """

    case: str
    patient: str
    image: np.ndarray
    mask: np.ndarray | None = None
    spacing_mm: float = float("nan")
    facts: dict = dataclasses.field(default_factory=dict)


def write(folder: Path, slices: Iterable[Slice], description: dict) -> Path:
    """Write slices as they come (one is in memory at a time) into `folder`, which appears when it is complete.

    description : what dataset.json holds (name, licence, labels, annotated_levels); read last, so a source may add to
        it what it learns on the way.
    Raises StudyError where the folder exists, or the source has no slice.
    """
    if folder.exists():
        raise StudyError(f"{folder} exists already; remove it, or name another folder to write into")
    with atomic_folder(folder) as unfinished:
        for part in ("images", "masks"):
            (unfinished / part).mkdir()
        rows = [_save(unfinished, item) for item in slices]
        if not rows:
            raise StudyError(f"{description['name']} holds no slice to write; see data/README.md for what is read")
        pd.DataFrame(rows).to_csv(unfinished / "cases.csv", index=False, lineterminator="\n")
        (unfinished / "dataset.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    return folder


def _save(folder: Path, item: Slice) -> dict:
    """Write image and mask, and return the row of the table of cases."""
    row = {"case": item.case, "patient": item.patient, "image": f"images/{item.case}.png", "mask": ""}
    write_png(folder / row["image"], item.image)
    if item.mask is not None:
        row["mask"] = f"masks/{item.case}.png"
        write_png(folder / row["mask"], item.mask)
    return row | {"spacing_mm": item.spacing_mm} | item.facts


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write a PNG; OSError where the disk is full."""
    if not cv2.imwrite(str(path), pixels):
        raise OSError(f"{path} could not be written; is the disk full?")
