"""Scans painted by hand, labelled by a network whose weights name their grey values: known voxel by voxel."""

import dataclasses
import json
import sys

import nibabel
import numpy as np
import pandas as pd
import pydicom
import pytest
import SimpleITK as sitk
import torch
from test_dicom import AXIAL, ID, NAME, write_image, write_series
from typer.testing import CliRunner

from lumbar_utils import LEVELS, StudyError, records, scan
from lumbar_utils.__main__ import app
from lumbar_utils.application import read_trained
from lumbar_utils.data import dicom, dicom_seg, familiarity, volumes
from lumbar_utils.data import folder as canonical
from lumbar_utils.data.folder import Slice
from lumbar_utils.networks.checkpoints import write_checkpoint
from lumbar_utils.networks.models import network_of
from lumbar_utils.study import Study

GREY = np.arange(7) * 40  # of the background and of the levels


def painted(slices=5, bodies=slice(1, 4)) -> np.ndarray:
    """(slices, 64, 48) label map, L1 to S1 downwards in the slices `bodies`; a corner of the first is cut off."""
    labels = np.zeros((slices, 64, 48), np.uint8)
    for value in range(1, 7):
        labels[bodies, 10 * value - 6 : 10 * value + 1, 14:34] = value
        labels[bodies.start, 10 * value - 6 : 10 * value - 4, 14:16] = 0
    return labels


def volume_of(stack, orientation="PIL", spacing=(0.8, 0.8, 4.0), turned=0.0) -> sitk.Image:
    """Slices, head up and front left, stored in any order of axes; turned about the axis of the body, degrees."""
    volume = sitk.GetImageFromArray(stack)
    volume.SetSpacing(spacing)
    volume.SetOrigin((11.5, -40.25, 33.0))
    axes = np.reshape(sitk.DICOMOrientImageFilter.GetDirectionCosinesFromOrientation("PIL"), (3, 3))
    cos, sin = np.cos(np.radians(turned)), np.sin(np.radians(turned))
    volume.SetDirection((np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ axes).ravel().tolist())
    return sitk.DICOMOrient(volume, orientation)


def scan_of(labels, **options) -> sitk.Image:
    return volume_of(GREY.astype(np.int16)[labels], **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a study whose U-Net gives each pixel the level of the nearest of seven grey values.

    It knows what these become in `painted` slices, normalised to mean 0 and standard deviation 1.
    """
    folder = tmp_path_factory.mktemp("trained")
    study = Study("smoke", runs=folder, device="cpu", epochs=1, start_from="none")
    network = network_of(study, "unet")
    with torch.no_grad():
        for name, values in network.named_parameters():
            is_scale = values.ndim == 1 and name.endswith("weight")
            values.fill_(1 if is_scale else 0)
        for block in (network.down[0], network.up[-1]):  # the first channel passes along the uppermost level
            for convolution in (block[0], block[3]):
                convolution.weight[0, 0, 1, 1] = 1
        slice_in_grid = np.pad(GREY[painted()[2]], ((0, 0), (8, 8)))
        network.down[0][1].bias[0] = slice_in_grid.mean() / slice_in_grid.std()  # black is 0: activations let all pass
        grey = torch.from_numpy(GREY / slice_in_grid.std())
        network.classify.weight[:, 0, 0, 0] = 200 * grey
        network.classify.bias[:] = -100 * grey**2
    file = folder / "unet" / "checkpoints" / "final.ckpt"
    write_checkpoint(file, {"made_from": "by hand", "study": "by hand", "state_dict": network.state_dict()})
    records.mark_finished(folder / "unet" / "fit.json", "by hand", [file])
    data = {"name": "painted", "annotated": LEVELS, "taught": LEVELS, "fingerprint": "by hand"}
    records.write_json(folder / "study.json", {"settings": study.settings, "data": data})
    return folder


@pytest.fixture(scope="module")
def labelled(trained):
    """Volume -> labels of that network."""
    network = read_trained(trained, "unet")
    return lambda volume: scan.label(network, volume)


@pytest.mark.parametrize("orientation", ["PIL", "PIR", "ASR", "LPS", "RAS", "LAI", "SAL", "IPR"])
@pytest.mark.parametrize("turned", [0, -31])
def test_labels_lie_on_the_grid_of_the_scan_in_any_order_of_axes(labelled, orientation, turned):
    volume = scan_of(painted(), orientation=orientation, turned=turned)
    label_map = volumes.onto_axes_of(volume, labelled(volume).label_map)
    assert (label_map.GetSize(), label_map.GetSpacing()) == (volume.GetSize(), volume.GetSpacing())
    assert (label_map.GetOrigin(), label_map.GetDirection()) == (volume.GetOrigin(), volume.GetDirection())
    expected = sitk.DICOMOrient(volume_of(painted(), turned=turned), orientation)
    assert np.array_equal(sitk.GetArrayFromImage(label_map), sitk.GetArrayFromImage(expected))


def test_slices_in_reverse_order_get_the_same_labels(labelled):
    forwards, backwards = painted(), painted()[::-1].copy()
    assert np.array_equal(labelled(scan_of(backwards)).label_map, labelled(scan_of(forwards)).label_map[::-1])


def test_pixels_that_are_not_square_get_labels_of_their_own_size(labelled):
    volume = scan_of(painted()[:, :, ::2], spacing=(1.6, 0.8, 4.0))
    labels = labelled(volume)
    assert (labels.images.shape, labels.label_map.shape) == ((5, 64, 48), (5, 64, 24))
    differing = labels.label_map != painted()[:, :, ::2]
    assert differing.sum(axis=2).max() <= 2  # of 24 columns: both ends of a body, where grey values are interpolated


def test_a_single_slice_is_labelled(labelled):
    labels = labelled(scan_of(painted(slices=1, bodies=slice(0, 1))))
    assert np.array_equal(labels.label_map, painted(slices=1, bodies=slice(0, 1)))


def test_the_files_of_a_volume_open_on_its_grid_and_tell_what_was_found(trained, tmp_path):
    file = tmp_path / "spine.v2.nii.gz"
    sitk.WriteImage(scan_of(painted(), orientation="RAS", turned=10), str(file))
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["predict", str(trained), "unet", str(file), str(out)])
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, str(out))
    drawn = [".pdf", ".png", ".svg", ".txt"]
    endings = ["_labels.nii.gz", "_vertebrae.csv", "_measurements.csv", *drawn, *(f"_measured{end}" for end in drawn)]
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [*(f"spine.v2{end}" for end in endings), "predict.json"]
    )
    given, written = nibabel.load(file), nibabel.load(out / "spine.v2_labels.nii.gz")
    assert (written.shape, written.get_data_dtype()) == (given.shape, np.uint8)
    assert written.affine == pytest.approx(given.affine, abs=1e-5)
    read = sitk.ReadImage(str(file)), sitk.ReadImage(str(out / "spine.v2_labels.nii.gz"))
    for field in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(read[1], field)() == pytest.approx(getattr(read[0], field)(), abs=1e-6)
    table = pd.read_csv(out / "spine.v2_vertebrae.csv")
    assert table["level"].tolist() == list(LEVELS)
    assert table["slices"].tolist() == [3] * 6
    assert table["volume_mm3"].tolist() == pytest.approx([(3 * 7 * 20 - 4) * 0.8 * 0.8 * 4] * 6, abs=0.1)
    assert table["confidence"].between(0.99, 1).all()
    measured = pd.read_csv(out / "spine.v2_measurements.csv").set_index(["level", "measure"])
    assert measured.loc[("L3", "depth"), "value"] == pytest.approx(20 * 0.8, abs=0.8)
    assert measured.loc[("L3", "anterior height"), "value"] == pytest.approx(7 * 0.8, abs=0.8)
    caption = (out / "spine.v2.txt").read_text()
    assert "U-Net over spine.v2: slice 2 of 5 from the right, slice 3" in caption
    assert "Not a medical device" in caption
    record = json.loads((out / "predict.json").read_text())
    assert record["scans"]["spine.v2"]["from"] == records.fingerprint_files([file])
    assert record["scans"]["spine.v2"]["levels"] == list(LEVELS)
    assert record["scans"]["spine.v2"]["warnings"] == []
    assert len(record["files"]) == len(endings)


def write_dicom(folder, labels, series="1.2.3.1", **elements):
    """The painted slices in shuffled files, from right to left, with what a DICOM SEG repeats of its source."""
    needed = {"FrameOfReferenceUID": "1.2.3.9", "PatientSex": "O", "StudyTime": "101010", "StudyID": "7"}
    needed |= {"AccessionNumber": "1", "ReferringPhysicianName": "", "SeriesNumber": 3, "InstanceNumber": 1}
    write_series(folder, series, GREY.astype(np.uint16)[labels], **needed | elements)


def test_a_dicom_series_gets_a_label_map_and_a_dicom_seg_that_agree_voxel_by_voxel(trained, tmp_path):
    write_dicom(tmp_path / "in", painted(slices=7))
    write_series(tmp_path / "in" / "axial", "1.9", orientation=AXIAL)
    out = tmp_path / "out"
    arguments = ["predict", str(trained), "unet", str(tmp_path / "in"), str(out), "--dicom-seg"]
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, "left out: p0001_s2 is not sagittal" in result.stdout) == (0, True), result.output
    label_map = sitk.ReadImage(str(out / "p0001_s1_labels.nii.gz"))
    assert (label_map.GetSize(), label_map.GetSpacing()) == ((48, 64, 7), (0.5, 0.5, 4.0))
    assert label_map.GetOrigin() == pytest.approx((12, 0, 0))  # rows x columns of the files point to the right
    assert np.array_equal(sitk.GetArrayFromImage(label_map)[::-1], painted(slices=7))
    segmentation = pydicom.dcmread(out / "p0001_s1_labels.dcm")
    assert [(segment.SegmentLabel, _code(segment)) for segment in segmentation.SegmentSequence] == [
        ("L1", "66794005"), ("L2", "14293000"), ("L3", "36470004"),
        ("L4", "11994002"), ("L5", "49668003"), ("S1", "65985001"),
    ]  # fmt: skip
    assert np.array_equal(_labels_by_file(segmentation, tmp_path / "in"), painted(slices=7))
    told = b"".join(path.read_bytes() for path in out.iterdir() if path.suffix != ".dcm")
    assert not [secret for secret in (NAME.split("^")[0], ID, str(tmp_path)) if secret.encode() in told]


def _code(segment) -> str:
    return segment.SegmentedPropertyTypeCodeSequence[0].CodeValue


def _labels_by_file(segmentation, folder) -> np.ndarray:
    """(slices from right to left, rows, columns) labels that a DICOM SEG gives to the images that it refers to."""
    headers = [pydicom.dcmread(path) for path in folder.glob("IM*")]
    headers.sort(key=lambda header: header.ImagePositionPatient[0])
    identifiers = [header.SOPInstanceUID for header in headers]
    labels = np.zeros((len(headers), headers[0].Rows, headers[0].Columns), np.uint8)
    for frame, groups in zip(segmentation.pixel_array, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        source = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        value = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        labels[identifiers.index(source)][frame > 0] = value
    return labels


def test_a_dicom_slice_that_is_missing_stays_empty_and_the_others_in_place(labelled, tmp_path):
    write_dicom(tmp_path, painted(slices=7, bodies=slice(1, 6)))
    files = sorted(tmp_path.iterdir(), key=lambda path: pydicom.dcmread(path).ImagePositionPatient[0])
    files[3].unlink()
    ((name, images),) = dicom.series_in(tmp_path)[0].items()
    stack = dicom.stack_of(name, images, {"left_out": []})
    volume, numbers = dicom.volume_of(stack)
    expected = painted(slices=7, bodies=slice(1, 6))
    expected[3] = 0
    assert [stack[numbers.index(number)].path for number in (6, 5, 4, 2, 1, 0)] == [*files[:3], *files[4:]]
    assert np.array_equal(labelled(volume).label_map, expected)


def test_a_dicom_slice_that_is_missing_is_warned_of(trained, tmp_path):
    write_dicom(tmp_path / "in", painted(slices=7, bodies=slice(1, 6)))
    next(path for path in (tmp_path / "in").iterdir() if pydicom.dcmread(path).ImagePositionPatient[0] == 0).unlink()
    out = scan.predict_scan(trained, "unet", tmp_path / "in", tmp_path / "out")
    record = json.loads((out / "predict.json").read_text())
    warning = "The scan lacks slices: neighbours lie up to 8 mm apart, most 4 mm."
    assert record["scans"]["p0001_s1"]["warnings"] == [warning]
    assert warning in (out / "p0001_s1.txt").read_text()


def test_no_dicom_seg_is_written_of_images_without_a_frame_of_reference(tmp_path):
    write_dicom(tmp_path, painted(), FrameOfReferenceUID="")
    with pytest.raises(StudyError, match=r"no DICOM SEG .*: its FrameOfReferenceUID is absent; leave --dicom-seg out"):
        dicom_seg.write(tmp_path / "seg.dcm", painted(), sorted(tmp_path.iterdir()), "U-Net")
    assert not (tmp_path / "seg.dcm").exists()


def test_dicom_slices_at_uneven_distances_are_refused(tmp_path):
    write_dicom(tmp_path, painted(slices=7))
    file = next(path for path in tmp_path.iterdir() if pydicom.dcmread(path).ImagePositionPatient[0] == -4)
    data = pydicom.dcmread(file)
    data.ImagePositionPatient = [-5, 0, 0]
    data.save_as(file)
    ((name, images),) = dicom.series_in(tmp_path)[0].items()
    with pytest.raises(
        volumes.Unsuitable, match="has 7 of 7 slices, up to 1 mm off a regular grid of 4 mm; copy all of them"
    ):
        dicom.volume_of(dicom.stack_of(name, images, {"left_out": []}))


def test_a_single_dicom_file_is_labelled(trained, tmp_path):
    pixels = GREY.astype(np.uint16)[painted(slices=1, bodies=slice(0, 1))[0]]
    write_image(tmp_path / "one.dcm", pixels, [0, 0, 0], "1.2")
    out = scan.predict_scan(trained, "unet", tmp_path / "one.dcm", tmp_path / "out")
    found = sitk.GetArrayFromImage(sitk.ReadImage(str(out / "p0001_s1_labels.nii.gz")))
    assert np.array_equal(found, painted(slices=1, bodies=slice(0, 1)))


def bad_source(kind, folder):
    """The path of something that cannot be labelled."""
    file, stack = folder / "bad.nii.gz", GREY.astype(np.int16)[painted()]
    if kind == "axial":
        axial = sitk.GetImageFromArray(stack)
        axial.SetSpacing((0.5, 0.5, 4))
        sitk.WriteImage(axial, str(file))
    elif kind == "4-D":
        nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4, 2), np.int16), np.eye(4)), file)
    elif kind == "constant":
        sitk.WriteImage(volume_of(np.full((5, 64, 48), 7, np.int16)), str(file))
    elif kind == "cut off":
        sitk.WriteImage(volume_of(stack), str(file))
        file.write_bytes(file.read_bytes()[:-20])
    elif kind == "text":
        file = folder / "notes.txt"
        file.write_text("no image")
    elif kind == "axial series":
        write_series(folder / "series", "1.9", orientation=AXIAL)
        return folder / "series"
    elif kind == "no DICOM":
        return folder
    return file


@pytest.mark.parametrize(
    "kind, message",
    [
        ("axial", "nothing in .* can be labelled: bad is not sagittal: its slices, 4 mm apart, follow each other head"),
        ("4-D", "bad is 4x4x4x2 of 16-bit signed integer; a grey volume of three dimensions is needed"),
        ("constant", "bad is empty: each of its slices has one grey value"),
        ("cut off", "bad cannot be read as an image; is the file whole"),
        ("absent", r"there is no .*bad.nii.gz; name a volume \(.nii.gz, .nii, .mha, .nrrd\), or DICOM images"),
        ("text", r"notes.txt holds no DICOM image that can be read \(0 broken files\), and is no volume"),
        ("axial series", "p0001_s1 is not sagittal: its slice axis is 90 degrees off left-right"),
        ("no DICOM", "holds no DICOM image that can be read"),
    ],
)
def test_what_cannot_be_labelled_is_refused_in_one_line_and_nothing_is_written(trained, tmp_path, kind, message):
    source = bad_source(kind, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StudyError, match=message) as error:
        scan.predict_scan(trained, "unet", source, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "options, message",
    [
        (["--dicom-seg"], "--dicom-seg needs DICOM images, to which a DICOM SEG refers"),
        (["--slices", "3"], "--slices cannot be used here: of a scan every slice is labelled"),
    ],
)
def test_an_option_that_a_volume_cannot_have_is_refused(trained, tmp_path, options, message):
    sitk.WriteImage(scan_of(painted()), str(tmp_path / "a.mha"))
    result = CliRunner().invoke(
        app, ["predict", str(trained), "unet", str(tmp_path / "a.mha"), str(tmp_path / "out"), *options]
    )
    assert (result.exit_code, message in result.stderr) == (2, True), result.stderr


def test_an_existing_destination_is_not_overwritten(trained, tmp_path):
    with pytest.raises(StudyError, match="exists already"):
        scan.predict_scan(trained, "unet", tmp_path / "a.mha", tmp_path)


def test_without_highdicom_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(StudyError, match=r'needs highdicom: pip install --editable "\.\[dicom-seg\]"'):
        dicom_seg.refuse_missing()


def test_a_doubtful_scan_is_warned_of(labelled):
    labels = painted()
    labels[labels > 3] = 0
    volume = scan_of(np.where(labels == 3, 6, labels), turned=25)  # S1 right below the second
    found = labelled(volume)
    doubtful = found._replace(vertebrae=found.vertebrae.assign(confidence=[0.55, 0.9, 0.6]))
    assert scan.warnings_of(doubtful, scan.Scan(volume, [], [], []), {}) == [
        "Vertebrae found: L2, L3, L4; five or more are expected in a lumbar scan.",
        "The confidence of L2 (0.55) is below 0.6: all names may be wrong by one level.",
        "The slices are turned by 25 degrees from the sagittal plane or within it, more than 20.",
    ]


def test_the_ranges_that_were_seen_are_those_of_the_images():
    dark, half = np.zeros((10, 20), np.uint8), np.repeat(np.uint8([[0, 200]]), 5, axis=0)
    assert familiarity.seen([dark, half, half], [1.0, 2.0, float("nan")]) == {
        "images": 3,
        "height_mm": [10, 10],
        "width_mm": [4, 20],
        "near_black": [0.5, pytest.approx(0.99)],
        "skewness": [0, 0],
        "median_to_bright": [0, 0],
    }
    assert familiarity.seen([], []) == {"images": 0}


def test_a_scan_like_those_seen_raises_no_warning_and_another_does():
    image = np.random.default_rng(0).gamma(1, 40, (100, 80)).clip(0, 255).astype(np.uint8)
    seen = familiarity.seen([image, image // 2], [2.0, 2.0])
    assert familiarity.unlike(seen, [image], 2.2) == []
    assert familiarity.unlike(seen, [image], 1.0) == [
        "The field of view is 100 mm high (in training 200) and 80 mm wide (in training 160): vertebrae may be missed "
        "or given wrong names."
    ]
    assert familiarity.unlike(seen, [255 - image], 2.0) == [
        "The contrast is unusual: share of near-black pixels 0.00 (in training 0.49 to 0.73), skewness of the grey "
        "values -1.90 (in training 1.90), median over 90th percentile 0.91 (in training 0.29). Vertebrae may be "
        "missed or outlined wrongly."
    ]
    assert familiarity.unlike({}, [image], 1.0) == []


def test_a_notebook_labels_a_named_scan_and_else_the_first_test_image(trained, tmp_path):
    sitk.WriteImage(scan_of(painted()), str(tmp_path / "spine.nrrd"))
    description = {"name": "painted", "licence": "CC0 1.0", "synthetic": False, "annotated_levels": list(LEVELS)}
    description["labels"] = {"0": "background"} | {str(value): level for value, level in enumerate(LEVELS, 1)}
    slices = [Slice(name, name, GREY.astype(np.uint8)[painted()[2]], painted()[2]) for name in ("a", "b")]
    cohort = canonical.read(canonical.write(tmp_path / "data", slices, description))
    cohort = dataclasses.replace(cohort, cases=cohort.cases.assign(split=["train", "test"]))
    of_scan = scan.label_scan(trained, "unet", str(tmp_path / "spine.nrrd"), cohort)
    assert np.array_equal(of_scan.label_map, painted())
    assert [example.case for example in of_scan.examples()] == [
        f"slice {number} of 5 from the right" for number in (2, 3, 4)
    ]
    of_image = scan.label_scan(trained, "unet", "", cohort)
    assert np.array_equal(of_image.label_map, painted()[2:3])
    assert of_image.vertebrae.columns.tolist() == ["level", "confidence", "slices"]
    depths = of_image.measurements().set_index(["level", "measure"]).loc[("L3", "depth")]
    assert (depths["value"], depths["unit"]) == (pytest.approx(20, abs=1), "px")  # the side of its pixels is unknown
