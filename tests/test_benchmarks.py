"""The benchmarks run; what they measure is nothing for a test."""

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from lumbar_utils.data.preparation import prepare
from lumbar_utils.networks.checkpoints import trained_weights
from lumbar_utils.networks.models import network_of
from lumbar_utils.study import Study

BENCHMARKS = Path(__file__).parent / "benchmarks"


def test_training_speed_runs(dataset, tmp_path):
    options = ["--models", "unet", "--rounds", "1", "--height", "64", "--width", "64", "--batch", "2"]
    options += ["--plain-workers", "0", "--device", "cpu"]
    command = [sys.executable, BENCHMARKS / "training_speed.py", dataset, tmp_path / "speed", *options]
    subprocess.run(command, check=True, timeout=300)
    table = pd.read_csv(tmp_path / "speed" / "training_speed.csv")
    assert list(table["contender"]) == ["ours", "limit", "plain_0"]
    assert (table["images_per_s"] > 0).all()


def gpu(out, *options):
    command = [sys.executable, BENCHMARKS / "gpu.py", "--out", out, "--models", "unet", *map(str, options)]
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=600, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    return result, pd.read_csv(out / "gpu.csv", keep_default_na=False) if (out / "gpu.csv").exists() else None


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU: run make gpu")
def test_the_gpu_command_runs_without_one_and_says_so(trained, tmp_path):
    shutil.copytree(trained[0][4].parent, tmp_path / "work")  # a finished smoke study, which it finds
    result, found = gpu(tmp_path / "out", "--minutes", 9, "--work", tmp_path / "work")
    assert result.returncode == 0, result.stdout + result.stderr
    page = (tmp_path / "out" / "gpu.md").read_text()
    assert "**No GPU took part.**" in page and "left out: no --dataset was given" in page
    value = found.set_index(["stage", "network", "quantity"])["value"]
    assert value["machine", "", "device"] == "cpu"
    assert value["exactness", "unet", "killed after its first epoch and gone on with: files that differ"] == "0"
    speeds = found[(found["stage"] == "speed") & (found["unit"] == "images/s")]
    assert {"ours", "limit", "plain_0", "plain_4"} < set(speeds["quantity"])
    assert value["study", "hrnet", "epochs"] == "2 of 2"
    (study,) = (tmp_path / "work" / "runs").iterdir()
    table = pd.read_csv(study / "tables" / "table2.csv")
    f1 = table[(table["model"] == "unet") & (table["metric"] == "f1")]["value"].item()
    assert float(value["study", "unet", "Table II, drawn images: f1"]) == round(f1, 4)
    weights = load_file(tmp_path / "out" / "unet_1_of_1.safetensors")
    best = trained_weights(study / "unet")
    assert all(torch.equal(weights[name], best[name].half()) for name in best if best[name].is_floating_point())
    files = list((tmp_path / "out").iterdir())
    assert len(files) <= 8 and all(file.stat().st_size <= 16 * 2**20 for file in files)


def test_the_gpu_command_gives_what_was_done_when_its_time_is_over(tmp_path):
    result, _ = gpu(tmp_path / "out", "--minutes", 0.4, "--work", tmp_path / "work")
    page = (tmp_path / "out" / "gpu.md").read_text()
    assert result.returncode == 0
    assert "CUT OFF after" in page and "exactness: not begun: 0 s were left" in result.stdout
    again, _ = gpu(tmp_path / "out", "--minutes", 0.4)
    assert again.returncode == 2 and "holds a former run; name another folder by --out" in again.stderr


def test_the_gpu_command_goes_on_after_a_stage_that_fails(tmp_path):
    (tmp_path / "data").mkdir()
    options = ["--stages", "real", "machine", "--dataset", tmp_path / "data", "--work", tmp_path / "work"]
    result, found = gpu(tmp_path / "out", "--minutes", 5, *options)
    page = (tmp_path / "out" / "gpu.md").read_text()
    assert result.returncode == 1
    assert "FAILED: stage_real: lumbar_utils" in page and "has no dataset.json" in page
    assert set(found["stage"]) == {"machine"}


def test_the_layer_that_gives_other_bits_is_named(tmp_path, cache, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import training_contenders
    from gpu import first_layer_unlike

    study = Study("smoke", runs=tmp_path, cache=cache, device="cpu")
    cohort = prepare(study)
    assert first_layer_unlike(study, cohort, "unet") == "none"
    steps = itertools.count()

    def unlike(study, model):
        network = network_of(study, model)
        network.down[1][3].register_forward_pre_hook(lambda layer, given: given[0] + next(steps) * 1e-6)
        return network

    monkeypatch.setattr(training_contenders, "network_of", unlike)
    assert first_layer_unlike(study, cohort, "unet") == "down.1.3 forward"


def test_the_page_of_a_gpu_begins_with_what_was_aimed_at(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from gpu_page import write_page

    rows = [
        ("machine", "", "device", "cuda", ""), ("machine", "", "GPU", "a card", ""),
        ("exactness", "unet", "killed after its first epoch and gone on with: files that differ", 0, ""),
        ("speed", "unet", "plain_0", 50, "images/s"), ("speed", "unet", "plain_0", 0.1, "of ours"),
        ("speed", "unet", "plain_4", 0.25, "of ours"), ("speed", "unet", "limit", 1.25, "of ours"),
        ("study", "", "the whole study, notebooks and all", 470.1, "s"),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["stage", "network", "quantity", "value", "unit"])
    table.to_csv(tmp_path / "gpu.csv", index=False)
    write_page(tmp_path, 10, {"speed": "done in 60 s"}, ["speed"])
    page = (tmp_path / "gpu.md").read_text()
    assert page.startswith("# The study on a card\n") and "No GPU" not in page
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]
    assert lines[2:6] == [
        ["U-Net", "times the faster plain loop", "3 or more", "4.00"],
        ["U-Net", "share of the limit", "0.90 or more", "0.80"],
        ["U-Net", "files that differ after a kill", "0", "0"],
        ["all", "the whole study", "480 s or less on an H100", "470.1 s"],
    ]
    assert ["unet", "plain_0", "50", "0.1", ""] in lines and "![speed](speed.png)" in page
