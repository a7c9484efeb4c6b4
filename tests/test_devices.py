"""Machines with and without a GPU, of a cluster, in another language, or without the project's clone."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import in_process

from lumbar_utils.machine import supports
from lumbar_utils.study import ROOT

TORCH = ("sm_75", "sm_80", "sm_90a", "compute_90")  # what a torch may be built for


@pytest.mark.parametrize(
    "capability, built, expected",
    [
        pytest.param((8, 0), TORCH, True, id="built for it"),
        pytest.param((8, 6), TORCH, True, id="a later minor version"),
        pytest.param((6, 1), TORCH, False, id="too old"),
        pytest.param((7, 0), TORCH, False, id="an earlier minor version"),
        pytest.param((12, 0), TORCH, True, id="newer, compiled when it starts"),
        pytest.param((12, 0), TORCH[:2], False, id="newer, and nothing to compile"),
        pytest.param((6, 1), (), True, id="torch does not say"),
    ],
)
def test_a_card_is_used_if_torch_is_built_for_it(capability, built, expected):
    assert supports(capability, built) is expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("more", [[], ["--seeds", 0]], ids=["study", "grid"])
def test_a_gpu_that_is_not_here_is_refused_before_anything_runs(tmp_path, more):
    result = in_process("run", "--profile", "smoke", "--runs", tmp_path, "--set", "device=cuda", *more)
    assert result.returncode == 2 and not list(tmp_path.iterdir())
    assert "StudyError: device=cuda cannot be used: torch finds no GPU; use device=cpu, or auto" in result.stderr


def test_a_single_device_trains_on_a_node_of_slurm_with_several_tasks(dataset, tmp_path):
    slurm = {"JOB_ID": 7, "JOB_NAME": "jupyterhub", "NTASKS": 4, "PROCID": 0, "LOCALID": 0, "NODEID": 0}
    command = [
        sys.executable,
        "-m",
        "lumbar_utils",
        "train",
        "--profile",
        "smoke",
        "--dataset",
        dataset,
        "--model",
        "unet",
    ]
    command += ["--runs", tmp_path / "runs", "--set", f"cache={tmp_path / 'cache'}", "--set", "epochs=1"]
    command += ["--set", "device=cpu"]
    env = os.environ | {f"SLURM_{name}": str(value) for name, value in slurm.items()}
    result = subprocess.run(command, capture_output=True, text=True, env=env)
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "runs").glob("*/unet/fit.json"))) == 1


def test_files_are_utf_8_whatever_the_locale_says(dataset, tmp_path):
    path = dataset / "dataset.json"
    path.write_text(path.read_text(encoding="utf-8").replace("drawn by hand", "Städtische Klinik 中"), encoding="utf-8")
    script = "import sys; from pathlib import Path; from lumbar_utils.data import folder; "
    script += "print(ascii(folder.read(Path(sys.argv[1])).name))"
    env = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    result = subprocess.run([sys.executable, "-c", script, dataset], capture_output=True, text=True, env=env)
    assert result.stdout.strip() == ascii("Städtische Klinik 中"), result.stderr


def test_a_package_without_its_clone_names_the_way(tmp_path):
    shutil.copytree(ROOT / "lumbar_utils", tmp_path / "lumbar_utils", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "lumbar_utils", "run", "--profile", "smoke"]
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    result = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)
    assert result.returncode == 2
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("StudyError: ")
    assert f"lumbar_utils is installed in {tmp_path} without its notebooks; clone the project and install that" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lumbar_utils"]
