"""Files of other tools: found wherever they lie, and read whole or refused."""

import gzip
import struct
import zlib

import numpy as np
import pytest
import SimpleITK as sitk

from lumbar_utils import StudyError
from lumbar_utils.data import files, volumes

VOXELS = np.random.default_rng(0).integers(1, 200, (5, 6, 4)).astype(np.int16)


def stored(folder, ending, compressed=False):
    """The bytes of VOXELS in a format, 352 of them the header of a NIfTI."""
    image = sitk.GetImageFromArray(VOXELS)
    image.SetSpacing((1, 1, 4))
    sitk.WriteImage(image, str(folder / f"whole{ending}"), compressed)
    return bytearray((folder / f"whole{ending}").read_bytes())


@pytest.mark.parametrize("share", [0.02, 0.1, 0.45, 0.9, 0.99])
@pytest.mark.parametrize(
    "ending, compressed",
    [(".nii", False), (".nii.gz", True), (".mha", False), (".mha", True), (".nrrd", False), (".nrrd", True)],
)
def test_a_file_that_is_cut_off_anywhere_is_refused(tmp_path, ending, compressed, share):
    whole = stored(tmp_path, ending, compressed)
    (tmp_path / f"cut{ending}").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(volumes.Unsuitable, match=r"is the file whole\?"):
        files.load(tmp_path / f"cut{ending}")


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd"])
def test_a_damaged_byte_in_a_compressed_file_is_noticed(tmp_path, ending):
    whole = stored(tmp_path, ending, True)
    whole[-60] ^= 255
    (tmp_path / f"damaged{ending}").write_bytes(whole)
    with pytest.raises(volumes.Unsuitable, match=r"is the file whole\?"):
        files.load(tmp_path / f"damaged{ending}")


def test_a_header_that_promises_more_than_a_file_can_hold_is_refused_before_memory_is_taken(tmp_path):
    whole = bytes(stored(tmp_path, ".mha", True))
    (tmp_path / "huge.mha").write_bytes(whole.replace(b"DimSize = 4 6 5", b"DimSize = 40000 60000 5"))
    with pytest.raises(volumes.Unsuitable, match="of the 24000000000 bytes that its header promises"):
        files.load(tmp_path / "huge.mha")


@pytest.mark.parametrize("name", ["A.NII", "a.Nii.Gz", "a.MHA", "a.Nrrd", "plain.nii.gz", "packed.nii"])
def test_the_letters_of_a_suffix_and_a_pack_that_it_does_not_tell_do_not_matter(tmp_path, name):
    _, suffix = files.split_suffix(tmp_path / name)
    whole = bytes(stored(tmp_path, suffix.removesuffix(".gz")))
    packed = name in ("a.Nii.Gz", "packed.nii")
    (tmp_path / name).write_bytes(gzip.compress(whole) if packed else whole)
    assert np.array_equal(sitk.GetArrayFromImage(files.load(tmp_path / name)), VOXELS)


def test_voxels_are_not_taken_from_a_file_beside_that_shares_the_name(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(stored(tmp_path, ".nii")))
    sitk.WriteImage(sitk.GetImageFromArray(0 * VOXELS), str(tmp_path / "a.nii"))
    assert np.array_equal(sitk.GetArrayFromImage(files.load(tmp_path / "a.nii.gz")), VOXELS)


HEADERS = {
    "a sheared sform": ("<f", 284, [0.5], "axes that are not at right angles, or other voxels than pixdim"),
    "no directions": ("<hh", 252, [0, 0], "does not say in its header how the patient lies"),
    "a pixel without size": ("<f", 80, [0.0], "has voxels of 0 x 1 x 4 mm by its header"),
    "a size that is no number": ("<f", 80, [float("nan")], "has voxels of nan x 1 x 4 mm by its header"),
    "voxels far behind": ("<f", 108, [1e9], "of the 1000000240 bytes that its header promises"),
    "complex values": ("<hh", 70, [32, 64], "of the 1312 bytes that its header promises"),
}


@pytest.mark.parametrize("fault", HEADERS)
def test_a_nifti_header_is_named_for_what_is_wrong_in_it(tmp_path, fault):
    form, at, values, message = HEADERS[fault]
    whole = stored(tmp_path, ".nii")
    struct.pack_into(form, whole, at, *values)
    (tmp_path / "odd.nii").write_bytes(whole)
    with pytest.raises(volumes.Unsuitable, match=message):
        volumes.read(tmp_path / "odd.nii")


def test_axes_that_are_sheared_in_the_only_direction_that_a_header_has_are_named(tmp_path):
    whole = stored(tmp_path, ".nii")
    struct.pack_into("<h", whole, 252, 0)
    struct.pack_into("<f", whole, 284, 0.5)
    (tmp_path / "odd.nii").write_bytes(whole)
    with pytest.raises(volumes.Unsuitable, match="has axes that are not at right angles by its header; resample it"):
        files.load(tmp_path / "odd.nii")


def test_a_fourth_axis_of_length_one_is_dropped(tmp_path):
    whole = stored(tmp_path, ".nii")
    struct.pack_into("<h", whole, 40, 4)
    (tmp_path / "four.nii").write_bytes(whole)
    assert files.load(tmp_path / "four.nii").GetSize() == (4, 6, 5)


def test_links_are_followed_once_and_hidden_files_passed_over(tmp_path):
    (tmp_path / "real" / "deep").mkdir(parents=True)
    for name in ("real/b", "real/deep/a", "real/.hidden", "real/._a"):
        (tmp_path / name).write_text(name)
    (tmp_path / "in").mkdir()
    for link, target in {"one": "real", "two": "real", "file": "real/b"}.items():
        (tmp_path / "in" / link).symlink_to(tmp_path / target)
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "in")
    found = [path.relative_to(tmp_path / "in").as_posix() for path in files.files_in(tmp_path / "in")]
    assert found == ["file", "one/b", "one/deep/a"]


def test_a_link_that_leads_nowhere_is_an_error(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "gone")
    with pytest.raises(StudyError, match="a is a link to a file that is not there; put it there or remove the link"):
        files.files_in(tmp_path)


def test_zlib_data_longer_than_promised_are_not_unpacked_whole(tmp_path):
    head, mark, data = bytes(stored(tmp_path, ".mha", True)).partition(b"LOCAL\n")
    (tmp_path / "more.mha").write_bytes(head + mark + zlib.compress(zlib.decompress(data) + bytes(10**6)))
    assert np.array_equal(sitk.GetArrayFromImage(files.load(tmp_path / "more.mha")), VOXELS)
