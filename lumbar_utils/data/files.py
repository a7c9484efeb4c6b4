"""Folders, text, tables, JSON and names of labels, as people, spreadsheets and other tools write them."""

import codecs
import contextlib
import csv
import io
import json
import os
import re
import unicodedata
from collections import Counter
from pathlib import Path

import pandas as pd

from lumbar_utils import LEVELS, StudyError

VOLUMES = (".nii.gz", ".nii", ".mha", ".nrrd")  # suffixes of volumes that are read
SEPARATORS = ",;\t"
ANATOMY_WORDS = {
    "vertebra", "vertebrae", "vertebral", "vert", "vb", "body", "bodies", "corpus", "lumbar", "lumbal", "sacral",
    "spine", "spinal", "level", "label", "segment", "bone", "mask", "the", "of",
}  # beside a level they mean the vertebra, and not its disc or arch  # fmt: skip
LEVEL = re.compile(r"(?<![^\W_])(L|S)(?:WK|UMBA[RL]|ACRAL)?[\W_]*(?:VERTEBRA)?[\W_]*0?([1-5])(?!\d)")  # L 1, LWK1, L01
DISC = re.compile(r"[LS]\d[\W_]+[1-5](?!\d)")  # L4/5


def files_in(folder: Path) -> list[Path]:
    """All files of a folder, at any depth, by path; links are followed, each folder once, hidden files are ignored.

    Raises StudyError for a broken link and for a folder that cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise StudyError(f"{error.filename} cannot be listed: {error.strerror}; grant access or move it elsewhere")

    files, visited = [], set()
    for root, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        real = os.path.realpath(root)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [Path(root, name) for name in names if not name.startswith(".")]
    broken = [path for path in files if not path.exists()]
    if broken:
        raise StudyError(f"{broken[0]} is a link to a file that is not there; put it there or remove the link")
    return sorted(path for path in files if path.is_file())


def split_suffix(path: Path) -> tuple[str, str]:
    """A file's name without its suffix, and the suffix in lower case; an empty suffix unless it is of VOLUMES."""
    for suffix in VOLUMES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)], suffix
    return path.name, ""


def read_text(path: Path) -> str:
    """Text in UTF-8 or UTF-16 with its byte-order mark removed, else in Windows' cp1252."""
    data = path.read_bytes()
    is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for encoding in ("utf-16",) if is_utf16 else ("utf-8-sig", "cp1252"):
        with contextlib.suppress(UnicodeDecodeError):
            text = data.decode(encoding)
            if "\0" not in text:
                return text
    raise StudyError(f"{path} is no text in UTF-8, UTF-16 or Windows-1252; save it as UTF-8")


def read_json(path: Path) -> dict:
    """The object in a JSON file; StudyError for anything else, and for a name that it has twice."""
    try:
        value = json.loads(read_text(path), object_pairs_hook=_unique)
        json.dumps(value, indent=2, ensure_ascii=False).encode()  # for a study's record
    except StudyError:
        raise
    except (ValueError, RecursionError) as error:
        raise StudyError(f"{path} is not JSON: {error}; see data/README.md for its form") from None
    if not isinstance(value, dict):
        raise StudyError(f"{path} holds {type(value).__name__} where an object is expected; see data/README.md")
    return value


def _unique(pairs: list[tuple]) -> dict:
    for name, count in Counter(name for name, _ in pairs).items():
        if count > 1:
            raise ValueError(f"{name!r} stands in it twice")
    return dict(pairs)


def plain(name: str) -> str:
    """A name in the one form that Unicode composes its letters to: some systems store `ü` as two characters."""
    return unicodedata.normalize("NFC", name)


def read_table(path: Path, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> pd.DataFrame:
    """A table as text, stripped of blanks around values and of empty lines; its index holds the lines' numbers.

    Values are separated by commas, semicolons or tabs, whichever the header has most of. `columns` are needed; they and
    the `optional` ones may be written in upper case. A column without a name is dropped.
    Raises StudyError for a line with more or fewer values than the header, and a column that is absent or repeated.
    """
    lines = _lines(path)
    header = lines.pop(min(lines, default=1), [])
    names = [name.lower() if name.lower() in columns + optional else name for name in header]
    for line, values in lines.items():
        if len(values) < len(names) or any(values[len(names) :]):
            raise StudyError(
                f"{path} line {line} has {len(values)} values and the header {len(names)}; is the file whole? "
                'Put a value that contains a separator between "quotes"'
            )
    rows = [values[: len(names)] for values in lines.values()]
    table = pd.DataFrame(rows, index=list(lines), columns=names, dtype=str)
    table = table.loc[:, table.columns != ""]
    if table.columns.has_duplicates or not set(columns) <= set(table):
        raise StudyError(
            f"{path} has the columns {', '.join(table) or 'none'}; {', '.join(columns)} are needed, each once: correct "
            "its first line"
        )
    return table


def _lines(path: Path) -> dict[int, list[str]]:
    """Number of a line -> its values, for the lines that are not empty; a line break within a value becomes a blank."""
    text = re.sub(r'\A"?sep=."?\s*?$', "", read_text(path), flags=re.MULTILINE | re.IGNORECASE)  # Excel's own line
    separator = max(SEPARATORS, key=text.lstrip().partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    lines = {}
    try:
        for row in reader:
            values = [" ".join(value.splitlines()).strip() for value in row]
            if any(values):
                lines[reader.line_num] = values
    except csv.Error as error:
        raise StudyError(f"{path} line {reader.line_num} cannot be read: {error}; is the file whole?") from None
    return lines


def level_of(name: str) -> str:
    """The level that a label's name means (`vertebrae_L1`, `L1 vertebra`, `lumbar 1`, `l01`), else the name itself.

    It may hold one level, numbers and ANATOMY_WORDS: neither `disc_L1` nor `L5-S1` nor `L4/5` is a vertebra, nor is
    `sacrum` S1, which is only its uppermost part.
    """
    text = LEVEL.sub(r"\1\2", name.upper())
    tokens = set(re.findall(r"[^\W_]+", text))
    levels = tokens & set(LEVELS)
    others = {token.lower() for token in tokens - levels if not token.isdecimal()}
    return levels.pop() if len(levels) == 1 and others <= ANATOMY_WORDS and not DISC.search(text) else name


def named_values(labels: object, file: Path, levels: tuple[str, ...] = LEVELS) -> dict[int, str]:
    """Mask value -> name, with the study's own names of levels.

    labels : value -> name, or as in nnU-Net name -> value, or name -> values of a region.
    file : for errors. Raises StudyError unless one of `levels` is named, and every value has one level at most.
    """
    if not isinstance(labels, dict):
        raise StudyError(f'{file} has no labels but {labels!r:.80}; write {{"1": "L1", "2": "L2"}} for instance')
    named: dict[int, str] = {}
    for key, content in labels.items():
        is_value_to_name = key.strip().isdecimal() and isinstance(content, str)
        name, values = (content, key) if is_value_to_name else (key, content)
        for value in values if isinstance(values, list) else [values]:
            _add_name(named, value, level_of(name), file)
    if not set(named.values()) & set(levels):
        names = ", ".join(map(repr, named.values())) or "nothing"
        raise StudyError(f"{file} names {names}; one of {', '.join(levels)} or more must be among them")
    return named


def _add_name(named: dict[int, str], value: object, name: str, file: Path) -> None:
    """Add the name of one value; a level's name has precedence over that of a region that contains it."""
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,3}", str(value).strip()) or int(value) > 255:
        raise StudyError(f"{file} gives {name!r} the value {value!r:.80}; write a whole number from 0 to 255")
    number = int(value)
    former = named.get(number)
    if name in LEVELS and (number == 0 or (former in LEVELS and former != name)):
        raise StudyError(f"{file} gives {name} the value {number}, which is {former or 'background'}; give it another")
    if name in LEVELS or former is None:
        named[number] = name
