"""Volumes built by hand: read whole or refused, and cut into slices that are known voxel by voxel."""

import gzip
import struct
import zlib

import cv2
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from conftest import REAL

from lumbar_utils import StudyError
from lumbar_utils.data import volumes
from lumbar_utils.data.files import split_suffix

STACK = np.arange(5 * 3 * 4, dtype=np.int16).reshape(5, 3, 4)  # 5 sagittal slices from right to left, 3 rows, 4 columns


def volume(stack=STACK, spacing=(1.0, 1.0, 4.0), orientation="PIL", turned=0.0) -> sitk.Image:
    """A stack of slices, head up and front left, stored in any order of axes; turned about the body's axis, degrees."""
    image = sitk.GetImageFromArray(stack)
    image.SetSpacing(spacing)
    axes = np.reshape(sitk.DICOMOrientImageFilter.GetDirectionCosinesFromOrientation("PIL"), (3, 3))
    cos, sin = np.cos(np.radians(turned)), np.sin(np.radians(turned))
    image.SetDirection((np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ axes).ravel().tolist())
    return sitk.DICOMOrient(image, orientation)


@pytest.mark.parametrize("orientation", ["PIL", "PIR", "ASR", "LPS", "RAS", "SAL", "IPR"])
def test_any_order_and_direction_of_axes_gives_the_same_slices(orientation):
    slices, spacing_mm = volumes.sagittal(volume(orientation=orientation))
    assert np.array_equal(slices, STACK)
    assert spacing_mm == 1.0


def test_left_and_up_are_taken_from_the_header_not_from_the_file():
    # identity: x to the left, y to the back, z to the head; the voxel at right, front, bottom is marked
    array = np.zeros((3, 2, 4), np.int16)
    array[0, 0, 0] = 9
    slices, _ = volumes.sagittal(sitk.GetImageFromArray(array))
    assert slices.shape == (4, 3, 2)
    assert np.argwhere(slices == 9).tolist() == [[0, 2, 0]]  # the right-most slice, lowest row, front column


@pytest.mark.parametrize("turned", [-40, 10, 44])
def test_an_oblique_volume_keeps_its_own_planes(turned):
    assert np.array_equal(volumes.sagittal(volume(turned=turned))[0], STACK)


def test_a_volume_turned_by_more_than_45_degrees_is_not_sagittal():
    with pytest.raises(volumes.Unsuitable, match=r"slices, 4 mm apart, follow each other front to back"):
        volumes.sagittal(volume(turned=50))


def test_an_axial_acquisition_is_not_sagittal():
    axial = sitk.GetImageFromArray(STACK)  # z to the head
    axial.SetSpacing((0.5, 0.5, 4))
    with pytest.raises(
        volumes.Unsuitable, match=r"is not sagittal: its slices, 4 mm apart, follow each other head to feet"
    ):
        volumes.sagittal(axial)


def test_a_slice_axis_between_all_axes_is_named_with_its_angle():
    with pytest.raises(volumes.Unsuitable, match="its slice axis is 55 degrees off left-right; 45 are allowed"):
        volumes.check_slice_axis(1 / np.sqrt(3))


def test_pixels_that_are_not_square_become_squares_of_the_shorter_side_over_the_same_field_of_view():
    stack = np.array([[[0, 4], [8, 12]]], np.int16)
    image, spacing_mm = volumes.sagittal(volume(stack, spacing=(2.0, 1.0, 4.0)))
    assert spacing_mm == 1.0
    assert image.tolist() == [[[0, 1, 3, 4], [8, 9, 11, 12]]]  # linear between centres, level beyond them
    mask, _ = volumes.sagittal(volume(stack, spacing=(2.0, 1.0, 4.0)), is_mask=True)
    assert mask.tolist() == [[[0, 0, 4, 4], [8, 8, 12, 12]]]


def test_the_window_runs_from_the_half_per_cent_to_the_199th_of_200():
    pixels = np.arange(1001, dtype=np.float32).reshape(7, 143)
    windowed = volumes.window(pixels).ravel()
    assert (windowed[5], windowed[6], windowed[500], windowed[995]) == (0, round(255 / 990), 128, 255)
    assert windowed[[0, 1000]].tolist() == [0, 255]  # clipped, at 5 and 995
    assert not volumes.window(np.full((2, 2), 7)).any()


def test_slices_lie_about_the_middle_and_within_the_volume():
    assert list(volumes.neighbours(7, 1, 15)) == [7]
    assert list(volumes.neighbours(7, 3, 15)) == [6, 7, 8]
    assert list(volumes.neighbours(7, 4, 15)) == [6, 7, 8, 9]
    assert list(volumes.neighbours(0, 3, 15)) == [0, 1, 2]
    assert list(volumes.neighbours(14, 3, 15)) == [12, 13, 14]
    assert list(volumes.neighbours(1, 9, 3)) == [0, 1, 2]


def test_the_middle_is_the_mean_over_marked_voxels():
    marked = np.zeros((7, 2, 2), bool)
    marked[4], marked[5, 0, 0] = True, True  # four voxels in slice 4, one in slice 5
    assert volumes.middle(marked) == 4


@pytest.mark.parametrize(
    "change, message",
    [
        pytest.param(
            lambda mask: sitk.ConstantPad(mask, (1, 0, 0)),
            r"has a mask of \(5, 3, 5\) voxels that begins at voxel \(-1, 0, 0\) of its \(4, 3, 5\)",
            id="size",
        ),
        pytest.param(lambda mask: mask.SetOrigin((2, 0, 0)) or mask, "and lies 2.0 mm off its grid", id="origin"),
        pytest.param(lambda mask: mask.SetSpacing((1, 2, 4)) or mask, "and lies 2.0 mm off its grid", id="spacing"),
    ],
)
def test_a_mask_on_another_grid_is_refused(change, message):
    with pytest.raises(volumes.Unsuitable, match=message):
        volumes.onto_grid(volume(), change(volume()))


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "ASR"])
def test_a_mask_in_another_voxel_order_is_turned_onto_its_image(orientation):
    mask = volumes.onto_grid(volume(orientation="SAL"), volume(orientation=orientation))
    assert np.array_equal(volumes.sagittal(mask, is_mask=True)[0], STACK)


def test_a_mask_that_was_cropped_to_its_content_lies_where_its_header_says():
    cropped = sitk.DICOMOrient(volume()[1:3, 2:, 1:4], "RAS")
    expected = np.zeros_like(STACK)
    expected[1:4, 2:, 1:3] = STACK[1:4, 2:, 1:3]
    assert np.array_equal(sitk.GetArrayFromImage(volumes.onto_grid(volume(), cropped)), expected)


def test_a_cropped_mask_half_a_voxel_off_is_refused():
    cropped = volume()[1:3, 1:, :]
    cropped.SetOrigin(cropped.TransformContinuousIndexToPhysicalPoint((0.4, 0.4, 0)))
    with pytest.raises(volumes.Unsuitable, match=r"and lies 0.6 mm off its grid"):
        volumes.onto_grid(volume(), cropped)


def test_labels_are_whole_but_for_the_rounding_of_their_file():
    assert volumes.whole_labels(np.array([0, 254 / 255, 2 * (1 - 1e-9)])).tolist() == [0, 1, 2]
    for odd in (2 / 255, 0.5, 1.03, np.nan, np.inf):
        with pytest.raises(volumes.Unsuitable, match=f"has label {odd:g}, which is no whole number"):
            volumes.whole_labels(np.array([1, odd]))


@pytest.mark.parametrize(
    "spacing, message",
    [
        ((1, 1, 1e-6), "is not sagittal: its slices, 1 mm apart"),
        ((0.01, 40, 40), "has pixels of 0.01 x 40 mm by its header"),
        ((20, 20, 20), "has pixels of 20 x 20 mm by its header; 0.05 to 10 mm are allowed"),
    ],
)
def test_voxels_that_no_scanner_makes_are_refused(spacing, message):
    with pytest.raises(volumes.Unsuitable, match=message):
        volumes.sagittal(volume(spacing=spacing))


def test_a_mask_whose_header_is_rounded_is_accepted():
    mask = volume()
    mask.SetOrigin((0.001, 0, 0))
    assert np.array_equal(sitk.GetArrayFromImage(volumes.onto_grid(volume(), mask)), STACK)


def test_what_is_no_grey_volume_is_refused(tmp_path):
    (tmp_path / "broken.mha").write_text("no volume")
    sitk.WriteImage(sitk.Image([2, 3], sitk.sitkUInt8), tmp_path / "flat.mha")
    for name, message in {"broken": "cannot be read as an image", "flat": "is 2x3 of 8-bit unsigned"}.items():
        with pytest.raises(volumes.Unsuitable, match=message):
            volumes.read(tmp_path / f"{name}.mha")


def test_each_volume_is_cut_and_those_that_cannot_be_used_are_said_and_listed(capsys):
    def cut(name):
        if name == "bad":
            raise volumes.Unsuitable("is not sagittal")
        return volumes.Cut("anna", STACK, 1.0, 2, lambda index: STACK[index] > 0, {"contrast": "T1"})

    description = {"name": "a set"}
    slices = list(volumes.cut_each(["good one", "bad"], cut, 2, description))
    assert [(item.case, item.patient) for item in slices] == [("good-one_slice2", "anna"), ("good-one_slice3", "anna")]
    assert slices[0].columns == {"slice": 2, "mid_sagittal": True, "contrast": "T1"}
    assert np.array_equal(slices[1].image, volumes.window(STACK[3]))
    assert np.array_equal(slices[1].mask, STACK[3] > 0)
    assert description["left_out"] == ["bad is not sagittal"]
    assert capsys.readouterr().out == "left out: bad is not sagittal\n"
    with pytest.raises(StudyError, match="a set: none of 1 volumes can be used; first: bad is not sagittal"):
        list(volumes.cut_each(["bad"], cut, 2, {"name": "a set"}))


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real slices are no part of the repository: {REAL.name} is absent")
def test_real_slices_come_back_from_a_volume_stored_another_way():
    cases = pd.read_csv(REAL / "cases.csv").query("patient == 'spider_5'").sort_values("slice")
    stack = np.stack([cv2.imread(str(REAL / name), cv2.IMREAD_UNCHANGED) for name in cases["image"]])
    stored = volume(stack, (0.46875, 0.46875, 1.8), "LPS", turned=5)
    slices, spacing_mm = volumes.sagittal(stored)
    assert np.array_equal(slices, stack)
    assert spacing_mm == pytest.approx(0.46875)


VOXELS = np.random.default_rng(0).integers(1, 200, (5, 6, 4)).astype(np.int16)


def stored(folder, ending, compressed=False):
    """The bytes of VOXELS in a format, 352 of them the header of a NIfTI."""
    image = sitk.GetImageFromArray(VOXELS)
    image.SetSpacing((1, 1, 4))
    sitk.WriteImage(image, str(folder / f"whole{ending}"), compressed)
    return bytearray((folder / f"whole{ending}").read_bytes())


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
@pytest.mark.parametrize("ending, compressed", [(".nii", False), (".nii.gz", True), (".mha", False), (".mha", True)])
def test_voxels_and_geometry_are_those_that_itk_reads(tmp_path, ending, compressed, kind):
    file = tmp_path / f"a{ending}"
    written = volume(VOXELS.astype(kind), (0.4, 0.61, 3.3), "RAS", turned=11)
    written.SetOrigin((10.3, -20.7, 31.1))
    sitk.WriteImage(written, str(file), compressed)
    expected, found = sitk.ReadImage(str(file)), volumes.load(file)
    assert np.array_equal(sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(expected))
    assert found.GetPixelID() == expected.GetPixelID()
    for field in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(found, field)() == pytest.approx(getattr(expected, field)(), abs=1e-7)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.45, 0.9, 0.99])
@pytest.mark.parametrize(
    "ending, compressed",
    [(".nii", False), (".nii.gz", True), (".mha", False), (".mha", True), (".nrrd", False), (".nrrd", True)],
)
def test_a_file_that_is_cut_off_anywhere_is_refused(tmp_path, ending, compressed, share):
    whole = stored(tmp_path, ending, compressed)
    (tmp_path / f"cut{ending}").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(volumes.Unsuitable, match=r"is the file whole\?"):
        volumes.load(tmp_path / f"cut{ending}")


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd"])
def test_a_damaged_byte_in_a_compressed_file_is_noticed(tmp_path, ending):
    whole = stored(tmp_path, ending, True)
    whole[-60] ^= 255
    (tmp_path / f"damaged{ending}").write_bytes(whole)
    with pytest.raises(volumes.Unsuitable, match=r"is the file whole\?"):
        volumes.load(tmp_path / f"damaged{ending}")


def test_a_header_that_promises_more_than_a_file_can_hold_is_refused_before_memory_is_taken(tmp_path):
    whole = bytes(stored(tmp_path, ".mha", True))
    (tmp_path / "huge.mha").write_bytes(whole.replace(b"DimSize = 4 6 5", b"DimSize = 40000 60000 5"))
    with pytest.raises(volumes.Unsuitable, match=r"is the file whole\?"):
        volumes.load(tmp_path / "huge.mha")


@pytest.mark.parametrize("name", ["A.NII", "a.Nii.Gz", "a.MHA", "a.Nrrd", "plain.nii.gz", "packed.nii"])
def test_the_letters_of_a_suffix_and_a_pack_that_it_does_not_tell_do_not_matter(tmp_path, name):
    _, suffix = split_suffix(tmp_path / name)
    whole = bytes(stored(tmp_path, suffix.removesuffix(".gz")))
    packed = name in ("a.Nii.Gz", "packed.nii")
    (tmp_path / name).write_bytes(gzip.compress(whole) if packed else whole)
    assert np.array_equal(sitk.GetArrayFromImage(volumes.load(tmp_path / name)), VOXELS)


def test_voxels_are_not_taken_from_a_file_beside_that_shares_the_name(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(stored(tmp_path, ".nii")))
    sitk.WriteImage(sitk.GetImageFromArray(0 * VOXELS), str(tmp_path / "a.nii"))
    assert np.array_equal(sitk.GetArrayFromImage(volumes.load(tmp_path / "a.nii.gz")), VOXELS)


HEADERS = {
    "a sheared sform": ("<f", 284, [0.5], r"has voxels of \[1.0, 1.0, 4.0\] mm by its pixdim, \[1.0, 1.118"),
    "axes not at right angles": ("<5f", 284, [0.6, 0, 0, 0, -0.8], "axes that are not at right angles by its header"),
    "no directions": ("<hh", 252, [0, 0], "does not say in its header how the patient lies"),
    "a pixel without size": ("<f", 80, [0.0], r"has voxels of \[0.0, 1.0, 4.0\] mm by its pixdim"),
    "a size that is no number": ("<f", 80, [float("nan")], r"has voxels of \[nan, 1.0, 4.0\] mm by its pixdim"),
    "voxels far behind": ("<f", 108, [1e9], r"is the file whole\?"),
    "complex values": ("<hh", 70, [32, 64], r"is the file whole\?"),
}


@pytest.mark.parametrize("fault", HEADERS)
def test_a_nifti_header_is_named_for_what_is_wrong_in_it(tmp_path, fault):
    form, at, values, message = HEADERS[fault]
    whole = stored(tmp_path, ".nii")
    struct.pack_into(form, whole, at, *values)
    (tmp_path / "odd.nii").write_bytes(whole)
    with pytest.raises(volumes.Unsuitable, match=message):
        volumes.read(tmp_path / "odd.nii")


def test_a_fourth_axis_of_length_one_is_dropped(tmp_path):
    whole = stored(tmp_path, ".nii")
    struct.pack_into("<h", whole, 40, 4)
    (tmp_path / "four.nii").write_bytes(whole)
    assert volumes.load(tmp_path / "four.nii").GetSize() == (4, 6, 5)


def test_zlib_data_longer_than_promised_are_not_unpacked_whole(tmp_path):
    head, mark, data = bytes(stored(tmp_path, ".mha", True)).partition(b"LOCAL\n")
    (tmp_path / "more.mha").write_bytes(head + mark + zlib.compress(zlib.decompress(data) + bytes(10**6)))
    assert np.array_equal(sitk.GetArrayFromImage(volumes.load(tmp_path / "more.mha")), VOXELS)
