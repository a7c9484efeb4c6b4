"""The canonical data set: a folder of images/, masks/ (index PNG), cases.csv and dataset.json.

Every other source is written into this form once and read from it ever after.
"""

import dataclasses
import difflib
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from lumbar_utils import LEVELS, StudyError
from lumbar_utils.records import fingerprint, fingerprint_files
from lumbar_utils.split import guard

REQUIRED = ("case", "patient", "image", "mask")
REMEDY = "see data/README.md for the form of a data set"


@dataclasses.dataclass(frozen=True)
class Cohort:
    """The cases of one data set and what their masks mean.

    cases : one row an image: case, patient, image and mask (paths relative to `folder`), spacing_mm (nan if unknown),
        and whatever else the data set tells.
    labels : mask value -> name; a name that is no level of the study (T12, say) counts as background.
    annotated : the study's levels that this data set outlines; the others are neither learned nor scored. None: the
        cohort is for prediction only, and its cases need no masks (an empty `mask`).
    synthetic : whether the images are drawn and not measured.
    """

    folder: Path
    name: str
    licence: str
    synthetic: bool
    labels: dict[int, str]
    annotated: tuple[str, ...]
    cases: pd.DataFrame
    fingerprint: str

    def __post_init__(self):
        if "split" in self.cases:  # whoever makes a cohort with a split, by whatever way, passes here
            guard(self.cases, "the split")

    @property
    def for_prediction_only(self) -> bool:
        """Whether there is nothing to learn from, or to score on."""
        return not self.annotated

    @property
    def note(self) -> str:
        """What has to stand beside every result on these data."""
        return "synthetic images: says nothing about patients" if self.synthetic else self.name

    def image(self, case: pd.Series) -> np.ndarray:
        """(height, width) uint8 grey image of a row of `cases`."""
        return read_image(self.folder / case["image"])

    def mask(self, case: pd.Series) -> np.ndarray:
        """(height, width) uint8 label map of a row of `cases`: 0 background, 1..6 the levels; 0 without a mask."""
        if not case["mask"]:
            return np.zeros_like(self.image(case))
        return read_mask(self.folder / case["mask"], self.labels)


def read(folder: Path) -> Cohort:
    """The cohort in a folder, its tables checked; pixels are checked where they are decoded.

    Raises StudyError naming the file, what it holds, and the remedy.
    """
    description = read_description(folder)
    cases = read_cases(folder, masked=bool(description["annotated_levels"]))
    files = [folder / name for column in ("image", "mask") for name in cases[column] if name]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise StudyError(f"{folder}/cases.csv names {len(missing)} files that are not there, first {missing[0]}")
    tables = [file for name in ("cases.csv", "dataset.json", "split.csv") if (file := folder / name).exists()]
    return Cohort(
        folder=folder,
        name=description["name"],
        licence=description.get("licence", "not stated"),
        synthetic=bool(description.get("synthetic", False)),
        labels={int(value): name for value, name in description["labels"].items()},
        annotated=tuple(level for level in LEVELS if level in description["annotated_levels"]),
        cases=cases,
        fingerprint=fingerprint(fingerprint_files(tables), fingerprint_files(files)),
    )


def read_description(folder: Path) -> dict:
    """What dataset.json says, checked; StudyError where a part of the data set is absent or does not fit."""
    if not folder.is_dir():
        raise StudyError(f"there is no data set at {folder}; name 'phantom' or a folder; {REMEDY}")
    for name in ("dataset.json", "cases.csv", "images"):
        if not (folder / name).exists():
            raise StudyError(f"{folder} has no {name}; {REMEDY}")
    try:
        description = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise StudyError(f"{folder}/dataset.json is not JSON: {error}; {REMEDY}") from None
    lacking = {"name", "labels", "annotated_levels"} - set(description)
    if lacking:
        raise StudyError(f"{folder}/dataset.json lacks {', '.join(sorted(lacking))}; {REMEDY}")
    if description["annotated_levels"] and not (folder / "masks").exists():
        raise StudyError(f"{folder} has no masks; {REMEDY}")
    _check_levels(folder, description)
    return description


def _check_levels(folder: Path, description: dict) -> None:
    """Every annotated level is one of the study's and has a label."""
    annotated, named = description["annotated_levels"], set(description["labels"].values())
    for level in annotated:
        if level not in LEVELS:
            near = difflib.get_close_matches(level, LEVELS, n=1, cutoff=0)
            raise StudyError(
                f"{folder}/dataset.json annotates {level!r}; allowed are {', '.join(LEVELS)} (did you mean {near[0]}?)"
            )
        if level not in named:
            raise StudyError(f"{folder}/dataset.json annotates {level} but no label has that name; add it to labels")


def read_cases(folder: Path, masked: bool) -> pd.DataFrame:
    """The table of cases, checked; StudyError naming the line or case that does not fit.

    masked : whether every case needs a mask; else it may be left empty.
    """
    cases = pd.read_csv(folder / "cases.csv", dtype=dict.fromkeys(REQUIRED, str))
    lacking = [name for name in REQUIRED if name not in cases]
    if lacking:
        raise StudyError(f"{folder}/cases.csv lacks the column {lacking[0]!r}; it has {', '.join(cases)}; {REMEDY}")
    if not masked:
        cases["mask"] = cases["mask"].fillna("")
    empty = cases[list(REQUIRED)].isna().any(axis=1)
    if empty.any():
        line = int(empty.idxmax()) + 2
        raise StudyError(f"{folder}/cases.csv line {line} leaves one of {', '.join(REQUIRED)} empty; fill it in")
    if cases["case"].duplicated().any():
        twice = cases["case"][cases["case"].duplicated()].iloc[0]
        raise StudyError(f"{folder}/cases.csv names case {twice!r} twice; give every image a name of its own")
    for case in cases["case"]:  # a case names files of its own, so it must not reach into other folders
        if not re.fullmatch(r"[\w.\- ]+", case) or case.startswith("."):
            raise StudyError(f"{folder}/cases.csv: case {case!r} must consist of letters, digits, '.', '_', '-', ' '")
    return cases if "spacing_mm" in cases else cases.assign(spacing_mm=np.nan)


def read_image(path: Path) -> np.ndarray:
    """(height, width) uint8 of a grey image, or of a colour image with equal channels."""
    image = _decode(path)
    if image.dtype != np.uint8:
        raise StudyError(f"image {path} has {image.dtype} pixels; export it with 8 bits")
    if image.ndim == 3:
        if (image[..., :3] != image[..., :1]).any():
            raise StudyError(f"image {path} is in colour; export it as grey")
        image = np.ascontiguousarray(image[..., 0])
    return image


def read_mask(path: Path, labels: dict[int, str]) -> np.ndarray:
    """(height, width) uint8 label map in the study's values: 0 background, 1..6 for L1..S1.

    labels : mask value -> name, as in dataset.json; a name outside the study's levels becomes background.
    """
    mask = _decode(path)
    if mask.dtype != np.uint8 or mask.ndim != 2:
        raise StudyError(f"mask {path} is {mask.dtype} with shape {mask.shape}; export 8-bit index PNG, one channel")
    unknown = set(np.flatnonzero(np.bincount(mask.ravel(), minlength=256)).tolist()) - set(labels) - {0}
    if unknown:
        named = ", ".join(f"{value} = {name}" for value, name in sorted(labels.items()))
        raise StudyError(f"mask {path} has label {min(unknown)}, which dataset.json does not name; it names {named}")
    values = np.zeros(256, np.uint8)
    for value, name in labels.items():
        values[value] = LEVELS.index(name) + 1 if name in LEVELS else 0
    return values[mask]


def _decode(path: Path) -> np.ndarray:
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED) if path.stat().st_size else None
    if pixels is None:
        raise StudyError(f"{path} cannot be read as an image; export it again as PNG")
    return pixels
