"""A folder of NIfTI, MetaImage or NRRD volumes, with masks or, to predict on, without."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lumbar_utils import LEVELS, StudyError
from lumbar_utils.data import volumes
from lumbar_utils.data.files import VOLUMES, files_in, level_of, named_values, read_json, read_table, split_suffix
from lumbar_utils.data.folder import Slice

MASK_FOLDERS = {"masks", "labels", "labelsTr", "labelsTs"}
MASK_ENDING = re.compile(r"[\W_]+(masks?|msk|d?seg|labels?|labelmap|segmentations?|gt)$", re.IGNORECASE)
CHANNEL = re.compile(r"_000\d$")  # of nnU-Net's images
SEQUENCE = re.compile(r"(t[12]w?|pdw?|stir|space|flair|dixon|mri?|ct|sag|scan|vol|img|image)\d?", re.IGNORECASE)
NOT_READ = (
    ".hdr", ".img", ".img.gz", ".hdr.gz", ".mhd", ".nhdr", ".mgz", ".mgh", ".mnc", ".gipl", ".vtk", ".nii.bz2",
    ".nii.xz", ".nii.zst", ".nii.zip", ".part", ".partial", ".filepart", ".crdownload",
)  # other formats of volumes, and unfinished copies  # fmt: skip
LABELS = '{"1": "L5", "2": "L4"}'


def read_source(source: Path, slices: int) -> tuple[dict, Iterator[Slice]]:
    """Description of the folder, and `slices` of each of its volumes about the middle one.

    source : folder, searched at any depth, of NAME.nii.gz, .nii, .mha or .nrrd; masks, for all or none, in one of
        MASK_FOLDERS or with MASK_ENDING, and then labels.json or nnU-Net's dataset.json; patients.csv (file, patient)
        if the names do not tell the patients.
    Raises StudyError for masks without images, images without masks beside others with, no names of labels, or
    ambiguous patients.
    """
    images, masks = _pairs(source)
    patients = _patients(source / "patients.csv", list(images), bool(masks))
    labels = _labels(source, bool(masks))
    description = {
        "name": "NIfTI volumes, sagittal slices",
        "licence": "not stated",
        "labels": {"0": "background"} | {str(value): name for value, name in labels.items()},
        "annotated_levels": [level for level in LEVELS if level in labels.values()],
    }

    def read_slices(name: str) -> Iterator[Slice]:
        return _read_slices(name, images[name], masks.get(name), labels, patients[name], slices)

    return description, volumes.read_usable(list(images), read_slices, description)


def _read_slices(name: str, path: Path, mask_path: Path | None, labels: dict[int, str], patient: str, slices: int):
    """The slices of one volume, about the middle of its mask's labels, or of the volume without a mask."""
    image = volumes.read(path)
    pixels, spacing_mm = volumes.sagittal(image)
    masks, centre = [None] * len(pixels), len(pixels) // 2
    if mask_path:
        masks = _read_mask(image, mask_path, labels)
        centre = volumes.middle(masks > 0) if masks.any() else centre
    for index in volumes.neighbours(centre, slices, len(pixels)):
        yield Slice(
            f"{_case(name)}_slice{index}", patient, volumes.window(pixels[index]), masks[index], spacing_mm,
            volumes.slice_columns(index, centre),
        )  # fmt: skip


def _read_mask(image: sitk.Image, path: Path, labels: dict[int, str]) -> np.ndarray:
    """(slices, height, width) uint8 of a mask. Raises StudyError for a value without a name, or with another one."""
    mask, header = volumes.read_mask(path, image)
    _check_segments(header, path, labels)
    unnamed = set(np.unique(mask).tolist()) - set(labels) - {0}
    if unnamed:
        raise StudyError(f"mask {path} has value {min(unnamed):g}, which labels.json does not name; add it")
    return mask.astype(np.uint8)


def _check_segments(header: dict[str, str], path: Path, labels: dict[int, str]) -> None:
    """Raise StudyError if 3D Slicer, which numbers the segments of each file anew, has another level for a value."""
    for segment in [key.removesuffix("_Name") for key in header if re.fullmatch(r"Segment\d+_Name", key)]:
        level, value = level_of(header[f"{segment}_Name"]), header.get(f"{segment}_LabelValue", "")
        named = labels.get(int(value), "nothing") if value.isdecimal() else level
        if level in LEVELS and named != level:
            raise StudyError(
                f"mask {path} calls its value {value} {level}, labels.json {named}; export all masks with one numbering"
            )


def _pairs(source: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Images and their masks by the image's name; a mask for every image, or none at all."""
    if not source.is_dir():
        raise StudyError(f"{source} is no folder; name the folder that holds NAME{VOLUMES[0]}")
    images, masks = _by_name(source)
    if not images:
        raise StudyError(f"{source} holds no volume; name the folder that holds NAME with {', '.join(VOLUMES)}")
    # LSPINE_000_0000 has the mask LSPINE_000, and sub-01_T2w may have sub-01_dseg
    mask_names = {name: name if name in masks else name.rpartition("_")[0] for name in images}
    unused = sorted(set(masks) - set(mask_names.values()))
    if unused:
        raise StudyError(
            f"mask {masks[unused[0]]} belongs to no image; give it the name of its image, or put "
            f"{unused[0]}{VOLUMES[0]} into {source}"
        )
    if not masks:
        return images, {}
    lacking = sorted(name for name in images if mask_names[name] not in masks)
    if lacking:
        raise StudyError(f"image {images[lacking[0]]} has no mask but others have; add it, or move the image elsewhere")
    owners: dict[str, str] = {}
    for name, mask_name in mask_names.items():
        owner = owners.setdefault(mask_name, name)
        if CHANNEL.sub("", owner) != CHANNEL.sub("", name):
            raise StudyError(f"mask {masks[mask_name]} may be that of {owner} or of {name}; name it as its image")
    return images, {name: masks[mask_name] for name, mask_name in mask_names.items()}


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
        is_mask = bool(MASK_ENDING.search(name) or MASK_FOLDERS & set(path.relative_to(source).parts[:-1]))
        name = MASK_ENDING.sub("", name)
        level = level_of(name)
        if level in LEVELS:
            raise StudyError(f"{path} is of {level} alone by its name; write all levels of a volume as one label map")
        other = cases.setdefault((is_mask, _case(name)), path)
        if other != path:
            raise StudyError(f"{path} and {other.relative_to(source)} share a name; remove or rename one")
        (masks if is_mask else images)[name] = path
    return images, masks


def _case(name: str) -> str:
    """The name with the letters that a case may have; others become `-`."""
    return re.sub(r"[^\w.-]", "-", name)


def _labels(source: Path, masked: bool) -> dict[int, str]:
    """Mask value -> name: tools number vertebrae in many ways, so none is assumed."""
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
    """Name of a volume -> patient, from patients.csv at `path`, or by the names where there is none.

    Raises StudyError for a table that leaves a volume out, and for names that are ambiguous in data to learn from.
    """
    if not path.exists():
        is_nnunet = all(CHANNEL.search(name) for name in names)
        patients = {name: CHANNEL.sub("", name) if is_nnunet else name.partition("_")[0] for name in names}
        if masked:
            _refuse_ambiguous(path, patients)
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


def _refuse_ambiguous(path: Path, patients: dict[str, str]) -> None:
    """Raise StudyError if the names leave open whether volumes are of one patient or of several."""
    first = next(iter(patients))
    remedy = f"write {path} of the lines 'file,patient', '{first},PATIENT' and so on to say whose each volume is"
    unique = sorted(set(patients.values()))
    if len(patients) > 1 and len(unique) == 1 and not first.startswith("sub-"):
        raise StudyError(
            f"all {len(patients)} volumes would be of one patient, {patients[first]}, by their names; {remedy}"
        )
    keys: dict[str, str] = {}
    for patient, key in zip(unique, _keys(unique), strict=True):
        if SEQUENCE.fullmatch(patient):
            raise StudyError(f"volumes would be of a patient {patient!r} by their names, which names no one; {remedy}")
        other = keys.setdefault(key, patient)
        if other != patient:
            raise StudyError(f"{other} and {patient} may be one patient by their names; {remedy}")


def _keys(patients: list[str]) -> list[str]:
    """The part that names of one patient share: P01 of P01-T1, P01-T2, P01a and P01b, but not `case` of case-01.

    A beginning without a number that all names share is that of the data set.
    """
    names = [re.split(r"[\W_]+", patient) for patient in patients]
    while len({parts[0] for parts in names}) == 1 and names[0][0].isalpha() and min(map(len, names)) > 1:
        names = [parts[1:] for parts in names]
    return [re.sub(r"^([A-Za-z]*\d+)[A-Za-z]+\d*$", r"\1", parts[0]) for parts in names]
