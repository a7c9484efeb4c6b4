"""SPIDER (Zenodo 10159290) as sagittal slices with vertebral bodies L1-L5, named by counting upwards."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import ndimage

from lumbar_utils import StudyError
from lumbar_utils.data import volumes
from lumbar_utils.data.files import files_in, read_table
from lumbar_utils.data.folder import Slice

CANAL = 100  # value of the spinal canal in a mask
PARTLY = 100  # added to the value of a vertebra that the field of view cuts
REGIONS = (("L", 5), ("T", 12), ("C", 7))  # upwards from the sacrum
VERTEBRAE = [f"{region}{level}" for region, highest in REGIONS for level in range(highest, 0, -1)]
NAMES = dict(enumerate([*VERTEBRAE, "above C1"], 1))  # SPIDER counts its vertebrae 1..25 from the lowest
LUMBAR = 5
CONTRASTS = {"t1": "T1", "t2": "T2", "t2_SPACE": "T2-SPACE"}
REMEDY = "unpack images.zip and masks.zip of Zenodo record 10159290 into one folder, beside overview.csv"


def read_source(source: Path, slices: int) -> tuple[dict, Iterator[Slice]]:
    """Description of SPIDER, and `slices` of each of its volumes about the mid-sagittal one.

    source : folder with images/ and masks/, both of <patient>_<t1|t2|t2_SPACE>.mha, and perhaps overview.csv.
    Masks keep SPIDER's numbers 1..25 of whole vertebrae, their arches cut off; all else becomes background.
    """
    images, masks = _by_name(source / "images"), _by_name(source / "masks")
    if not images or not masks:
        raise StudyError(f"{source} has no images/*.mha or no masks; {REMEDY}")
    subsets = _subsets(source / "overview.csv")
    description = {
        "name": "SPIDER, sagittal slices",
        "licence": "CC BY 4.0",
        "citation": "van der Graaf et al., Lumbar spine segmentation in MR images: a dataset and a public benchmark, "
        "Scientific Data 2024; Zenodo 10159290",
        "labels": {0: "background"} | NAMES,
        "annotated_levels": ["L1", "L2", "L3", "L4", "L5"],
        "not_annotated": ["S1"],
    }

    def cut(name: str) -> volumes.Cut:
        return _cut(name, images[name], masks.get(name), subsets.get(name))

    return description, volumes.cut_each(list(images), cut, slices, description)


def _by_name(folder: Path) -> dict[str, Path]:
    files = files_in(folder) if folder.is_dir() else []
    return {path.stem: path for path in files if path.suffix.lower() == ".mha"}


def _subsets(path: Path) -> dict[str, str]:
    """Name of a volume -> `training` or `validation`, from overview.csv; empty if there is no such file.

    Columns are new_file_name (with or without .mha) and subset, in any case; others are not read: some are personal.
    """
    if not path.exists():
        return {}
    table = read_table(path, ("new_file_name", "subset"))
    return dict(zip(table["new_file_name"].str.removesuffix(".mha"), table["subset"], strict=True))


def _cut(name: str, image_path: Path, mask_path: Path | None, subset: str | None) -> volumes.Cut:
    if mask_path is None:
        raise volumes.Unsuitable("has no mask")
    image = volumes.read(image_path)
    pixels, spacing_mm = volumes.sagittal(image)
    labels, _ = volumes.read_mask(mask_path, image)
    centre, front = mid_sagittal(labels), in_front_of_the_canal(labels == CANAL)
    partly = [NAMES[value] for value in NAMES if (labels == value + PARTLY).any()]
    patient, _, sequence = name.partition("_")
    return volumes.Cut(
        patient=f"spider_{patient}",
        images=pixels,
        spacing_mm=spacing_mm,
        centre=centre,
        mask_of=lambda index: bodies(labels[index], front),
        columns={
            "contrast": CONTRASTS.get(sequence, sequence), "subset": subset, "partly_visible": " ".join(partly),
        },
    )  # fmt: skip


def mid_sagittal(labels: np.ndarray) -> int:
    """The slice through the middle of the canal beside the lumbar vertebrae.

    labels : (slices, height, width) of SPIDER's values. Raises Unsuitable if they hold no canal beside such a vertebra.
    """
    rows = ((labels >= 1) & (labels <= LUMBAR)).any(axis=(0, 2))
    canal = (labels == CANAL) & rows[:, None]
    if not canal.any():
        raise volumes.Unsuitable(f"has no canal ({CANAL}) beside lumbar vertebrae (1 to {LUMBAR}) in its mask")
    return volumes.middle(canal)


def in_front_of_the_canal(canal: np.ndarray) -> np.ndarray:
    """(height, width) booleans: pixels in front of the canal's midline, the mean column of each row.

    canal : (slices, height, width) booleans. The midline is that of all slices, so that it is known beside the canal
        too, where pedicles join a body to its arch; above and below the canal it continues straight.
    """
    counts, columns = canal.sum(axis=0), np.arange(canal.shape[2])
    rows = np.flatnonzero(counts.any(axis=1))
    midline = np.interp(np.arange(canal.shape[1]), rows, counts[rows] @ columns / counts[rows].sum(axis=1))
    return columns < midline[:, None]


def bodies(labels: np.ndarray, front: np.ndarray) -> np.ndarray:
    """(height, width) uint8: of each vertebra 1..25 the largest piece in front of the canal's midline.

    Smaller pieces there are tips of articular processes.
    """
    label_map = np.zeros(labels.shape, np.uint8)
    for value in np.intersect1d(labels, list(NAMES)):
        pieces, count = ndimage.label((labels == value) & front)
        if count:
            label_map[pieces == np.bincount(pieces.ravel())[1:].argmax() + 1] = value
    return label_map
