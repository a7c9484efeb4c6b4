"""A data set of one's own: what is read, and what is refused."""

import json
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import REAL

from lumbar_utils import StudyError
from lumbar_utils.datasets.folder import read, read_image, read_mask
from lumbar_utils.preparation import prepare
from lumbar_utils.study import Study


def test_values_become_the_study_s_levels_and_other_names_background(dataset):
    cohort = read(dataset)
    mask = cohort.mask(cohort.cases.iloc[0])
    assert (mask[25, 20], mask[45, 20], mask[8, 20], mask[0, 0]) == (1, 2, 0, 0)  # L1, L2, T12, air


def test_labels_may_have_any_values(dataset):
    path = dataset / "masks" / "other.png"
    cv2.imwrite(str(path), np.array([[0, 7], [20, 26]], np.uint8))
    assert read_mask(path, {7: "S1", 20: "L5", 26: "T12"}).tolist() == [[0, 6], [5, 0]]


def test_a_grey_image_saved_in_colour_is_read_as_grey(tmp_path):
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    cv2.imwrite(str(tmp_path / "grey.png"), np.dstack([grey] * 3))
    assert np.array_equal(read_image(tmp_path / "grey.png"), grey)


def test_the_fingerprint_follows_content_and_not_place(dataset, tmp_path):
    copy = shutil.copytree(dataset, tmp_path / "elsewhere")
    assert read(copy).fingerprint == read(dataset).fingerprint
    cv2.imwrite(str(copy / "images" / "case0.png"), np.full((64, 48), 9, np.uint8))
    assert read(copy).fingerprint != read(dataset).fingerprint


def change_description(folder, **changes):
    path = folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_cases(folder, row, column, value):
    table = pd.read_csv(folder / "cases.csv")
    table.loc[row, column] = value
    table.to_csv(folder / "cases.csv", index=False)


def keep_two_patients(folder):
    pd.read_csv(folder / "cases.csv").head(2).to_csv(folder / "cases.csv", index=False)


def put_a_patient_on_two_sides(folder):
    rows = [("p0", "train"), ("p0", "test"), *((f"p{patient}", "validation") for patient in range(1, 6))]
    pd.DataFrame(rows, columns=["patient", "split"]).to_csv(folder / "split.csv", index=False)


FAULTS = {
    "no folder": (shutil.rmtree, "there is no data set at"),
    "no masks": (lambda folder: shutil.rmtree(folder / "masks"), "has no masks; see data/README.md"),
    "a mask less": (lambda folder: (folder / "masks" / "case3.png").unlink(), "1 files that are not there.*case3.png"),
    "a smaller mask": (
        lambda folder: cv2.imwrite(str(folder / "masks" / "case2.png"), np.zeros((64, 47), np.uint8)),
        "mask masks/case2.png is 47x64 but its image is 48x64; export both from the same slice",
    ),
    "an unnamed label": (
        lambda folder: cv2.imwrite(str(folder / "masks" / "case2.png"), np.full((64, 48), 99, np.uint8)),
        "case2.png has label 99, which dataset.json does not name",
    ),
    "an unreadable image": (
        lambda folder: (folder / "images" / "case1.png").write_bytes(b"\x89PNG, or so"),
        "case1.png cannot be read as an image",
    ),
    "an empty image": (lambda folder: (folder / "images" / "case1.png").write_bytes(b""), "case1.png cannot be read"),
    "a colourful image": (
        lambda folder: cv2.imwrite(str(folder / "images" / "case1.png"), np.eye(3, dtype=np.uint8)[None] * 255),
        "case1.png is in colour; export it as grey",
    ),
    "16 bits": (
        lambda folder: cv2.imwrite(str(folder / "images" / "case1.png"), np.full((64, 48), 999, np.uint16)),
        "case1.png has uint16 pixels; export it with 8 bits",
    ),
    "two patients": (keep_two_patients, "has 2 patients; a split needs three or more"),
    "a patient on two sides": (put_a_patient_on_two_sides, "patient p0 on two sides: train, test"),
    "a case twice": (lambda folder: change_cases(folder, 1, "case", "case0"), "names case 'case0' twice"),
    "a case that climbs": (lambda folder: change_cases(folder, 1, "case", "../../x"), "must consist of letters"),
    "an unknown level": (lambda folder: change_description(folder, annotated_levels=["L1", "S2"]), "annotates 'S2'"),
    "a level without label": (lambda folder: change_description(folder, annotated_levels=["L5"]), "annotates L5 but"),
    "no JSON": (lambda folder: (folder / "dataset.json").write_text("{"), "dataset.json is not JSON"),
    "no labels": (lambda folder: (folder / "dataset.json").write_text("{}"), "lacks annotated_levels, labels, name"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_input_ends_with_one_clear_error_before_anything_is_written(dataset, tmp_path, cache, fault):
    plant, message = FAULTS[fault]
    plant(dataset)
    with pytest.raises(StudyError, match=message):
        prepare(Study("smoke", dataset=str(dataset), runs=tmp_path / "runs", cache=cache))
    assert not (tmp_path / "runs").exists()


def test_preparing_puts_cases_and_split_on_record(dataset, tmp_path, cache):
    study = Study("smoke", dataset=str(dataset), runs=tmp_path / "runs", cache=cache)
    cohort = prepare(study)
    sides = pd.read_csv(study.folder / "split.csv")
    assert sides["patient"].tolist() == [f"p{patient}" for patient in range(6)]
    assert cohort.cases.merge(sides, on="patient").eval("split_x == split_y").all()
    record = json.loads((study.folder / "study.json").read_text())
    assert record["settings"] == study.settings
    assert record["data"]["fingerprint"] == cohort.fingerprint


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real slices are no part of the repository: {REAL.name} is absent")
def test_the_real_slices_are_read_with_their_five_levels():
    cohort = read(REAL)
    assert (len(cohort.cases), cohort.cases["patient"].nunique()) == (263, 30)
    assert cohort.annotated == ("L1", "L2", "L3", "L4", "L5")
    assert not cohort.synthetic
    middle = cohort.cases[cohort.cases["mid_sagittal"]].iloc[0]
    assert set(np.unique(cohort.mask(middle))) == {0, 1, 2, 3, 4, 5}


def test_without_levels_and_masks_a_folder_is_for_prediction_only(dataset, tmp_path, cache):
    shutil.rmtree(dataset / "masks")
    change_description(dataset, annotated_levels=[])
    change_cases(dataset, slice(None), "mask", None)
    cohort = read(dataset)
    assert cohort.for_prediction_only
    assert not cohort.mask(cohort.cases.iloc[0]).any()
    with pytest.raises(StudyError, match=r"drawn by hand is for prediction only: .*lumbar_utils predict"):
        prepare(Study("smoke", dataset=str(dataset), runs=tmp_path / "runs", cache=cache))
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_annotates_levels_needs_every_mask(dataset):
    change_cases(dataset, 2, "mask", None)
    with pytest.raises(StudyError, match=r"line 4 leaves one of case, patient, image, mask empty; fill it in"):
        read(dataset)
