"""A folder of NIfTI volumes: what is read, and what is refused."""

import json
import shutil

import cv2
import numpy as np
import pytest
import SimpleITK as sitk

from lumbar_utils import StudyError
from lumbar_utils.data.folder import read
from lumbar_utils.data.preparation import prepare
from lumbar_utils.data.sources import convert
from lumbar_utils.study import Study

MASK = np.zeros((5, 6, 4), np.uint8)  # 5 slices from right to left
MASK[3, 1:3, 1:3], MASK[3, 3:5, 1:3] = 20, 7


def write_volume(path, slices):
    """Slices from right to left, head up and front left, stored as NIfTI has it: to the right, front and head."""
    image, written = sitk.GetImageFromArray(slices), path.with_name(path.name.lower())  # ITK writes no .NII.GZ
    image.SetSpacing((1.0, 1.0, 4.0))
    image.SetDirection(sitk.DICOMOrientImageFilter.GetDirectionCosinesFromOrientation("PIL"))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.DICOMOrient(image, "RAS"), written)
    written.rename(path)


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


@pytest.mark.parametrize(
    "ending",
    [
        "_mask.nii.gz",
        "_seg.nii.gz",
        "_seg.mha",
        "_dseg.nii.gz",
        "_label.nii",
        "-label.nrrd",
        "_labels.NII.GZ",
        ".seg.nrrd",
        "_msk.nii.gz",
        " - Segmentation.nii.gz",
    ],
)
def test_masks_may_lie_beside_their_images(source, tmp_path, ending):
    for name in ("anna_t1", "anna_t2", "bert"):
        (source / "masks" / f"{name}.nii.gz").unlink()
        write_volume(source / f"{name}{ending}", MASK)
    assert len(read(convert("nifti", source, tmp_path / "out")).cases) == 3


def renamed(source, names):
    """The three volumes under names of another tool, their masks as MASKS/NAME."""
    for old, (image, mask) in zip(("anna_t1", "anna_t2", "bert"), names, strict=True):
        for folder, name in ((source, image), (source / "masks", mask)):
            target = source / f"{name}.nii.gz"
            target.parent.mkdir(parents=True, exist_ok=True)
            (folder / f"{old}.nii.gz").rename(target)
    return source


LAYOUTS = {
    "nnU-Net": (
        [(f"imagesTr/LSPINE_00{k}_0000", f"labelsTr/LSPINE_00{k}") for k in range(3)],
        ["LSPINE_000", "LSPINE_001", "LSPINE_002"],
    ),
    "BIDS": (
        [
            (f"sub-0{k}/anat/sub-0{k}_T2w", f"derivatives/labels/sub-0{k}/anat/sub-0{k}_{end}dseg")
            for k, end in ((1, "T2w_"), (2, "T2w_"), (3, ""))
        ],
        ["sub-01", "sub-02", "sub-03"],
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layouts_of_other_tools_are_read(source, tmp_path, layout):
    names, patients = LAYOUTS[layout]
    renamed(source, names)
    (source / "labels.json").rename(source / "dataset.json")
    (source / "dataset.json").write_text('{"labels": {"background": 0, "vertebrae_L1": 20, "vertebrae_L2": 7}}')
    cohort = read(convert("nifti", source, tmp_path / "out"))
    assert cohort.cases["patient"].tolist() == patients
    assert cohort.mask(cohort.cases.iloc[0]).tolist() == np.select([MASK[3] == 20, MASK[3] == 7], [1, 2]).tolist()


@pytest.mark.parametrize(
    "names, message",
    [
        (["P01-T1", "P01-T2", "P02-T1"], "P01-T1 and P01-T2 may be one patient, by their names; write .*patients.csv"),
        (["P01a", "P01b", "P02a"], "P01a and P01b may be one patient"),
        (["sub-1-T1", "sub-1-T2", "sub-2-T1"], "sub-1-T1 and sub-1-T2 may be one patient"),
        (["P01_T1_0000", "P01_T2_0000", "P02_T1_0000"], "P01_T1 and P01_T2 may be one patient"),
        (["LSPINE_000", "LSPINE_001", "LSPINE_002"], "all 3 volumes would be of one patient, LSPINE, by their names"),
        (["T1_001", "T2_001", "SPACE_001"], "of a patient '.*', a word that names no one, by their names"),
    ],
)
def test_names_that_leave_in_doubt_whose_a_volume_is_are_refused(source, tmp_path, names, message):
    renamed(source, [(name, f"masks/{name}") for name in names])
    with pytest.raises(StudyError, match=f"{message}.*'file,patient', '{min(names)},PATIENT'"):
        convert("nifti", source, tmp_path / "out")


@pytest.mark.parametrize("names", [["case-01", "case-02", "case-03"], ["P01_T1", "P02_T1", "P03_T1"], ["1", "2", "x"]])
def test_names_of_one_patient_each_are_taken(source, tmp_path, names):
    renamed(source, [(name, f"masks/{name}") for name in names])
    assert read(convert("nifti", source, tmp_path / "out")).cases["patient"].nunique() == 3


def test_a_cut_off_volume_is_left_out_and_said(source, tmp_path, capsys):
    for path in (source / "bert.nii.gz", source / "masks" / "anna_t2.nii.gz"):
        path.write_bytes(path.read_bytes()[:-9])
    assert read(convert("nifti", source, tmp_path / "out")).cases["patient"].tolist() == ["anna"]
    assert capsys.readouterr().out.splitlines() == [
        "left out: anna_t2 has a mask, anna_t2.nii.gz, that cannot be read as an image; is the file whole?",
        "left out: bert cannot be read as an image; is the file whole?",
    ]


def test_a_mask_of_shades_is_left_out_and_one_that_was_rounded_is_read(source, tmp_path, capsys):
    write_volume(source / "masks" / "anna_t1.nii.gz", MASK * (1 - 1e-9))
    write_volume(source / "masks" / "bert.nii.gz", MASK * 0.98)
    cohort = read(convert("nifti", source, tmp_path / "out"))
    assert cohort.mask(cohort.cases.iloc[0]).tolist() == np.select([MASK[3] == 20, MASK[3] == 7], [1, 2]).tolist()
    assert capsys.readouterr().out == (
        "left out: bert has label 19.6, which is no whole number; resample labels to the nearest\n"
    )


def test_a_segmentation_whose_own_names_contradict_labels_json_is_refused(source, tmp_path):
    for name in ("anna_t1", "anna_t2", "bert"):
        image = sitk.ReadImage(str(source / "masks" / f"{name}.nii.gz"))
        image.SetMetaData("Segment0_Name", "vertebra L3")
        image.SetMetaData("Segment0_LabelValue", "20")
        (source / "masks" / f"{name}.nii.gz").unlink()
        sitk.WriteImage(image, str(source / f"{name}.seg.nrrd"))
    with pytest.raises(StudyError, match=r"calls its value 20 L3, labels.json L1; export all masks with one numbering"):
        convert("nifti", source, tmp_path / "out")


def test_a_table_says_whose_volumes_they_are(source, tmp_path):
    (source / "patients.csv").write_text("file,patient\nanna_t1.nii.gz,01\nanna_t2,02\nbert.nii.gz,02\n")
    assert read(convert("nifti", source, tmp_path / "out")).cases["patient"].tolist() == ["01", "02", "02"]


def without_masks(folder):
    shutil.rmtree(folder / "masks")
    (folder / "labels.json").unlink()


def test_without_masks_it_is_for_prediction_only(source, tmp_path):
    without_masks(source)
    cohort = read(convert("nifti", source, tmp_path / "out"))
    assert cohort.annotated == ()
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
    "labels.json is a list": (
        lambda folder: (folder / "labels.json").write_text("[1]"),
        "holds list where an object is expected",
    ),
    "no level named": (lambda folder: (folder / "labels.json").write_text('{"1": "T1"}'), "one of L1, .* or more"),
    "an unnamed value": (
        lambda folder: (folder / "labels.json").write_text('{"7": "L2"}'),
        "has value 20, which labels",
    ),
    "a mask less": (lambda folder: (folder / "masks" / "bert.nii.gz").unlink(), "/bert.nii.gz is alone: th"),
    "an image less": (lambda folder: (folder / "bert.nii.gz").unlink(), "masks/bert.nii.gz is alone"),
    "a name twice": (lambda folder: write_volume(folder / "bert.mha", MASK), "share a name; remove or rename one"),
    "labels without masks": (
        lambda folder: shutil.rmtree(folder / "masks"),
        "labels.json names mask values but there is no mask; add NAME_mask.nii.gz, or remove it",
    ),
    "one mask for two images": (
        lambda folder: [
            (folder / "masks" / name).rename(folder / target)
            for name, target in (("anna_t1.nii.gz", "anna_mask.nii.gz"), ("anna_t2.nii.gz", "t2"))
        ],
        "anna_mask.nii.gz may be that of anna_t1 or of anna_t2; name it as its image",
    ),
    "a kind that is not read": (
        lambda folder: (folder / "bert.IMG").write_bytes(b""),
        "bert.IMG is of a kind that is not read; save it as .nii.gz",
    ),
    "a volume half downloaded": (
        lambda folder: (folder / "carl.nii.gz.part").write_bytes(b""),
        "carl.nii.gz.part is of a kind that is not read",
    ),
    "one vertebra a file": (
        lambda folder: (folder / "masks" / "vertebrae_L1.nii.gz").touch(),
        "vertebrae_L1.nii.gz is of L1 alone by its name; write all levels of a volume as one label map",
    ),
    "names alike as cases": (
        lambda folder: [(folder / name).touch() for name in ("anna t1.nii.gz", "anna-t1.nii")],
        "anna-t1.nii and anna t1.nii.gz share a name",
    ),
    "a patient twice": (
        lambda folder: (folder / "patients.csv").write_text("file,patient\nanna_t1,1\nanna_t1.nii.gz,2\n"),
        "names no patient of anna_t1, or several; give each volume one line",
    ),
    "a value too high": (
        lambda folder: (folder / "labels.json").write_text('{"20": "L1", "7": "L2", "300": "T1"}'),
        "gives 'T1' the value '300'; write a whole number from 0 to 255",
    ),
    "a patient less": (
        lambda folder: (folder / "patients.csv").write_text("file,patient\nanna_t1,1\n"),
        "names no patient of anna_t2, or several",
    ),
    "a table of other columns": (
        lambda folder: (folder / "patients.csv").write_text("name\nanna_t1\n"),
        "has the columns name; file, patient are needed, each once",
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
