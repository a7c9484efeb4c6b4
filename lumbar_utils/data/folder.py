"""The canonical data set: a folder of images/, masks/ (index PNG), cases.csv and dataset.json.

Every other source is written into this form once and read from it ever after.
"""

import dataclasses
import difflib
import io
import os
import re
import unicodedata
from pathlib import Path, PurePath, PureWindowsPath

import numpy as np
import pandas as pd

from lumbar_utils import LEVELS, StudyError
from lumbar_utils.data.pixels import decode, greys_of, single_channel
from lumbar_utils.data.split import guard
from lumbar_utils.data.textfiles import plain, read_json, read_table
from lumbar_utils.records import fingerprint, fingerprint_files

REQUIRED = ("case", "patient", "image", "mask")
OPTIONAL = ("spacing_mm", "contrast", "findings", "subset")
TEXTS = (*REQUIRED, "contrast", "findings", "subset")  # whatever they look like: `001`, `NA`, `1e5`
NUMBER = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
UNKNOWN = ("", "nan", "na", "n/a", "none", "null")  # a spacing that nobody knows, in lower case
LEAST_MM, MOST_MM = 0.05, 10  # a pixel's side
LONGEST = 200  # bytes of a case's name, of the 255 that a file's name may have
FORM = {
    "name": str, "licence": str, "citation": str, "synthetic": bool, "labels": dict, "annotated_levels": list,
    "notes": list, "left_out": list,
}  # fmt: skip
WORDS = {str: "text", bool: "true or false", dict: "an object of values and names", list: "a list of texts"}
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
    missing = [file for file in files if not os.path.isfile(file)]  # Path.is_file raises at a name that is too long
    if missing:
        raise StudyError(
            f"{folder}/cases.csv names {len(missing)} files that are not there, first {missing[0]}; put them there, or "
            "remove their lines"
        )
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
    file = folder / "dataset.json"
    description = read_json(file)
    lacking = {"name", "labels", "annotated_levels"} - set(description)
    if lacking:
        raise StudyError(f"{file} lacks {', '.join(sorted(lacking))}; {REMEDY}")
    for name in FORM.keys() & description.keys():
        value, form = description[name], FORM[name]
        texts = value if form is list and isinstance(value, list) else []
        if type(value) is not form or not all(isinstance(text, str) for text in texts):
            raise StudyError(f"{file} has {name} = {value!r:.60}; it must be {WORDS[form]}; {REMEDY}")
    _check_labels(file, description["labels"])
    _check_levels(file, description)
    if description["annotated_levels"] and not (folder / "masks").exists():
        raise StudyError(f"{folder} has no masks; {REMEDY}")
    return description


def _check_labels(file: Path, labels: dict) -> None:
    """Values are whole numbers from 0 to 255, each there once; a level has one of them, and 0 is none."""
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
    annotated, named = description["annotated_levels"], set(description["labels"].values())
    for level in annotated:
        if level not in LEVELS:
            near = difflib.get_close_matches(level, LEVELS, n=1, cutoff=0)
            raise StudyError(f"{file} annotates {level!r}; allowed are {', '.join(LEVELS)} (did you mean {near[0]}?)")
        if level not in named:
            raise StudyError(f"{file} annotates {level} but no label has that name; add it to labels")


def read_cases(folder: Path, masked: bool) -> pd.DataFrame:
    """The table of cases, checked; StudyError naming the line or case that does not fit.

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
    table["case"], table["patient"] = table["case"].map(plain), table["patient"].map(plain)
    _check_names(file, table)
    for column in ("image", "mask"):
        table[column] = [_inside(file, line, name) for line, name in table[column].items()]
    _check_columns(file, table)
    if "spacing_mm" in table:
        table["spacing_mm"] = [_spacing(file, line, text) for line, text in table["spacing_mm"].items()]
    cases = pd.read_csv(
        io.StringIO(table.to_csv(index=False)), dtype=dict.fromkeys(TEXTS, str), keep_default_na=False, na_values=[""]
    )
    cases["mask"] = cases["mask"].fillna("")
    return cases if "spacing_mm" in cases else cases.assign(spacing_mm=np.nan)


def _check_names(file: Path, table: pd.DataFrame) -> None:
    """Cases name files, so each must be a file's name that no disk confuses with another's."""
    alike = {}
    for line, case in table["case"].items():
        letters = re.sub(r"[\w.\- ]", "", case)
        if any(unicodedata.category(letter)[0] != "M" for letter in letters) or case.startswith("."):  # M: accents
            raise StudyError(f"{file}: case {case!r} must consist of letters, digits, '.', '_', '-', ' '")
        if len(case.encode()) > LONGEST:
            raise StudyError(f"{file} line {line}: case {case[:20]!r}... has more than {LONGEST} bytes; shorten it")
        other = alike.get(case.casefold())
        if other == case:
            raise StudyError(f"{file} names case {case!r} twice; give every image a name of its own")
        if other:
            raise StudyError(f"{file} names cases {other!r} and {case!r}, one file on some disks; rename one")
        alike[case.casefold()] = case


def _check_columns(file: Path, table: pd.DataFrame) -> None:
    """Raise StudyError for a mask that two patients share, and for a split that would not be read."""
    owners = table[table["mask"] != ""].groupby("mask")["patient"].unique()
    for mask, patients in owners.items():
        if len(patients) > 1:
            raise StudyError(f"{file} gives mask {mask} to patients {', '.join(patients)}; name each image's own")
    if "split" in map(str.lower, table):
        raise StudyError(f"{file} has a column 'split', which is not read; write {file.parent}/split.csv, or rename it")


def _inside(file: Path, line: int, name: str) -> str:
    """A file's path within the folder, its parts separated by / if they were by \\."""
    path = PureWindowsPath(name)
    if path.anchor or ".." in path.parts:
        raise StudyError(f"{file} line {line} names {name!r}; paths begin in {file.parent} and stay within it")
    return path.as_posix() if name else ""


def _spacing(file: Path, line: int, text: str) -> str:
    """The side of a pixel with a decimal point; empty if unknown."""
    if text.lower() in UNKNOWN:
        return ""
    number = text.replace(",", ".")
    if not NUMBER.fullmatch(number) or not LEAST_MM <= float(number) <= MOST_MM:
        raise StudyError(
            f"{file} line {line} has spacing_mm {text!r}; allowed are {LEAST_MM} to {MOST_MM} (mm a pixel); leave it "
            "empty where it is unknown"
        )
    return number


def read_image(path: Path) -> np.ndarray:
    """(height, width) uint8 of a grey image, or of a colour image with equal channels."""
    return grey(path.read_bytes(), path)


def grey(data: bytes, name: PurePath) -> np.ndarray:
    """(height, width) uint8 of a grey image file, or of one in colour with equal channels; `name` is for errors."""
    image = decode(data, name)
    pixels = single_channel(image.convert("RGB") if image.mode == "P" else image)
    if pixels is None:
        raise StudyError(f"image {name} is in colour; export it as grey; or is it a mask?")
    if pixels.dtype != np.uint8:
        raise StudyError(f"image {name} has {pixels.dtype} pixels; export it with 8 bits")
    return pixels


def read_mask(path: Path, labels: dict[int, str]) -> np.ndarray:
    """(height, width) uint8 label map in the study's values: 0 background, 1..6 for L1..S1.

    The value of a pixel is its grey value or, in an image with a palette, its index; of grey images with fewer than 8
    bits it is, as PNG has it, from 0 to 255.
    labels : mask value -> name, as in dataset.json; a name outside the study's levels becomes background.
    """
    image = decode(path.read_bytes(), path, lossless=True)
    pixels = single_channel(image)
    if image.mode == "P" and not (greys_of(image)[pixels] == pixels).all():
        raise StudyError(f"mask {path} has a palette of greys that are not its indices; export it as 8-bit grey PNG")
    if pixels is None:
        raise StudyError(f"mask {path} is in colour; export it as 8-bit index PNG, one value a label")
    with np.errstate(invalid="ignore"):
        mask = pixels.astype(np.uint8)
    known = np.isin(mask, [0, *labels]) & (mask == pixels)
    if not known.all():
        named = ", ".join(f"{value} = {name}" for value, name in sorted(labels.items()))
        unknown = pixels[~known].min()
        raise StudyError(f"mask {path} has label {unknown:g}, which dataset.json does not name; it names {named}")
    values = np.zeros(256, np.uint8)
    for value, name in labels.items():
        values[value] = LEVELS.index(name) + 1 if name in LEVELS else 0
    return values[mask]
