"""Inputs small enough to check by hand."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from typer.testing import CliRunner

from lumbar_utils.__main__ import app
from lumbar_utils.study import Study

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "spider_t2space"


# the modules that take longest: one process makes the study that many others share (`trained`), while the other one is
# busy with the grid; short modules at the end leave no process idle for long
LONGEST = (
    "test_notebooks", "test_grid", "test_benchmarks", "test_figures", "test_command_line", "test_lab", "test_recipes",
    "test_training", "test_grid_faults", "test_kills",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """The longest modules first, the others in their order."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.module.__name__, len(LONGEST)))


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """Phantoms and decoded images, drawn once for all tests of a process."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def study(tmp_path, cache) -> Study:
    """The smoke profile in folders of the test's own, on one machine-independent device."""
    return Study("smoke", runs=tmp_path / "runs", cache=cache, device="cpu")


def command_line(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "lumbar_utils", *map(str, arguments)], capture_output=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def in_process(*arguments):
    """What the command line does without starting Python once more: for commands that train nothing."""
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)


@pytest.fixture(scope="session")
def trained(tmp_path_factory, worker_id) -> tuple[list, subprocess.CompletedProcess]:
    """The five notebooks, run by papermill with the smoke profile: once, for all processes that share the tests.

    The command line's arguments, and what it said. What changes the study takes a copy: others read it too.
    """
    shared = tmp_path_factory.getbasetemp()
    shared = (shared if worker_id == "master" else shared.parent) / "trained"
    arguments = ["run", "--profile", "smoke", "--runs", shared / "runs", "--set", f"cache={shared / 'cache'}"]
    arguments += ["--set", "device=cpu"]
    with FileLock(f"{shared}.lock"):
        said = shared / "said.json"
        if not said.exists():
            result = command_line(*arguments)
            said.write_text(json.dumps([result.returncode, result.stdout, result.stderr]))
    return arguments, subprocess.CompletedProcess(arguments, *json.loads(said.read_text()))


@pytest.fixture
def one_job_left(trained, tmp_path) -> list[str]:
    """The command of a grid of one seed and one network, on a copy of `trained`: all but notebook 01 is finished."""
    arguments, _ = trained
    runs = shutil.copytree(arguments[4], tmp_path / "runs")
    (record,) = runs.glob("*/notebooks/01_data_exploration.json")
    record.unlink()
    record.with_suffix(".log").unlink()
    return [*map(str, arguments[:4]), str(runs), *arguments[5:], "--seeds", "0", "--models", "unet"]


def write_dataset(folder: Path, patients: int = 6, shape: tuple[int, int] = (64, 48), annotated=("L1", "L2")) -> Path:
    """A data set of one image a patient: two bright bodies, L1 above L2, and T12 above both."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    rows = []
    for patient in range(patients):
        mask = np.zeros(shape, np.uint8)
        mask[4:12, 10:30], mask[20:30, 10:30], mask[40:50, 10:30] = 12, 1, 2
        clouds = np.random.default_rng(patient).integers(0, 120, (16, 12), np.uint8)  # or all would be duplicates
        image = np.where(mask > 0, 200, cv2.resize(clouds, shape[::-1])).astype(np.uint8) + np.uint8(patient)
        cv2.imwrite(str(folder / "images" / f"case{patient}.png"), image)
        cv2.imwrite(str(folder / "masks" / f"case{patient}.png"), mask)
        rows.append((f"case{patient}", f"p{patient}", f"images/case{patient}.png", f"masks/case{patient}.png", 1.0))
    table = pd.DataFrame(rows, columns=["case", "patient", "image", "mask", "spacing_mm"])
    table.to_csv(folder / "cases.csv", index=False)
    labels = {"0": "background", "1": "L1", "2": "L2", "12": "T12"}
    description = {"name": "drawn by hand", "licence": "CC0 1.0", "labels": labels, "annotated_levels": list(annotated)}
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


@pytest.fixture
def dataset(tmp_path) -> Path:
    return write_dataset(tmp_path / "dataset")
