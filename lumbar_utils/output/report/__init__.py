"""The report of a study: the page report.html, and the documents in record/, made from the study's folder alone.

They hold no time of their making, so that the same folder gives the same bytes.
"""

from pathlib import Path

from lumbar_utils import records
from lumbar_utils.output.report.results import read


def write(folder: Path) -> Path:
    """Write report.html and record/ into a study's folder, finished or not; returns the page.

    Raises StudyError for a folder without a study.
    """
    from lumbar_utils.output.report import page, record

    results = read(folder)
    documents = record.documents(results)
    for name, text in documents.items():
        records.write_text(folder / "record" / name, text)
    records.write_text(folder / "report.html", page.render(results, list(documents)))
    return folder / "report.html"
