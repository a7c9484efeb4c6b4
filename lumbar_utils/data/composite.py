"""The composite set of Mendeley Data, k3b363f3vz: mid-sagittal T1 images with colour-coded masks, zip or folder.

The order of the colours is checked against position in the image: read as BGR, the same masks name S1 for L1.
"""

import contextlib
import re
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.spatial.distance import cdist

from lumbar_utils import LEVELS, StudyError
from lumbar_utils.data.files import files_in
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
FILE = re.compile(r"T1_(\d+)_S(\d+)\s*\.png", re.IGNORECASE)  # one copy has a blank before .png
IMAGES, MASKS = r"(^|/)(\d+\. *)?images$", "pseudo.colored.ground.truth.images"  # folders, numbered or not
COLOURS = np.array(  # true RGB; a colour's place is its label
    [(0, 0, 0), (255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255), (255, 0, 255)]
)


def read_source(source: Path, slices: int) -> tuple[dict, Iterator[Slice]]:
    """Description and slices of the archive, or of the folder that it unpacks to.

    slices : ignored, there are no volumes. The description's `notes` list, once the slices have been read, how the
    set differs from its publication; each is a warning too. Raises StudyError if there are no pairs of image and mask,
    a file cannot be read, the two of a pair differ in size, or most colours run from bottom to top.
    """
    description = {
        "name": NAME,
        "licence": LICENCE,
        "citation": CITATION,
        "synthetic": False,
        "labels": {"0": "background"} | {str(value): level for value, level in enumerate(LEVELS, 1)},
        "annotated_levels": list(LEVELS),
        "notes": [],
    }
    return description, _slices(source, description["notes"])


def _slices(source: Path, notes: list[str]) -> Iterator[Slice]:
    """One slice a case; adds to the notes once all are read, and refuses a set whose colours run upwards."""
    with _unpacked(source) as folder:
        images, masks = _by_case(folder, IMAGES), _by_case(folder, MASKS)
        pairs = sorted(images.keys() & masks.keys())
        if not pairs:
            raise StudyError(
                f"{source} has {len(images)} images and {len(masks)} masks of the composite set, but no pair; "
                "T1_<patient>_S<slice>.png are needed in folders Images and Pseudo_Colored_Ground_Truth_Images; unpack "
                "archives within the archive"
            )
        orders, lacking, recoloured = {}, [], 0
        for case in pairs:
            item = _slice(case, images[case], masks[case])
            yield item
            orders[case] = order_of_levels(item.mask)
            recoloured += item.columns["recoloured_pixels"]
            if len(np.unique(item.mask[item.mask > 0])) < len(LEVELS):
                lacking.append(case)
    upwards = [case for case, order in orders.items() if order == "up"]
    if 2 * len(upwards) > len(pairs):
        raise StudyError(
            f"in {len(upwards)} of {len(pairs)} masks, first {upwards[0]}, the colours run from S1 at the top to L1; "
            "red (L1) belongs at the top and magenta (S1) at the bottom: the masks were saved with red and blue "
            "swapped, or the images stand on their heads; take the original archive"
        )
    patients = {case.split("_")[1] for case in pairs}
    if (len(pairs), len(patients)) != (EXPECTED, EXPECTED):
        notes.append(f"{len(pairs)} cases of {len(patients)} patients; {EXPECTED} of {EXPECTED} are expected.")
    found = {
        "images without a mask, left out": sorted(images.keys() - masks.keys()),
        "masks without an image, left out": sorted(masks.keys() - images.keys()),
        "masks with levels out of order": [case for case, order in orders.items() if order != "down"],
        "masks that lack a level": lacking,
    }
    notes += [f"{what}: {len(cases)} ({', '.join(cases[:5])})." for what, cases in found.items() if cases]
    if recoloured:
        notes.append(f"{recoloured} pixels of the masks had a colour of no level and took the nearest.")
    for note in notes:
        warnings.warn(f"{NAME}: {note}", stacklevel=2)


@contextlib.contextmanager
def _unpacked(source: Path) -> Iterator[Path]:
    """The folder of a source; that of an archive is temporary."""
    if source.is_dir():
        yield source
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            with zipfile.ZipFile(source) as archive:
                archive.extractall(folder)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # the last: encrypted, or unknown
            raise StudyError(f"{source} cannot be unpacked ({error}); download it again from {PAGE}") from None
        yield Path(folder)


def _by_case(source: Path, folder: str) -> dict[str, Path]:
    """Case -> its file below a folder whose name matches `folder`."""
    files = {}
    for path in files_in(source):
        match = FILE.fullmatch(path.name)
        if match and re.search(folder, path.parent.relative_to(source).as_posix(), re.IGNORECASE):
            files[f"T1_{match[1]}_S{match[2]}"] = path
    return files


def _slice(case: str, image_path: Path, mask_path: Path) -> Slice:
    image = read_image(image_path)
    rgb = np.asarray(open_image(mask_path, lossless=True).convert("RGB"))
    if image.shape != rgb.shape[:2]:
        raise StudyError(
            f"mask {mask_path} has the shape {rgb.shape[:2]} but its image {image_path} {image.shape}; take both from "
            "the original archive"
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
