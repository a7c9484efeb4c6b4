"""The notebooks in JupyterLab as a reader opens them: run from the menu in a browser, the viewer's sliders moved."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import nbformat
import pytest

from lumbar_utils.study import ROOT

SCREENSHOTS = ROOT / "build" / "screenshots"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Chromium on the PATH; on Debian: apt install chromium"
)  # fmt: skip
PATIENCE = 240_000  # ms, for all cells of a notebook, on a busy machine
ERROR = '[data-mime-type="application/vnd.jupyter.stderr"]'
# no news and no cells put away while out of sight, which a browser's driver would wait for in vain
SETTINGS = {
    "labconfig/page_config.json": {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}},
    "lab/user-settings/@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {"windowingMode": "none"},
}


@pytest.fixture(scope="module")
def notebooks(trained, tmp_path_factory):
    """Copies of the notebooks whose parameters name the trained study."""
    folder, arguments = tmp_path_factory.mktemp("notebooks"), trained[0]
    runs = shutil.copytree(arguments[4], tmp_path_factory.mktemp("study") / "runs")
    overrides = {"cache": arguments[6].removeprefix("cache="), "device": "cpu"}
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
        cell.source += f"\nprofile, runs, overrides = 'smoke', {str(runs)!r}, {overrides!r}"
        nbformat.write(notebook, folder / path.name)
    return folder


@pytest.fixture(scope="module")
def lab(notebooks, tmp_path_factory):
    """Address of a JupyterLab with settings of its own, for one who knows its token."""
    home = tmp_path_factory.mktemp("jupyter")
    for name, content in SETTINGS.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(json.dumps(content))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"]
    command += ["--ServerApp.port_retries=0", "--IdentityProvider.token=test", f"--ServerApp.root_dir={notebooks}"]
    places = {f"JUPYTER_{name}_DIR": str(home / place) for name, place in (("CONFIG", ""), ("DATA", "data"))}
    python = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = os.environ | places | {"PYTHONPATH": python, "OMP_NUM_THREADS": "1"}
    with (home / "log").open("w") as log, subprocess.Popen(command, env=env, stdout=log, stderr=log) as server:
        wait_for(f"http://127.0.0.1:{port}/login")
        yield lambda name: f"http://127.0.0.1:{port}/lab/tree/{name}?token=test&reset"
        server.terminate()


def wait_for(address, seconds=60):
    until = time.monotonic() + seconds
    while True:
        try:
            return urllib.request.urlopen(address, timeout=5).close()
        except (urllib.error.URLError, ConnectionError):
            assert time.monotonic() < until, "JupyterLab did not start"
            time.sleep(0.2)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


def start_all(page, address):
    """Open a notebook and run all its cells from the menu."""
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.wait_for_selector("text=/Python 3 .* [|] Idle/")
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def run_all(page, address):
    """The same, until the last cell is done; seconds until the first picture."""
    start_all(page, address)
    started = time.monotonic()
    page.wait_for_selector(".jp-OutputArea-output img", state="attached")
    seconds = time.monotonic() - started
    prompts = "[...document.querySelectorAll('.jp-CodeCell .jp-InputArea-prompt')]"
    page.wait_for_function(f"() => {prompts}.every(prompt => /[0-9]/.test(prompt.innerText))")
    return seconds


def errors(page):
    """What JupyterLab shows in red: errors, and whatever else cells write to stderr."""
    return page.locator(ERROR).all_inner_texts()


class Seen:
    """The viewer of a page: its words, its picture, and whether moving something changes the picture."""

    def __init__(self, page):
        self.page, self.box = page, page.locator(".jp-OutputArea-output .widget-vbox")
        self.box.scroll_into_view_if_needed()

    @property
    def words(self):
        return self.box.locator("img").get_attribute("alt")

    def changes(self, move):
        """Whether the picture is another after a move; waits for it."""
        before = self.box.locator("img").get_attribute("src")
        move()
        self.page.wait_for_function(
            "before => ![...document.querySelectorAll('.widget-vbox img')].some(i => i.src == before)", arg=before
        )
        return self.box.locator("img").get_attribute("src") != before

    def slide(self, number, key):
        self.box.locator("[role=slider]").nth(number).focus()
        self.page.keyboard.press(key)

    def choose(self, label, option):
        self.box.locator(f".widget-dropdown:has-text('{label}') select").select_option(option)


def screenshot(page, name):
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / name)


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    yield page
    page.close()


def test_the_first_notebook_shows_its_first_picture_soon_and_its_viewer_follows(page, lab):
    seconds = run_all(page, lab("01_data_exploration.ipynb"))
    assert errors(page) == []
    print(f"first picture after {seconds:.1f} s")
    viewer = Seen(page)
    screenshot(page, "01_viewer.png")
    assert re.fullmatch(r"phantom_\d+, 1 of 14: reference", viewer.words)
    assert viewer.changes(lambda: viewer.slide(0, "ArrowRight")) and ", 2 of 14: " in viewer.words
    assert viewer.changes(lambda: viewer.choose("level", "L3"))
    assert viewer.changes(lambda: viewer.slide(1, "ArrowLeft"))
    screenshot(page, "01_viewer_moved.png")
    page.locator("summary").first.click()
    page.locator("summary").first.scroll_into_view_if_needed()
    screenshot(page, "01_settings.png")


def test_the_comparison_starts_with_the_worst_case_and_follows(page, lab):
    run_all(page, lab("05_evaluate_and_compare.ipynb"))
    assert errors(page) == []
    viewer = Seen(page)
    screenshot(page, "05_viewer.png")
    first = viewer.words
    assert re.search(r", 1 of 2; F1, mean of its levels: reference, U-Net 0\.\d{3}, HRNet 0", first)
    assert viewer.changes(lambda: viewer.choose("level", "L3")) and "F1, L3" in viewer.words
    assert viewer.changes(lambda: viewer.choose("level", "all"))
    assert viewer.changes(lambda: viewer.slide(0, "ArrowRight")) and ", 2 of 2" in viewer.words
    assert viewer.changes(lambda: viewer.slide(1, "ArrowLeft"))
    assert viewer.changes(lambda: viewer.choose("order", "as they come")) and ", 1 of 2" in viewer.words
    screenshot(page, "05_viewer_moved.png")


def test_a_wrong_setting_ends_in_one_line_below_its_cell(page, lab, notebooks):
    notebook = nbformat.read(notebooks / "01_data_exploration.ipynb", as_version=4)
    notebook.cells = notebook.cells[:4]
    notebook.cells[2].source += "\noverrides = {'epoch': 3}"
    nbformat.write(notebook, notebooks / "wrong.ipynb")
    start_all(page, lab("wrong.ipynb"))
    page.wait_for_selector(ERROR)
    assert errors(page) == ["StudyError: unknown setting 'epoch'; did you mean 'epochs'?"]
    screenshot(page, "wrong_setting.png")


def test_the_copy_that_a_run_leaves_opens_with_pictures_and_without_errors(page, lab, trained, notebooks):
    (executed,) = trained[0][4].glob("*/notebooks/05_*.ipynb")
    shutil.copy(executed, notebooks / "executed.ipynb")
    page.set_default_timeout(PATIENCE)
    page.goto(lab("executed.ipynb"))
    picture = page.locator(".jp-CodeCell:has-text('Viewer(cohort') .jp-OutputArea-output img")
    picture.scroll_into_view_if_needed()
    screenshot(page, "executed.png")
    assert picture.evaluate("picture => picture.naturalWidth") == 572
    assert page.get_by_text("Error displaying widget").count() == 0
