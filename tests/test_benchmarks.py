"""The benchmarks run; what they measure is nothing for a test."""

import subprocess
import sys
from pathlib import Path

import pandas as pd

BENCHMARKS = Path(__file__).parent / "benchmarks"


def test_training_speed_runs(dataset, tmp_path):
    options = ["--models", "unet", "--rounds", "1", "--height", "64", "--width", "64", "--batch", "2"]
    options += ["--plain-workers", "0", "--device", "cpu"]
    command = [sys.executable, BENCHMARKS / "training_speed.py", dataset, tmp_path / "speed", *options]
    subprocess.run(command, check=True, timeout=300)
    table = pd.read_csv(tmp_path / "speed" / "training_speed.csv")
    assert list(table["contender"]) == ["ours", "limit", "plain_0"]
    assert (table["images_per_s"] > 0).all()
