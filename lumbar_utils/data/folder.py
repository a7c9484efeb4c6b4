"""The canonical data set: a folder of images/, masks/ (index PNG), cases.csv and dataset.json, read and written.

Every other source is converted to this form once and read from it ever after.
"""

import dataclasses
import io
import json
import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PureWindowsPath
from typing import Literal

import numpy as np
import pandas as pd
import pydantic

from lumbar_utils import LEVELS, StudyError
from lumbar_utils.data.files import plain, read_json, read_table
from lumbar_utils.data.images import read_image, read_mask, write_png
from lumbar_utils.data.split import refuse_leak
from lumbar_utils.records import atomic_folder, fingerprint, fingerprint_files

REQUIRED = ("case", "patient", "image", "mask")
OPTIONAL = ("spacing_mm", "contrast", "findings", "subset")
TEXTS = (*REQUIRED, "contrast", "findings", "subset")  # never numbers, even `001`, `NA` or `1e5`
UNKNOWN = ("", "nan", "na", "n/a", "none", "null")  # an unknown spacing, in lower case
MIN_SPACING_MM, MAX_SPACING_MM = 0.05, 10
MAX_NAME = 200  # bytes of a case's name, of the 255 that a file's name may have
REMEDY = "see data/README.md for the form of a data set"


@dataclasses.dataclass(frozen=True)
class Cohort:
    """The cases of one data set and the meaning of their masks.

    cases : one row an image: case, patient, image and mask (paths relative to `folder`), spacing_mm (nan if unknown),
        and the further columns of the data set.
    labels : mask value -> name; a name outside the study's levels (T12, say) counts as background.
    annotated : the study's levels that this data set outlines; the others are neither learned nor scored. Empty for a
        cohort for prediction only, whose cases need no masks (an empty `mask`).
    synthetic : whether the images are simulated.
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
        if "split" in self.cases:
            refuse_leak(self.cases, "the split")

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


@dataclasses.dataclass(frozen=True)
class Slice:
    """One image of a source, head up and front left.

    image : (height, width) uint8.
    mask : of that shape, uint8, its values named by the description's labels; None where the source has none.
    spacing_mm : side of a square pixel, nan if unknown. columns : further columns of cases.csv.
    """

    case: str
    patient: str
    image: np.ndarray
    mask: np.ndarray | None = None
    spacing_mm: float = float("nan")
    columns: dict = dataclasses.field(default_factory=dict)


def write(folder: Path, slices: Iterable[Slice], description: dict) -> Path:
    """Write slices as they come (one is in memory at a time) into `folder`, which appears when it is complete.

    description : content of dataset.json (name, licence, labels, annotated_levels); written last, so a source may add
        to it while its slices are read.
    Raises StudyError if the source has no slice.
    """
    with atomic_folder(folder) as unfinished:
        for part in ("images", "masks"):
            (unfinished / part).mkdir()
        rows = []
        for item in slices:
            row = {"case": item.case, "patient": item.patient, "image": f"images/{item.case}.png", "mask": ""}
            write_png(unfinished / row["image"], item.image)
            if item.mask is not None:
                row["mask"] = f"masks/{item.case}.png"
                write_png(unfinished / row["mask"], item.mask)
            rows.append(row | {"spacing_mm": item.spacing_mm} | item.columns)
        if not rows:
            raise StudyError(f"{description['name']} holds no slice to write; see data/README.md for what is read")
        pd.DataFrame(rows).to_csv(unfinished / "cases.csv", index=False, lineterminator="\n")
        (unfinished / "dataset.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    return folder


def read(folder: Path) -> Cohort:
    """The cohort in a folder, its tables checked; pixels are checked where they are decoded.

    Raises StudyError naming the file, what it holds, and the remedy.
    """
    description = read_description(folder)
    cases = read_cases(folder, masked=bool(description["annotated_levels"]))
    names = [*cases["image"], *cases["mask"]]
    files = [folder / name for name in names if name]
    missing = [file for file in files if not os.path.isfile(file)]  # Path.is_file raises at a name that is too long
    if missing:
        raise StudyError(
            f"{folder}/cases.csv names {len(missing)} files that are not there, first {missing[0]}; put them there, or "
            "remove their lines"
        )
    tables = [folder / name for name in ("cases.csv", "dataset.json", "split.csv")]
    tables = [table for table in tables if table.exists()]
    return Cohort(
        folder=folder,
        name=description["name"],
        licence=description.get("licence", "not stated"),
        synthetic=description.get("synthetic", False),
        labels=description["labels"],
        annotated=tuple(level for level in LEVELS if level in description["annotated_levels"]),
        cases=cases,
        fingerprint=fingerprint(fingerprint_files(tables), fingerprint_files(files)),
    )


class Description(pydantic.BaseModel, strict=True):
    """The form of dataset.json. labels : mask value, 0 to 255 -> name."""

    name: str
    labels: dict[str, str]
    annotated_levels: list[Literal[LEVELS]]
    licence: str = ""
    citation: str = ""
    synthetic: bool = False
    notes: list[str] = []
    left_out: list[str] = []

    @pydantic.field_validator("labels")
    @classmethod
    def check_labels(cls, labels: dict[str, str]) -> dict[str, str]:
        names = list(labels.values())
        is_known = set(labels) <= set(map(str, range(256))) and all(map(str.strip, names))
        is_twice = any(names.count(level) > 1 for level in LEVELS)
        if not is_known or is_twice or labels.get("0") in LEVELS:
            raise ValueError('give names to values from 0 to 255, as in {"1": "L1"}; a level has one value, and not 0')
        return labels

    @pydantic.field_validator("annotated_levels")
    @classmethod
    def check_levels(cls, levels: list[str], info: pydantic.ValidationInfo) -> list[str]:
        if not set(levels) <= set(info.data.get("labels", {}).values()):
            raise ValueError("add each of these to labels")
        return levels


def read_description(folder: Path) -> dict:
    """The checked content of dataset.json, its labels by number; StudyError if something is absent or invalid."""
    if not folder.is_dir():
        raise StudyError(f"there is no data set at {folder}; name 'phantom' or a folder; {REMEDY}")
    file = folder / "dataset.json"
    description = read_json(file) if file.exists() else {}
    needed = ["dataset.json", "cases.csv", "images", *(["masks"] if description.get("annotated_levels") else [])]
    for name in needed:
        if not (folder / name).exists():
            raise StudyError(f"{folder} has no {name}; {REMEDY}")
    try:
        Description.model_validate(description)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        field, message = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        raise StudyError(f"{file} has {field} = {first['input']!r:.60}: {message}; {REMEDY}") from None
    return description | {"labels": {int(value): name for value, name in description["labels"].items()}}


def read_cases(folder: Path, masked: bool) -> pd.DataFrame:
    """The checked table of cases; StudyError names the line that is invalid.

    masked : whether every case needs a mask; else it may be left empty.
    """
    file = folder / "cases.csv"
    table = read_table(file, REQUIRED, optional=OPTIONAL)
    if table.empty:
        raise StudyError(f"{file} names no case; give it one line an image")
    checks = {"case": _case, "patient": plain, "image": _path, "mask": _path, "spacing_mm": _spacing}
    needed = REQUIRED if masked else REQUIRED[:-1]
    for column in table.columns.intersection(list(checks)):
        for line, text in table[column].items():
            try:
                if column in needed and not text:
                    raise ValueError("fill it in")
                table.loc[line, column] = checks[column](text)
            except ValueError as error:
                raise StudyError(f"{file} line {line} has {column} {text!r:.60}: {error}") from None
    _check_columns(file, table)
    text = io.StringIO(table.to_csv(index=False))  # read again, for the types of the further columns
    cases = pd.read_csv(text, dtype=dict.fromkeys(TEXTS, str), keep_default_na=False, na_values=[""])
    cases["mask"] = cases["mask"].fillna("")
    return cases if "spacing_mm" in cases else cases.assign(spacing_mm=np.nan)


def _case(name: str) -> str:
    """A case names files."""
    others = re.sub(r"[\w.\- ]", "", plain(name))
    is_odd = any(unicodedata.category(letter)[0] != "M" for letter in others)  # M: accents
    if is_odd or name.startswith(".") or len(name.encode()) > MAX_NAME:
        raise ValueError(f"letters, digits, '.', '_', '-' and ' ' are allowed, up to {MAX_NAME} bytes, no '.' in front")
    return plain(name)


def _path(name: str) -> str:
    """A path within the data set's folder, its parts separated by / if they were by \\."""
    path = PureWindowsPath(name)
    if path.anchor or ".." in path.parts:
        raise ValueError("paths begin in the data set's folder and stay within it")
    return path.as_posix() if name else ""


def _spacing(text: str) -> str:
    """The side of a pixel with a decimal point; empty where it is unknown."""
    number = text.replace(",", ".")
    if text.lower() in UNKNOWN:
        return ""
    if not MIN_SPACING_MM <= pd.to_numeric(number, errors="coerce") <= MAX_SPACING_MM:
        raise ValueError(f"allowed are {MIN_SPACING_MM} to {MAX_SPACING_MM} (mm a pixel); leave it empty if unknown")
    return number


def _check_columns(file: Path, table: pd.DataFrame) -> None:
    """Raise StudyError for a case that is there twice, a mask that two patients share, and a split that is not read."""
    repeated = table.loc[table["case"].str.casefold().duplicated(), "case"]
    if len(repeated):
        raise StudyError(
            f"{file} line {repeated.index[0]}: there is a case {repeated.iloc[0]!r} already, in the same letters or in "
            "others that are one file on some disks; give every image a name of its own"
        )
    owners = table[table["mask"] != ""].groupby("mask")["patient"].nunique()
    if (owners > 1).any():
        raise StudyError(f"{file} gives mask {owners.idxmax()} to {owners.max()} patients; name each image's own")
    if "split" in map(str.lower, table):
        raise StudyError(f"{file} has a column 'split', which is not read; write {file.parent}/split.csv, or rename it")
