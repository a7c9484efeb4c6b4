"""Sagittal MR series from a folder of DICOM files, to predict on; nothing that names a patient leaves the files.

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
from lumbar_utils.data.writing import Slice

FEWEST = 5  # slices of a series; localisers have about three a plane
SAME_DIRECTION = 0.01  # largest difference of direction cosines within a series
SAME_PLACE_MM = 0.01
FOREIGN = 0.25  # largest share of a series' images that may be left out as not of its stack
GAP = 1.5  # neighbours so many times farther apart than usual lack a slice between them
BITS = (8, 16, 32)  # of a pixel
SUFFIXES = (".dcm", ".dicom", ".ima")  # of files that claim to be DICOM; most have none
TAGS = [
    "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID", "Modality", "ImageType",
    "NumberOfFrames", "Rows", "Columns", "ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing",
    "PhotometricInterpretation", "SamplesPerPixel", "BurnedInAnnotation",
]  # fmt: skip


class Image(NamedTuple):
    """What is needed of a file's header. fault : why it cannot be used, or empty; geometry is nan then.

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
    """What was found, and `slices` of each sagittal MR series about its middle one; there are no masks.

    source : folder, searched at any depth, of DICOM files with any names; other files are passed over, and broken ones
        are left out, said by name.
    Raises StudyError if it holds no DICOM file that can be read.
    """
    series, broken = _series(source)
    if not series:
        found = f"no DICOM image that can be read but {broken} broken files" if broken else "no DICOM image"
        raise StudyError(f"{source} holds {found}, at any depth; name the folder that does")
    description = {
        "name": "DICOM series, sagittal slices",
        "licence": "not stated",
        "labels": {"0": "background"},
        "annotated_levels": [],
        "left_out": [f"files that cannot be read: {broken}"] if broken else [],
    }

    def cut(name: str) -> Iterator[Slice]:
        return _cut(name, series[name], slices, description)

    return description, volumes.usable(list(series), cut, description)


def _series(source: Path) -> tuple[dict[str, list[Image]], int]:
    """Pseudonym of a series, p0001_s1, -> its images in the order of the paths; and how many files are broken."""
    patients: dict[str, dict[str, list[Image]]] = {}
    broken = 0
    for path in files_in(source) if source.is_dir() else [source]:
        try:
            image = _image(path)
        except Exception as error:  # pydicom raises many kinds on a file that is cut off
            print(f"left out: {path} cannot be read as DICOM ({type(error).__name__}); copy it again or remove it")
            broken += 1
            continue
        if image is not None:
            patients.setdefault(image.patient, {}).setdefault(image.series, []).append(image)
    named = {
        f"p{number:04}_s{count}": images
        for number, found in enumerate(patients.values(), 1)
        for count, images in enumerate(found.values(), 1)
    }
    return named, broken


def _image(path: Path) -> Image | None:
    """A file's header; None if it is no DICOM file, or a directory of media. Raises whatever a broken one causes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an odd value is judged where it is used
        header = _header(path)
        if header is None or header.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
            return None
        fault = _fault(header)
        place = [header.ImageOrientationPatient, header.ImagePositionPatient] if not fault else [[np.nan] * 6] * 2
        spacing = [float(side) for side in header.get("PixelSpacing") or ()]
        return Image(
            path, str(header.get("PatientID") or header.get("StudyInstanceUID")), str(header.SeriesInstanceUID),
            str(header.get("SOPInstanceUID") or path), fault, *(np.array(part, float) for part in place),
            (header.get("Rows"), header.get("Columns"), *np.round(spacing, 3).tolist()),
        )  # fmt: skip


def _header(path: Path) -> pydicom.Dataset | None:
    try:
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=TAGS)
    except InvalidDicomError:
        with path.open("rb") as file:  # the preamble may be missing: then the first element's group comes first
            start = file.read(132)
        if start[:2] in (b"\x02\x00", b"\x08\x00", b"\x00\x08"):
            return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=TAGS, force=True)
        if path.suffix.lower() in SUFFIXES or not any(start):
            raise
        return None


def _fault(header: pydicom.Dataset) -> str:
    """Why an image cannot be used: other modalities, localisers, several frames, no geometry, or written-on pixels."""
    kind, orientation = header.get("SOPClassUID"), header.get("ImageOrientationPatient") or ()
    modality = header.get("Modality") or ("MR" if kind in (MRImageStorage, EnhancedMRImageStorage) else "")
    position = header.get("ImagePositionPatient") or ()
    frames, written = int(header.get("NumberOfFrames") or 1), str(header.get("BurnedInAnnotation")).upper()
    faults = {
        "is no MR": str(modality).upper() != "MR",
        "is a localiser": "LOCALIZER" in (header.get("ImageType") or []),
        "is multi-frame; convert it to one file a slice, or by dcm2niix to NIfTI": (
            frames > 1 or kind == EnhancedMRImageStorage
        ),
        "is in colour": not str(header.get("PhotometricInterpretation")).startswith("MONOCHROME"),
        "has text burnt into its pixels, which may name the patient": written == "YES",
        "has no position or orientation": not _is_geometry(orientation, position),
        "has no pixels": not header.get("Rows"),
        f"has no size of 1 to {volumes.LARGEST} pixels a side": not _is_size(header),
        "has pixels of no size": not all(side > 0 for side in header.get("PixelSpacing") or ()),
    }
    return next((fault for fault, found in faults.items() if found), "")


def _is_size(header: pydicom.Dataset) -> bool:
    """Whether rows and columns are those of an image, with one value a pixel; a damaged header may ask for more."""
    sides = [header.get("Rows"), header.get("Columns")]
    is_grey = header.get("SamplesPerPixel", 1) == 1
    return is_grey and all(isinstance(side, int) and 1 <= side <= volumes.LARGEST for side in sides)


def _is_geometry(orientation, position) -> bool:
    """Whether these are two directions at right angles, and a point."""
    if (len(orientation), len(position)) != (6, 3) or not np.isfinite([*orientation, *position]).all():
        return False
    axes = np.reshape(orientation, (2, 3)).astype(float)
    return bool(np.abs(axes @ axes.T - np.eye(2)).max() < volumes.SHEAR)


def _cut(name: str, images: list[Image], slices: int, description: dict) -> Iterator[Slice]:
    """The slices of one series from right to left; only one image is in memory."""
    stack = _stack(name, images, description)
    centre = len(stack) // 2
    for index in volumes.about(centre, slices, len(stack)):
        pixels, spacing_mm = volumes.sagittal(decode(stack[index].path))
        yield Slice(
            f"{name}_slice{index}", name.partition("_")[0], volumes.window(pixels[0]), None,
            spacing_mm if len(stack[index].grid) > 2 else float("nan"), volumes.facts(index, centre),
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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = pydicom.dcmread(path, force=True)
        list(data.iterall())  # pydicom reads an element when it is asked for
    promised = data.Rows * data.Columns * data.BitsAllocated // 8
    syntax = data.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian)
    if data.BitsAllocated not in BITS or (not syntax.is_compressed and len(data.PixelData) < promised):
        raise ValueError("its pixels are not whole")


def _stack(name: str, images: list[Image], description: dict) -> list[Image]:
    """The images of a series from right to left. Raises Unsuitable unless they are one sagittal stack of MR images.

    Copies are kept once. Single images of another stack, or that cannot be decoded, are left out and said; where
    slices are missing between others is said too.
    """
    once = list({(image.identifier, *image.position): image for image in images[::-1]}.values())[::-1]
    stack = _alike(once)
    kept = {image.path for image in stack}
    foreign = [image for image in once if image.path not in kept]
    _leave_out(name, foreign, "is of another kind, orientation or size than its series", description)
    across = np.cross(stack[0].orientation[:3], stack[0].orientation[3:])
    volumes.check_slice_axis(across[0])
    if len(stack) < FEWEST:
        raise volumes.Unsuitable(f"has {len(stack)} images, as a localiser has; {FEWEST} or more are needed")
    places = {image.path: image.position @ (across * np.sign(across[0])) for image in stack}
    stack.sort(key=lambda image: places[image.path])
    if np.diff([places[image.path] for image in stack]).min() < SAME_PLACE_MM:
        raise volumes.Unsuitable("has several images at one place (echoes or times); export one of them")
    broken = {image.path for image in stack if not _can_be_decoded(image.path)}
    damaged = [image for image in stack if image.path in broken]
    _leave_out(
        name, damaged, "has pixels that cannot be decoded; copy it again, or export it uncompressed", description
    )
    stack = [image for image in stack if image.path not in broken]
    if len(stack) < FEWEST:
        raise volumes.Unsuitable(f"has {len(stack)} images whose pixels can be decoded; {FEWEST} or more are needed")
    _note_gaps(name, np.diff([places[image.path] for image in stack]), description)
    return stack


def _alike(images: list[Image]) -> list[Image]:
    """The images of the commonest orientation and size. Raises Unsuitable if too many are not, or text is burnt in."""
    faults = [image.fault for image in images if image.fault]
    good = [image for image in images if not image.fault]
    most = Counter((*image.orientation.round(1), *image.grid) for image in good).most_common(1)
    alike = []
    if most:
        first = next(image for image in good if (*image.orientation.round(1), *image.grid) == most[0][0])
        alike = [image for image in good if _fits(image, first)]
    if len(images) - len(alike) > FOREIGN * len(images) or any("burnt" in fault for fault in faults):
        sizes = {image.grid for image in good}
        mixed = f"has images of several {'sizes' if len(sizes) > 1 else 'orientations, as a localiser has'}"
        raise volumes.Unsuitable((faults or [mixed])[0])
    return alike


def _fits(image: Image, first: Image) -> bool:
    """Whether two images are of one orientation and one size."""
    apart = np.abs(image.orientation - first.orientation).max()
    return apart <= SAME_DIRECTION and len(image.grid) == len(first.grid) and np.allclose(image.grid, first.grid, 1e-3)


def _can_be_decoded(path: Path) -> bool:
    try:
        return decode(path) is not None
    except StudyError:
        return False


def _leave_out(name: str, images: list[Image], why: str, description: dict) -> None:
    """Say the files, and keep in the description, where nothing may name a patient, how many they are."""
    for image in images:
        print(f"left out: {image.path} {why}")
    if images:
        description["left_out"].append(f"{len(images)} images of {name}: each {why}")


def _note_gaps(name: str, steps: np.ndarray, description: dict) -> None:
    """Say it if slices are missing; steps : distances of neighbours in mm."""
    if steps.max() > GAP * np.median(steps):
        note = f"{name} lacks slices: neighbours lie up to {steps.max():.3g} mm apart, most {np.median(steps):.3g} mm"
        print(f"note: {note}")
        description.setdefault("notes", []).append(note)
