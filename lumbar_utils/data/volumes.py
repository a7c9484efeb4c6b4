"""Volumes in NIfTI, MetaImage and NRRD, read whole or refused, and cut into sagittal slices of any orientation.

Slices are head up, front left, with square pixels of 8 bits. The header's directions alone decide which axis is which,
never the order of the axes in a file.
"""

import errno
import gzip
import math
import re
import shutil
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lumbar_utils import StudyError
from lumbar_utils.data.files import split_suffix
from lumbar_utils.data.folder import MAX_SPACING_MM, MIN_SPACING_MM, Slice

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MAX_COMPRESSION = 1032  # bytes that one byte of deflated data can hold at most
ANY_HEADER = zlib.MAX_WBITS | 32  # of zlib or gzip

# fields of a MetaImage's header that describe its voxels -> their form; ITK crashes on others
NUMBER = rb"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
METAIMAGE = {
    rb"ObjectType": rb"Image",
    rb"NDims": rb"[234]",
    rb"BinaryData|BinaryDataByteOrderMSB|ElementByteOrderMSB|CompressedData": rb"(?i:true|false)",
    rb"CompressedDataSize": rb"\d{1,15}",
    rb"ElementNumberOfChannels": rb"\d{1,3}",
    rb"DimSize": rb"\d{1,9}(?: +\d{1,9}){1,3}",
    rb"TransformMatrix|Rotation|Orientation|Offset|Position|Origin|CenterOfRotation|ElementSpacing|ElementSize": (
        rb"%b(?: +%b)*" % (NUMBER, NUMBER)
    ),
    rb"AnatomicalOrientation": rb"[A-Z?]{2,4}",
    rb"ElementType": rb"MET_[A-Z_]{1,20}",
}
NEEDED = (b"NDims", b"DimSize", b"ElementType", b"ElementSpacing", b"TransformMatrix", b"Offset")
VOXELS_FOLLOW = rb"(^ElementDataFile *= *LOCAL\r?\n)"

# size of a NIfTI's header -> offset and form of its dim, bitpix, pixdim and vox_offset
NIFTI = {348: ((40, "8h"), (72, "h"), (76, "8f"), (108, "f")), 540: ((16, "8q"), (14, "h"), (104, "8d"), (168, "q"))}

FRAME = "PIL"  # columns run to the back, rows down, slices to the left; ITK names an axis by where it leads
MIN_LEFTWARDS = np.cos(np.radians(45))  # of the direction of the slice axis
COARSER = 1.5  # an axis so much coarser than left-right is the slice axis
VOXEL_MM = (0.01, 100)  # plausible sides of a voxel
MAX_PIXELS = 4096  # along a side of a slice
SHEAR = 0.01  # cosine between two axes of a header that still count as at right angles
ROUNDING_TO_0 = 1e-3
ROUNDING = 0.02  # largest error of a label: half a step where 255 steps share 10 labels
PERCENTILES = (0.5, 99.5)  # of a slice's intensities, that become 0 and 255


class Unsuitable(StudyError):
    """A volume that cannot be used; the message continues the volume's name and gives the reason."""


def load(path: Path) -> sitk.Image:
    """A volume or an image with all of its voxels.

    Raises Unsuitable if it is cut off, damaged, or cannot be read: ITK fills what is missing with zeros.
    """
    suffix = split_suffix(path)[1]
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    with tempfile.TemporaryDirectory() as folder:
        # under another name: ITK takes the voxels of X.nii.gz from an X.nii beside it, and refuses X.Nii
        copy = Path(folder) / f"volume{suffix.removesuffix('.gz')}"
        try:
            _copy(path, copy)
            volume = _read_whole(copy)
        except Unsuitable:
            raise
        except (RuntimeError, ValueError, struct.error, EOFError, zlib.error, gzip.BadGzipFile) as error:
            if "orthonormal" in str(error):
                raise Unsuitable("has axes that are not at right angles by its header; resample it") from None
            raise Unsuitable("cannot be read as an image; is the file whole?") from None  # ITK's message is a page
        except OSError as error:
            if error.errno in NO_ROOM:  # the file is not at fault, and those after it would be left out too
                raise StudyError(f"cannot unpack {path} in {folder}: {error.strerror}; make room there") from None
            raise Unsuitable(f"cannot be read: {error.strerror or error}; grant access or make room") from None
    if "complex" in volume.GetPixelIDTypeAsString():
        raise Unsuitable("has complex values; export their magnitude")
    return volume[..., 0] if volume.GetDimension() == 4 and volume.GetSize()[3] == 1 else volume


def _copy(path: Path, copy: Path) -> None:
    """Copy a file, unpacked if it is a gzipped NIfTI; gzip raises at a missing end or a wrong checksum."""
    with path.open("rb") as file:
        is_packed = copy.suffix == ".nii" and file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if is_packed else path.open("rb") as source, copy.open("wb") as target:
        shutil.copyfileobj(source, target, 2**20)


def _read_whole(file: Path) -> sitk.Image:
    """Read a file of which every byte is there; else raise Unsuitable."""
    if file.suffix == ".mha":
        _clean_metaimage(file)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    reader.ReadImageInformation()
    _check_size(reader, file)
    return reader.Execute()


def _check_size(reader: sitk.ImageFileReader, file: Path) -> None:
    """Raise Unsuitable unless a file holds as many bytes as its header promises."""
    size, voxels = file.stat().st_size, math.prod(reader.GetSize())
    promised = voxels / MAX_COMPRESSION  # at least; ITK itself counts the bytes of a .nrrd and of a plain .mha
    if file.suffix == ".nii":
        promised = max(_bytes_of_nifti(file), voxels)  # a voxel has at least one byte
    if file.suffix == ".mha" and promised <= size:
        header, _, data = re.split(VOXELS_FOLLOW, file.read_bytes(), maxsplit=1, flags=re.MULTILINE)
        if re.search(rb"CompressedData = True", header, re.IGNORECASE):
            voxel = sitk.Image([1, 1], reader.GetPixelID(), reader.GetNumberOfComponents())
            promised = voxels * sitk.GetArrayViewFromImage(voxel).nbytes
            size = len(zlib.decompressobj(ANY_HEADER).decompress(data, promised + 1))
    if not promised <= size:
        raise Unsuitable(f"holds {size} of the {promised:.0f} bytes that its header promises; is the file whole?")


def _bytes_of_nifti(file: Path) -> float:
    """How many bytes a NIfTI's header promises. Raises Unsuitable if a voxel has no size: ITK makes it 1 mm."""
    with file.open("rb") as opened:
        header = opened.read(540)
    order = "<" if struct.unpack("<i", header[:4])[0] in NIFTI else ">"
    fields = NIFTI.get(struct.unpack(f"{order}i", header[:4])[0], {})
    dim, bits, pixdim, offset = (struct.unpack_from(order + form, header, at) for at, form in fields)
    axes = slice(1, dim[0] + 1)
    sides = pixdim[axes][:3]
    if not all(0 < abs(side) < math.inf for side in sides):
        text = " x ".join(f"{side:g}" for side in sides)
        raise Unsuitable(f"has voxels of {text} mm by its header; mend its pixdim")
    return offset[0] + math.prod(max(size, 1) for size in dim[axes]) * bits[0] / 8


def _clean_metaimage(file: Path) -> None:
    """Keep in a MetaImage's header the fields of METAIMAGE alone. Raises Unsuitable if one of these is damaged."""
    header, line, voxels = re.split(VOXELS_FOLLOW, file.read_bytes(), maxsplit=1, flags=re.MULTILINE)
    fields = {}
    for name, value in re.findall(rb"^(\w+) *= *(.*?) *\r?$", header, re.MULTILINE):
        form = next((form for names, form in METAIMAGE.items() if re.fullmatch(names, name)), None)
        if form is None:
            continue
        if not re.fullmatch(form, value):
            text = value[:40].decode("ascii", "replace")
            raise Unsuitable(f"has {name.decode()} = {text!r} in its header; copy or export it again")
        fields[name] = value
    axes = int(fields.get(b"NDims", 3))
    counts = {b"NDims": 1, b"ElementType": 1, b"TransformMatrix": axes**2}
    for name in NEEDED:
        if len(fields.get(name, b"").split()) != counts.get(name, axes):
            raise Unsuitable(f"does not say its {name.decode()} in its header; copy or export it again")
    cleaned = b"".join(b"%b = %b\n" % field for field in fields.items())
    file.write_bytes(cleaned + line + voxels)


def header_of(volume: sitk.Image) -> dict[str, str]:
    """A file's header fields; SimpleITK cannot look up names outside of ASCII, so these are left out."""
    return {key: volume.GetMetaData(key) for key in volume.GetMetaDataKeys() if key.isascii()}


def read(path: Path) -> sitk.Image:
    """A grey volume as it is stored. Raises Unsuitable if it cannot be read, or is anything else."""
    volume = load(path)
    if volume.GetDimension() != 3 or volume.GetNumberOfComponentsPerPixel() != 1:
        size, channels = "x".join(map(str, volume.GetSize())), volume.GetNumberOfComponentsPerPixel()
        raise Unsuitable(f"is {size} with {channels} values a voxel; a grey volume of three dimensions is needed")
    _check_directions(header_of(volume), split_suffix(path)[1])
    return volume


def _check_directions(header: dict[str, str], suffix: str) -> None:
    """Raise Unsuitable for a header without directions or with contradictory ones: ITK then takes its own, silently."""
    is_nifti = suffix in (".nii", ".nii.gz")
    has_no_space = suffix == ".nrrd" and "NRRD_space" not in header
    if has_no_space or (is_nifti and header["qform_code"] == header["sform_code"] == "0"):
        raise Unsuitable("does not say in its header how the patient lies (qform, sform or space); export it again")
    if is_nifti and header["sform_code"] != "0":
        sides = np.array([float(header[f"pixdim[{axis}]"]) for axis in (1, 2, 3)])
        axes = np.array([header[f"srow_{row}"].split()[:3] for row in "xyz"], float)
        difference = np.abs(axes.T @ axes - np.diag(sides**2)).max()
        if not difference <= SHEAR * sides.max() ** 2:
            raise Unsuitable(
                "has axes that are not at right angles, or other voxels than pixdim, by its sform; resample it"
            )


def _check_geometry(volume: sitk.Image) -> None:
    """Raise Unsuitable for numbers that no scanner gives."""
    if not np.isfinite([*volume.GetOrigin(), *volume.GetDirection()]).all():
        raise Unsuitable("has no finite origin and directions in its header; export it again")
    if not all(VOXEL_MM[0] <= side <= VOXEL_MM[1] for side in volume.GetSpacing()):
        sides = " x ".join(f"{side:g}" for side in volume.GetSpacing())
        raise Unsuitable(f"has voxels of {sides} mm by its header; {VOXEL_MM[0]} to {VOXEL_MM[1]} mm are allowed")


def oriented(volume: sitk.Image) -> sitk.Image:
    """The volume in FRAME: slices from right to left, each head up and front left, its voxels as they are.

    An oblique volume keeps its own planes. Raises Unsuitable if it was not acquired sagittally.
    """
    _check_geometry(volume)
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
    squared = _square(in_frame if is_mask else sitk.Cast(in_frame, sitk.sitkFloat32), is_mask)
    side = min(in_frame.GetSpacing()[:2])
    if not MIN_SPACING_MM <= side <= MAX_SPACING_MM:
        raise Unsuitable(
            f"has pixels of {side:g} mm by its header; {MIN_SPACING_MM} to {MAX_SPACING_MM} mm are allowed"
        )
    return sitk.GetArrayFromImage(squared), side


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
    if size[:2].max() > MAX_PIXELS:
        raise Unsuitable(
            f"becomes {size[0]} x {size[1]} square pixels; {MAX_PIXELS} a side are allowed: check its header"
        )
    # the edges of the field of view stay in place, not the centres of the outermost pixels
    origin = volume.TransformContinuousIndexToPhysicalPoint(((wanted / spacing - 1) / 2).tolist())
    return sitk.Resample(
        volume, size.tolist(), sitk.Transform(), sitk.sitkNearestNeighbor if is_mask else sitk.sitkLinear,
        origin, wanted.tolist(), volume.GetDirection(), 0, volume.GetPixelID(), True,
    )  # fmt: skip


def read_mask(path: Path, image: sitk.Image) -> tuple[np.ndarray, dict[str, str]]:
    """(slices, height, width) whole numbers on the grid of an image, as from `sagittal`; and header fields."""
    try:
        mask = read(path)
    except Unsuitable as reason:
        raise Unsuitable(f"has a mask, {path.name}, that {reason}") from None
    labels = whole_labels(sagittal(onto_grid(image, mask), is_mask=True)[0])
    return labels, header_of(mask)


def onto_grid(image: sitk.Image, mask: sitk.Image) -> sitk.Image:
    """The mask in FRAME, on the grid of its image; one that was cropped, as 3D Slicer does, is padded with 0.

    Raises Unsuitable if it lies on another grid, or extends beyond its image.
    """
    _check_geometry(mask)
    image, mask = (sitk.DICOMOrient(volume, FRAME) for volume in (image, mask))
    cropped = np.subtract(image.GetSize(), mask.GetSize())
    if cropped.any():
        before = np.rint(image.TransformPhysicalPointToContinuousIndex(mask.GetOrigin())).astype(int)
        if min(*before, *(cropped - before)) < 0:
            raise Unsuitable(
                f"has a mask of {mask.GetSize()} voxels but is {image.GetSize()}; resample the mask onto the image"
            )
        mask = sitk.ConstantPad(mask, before.tolist(), (cropped - before).tolist(), 0)
    _check_grid(image, mask)
    return mask


def _check_grid(image: sitk.Image, mask: sitk.Image) -> None:
    """Raise Unsuitable unless image and mask, of one size, lie on one grid, to half a voxel at their corners."""
    last = np.subtract(image.GetSize(), 1)
    corners = [[0, 0, 0], *np.diag(last).tolist()]
    points = [[grid.TransformIndexToPhysicalPoint(corner) for corner in corners] for grid in (image, mask)]
    distance_mm = np.linalg.norm(np.subtract(*points), axis=1).max()
    if distance_mm > min(image.GetSpacing()) / 2:
        raise Unsuitable(
            f"has a mask that lies {distance_mm:.1f} mm off by its header; resample the mask onto the image"
        )


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


def slice_columns(index: int, centre: int) -> dict:
    """Columns of cases.csv for a slice: its number, counted from the right, and whether it is the middle one."""
    return {"slice": index, "mid_sagittal": index == centre}


def read_usable(names: list[str], read_slices: Callable[[str], Iterator[Slice]], description: dict) -> Iterator[Slice]:
    """The slices of each volume in turn; an unsuitable one is left out, reported, and listed in the description.

    read_slices : name of a volume -> its slices; raises Unsuitable before the first of them.
    Raises StudyError if none is left.
    """
    left_out, unsuitable = description.setdefault("left_out", []), []
    for name in names:
        try:
            yield from read_slices(name)
        except Unsuitable as reason:
            unsuitable.append(f"{name} {reason}")
            left_out.append(unsuitable[-1])
            print(f"left out: {name} {reason}")
    if len(unsuitable) == len(names):
        first = unsuitable[0] if unsuitable else "there is none"
        raise StudyError(f"{description['name']}: none of {len(names)} volumes can be used; first: {first}")
