"""Training is exact: the same study ends with the same bits, undisturbed or not."""

import copy
import hashlib
import json
import os
import re
import shutil
import signal

import cv2
import kills
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import REAL
from torch import nn

from lumbar_utils import StudyError, records
from lumbar_utils.data.preparation import prepare
from lumbar_utils.networks import segmentation
from lumbar_utils.networks.checkpoints import read_checkpoint, trained_weights, write_checkpoint
from lumbar_utils.networks.dataset import classes_of
from lumbar_utils.networks.prediction import predict
from lumbar_utils.networks.segmentation import Segmentation, mean_f1
from lumbar_utils.networks.training import average, fit
from lumbar_utils.scores.evaluation import evaluate, read_probabilities
from lumbar_utils.study import Study


def digest(folder):
    """What a trained model amounts to: its weights and its label maps."""
    total = hashlib.sha256()
    for name, weights in sorted(read_checkpoint(folder / "checkpoints" / "final.ckpt")["state_dict"].items()):
        total.update(name.encode() + weights.numpy().tobytes())
    for file in sorted((folder / "label_maps").glob("*.png")):
        total.update(file.read_bytes())
    return total.hexdigest()


def train(study, model="unet"):
    cohort = prepare(study)
    history = fit(study, cohort, model)
    predict(study, cohort, model)
    return history


def test_the_same_study_gives_the_same_bits(tmp_path, cache):
    studies = [Study("smoke", runs=tmp_path / name, cache=cache, device="cpu") for name in "ab"]
    histories = [train(study, "efficientnet").drop(columns="seconds") for study in studies]  # it has drop-path
    assert histories[0].equals(histories[1])
    assert digest(studies[0].folder / "efficientnet") == digest(studies[1].folder / "efficientnet")


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker")  # more than this machine has cores
def test_however_many_processes_load_cases_the_bits_are_the_same(tmp_path, cache):
    digests = []
    for workers in (0, 1, 3):
        study = Study("smoke", runs=tmp_path / str(workers), cache=cache, device="cpu", workers=workers)
        train(study, "efficientnet")
        digests.append(digest(study.folder / "efficientnet"))
    assert digests[0] == digests[1] == digests[2]


def test_another_seed_gives_other_weights(tmp_path, cache):
    studies = [Study("smoke", runs=tmp_path, cache=cache, device="cpu", epochs=1, seed=seed) for seed in (0, 1)]
    for study in studies:
        train(study)
    assert digest(studies[0].folder / "unet") != digest(studies[1].folder / "unet")


def test_what_is_trained_is_not_trained_again(study, capsys):
    history = train(study)
    checkpoint = study.folder / "unet" / "checkpoints" / "final.ckpt"
    written = checkpoint.stat().st_mtime_ns
    assert train(study)["val_f1"].tolist() == pytest.approx(history["val_f1"].tolist())
    assert checkpoint.stat().st_mtime_ns == written
    assert "unet is trained already" in capsys.readouterr().out


def test_history_is_written_epoch_by_epoch_and_the_best_epoch_is_used(study, monkeypatch):
    scores = iter([0.5, 0.25])
    monkeypatch.setattr(segmentation, "mean_f1", lambda counts: next(scores))
    saved, write = {}, segmentation.write_checkpoint

    def keep(path, checkpoint):
        saved[path.name, checkpoint["epoch"]] = copy.deepcopy(checkpoint["state_dict"])
        write(path, checkpoint)

    monkeypatch.setattr(segmentation, "write_checkpoint", keep)
    history = train(study)
    assert history["epoch"].tolist() == [1, 2]
    on_disk = pd.read_csv(study.folder / "unet" / "history.csv")
    assert on_disk["val_f1"].tolist() == pytest.approx(history["val_f1"].tolist())
    checkpoints = study.folder / "unet" / "checkpoints"
    assert {file.name for file in checkpoints.iterdir()} == {"final.ckpt", "last.ckpt"}
    first, second = saved["last.ckpt", 0], saved["last.ckpt", 1]
    for layer, weights in read_checkpoint(checkpoints / "final.ckpt")["state_dict"].items():
        assert torch.equal(weights, first[f"network.{layer}"])
    assert not torch.equal(first["network.classify.weight"], second["network.classify.weight"])


def test_a_training_cut_off_after_its_last_epoch_ends_with_the_same_bits(study):
    train(study)
    whole, folder = digest(study.folder / "unet"), study.folder / "unet"
    for file in ("fit.json", "history.csv"):
        (folder / file).unlink()
    (folder / "checkpoints" / "final.ckpt").rename(folder / "checkpoints" / "best.ckpt")
    history = train(study)
    assert history["epoch"].tolist() == [1, 2] and digest(study.folder / "unet") == whole


def test_weights_that_an_earlier_version_wrote_are_read(study):
    train(study)
    final = study.folder / "unet" / "checkpoints" / "final.ckpt"
    now = trained_weights(study.folder / "unet")
    earlier = read_checkpoint(final)
    earlier["state_dict"] = {f"network.{layer}": values for layer, values in now.items()}
    write_checkpoint(final.with_name("best.ckpt"), earlier)
    final.unlink()
    before = trained_weights(study.folder / "unet")
    assert before.keys() == now.keys() and all(torch.equal(before[layer], now[layer]) for layer in now)


def test_an_average_of_weights_by_hand():
    trained = {"weight": torch.tensor([1.0, 3.0]), "batches": torch.tensor(7)}
    before = {"weight": torch.tensor([5.0, -1.0]), "batches": torch.tensor(2)}
    mean = average(trained, before, share=0.25)
    assert mean["weight"].tolist() == [2.0, 2.0] and mean["batches"] == 7
    assert torch.equal(average(trained, before, share=0)["weight"], trained["weight"])
    assert torch.equal(average(trained, before, share=1)["weight"], before["weight"])


def train_and_signal(study, signal_number, room=0):
    """Train, and send oneself a signal in the middle of the fourth epoch. room : bytes in a file, 0 for any number."""
    step = Segmentation.training_step

    def signalled(module, batch, index):
        if signal_number and (module.current_epoch, index) == (3, 1):
            os.kill(os.getpid(), signal_number)
        return step(module, batch, index)

    Segmentation.training_step = signalled
    if room:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    train(study)


def train_elsewhere(study, log, signal_number=0, room=0):
    """The same in a process of its own: its exit code, and what it said."""
    process = kills.start(train_and_signal, log, study, signal_number, room)
    process.join()
    return process.exitcode, log.read_text()


@pytest.mark.skipif(os.name != "posix", reason="these signals are of POSIX systems")
@pytest.mark.parametrize(
    "signal_name, settings",
    [("SIGINT", {}), ("SIGKILL", {"augmentation": "none", "accumulate": 2})],
)
def test_a_training_cut_off_and_started_again_ends_with_the_same_bits(tmp_path, cache, signal_name, settings):
    settings = settings | {"epochs": 5}
    whole = Study("smoke", runs=tmp_path / "whole", cache=cache, device="cpu", **settings)
    train(whole)
    cut = Study("smoke", runs=tmp_path / "cut", cache=cache, device="cpu", **settings)
    code, said = train_elsewhere(cut, tmp_path / "log", signal.Signals[signal_name])
    assert code != 0
    if signal_name == "SIGINT":
        assert "KeyboardInterrupt: unet was interrupted after epoch 3; run again to go on" in said
    assert len(pd.read_csv(cut.folder / "unet" / "history.csv")) == 3
    resumed = train(cut)
    assert resumed["epoch"].tolist() == [1, 2, 3, 4, 5]
    assert digest(cut.folder / "unet") == digest(whole.folder / "unet")


@pytest.mark.skipif(os.name != "posix", reason="limits on the size of a file are of POSIX systems")
def test_a_disk_that_fills_up_while_a_checkpoint_is_written_ends_with_one_clear_error(tmp_path, cache):
    study = Study("smoke", runs=tmp_path, cache=cache, device="cpu")
    prepare(study)
    code, said = train_elsewhere(study, tmp_path / "log", room=100_000)  # for tables, not for a checkpoint
    assert code == 1
    message = r"StudyError: could not write .*best.ckpt: File too large; make room .* and run again"
    assert re.search(message, said)
    assert not list((study.folder / "unet" / "checkpoints").iterdir())
    assert (study.folder / "split.csv").exists()
    assert len(train(study)) == 2


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off"], ids=["empty", "cut off"])
def test_a_broken_checkpoint_is_refused_with_its_remedy(study, content):
    checkpoint = study.folder / "unet" / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(content)
    with pytest.raises(StudyError, match=r"last.ckpt cannot be read .*; delete it to train again"):
        fit(study, prepare(study), "unet")


def test_a_trained_network_whose_checkpoint_is_half_a_copy_is_trained_again_to_the_same_bits(study):
    cohort = prepare(study)
    fit(study, cohort, "unet")
    final = study.folder / "unet" / "checkpoints" / "final.ckpt"
    whole = digest(study.folder / "unet")
    final.write_bytes(final.read_bytes()[:999])
    fit(study, cohort, "unet")
    assert digest(study.folder / "unet") == whole


def test_a_checkpoint_that_would_run_code_is_refused(study, tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "trapped"),))

    checkpoint = study.folder / "unet" / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    torch.save({"state_dict": Trap()}, checkpoint)
    with pytest.raises(StudyError, match="cannot be read"):
        fit(study, prepare(study), "unet")
    assert not (tmp_path / "trapped").exists()


def test_a_loss_that_is_not_a_number_names_the_cases(study):
    with pytest.raises(StudyError, match=r"unet: loss is nan at cases phantom_\d+, .*; lower learning_rate"):
        fit(study.model_copy(update={"learning_rate": 1e30, "epochs": 4}), prepare(study), "unet")


class Spoilt(nn.Module):
    """A network that answers nothing but NaN after so many passes."""

    def __init__(self, passes):
        super().__init__()
        self.layer, self.passes = nn.Conv2d(1, 7, 1), passes

    def forward(self, x):
        self.passes -= 1
        return self.layer(x) * (torch.nan if self.passes < 0 else 1)


@pytest.mark.parametrize("passes", [6, 8], ids=["in training", "in validation"])
def test_a_loss_that_is_not_a_number_keeps_the_checkpoints_before(study, passes):
    study = study.model_copy(update={"epochs": 4})  # an epoch is two steps and a validation
    last = study.folder / "unet" / "checkpoints" / "last.ckpt"
    module = Segmentation(Spoilt(passes), study, prepare(study), "unet", {"made_from": "here"})
    with pytest.raises(
        StudyError, match=r"loss is nan at cases .* in epoch 3; .*; the checkpoints of epoch 2 are kept"
    ):
        segmentation.train(module)
    kept = read_checkpoint(last)
    assert len(kept["history"]) == 2
    assert all(weights.isfinite().all() for weights in kept["state_dict"].values())


def test_checkpoints_of_another_study_are_refused(tmp_path, cache):
    ours, theirs = (
        Study("smoke", runs=tmp_path / str(seed), cache=cache, device="cpu", epochs=1, seed=seed) for seed in (0, 1)
    )
    for study in (ours, theirs):
        train(study)
    here, there = (study.folder / "unet" / "checkpoints" for study in (ours, theirs))
    names = rf"was made by {theirs.folder.name}/unet, not by .*{ours.folder.name}/unet"
    shutil.copy(there / "final.ckpt", here)
    (ours.folder / "unet" / "predict.json").unlink()
    with pytest.raises(StudyError, match=rf"final.ckpt {names} that fit.json records; put the right file back"):
        predict(ours, prepare(ours), "unet")
    shutil.copy(there / "last.ckpt", here)
    (ours.folder / "unet" / "fit.json").unlink()
    with pytest.raises(StudyError, match=rf"last.ckpt {names}; put it back there, or delete it to train anew"):
        fit(ours, prepare(ours), "unet")


def test_what_cannot_be_written_is_found_before_training(study):
    (study.folder / "unet").mkdir(parents=True)
    (study.folder / "unet" / "checkpoints").write_text("a file where a folder belongs")
    with pytest.raises(
        StudyError, match=r"cannot write into .*checkpoints: File exists; grant access, or name another"
    ):
        fit(study, prepare(study), "unet")
    assert not (study.folder / "unet" / "history.csv").exists()


@pytest.mark.skipif(os.name != "posix", reason="limits on the size of a file are of POSIX systems")
def test_a_disk_that_is_full_keeps_the_checkpoint_before(tmp_path):
    import resource

    path, before = tmp_path / "last.ckpt", resource.getrlimit(resource.RLIMIT_FSIZE)
    write_checkpoint(path, {"epoch": 1})
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(StudyError, match=r"could not write .*last.ckpt: File too large; make room"):
            write_checkpoint(path, {"epoch": 2, "weights": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert read_checkpoint(path) == {"epoch": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_predicting_with_an_untrained_model_is_refused(study):
    with pytest.raises(StudyError, match=r"unet is not trained .*; run its training notebook first"):
        predict(study, prepare(study), "unet")


def test_label_maps_lie_on_the_grid_of_their_images_with_what_average_precision_needs(dataset, tmp_path, cache):
    study = Study("smoke", dataset=str(dataset), runs=tmp_path / "runs", cache=cache, device="cpu", batch_size=2)
    cohort = prepare(study)
    assert classes_of(cohort.annotated) == [0, 1, 2]
    train(study)
    test = cohort.cases[cohort.cases["split"] == "test"]
    folder = study.folder / "unet" / "label_maps"
    assert sorted(path.stem for path in folder.glob("*.png")) == sorted(test["case"])
    label_map = cv2.imread(str(folder / f"{test['case'].iloc[0]}.png"), cv2.IMREAD_UNCHANGED)
    probabilities = read_probabilities(folder, test["case"].iloc[0])
    assert label_map.shape == (64, 48)
    assert probabilities.shape == (6, 64, 48)
    assert set(np.unique(label_map)) <= {0, 1, 2}  # levels that are not annotated are never predicted
    assert not probabilities[2:].any()
    sure = probabilities[:2].max(axis=0) > 0.51
    assert np.array_equal(label_map[sure], probabilities[:2].argmax(axis=0)[sure] + 1)


def test_changed_settings_of_the_data_make_a_trained_model_stale(dataset, tmp_path, cache):
    study = Study("smoke", dataset=str(dataset), runs=tmp_path / "runs", cache=cache, device="cpu", batch_size=2)
    train(study)
    record = study.folder / "unet" / "fit.json"
    before = record.read_text()
    image = cv2.imread(str(dataset / "images" / "case0.png"), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(dataset / "images" / "case0.png"), image + np.uint8(9))
    train(study)
    assert record.read_text() != before
    assert records.is_finished(record, json.loads(record.read_text())["made_from"])


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real slices are no part of the repository: {REAL.name} is absent")
def test_real_slices_go_all_the_way_and_s1_is_neither_predicted_nor_scored(tmp_path, cache):
    study = Study("smoke", dataset=str(REAL), runs=tmp_path, cache=cache, device="cpu", epochs=1, batch_size=32)
    cohort = prepare(study)
    assert cohort.cases.groupby("split")["patient"].nunique().to_dict() == {"test": 5, "train": 21, "validation": 4}
    fit(study, cohort, "unet")
    scores = evaluate(cohort, {"unet": predict(study, cohort, "unet")}).scores
    f1 = scores[scores["metric"] == "f1"]
    assert set(f1["level"]) == {"L1", "L2", "L3", "L4", "L5"}
    assert f1["value"].between(0, 1).all()
    maps = [
        cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in (study.folder / "unet" / "label_maps").glob("*.png")
    ]
    assert {label_map.shape for label_map in maps} <= {(640, 512), (620, 512)}
    assert max(label_map.max() for label_map in maps) <= 5


@pytest.mark.parametrize(
    "counts, expected",
    [
        pytest.param([[6, 0], [8, 0], [8, 0]], 0.75, id="second level in neither"),
        pytest.param([[6, 0], [8, 4], [8, 0]], 0.375, id="second level predicted where it is not"),
        pytest.param([[0, 0], [0, 0], [0, 0]], 0.0, id="no level at all"),
    ],
)
def test_a_level_that_no_validation_image_shows_has_no_part_in_f1(counts, expected):
    assert mean_f1(torch.tensor(counts)) == expected  # true positive, predicted, true
