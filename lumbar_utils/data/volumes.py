"""Volumes in NIfTI, MetaImage and NRRD, read whole or refused, and cut into sagittal slices of any orientation.

Slices are head up, front left, with square pixels of 8 bits. The header's directions alone decide which axis is which,
never the order of the axes in a file.
"""

import gzip
import math
import re
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
import SimpleITK as sitk
from nibabel.imageglobals import LoggingOutputSuppressor

from lumbar_utils import StudyError
from lumbar_utils.data.files import split_suffix
from lumbar_utils.data.folder import MAX_SPACING_MM, MIN_SPACING_MM, Slice

GZIP = b"\x1f\x8b"  # how a packed file begins, whatever its suffix
FROM_RAS = np.array([-1, -1, 1])  # NIfTI's world runs to the right and front, ITK's to the left and back
SCANNER = 1  # code of a NIfTI's sform
METAIMAGE = {  # type of a voxel -> numpy's
    "MET_CHAR": "i1", "MET_SHORT": "i2", "MET_INT": "i4", "MET_LONG_LONG": "i8", "MET_FLOAT": "f4",
    "MET_UCHAR": "u1", "MET_USHORT": "u2", "MET_UINT": "u4", "MET_ULONG_LONG": "u8", "MET_DOUBLE": "f8",
}  # fmt: skip

FRAME = "PIL"  # columns run to the back, rows down, slices to the left; ITK names an axis by where it leads
MIN_LEFTWARDS = np.cos(np.radians(45))  # of the direction of the slice axis
COARSER = 1.5  # an axis so much coarser than left-right is the slice axis
SHEAR = 0.01  # cosine between two axes of a header that still count as at right angles
ROUNDING_TO_0 = 1e-3
ROUNDING = 0.02  # largest error of a label: half a step where 255 steps share 10 labels
PERCENTILES = (0.5, 99.5)  # of a slice's intensities, that become 0 and 255


class Unsuitable(StudyError):
    """A volume that cannot be used; the message continues the volume's name and gives the reason."""


def load(path: Path) -> sitk.Image:
    """A volume or an image with all of its voxels; its origin is nan if the header does not say how the patient lies.

    Raises Unsuitable if it is cut off, damaged, or cannot be read.
    """
    readers = {".nii.gz": _read_nifti, ".nii": _read_nifti, ".mha": _read_metaimage, ".nrrd": _read_nrrd}
    try:
        with warnings.catch_warnings(action="ignore"), LoggingOutputSuppressor():
            return readers[split_suffix(path)[1]](path)
    except (Unsuitable, PermissionError):
        raise
    except Exception:  # damaged files raise errors of many kinds, and ITK's message is a page
        raise Unsuitable("cannot be read as an image; is the file whole?") from None


def _read_nifti(path: Path) -> sitk.Image:
    """ITK itself would fill with zeros what is missing of the voxels, and make sides of 0 mm 1 mm."""
    data = path.read_bytes()
    if data.startswith(GZIP):
        data = gzip.decompress(data)
    is_second = nibabel.Nifti2Header.may_contain_header(data[:540])
    kind = nibabel.Nifti2Image if is_second else nibabel.Nifti1Image
    image = kind.from_bytes(data)
    voxels = image.dataobj
    if voxels.offset + math.prod(voxels.shape) * voxels.dtype.itemsize > len(data):
        raise EOFError  # nibabel would first make room for all that the header promises, gigabytes if it is damaged
    stored = kind.header_class(data[: kind.header_class.sizeof_hdr], check=False)  # nibabel mends sides of 0 mm, too
    has_qform, has_sform = (image.header[name] > 0 for name in ("qform_code", "sform_code"))
    is_qform = has_qform and image.header["sform_code"] != SCANNER  # ITK's choice where they differ
    affine = image.get_qform() if is_qform else image.affine
    axes = FROM_RAS[:, None] * affine[:3, :3]
    spacing, sides = np.abs(stored["pixdim"][1:4]), np.linalg.norm(axes, axis=0)
    if image.ndim > 2 and not np.allclose(spacing, sides, SHEAR, 0):
        raise Unsuitable(
            f"has voxels of {spacing.tolist()} mm by its pixdim, {sides.tolist()} mm by its qform or sform; mend it"
        )
    origin = FROM_RAS * affine[:3, 3]
    if not (has_qform or has_sform):
        origin = np.full(3, np.nan)
    return _volume(np.asanyarray(voxels).T, spacing, origin, axes / sides)


def _read_metaimage(path: Path) -> sitk.Image:
    """ITK itself crashes on damaged headers, and would fill with zeros what is missing of packed voxels."""
    header, data = re.split(rb"^ElementDataFile *= *LOCAL\r?\n", path.read_bytes(), maxsplit=1, flags=re.MULTILINE)
    fields = dict(re.findall(r"^(\w+) *= *(.*?) *\r?$", header.decode("ascii"), re.MULTILINE))
    is_true = {name: value.lower() == "true" for name, value in fields.items()}
    if is_true.get("CompressedData"):
        data = zlib.decompress(data, zlib.MAX_WBITS | 32)
    if not is_true["BinaryData"] or fields.get("ElementNumberOfChannels", "1") != "1":
        raise Unsuitable("has voxels that are text or several values each; export it as grey and binary")
    is_big = is_true.get("BinaryDataByteOrderMSB") or is_true.get("ElementByteOrderMSB")
    kind = np.dtype(METAIMAGE[fields["ElementType"]]).newbyteorder(">" if is_big else "<")
    size = [int(side) for side in fields["DimSize"].split()]
    spacing, origin, axes = (
        np.array(fields[name].split(), float) for name in ("ElementSpacing", "Offset", "TransformMatrix")
    )
    voxels = np.frombuffer(data, kind, math.prod(size)).reshape(size[::-1])
    return _volume(voxels, spacing, origin, axes.reshape(len(size), len(size)).T)


def _read_nrrd(path: Path) -> sitk.Image:
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    volume = sitk.ReadImage(str(path), imageIO="NrrdImageIO")
    if volume.GetDimension() == 3 and not volume.HasMetaDataKey("NRRD_space"):
        volume.SetOrigin((np.nan,) * 3)
    return volume


def _volume(voxels: np.ndarray, spacing: np.ndarray, origin: np.ndarray, axes: np.ndarray) -> sitk.Image:
    """A volume of voxels (slices, rows, columns), with its geometry; a fourth axis of length 1 is dropped.

    spacing : mm. origin : (3,) mm. axes : (3, 3), each axis a column.
    """
    if voxels.ndim == 4 and len(voxels) == 1:
        voxels = voxels[0]
    volume = sitk.GetImageFromArray(voxels.astype(voxels.dtype.newbyteorder("=")), isVector=False)
    if voxels.ndim == 3:
        volume.SetSpacing(np.array(spacing[:3], float).tolist())
        volume.SetOrigin(origin[:3].tolist())
        volume.SetDirection(axes[:3, :3].ravel().tolist())
    return volume


def read(path: Path) -> sitk.Image:
    """A grey volume as it is stored. Raises Unsuitable if it cannot be read, or is anything else."""
    volume = load(path)
    kind, size = volume.GetPixelIDTypeAsString(), "x".join(map(str, volume.GetSize()))
    if volume.GetDimension() != 3 or " of " in kind:  # vector or complex
        raise Unsuitable(f"is {size} of {kind}; a grey volume of three dimensions is needed")
    if not np.isfinite([*volume.GetOrigin(), *volume.GetDirection()]).all():
        raise Unsuitable("does not say in its header how the patient lies (qform, sform or space); export it again")
    axes = np.reshape(volume.GetDirection(), (3, 3))
    if np.abs(axes.T @ axes - np.eye(3)).max() > SHEAR:
        raise Unsuitable("has axes that are not at right angles by its header; resample it")
    return volume


def oriented(volume: sitk.Image) -> sitk.Image:
    """The volume in FRAME: slices from right to left, each head up and front left, its voxels as they are.

    An oblique volume keeps its own planes. Raises Unsuitable if it was not acquired sagittally.
    """
    in_frame = sitk.DICOMOrient(volume, FRAME)
    to_back, down, to_left = in_frame.GetSpacing()
    check_slice_axis(in_frame.GetDirection()[2])
    if max(to_back, down) > COARSER * to_left and in_frame.GetSize()[2] > 1:
        axis = "front to back" if to_back > down else "head to feet"
        raise Unsuitable(f"is not sagittal: its slices, {max(to_back, down):.2g} mm apart, follow each other {axis}")
    return in_frame


def sagittal(volume: sitk.Image, is_mask: bool = False) -> tuple[np.ndarray, float]:
    """(slices, height, width) from right to left, each head up and front left, and the side of a pixel in mm.

    Pixels that are not square are resampled to squares of their shorter side, images linearly (float32), masks to the
    nearest. An oblique volume keeps its own planes. Raises Unsuitable if it was not acquired sagittally.
    """
    in_frame = oriented(volume)
    *sides, _ = in_frame.GetSpacing()
    if min(sides) < MIN_SPACING_MM or max(sides) > MAX_SPACING_MM:
        raise Unsuitable(
            f"has pixels of {sides[0]:g} x {sides[1]:g} mm by its header; {MIN_SPACING_MM} to {MAX_SPACING_MM} mm are "
            "allowed"
        )
    squared = _square(in_frame if is_mask else sitk.Cast(in_frame, sitk.sitkFloat32), is_mask)
    return sitk.GetArrayFromImage(squared), min(sides)


def oblique_deg(volume: sitk.Image) -> float:
    """The largest angle between an axis of a volume and the axis of the body next to it, degrees."""
    cosines = np.abs(np.reshape(volume.GetDirection(), (3, 3))).max(axis=0)
    return float(np.degrees(np.arccos(np.clip(cosines, 0, 1)).max()))


def of_slices(slices: np.ndarray) -> sitk.Image:
    """A volume of (slices, height, width) from right to left, each head up and front left, in voxels of 1 mm."""
    volume = sitk.GetImageFromArray(slices)
    volume.SetDirection((0, 0, 1, 1, 0, 0, 0, -1, 0))
    return volume


def onto_axes_of(volume: sitk.Image, labels: np.ndarray) -> sitk.Image:
    """Labels of the slices of `oriented(volume)` on the volume's own grid, in the order of its axes.

    labels : (slices, height, width). Size, spacing, origin and direction are those of `volume`.
    """
    in_frame = sitk.GetImageFromArray(labels)
    in_frame.CopyInformation(sitk.DICOMOrient(volume, FRAME))
    axes = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(volume.GetDirection())
    on_grid = sitk.DICOMOrient(in_frame, axes)
    on_grid.CopyInformation(volume)  # equal but for rounding
    return on_grid


def check_slice_axis(leftwards: float) -> None:
    """Raise Unsuitable if the slice axis is more than 45 degrees off left-right.

    leftwards : x of its direction, in [-1, 1].
    """
    if abs(leftwards) < MIN_LEFTWARDS:
        angle = np.degrees(np.arccos(abs(leftwards)))
        raise Unsuitable(f"is not sagittal: its slice axis is {angle:.0f} degrees off left-right; 45 are allowed")


def _square(volume: sitk.Image, is_mask: bool) -> sitk.Image:
    """The volume with in-plane pixels as high as wide, over the same field of view."""
    spacing = np.array(volume.GetSpacing())
    side = spacing[:2].min()
    if spacing[:2].max() <= 1.001 * side:
        return volume
    wanted = np.array([side, side, spacing[2]])
    size = np.rint(volume.GetSize() * spacing / wanted).astype(int)
    # the edges of the field of view stay in place, not the centres of the outermost pixels
    origin = volume.TransformContinuousIndexToPhysicalPoint(((wanted / spacing - 1) / 2).tolist())
    return sitk.Resample(
        volume, size.tolist(), sitk.Transform(), sitk.sitkNearestNeighbor if is_mask else sitk.sitkLinear,
        origin, wanted.tolist(), volume.GetDirection(), 0, volume.GetPixelID(), True,
    )  # fmt: skip


def read_mask(path: Path, image: sitk.Image) -> tuple[np.ndarray, sitk.Image]:
    """(slices, height, width) whole numbers on the grid of an image, as from `sagittal`; and the mask as stored."""
    try:
        mask = read(path)
    except Unsuitable as reason:
        raise Unsuitable(f"has a mask, {path.name}, that {reason}") from None
    return whole_labels(sagittal(onto_grid(image, mask), is_mask=True)[0]), mask


def onto_grid(image: sitk.Image, mask: sitk.Image) -> sitk.Image:
    """The mask in FRAME, on the grid of its image; one that was cropped, as 3D Slicer does, is padded with 0.

    Raises Unsuitable if it extends beyond its image, or its corners lie more than half a voxel off its grid.
    """
    image, mask = (sitk.DICOMOrient(volume, FRAME) for volume in (image, mask))
    last = np.subtract(mask.GetSize(), 1)
    corners = np.vstack([np.zeros(3, int), np.diag(last)])
    points = [mask.TransformIndexToPhysicalPoint(corner) for corner in corners.tolist()]
    places = np.array([image.TransformPhysicalPointToContinuousIndex(point) for point in points])
    before = np.rint(places[0]).astype(int)
    after = np.subtract(image.GetSize(), mask.GetSize()) - before
    off_mm = np.linalg.norm((places - corners - before) * image.GetSpacing(), axis=1).max()
    if min(*before, *after) < 0 or off_mm > min(image.GetSpacing()) / 2:
        raise Unsuitable(
            f"has a mask of {mask.GetSize()} voxels that begins at voxel {tuple(before.tolist())} of its "
            f"{image.GetSize()} and lies {off_mm:.1f} mm off its grid; resample the mask onto the image"
        )
    return sitk.ConstantPad(mask, before.tolist(), after.tolist(), 0)


def whole_labels(mask: np.ndarray) -> np.ndarray:
    """A mask's values as whole numbers. Raises Unsuitable if one is not, but for the rounding of its file."""
    whole = np.rint(mask)
    with np.errstate(invalid="ignore"):
        # nan and infinity count as wrong; and no label may be lost as 0, as where a slope was applied to labels
        wrong = ~(np.abs(mask - whole) <= np.where(whole == 0, ROUNDING_TO_0, ROUNDING))
    if wrong.any():
        raise Unsuitable(f"has label {mask[wrong][0]:g}, which is no whole number; resample labels to the nearest")
    return whole


def window(pixels: np.ndarray) -> np.ndarray:
    """A slice as uint8: PERCENTILES of its intensities become 0 and 255, the rest is clipped; a flat slice is 0."""
    pixels = np.nan_to_num(pixels.astype(np.float64), posinf=0, neginf=0)
    low, high = np.percentile(pixels, PERCENTILES)
    return np.rint(255 * np.clip((pixels - low) / ((high - low) or 1), 0, 1)).astype(np.uint8)


def middle(marked: np.ndarray) -> int:
    """The middle slice of marked voxels, by their mean. marked : (slices, height, width) booleans."""
    counts = marked.sum(axis=(1, 2))
    return int(np.floor(counts @ np.arange(len(counts)) / counts.sum() + 0.5))


def neighbours(centre: int, slices: int, count: int) -> range:
    """`slices` neighbours about slice `centre` of `count`, moved inwards at an end; all if there are fewer."""
    start = min(max(centre - (slices - 1) // 2, 0), max(count - slices, 0))
    return range(start, min(start + slices, count))


def case_name(name: str) -> str:
    """The name with the letters that a case may have; others become `-`."""
    return re.sub(r"[^\w.-]", "-", name)


class Cut(NamedTuple):
    """A volume in slices from right to left, each head up and front left.

    images : (slices, height, width), of any intensities. mask_of : number of a slice -> (height, width) uint8, or None.
    centre : number of the middle slice. columns : further columns of cases.csv.
    """

    patient: str
    images: Sequence[np.ndarray]
    spacing_mm: float
    centre: int
    mask_of: Callable[[int], np.ndarray | None]
    columns: dict = {}  # noqa: RUF012


def cut_each(names: list[str], cut: Callable[[str], Cut], slices: int, description: dict) -> Iterator[Slice]:
    """`slices` of each volume in turn, about its middle one; an unsuitable volume is reported and listed as left out.

    cut : name of a volume -> its slices; raises Unsuitable. Raises StudyError if no volume is left.
    """
    unsuitable = []
    for name in names:
        try:
            volume = cut(name)
        except Unsuitable as reason:
            unsuitable.append(f"{name} {reason}")
            print(f"left out: {unsuitable[-1]}")
            continue
        for index in neighbours(volume.centre, slices, len(volume.images)):
            yield Slice(
                case=case_name(f"{name}_slice{index}"),
                patient=volume.patient,
                image=window(volume.images[index]),
                mask=volume.mask_of(index),
                spacing_mm=volume.spacing_mm,
                columns={"slice": index, "mid_sagittal": index == volume.centre} | volume.columns,
            )
    description["left_out"] = description.get("left_out", []) + unsuitable
    if len(unsuitable) == len(names):
        raise StudyError(f"{description['name']}: none of {len(names)} volumes can be used; first: {unsuitable[0]}")
