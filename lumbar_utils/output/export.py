"""A study's figures, tables and captions, gathered into one folder in the formats that journals ask for.

Vector figures, PNG at 300 dpi, captions and tables are the study's own files.
What else is asked for is drawn from the PDF, which holds text and lines as such: a study need not keep large
images that nobody may ask for.
"""

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lumbar_utils import StudyError, freshness, records
from lumbar_utils.data.folder import Cohort
from lumbar_utils.output.registry import FIGURES, TABLE_FORMATS, TABLES, drawn_from_scores, figure
from lumbar_utils.study import WITHOUT_EFFECT_ON_RESULTS, record_of

# format -> dpi to draw the PDF at; None: the study has the file
FIGURE_FORMATS = {"pdf": None, "svg": None, "png": None, "png600": 600, "tiff": 300, "tiff600": 600}
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
    """One file to write: of which figure or table, from which file of the study, at how many dpi (None: copied).

    notebook : number of the one that makes the source.
    """

    name: str
    notebook: str
    source: Path
    target: str
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
    items = [item for item in _items(study, formats or FORMATS) if not only or item.name in only]
    there = [item for item in items if item.source.exists()]
    if not there:
        raise StudyError(
            f"{study} has nothing of {', '.join(only) or 'its figures and tables'} as {', '.join(formats or FORMATS)}; "
            "run its notebooks, or name another format"
        )
    for item in there:
        _write(item, to)
    added = _add(study, to, [item.name for item in there if item.source.suffix == ".tex"])
    absent = [item for item in items if item not in there]
    missing = [f"{item.source.relative_to(study)}: notebook {item.notebook} makes it" for item in absent]
    without = set(only).difference(item.name for item in items)
    missing += [f"{name}: there is none as {', '.join(formats)}" for name in sorted(without)]
    return [to / name for name in [*(item.target for item in there), *added]], list(dict.fromkeys(missing))


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


def _items(study: Path, formats: Sequence[str]) -> list[Item]:
    """Every file to write, whether the study has its source or not; fig5-600dpi.png is drawn from fig5.pdf."""
    items = []
    kinds = [kind for kind in FIGURE_FORMATS if kind in formats]
    for name in _figures(study):
        for kind in [*kinds, "txt"] if kinds else []:
            dpi = FIGURE_FORMATS.get(kind)
            source = study / "figures" / f"{name}.{'pdf' if dpi else kind}"
            target = f"{name}-600dpi.{kind[:-3]}" if dpi == 600 else f"{name}.{kind}"
            items.append(Item(name, figure(name).notebook, source, target, dpi))
    for name, row in TABLES.items():
        for kind in row.formats:
            if kind in formats:
                items.append(Item(name, row.notebook, study / "tables" / f"{name}.{kind}", f"{name}.{kind}"))
    return items


def _write(item: Item, to: Path) -> None:
    with records.atomic_file(to / item.target) as temporary:
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


def _add(study: Path, to: Path, tables: Sequence[str]) -> list[str]:
    """What the study was and how long it took, and a LaTeX document of the tables, to compile or for its preamble."""
    records.write_json(to / "study.json", described(study))
    added, times = ["study.json"], records.times_of(study)
    if len(times):
        records.write_csv(to / "cells.csv", times)
        added.append("cells.csv")
    if tables:
        inputs = "\n".join(rf"\input{{{name}}}" for name in tables)
        records.write_text(to / "tables.tex", DOCUMENT.replace("TABLES", inputs))
        added.append("tables.tex")
    return added
