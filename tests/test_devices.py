"""Where networks are trained, on machines with and without a GPU."""

import os
import subprocess
import sys

import pytest
import torch
from conftest import in_process

from lumbar_utils.devices import supports

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
