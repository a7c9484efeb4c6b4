"""A study's figures, tables and captions, gathered into one folder in the formats that journals ask for.

Vector figures, PNG at 300 dpi, captions and tables are the study's own files; in column/ lie those as wide as a column.
What else is asked for is drawn from the PDF, which holds text and lines as such: a study need not keep large
images that nobody may ask for.
"""

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from lumbar_utils import StudyError, freshness, records
from lumbar_utils.data.folder import Cohort
from lumbar_utils.output.tables import beyond_latin
from lumbar_utils.study import WITHOUT_EFFECT_ON_RESULTS, record_of

COMPARISON = "05"  # number of the notebook that makes figures and tables of scores
# name -> number of the notebook that makes it
FIGURES = {
    "audit": "01", "fig4": "01", "data_overview": "01", "fig1": "02", "fig2": "03", "fig3": "04",
    **dict.fromkeys((
        "table2", "differences", "runs", "multiverse", "precision_recall", "f1_by_level", "errors", "error_map",
        "confusion", "groups", "reliability", "robustness", "cost", "fig5", "fig6", "fig7", "worst", "learning_curves",
    ), COMPARISON),
}  # fmt: skip
# format -> dpi to draw it at, where a study has no file of its own
FIGURE_FORMATS = {"pdf": None, "svg": None, "png": 300, "png600": 600, "tiff": 300, "tiff600": 600}
OWN = {"figures": ("pdf", "svg", "png", "txt"), "column": ("pdf", "svg")}  # folder -> files of its own
TABLE_FORMATS = ("csv", "tex", "md", "html")
FORMATS = (*FIGURE_FORMATS, *TABLE_FORMATS)
# name -> formats it exists in; notebook 05 makes them all
TABLES = {
    **dict.fromkeys(
        ("table1", "table2", "claims", "forensics", "comparisons", "variance", "metrics", "errors", "cost"),
        TABLE_FORMATS,
    ),
    **dict.fromkeys(("runs", "groups", "multiverse"), ("csv",)),
}

DOCUMENT = r"""\documentclass{article}
\usepackage{iftex}
\ifPDFTeX
  \usepackage[T1]{fontenc}
%s\else
  \usepackage{fontspec}
  \IfFontExistsTF{DejaVu Serif}{\setmainfont{DejaVu Serif}}{}  %% a font that has your letters
\fi
\usepackage{array, booktabs}
\usepackage[landscape, margin=1cm]{geometry}
\begin{document}
%s
\end{document}
"""


@dataclasses.dataclass(frozen=True)
class Item:
    """One file to write: from which of the study's, which a notebook makes, and at how many dpi (None: copied)."""

    name: str
    source: Path
    target: Path
    dpi: int | None = None
    maker: str = COMPARISON


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
    _refuse_unknown("figure or table", only, list(dict.fromkeys([*_drawn(study), *TABLES])))
    written, missing = [], []
    for item in _items(study, to, formats or FORMATS):
        if only and item.name not in only:
            continue
        if not item.source.exists():
            missing.append(item)
            continue
        _write(item)
        written.append(item.target)
    if not written:
        raise StudyError(
            f"{study} has nothing of {', '.join(only) or 'its figures and tables'} as {', '.join(formats or FORMATS)}; "
            "run its notebooks, or name another format"
        )
    told = {item.name for item in missing} | {path.stem.removesuffix("-600dpi") for path in written}
    absent = [f"{name}: there is none as {', '.join(formats)}" for name in only if name not in told]
    return [*written, *_add(study, to, written)], [*_words(missing), *absent]


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
        if FIGURES.get(file.stem) == COMPARISON:
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


def _drawn(study: Path) -> list[str]:
    """Every figure that is known, and those of further networks that are there."""
    there = sorted(path.stem for path in (study / "figures").glob("[!.]*.pdf"))
    return list(dict.fromkeys([*FIGURES, *there]))


def _refuse_unknown(what: str, named: Sequence[str], known: Sequence[str]) -> None:
    for name in named:
        if name not in known:
            raise StudyError(f"unknown {what} {name!r}; known are {', '.join(known)}")


def _items(study: Path, to: Path, formats: Sequence[str]) -> Iterator[Item]:
    pictures = [kind for kind in FIGURE_FORMATS if kind in formats]
    for name in _drawn(study):
        for kind in [*pictures, "txt"] if pictures else []:
            yield _figure(study / "figures", to, name, kind)
        if (study / "figures" / "column" / f"{name}.pdf").exists():
            yield from (_figure(study / "figures" / "column", to / "column", name, kind) for kind in pictures)
    for name, kinds in TABLES.items():
        for kind in [kind for kind in kinds if kind in formats]:
            yield Item(name, study / "tables" / f"{name}.{kind}", to / f"{name}.{kind}")


def _figure(folder: Path, to: Path, name: str, kind: str) -> Item:
    """fig5.png is copied; fig5-600dpi.png is drawn from fig5.pdf."""
    dpi, ending = None if kind in OWN[folder.name] else FIGURE_FORMATS[kind], kind.removesuffix("600")
    source = folder / f"{name}.{'pdf' if dpi else kind}"
    target = to / f"{name}{'-600dpi' if dpi == 600 else ''}.{ending}"
    return Item(name, source, target, dpi, FIGURES.get(name, "02 to 04"))


def _words(missing: Sequence[Item]) -> list[str]:
    """figures/fig5 (pdf, txt): notebook 05 makes it; one a figure or table."""
    endings: dict[tuple, dict] = {}
    for item in missing:
        place = f"{item.source.parent.name}/{item.source.stem}"
        endings.setdefault((place, item.maker), {})[item.source.suffix.lstrip(".")] = None
    return [f"{place} ({', '.join(kinds)}): notebook {maker} makes it" for (place, maker), kinds in endings.items()]


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
    """What the study was and cost, and a document of all tables in LaTeX, to compile or to take the preamble from."""
    records.write_json(to / "study.json", described(study))
    added, costs = [to / "study.json"], records.costs_of(study)
    if len(costs):
        records.write_csv(to / "cells.csv", costs)
        added.append(to / "cells.csv")
    latex = [path.stem for path in written if path.suffix == ".tex"]
    if not latex:
        return added
    letters = beyond_latin("".join((to / f"{name}.tex").read_text(encoding="utf-8") for name in latex))
    codes = [f"{ord(letter):04X}" for letter in letters]
    known = "".join(rf"  \DeclareUnicodeCharacter{{{code}}}{{[U+{code}]}}" + "\n" for code in codes)
    records.write_text(to / "tables.tex", DOCUMENT % (known, "\n".join(rf"\input{{{name}}}" for name in latex)))
    return [*added, to / "tables.tex"]
