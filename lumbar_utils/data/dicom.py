"""Sagittal MR series from a folder of DICOM files, to predict on, without anything that identifies a patient.

Patients become p0001, p0002, ... in the order of their first file by path. Of a header only geometry is written.
"""

import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    EnhancedMRImageStorage,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    MRImageStorage,
)

from lumbar_utils import StudyError
from lumbar_utils.data import volumes
from lumbar_utils.data.files import files_in
from lumbar_utils.data.folder import Slice

MIN_SLICES = 5  # of a series; localisers have about three a plane
SAME_DIRECTION = 0.01  # largest difference of direction cosines within a series
SAME_PLACE_MM = 0.01
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

    orientation : (6,) direction cosines; position : (3,) mm. grid : rows, columns, spacing.
    """

    path: Path
    patient: str
    series: str
    identifier: str
    fault: str
    orientation: np.ndarray
    position: np.ndarray
    grid: tuple


def read_source(source: Path, slices: int) -> tuple[dict, Iterator[Slice]]:
    """Description of the series, and `slices` of each sagittal MR series about its middle one; there are no masks.

    source : folder, searched at any depth, of DICOM files with any names; other files are ignored, and broken ones
        are left out and reported.
    Raises StudyError if it holds no DICOM file that can be read.
    """
    series, broken = series_in(source)
    if not series:
        content = f"no DICOM image that can be read but {broken} broken files" if broken else "no DICOM image"
        raise StudyError(f"{source} holds {content}, at any depth; name the folder that does")
    description = {
        "name": "DICOM series, sagittal slices",
        "licence": "not stated",
        "labels": {"0": "background"},
        "annotated_levels": [],
        "left_out": [f"files that cannot be read: {broken}"] if broken else [],
    }

    def read_slices(name: str) -> Iterator[Slice]:
        return _read_slices(name, series[name], slices, description)

    return description, volumes.read_usable(list(series), read_slices, description)


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
    header = _dataset(path)
    if header is None or header.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
        return None
    fault = _fault(header)
    unknown = np.full(6, np.nan)
    return Image(
        path=path,
        patient=str(header.get("PatientID") or header.get("StudyInstanceUID")),
        series=str(header.SeriesInstanceUID),
        identifier=str(header.get("SOPInstanceUID") or path),
        fault=fault,
        orientation=unknown if fault else np.array(header.ImageOrientationPatient, float),
        position=unknown if fault else np.array(header.ImagePositionPatient, float),
        grid=(header.get("Rows"), header.get("Columns"), *(round(float(side), 3) for side in _spacing(header))),
    )


def _dataset(path: Path) -> pydicom.Dataset | None:
    try:
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=TAGS)
    except InvalidDicomError:  # the preamble is missing, or it is another kind of file
        with path.open("rb") as file:
            start = file.read(132)
        if start[:2] in FIRST_ELEMENTS:
            return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=TAGS, force=True)
        if path.suffix.lower() in SUFFIXES or not any(start):
            raise
        return None


def _spacing(header: pydicom.Dataset) -> list:
    return header.get("PixelSpacing") or []


def _fault(header: pydicom.Dataset) -> str:
    """Why an image cannot be used: another modality, several frames, no geometry, text in its pixels; else empty."""
    kind = header.get("SOPClassUID")
    modality = header.get("Modality") or ("MR" if kind in (MRImageStorage, EnhancedMRImageStorage) else "")
    is_multi_frame = int(header.get("NumberOfFrames") or 1) > 1 or kind == EnhancedMRImageStorage
    faults = {
        "is no MR": str(modality).upper() != "MR",
        "is a localiser": "LOCALIZER" in (header.get("ImageType") or []),
        "is multi-frame; convert it to one file a slice, or by dcm2niix to NIfTI": is_multi_frame,
        "is in colour": not str(header.get("PhotometricInterpretation")).startswith("MONOCHROME"),
        "has text burnt into its pixels, which may name the patient": (
            str(header.get("BurnedInAnnotation")).upper() == "YES"
        ),
        "has no position or orientation": not _has_geometry(header),
        "has no pixels": not header.get("Rows"),
        f"has no size of 1 to {volumes.MAX_PIXELS} pixels a side": not _has_size(header),
        "has pixels of no size": not all(side > 0 for side in _spacing(header)),
    }
    return next((fault for fault, applies in faults.items() if applies), "")


def _has_size(header: pydicom.Dataset) -> bool:
    """Whether rows and columns are plausible, with one value a pixel; a damaged header may ask for gigabytes."""
    sides = [header.get("Rows"), header.get("Columns")]
    is_grey = header.get("SamplesPerPixel", 1) == 1
    return is_grey and all(isinstance(side, int) and 1 <= side <= volumes.MAX_PIXELS for side in sides)


def _has_geometry(header: pydicom.Dataset) -> bool:
    """Whether there are a position and two directions at right angles."""
    orientation = header.get("ImageOrientationPatient") or ()
    position = header.get("ImagePositionPatient") or ()
    if (len(orientation), len(position)) != (6, 3) or not np.isfinite([*orientation, *position]).all():
        return False
    axes = np.reshape(orientation, (2, 3)).astype(float)
    return bool(np.abs(axes @ axes.T - np.eye(2)).max() < volumes.SHEAR)


def _read_slices(name: str, images: list[Image], slices: int, description: dict) -> Iterator[Slice]:
    """The slices of one series from right to left; only one image is in memory."""
    stack = stack_of(name, images, description)
    centre = len(stack) // 2
    for index in volumes.neighbours(centre, slices, len(stack)):
        pixels, spacing_mm = volumes.sagittal(decode(stack[index].path))
        has_spacing = len(stack[index].grid) > 2
        yield Slice(
            f"{name}_slice{index}", name.partition("_")[0], volumes.window(pixels[0]),
            spacing_mm=spacing_mm if has_spacing else float("nan"), columns=volumes.slice_columns(index, centre),
        )  # fmt: skip


def decode(path: Path) -> sitk.Image:
    """One file's image, of any transfer syntax that GDCM knows, rescaled by its slope and intercept.

    MONOCHROME1, whose lowest value is white, is inverted by ITK: the lowest value is black here.
    Raises StudyError if it cannot be decoded.
    """
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        _check_elements(path)
        return sitk.ReadImage(str(path), imageIO="GDCMImageIO")
    except Exception:  # pydicom raises many kinds on a file that is damaged
        raise StudyError(f"the pixels of {path} cannot be decoded; remove it, or export it uncompressed") from None


def _check_elements(path: Path) -> None:
    """Raise if an element of a file cannot be read, or pixels are missing: GDCM takes gigabytes for some of these."""
    with warnings.catch_warnings(action="ignore"):
        data = pydicom.dcmread(path, force=True)
        list(data.iterall())  # pydicom reads an element when it is asked for
    promised = data.Rows * data.Columns * data.BitsAllocated // 8
    syntax = data.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian)
    if data.BitsAllocated not in BITS or (not syntax.is_compressed and len(data.PixelData) < promised):
        raise ValueError("its pixels are not whole")


def _can_be_decoded(image: Image) -> bool:
    try:
        return decode(image.path) is not None
    except StudyError:
        return False


def stack_of(name: str, images: list[Image], description: dict, least: int = MIN_SLICES) -> list[Image]:
    """The images of a series from right to left. Raises Unsuitable unless they are one sagittal stack of MR images.

    Copies are used once. Single images of another stack, or that cannot be decoded, are left out and reported, and so
    are gaps between slices. least : number of images.
    """
    once = list({(image.identifier, *image.position): image for image in images[::-1]}.values())[::-1]
    stack = _of_one_stack(once)
    _leave_out(name, once, stack, "is of another kind, orientation or size than its series", description)
    across = np.cross(stack[0].orientation[:3], stack[0].orientation[3:])
    volumes.check_slice_axis(across[0])
    if len(stack) < least:
        raise volumes.Unsuitable(f"has {len(stack)} images, as a localiser has; {least} or more are needed")
    leftwards = across * np.sign(across[0])
    stack.sort(key=lambda image: image.position @ leftwards)
    if _steps(stack, leftwards).min(initial=np.inf) < SAME_PLACE_MM:
        raise volumes.Unsuitable("has several images at one place (echoes or times); export one of them")
    decoded = [image for image in stack if _can_be_decoded(image)]
    _leave_out(
        name, stack, decoded, "has pixels that cannot be decoded; copy it again, or export it uncompressed", description
    )
    if len(decoded) < least:
        raise volumes.Unsuitable(f"has {len(decoded)} images whose pixels can be decoded; {least} or more are needed")
    _note_gaps(name, _steps(decoded, leftwards), description)
    return decoded


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
    first = decode(stack[0].path)
    step = np.median(np.abs(np.diff(places))) if len(stack) > 1 else first.GetSpacing()[2]
    numbers = np.rint((places - places.min()) / step).astype(int)
    origin = positions[numbers.argmin()]
    if numbers.max() >= 2 * len(stack):
        raise volumes.Unsuitable(f"has {len(stack)} of {numbers.max() + 1} slices; copy all of them")
    off_mm = np.linalg.norm(positions - origin - numbers[:, None] * step * across, axis=1)
    if off_mm.max() > OFF_GRID * step:
        raise volumes.Unsuitable(
            f"has slices up to {off_mm.max():.2g} mm off a regular grid of {step:.3g} mm; resample it to NIfTI"
        )
    pixels = np.zeros((numbers.max() + 1, *first.GetSize()[1::-1]), np.float32)
    for number, image in zip(numbers, stack, strict=True):
        pixels[number] = sitk.GetArrayFromImage(decode(image.path))[0]
    volume = sitk.GetImageFromArray(pixels)
    volume.SetSpacing((*first.GetSpacing()[:2], float(step)))
    volume.SetOrigin(origin.tolist())
    volume.SetDirection(np.column_stack([along_row, np.cross(across, along_row), across]).ravel().tolist())
    return volume, numbers.tolist()


def _steps(stack: list[Image], leftwards: np.ndarray) -> np.ndarray:
    """Distances of neighbours in mm, along a direction."""
    return np.diff([image.position @ leftwards for image in stack])


def _of_one_stack(images: list[Image]) -> list[Image]:
    """The images of the commonest orientation and size. Raises Unsuitable if too many are not, or text is burnt in."""
    faults = [image.fault for image in images if image.fault]
    good = [image for image in images if not image.fault]
    commonest = Counter((*image.orientation.round(1), *image.grid) for image in good).most_common(1)
    stack = []
    if commonest:
        first = next(image for image in good if (*image.orientation.round(1), *image.grid) == commonest[0][0])
        stack = [image for image in good if _fits(image, first)]
    if len(images) - len(stack) > MAX_FOREIGN * len(images) or any("burnt" in fault for fault in faults):
        differing = "sizes" if len({image.grid for image in good}) > 1 else "orientations, as a localiser has"
        raise volumes.Unsuitable(faults[0] if faults else f"has images of several {differing}")
    return stack


def _fits(image: Image, first: Image) -> bool:
    """Whether two images are of one orientation and one size."""
    difference = np.abs(image.orientation - first.orientation).max()
    is_same_grid = len(image.grid) == len(first.grid) and np.allclose(image.grid, first.grid, 1e-3)
    return difference <= SAME_DIRECTION and is_same_grid


def _leave_out(name: str, images: list[Image], used: list[Image], why: str, description: dict) -> None:
    """Print the files that are not used, and count them in the description, where nothing may identify a patient."""
    paths = {image.path for image in used}
    left_out = [image.path for image in images if image.path not in paths]
    for path in left_out:
        print(f"left out: {path} {why}")
    if left_out:
        description["left_out"].append(f"{len(left_out)} images of {name}: each {why}")


def _note_gaps(name: str, steps: np.ndarray, description: dict) -> None:
    """Report missing slices; steps : distances of neighbours in mm."""
    if len(steps) and steps.max() > GAP * np.median(steps):
        note = f"{name} lacks slices: neighbours lie up to {steps.max():.3g} mm apart, most {np.median(steps):.3g} mm"
        print(f"note: {note}")
        description.setdefault("notes", []).append(note)
