"""A study's figures, tables and captions, gathered into one folder in the formats that journals ask for.

Vector figures, PNG at 300 dpi, captions and tables are the study's own files.
What else is asked for is drawn from the PDF, which holds text and lines as such: a study need not keep large
images that nobody may ask for.
"""

import contextlib
import shutil
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

from lumbar_utils import StudyError, freshness, records
from lumbar_utils.data.folder import Cohort
from lumbar_utils.output.registry import FIGURES, TABLE_FORMATS, TABLES, drawn_from_scores, figure, table
from lumbar_utils.study import WITHOUT_EFFECT_ON_RESULTS, record_of

# format -> dpi to draw it at, where a study has no file of its own
FIGURE_FORMATS = {"pdf": None, "svg": None, "png": 300, "png600": 600, "tiff": 300, "tiff600": 600}
STORED = ("pdf", "svg", "png", "txt")  # of a figure, by the notebook that draws it
FORMATS = (*FIGURE_FORMATS, *TABLE_FORMATS)

DOCUMENT = r"""\documentclass{article}
\usepackage{iftex}
\ifPDFTeX
  \usepackage[T1]{fontenc}
  \makeatletter\def\UTFviii@undefined@err#1{[?]}\makeatother  % a letter beyond Latin
\else
  \usepackage{fontspec}
  \IfFontExistsTF{DejaVu Serif}{\setmainfont{DejaVu Serif}}{}  % a font that has your letters
\fi
\usepackage{array, booktabs}
\usepackage[landscape, margin=1cm]{geometry}
\begin{document}
TABLES
\end{document}
"""


class Item(NamedTuple):
    """One file to write: of which figure or table, from which file of the study, at how many dpi (None: copied)."""

    name: str
    source: Path
    target: Path
    dpi: int | None = None


def export(
    study: Path, to: Path, formats: Sequence[str] = (), only: Sequence[str] = ()
) -> tuple[list[Path], list[str]]:
    """Write what a study has into the folder `to`: the files written, and words on each figure or table it lacks.

    formats : of FORMATS, all if none is named. only : names of figures and tables, all if none is named. The captions
    (.txt) go with the figures, and `tables.tex`, which shows them all, with the tables. A second time gives the same
    bytes. Raises StudyError for an unknown name or format, where there is nothing to write, and for scores that are not
    of the study's data, settings and label maps of today.
    """
    record_of(study)
    freshness.refuse_stale_scores(study)
    _refuse_unknown("format", formats, FORMATS)
    _refuse_unknown("figure or table", only, list(dict.fromkeys([*_figures(study), *TABLES])))
    items = _items(study, to, formats or FORMATS)
    if only:
        items = [item for item in items if item.name in only]
    written, missing = [], []
    for item in items:
        if item.source.exists():
            _write(item)
            written.append(item.target)
        else:
            missing.append(f"{item.source.relative_to(study)}: {_maker(item)} makes it")
    if not written:
        raise StudyError(
            f"{study} has nothing of {', '.join(only) or 'its figures and tables'} as {', '.join(formats or FORMATS)}; "
            "run its notebooks, or name another format"
        )
    without = [name for name in only if name not in {item.name for item in items}]
    absent = [f"{name}: there is none as {', '.join(formats)}" for name in without]
    return [*written, *_add(study, to, written)], [*dict.fromkeys(missing), *absent]


def remove_stale_comparison(study: Path, cohort: Cohort, folders: dict[str, Path]) -> None:
    """Remove the tables and figures of a study's folder that were made from scores of other label maps or data.

    They would pass for those of the new scores if the notebook failed before it makes them again.
    cohort, folders : as `evaluate` is given them.
    """
    if records.is_finished(study / "scores.json", freshness.scored(cohort, folders)):
        return
    shutil.rmtree(study / "tables", ignore_errors=True)
    (study / "bodies_in_order.csv").unlink(missing_ok=True)
    for file in (study / "figures").rglob("*.*"):
        if file.stem in drawn_from_scores():
            file.unlink()


def published(record: dict) -> dict:
    """A study.json without what belongs to one machine: settings that change no result, and folders above a file."""
    settings = {
        name: Path(value).name if isinstance(value, str) else value
        for name, value in record["settings"].items()
        if name not in WITHOUT_EFFECT_ON_RESULTS
    }
    return record | {"settings": settings}


def described(study: Path) -> dict:
    """What a study's study.json publishes, and the provenance of each of its results; of an export, its study.json."""
    record = record_of(study)
    made = records.recorded_provenance(study)
    return published(record) | ({"provenance": made} if made else {})


def _figures(study: Path) -> list[str]:
    """Every figure that a notebook makes, and those that are there besides: of a grid, of further networks."""
    made = [name for name, row in FIGURES.items() if row.notebook]
    there = sorted(path.stem for path in (study / "figures").glob("[!.]*.pdf"))
    return list(dict.fromkeys([*made, *there]))


def _refuse_unknown(what: str, named: Sequence[str], known: Sequence[str]) -> None:
    for name in named:
        if name not in known:
            raise StudyError(f"unknown {what} {name!r}; known are {', '.join(known)}")


def _items(study: Path, to: Path, formats: Sequence[str]) -> list[Item]:
    """Every file to write, whether the study has what it is made from or not."""
    pictures = [kind for kind in FIGURE_FORMATS if kind in formats]
    kinds = [*pictures, "txt"] if pictures else []
    items = [_figure_item(study / "figures", to, *figure) for figure in product(_figures(study), kinds)]
    for name, row in TABLES.items():
        files = [f"{name}.{kind}" for kind in row.formats if kind in formats]
        items += [Item(name, study / "tables" / file, to / file) for file in files]
    return items


def _figure_item(folder: Path, to: Path, name: str, kind: str) -> Item:
    """fig5.png is copied; fig5-600dpi.png is drawn from fig5.pdf."""
    if kind in STORED:
        return Item(name, folder / f"{name}.{kind}", to / f"{name}.{kind}")
    dpi, ending = FIGURE_FORMATS[kind], kind.removesuffix("600")
    suffix = "-600dpi" if dpi == 600 else ""
    return Item(name, folder / f"{name}.pdf", to / f"{name}{suffix}.{ending}", dpi)


def _maker(item: Item) -> str:
    """What makes a figure or table."""
    row = table(item.name) if item.source.parent.name == "tables" else figure(item.name)
    return f"notebook {row.notebook}" if row.notebook else "run"


def _write(item: Item) -> None:
    with records.atomic_file(item.target) as temporary:
        if item.dpi is None:
            shutil.copyfile(item.source, temporary)
        else:
            _draw(item.source, temporary, item.dpi)


def _draw(pdf: Path, image: Path, dpi: int) -> None:
    """The page of a PDF as a PNG, or as a TIFF without loss (LZW), which says how many dpi it has."""
    from pypdfium2 import PdfDocument, PdfiumError

    try:
        opened = PdfDocument(pdf)
    except PdfiumError:
        raise StudyError(f"{pdf} is cut off or damaged; copy it again, or delete it and run the study again") from None
    with contextlib.closing(opened) as document:
        page = document[0].render(scale=dpi / 72).to_pil()
    lossless = {"compression": "tiff_lzw"} if image.suffix == ".tiff" else {}
    page.save(image, dpi=(dpi, dpi), **lossless)


def _add(study: Path, to: Path, written: Sequence[Path]) -> list[Path]:
    """What the study was and how long it took, and a LaTeX document of all tables, to compile or for its preamble."""
    records.write_json(to / "study.json", described(study))
    added, times = [to / "study.json"], records.times_of(study)
    if len(times):
        records.write_csv(to / "cells.csv", times)
        added.append(to / "cells.csv")
    latex = [path.stem for path in written if path.suffix == ".tex"]
    if not latex:
        return added
    inputs = "\n".join(rf"\input{{{name}}}" for name in latex)
    records.write_text(to / "tables.tex", DOCUMENT.replace("TABLES", inputs))
    return [*added, to / "tables.tex"]
