"""Links between the pages that a reader follows lead somewhere."""

import re
import shlex
import shutil
import subprocess

import pytest
from conftest import write_dataset
from typer.testing import CliRunner

from lumbar_utils.__main__ import app
from lumbar_utils.study import ROOT

PAGES = ["README.md", "data/README.md", "figures/README.md", "tests/benchmarks/README.md"]
PAGES += sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))


def anchors(text):
    """Headings of a page as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings_that_are_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match("https?:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


def test_every_page_is_found_from_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [page for page in PAGES if page.startswith("docs/") and f"]({page}" not in text] == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_readme_s_commands_on_a_folder_are_accepted(tmp_path):
    folder = write_dataset(tmp_path / "mine")
    commands = re.findall(
        r"^make (study DATASET=path/to/.*?)(?:  +#|$)", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    assert len(commands) == 4
    for command in commands:
        words = [re.sub(r"path/to/\w+", str(folder), word) for word in shlex.split(command)]
        printed = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        (asked,) = re.findall(r" -m lumbar_utils (run .*)", printed)
        result = CliRunner().invoke(app, [*shlex.split(asked), "--runs", str(tmp_path / "runs"), "--dry-run"])
        assert result.exit_code == 0, result.output
