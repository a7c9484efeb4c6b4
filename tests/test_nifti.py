"""A folder of NIfTI volumes: what is read, and what is refused."""

import json
import shutil

import cv2
import numpy as np
import pytest
import SimpleITK as sitk

from lumbar_utils import StudyError
from lumbar_utils.datasets import convert
from lumbar_utils.datasets.folder import read
from lumbar_utils.preparation import prepare
from lumbar_utils.study import Study

MASK = np.zeros((5, 6, 4), np.uint8)  # 5 slices from right to left
MASK[3, 1:3, 1:3], MASK[3, 3:5, 1:3] = 20, 7


def write_volume(path, slices):
    """Slices from right to left, head up and front left, stored as NIfTI has it: to the right, front and head."""
    image = sitk.GetImageFromArray(slices)
    image.SetSpacing((1.0, 1.0, 4.0))
    image.SetDirection(sitk.DICOMOrientImageFilter.GetDirectionCosinesFromOrientation("PIL"))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.DICOMOrient(image, "RAS"), path)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "nifti"
    for name in ("anna_t1", "anna_t2", "bert"):
        write_volume(folder / f"{name}.nii.gz", MASK.astype(np.int16) * 10)
        write_volume(folder / "masks" / f"{name}.nii.gz", MASK)
    (folder / "labels.json").write_text('{"20": "L1", "7": "L2"}')
    return folder


def test_volumes_become_slices_through_the_middle_of_what_is_outlined(source, tmp_path):
    cohort = read(convert("nifti", source, tmp_path / "out"))
    assert cohort.cases["case"].tolist() == ["anna_t1_slice3", "anna_t2_slice3", "bert_slice3"]
    assert cohort.cases["patient"].tolist() == ["anna", "anna", "bert"]
    assert cohort.annotated == ("L1", "L2")
    assert cohort.cases["spacing_mm"].tolist() == [1, 1, 1]
    case = cohort.cases.iloc[0]
    assert cohort.mask(case).tolist() == np.select([MASK[3] == 20, MASK[3] == 7], [1, 2]).tolist()
    assert cohort.image(case).tolist() == np.select([MASK[3] == 20, MASK[3] == 7], [255, round(255 * 7 / 20)]).tolist()


@pytest.mark.parametrize("ending", ["_mask.nii.gz", "_seg.nii.gz", "_seg.mha"])
def test_masks_may_lie_beside_their_images(source, tmp_path, ending):
    for name in ("anna_t1", "anna_t2", "bert"):
        (source / "masks" / f"{name}.nii.gz").unlink()
        write_volume(source / f"{name}{ending}", MASK)
    assert len(read(convert("nifti", source, tmp_path / "out")).cases) == 3


def test_a_table_says_whose_volumes_they_are(source, tmp_path):
    (source / "patients.csv").write_text("file,patient\nanna_t1.nii.gz,01\nanna_t2,02\nbert.nii.gz,02\n")
    assert read(convert("nifti", source, tmp_path / "out")).cases["patient"].tolist() == ["01", "02", "02"]


def without_masks(folder):
    shutil.rmtree(folder / "masks")
    (folder / "labels.json").unlink()


def test_without_masks_it_is_for_prediction_only(source, tmp_path):
    without_masks(source)
    cohort = read(convert("nifti", source, tmp_path / "out"))
    assert cohort.for_prediction_only
    assert cohort.cases["mask"].tolist() == ["", "", ""]
    assert cohort.cases["case"].tolist() == ["anna_t1_slice2", "anna_t2_slice2", "bert_slice2"]  # of 0 to 4
    assert not cohort.mask(cohort.cases.iloc[0]).any()
    study = Study("smoke", dataset=f"nifti:{source}", cache=tmp_path / "cache", runs=tmp_path / "runs")
    with pytest.raises(StudyError, match=r"is for prediction only: it annotates no level.*lumbar_utils predict"):
        prepare(study)
    assert not (tmp_path / "runs").exists()


def test_letters_that_no_case_may_have_are_replaced(source, tmp_path):
    without_masks(source)
    (source / "bert.nii.gz").rename(source / "bert (2).nii.gz")
    assert read(convert("nifti", source, tmp_path / "out")).cases["case"].iloc[2] == "bert--2-_slice2"


def test_a_volume_that_is_not_sagittal_is_left_out(source, tmp_path):
    without_masks(source)
    axial = sitk.GetImageFromArray(MASK)
    axial.SetSpacing((1, 1, 4))
    sitk.WriteImage(axial, source / "axial.nii.gz")
    folder = convert("nifti", source, tmp_path / "out")
    assert len(read(folder).cases) == 3
    left_out = json.loads((folder / "dataset.json").read_text())["left_out"]
    assert left_out == ["axial is not sagittal: its slices, 4 mm apart, follow each other head to feet"]


FAULTS = {
    "no labels.json": (lambda folder: (folder / "labels.json").unlink(), "there are masks but no .*labels.json; write"),
    "labels.json is a list": (lambda folder: (folder / "labels.json").write_text("[1]"), "must be a JSON object"),
    "no level named": (lambda folder: (folder / "labels.json").write_text('{"1": "T1"}'), "one of L1, .* or more"),
    "an unnamed value": (
        lambda folder: (folder / "labels.json").write_text('{"7": "L2"}'),
        "has value 20, which labels",
    ),
    "a mask less": (lambda folder: (folder / "masks" / "bert.nii.gz").unlink(), "bert.nii.gz has no mask but others"),
    "an image less": (lambda folder: (folder / "bert.nii.gz").unlink(), "masks/bert.nii.gz belongs to no image"),
    "a name twice": (lambda folder: write_volume(folder / "bert.mha", MASK), "share a name; remove or rename one"),
    "a patient less": (
        lambda folder: (folder / "patients.csv").write_text("file,patient\nanna_t1,1\n"),
        "leaves out 2 volumes, first anna_t2",
    ),
    "a table of other columns": (
        lambda folder: (folder / "patients.csv").write_text("name\nanna_t1\n"),
        "must have the columns file, patient; it has name",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_understood_is_refused_before_anything_is_written(source, tmp_path, fault):
    plant, message = FAULTS[fault]
    plant(source)
    with pytest.raises(StudyError, match=message):
        convert("nifti", source, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nifti"]


def test_masks_keep_the_values_that_the_user_named(source, tmp_path):
    folder = convert("nifti", source, tmp_path / "out")
    mask = cv2.imread(str(folder / "masks" / "bert_slice3.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(mask, MASK[3])
