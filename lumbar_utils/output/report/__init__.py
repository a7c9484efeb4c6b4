"""One page a study and the record that reviewers ask for, made from nothing but the study's folder.

Nothing in them tells of the moment they were made, so the same folder gives the same bytes.
"""

from pathlib import Path

from lumbar_utils import records
from lumbar_utils.output.report.results import read


def write(folder: Path) -> Path:
    """Write report.html and record/ into a study's folder, finished or not; returns the page.

    Raises StudyError where the folder is none of a study.
    """
    results = read(folder)
    from lumbar_utils.output.report.page import render
    from lumbar_utils.output.report.record import documents

    papers = documents(results)
    for name, text in papers.items():
        records.write_text(folder / "record" / name, text)
    page = folder / "report.html"
    records.write_text(page, render(results, list(papers)))
    return page
