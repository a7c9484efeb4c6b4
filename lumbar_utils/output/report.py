"""The report of a study: the page report.html, which loads nothing else, and the documents in record/.

They are made from the study's folder alone and hold no time of their making, so the same folder gives the same bytes.
"""

import base64
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from PIL import Image

from lumbar_utils import METRICS, StudyError, __version__, records
from lumbar_utils.output import record, registry
from lumbar_utils.output.results import Results, read
from lumbar_utils.scores.paper import VERDICTS
from lumbar_utils.scores.statistics import MIN_PATIENTS
from lumbar_utils.study import PATHS, Study

NO_RESULT = ("runs", "cache")  # settings that only say where on this machine files lie
LONG = 25  # rows; a longer table of the study is folded


class Table(NamedTuple):
    """A table of the page. The first cell of a row is its heading.

    file : of the study, with the same content. folded : shown after a click only.
    """

    name: str
    title: str
    rows: pd.DataFrame
    caption: str = ""
    file: str = ""
    folded: bool = False


class Figure(NamedTuple):
    """A figure of the page: a PNG in base64 with its size in pixels. kinds : formats in which the study has it."""

    name: str
    row: registry.Figure
    note: str
    data: str
    width: int
    height: int
    kinds: list[str]


def write(folder: Path) -> Path:
    """Write report.html and record/ into a study's folder, finished or not; returns the page.

    Raises StudyError for a folder without a study.
    """
    results = read(folder)
    documents = record.documents(results)
    for name, text in documents.items():
        records.write_text(folder / "record" / name, text)
    records.write_text(folder / "report.html", render(results, list(documents)))
    return folder / "report.html"


def render(results: Results, documents: list[str]) -> str:
    """The page of a study. documents : names of the files in its folder record/."""
    tables, figures = tables_of(results), figures_of(results)
    checklist, found = record.checklist(results), results.findings
    drawn = f"The split was {results.data['split']}; patients are split, never images."
    return record.fill(
        "report.html",
        results=results,
        facts=record.facts(results),
        version=__version__,
        fewest=MIN_PATIENTS,
        verdicts=record.count_values(results.csv("tables/claims.csv").get("verdict", []), VERDICTS),
        tables=tables,
        figures=figures,
        parts={anchor: part for anchor, part in registry.PARTS.items() if anchor in (*tables, *figures)},
        training=training(results),
        split=Table("split", "Patients and images of each side", results.split, drawn, "cases.csv"),
        findings=Table("findings", f"{len(found)} findings", found, file="study.json", folded=True),
        grid=grid(results),
        cell_times=cell_times(results),
        software=software(results),
        settings=settings(results),
        checklist=Table("claim", "CLAIM 2024, item by item", checklist, file="record/claim_2024.md", folded=True),
        statuses=record.count_values(checklist["status"], record.STATUSES),
        documents=documents,
    )


def tables_of(results: Results) -> dict[str, list[Table]]:
    """Part of the report -> its tables that have rows, as printed, with the captions that the notebooks gave them."""
    tables = defaultdict(list)
    for name, row in registry.TABLES.items():
        file = f"tables/{name}.csv"
        stored = results.csv(file)
        if len(stored):
            printed = registry.print_table(name, stored)
            caption = results.text(f"tables/{name}.md").rpartition("\n\n")[2]  # below the table in Markdown
            if row.of_images:
                caption = f"{caption} {results.note}".strip()
            tables[row.part].append(Table(name, row.title, printed, caption, file, folded=len(printed) > LONG))
    return tables


def figures_of(results: Results) -> dict[str, list[Figure]]:
    """Part of the report -> its figures that the study has; those of further networks come last."""
    figures = defaultdict(list)
    drawn = {file.stem for file in results.folder.glob("figures/[!.]*.png")}
    known = [name for name in registry.FIGURES if name in drawn]
    for name in [*known, *sorted(drawn.difference(known))]:
        row, picture = registry.figure(name), embedded(results.folder / "figures" / f"{name}.png")
        kinds = [kind for kind in ("pdf", "svg", "png") if results.has(f"figures/{name}.{kind}")]
        note = results.note if row.of_images else ""
        figures[row.part].append(Figure(name, row, note, *picture, kinds))
    return figures


def embedded(file: Path) -> tuple[str, int, int]:
    """A PNG in base64, with its width and height in pixels. Raises StudyError if it is damaged."""
    try:
        with Image.open(file) as picture:
            picture.verify()
    except (OSError, SyntaxError):  # what Pillow raises for a damaged PNG
        raise StudyError(f"{file} is cut off or damaged; copy it again, or delete it and run the study again") from None
    return base64.b64encode(file.read_bytes()).decode(), *picture.size


def training(results: Results) -> Table:
    """Training of each network so far."""
    rows = []
    for row in results.training.itertuples():
        rows.append({
            "network": results.models[row.model],
            "parameters": "" if pd.isna(row.parameters) else f"{row.parameters:,.0f}",
            "epochs": f"{row.epochs} of {results.study['settings']['epochs'] or row.epochs}",
            "best epoch": str(row.best_epoch),
            f"its validation {METRICS['f1']}": f"{row.best_val_f1:.4f}",
            "seconds": f"{row.seconds:,.1f}",
            "finished": "yes" if row.finished else "no",
        })  # fmt: skip
    return Table("training", "Training of each network", pd.DataFrame(rows), results.note)


def cell_times(results: Results) -> list[Table]:
    """Times of the cells of each notebook that was run."""
    tables = []
    for notebook in results.notebooks:
        if len(notebook.cells):
            rows = notebook.cells[["cell", "seconds", "status"]].astype({"cell": str})
            rows["seconds"] = ["" if pd.isna(seconds) else f"{seconds:.2f}" for seconds in rows["seconds"]]
            rows["first line"] = notebook.cells["line"].str.slice(0, 90)
            tables.append(Table(f"cells-{notebook.name}", f"Cells of {notebook.name}", rows, folded=True))
    return tables


def grid(results: Results) -> Table | None:
    """The jobs of a grid."""
    jobs = results.jobs
    if jobs.empty:
        return None
    rows = jobs.assign(job=jobs["step"].str.replace("_", " "))
    rows = rows[["job", "seed", "fold", "state", "seconds"]].map(registry.cell_text)
    return Table("jobs", f"{len(jobs)} jobs of the grid", rows, file="cells.csv", folded=True)


def settings(results: Results) -> Table:
    """Every setting with its meaning; of a path its last part, so that the page names no folder of this machine."""
    rows = []
    for name, value in results.study["settings"].items():
        if name in NO_RESULT:
            continue
        text = Path(value).name if name in PATHS and value else str(value)
        meaning = Study.model_fields[name].description if name in Study.model_fields else ""
        rows.append((name, text, meaning))
    table = pd.DataFrame(rows, columns=["setting", "value", "meaning"])
    return Table("settings", "Settings", table, file="study.json", folded=True)


def software(results: Results) -> Table:
    """Fingerprints of the study; code, packages and hardware as the record of each result has them."""
    study = results.study
    values = {
        "seed": study["settings"]["seed"],
        "fingerprint of the settings": study["fingerprint"],
        "fingerprint of the data": study["data"]["fingerprint"],
    }
    recorded: dict[str, dict[str, str]] = {}
    for result, made in results.provenance.items():
        code = {"lumbar_utils": made["lumbar_utils"], "commit": made["commit"]}
        for item, value in (code | made["environment"] | made["packages"]).items():
            recorded.setdefault(item, {})[result] = value
    values |= {item: records.one_or_each(by_result) for item, by_result in recorded.items()}
    rows = pd.DataFrame([(item, str(value)) for item, value in values.items()], columns=["what", "value"])
    return Table("software", "Code, hardware and fingerprints", rows, file="study.json")
