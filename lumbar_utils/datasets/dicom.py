"""Sagittal MR series from a folder of DICOM files, to predict on; nothing that names a patient leaves the files.

Patients become p0001, p0002, ... in the order of their first file by path. Of a header only geometry is written.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.errors import InvalidDicomError

from lumbar_utils import StudyError
from lumbar_utils.datasets import volumes
from lumbar_utils.datasets.writing import Slice

FEWEST = 5  # slices of a series; localisers have about three a plane
SAME_DIRECTION = 0.01  # largest difference of direction cosines within a series
SAME_PLACE_MM = 0.01
TAGS = [
    "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "ImageType", "NumberOfFrames", "Rows",
    "ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "PhotometricInterpretation",
    "BurnedInAnnotation",
]  # fmt: skip


def read_source(source: Path, slices: int) -> tuple[dict, Iterator[Slice]]:
    """What was found, and `slices` of each sagittal MR series about its middle one; there are no masks.

    source : folder, searched at any depth, of DICOM files with any names; other files are passed over.
    Raises StudyError if it holds no DICOM file.
    """
    series = _series(source)
    if not series:
        raise StudyError(f"{source} holds no DICOM image, at any depth; name the folder that does")
    description = {
        "name": "DICOM series, sagittal slices",
        "licence": "not stated",
        "labels": {"0": "background"},
        "annotated_levels": [],
    }
    return description, volumes.usable(list(series), lambda name: _cut(name, series[name], slices), description)


def _series(source: Path) -> dict[str, list[tuple[Path, pydicom.Dataset]]]:
    """Pseudonym of a series, p0001_s1, -> its files with their headers, in the order of the paths."""
    patients: dict[str, dict[str, list]] = {}
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        header = _header(path)
        if header is not None and "SeriesInstanceUID" in header:  # others are directories of media
            patient = header.get("PatientID") or header.get("StudyInstanceUID")
            patients.setdefault(patient, {}).setdefault(header.SeriesInstanceUID, []).append((path, header))
    return {
        f"p{number:04}_s{count}": files
        for number, found in enumerate(patients.values(), 1)
        for count, files in enumerate(found.values(), 1)
    }


def _header(path: Path) -> pydicom.Dataset | None:
    """What is needed of a file's header; None if it is no DICOM file. Raises StudyError if it is a broken one."""
    try:
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=TAGS)
    except InvalidDicomError:
        return None
    except Exception as error:  # pydicom raises many kinds on a file that is cut off
        raise StudyError(
            f"{path} cannot be read as DICOM ({type(error).__name__}); remove it or copy it again"
        ) from None


def _cut(name: str, files: list[tuple[Path, pydicom.Dataset]], slices: int) -> Iterator[Slice]:
    """The slices of one series from right to left; only one image is in memory."""
    ordered = _ordered(files)
    centre = len(ordered) // 2
    for index in volumes.about(centre, slices, len(ordered)):
        path, header = ordered[index]
        pixels, spacing_mm = volumes.sagittal(decode(path))
        yield Slice(
            f"{name}_slice{index}", name.partition("_")[0], volumes.window(pixels[0]), None,
            spacing_mm if header.get("PixelSpacing") else float("nan"), volumes.facts(index, centre),
        )  # fmt: skip


def decode(path: Path) -> sitk.Image:
    """One file's image, of any transfer syntax that GDCM knows, rescaled by its slope and intercept.

    MONOCHROME1, whose lowest value is white, is inverted by ITK: the lowest value is black here.
    Raises StudyError if it cannot be decoded.
    """
    try:
        return sitk.ReadImage(str(path), imageIO="GDCMImageIO")
    except RuntimeError:
        raise StudyError(f"the pixels of {path} cannot be decoded; remove it, or export it uncompressed") from None


def _ordered(files: list[tuple[Path, pydicom.Dataset]]) -> list[tuple[Path, pydicom.Dataset]]:
    """The files of a series from right to left. Raises Unsuitable unless it is one sagittal stack of MR images."""
    headers = [header for _, header in files]
    _refuse_what_is_no_plain_mr(headers)
    orientations = np.array([header.ImageOrientationPatient for header in headers], float)
    if np.abs(orientations - orientations[0]).max() > SAME_DIRECTION:
        raise volumes.Unsuitable("has images of several orientations, as a localiser has")
    across = np.cross(orientations[0, :3], orientations[0, 3:])
    volumes.check_slice_axis(across[0])
    if len(files) < FEWEST:
        raise volumes.Unsuitable(f"has {len(files)} images, as a localiser has; {FEWEST} or more are needed")
    places = np.array([header.ImagePositionPatient for header in headers], float) @ (across * np.sign(across[0]))
    order = np.argsort(places)
    if np.diff(places[order]).min() < SAME_PLACE_MM:
        raise volumes.Unsuitable("has several images at one place (echoes or times); export one of them")
    return [files[index] for index in order]


def _refuse_what_is_no_plain_mr(headers: list[pydicom.Dataset]) -> None:
    """Raise Unsuitable for other modalities, localisers, multi-frame files, lacking geometry, or written-on pixels."""
    for header in headers:
        faults = {
            "is no MR": header.get("Modality") != "MR",
            "is a localiser": "LOCALIZER" in (header.get("ImageType") or []),
            "is multi-frame; convert it to one file a slice, or by dcm2niix to NIfTI": (
                header.get("NumberOfFrames") or 1
            )
            > 1,
            "is in colour": not str(header.get("PhotometricInterpretation")).startswith("MONOCHROME"),
            "has text burnt into its pixels, which may name the patient": header.get("BurnedInAnnotation") == "YES",
            "has no position or orientation": not (
                header.get("ImageOrientationPatient") and header.get("ImagePositionPatient")
            ),
            "has no pixels": not header.get("Rows"),
        }
        for fault, found in faults.items():
            if found:
                raise volumes.Unsuitable(fault)
