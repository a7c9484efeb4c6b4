"""An audit's findings for the eye: a table of a few lines, and pictures of the gravest."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from lumbar_utils import StudyError
from lumbar_utils.data.audit.cases import tolerant
from lumbar_utils.data.folder import read_cases, read_description, read_image

LINES = 20


@dataclasses.dataclass(frozen=True)
class Picture:
    """One finding's image, (height, width) uint8, and its label map if it has one; a pair's images side by side.

    spacing_mm : side of a pixel; nan if unknown, and of a pair, whose images may differ in it.
    """

    finding: str
    severity: str
    image: np.ndarray
    label_map: np.ndarray | None = None
    spacing_mm: float = float("nan")


def overview(findings: pd.DataFrame) -> pd.DataFrame:
    """One row a severity and kind: severity, kind, findings (how many), first, what (of the first)."""
    kinds = findings.groupby(["severity", "kind"], sort=False)
    return kinds.agg(findings=("finding", "count"), first=("finding", "first"), what=("what", "first")).reset_index()


def report(findings: pd.DataFrame, file: Path) -> str:
    """The findings in LINES lines at most, errors first, and where all of them are."""
    counts = ", ".join(f"{number} {severity}" for severity, number in findings["severity"].value_counts().items())
    if findings.empty:
        return f"nothing found\n{file}"
    table = findings[["severity", "finding", "what"]]
    if len(table) > LINES:  # then one line a kind
        table = overview(findings)[["severity", "findings", "first", "what"]]
    told = table["findings"].head(LINES).sum() if "findings" in table else len(table)
    shown = table.head(LINES).assign(what=table["what"].str.slice(0, 90))
    rest = f"\nand {len(findings) - told} more in {file}" if told < len(findings) else f"\n{file}"
    return f"{shown.to_string(index=False, justify='left')}\n\n{counts}; what each means, and the remedy:{rest}"


def pictures(folder: Path, findings: pd.DataFrame, most: int = 6) -> list[Picture]:
    """The gravest findings that can be shown, one of every kind before a second of any.

    Of a data set whose tables or files cannot be read, less is shown, or nothing.
    """
    if (findings["kind"] == "table").any():
        return []
    cases = read_cases(folder, masked=False).set_index("case")
    labels = {int(value): name for value, name in read_description(folder)["labels"].items()}
    turn = findings.groupby("kind").cumcount()
    ordered = findings.assign(turn=turn).sort_values("turn", kind="stable")
    shown = []
    for row in ordered.itertuples():
        names = row.case.split("+")
        if len(shown) < most and set(names) <= set(cases.index):
            try:
                images = [read_image(folder / cases.loc[name, "image"]) for name in names]
            except (StudyError, OSError):
                continue
            mask = tolerant(folder / str(cases.loc[row.case, "mask"]), labels) if len(names) == 1 else None
            fits = mask is not None and mask.shape == images[0].shape
            spacing = float(cases.loc[row.case, "spacing_mm"]) if len(names) == 1 else float("nan")
            shown.append(Picture(row.finding, row.severity, _side_by_side(images), mask if fits else None, spacing))
    return shown


def _side_by_side(images: list[np.ndarray]) -> np.ndarray:
    """Images in one row, at the height of the first, with a white gap."""
    height = images[0].shape[0]
    scaled = [cv2.resize(image, (round(image.shape[1] * height / image.shape[0]), height)) for image in images]
    gap = np.full((height, height // 40), 255, np.uint8)
    return np.hstack([part for image in scaled for part in (gap, image)][1:])
