"""Steps taken in parts, by one process after the other or by several at once, are the steps of one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import shared_steps
import torch
from torch import nn
from typer.testing import CliRunner

from lumbar_utils import StudyError
from lumbar_utils.__main__ import app
from lumbar_utils.data.preparation import prepare
from lumbar_utils.networks.checkpoints import read_checkpoint
from lumbar_utils.networks.prediction import predict, write_label_maps
from lumbar_utils.networks.segmentation import Segmentation, train
from lumbar_utils.networks.training import fit
from lumbar_utils.output.tables import table2
from lumbar_utils.scores.evaluation import evaluate, label_maps
from lumbar_utils.scores.summary import summarise
from lumbar_utils.study import Study

SETTINGS = {"device": "cpu", "precision": "32", "epochs": 2, "learning_rate": 3e-3}


@pytest.fixture(scope="module")
def alone(tmp_path_factory, cache):
    """History and weights of a network without batch statistics, trained by one process in whole steps."""
    return shared_steps.trained(Study("smoke", runs=tmp_path_factory.mktemp("alone"), cache=cache, **SETTINGS))


def assert_same(alone, history, weights):
    for one, other in zip(alone[0], history, strict=True):
        for name in ("train_loss", "val_loss", "val_f1"):
            assert other[name] == pytest.approx(one[name], rel=1e-5, abs=1e-5), name
        assert other["learning_rate"] == one["learning_rate"]
    torch.testing.assert_close(weights, alone[1], rtol=1e-3, atol=1e-5)


def test_accumulated_parts_of_a_step_give_the_cross_entropy_and_the_weights_of_the_whole(alone, tmp_path, cache):
    study = Study("smoke", runs=tmp_path, cache=cache, **SETTINGS, accumulate=4)
    history, weights, _ = shared_steps.trained(study)
    assert_same(alone, history, weights)


def test_two_processes_give_the_cross_entropy_and_the_weights_of_one(alone, tmp_path, cache):
    script = Path(shared_steps.__file__)
    done = subprocess.run(
        [sys.executable, script, tmp_path, cache, json.dumps(SETTINGS | {"devices": 2})],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert torch.equal(ranks[0][1], ranks[1][1])
    assert_same(alone, *ranks[0])
    (folder,) = tmp_path.glob("phantom-smoke-*")
    written = pd.read_csv(folder / "unet" / "history.csv")
    assert written["train_loss"].tolist() == pytest.approx([epoch["train_loss"] for epoch in ranks[0][0]])
    assert len(read_checkpoint(folder / "unet" / "checkpoints" / "last.ckpt")["history"]) == 2


def test_a_step_that_cannot_be_shared_evenly_is_refused():
    with pytest.raises(
        StudyError, match="batch_size=4 must be a multiple of accumulate=3 x devices=1 x nodes=1; change"
    ):
        Study("smoke", accumulate=3)


def test_more_devices_than_there_are_end_with_their_settings_named(study):
    study = Study(**study.settings | {"device": "cuda", "devices": 2})
    if torch.cuda.device_count() >= 2:
        pytest.skip("there are two")
    with pytest.raises(StudyError, match=r"devices=2, nodes=1 cannot train here: .* train|device=cuda cannot be used"):
        shared_steps.trained(study)


class Full(nn.Module):
    """A network whose device has room for two epochs and no more."""

    def __init__(self, passes):
        super().__init__()
        self.layer, self.passes = nn.Conv2d(1, 7, 1), passes

    def forward(self, x):
        self.passes -= 1
        if self.passes < 0:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.layer(x)


NAMED = (
    r"out of memory on cpu while {} with batch_size=4, accumulate=1, height=64, width=64: raise accumulate .*, or lower"
)


def test_training_out_of_memory_names_the_settings_and_keeps_the_last_epoch(study):
    cohort = prepare(study)
    best = study.folder / "unet" / "checkpoints" / "best.ckpt"
    module = Segmentation(
        Full(passes=3), study, cohort, "unet", {"made_from": "here"}
    )  # an epoch: two steps and a validation
    with pytest.raises(StudyError, match=NAMED.format("training unet")):
        train(module)
    assert len(read_checkpoint(best.with_name("last.ckpt"))["history"]) == 1


def test_predicting_out_of_memory_names_the_settings(study, tmp_path):
    with pytest.raises(StudyError, match=NAMED.format("predicting")):
        write_label_maps(study, prepare(study), Full(passes=0), list(range(7)), tmp_path)


def test_what_is_trained_on_the_command_line_is_found_trained(tmp_path, cache):
    arguments = ["train", "--profile", "smoke", "--runs", str(tmp_path), "--model", "unet", "--model", "hrnet"]
    arguments += ["--set", f"cache={cache}", "--set", "device=cpu", "--set", "epochs=1", "--set", "accumulate=2"]
    first = CliRunner().invoke(app, arguments)
    assert first.exit_code == 0, first.output
    (folder,) = tmp_path.iterdir()
    assert first.stdout.splitlines()[-2:] == [str(folder / "unet"), str(folder / "hrnet")]
    again = CliRunner().invoke(app, arguments)
    assert [line for line in again.stdout.splitlines() if "trained already" in line] == [
        f"{model} is trained already: {folder / model}" for model in ("unet", "hrnet")
    ]


def test_a_further_network_is_trained_predicts_and_stands_in_the_comparison(tmp_path, cache):
    study = Study("smoke", runs=tmp_path, cache=cache, device="cpu", epochs=1)
    cohort = prepare(study)
    for model in ("unet", "tu-resnet18"):
        fit(study, cohort, model)
        predict(study, cohort, model)
    table = table2(summarise(evaluate(cohort, label_maps(study, cohort, ["unet"]))))
    assert table["model"].unique().tolist() == ["unet", "tu-resnet18"]
    assert table.loc[table["model"] == "tu-resnet18", "paper"].isna().all()
    applied = CliRunner().invoke(app, ["predict", str(study.folder), "tu-resnet18", "phantom", str(tmp_path / "new")])
    assert applied.exit_code == 0, applied.output
    assert (tmp_path / "new" / "predict.json").exists()
