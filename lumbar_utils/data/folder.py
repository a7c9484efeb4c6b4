"""The canonical data set: a folder of images/, masks/ (index PNG), cases.csv and dataset.json, read and written.

Every other source is converted to this form once and read from it ever after.
"""

import dataclasses
import difflib
import io
import json
import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PureWindowsPath

import numpy as np
import pandas as pd

from lumbar_utils import LEVELS, StudyError
from lumbar_utils.data.files import plain, read_json, read_table
from lumbar_utils.data.images import read_image, read_mask, write_png
from lumbar_utils.data.split import refuse_leak
from lumbar_utils.records import atomic_folder, fingerprint, fingerprint_files

REQUIRED = ("case", "patient", "image", "mask")
OPTIONAL = ("spacing_mm", "contrast", "findings", "subset")
TEXTS = (*REQUIRED, "contrast", "findings", "subset")  # never numbers, even `001`, `NA` or `1e5`
NUMBER = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
UNKNOWN = ("", "nan", "na", "n/a", "none", "null")  # an unknown spacing, in lower case
MIN_SPACING_MM, MAX_SPACING_MM = 0.05, 10
MAX_NAME = 200  # bytes of a case's name, of the 255 that a file's name may have
FIELDS = {  # of dataset.json
    "name": (str, "text"), "licence": (str, "text"), "citation": (str, "text"), "synthetic": (bool, "true or false"),
    "labels": (dict, "an object of values and names"), "annotated_levels": (list, "a list of texts"),
    "notes": (list, "a list of texts"), "left_out": (list, "a list of texts"),
}  # fmt: skip
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
    Raises StudyError if the folder exists, or the source has no slice.
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
    return row | {"spacing_mm": item.spacing_mm} | item.columns


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
        labels={int(value): name for value, name in description["labels"].items()},
        annotated=tuple(level for level in LEVELS if level in description["annotated_levels"]),
        cases=cases,
        fingerprint=fingerprint(fingerprint_files(tables), fingerprint_files(files)),
    )


def read_description(folder: Path) -> dict:
    """The checked content of dataset.json; StudyError if a part of the data set is absent or invalid."""
    if not folder.is_dir():
        raise StudyError(f"there is no data set at {folder}; name 'phantom' or a folder; {REMEDY}")
    for name in ("dataset.json", "cases.csv", "images"):
        if not (folder / name).exists():
            raise StudyError(f"{folder} has no {name}; {REMEDY}")
    file = folder / "dataset.json"
    description = read_json(file)
    lacking = {"name", "labels", "annotated_levels"} - set(description)
    if lacking:
        raise StudyError(f"{file} lacks {', '.join(sorted(lacking))}; {REMEDY}")
    for name in FIELDS.keys() & description.keys():
        value = description[name]
        form, words = FIELDS[name]
        texts = value if isinstance(value, list) else []
        if type(value) is not form or not all(isinstance(text, str) for text in texts):
            raise StudyError(f"{file} has {name} = {value!r:.60}; it must be {words}; {REMEDY}")
    _check_labels(file, description["labels"])
    _check_levels(file, description)
    if description["annotated_levels"] and not (folder / "masks").exists():
        raise StudyError(f"{folder} has no masks; {REMEDY}")
    return description


def _check_labels(file: Path, labels: dict) -> None:
    """Values are whole numbers from 0 to 255, each there once; a level has one of them, and never 0."""
    values, levels = set(), set()
    for value, name in labels.items():
        if not re.fullmatch("[0-9]{1,3}", value) or int(value) > 255:
            raise StudyError(f'{file} has label {value!r:.60}; allowed are 0 to 255, as in {{"1": "L1"}}')
        if not isinstance(name, str) or not name.strip():
            raise StudyError(f'{file} names label {value} {name!r:.60}; give it a name, as in {{"1": "L1"}}')
        if int(value) in values or name in levels:
            raise StudyError(f"{file} has label {value} = {name!r} twice; give each value and each level one label")
        if int(value) == 0 and name in LEVELS:
            raise StudyError(f"{file} names label 0 {name!r}; 0 is background, so give the level another value")
        values.add(int(value))
        levels |= {name} & set(LEVELS)


def _check_levels(file: Path, description: dict) -> None:
    """Every annotated level is one of the study's and has a label."""
    for level in description["annotated_levels"]:
        if level not in LEVELS:
            near = difflib.get_close_matches(level, LEVELS, n=1, cutoff=0)
            raise StudyError(f"{file} annotates {level!r}; allowed are {', '.join(LEVELS)} (did you mean {near[0]}?)")
        if level not in description["labels"].values():
            raise StudyError(f"{file} annotates {level} but no label has that name; add it to labels")


def read_cases(folder: Path, masked: bool) -> pd.DataFrame:
    """The checked table of cases; StudyError names the line or case that is invalid.

    masked : whether every case needs a mask; else it may be left empty.
    """
    file = folder / "cases.csv"
    table = read_table(file, REQUIRED, optional=OPTIONAL)
    if table.empty:
        raise StudyError(f"{file} names no case; give it one line an image")
    needed = list(REQUIRED if masked else REQUIRED[:-1])
    empty = table[needed].eq("").any(axis=1)
    if empty.any():
        raise StudyError(f"{file} line {empty.idxmax()} leaves one of {', '.join(needed)} empty; fill it in")
    for column in ("case", "patient"):
        table[column] = table[column].map(plain)
    _check_names(file, table["case"])
    for column in ("image", "mask"):
        table[column] = [_path_inside(file, line, name) for line, name in table[column].items()]
    _check_columns(file, table)
    if "spacing_mm" in table:
        table["spacing_mm"] = [_spacing(file, line, text) for line, text in table["spacing_mm"].items()]
    text = io.StringIO(table.to_csv(index=False))  # read again, for the types of the further columns
    cases = pd.read_csv(text, dtype=dict.fromkeys(TEXTS, str), keep_default_na=False, na_values=[""])
    cases["mask"] = cases["mask"].fillna("")
    return cases if "spacing_mm" in cases else cases.assign(spacing_mm=np.nan)


def _check_names(file: Path, cases: pd.Series) -> None:
    """Cases name files, so each must be a file's name that no disk confuses with another's."""
    by_lower_case = {}
    for line, case in cases.items():
        others = re.sub(r"[\w.\- ]", "", case)
        if case.startswith(".") or any(unicodedata.category(letter)[0] != "M" for letter in others):  # M: accents
            raise StudyError(f"{file}: case {case!r} must consist of letters, digits, '.', '_', '-', ' '")
        if len(case.encode()) > MAX_NAME:
            raise StudyError(f"{file} line {line}: case {case[:20]!r}... has more than {MAX_NAME} bytes; shorten it")
        other = by_lower_case.setdefault(case.casefold(), (line, case))
        if other[1] != case:
            raise StudyError(f"{file} names cases {other[1]!r} and {case!r}, one file on some disks; rename one")
        if other[0] != line:
            raise StudyError(f"{file} names case {case!r} twice; give every image a name of its own")


def _check_columns(file: Path, table: pd.DataFrame) -> None:
    """Raise StudyError for a mask that two patients share, and for a split that would not be read."""
    owners = table[table["mask"] != ""].groupby("mask")["patient"].unique()
    for mask, patients in owners.items():
        if len(patients) > 1:
            raise StudyError(f"{file} gives mask {mask} to patients {', '.join(patients)}; name each image's own")
    if "split" in map(str.lower, table):
        raise StudyError(f"{file} has a column 'split', which is not read; write {file.parent}/split.csv, or rename it")


def _path_inside(file: Path, line: int, name: str) -> str:
    """A path within the data set's folder, its parts separated by / if they were by \\."""
    path = PureWindowsPath(name)
    if path.anchor or ".." in path.parts:
        raise StudyError(f"{file} line {line} names {name!r}; paths begin in {file.parent} and stay within it")
    return path.as_posix() if name else ""


def _spacing(file: Path, line: int, text: str) -> str:
    """The side of a pixel with a decimal point; empty if unknown."""
    if text.lower() in UNKNOWN:
        return ""
    number = text.replace(",", ".")
    if not NUMBER.fullmatch(number) or not MIN_SPACING_MM <= float(number) <= MAX_SPACING_MM:
        raise StudyError(
            f"{file} line {line} has spacing_mm {text!r}; allowed are {MIN_SPACING_MM} to {MAX_SPACING_MM} (mm a "
            "pixel); leave it empty where it is unknown"
        )
    return number
