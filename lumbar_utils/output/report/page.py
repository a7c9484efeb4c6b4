"""The page: one HTML file that loads nothing, read in the order in which a reader asks."""

import base64
import io
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from PIL import Image

from lumbar_utils import LEVELS, METRICS, StudyError, __version__, records
from lumbar_utils.output.report import shown
from lumbar_utils.output.report.claim_2024 import ITEMS, STATUSES, answers
from lumbar_utils.output.report.results import Results
from lumbar_utils.output.report.templating import fill
from lumbar_utils.output.tables import images_of, runs_words
from lumbar_utils.scores.claims import FEWEST, VERDICTS
from lumbar_utils.study import Study

PLACES = ("dataset", "start_from", "encoder_weights")  # settings that may be paths: of these the name is shown
UNTOLD = ("runs", "cache")  # where on this machine; they change no result
MOST_FINDINGS = 200
SCREEN_WIDTH = 1432  # pixels: 200 dpi in print width, and more than the page shows
SMALL = 200_000  # bytes; diagrams are, and stay as they are


class Table(NamedTuple):
    """A table of the page: rows of text, the first cell of each its heading; links: where these lead, if anywhere."""

    name: str
    title: str
    caption: str
    columns: list[str]
    rows: list[list[str]]
    file: str = ""
    folded: bool = False
    links: list[str] | None = None


class Figure(NamedTuple):
    """A figure of the page: a PNG as data; words -> file of the same picture."""

    name: str
    title: str
    alt: str
    note: str
    data: str
    width: int
    height: int
    files: dict[str, str]


def render(results: Results, papers: list[str]) -> str:
    """The page of a study. papers : names of the files of its folder record/."""
    made = {file.stem for file in results.folder.glob("tables/[!.]*.csv")}
    drawn = {file.stem for file in results.folder.glob("figures/[!.]*.png")}
    named = {name for part in shown.PARTS for name in part.tables} | {"table1", "table2"}
    pictured = {name for part in shown.PARTS for name in part.figures} | {*shown.DATA_FIGURES, "table2"}
    more = shown.Part("more", "Further tables and figures", "", tuple(sorted(made - named)),
                      tuple(sorted(drawn - pictured - {"learning_curves"})))  # fmt: skip
    every = [*shown.PARTS, more]
    parts = [(part, tables_of(results, part.tables), figures_of(results, part.figures)) for part in every]
    return fill(
        "report.html",
        results=results, data=results.data, note=results.note, models=results.models,
        title="Which network segments lumbar vertebrae best?",
        answer=tables_of(results, ["table2"]), picture=figures_of(results, ["table2"]), verdicts=verdicts(results),
        limits=limits(results), parts=[part for part in parts if part[1] or part[2]],
        curves=figures_of(results, ["learning_curves"]), training=training(results),
        sides=sides(results), findings=findings(results), data_figures=figures_of(results, shown.DATA_FIGURES),
        table1=tables_of(results, ["table1"]), notebooks=notebooks(results), cells_of_grid=cells(results),
        settings=settings(results), software=software(results), checklist=checklist(results), papers=papers,
        version=__version__,
    )  # fmt: skip


def tables_of(results: Results, names: list[str] | tuple[str, ...]) -> list[Table]:
    """Those of a study's tables that hold anything, as printed, each with the caption that notebook 05 gave it."""
    found = []
    for name in names:
        if not results.has(f"tables/{name}.csv"):
            continue
        table = shown.printed(name, results.csv(f"tables/{name}.csv"))
        if table.empty:
            continue
        pasted = results.folder / "tables" / f"{name}.md"
        caption = pasted.read_text(encoding="utf-8").rstrip().rpartition("\n\n")[2] if pasted.exists() else ""
        note = "" if name in shown.NOT_OF_IMAGES else results.note
        title = shown.TITLES.get(name, name)
        found.append(_table(name, title, table, f"{caption} {note}".strip(), f"tables/{name}.csv", len(table) > 25))
    return found


def _table(name: str, title: str, table: pd.DataFrame, caption: str = "", file: str = "", folded=False) -> Table:
    columns = [str(column) for column in table.columns]
    return Table(name, title, caption, columns, table.astype(str).to_numpy().tolist(), file, folded)


def figures_of(results: Results, names: list[str] | tuple[str, ...]) -> list[Figure]:
    """Those of a study's figures that are there."""
    found = []
    for name in names:
        file = results.folder / "figures" / f"{name}.png"
        if file.exists():
            data, width, height = for_the_screen(file)
            title, alt = shown.FIGURES.get(name, (name, f"Figure {name} of this study; see its title."))
            note = "" if name in shown.NOT_OF_IMAGES else results.note
            places = {kind: f"figures/{name}.{kind}" for kind in ("pdf", "svg", "png")}
            places |= {f"{kind} for a column": f"figures/column/{name}.{kind}" for kind in ("pdf", "svg")}
            files = {words: place for words, place in places.items() if results.has(place)}
            found.append(Figure(name, title, f"{alt} {note}".strip(), note, data, width, height, files))
    return found


def _opened(whole: bytes, file: Path) -> Image.Image:
    try:
        picture = Image.open(io.BytesIO(whole))
        picture.load()
    except (OSError, SyntaxError):  # as Pillow says it of a PNG that is damaged
        raise StudyError(f"{file} is cut off or damaged; copy it again, or delete it and run the study again") from None
    return picture


def for_the_screen(file: Path) -> tuple[str, int, int]:
    """A PNG in base64, no wider than SCREEN_WIDTH where that makes it smaller, width, height.

    Colours are kept: they have meanings. The figure at full size lies beside the page, and is linked from it.
    """
    whole = file.read_bytes()
    with _opened(whole, file) as picture:
        if len(whole) < SMALL or picture.width <= SCREEN_WIDTH:
            return base64.b64encode(whole).decode(), *picture.size
        size = (SCREEN_WIDTH, round(picture.height * SCREEN_WIDTH / picture.width))
        smaller = picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        written = io.BytesIO()
        smaller.save(written, "png")
        content = min(whole, written.getvalue(), key=len)
        return base64.b64encode(content).decode(), *(size if content is not whole else picture.size)


def verdicts(results: Results) -> dict[str, int]:
    """How many of the paper's claims have which verdict; empty before they were judged."""
    claims = results.csv("tables/claims.csv")
    counts = {verdict: int((claims["verdict"] == verdict).sum()) for verdict in VERDICTS} if len(claims) else {}
    return {verdict: number for verdict, number in counts.items() if number}


def limits(results: Results) -> list[str]:
    """What the result does not say, as far as the folder tells."""
    test = results.cases[results.cases["split"] == "test"]["patient"].nunique()
    few = f"{test} patients are in the test set" + (
        f": fewer than {FEWEST}, too few for an interval to hold or to decide any claim." if test < FEWEST else "."
    )
    absent = [level for level in LEVELS if level not in results.data["annotated"]]
    found = [
        results.stale and f"Stale: {results.stale}.",
        results.note
        and "The images are drawn by a program. Nothing here is about patients, nor which network would "
        "be better for them.",
        few if test else "",
        f"Behind it: {runs_words(results.cases)}; others may turn an order round.",
        "The paper's numbers are of its own images, and its training and definitions are not stated: they stand beside "
        "ours for orientation only.",
        absent and f"Not annotated in these data, so neither learned nor scored: {', '.join(absent)}.",
        results.data["findings"] and f"{len(results.data['findings'])} findings of the audit stand on the record.",
        results.study["settings"]["profile"] == "smoke"
        and "Profile smoke: too short to learn anything. It tests that "
        "the program runs; no score in it means anything.",
    ]
    return [words for words in found if words]


def training(results: Results) -> Table | None:
    """How each network was trained, so far."""
    if results.training.empty:
        return None
    epochs = results.study["settings"]["epochs"]
    rows = [
        (results.models[row.model], "" if pd.isna(row.parameters) else f"{row.parameters:,.0f}",
         f"{row.epochs} of {epochs}", str(row.best_epoch), f"{row.best_val_f1:.4f}", f"{row.seconds:,.1f}",
         "yes" if row.finished else "no")
        for row in results.training.itertuples()
    ]  # fmt: skip
    names = ["network", "parameters", "epochs", "best epoch", f"its validation {METRICS['f1']}", "seconds", "finished"]
    return _table("training", "Training of each network", pd.DataFrame(rows, columns=names), results.note)


def sides(results: Results) -> Table | None:
    """Patients and images on each side of the split."""
    if results.cases.empty:
        return None
    groups = results.cases.groupby("split")
    counts = pd.DataFrame({"patients": groups["patient"].nunique(), "images": groups.apply(images_of)})
    order = [side for side in ("train", "validation", "test") if side in counts.index]
    table = counts.loc[order].reset_index().rename(columns={"split": "side"})
    how = f"The split was {results.data['split']}; patients are split, never images."
    return _table("split", "Patients and images of each side", table, how, "cases.csv")


def findings(results: Results) -> Table | None:
    """The audit's findings, the first MOST_FINDINGS of them."""
    found = results.findings
    if found.empty:
        return None
    rest = len(found) - MOST_FINDINGS
    caption = f"The first {MOST_FINDINGS}; {rest} more are in study.json." if rest > 0 else ""
    return _table("findings", f"{len(found)} findings", found.head(MOST_FINDINGS), caption, "study.json", True)


def notebooks(results: Results) -> list[tuple]:
    """Each notebook with the table of its cells' times, where it was run."""
    found = []
    for notebook in results.notebooks:
        table = None
        if len(notebook.cells):
            cells = notebook.cells.assign(line=notebook.cells["line"].str.slice(0, 90))
            cells["seconds"] = ["" if pd.isna(time) else f"{time:.2f}" for time in cells["seconds"]]
            cells = cells[["cell", "seconds", "status", "line"]].rename(columns={"line": "first line"})
            table = _table(f"cells-{notebook.name}", f"Cells of {notebook.name}", cells, "", "", True)
        found.append((notebook, table))
    return found


def cells(results: Results) -> Table | None:
    """The cells of a grid, each with its costs, linked to its executed notebook."""
    table = results.cells
    if table.empty:
        return None
    named = {
        "cell": table["step"].str.replace("_", " "),
        "memory (MB)": table["memory_mb"],
        "disk (MB)": table["disk_mb"],
    }
    printed = table.assign(**named)[["cell", "seed", "fold", "state", "seconds", "memory (MB)", "disk (MB)"]]
    links = [f"../{cell.study}/notebooks/{cell.step}.ipynb" for cell in table.itertuples()]
    title = f"{len(table)} cells of the grid"
    return _table("cells", title, printed.map(shown.cell_text), "", "cells.csv", True)._replace(links=links)


def settings(results: Results) -> Table:
    """Every setting with its meaning; of a path its last part, so that no machine is described."""
    fields, rows = Study.model_fields, []
    for name, value in results.study["settings"].items():
        if name not in UNTOLD:
            told = Path(str(value)).name if name in PLACES and value else value
            rows.append((name, str(told), fields[name].description if name in fields else ""))
    table = pd.DataFrame(rows, columns=["setting", "value", "meaning"])
    return _table("settings", "Settings", table, "", "study.json", True)


def software(results: Results) -> Table:
    """Fingerprints as study.json has them; code, packages and hardware as the record of each result has them."""
    study = results.study
    rows = {
        "seed": study["settings"]["seed"],
        "fingerprint of the settings": study["fingerprint"],
        "fingerprint of the data": study["data"]["fingerprint"],
    }
    flat = {
        result: {name: made[name] for name in ("lumbar_utils", "commit")} | made["environment"] | made["packages"]
        for result, made in results.provenance.items()
    }
    names = dict.fromkeys(name for made in flat.values() for name in made)
    for name in names:
        rows[name] = records.one_or_each({result: made[name] for result, made in flat.items() if name in made})
    table = pd.DataFrame([(name, str(value)) for name, value in rows.items()], columns=["what", "value"])
    return _table("software", "Code, hardware and fingerprints", table, "", "study.json")


def checklist(results: Results) -> tuple[dict[str, int], Table]:
    """CLAIM 2024: how many items have which status, and all of them."""
    found = answers(results)
    counts = {status: sum(answer.status == status for answer in found) for status in STATUSES}
    rows = [
        (item.number, item.section, item.asks, answer.status, answer.text)
        for item, answer in zip(ITEMS, found, strict=True)
    ]
    table = pd.DataFrame(rows, columns=["item", "section", "asks", "status", "answer"])
    return counts, _table("claim", "CLAIM 2024, item by item", table, "", "record/claim_2024.md", True)
