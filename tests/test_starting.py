"""What networks know before they are trained: nothing, phantoms, or what another study taught them."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import in_process, write_dataset

from lumbar_utils import LEVELS, StudyError, records
from lumbar_utils.application import predict_source
from lumbar_utils.data.preparation import prepare
from lumbar_utils.execution import parameters, start
from lumbar_utils.networks.checkpoints import trained_weights
from lumbar_utils.networks.prediction import predict
from lumbar_utils.networks.training import fit
from lumbar_utils.scores.evaluation import read_label_map
from lumbar_utils.study import PRETRAINED, PROFILES, Grid, Study

QUICK_NETWORKS = {name: PROFILES["quick"][name] for name in ("unet_channels", "hrnet", "efficientnet")}


@pytest.fixture
def patients(study, tmp_path) -> Study:
    """Images that are no phantoms, on networks that saw phantoms first."""
    dataset = str(write_dataset(tmp_path / "patients"))
    return Study(**study.settings | {"dataset": dataset, "start_from": "phantoms", "epochs": 1, "learning_rate": 1e-9})


def trained(study: Study, model: str = "unet") -> dict[str, torch.Tensor]:
    fit(study, prepare(study), model)
    return trained_weights(study.folder / model)


def test_images_of_patients_start_from_the_networks_that_come_with_the_project(tmp_path):
    folder = str(write_dataset(tmp_path / "mine"))
    study = Study("quick", dataset=folder)
    assert study.start_from == "pretrained" and study.start == PRETRAINED
    assert study == Study("quick", dataset=folder, start_from=PRETRAINED)
    assert Study("quick", dataset=folder, start_from="none").start is None
    assert Study("quick").start_from == Study("smoke", dataset=folder).start_from == "none"
    starts = ("none", "phantoms", "pretrained", folder)
    studies = [Study("quick", dataset=folder, start_from=start) for start in starts]
    assert [study.learning_rate for study in studies] == [4e-3, 1e-3, 1e-3, 1e-3]
    assert [study.start_share for study in studies] == [0, 0, 0.5, 0]
    for synthetic in ("phantoms", "pretrained"):
        with pytest.raises(StudyError, match=f"start_from={synthetic} is for images of patients"):
            Study("quick", start_from=synthetic)
    with pytest.raises(StudyError, match="epochs=0 tests trained networks as they are; name them as start_from"):
        Study("quick", epochs=0)


@pytest.mark.parametrize("others", [{"unet_channels": 32}, {"hrnet": "hrnet_w18"}, {"profile": "paper"}])
def test_networks_other_than_those_that_come_with_the_project_start_from_phantoms(tmp_path, others):
    settings = {"profile": "patients", "dataset": str(write_dataset(tmp_path / "mine"))} | others
    study = Study(**settings)
    assert study.start_from == "phantoms" and study.start == study.phantoms.folder
    assert Study(**settings | {"height": 256, "learning_rate": 1e-2}).start_from == "phantoms"


def test_patients_of_quick_and_longer_trainings_share_their_phantoms(tmp_path):
    folder = str(write_dataset(tmp_path / "mine"))
    assert Study("patients", dataset=folder).phantoms == Study("quick", phantom_contrast="any", epochs=18)


@pytest.mark.parametrize(
    ("patient", "start"), [("spider_110", "phantoms"), ("spider_185", "phantoms"), ("spider_209", "pretrained")]
)
def test_patients_known_to_the_networks_that_come_with_the_project_start_from_phantoms(tmp_path, patient, start):
    folder = renamed(write_dataset(tmp_path / "mine"), patient)
    study = Study("quick", dataset=str(folder))
    assert study.start_from == start  # 110 was trained on, 185 chose the epoch, 209 was tested on
    other = Study("quick", dataset=str(write_dataset(tmp_path / "other")))
    if start == "pretrained":
        assert other.tested_on(study.dataset).start == other.folder
        return
    with pytest.raises(StudyError, match=r"were trained on patients of .*mine; to test on them start from phantoms"):
        other.tested_on(study.dataset)


@pytest.mark.parametrize(
    "settings",
    [
        {}, {"start_from": "none"}, {"start_share": 0}, {"learning_rate": 4e-3}, {"start_from": "phantoms"},
        {"unet_channels": 32}, {"unet_channels": 32, "start_from": "pretrained"}, {"profile": "paper"}, {"epochs": 0},
    ],
)  # fmt: skip
def test_a_notebook_gets_the_study_that_was_asked_for(tmp_path, settings):
    folder = str(write_dataset(tmp_path / "mine"))
    study = Study(**{"profile": "quick", "dataset": folder} | settings)
    assert start(**parameters(study)) == study
    if study.epochs:
        grid = Grid(study, (0, 1))
        assert start(**parameters(grid)) == grid


def test_a_notebook_gets_the_study_that_tests_on_other_data(tmp_path):
    study = Study("quick").tested_on(str(write_dataset(tmp_path / "mine")))
    assert start(**parameters(study)) == study and study.start == Study("quick").folder


def test_settings_that_contradict_what_training_starts_from_are_refused(tmp_path):
    folder = str(write_dataset(tmp_path / "mine"))
    with pytest.raises(StudyError, match=r"start_share=0\.5 has no effect with start_from=none; leave it out"):
        Study("quick", start_share=0.5)
    with pytest.raises(StudyError, match="epochs=0 tests the same networks on all patients; leave folds at 0"):
        Study("quick", dataset=folder, epochs=0, folds=5)
    with pytest.raises(StudyError, match="epochs=0 tests the same networks under every seed; give one seed"):
        Grid(Study("quick", dataset=folder, epochs=0), (0, 1))
    with pytest.raises(StudyError, match="start_from='' is refused"):
        Study("quick", dataset=folder, start_from="")
    assert Study("quick", dataset=folder, unet_channels="16").start_from == "pretrained"  # as the command line gives it


def test_networks_tested_as_they_are_keep_the_record_of_where_they_were_trained(patients):
    trained(patients)
    tested = Study(**patients.settings | {"start_from": patients.folder, "epochs": 0, "dataset": "phantom"})
    trained(tested)
    here, there = (records.read_json(study.folder / "unet" / "fit.json") for study in (patients, tested))
    assert here["provenance"] == there["provenance"]


def test_volumes_of_spider_start_from_phantoms(tmp_path):
    assert Study("quick", dataset=f"spider:{tmp_path}").start_from == "phantoms"
    assert Study("quick", dataset=f"nifti:{tmp_path}").start_from == "pretrained"


def renamed(folder: Path, patient: str) -> Path:
    """The same data set, its first patient under another name, its table as a spreadsheet writes it."""
    cases = pd.read_csv(folder / "cases.csv", dtype=str)
    cases["patient"] = cases["patient"].replace("p0", patient)
    cases.to_csv(folder / "cases.csv", index=False, sep=";")
    return folder


def test_training_goes_on_from_the_weights_that_phantoms_left(patients):
    after, before = trained(patients), trained_weights(patients.phantoms.folder / "unet")
    torch.testing.assert_close(after["classify.weight"], before["classify.weight"], atol=1e-6, rtol=0)
    at_random = trained(Study(**patients.settings | {"start_from": "none"}))
    moved = (at_random["classify.weight"] - before["classify.weight"]).abs()
    assert moved.max() > 1e-4  # a step of training on phantoms moves it further


def test_the_weights_before_and_after_training_are_averaged(patients):
    settings = patients.settings | {"learning_rate": 1e-2}
    layer = "classify.weight"
    before = trained(Study(**settings | {"start_share": 1}))[layer]
    assert torch.equal(before, trained_weights(patients.phantoms.folder / "unet")[layer])
    after = trained(Study(**settings | {"start_share": 0}))[layer]
    mean = trained(Study(**settings | {"start_share": 0.3}))[layer]
    assert (after - before).abs().max() > 1e-3
    torch.testing.assert_close(mean, 0.3 * before + 0.7 * after)


def test_phantoms_are_trained_on_once_for_all_studies(patients):
    trained(patients)
    record = patients.phantoms.folder / "unet" / "fit.json"
    before = record.stat().st_mtime_ns
    trained(Study(**patients.settings | {"seed": 1}))
    assert record.stat().st_mtime_ns == before


def test_a_network_that_saw_phantoms_first_predicts_levels_that_its_data_do_not_annotate(patients, tmp_path):
    trained(patients)
    assert records.read_json(patients.folder / "study.json")["data"]["annotated"] == ["L1", "L2"]
    out = predict_source(patients.folder, "unet", "phantom", tmp_path / "out")
    assert records.read_json(out / "predict.json")["levels"] == list(LEVELS)


def test_networks_are_tested_as_they_are_on_every_patient_of_another_data_set(study, patients, capsys):
    before = trained(study)
    tested = study.tested_on(patients.dataset)
    cohort = prepare(tested)
    after = trained(tested)
    assert all(torch.equal(after[name], weights) for name, weights in before.items())
    assert set(cohort.cases["split"]) == {"test"} and len(cohort.cases) == 6
    assert len(list(predict(tested, cohort, "unet").glob("*.png"))) == 6
    assert records.read_csv(tested.folder / "unet" / "history.csv").equals(
        records.read_csv(study.folder / "unet" / "history.csv")
    )


def test_a_level_that_networks_were_not_taught_is_named_and_not_scored(study, tmp_path, capsys):
    two, three = (
        str(write_dataset(tmp_path / name, annotated=levels))
        for name, levels in {"two": ("L1",), "three": ("L1", "L2")}.items()
    )
    taught = Study(**study.settings | {"dataset": two})
    trained(taught)
    tested = taught.tested_on(three)
    cohort = prepare(tested)
    assert cohort.annotated == ("L1",)
    assert "L2 was not taught to the networks of" in capsys.readouterr().out
    assert records.read_json(tested.folder / "study.json")["data"]["untaught"] == ["L2"]
    fit(tested, cohort, "unet")
    maps = predict(tested, cohort, "unet")
    for _, case in cohort.cases.iterrows():
        assert read_label_map(maps, case, (64, 48)).max() <= 1


def test_a_level_in_test_images_alone_is_named_and_not_scored(study, tmp_path, capsys):
    folder = write_dataset(tmp_path / "rare")
    sides = ["train"] * 3 + ["validation"] + ["test"] * 2
    split = pd.DataFrame({"patient": [f"p{k}" for k in range(6)], "split": sides})
    split.to_csv(folder / "split.csv", index=False)
    for case in range(4):
        path = str(folder / "masks" / f"case{case}.png")
        mask = cv2.imread(path, cv2.IMREAD_UNCHANGED)
        cv2.imwrite(path, np.where(mask == 2, 0, mask))
    cohort = prepare(Study(**study.settings | {"dataset": str(folder), "accept": ("*",)}))
    assert cohort.annotated == ("L1",)
    assert "L2 is in no training image" in capsys.readouterr().out


def test_networks_are_not_tested_on_patients_that_they_were_trained_on(study, patients):
    taught = Study(**study.settings | {"dataset": patients.dataset})
    trained(taught)
    tested = taught.tested_on(patients.dataset)
    with pytest.raises(StudyError, match=r"was trained on 5 patients that are tested on here, first p"):
        fit(tested, prepare(tested), "unet")


def test_patients_are_refused_whom_an_earlier_study_was_trained_on(study, patients, tmp_path):
    """The networks that come with the project, then other patients, then again a patient of the former."""
    known = renamed(write_dataset(tmp_path / "known"), "spider_110")
    first = Study(
        **study.settings | QUICK_NETWORKS | {"dataset": patients.dataset, "start_from": "pretrained", "epochs": 1}
    )
    fit(first, prepare(first), "hrnet")
    again = Study(**first.settings | {"dataset": str(known), "start_from": str(first.folder), "epochs": 0})
    with pytest.raises(StudyError, match=r"was trained on 1 patients that are tested on here, first spider_110"):
        fit(again, prepare(again), "hrnet")


def test_a_data_set_to_test_on_that_is_not_there_stops_before_any_training(tmp_path):
    said = in_process("run", "--profile", "smoke", "--runs", tmp_path / "runs", "--test-dataset", tmp_path / "absent")
    assert said.returncode == 2 and "there is no data set at" in said.stderr
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_lists_the_study_and_the_test_of_its_networks_on_other_data(tmp_path, cache):
    other = write_dataset(tmp_path / "patients")
    named = ["run", "--profile", "smoke", "--runs", tmp_path / "runs", "--set", f"cache={cache}", "--set", "device=cpu"]
    said = in_process(*named, "--test-dataset", other, "--dry-run")
    assert said.returncode == 0 and said.stdout.count("6 jobs: 6 waiting") == 2
    names = [line for line in said.stdout.splitlines() if "-smoke-seed0-" in line]
    assert [name.partition("-")[0] for name in names] == ["phantom", "patients"]
    assert not (tmp_path / "runs").exists()


def test_a_grid_has_no_data_set_to_test_on(tmp_path):
    said = in_process("run", "--profile", "smoke", "--seeds", "0", "1", "--test-dataset", tmp_path)
    assert said.returncode == 2 and "--test-dataset cannot be used here: it is of a single study" in said.stderr
