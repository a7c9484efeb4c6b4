"""A folder of NIfTI, MetaImage or NRRD volumes, with masks or, to predict on, without."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lumbar_utils import LEVELS, StudyError
from lumbar_utils.data import volumes
from lumbar_utils.data.files import NOT_READ, VOLUMES, files_in, split_suffix
from lumbar_utils.data.labels import level_of, named_values
from lumbar_utils.data.textfiles import read_json, read_table
from lumbar_utils.data.writing import Slice

MASK_FOLDERS = {"masks", "labels", "labelsTr", "labelsTs"}
MASK_ENDING = re.compile(r"[\W_]+(masks?|msk|d?seg|labels?|labelmap|segmentations?|gt)$", re.IGNORECASE)
CHANNEL = re.compile(r"_000\d$")  # of nnU-Net's images
SEQUENCE = re.compile(r"(t[12]w?|pdw?|stir|space|flair|dixon|mri?|ct|sag|scan|vol|img|image)\d?", re.IGNORECASE)
LABELS = '{"1": "L5", "2": "L4"}'


def read_source(source: Path, slices: int) -> tuple[dict, Iterator[Slice]]:
    """What the folder holds, and `slices` of each of its volumes about the middle one.

    source : folder, searched at any depth, of NAME.nii.gz, .nii, .mha or .nrrd; masks, for all or none, in one of
        MASK_FOLDERS or with MASK_ENDING, and then labels.json or nnU-Net's dataset.json; patients.csv (file, patient)
        where names do not say whose the volumes are.
    Raises StudyError for masks without images, images without masks beside others with, no names of labels, or
    patients that are in doubt.
    """
    images, masks = _volumes(source)
    patients = _patients(source / "patients.csv", list(images), bool(masks))
    labels = _labels(source, bool(masks))
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
        mask = _mask(image, mask_path, labels)
        if mask.any():
            centre = volumes.middle(mask > 0)
    for index in volumes.about(centre, slices, len(pixels)):
        yield Slice(
            f"{_case(name)}_slice{index}", patient, volumes.window(pixels[index]),
            None if mask is None else mask[index], spacing_mm, volumes.facts(index, centre),
        )  # fmt: skip


def _mask(image: sitk.Image, path: Path, labels: dict[int, str]) -> np.ndarray:
    """(slices, height, width) uint8 of a mask. Raises StudyError for a value that is not named, or named otherwise."""
    try:
        outlines = volumes.read(path)
    except volumes.Unsuitable as reason:
        raise volumes.Unsuitable(f"has a mask, {path.name}, that {reason}") from None
    _check_segments(outlines, path, labels)
    mask = volumes.whole_labels(volumes.sagittal(volumes.onto_grid(image, outlines), is_mask=True)[0])
    strange = set(np.unique(mask).tolist()) - set(labels) - {0}
    if strange:
        raise StudyError(f"mask {path} has value {min(strange):g}, which labels.json does not name; add it")
    return mask.astype(np.uint8)


def _check_segments(mask: sitk.Image, path: Path, labels: dict[int, str]) -> None:
    """Raise StudyError if 3D Slicer, which numbers the segments of each file anew, has another level for a value."""
    header = volumes.header_of(mask)
    for segment in [key.removesuffix("_Name") for key in header if re.fullmatch(r"Segment\d+_Name", key)]:
        level, value = level_of(header[f"{segment}_Name"]), header.get(f"{segment}_LabelValue", "")
        meant = labels.get(int(value), "nothing") if value.isdecimal() else level
        if level in LEVELS and meant != level:
            raise StudyError(
                f"mask {path} calls its value {value} {level}, labels.json {meant}; export all masks with one numbering"
            )


def _volumes(source: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Images and their masks by the image's name; both sides complete, or no mask at all."""
    if not source.is_dir():
        raise StudyError(f"{source} is no folder; name the folder that holds NAME{VOLUMES[0]}")
    images, masks = _by_name(source)
    if not images:
        raise StudyError(f"{source} holds no volume; name the folder that holds NAME with {', '.join(VOLUMES)}")
    # LSPINE_000_0000 has the mask LSPINE_000, and sub-01_T2w may have sub-01_dseg
    names = {name: name if name in masks else name.rpartition("_")[0] for name in images}
    strange = sorted(set(masks) - set(names.values()))
    if strange:
        raise StudyError(
            f"mask {masks[strange[0]]} belongs to no image; give it the name of its image, or put "
            f"{strange[0]}{VOLUMES[0]} into {source}"
        )
    lacking = sorted(name for name in images if names[name] not in masks)
    if masks and lacking:
        raise StudyError(f"image {images[lacking[0]]} has no mask but others have; add it, or move the image elsewhere")
    owners: dict[str, str] = {}
    for name in [] if lacking else images:
        owner = owners.setdefault(names[name], name)
        if CHANNEL.sub("", owner) != CHANNEL.sub("", name):
            raise StudyError(f"mask {masks[names[name]]} may be that of {owner} or of {name}; name it as its image")
    return images, {} if lacking else {name: masks[names[name]] for name in images}


def _by_name(source: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Name without suffix -> image, and name of the image -> mask. Raises StudyError if two share a name."""
    images: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    cases: dict[tuple, Path] = {}
    for path in files_in(source):
        name, suffix = split_suffix(path)
        if path.name.lower().endswith(NOT_READ):
            raise StudyError(f"{path} is of a kind that is not read; save it as {', '.join(VOLUMES)}, or move it away")
        if not suffix:
            continue
        ending = MASK_ENDING.search(name)
        is_mask = bool(ending or MASK_FOLDERS & set(path.relative_to(source).parts[:-1]))
        name = name[: ending.start()] if ending else name
        if (level := level_of(name)) in LEVELS:
            raise StudyError(f"{path} is of {level} alone by its name; write all levels of a volume as one label map")
        other = cases.setdefault((is_mask, _case(name)), path)
        if other != path:
            raise StudyError(f"{path} and {other.relative_to(source)} share a name; remove or rename one")
        (masks if is_mask else images)[name] = path
    return images, masks


def _case(name: str) -> str:
    """The name with letters only that a case may have."""
    return re.sub(r"[^\w.-]", "-", name)


def _labels(source: Path, masked: bool) -> dict[int, str]:
    """Mask value -> name: masks number vertebrae in many ways, so none is guessed."""
    path = source / "labels.json"
    if not masked:
        if path.exists():
            raise StudyError(f"{path} names mask values but there is no mask; add NAME_mask{VOLUMES[0]}, or remove it")
        return {}
    if path.exists():
        labels = named_values(read_json(path), path)
    elif (source / "dataset.json").exists():  # of nnU-Net
        labels = named_values(read_json(source / "dataset.json").get("labels"), source / "dataset.json")
    else:
        raise StudyError(f"there are masks but no {path}; write it to name their values, {LABELS} for instance")
    if max(labels) > 255:
        raise StudyError(f"{path} names the value {max(labels)}; values from 1 to 255 are allowed")
    return {value: name for value, name in labels.items() if value}


def _patients(path: Path, names: list[str], masked: bool) -> dict[str, str]:
    """Name of a volume -> patient.

    Raises StudyError for a table that leaves a volume out, or without one where names leave in doubt, for data to
    learn from, which volumes are of one patient.
    """
    if not path.exists():
        nnunet = all(CHANNEL.search(name) for name in names)
        patients = {name: CHANNEL.sub("", name) if nnunet else name.partition("_")[0] for name in names}
        if masked:
            _refuse_doubt(path, patients)
        return patients
    known: dict[str, str] = {}
    for row in read_table(path, ("file", "patient")).to_dict("records"):
        name = split_suffix(Path(row["file"]))[0]
        if known.setdefault(name, row["patient"]) != row["patient"]:
            raise StudyError(f"{path} gives {name} to {known[name]} and to {row['patient']}; leave one")
    missing = [name for name in names if not known.get(name)]
    if missing:
        raise StudyError(f"{path} leaves out {len(missing)} volumes, first {missing[0]}; give each a patient")
    return {name: known[name] for name in names}


def _refuse_doubt(path: Path, patients: dict[str, str]) -> None:
    """Raise StudyError if names may hide that volumes are of one patient, or of several."""
    first = next(iter(patients))
    remedy = f"write {path} of the lines 'file,patient', '{first},PATIENT' and so on to say whose each volume is"
    whole = set(patients.values())
    if len(patients) > 1 and len(whole) == 1 and not first.startswith("sub-"):
        raise StudyError(
            f"all {len(patients)} volumes would be of one patient, {patients[first]}, by their names; {remedy}"
        )
    sequence = next((patient for patient in whole if SEQUENCE.fullmatch(patient)), None)
    if sequence:
        raise StudyError(f"volumes would be of a patient {sequence!r} by their names, which names no one; {remedy}")
    keys: dict[str, str] = {}
    for patient, key in zip(sorted(whole), _keys(sorted(whole)), strict=True):
        other = keys.setdefault(key, patient)
        if other != patient:
            raise StudyError(f"{other} and {patient} may be one patient by their names; {remedy}")


def _keys(patients: list[str]) -> list[str]:
    """What names of one patient share: P01 of P01-T1, P01-T2, P01a and P01b, but not `case` of case-01 and case-02.

    A beginning without a number that all names share is that of the data set.
    """
    split = [re.split(r"[\W_]+", patient) for patient in patients]
    while len({tokens[0] for tokens in split}) == 1 and split[0][0].isalpha() and min(map(len, split)) > 1:
        split = [tokens[1:] for tokens in split]
    return [re.sub(r"^([A-Za-z]*\d+)[A-Za-z]+\d*$", r"\1", tokens[0]) for tokens in split]
