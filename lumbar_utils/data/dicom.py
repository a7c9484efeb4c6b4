"""Sagittal MR series from a folder of DICOM files, to predict on, without anything that identifies a patient.

Patients become p0001, p0002, ... in the order of their first file by path. Of a header only geometry is written.
"""

import statistics
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.uid import EnhancedMRImageStorage, ImplicitVRLittleEndian, MediaStorageDirectoryStorage, MRImageStorage

from lumbar_utils import StudyError
from lumbar_utils.data import volumes
from lumbar_utils.data.files import files_in
from lumbar_utils.data.folder import Slice

MIN_SLICES = 5  # of a series; localisers have about three a plane
SAME_DIRECTION = 0.01  # largest difference of direction cosines within a series
SAME_PLACE_MM = 0.01
MAX_PIXELS = 4096  # along a side of an image
MAX_FOREIGN = 0.25  # largest share of a series' images that may be left out as not of its stack
GAP = 1.5  # neighbours so many times farther apart than usual lack a slice between them
OFF_GRID = 0.1  # largest distance of an image from its place in a regular stack, in steps
BITS = (8, 16, 32)  # of a pixel
SUFFIXES = (".dcm", ".dicom", ".ima")  # of files that claim to be DICOM; most have none
FIRST_ELEMENTS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")  # groups of the first element of a file without preamble
TAGS = [
    "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID", "Modality", "ImageType",
    "NumberOfFrames", "Rows", "Columns", "ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing",
    "PhotometricInterpretation", "SamplesPerPixel", "BurnedInAnnotation",
]  # fmt: skip


class Image(NamedTuple):
    """The needed part of a file's header. fault : why it cannot be used, or empty; its geometry is nan then.

    orientation : (6,) direction cosines; position : (3,) mm. grid : rows, columns, and the sides of a pixel in mm.
    decoded : see `decode`; None until `stack_of`.
    """

    path: Path
    patient: str
    series: str
    identifier: str
    fault: str
    orientation: np.ndarray
    position: np.ndarray
    grid: tuple
    decoded: sitk.Image | None = None


def read_source(source: Path, slices: int) -> tuple[dict, Iterator[Slice]]:
    """Description of the series, and `slices` of each sagittal MR series about its middle one; there are no masks.

    source : folder, searched at any depth, of DICOM files with any names; other files are ignored, and broken ones
        are left out and reported.
    Raises StudyError if it holds no DICOM file that can be read.
    """
    series, broken = series_in(source)
    if not series:
        raise StudyError(
            f"{source} holds no DICOM image that can be read, at any depth ({broken} broken files); name the folder "
            "that does"
        )
    description = {
        "name": "DICOM series, sagittal slices",
        "licence": "not stated",
        "labels": {0: "background"},
        "annotated_levels": [],
        "left_out": [f"files that cannot be read: {broken}"] if broken else [],
    }

    def cut(name: str) -> volumes.Cut:
        stack = stack_of(name, series[name], description)
        squared = [volumes.sagittal(image.decoded) for image in stack]
        has_spacing = len(stack[0].grid) > 2
        return volumes.Cut(
            patient=name.partition("_")[0],
            images=[pixels[0] for pixels, _ in squared],
            spacing_mm=squared[0][1] if has_spacing else float("nan"),
            centre=len(stack) // 2,
            mask_of=lambda _: None,
        )

    return description, volumes.cut_each(list(series), cut, slices, description)


def series_in(source: Path) -> tuple[dict[str, list[Image]], int]:
    """Pseudonym of a series, p0001_s1, -> its images in the order of their paths; and how many files are broken."""
    patients: dict[str, dict[str, list[Image]]] = {}
    broken = 0
    for path in files_in(source) if source.is_dir() else [source]:
        try:
            with warnings.catch_warnings(action="ignore"):  # an odd value is judged where it is used
                image = _read_header(path)
        except Exception as error:  # pydicom raises many kinds on a file that is cut off
            print(f"left out: {path} cannot be read as DICOM ({type(error).__name__}); copy it again or remove it")
            broken += 1
            continue
        if image is not None:
            patients.setdefault(image.patient, {}).setdefault(image.series, []).append(image)
    named = {}
    for number, series in enumerate(patients.values(), 1):
        for count, images in enumerate(series.values(), 1):
            named[f"p{number:04}_s{count}"] = images
    return named, broken


def _read_header(path: Path) -> Image | None:
    """A file's header; None if it is no DICOM file, or a directory of media. Broken files raise errors of any kind."""
    with path.open("rb") as file:
        start = file.read(132)
    has_no_preamble = start[:2] in FIRST_ELEMENTS
    may_be_dicom = has_no_preamble or start[128:] == b"DICM" or path.suffix.lower() in SUFFIXES
    if any(start) and not may_be_dicom:
        return None
    header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=TAGS, force=has_no_preamble)
    if header.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
        return None
    fault = _fault(header)
    geometry = np.full(9, np.nan)
    if not fault:
        geometry = np.array([*header.ImageOrientationPatient, *header.ImagePositionPatient], float)
    return Image(
        path=path,
        patient=str(header.get("PatientID") or header.get("StudyInstanceUID")),
        series=str(header.SeriesInstanceUID),
        identifier=str(header.get("SOPInstanceUID") or path),
        fault=fault,
        orientation=geometry[:6],
        position=geometry[6:],
        grid=(header.get("Rows"), header.get("Columns"), *(round(float(side), 3) for side in _spacing(header))),
    )


def _spacing(header: pydicom.Dataset) -> list:
    return header.get("PixelSpacing") or []


def _fault(header: pydicom.Dataset) -> str:
    """Why an image cannot be used: another modality, several frames, no geometry, text in its pixels; else empty."""
    kind = header.get("SOPClassUID")
    modality = header.get("Modality") or ("MR" if kind in (MRImageStorage, EnhancedMRImageStorage) else "")
    is_grey = str(header.get("PhotometricInterpretation")).startswith("MONOCHROME")
    sides = [header.get("Rows"), header.get("Columns")]
    has_size = all(isinstance(side, int) and 1 <= side <= MAX_PIXELS for side in sides)
    is_multi_frame = int(header.get("NumberOfFrames") or 1) > 1 or kind == EnhancedMRImageStorage
    faults = {
        "is no MR": str(modality).upper() != "MR",
        "is a localiser": "LOCALIZER" in (header.get("ImageType") or []),
        "is multi-frame; convert it to one file a slice, or by dcm2niix to NIfTI": is_multi_frame,
        "is in colour": not is_grey or header.get("SamplesPerPixel", 1) != 1,
        "has text burnt into its pixels, which may name the patient": (
            str(header.get("BurnedInAnnotation")).upper() == "YES"
        ),
        "has no position or orientation": not _has_geometry(header),
        f"has no size of 1 to {MAX_PIXELS} pixels a side": not has_size,
        "has pixels of no size": not all(side > 0 for side in _spacing(header)),
    }
    return next((fault for fault, applies in faults.items() if applies), "")


def _has_geometry(header: pydicom.Dataset) -> bool:
    """Whether there are a position and two directions at right angles."""
    orientation = header.get("ImageOrientationPatient") or ()
    position = header.get("ImagePositionPatient") or ()
    if (len(orientation), len(position)) != (6, 3) or not np.isfinite([*orientation, *position]).all():
        return False
    axes = np.reshape(orientation, (2, 3)).astype(float)
    return bool(np.abs(axes @ axes.T - np.eye(2)).max() < volumes.SHEAR)


def decode(path: Path) -> sitk.Image | None:
    """One file's image, of any transfer syntax that GDCM knows, rescaled by its slope and intercept; None if damaged.

    MONOCHROME1, whose lowest value is white, is inverted by ITK: the lowest value is black here.
    """
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        with warnings.catch_warnings(action="ignore"):
            data = pydicom.dcmread(path, force=True)
            list(data.iterall())  # reads every element: GDCM takes gigabytes for some that are damaged
        syntax = data.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian)
        promised = data.Rows * data.Columns * data.BitsAllocated // 8
        if data.BitsAllocated in BITS and (syntax.is_compressed or len(data.PixelData) >= promised):
            return sitk.ReadImage(str(path), imageIO="GDCMImageIO")
    except Exception:  # pydicom raises many kinds on a file that is damaged; `stack_of` reports it as left out
        return None
    return None


def stack_of(name: str, images: list[Image], description: dict, least: int = MIN_SLICES) -> list[Image]:
    """The images of a series from right to left, decoded. Raises Unsuitable unless they are one sagittal stack of MR.

    Copies are used once. Single images of another stack, or that cannot be decoded, are left out and reported, and so
    are gaps between slices. least : number of images.
    """
    once = list({(image.identifier, *image.position): image for image in images[::-1]}.values())[::-1]
    alike = _of_one_stack(once)
    _leave_out(name, once, alike, "is of another kind, orientation or size than its series", description)
    across = np.cross(alike[0].orientation[:3], alike[0].orientation[3:])
    volumes.check_slice_axis(across[0])
    decoded = [image._replace(decoded=decode(image.path)) for image in alike]
    stack = [image for image in decoded if image.decoded is not None]
    why = "has pixels that cannot be decoded; copy it again, or export it uncompressed"
    _leave_out(name, alike, stack, why, description)
    if len(stack) < least:
        raise volumes.Unsuitable(f"has {len(stack)} images that can be decoded; {least} or more are needed")
    leftwards = across * np.sign(across[0])
    stack.sort(key=lambda image: image.position @ leftwards)
    steps_mm = np.diff([image.position @ leftwards for image in stack])
    if steps_mm.min(initial=np.inf) < SAME_PLACE_MM:
        raise volumes.Unsuitable("has several images at one place (echoes or times); export one of them")
    if len(steps_mm) and steps_mm.max() > GAP * np.median(steps_mm):
        usual = f"{np.median(steps_mm):.3g} mm"
        note = f"{name} lacks slices: neighbours lie up to {steps_mm.max():.3g} mm apart, most {usual}"
        print(f"note: {note}")
        description.setdefault("notes", []).append(note)
    return stack


def _of_one_stack(images: list[Image]) -> list[Image]:
    """The images of the usual orientation and size. Raises Unsuitable if too many are not, or text is burnt in."""
    faults = [image.fault for image in images if image.fault]
    good = [image for image in images if not image.fault]
    stack = []
    if good:
        grid = statistics.mode(image.grid for image in good)
        usual = np.median([image.orientation for image in good], axis=0)
        stack = [
            image for image in good if image.grid == grid and np.abs(image.orientation - usual).max() <= SAME_DIRECTION
        ]
    if len(images) - len(stack) > MAX_FOREIGN * len(images) or any("burnt" in fault for fault in faults):
        raise volumes.Unsuitable(faults[0] if faults else "has images of several sizes or orientations")
    return stack


def _leave_out(name: str, images: list[Image], used: list[Image], why: str, description: dict) -> None:
    """Print the files that are not used, and count them in the description, where nothing may identify a patient."""
    left_out = {image.path for image in images} - {image.path for image in used}
    for path in sorted(left_out):
        print(f"left out: {path} {why}")
    if left_out:
        description["left_out"].append(f"{len(left_out)} images of {name}: each {why}")


def volume_of(stack: list[Image]) -> tuple[sitk.Image, list[int]]:
    """The volume of a stack (see `stack_of`), and the number of each image's slice along its third axis.

    Rows and columns are those of the images; a slice that is missing in between is 0 everywhere. float32.
    Raises Unsuitable if the pixels have no size, or the images do not lie on one regular grid.
    """
    if len(stack[0].grid) < 4:
        raise volumes.Unsuitable("has pixels of no size (PixelSpacing); export it again from the scanner or archive")
    along_row = stack[0].orientation[:3] / np.linalg.norm(stack[0].orientation[:3])
    across = np.cross(along_row, stack[0].orientation[3:])
    across /= np.linalg.norm(across)
    positions = np.array([image.position for image in stack])
    places = positions @ across
    first = stack[0].decoded
    step = np.median(np.abs(np.diff(places))) if len(stack) > 1 else first.GetSpacing()[2]
    numbers = np.rint((places - places.min()) / step).astype(int)
    origin = positions[numbers.argmin()]
    off_mm = np.linalg.norm(positions - origin - numbers[:, None] * step * across, axis=1)
    if off_mm.max() > OFF_GRID * step or numbers.max() >= 2 * len(stack):
        raise volumes.Unsuitable(
            f"has {len(stack)} of {numbers.max() + 1} slices, up to {off_mm.max():.2g} mm off a regular grid of "
            f"{step:.3g} mm; copy all of them, or resample it to NIfTI"
        )
    pixels = np.zeros((numbers.max() + 1, *first.GetSize()[1::-1]), np.float32)
    for number, image in zip(numbers, stack, strict=True):
        pixels[number] = sitk.GetArrayFromImage(image.decoded)[0]
    volume = sitk.GetImageFromArray(pixels)
    volume.SetSpacing((*first.GetSpacing()[:2], float(step)))
    volume.SetOrigin(origin.tolist())
    volume.SetDirection(np.column_stack([along_row, np.cross(across, along_row), across]).ravel().tolist())
    return volume, numbers.tolist()
