"""A folder of NIfTI or MetaImage volumes, with masks or, to predict on, without."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from lumbar_utils import LEVELS, StudyError
from lumbar_utils.datasets import volumes
from lumbar_utils.datasets.writing import Slice

SUFFIXES = (".nii.gz", ".nii", ".mha")
MASK_ENDINGS = ("_mask", "_seg")
LABELS = '{"1": "L5", "2": "L4"}'


def read_source(source: Path, slices: int) -> tuple[dict, Iterator[Slice]]:
    """What the folder holds, and `slices` of each of its volumes about the middle one.

    source : folder of NAME.nii.gz, .nii or .mha; masks as masks/NAME.* or NAME_mask.* or NAME_seg.*, all or none, and
        then labels.json (mask value -> name); patients.csv (file, patient) unless NAME begins with it and `_`.
    Raises StudyError for masks without images, images without masks beside others with, or labels.json missing.
    """
    images, masks = _volumes(source)
    patients = _patients(source / "patients.csv", list(images))
    labels = _labels(source / "labels.json") if masks else {}
    description = {
        "name": "NIfTI volumes, sagittal slices",
        "licence": "not stated",
        "labels": {"0": "background"} | {str(value): name for value, name in labels.items()},
        "annotated_levels": [level for level in LEVELS if level in labels.values()],
    }

    def cut(name: str) -> Iterator[Slice]:
        return _cut(name, images[name], masks.get(name), labels, patients[name], slices)

    return description, volumes.usable(list(images), cut, description)


def _cut(name: str, path: Path, mask_path: Path | None, labels: dict[int, str], patient: str, slices: int):
    """The slices of one volume; the middle one is that of what the mask outlines, or of the volume without a mask."""
    image = volumes.read(path)
    pixels, spacing_mm = volumes.sagittal(image)
    mask, centre = None, len(pixels) // 2
    if mask_path:
        outlines = volumes.read(mask_path)
        volumes.check_grid(image, outlines)
        mask, _ = volumes.sagittal(outlines, is_mask=True)
        strange = set(np.unique(mask).tolist()) - set(labels) - {0}
        if strange:
            raise StudyError(f"mask {mask_path} has value {min(strange):g}, which labels.json does not name; add it")
        if mask.any():
            centre = volumes.middle(mask > 0)
        mask = mask.astype(np.uint8)
    case = re.sub(r"[^\w.-]", "-", name)
    for index in volumes.about(centre, slices, len(pixels)):
        yield Slice(
            f"{case}_slice{index}", patient, volumes.window(pixels[index]),
            None if mask is None else mask[index], spacing_mm, volumes.facts(index, centre),
        )  # fmt: skip


def _volumes(source: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Images and their masks by name; both sides complete, or no mask at all."""
    if not source.is_dir():
        raise StudyError(f"{source} is no folder; name the folder that holds NAME{SUFFIXES[0]}")
    beside, apart = _by_name(source), _by_name(source / "masks")
    images = {name: path for name, path in beside.items() if not name.endswith(MASK_ENDINGS)}
    masks = {name: path for name, path in beside.items() if name.endswith(MASK_ENDINGS)}
    masks = apart | {name[: name.rindex("_")]: path for name, path in masks.items()}
    if not images:
        raise StudyError(f"{source} holds no volume; name the folder that holds NAME with {', '.join(SUFFIXES)}")
    if set(masks) - set(images):
        name = min(set(masks) - set(images))
        raise StudyError(f"mask {masks[name]} belongs to no image; put {name}{SUFFIXES[0]} into {source}")
    if masks and set(images) - set(masks):
        name = min(set(images) - set(masks))
        raise StudyError(f"image {images[name]} has no mask but others have; add it, or move the image elsewhere")
    return images, masks


def _by_name(folder: Path) -> dict[str, Path]:
    """Name without suffix -> volume in a folder. Raises StudyError if two volumes share a name."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*")):
        suffix = next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), None)
        if suffix and not path.name.startswith("."):
            name = path.name.removesuffix(suffix)
            if name in found:
                raise StudyError(f"{path} and {found[name].name} share a name; remove one")
            found[name] = path
    return found


def _labels(path: Path) -> dict[int, str]:
    """Mask value -> name, from labels.json: masks number vertebrae in many ways, so none is guessed."""
    if not path.exists():
        raise StudyError(f"there are masks but no {path}; write it to name their values, {LABELS} for instance")
    try:
        labels = {int(value): str(name) for value, name in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, AttributeError):
        raise StudyError(f"{path} must be JSON of mask values and names, {LABELS} for instance") from None
    if not set(labels) <= set(range(256)) or not set(labels.values()) & set(LEVELS):
        raise StudyError(f"{path} must name values from 1 to 255, and one of {', '.join(LEVELS)} or more; {labels}")
    return {value: name for value, name in labels.items() if value}


def _patients(path: Path, names: list[str]) -> dict[str, str]:
    """Name of a volume -> patient. Raises StudyError for a table without its columns, or that leaves a volume out."""
    if not path.exists():
        return {name: name.partition("_")[0] for name in names}
    table = pd.read_csv(path, dtype=str)
    if not {"file", "patient"} <= set(table):
        raise StudyError(f"{path} must have the columns file, patient; it has {', '.join(table)}")
    known = {re.sub(r"(\.nii\.gz|\.nii|\.mha)$", "", row.file): row.patient for row in table.dropna().itertuples()}
    missing = [name for name in names if name not in known]
    if missing:
        raise StudyError(f"{path} leaves out {len(missing)} volumes, first {missing[0]}; give each a patient")
    return known
