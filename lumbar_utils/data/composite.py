"""The composite set of Mendeley Data, k3b363f3vz: mid-sagittal T1 images with colour-coded masks, zip or folder.

The order of the colours is checked against position in the image: read as BGR, the same masks name S1 for L1.
"""

import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from scipy.spatial.distance import cdist

from lumbar_utils import LEVELS, StudyError
from lumbar_utils.data.folder import Slice
from lumbar_utils.data.images import open_image, read_image

NAME = "Composite lumbar spine set, mid-sagittal T1"
PAGE = "https://data.mendeley.com/datasets/k3b363f3vz/2"
LICENCE = f"not known to us: see {PAGE}; its images are drawn from doi 10.17632/k57fr854j2 (CC BY 4.0)"
CITATION = (
    "Masood, Taj, Khan, Qureshi, Hassan: Composite Dataset of Lumbar Spine Mid-Sagittal Images with Annotations and "
    "Clinically Relevant Spinal Measurements, Mendeley Data, version 2, doi 10.17632/k3b363f3vz; with their article in "
    "Biomedical Signal Processing and Control 71, 2022, 103230"
)
EXPECTED = 514  # images, one a patient
IMAGES, MASKS = "images", "pseudo colored ground truth images"  # folders, without numbers, in lower case
FILE = re.compile(r"T1_(\d+)_S(\d+)\s*\.png", re.IGNORECASE)  # one copy has a blank before .png
MAX_BYTES = 2**26  # of one file; an image of 320 x 320 pixels has 0.3 million
COLOURS = np.array(  # true RGB; a colour's place is its label
    [(0, 0, 0), (255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255), (255, 0, 255)]
)

Files = dict[str, Path | zipfile.Path]  # by case


def read_source(source: Path, slices: int) -> tuple[dict, Iterator[Slice]]:
    """Description and slices of the archive, or of the folder that it unpacks to.

    slices : ignored, there are no volumes. The description's `notes` list, once the slices have been read, how the
    set differs from its publication; each is a warning too. Raises StudyError if there are no pairs of image and mask,
    a file cannot be read, the two of a pair differ in size, or most colours run from bottom to top.
    """
    images, masks, notes = _pairs(source)
    description = {
        "name": NAME,
        "licence": LICENCE,
        "citation": CITATION,
        "synthetic": False,
        "labels": dict(enumerate(("background", *LEVELS))),
        "annotated_levels": list(LEVELS),
        "notes": notes,
    }
    return description, _slices(images, masks, notes)


def _files(source: Path) -> dict[PurePosixPath, Path | zipfile.Path]:
    """Path within the source -> file; those of an archive are read in place, so its names cannot lead elsewhere."""
    if source.is_dir():
        paths = sorted(path for path in source.rglob("*") if path.is_file())
        return {PurePosixPath(path.relative_to(source).as_posix()): path for path in paths}
    try:
        archive = zipfile.ZipFile(source)
    except zipfile.BadZipFile:
        raise StudyError(f"{source} is neither a zip archive nor a folder; download it again from {PAGE}") from None
    members = [member for member in archive.infolist() if not member.is_dir()]
    for member in members:
        if member.file_size > MAX_BYTES and FILE.fullmatch(PurePosixPath(member.filename).name):
            raise StudyError(
                f"{source}: {member.filename} would have {member.file_size} bytes; an image has at most {MAX_BYTES}"
            )
    return {PurePosixPath(member.filename): zipfile.Path(archive, member.filename) for member in members}


def _pairs(source: Path) -> tuple[Files, Files, list[str]]:
    """Images that have a mask, masks, and notes on the other files."""
    files = _files(source)
    by_folder: dict[str, Files] = {IMAGES: {}, MASKS: {}}
    others = []
    for path, file in files.items():
        folder, match = _folder_of(path), FILE.fullmatch(path.name)
        if folder and match:
            case = f"T1_{match[1]}_S{match[2]}"
            other = by_folder[folder].setdefault(case, file)
            if other is not file:
                raise StudyError(f"{source} has two files of case {case}, {other} and {file}; remove one")
        elif folder:
            others.append(str(path))
    images, masks = by_folder[IMAGES], by_folder[MASKS]
    pairs = sorted(images.keys() & masks.keys())
    if not pairs:
        folders = ", ".join(sorted({str(path.parent) for path in files})[:5]) or "nothing"
        raise StudyError(
            f"{source} has {len(images)} images and {len(masks)} masks of the composite set, but no pair; looked for "
            f"T1_<patient>_S<slice>.png in folders Images and Pseudo_Colored_Ground_Truth_Images, found {folders}; "
            "unpack archives within the archive"
        )
    notes = [
        _listed("images without a mask, left out", sorted(images.keys() - masks.keys())),
        _listed("masks without an image, left out", sorted(masks.keys() - images.keys())),
        _listed("files not named T1_<patient>_S<slice>.png, left out", others),
    ]
    patients = {case.split("_")[1] for case in pairs}
    if (len(pairs), len(patients)) != (EXPECTED, EXPECTED):
        notes.insert(0, f"{len(pairs)} cases of {len(patients)} patients; {EXPECTED} of {EXPECTED} are expected.")
    return {case: images[case] for case in pairs}, masks, [note for note in notes if note]


def _folder_of(path: PurePosixPath) -> str | None:
    """IMAGES or MASKS, if a file lies in such a folder."""
    folders = [re.sub(r"^\d+\.\s*", "", part).replace("_", " ").lower() for part in path.parts[:-1]]
    if MASKS in folders:
        return MASKS
    return IMAGES if folders[-1:] == [IMAGES] else None


def _listed(what: str, names: list[str]) -> str:
    """`masks that lack a level: 7 (a, b, c, d, e, ...).`, or nothing without names."""
    examples = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"{what}: {len(names)} ({examples})." if names else ""


def _slices(images: Files, masks: Files, notes: list[str]) -> Iterator[Slice]:
    """One slice a case; then completes the notes, and refuses a set whose colours run upwards."""
    orders, lacking, recoloured = {}, [], 0
    for case in images:
        try:
            item = _slice(case, images[case], masks[case])
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # the last: encrypted, or unknown
            raise StudyError(f"{images[case]} or its mask cannot be read ({error}); download it from {PAGE}") from None
        yield item
        orders[case] = order_of_levels(item.mask)
        recoloured += item.columns["recoloured_pixels"]
        if len(np.unique(item.mask[item.mask > 0])) < len(LEVELS):
            lacking.append(case)
    _refuse_upwards(orders)
    notes += filter(None, [
        _listed("masks with levels out of order", [case for case, order in orders.items() if order != "down"]),
        _listed("masks that lack a level", lacking),
        f"{recoloured} pixels of the masks had a colour of no level and took the nearest." if recoloured else "",
    ])  # fmt: skip
    for note in notes:
        warnings.warn(f"{NAME}: {note}", stacklevel=2)


def _refuse_upwards(orders: dict[str, str]) -> None:
    upwards = [case for case, order in orders.items() if order == "up"]
    if 2 * len(upwards) > len(orders):
        raise StudyError(
            f"in {len(upwards)} of {len(orders)} masks, first {upwards[0]}, the colours run from S1 at the top to L1; "
            "red (L1) belongs at the top and magenta (S1) at the bottom: the masks were saved with red and blue "
            "swapped, or the images stand on their heads; take the original archive"
        )


def _slice(case: str, image_path: Path | zipfile.Path, mask_path: Path | zipfile.Path) -> Slice:
    image = read_image(image_path)
    rgb = np.asarray(open_image(mask_path, lossless=True).convert("RGB"))
    if image.shape != rgb.shape[:2]:
        (height, width), (mask_height, mask_width) = image.shape, rgb.shape[:2]
        raise StudyError(
            f"mask {mask_path} is {mask_width}x{mask_height} but its image {image_path} is {width}x{height}; "
            "take both from the original archive"
        )
    mask, recoloured = labels_of_colours(rgb)
    if not mask.any():
        raise StudyError(f"mask {mask_path} shows none of the six colours; take the pseudo-coloured one")
    _, patient, number = case.split("_")
    columns = {"slice": int(number[1:]), "recoloured_pixels": recoloured}
    return Slice(case, patient, image, mask, columns=columns)


def labels_of_colours(rgb: np.ndarray) -> tuple[np.ndarray, int]:
    """(height, width, 3) uint8 RGB -> (height, width) uint8 labels of the nearest colours, and how many did not match.

    Edges drawn with anti-aliasing shade from a colour into its neighbour.
    """
    distance = cdist(rgb.reshape(-1, 3), COLOURS, "sqeuclidean")  # (pixels, 7)
    nearest = distance.argmin(axis=1).astype(np.uint8).reshape(rgb.shape[:2])
    return nearest, int((distance.min(axis=1) > 0).sum())


def order_of_levels(mask: np.ndarray) -> str:
    """`down` if the centroids of L1 to S1 follow each other downwards, `up` if they all rise, else `mixed`."""
    steps = np.diff([np.nonzero(mask == value)[0].mean() for value in np.unique(mask[mask > 0])])
    if (steps > 0).all():
        return "down"
    return "up" if (steps < 0).all() else "mixed"
