"""Another tool's label maps join the comparison, or are refused by name."""

import json
import os

import cv2
import numpy as np
import pytest
import SimpleITK as sitk

from lumbar_utils import StudyError, records
from lumbar_utils.data.preparation import prepare
from lumbar_utils.scores.evaluation import evaluate, label_maps
from lumbar_utils.scores.external import add
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


def test_label_maps_whose_copy_was_interrupted_are_not_taken_for_whole(study, cohort, tmp_path, monkeypatch):
    add(study, cohort, "nnunet", write(cohort, tmp_path / "first"))
    other = write(cohort, tmp_path / "second", change=lambda mask: np.roll(mask, 1, axis=0))
    monkeypatch.setattr(records, "atomic_file", lambda path: interrupt())
    with pytest.raises(KeyboardInterrupt):
        add(study, cohort, "nnunet", other)
    with pytest.raises(StudyError, match="nnunet has no label maps"):
        label_maps(study, cohort, ["nnunet"])


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.skipif(os.name != "posix", reason="limits on the size of a file are of POSIX systems")
def test_a_disk_that_is_full_is_said_and_nothing_is_added(study, cohort, tmp_path):
    import resource

    maps, unlimited = write(cohort, tmp_path / "maps"), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, unlimited[1]))  # bytes, fewer than a label map has
    try:
        with pytest.raises(StudyError, match=r"could not write .*\.png: File too large; make room"):
            add(study, cohort, "nnunet", maps)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert not list((study.folder / "nnunet" / "label_maps").iterdir())


def test_label_maps_of_cases_that_are_no_longer_tested_do_not_stay(study, cohort, tmp_path):
    maps = write(cohort, tmp_path / "maps")
    kept = add(study, cohort, "nnunet", maps)
    cv2.imwrite(str(kept / "no_longer_tested.png"), np.zeros((64, 48), np.uint8))
    cv2.imwrite(str(next(maps.iterdir())), np.zeros((64, 48), np.uint8))
    add(study, cohort, "nnunet", maps)
    assert [file.name for file in kept.iterdir()] == [file.name for file in maps.iterdir()]


@pytest.mark.parametrize("names", [("vertebrae_L1", "vertebrae_L2"), ("l1", "l2"), ("L1 vertebra", "L2 vertebra")])
def test_names_of_other_tools_are_read_as_levels(study, cohort, tmp_path, names):
    maps = write(cohort, tmp_path / "maps", ".nii.gz", lambda mask: mask.astype(np.float64) * (1 - 1e-9))
    for file in list(maps.iterdir()):
        file.rename(maps / file.name.replace(".nii.gz", ".NII.GZ"))
    (maps / "dataset.json").write_text(json.dumps({"labels": {"background": 0, names[0]: 1, names[1]: [2]}}))
    folder = add(study, cohort, "other", maps)
    assert (evaluate(cohort, {"other": folder}).scores.query("metric == 'f1'")["value"] == 1).all()


@pytest.mark.parametrize(
    "text, message",
    [
        (
            '{"labels": {"disc": 1, "L5": 2}}',
            "dataset.json names 'disc', 'L5'; one of L1, L2 or more must be among them",
        ),
        ("{}", "dataset.json has no labels but None"),
        ("[]", "dataset.json holds list where an object is expected"),
        ("{", "dataset.json is not JSON"),
    ],
)
def test_a_dataset_json_that_names_no_level_of_the_study_is_refused(study, cohort, tmp_path, text, message):
    maps = write(cohort, tmp_path / "maps")
    (maps / "dataset.json").write_text(text)
    with pytest.raises(StudyError, match=message):
        add(study, cohort, "other", maps)
    assert not (study.folder / "other").exists()


@pytest.mark.parametrize("keep", [100, 355, -60])
def test_a_label_map_that_is_cut_off_is_refused_in_one_line(study, cohort, tmp_path, keep):
    maps = write(cohort, tmp_path / "maps", ".nii")
    file = maps / f"{of_the_test_set(cohort)[0]['case']}.nii"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(StudyError, match=rf"label map {file} .*; is the file whole\?") as refused:
        add(study, cohort, "other", maps)
    assert "\n" not in str(refused.value)


def test_two_label_maps_of_one_case_are_refused(study, cohort, tmp_path):
    maps, case = write(cohort, tmp_path / "maps"), of_the_test_set(cohort)[0]["case"]
    (maps / f"{case}.nii.gz").touch()
    with pytest.raises(StudyError, match=f"has 2 label maps of case {case}"):
        add(study, cohort, "other", maps)


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
        ("missing", r"has 0 label maps of case {case} .*; give every case of the test set one"),
        ("size", r"{case}.png has shape \(32, 48\) but its image \(64, 48\); write it on that grid"),
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
