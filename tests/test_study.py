"""Settings are checked when they are made."""

import re
import shutil
from pathlib import Path

import pytest
from conftest import write_dataset

from lumbar_utils import StudyError
from lumbar_utils.study import PROFILES, ROOT, Study, kind_and_path


def test_a_profile_fills_in_what_is_not_named():
    study = Study("quick", epochs=3)
    assert (study.epochs, study.batch_size) == (3, PROFILES["quick"]["batch_size"])


def test_the_paper_profile_has_the_paper_s_images_and_full_size_networks():
    study = Study("paper")
    assert (study.phantom_patients, study.height, study.width) == (514, 320, 320)
    assert (study.unet_channels, study.hrnet, study.efficientnet) == (64, "hrnet_w18", "efficientnet-b0")


def test_without_a_gpu_the_default_profile_is_quick():
    torch = pytest.importorskip("torch")
    assert Study().profile == ("paper" if torch.accelerator.is_available() else "quick")


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"epoch": 3}, "unknown setting 'epoch'; did you mean 'epochs'"),
        ({"epochs": -1}, "setting epochs=-1 is refused"),
        ({"epochs": "many"}, "setting epochs='many' is refused"),
        ({"height": 100}, "setting height=100 is refused: Input should be a multiple of 32"),
        ({"profile": "quik"}, "profile='quik' is refused: Input should be 'smoke', 'quick', 'patients' or 'paper'"),
        ({"train_fraction": 0.9, "test_fraction": 0.1}, "must stay below 1"),
        ({"folds": 1}, "folds=1 leaves nobody to train on; use 0 for one split, or 2 and more"),
        ({"folds": 3, "fold": 3}, "fold=3 does not exist among folds=3; they count from 0"),
        ({"zzz": 1}, "unknown setting 'zzz'; known are: profile"),
    ],
)
def test_an_unknown_name_or_a_wrong_value_is_refused_by_name(settings, message):
    with pytest.raises(StudyError, match=message):
        Study(**{"profile": "smoke"} | settings)


def test_a_study_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Study("smoke").epochs = 9


def test_studies_that_differ_in_any_result_have_folders_of_their_own():
    studies = [Study("smoke"), Study("smoke", seed=1), Study("smoke", epochs=3), Study("smoke", dataset="a/x")]
    assert len({study.folder for study in studies}) == len(studies)


def test_data_sets_under_one_name_are_told_apart_by_their_tables_and_not_by_their_place(tmp_path):
    one, other = (write_dataset(tmp_path / place / "data", patients) for place, patients in (("a", 6), ("b", 7)))
    moved = shutil.copytree(one, tmp_path / "c" / "data")
    assert Study("smoke", dataset=str(one)).folder == Study("smoke", dataset=str(moved)).folder
    assert Study("smoke", dataset=str(one)).folder != Study("smoke", dataset=str(other)).folder


def test_no_place_on_this_machine_is_in_a_fingerprint_nor_in_the_settings_of_a_project(tmp_path):
    study = Study("smoke", dataset="data/mine", start_from="data/runs/first", cache=tmp_path)
    assert (study.settings["dataset"], study.settings["start_from"]) == ("data/mine", "data/runs/first")
    assert study.settings["cache"] == str(tmp_path)
    assert Study(**study.settings) == study
    elsewhere = Study("smoke", dataset=str(tmp_path / "mine"), start_from=tmp_path / "first")
    assert elsewhere.fingerprint == study.fingerprint


def test_what_cannot_change_a_result_does_not_change_the_folder_s_name():
    assert Study("smoke", workers=3, device="cpu").folder == Study("smoke").folder


def test_relative_folders_start_at_the_project_wherever_a_notebook_runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert Study("smoke").runs == ROOT / "data" / "runs"
    assert Path(Study("smoke", dataset="data/raw/mine").dataset) == ROOT / "data" / "raw" / "mine"


def test_a_notebook_shows_the_main_settings_and_those_not_of_the_profile_and_unfolds_them_all():
    short, rest = Study("smoke", seed=3, folds=4)._repr_html_().split("<details>")

    def named(html):
        return re.findall(r'class="data row\d+ col0" *>(\w+)', html)

    assert named(short) == ["profile", "dataset", "seed", "folds", "height", "width", "epochs"]
    assert named(rest) == list(Study.model_fields) and "hrnet_w18_small" in rest
    assert "<script" not in short + rest


def test_a_setting_is_shown_as_text_and_not_as_html():
    assert "&lt;b&gt;" in Study("smoke", dataset="<b>")._repr_html_()


@pytest.mark.parametrize(
    "dataset, expected",
    [
        ("phantom", ("phantom", None)),
        ("spider", ("spider", None)),
        ("nifti:/scans", ("nifti", Path("/scans"))),
        ("folder:/my_data", ("folder", Path("/my_data"))),
        ("my_data", ("folder", Path("/here/my_data"))),
        ("a:b", ("folder", Path("/here/a:b"))),
    ],
)
def test_a_data_set_is_named_by_its_kind_its_path_or_both(dataset, expected):
    assert kind_and_path(dataset, start=Path("/here")) == expected


def test_a_setting_that_was_dropped_may_stand_in_an_old_record_with_the_value_that_is_built_in():
    assert Study("smoke", loss="dice_ce", ema=0.0, test_time_augmentation=False) == Study("smoke")
    with pytest.raises(StudyError, match=r"setting ema=0.9 is refused: 0 is built in, .*; leave it out"):
        Study("smoke", ema=0.9)
