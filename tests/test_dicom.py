"""DICOM series written by hand: found among others, in order, and without a trace of whom they are of."""

import random
import re
import shutil

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from conftest import REAL
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, RLELossless, generate_uid

from lumbar_utils import StudyError
from lumbar_utils.data import dicom
from lumbar_utils.data.folder import read
from lumbar_utils.data.sources import convert
from lumbar_utils.data.volumes import window

NAME, ID = "Quixote^Alonso", "LM-160501"
SAGITTAL, AXIAL = [0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 1, 0]
STACK = np.random.default_rng(0).integers(0, 500, (7, 16, 20)).astype(np.uint16)  # slices from right to left


def write_image(path, pixels, place, series, orientation=SAGITTAL, compress=None, **elements):
    """One file; place : ImagePositionPatient, x to the left."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = MRImageStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3", series
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.StudyDate = NAME, ID, "16050116", "20240102"
    ds.Modality, ds.ImageType, ds.SeriesDescription = "MR", ["ORIGINAL", "PRIMARY"], f"of {NAME}"
    ds.ImageOrientationPatient, ds.ImagePositionPatient = orientation, place
    ds.PixelSpacing, ds.SliceThickness = [0.5, 0.5], 4
    ds.Rows, ds.Columns = pixels.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = pixels.tobytes()
    for name, value in elements.items():
        setattr(ds, name, value)
    if elements.get("PixelSpacing", 0) is None:
        del ds.PixelSpacing
    if compress:
        ds.compress(compress, encoding_plugin="pydicom", generate_instance_uid=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)


def write_series(folder, series="1.2.3.1", stack=STACK, **elements):
    """The stack in shuffled files without extension."""
    names = list(range(len(stack)))
    random.Random(1).shuffle(names)
    for index, (name, pixels) in enumerate(zip(names, stack, strict=True)):
        write_image(folder / f"IM{name}", pixels, [4.0 * index - 12, 0, 0], series, **elements)


def images(source, out, slices=7):
    cohort = read(convert("dicom", source, out, slices))
    return cohort, [cohort.image(case) for _, case in cohort.cases.iterrows()]


def test_a_series_is_ordered_by_place_from_right_to_left(tmp_path):
    write_series(tmp_path / "in" / NAME / "deep")
    cohort, found = images(tmp_path / "in", tmp_path / "out")
    assert np.array_equal(found, [window(pixels) for pixels in STACK])
    assert cohort.cases["case"].tolist() == [f"p0001_s1_slice{index}" for index in range(7)]
    assert cohort.cases["patient"].unique().tolist() == ["p0001"]
    assert cohort.cases.query("mid_sagittal")["slice"].tolist() == [3]
    assert cohort.cases["spacing_mm"].tolist() == [0.5] * 7
    assert cohort.annotated == ()


@pytest.mark.parametrize(
    "elements",
    [
        pytest.param({"compress": RLELossless}, id="run-length encoded"),
        pytest.param({"RescaleSlope": "2.5", "RescaleIntercept": "-100"}, id="rescaled"),
        pytest.param({"ImageOrientationPatient": [0, 0.98, 0.199, 0, 0.199, -0.98]}, id="tilted in the plane"),
    ],
)
def test_the_picture_is_the_same_however_it_is_stored(tmp_path, elements):
    write_series(tmp_path / "in", **elements)
    assert np.array_equal(images(tmp_path / "in", tmp_path / "out")[1], [window(pixels) for pixels in STACK])


def test_rescaling_is_applied(tmp_path):
    write_image(tmp_path / "one", STACK[0], [0, 0, 0], "1.2", RescaleSlope="2.5", RescaleIntercept="-100")
    pixels = sitk.GetArrayFromImage(dicom.decode(tmp_path / "one"))[0]
    assert np.array_equal(pixels, STACK[0] * 2.5 - 100)


def test_an_image_whose_lowest_value_is_white_is_inverted(tmp_path):
    write_series(tmp_path / "in", PhotometricInterpretation="MONOCHROME1")
    _, found = images(tmp_path / "in", tmp_path / "out")
    assert np.array_equal(found, [window(-pixels.astype(float)) for pixels in STACK])


def test_rows_and_columns_that_run_the_other_way_are_turned(tmp_path):
    write_series(tmp_path / "in", stack=STACK[:, ::-1, ::-1].copy(), orientation=[0, -1, 0, 0, 0, 1])
    _, found = images(tmp_path / "in", tmp_path / "out")
    assert np.array_equal(found, [window(pixels) for pixels in STACK])


def test_without_the_size_of_a_pixel_it_is_unknown(tmp_path):
    write_series(tmp_path / "in", PixelSpacing=None)
    assert images(tmp_path / "in", tmp_path / "out")[0].cases["spacing_mm"].isna().all()


def other_series(folder):
    """What lies beside a sagittal series: axial, localiser, CT, echoes, colour, text, frames, few, a report, notes."""
    write_series(folder / "a", "1.1", orientation=AXIAL)
    for number, orientation in enumerate([SAGITTAL, AXIAL, [1, 0, 0, 0, 0, -1]] * 2):
        write_image(folder / f"b{number}", STACK[0], [number, 0, 0], "1.2", orientation)
    write_series(folder / "c", "1.3", Modality="CT")
    write_series(folder / "d", "1.4", ImagePositionPatient=[0, 0, 0])
    write_series(folder / "e", "1.5", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_series(folder / "f", "1.6", BurnedInAnnotation="YES")
    write_series(folder / "g", "1.7", NumberOfFrames=2)
    write_series(folder / "h", "1.8", stack=STACK[:3])
    write_series(folder / "i", "1.10", BurnedInAnnotation="yes")
    write_series(folder / "j", "1.11", PixelSpacing=[0, 0])  # ITK makes it 1 mm
    write_series(folder / "k", "1.12", PixelSpacing=["nan", "nan"])
    (folder / "notes.txt").write_text("no DICOM")


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_sagittal_series_are_found_among_others_and_these_are_named_with_a_reason(tmp_path, capsys):
    other_series(tmp_path / "in")
    write_series(tmp_path / "in" / "z", "1.9")
    cohort, found = images(tmp_path / "in", tmp_path / "out")
    assert set(cohort.cases["case"].str.rpartition("_")[0]) == {"p0001_s12"}
    assert np.array_equal(found, [window(pixels) for pixels in STACK])
    assert capsys.readouterr().out.replace("left out: p0001_", "").splitlines() == [
        "s1 is not sagittal: its slice axis is 90 degrees off left-right; 45 are allowed",
        "s2 has images of several sizes or orientations",
        "s3 is no MR",
        "s4 has several images at one place (echoes or times); export one of them",
        "s5 is a localiser",
        "s6 has text burnt into its pixels, which may name the patient",
        "s7 is multi-frame; convert it to one file a slice, or by dcm2niix to NIfTI",
        "s8 has 3 images that can be decoded; 5 or more are needed",
        "s9 has text burnt into its pixels, which may name the patient",
        "s10 has pixels of no size",
        "s11 has pixels of no size",
    ]


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_no_byte_of_the_output_names_the_patient(tmp_path):
    other_series(tmp_path / NAME)
    write_series(tmp_path / NAME / ID, "1.9")
    out = convert("dicom", tmp_path / NAME, tmp_path / "out", 3)
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) == 3 + 2
    told = b"".join(str(path.relative_to(out)).encode() + path.read_bytes() for path in files)
    for secret in (NAME, *NAME.split("^"), ID, "16050116", "20240102", "1.2.3", "1.9", "IM3", str(tmp_path)):
        assert secret.encode() not in told


def test_patients_are_told_apart_by_their_number_and_study_if_it_is_missing(tmp_path):
    write_series(tmp_path / "in" / "a", "1.1")
    write_series(tmp_path / "in" / "b", "1.2", PatientID="other")
    write_series(tmp_path / "in" / "c", "1.3", PatientID="", StudyInstanceUID="1.2.4")
    write_series(tmp_path / "in" / "d", "1.4", PatientID="", StudyInstanceUID="1.2.5")
    write_series(tmp_path / "in" / "e", "1.5")
    cohort, _ = images(tmp_path / "in", tmp_path / "out", 1)
    assert cohort.cases["case"].tolist() == [f"{name}_slice3" for name in (
        "p0001_s1", "p0001_s2", "p0002_s1", "p0003_s1", "p0004_s1",
    )]  # fmt: skip


def without_preamble(path):
    whole = path.read_bytes()
    path.write_bytes(whole[whole.index(b"\x08\x00\x16\x00") :])


def without_modality(path):
    ds = pydicom.dcmread(path)
    del ds.Modality
    ds.save_as(path)


@pytest.mark.parametrize("change", [without_preamble, without_modality])
def test_what_the_rest_of_a_file_tells_may_be_missing(tmp_path, change):
    write_series(tmp_path / "in")
    for path in (tmp_path / "in").iterdir():
        change(path)
    assert np.array_equal(images(tmp_path / "in", tmp_path / "out")[1], [window(pixels) for pixels in STACK])


def test_linked_folders_and_files_are_found(tmp_path):
    write_series(tmp_path / "real", stack=STACK[:6])
    write_image(tmp_path / "last", STACK[6], [12, 0, 0], "1.2.3.1")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "patient1").symlink_to(tmp_path / "real")
    (tmp_path / "in" / "last").symlink_to(tmp_path / "last")
    assert np.array_equal(images(tmp_path / "in", tmp_path / "out")[1], [window(pixels) for pixels in STACK])


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"orientation": AXIAL}, id="orientation"),
        pytest.param({"PixelSpacing": [0.7, 0.7]}, id="spacing"),
        pytest.param({"pixels": STACK[0, :8]}, id="size"),
        pytest.param({"ImageType": ["DERIVED", "SECONDARY", "LOCALIZER"]}, id="kind"),
    ],
)
def test_one_foreign_image_in_a_series_is_left_out_by_name(tmp_path, capsys, change):
    write_series(tmp_path / "in")
    write_image(tmp_path / "in" / "X", **({"pixels": STACK[0], "place": [99, 0, 0], "series": "1.2.3.1"} | change))
    _, found = images(tmp_path / "in", tmp_path / "out")
    assert np.array_equal(found, [window(pixels) for pixels in STACK])
    assert capsys.readouterr().out == (
        f"left out: {tmp_path / 'in' / 'X'} is of another kind, orientation or size than its series\n"
    )


@pytest.mark.parametrize(
    "keep, message",
    [
        (-400, "has pixels that cannot be decoded; copy it again"),
        (300, r"cannot be read as DICOM \(\w+\); copy it again"),
        (120, r"cannot be read as DICOM \(\w+\); copy it again"),
        (0, r"cannot be read as DICOM \(\w+\); copy it again"),
    ],
)
def test_one_broken_file_among_many_is_left_out_by_name_and_its_place_is_said_to_be_empty(
    tmp_path, capsys, keep, message
):
    write_series(tmp_path / "in")
    middle = next(path for path in (tmp_path / "in").iterdir() if pydicom.dcmread(path).ImagePositionPatient[0] == 0)
    middle.write_bytes(middle.read_bytes()[:keep])
    cohort, found = images(tmp_path / "in", tmp_path / "out")
    assert np.array_equal(found, [window(pixels) for pixels in np.delete(STACK, 3, axis=0)])
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(f"left out: {middle} {message}.*", first)
    assert second == "note: p0001_s1 lacks slices: neighbours lie up to 8 mm apart, most 4 mm"
    assert middle.name not in (cohort.folder / "dataset.json").read_text()


def test_copies_of_an_image_are_taken_once_and_what_is_no_image_is_passed_over(tmp_path):
    write_series(tmp_path / "in")
    shutil.copytree(tmp_path / "in", tmp_path / "in" / "copy")
    for name in ("._IM0", "Thumbs.db", "empty"):
        (tmp_path / "in" / name).write_bytes(b"" if name == "empty" else b"\0\1\2\3")
    shutil.copy(get_testdata_file("DICOMDIR", download=False), tmp_path / "in" / "DICOMDIR")
    assert np.array_equal(images(tmp_path / "in", tmp_path / "out")[1], [window(pixels) for pixels in STACK])


def test_a_folder_without_dicom_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no DICOM")
    with pytest.raises(
        StudyError, match=r"holds no DICOM image that can be read, at any depth \(0 broken files\); name"
    ):
        convert("dicom", tmp_path, tmp_path / "out")


def test_a_series_none_of_whose_pixels_can_be_decoded_is_an_error_and_its_files_are_named(tmp_path, capsys):
    write_series(tmp_path / "in")
    for path in (tmp_path / "in").iterdir():
        path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(StudyError, match="p0001_s1 has 0 images that can be decoded; 5 or more are needed"):
        convert("dicom", tmp_path / "in", tmp_path / "out")
    assert f"left out: {tmp_path / 'in' / 'IM3'} has pixels that cannot be decoded" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("syntax", ["RLE", "jp2klossless", "jpeg_ls_lossless", "implicit", "bigendian", "expb"])
def test_every_transfer_syntax_of_pydicom_s_own_mr_gives_the_same_pixels(syntax):
    plain, other = (get_testdata_file(f"MR_small{ending}.dcm", download=False) for ending in ("", f"_{syntax}"))
    expected = pydicom.dcmread(plain).pixel_array
    assert np.array_equal(sitk.GetArrayFromImage(dicom.decode(other))[0], expected)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real slices are no part of the repository: {REAL.name} is absent")
def test_real_slices_come_back_from_a_series(tmp_path):
    real = read(REAL)
    cases = real.cases.query("patient == 'spider_5'").sort_values("slice")
    stack = np.stack([real.image(case) for _, case in cases.iterrows()])
    write_series(tmp_path / "in", stack=stack.astype(np.uint16), PixelSpacing=[0.46875, 0.46875])
    _, found = images(tmp_path / "in", tmp_path / "out", len(stack))
    assert np.array_equal(found, [window(pixels) for pixels in stack])
