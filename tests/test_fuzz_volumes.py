"""Files with bytes flipped, cut, put in or taken out: read in full, or refused in one line.

FUZZ_EXAMPLES=2000 pytest tests/test_fuzz_volumes.py looks at as many files of each kind.
"""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from test_dicom import write_series
from test_nifti import MASK, write_volume
from test_spider import SPINE, write_spider

from lumbar_utils import StudyError
from lumbar_utils.data.files import named_values
from lumbar_utils.data.folder import read
from lumbar_utils.data.sources import convert
from lumbar_utils.scores.external import _files, _labels, _read_volume

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
# the same few files each time, or as many others as are asked for
SEARCH = settings(
    max_examples=EXAMPLES or 20, derandomize=not EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck)
)
NUMBERS = [b"0", b"-1", b"3", b"1e9", b"nan", b"99999", b"", b"L1", b'"', b"\n", b",", b"\xff", b"\x00", b"[", b"{"]
SOME_BYTES = some.one_of(some.sampled_from(NUMBERS), some.binary(max_size=8))
# where (as a share, of the whole or of its first bytes), how many bytes go, and what comes in their place
CHANGE = some.tuples(some.floats(0, 1), some.sampled_from([400, 10**9]), some.integers(0, 12), SOME_BYTES)


def changed(whole: bytes, changes: list[tuple]) -> bytes:
    for share, length, gone, put in changes:
        at = int(share * min(len(whole), length))
        whole = whole[:at] + put + whole[at + gone :]
    return whole


def nifti(ending, compressed=False):
    """A folder of one volume and its mask, both in one format."""

    def write(folder):
        for path, voxels in ((folder / "a.nii", MASK.astype(np.int16) * 10), (folder / "masks" / "a.nii", MASK)):
            write_volume(path, voxels)
            if ending != ".nii":
                sitk.WriteImage(sitk.ReadImage(str(path)), str(path.with_suffix(ending)), compressed)
                path.unlink()
        (folder / "labels.json").write_text('{"20": "L1", "7": "L2"}')
        (folder / "patients.csv").write_text("file,patient\na,1\n")

    return write


def spider(folder):
    write_spider(folder, [SPINE] * 3)
    (folder / "overview.csv").write_text("new_file_name,subset\n7_t2,training\n")


def volumes_added(folder):
    sitk.WriteImage(sitk.GetImageFromArray(MASK[3:4]), str(folder / "a.nii"))
    sitk.WriteImage(sitk.GetImageFromArray(MASK[3:4]), str(folder / "b.nii.gz"))
    (folder / "dataset.json").write_text('{"labels": {"background": 0, "vertebrae_L1": 20, "L2": [7]}}')


def converted(kind):
    """The slices and masks that a source of this kind gives."""

    def run(folder):
        cohort = read(convert(kind, folder, folder.with_name("out"), 9))
        return [array for _, case in cohort.cases.iterrows() for array in (cohort.image(case), cohort.mask(case))]

    return run


def added(folder):
    labels = _labels(folder, ("L1", "L2"))
    return [_read_volume(file, labels) for file in _files(folder, ["a", "b"]).values()]


# how a source is written, the file that is changed, and how the source is read
SOURCES = {
    "NIfTI": (nifti(".nii"), "a.nii", converted("nifti")),
    "NIfTI mask": (nifti(".nii"), "masks/a.nii", converted("nifti")),
    "packed NIfTI": (nifti(".nii.gz"), "a.nii.gz", converted("nifti")),
    "MetaImage": (nifti(".mha"), "a.mha", converted("nifti")),
    "packed MetaImage": (nifti(".mha", True), "masks/a.mha", converted("nifti")),
    "NRRD": (nifti(".nrrd"), "a.nrrd", converted("nifti")),
    "packed NRRD": (nifti(".nrrd", True), "masks/a.nrrd", converted("nifti")),
    "labels.json": (nifti(".nii"), "labels.json", converted("nifti")),
    "patients.csv": (nifti(".nii"), "patients.csv", converted("nifti")),
    "SPIDER": (spider, "masks/7_t2.mha", converted("spider")),
    "overview.csv": (spider, "overview.csv", converted("spider")),
    "DICOM": (write_series, "IM3", converted("dicom")),
    "added NIfTI": (volumes_added, "a.nii", added),
    "added packed NIfTI": (volumes_added, "b.nii.gz", added),
    "added dataset.json": (volumes_added, "dataset.json", added),
}


def outcome(source, change):
    """What is read of a source one of whose files was changed, or None where it is refused in one line."""
    write, name, run = SOURCES[source]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "in"
        source.mkdir()
        write(source)
        (source / name).write_bytes(change((source / name).read_bytes()))
        try:
            return run(source)
        except StudyError as refused:
            assert str(refused) and "\n" not in str(refused) and len(str(refused)) < 1000, str(refused)
            return None


@pytest.mark.parametrize("source", SOURCES)
@SEARCH
@given(changes=some.lists(CHANGE, min_size=1, max_size=3))
def test_a_damaged_file_is_read_in_full_or_refused_in_one_line(source, changes):
    found = outcome(source, lambda whole: changed(whole, changes))
    assert found is None or all(array.dtype == np.uint8 and array.ndim == 2 for array in found)


@pytest.mark.parametrize(
    "source, old, new",
    [
        ("MetaImage", b"NDims = 3\n", b"NDims = -1"),  # ITK crashed
        ("packed MetaImage", b"NDims = 3\nBina", b"NDims = 1e9"),
        ("SPIDER", b"ElementSpacing", b"I,ementSpacing"),  # ITK took 1 mm
        ("NIfTI", b"\x05\x00\x04\x00\x06\x00", b"\x05\x00\xff\x7f\xff\x7f"),
        ("DICOM", b"(\x00\x10\x00US\x02\x00\x10\x00", b"(\x00\x10\x00US\x02\x00\xff\xff"),  # 65535 rows
        (
            "DICOM",
            b"(\x00\x10\x00US\x02\x00\x10\x00",
            b"(\x00\x10\x00US\x04\x00\x10\x00\x10\x00",
        ),  # two numbers of rows
        ("DICOM", b"(\x00\x00\x01US\x02\x00", b"(\x00\x00\x015\x933\x9e"),  # bits as a list: GDCM took gigabytes
        ("overview.csv", b"\n7_t2,training", b""),
    ],
)
def test_damage_that_once_crashed(source, old, new):
    def change(whole):
        assert old in whole
        return whole.replace(old, new, 1)

    found = outcome(source, change)
    if source == "DICOM":
        assert len(found) == 12  # the other images of the series; one fewer
    else:
        assert (found is None) == (source != "overview.csv")


@pytest.mark.parametrize(
    "source", [name for name, (_, file, _) in SOURCES.items() if not file.endswith(("json", "csv"))]
)
@SEARCH
@given(share=some.floats(0, 1, exclude_max=True))
def test_a_file_that_is_cut_off_gives_all_or_nothing(source, share):
    found = outcome(source, lambda whole: whole[: int(share * len(whole))])
    expected = outcome(source, lambda whole: whole)
    if source == "DICOM" and found is not None:  # an image less, and said
        assert len(found) == 12 and all(any(np.array_equal(a, b) for b in expected) for a in found)
    elif found is not None:
        assert all(map(np.array_equal, found, expected)) and len(found) == len(expected)


@SEARCH
@given(
    labels=some.recursive(
        some.one_of(some.none(), some.booleans(), some.integers(), some.floats(), some.sampled_from(["L1", "1", "x"])),
        lambda inner: some.one_of(
            some.lists(inner), some.dictionaries(some.sampled_from(["L1", "l2", "1", "0"]), inner)
        ),
    )
)
def test_labels_of_any_json_are_names_by_value_or_refused(labels):
    try:
        named = named_values(labels, Path("labels.json"))
    except StudyError as refused:
        assert "\n" not in str(refused)
    else:
        assert all(isinstance(value, int) and isinstance(name, str) for value, name in named.items())
