"""Volumes of any orientation, cut into sagittal slices: head up, front left, square pixels, 8 bits.

Which axis is which is told by the header's direction alone, never by the order of the axes in a file.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lumbar_utils import StudyError
from lumbar_utils.data.files import Unsuitable, header_of, load, split_suffix
from lumbar_utils.data.folder import LEAST_MM, MOST_MM
from lumbar_utils.data.writing import Slice

FRAME = "PIL"  # columns run to the back, rows down, slices to the left; ITK names an axis by where it leads
STEEPEST = np.cos(np.radians(45))  # least share of left-right in the direction of the slice axis
COARSER = 1.5  # an axis so much coarser than left-right is the one that was sliced
VOXEL_MM = (0.01, 100)  # sides of a voxel that can be true
LARGEST = 4096  # pixels along a side of a slice
SHEAR = 0.01  # cosine between two axes of a header that are still at right angles
ROUNDING_TO_0 = 1e-3
ROUNDING = 0.02  # most that a label is off its whole number: half a step where 255 steps share 10 labels
PERCENTILES = (0.5, 99.5)  # of a slice's intensities, that become 0 and 255


def read(path: Path) -> sitk.Image:
    """A grey volume as it is stored. Raises Unsuitable if it cannot be read, or is anything else."""
    volume = load(path)
    if volume.GetDimension() != 3 or volume.GetNumberOfComponentsPerPixel() != 1:
        size, channels = "x".join(map(str, volume.GetSize())), volume.GetNumberOfComponentsPerPixel()
        raise Unsuitable(f"is {size} with {channels} values a voxel; a grey volume of three dimensions is needed")
    _check_header(header_of(volume), split_suffix(path)[1])
    return volume


def _check_header(header: dict[str, str], suffix: str) -> None:
    """Raise Unsuitable for a header that leaves geometry open: ITK takes one of its own then, without a word."""
    is_nifti = suffix in (".nii", ".nii.gz")
    no_space = suffix == ".nrrd" and "NRRD_space" not in header
    if no_space or (is_nifti and header["qform_code"] == header["sform_code"] == "0"):
        raise Unsuitable("does not say in its header how the patient lies (qform, sform or space); export it again")
    if not is_nifti or header["sform_code"] == "0":
        return
    sides = np.array([float(header[f"pixdim[{axis}]"]) for axis in (1, 2, 3)])
    axes = np.array([header[f"srow_{row}"].split()[:3] for row in "xyz"], float)
    apart = np.abs(axes.T @ axes - np.diag(sides**2)).max()
    if not apart <= SHEAR * sides.max() ** 2:
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


def sagittal(volume: sitk.Image, is_mask: bool = False) -> tuple[np.ndarray, float]:
    """(slices, height, width) from right to left, each head up and front left, and the side of a pixel in mm.

    Pixels that are not square are resampled to squares of their shorter side, images linearly (float32), masks to the
    nearest. A volume that lies oblique keeps its own planes. Raises Unsuitable if it was not acquired sagittally.
    """
    _check_geometry(volume)
    turned = sitk.DICOMOrient(volume, FRAME)
    to_back, down, to_left = turned.GetSpacing()
    check_slice_axis(turned.GetDirection()[2])
    if max(to_back, down) > COARSER * to_left and turned.GetSize()[2] > 1:
        axis = "front to back" if to_back > down else "head to feet"
        raise Unsuitable(f"is not sagittal: its slices, {max(to_back, down):.2g} mm apart, follow each other {axis}")
    squared, side = _square(turned if is_mask else sitk.Cast(turned, sitk.sitkFloat32), is_mask), min(to_back, down)
    if not LEAST_MM <= side <= MOST_MM:
        raise Unsuitable(f"has pixels of {side:g} mm by its header; {LEAST_MM} to {MOST_MM} mm are allowed")
    return sitk.GetArrayFromImage(squared), side


def check_slice_axis(leftwards: float) -> None:
    """Raise Unsuitable if the slice axis, whose share of left-right this is, lies more than 45 degrees off it."""
    if abs(leftwards) < STEEPEST:
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
    if size[:2].max() > LARGEST:
        raise Unsuitable(f"becomes {size[0]} x {size[1]} square pixels; {LARGEST} a side are allowed: check its header")
    # the edges of the field of view stay in place, not the centres of the outermost pixels
    first = volume.TransformContinuousIndexToPhysicalPoint(((wanted / spacing - 1) / 2).tolist())
    return sitk.Resample(
        volume, size.tolist(), sitk.Transform(), sitk.sitkNearestNeighbor if is_mask else sitk.sitkLinear,
        first, wanted.tolist(), volume.GetDirection(), 0, volume.GetPixelID(), True,
    )  # fmt: skip


def onto_grid(image: sitk.Image, mask: sitk.Image) -> sitk.Image:
    """The mask in FRAME, on the grid of its image; one that was cropped, as 3D Slicer does, is filled up with 0.

    Raises Unsuitable if it lies on another grid, or beyond its image.
    """
    _check_geometry(mask)
    image, mask = (sitk.DICOMOrient(volume, FRAME) for volume in (image, mask))
    size = np.subtract(image.GetSize(), mask.GetSize())
    if size.any():
        before = np.rint(image.TransformPhysicalPointToContinuousIndex(mask.GetOrigin())).astype(int)
        if min(*before, *(size - before)) < 0:
            raise Unsuitable(
                f"has a mask of {mask.GetSize()} voxels but is {image.GetSize()}; resample the mask onto the image"
            )
        mask = sitk.ConstantPad(mask, before.tolist(), (size - before).tolist(), 0)
    check_grid(image, mask)
    return mask


def whole_labels(mask: np.ndarray) -> np.ndarray:
    """A mask's values as whole numbers. Raises Unsuitable if one is none, but for the rounding of its file."""
    whole = np.rint(mask)
    with np.errstate(invalid="ignore"):
        # nan and infinity are off too; a label must not be lost as 0, as where a slope was put on labels by mistake
        off = ~(np.abs(mask - whole) <= np.where(whole == 0, ROUNDING_TO_0, ROUNDING))
    if off.any():
        raise Unsuitable(f"has label {mask[off][0]:g}, which is no whole number; resample labels to the nearest")
    return whole


def check_grid(image: sitk.Image, mask: sitk.Image) -> None:
    """Raise Unsuitable unless image and mask, of one size, lie on one grid, to half a voxel at their corners."""
    size = image.GetSize()
    corners = [(0, 0, 0), *(tuple((size[axis] - 1) * (axis == other) for other in range(3)) for axis in range(3))]
    points = [[grid.TransformIndexToPhysicalPoint(corner) for corner in corners] for grid in (image, mask)]
    apart = np.linalg.norm(np.subtract(*points), axis=1).max()
    if apart > min(image.GetSpacing()) / 2:
        raise Unsuitable(f"has a mask that lies {apart:.1f} mm off by its header; resample the mask onto the image")


def window(pixels: np.ndarray) -> np.ndarray:
    """A slice as uint8: PERCENTILES of its intensities become 0 and 255, what lies beyond is clipped; flat is 0."""
    pixels = np.nan_to_num(pixels.astype(np.float64), posinf=0, neginf=0)
    low, high = np.percentile(pixels, PERCENTILES)
    return np.rint(255 * np.clip((pixels - low) / ((high - low) or 1), 0, 1)).astype(np.uint8)


def middle(voxels: np.ndarray) -> int:
    """The slice in the middle of what is marked in (slices, height, width) booleans: the mean over the voxels."""
    counts = voxels.sum(axis=(1, 2))
    return int(np.floor(counts @ np.arange(len(counts)) / counts.sum() + 0.5))


def about(centre: int, slices: int, count: int) -> range:
    """`slices` neighbours about slice `centre` of `count`, moved inwards at an end; all where there are fewer."""
    start = min(max(centre - (slices - 1) // 2, 0), max(count - slices, 0))
    return range(start, min(start + slices, count))


def facts(index: int, centre: int) -> dict:
    """What every slice of a volume tells: its number, counted from the right, and whether it is the middle one."""
    return {"slice": index, "mid_sagittal": index == centre}


def usable(names: list[str], cut: Callable[[str], Iterator[Slice]], description: dict) -> Iterator[Slice]:
    """The slices of each volume in turn; one that is unsuitable is left out, said, and listed in the description.

    cut : name of a volume -> its slices; it raises Unsuitable before the first of them.
    Raises StudyError if none is left.
    """
    left_out, unsuitable = description.setdefault("left_out", []), []
    for name in names:
        try:
            yield from cut(name)
        except Unsuitable as reason:
            unsuitable.append(f"{name} {reason}")
            left_out.append(unsuitable[-1])
            print(f"left out: {name} {reason}")
    if len(unsuitable) == len(names):
        first = unsuitable[0] if unsuitable else "there is none"
        raise StudyError(f"{description['name']}: none of {len(names)} volumes can be used; first: {first}")
