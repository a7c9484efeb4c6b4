"""Text files as people and spreadsheets write them, read as they are meant or refused."""

import codecs
import contextlib
import csv
import io
import json
import re
import unicodedata
from pathlib import Path

import pandas as pd

from lumbar_utils import StudyError

SEPARATORS = ",;\t"


def read_text(path: Path) -> str:
    """Text in UTF-8 or UTF-16 with its byte-order mark removed, else in Windows' cp1252."""
    data = path.read_bytes()
    encodings = ("utf-16",) if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else ("utf-8-sig", "cp1252")
    for encoding in encodings:
        with contextlib.suppress(UnicodeDecodeError):
            text = data.decode(encoding)
            if "\0" not in text:
                return text
    raise StudyError(f"{path} is no text in UTF-8, UTF-16 or Windows-1252; save it as UTF-8")


def read_json(path: Path) -> dict:
    """The object in a JSON file; StudyError for anything else, and for a name that stands in it twice."""

    def unique(pairs: list[tuple]) -> dict:
        names = [name for name, _ in pairs]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"{twice[0]!r} stands in it twice")
        return dict(pairs)

    try:
        value = json.loads(read_text(path), object_pairs_hook=unique)
        json.dumps(value, indent=2, ensure_ascii=False).encode()  # for a study's record
    except StudyError:
        raise
    except (ValueError, RecursionError) as error:
        raise StudyError(f"{path} is not JSON: {error}; see data/README.md for its form") from None
    if not isinstance(value, dict):
        raise StudyError(f"{path} holds {type(value).__name__} where an object is expected; see data/README.md")
    return value


def plain(name: str) -> str:
    """A name in the one form that Unicode composes its letters to: some systems store `ü` as two characters."""
    return unicodedata.normalize("NFC", name)


def read_table(path: Path, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> pd.DataFrame:
    """A table as text, without blanks around values and without empty lines; its index holds the lines' numbers.

    Values are separated by commas, semicolons or tabs, whichever the header has most of. `columns` are needed; they and
    the `optional` ones are known in upper case too. A column without a name is dropped.
    Raises StudyError for a line with more or fewer values than the header, and a column that is absent or there twice.
    """
    lines = _lines(path)
    if not lines:
        raise StudyError(f"{path} is empty; it needs the columns {', '.join(columns)}")
    known = (*columns, *optional)
    header = [" ".join(name.split()) for name in lines.pop(min(lines))]
    header = [name.lower() if name.lower() in known else name for name in header]
    for line, values in lines.items():
        if len(values) < len(header) or any(values[len(header) :]):
            raise StudyError(
                f"{path} line {line} has {len(values)} values and the header {len(header)}; is the file whole? "
                'Put a value that contains a separator between "quotes"'
            )
    names = [name for name in header if name]
    for name in columns:
        if name not in names:
            raise StudyError(f"{path} lacks the column {name!r}; it has {', '.join(names)}; name it in the first line")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise StudyError(f"{path} has the column {twice[0]!r} twice; remove one")
    values = [values[: len(header)] for values in lines.values()]
    table = pd.DataFrame(values, index=list(lines), columns=header, dtype=str)[names]
    return table.assign(**{name: table[name].map(lambda text: " ".join(text.splitlines())) for name in columns})


def _lines(path: Path) -> dict[int, list[str]]:
    """Number of a line -> its values, of those that are not empty."""
    text = re.sub(r'\A"?sep=."?\s*?$', "", read_text(path), flags=re.MULTILINE | re.IGNORECASE)  # Excel's own line
    separator = max(SEPARATORS, key=text.lstrip().partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    lines = {}
    try:
        for row in reader:
            values = [value.strip() for value in row]
            if any(values):
                lines[reader.line_num] = values
    except csv.Error as error:
        raise StudyError(f"{path} line {reader.line_num} cannot be read: {error}; is the file whole?") from None
    return lines
