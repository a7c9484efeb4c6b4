"""Another tool's label maps join the comparison, or are refused by name."""

import json

import cv2
import numpy as np
import pytest
import SimpleITK as sitk

from lumbar_utils import StudyError
from lumbar_utils.evaluation import evaluate
from lumbar_utils.external import add
from lumbar_utils.preparation import prepare
from lumbar_utils.study import Study


@pytest.fixture
def study(dataset, tmp_path, cache):
    return Study("smoke", dataset=str(dataset), runs=tmp_path / "runs", cache=cache)


@pytest.fixture
def cohort(study):
    return prepare(study)


def of_the_test_set(cohort):
    return [case for _, case in cohort.cases[cohort.cases["split"] == "test"].iterrows()]


def write(cohort, folder, ending=".png", change=lambda mask: mask):
    folder.mkdir()
    for case in of_the_test_set(cohort):
        label_map = change(cohort.mask(case))
        if ending == ".png":
            cv2.imwrite(str(folder / f"{case['case']}.png"), label_map)
        else:
            sitk.WriteImage(sitk.GetImageFromArray(label_map[None]), str(folder / f"{case['case']}{ending}"))
    return folder


@pytest.mark.parametrize("ending", [".png", ".nii.gz", ".mha"])
def test_a_folder_of_label_maps_becomes_a_column(study, cohort, tmp_path, ending):
    folder = add(study, cohort, "nnunet", write(cohort, tmp_path / "maps", ending))
    assert folder == study.folder / "nnunet" / "label_maps"
    assert (evaluate(cohort, {"nnunet": folder}).scores.query("metric == 'f1'")["value"] == 1).all()


def test_labels_are_read_as_nnu_net_names_them(study, cohort, tmp_path):
    maps = write(cohort, tmp_path / "maps", ".nii.gz", lambda mask: np.where(mask > 0, 12 - mask, 0).astype(np.uint8))
    (maps / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "L1": 11, "L2": 10}}))
    folder = add(study, cohort, "nnunet", maps)
    assert (evaluate(cohort, {"nnunet": folder}).scores.query("metric == 'f1'")["value"] == 1).all()


def test_added_again_nothing_is_written_and_changed_files_replace_it(study, cohort, tmp_path):
    maps = write(cohort, tmp_path / "maps")
    record = add(study, cohort, "other", maps).parent / "predict.json"
    before = record.stat().st_mtime_ns
    add(study, cohort, "other", maps)
    assert record.stat().st_mtime_ns == before
    cv2.imwrite(str(maps / f"{of_the_test_set(cohort)[0]['case']}.png"), np.zeros((64, 48), np.uint8))
    assert not cv2.imread(str(add(study, cohort, "other", maps) / f"{of_the_test_set(cohort)[0]['case']}.png")).any()


def spoilt(kind, maps, case):
    file = maps / f"{case}.png"
    if kind == "missing":
        file.unlink()
    elif kind == "size":
        cv2.imwrite(str(file), np.zeros((32, 48), np.uint8))
    else:
        cv2.imwrite(str(file), np.full((64, 48), 9, np.uint8))


@pytest.mark.parametrize(
    "kind, message",
    [
        ("missing", r"has no label map for case {case} .*; predict every case of the test set"),
        ("size", r"{case}.png is 32 x 48 but its image 64 x 48; write it on that grid"),
        ("label", r"{case}.png has label 9, which dataset.json does not name"),
    ],
)
def test_what_does_not_fit_is_refused_by_name_and_nothing_is_added(study, cohort, tmp_path, kind, message):
    maps, case = write(cohort, tmp_path / "maps"), of_the_test_set(cohort)[0]["case"]
    spoilt(kind, maps, case)
    with pytest.raises(StudyError, match=message.format(case=case)):
        add(study, cohort, "other", maps)
    assert not (study.folder / "other").exists()


def test_a_volume_and_an_unknown_label_in_it_are_refused(study, cohort, tmp_path):
    maps = write(cohort, tmp_path / "maps", ".nii.gz", lambda mask: np.where(mask > 0, 9, mask))
    with pytest.raises(StudyError, match="has label 9; known are 1 = L1"):
        add(study, cohort, "other", maps)
    for case in of_the_test_set(cohort):
        sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 64, 48), np.uint8)), str(maps / f"{case['case']}.nii.gz"))
    with pytest.raises(StudyError, match=r"has shape \(3, 64, 48\); write one slice a file"):
        add(study, cohort, "other", maps)


@pytest.mark.parametrize("name", ["unet", "tables", "a/b", "..", ""])
def test_a_name_that_is_taken_or_leads_elsewhere_is_refused(study, cohort, tmp_path, name):
    with pytest.raises(StudyError, match="cannot name a column"):
        add(study, cohort, name, write(cohort, tmp_path / "maps"))
