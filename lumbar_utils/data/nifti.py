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
SEGMENT = re.compile(r"Segment\d+_(Name|LabelValue)$")  # fields of 3D Slicer in a .seg.nrrd
LABELS = '{"1": "L5", "2": "L4"}'


def read_source(source: Path, slices: int) -> tuple[dict, Iterator[Slice]]:
    """Description of the folder, and `slices` of each of its volumes about the middle one.

    source : folder, searched at any depth, of NAME.nii.gz, .nii, .mha or .nrrd; masks, for all or none, in one of
        MASK_FOLDERS or with MASK_ENDING, and then labels.json or nnU-Net's dataset.json; patients.csv (file, patient)
        if the names do not tell the patients.
    Raises StudyError for images or masks without the other, no names of labels, or ambiguous patients.
    """
    images, masks = _pairs(source)
    patients = _patients(source / "patients.csv", list(images), bool(masks))
    labels = _labels(source, bool(masks))
    description = {
        "name": "NIfTI volumes, sagittal slices",
        "licence": "not stated",
        "labels": {0: "background"} | labels,
        "annotated_levels": [level for level in LEVELS if level in labels.values()],
    }

    def cut(name: str) -> volumes.Cut:
        image = volumes.read(images[name])
        pixels, spacing_mm = volumes.sagittal(image)
        if not masks:
            return volumes.Cut(patients[name], pixels, spacing_mm, len(pixels) // 2, lambda _: None)
        mask = _read_mask(image, masks[name], labels)
        centre = volumes.middle(mask > 0) if mask.any() else len(pixels) // 2
        return volumes.Cut(patients[name], pixels, spacing_mm, centre, mask.__getitem__)

    return description, volumes.cut_each(list(images), cut, slices, description)


def _read_mask(image: sitk.Image, path: Path, labels: dict[int, str]) -> np.ndarray:
    """(slices, height, width) uint8 of a mask.

    Raises StudyError for a value without a name, and where 3D Slicer, which numbers the segments of each file anew, has
    another level for a value.
    """
    mask, stored = volumes.read_mask(path, image)
    unnamed = set(np.unique(mask).tolist()) - set(labels) - {0}
    if unnamed:
        raise StudyError(f"mask {path} has value {min(unnamed):g}, which labels.json does not name; add it")
    named = {str(value): name for value, name in labels.items()}
    header = {key: stored.GetMetaData(key) for key in stored.GetMetaDataKeys() if SEGMENT.match(key)}
    for key, name in header.items():
        level, value = level_of(name), header.get(key.replace("_Name", "_LabelValue"))
        if key.endswith("_Name") and level in LEVELS and value and named.get(value) != level:
            raise StudyError(
                f"mask {path} calls its value {value} {level}, labels.json {named.get(value)}; export all masks with "
                "one numbering"
            )
    return mask.astype(np.uint8)


def _pairs(source: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Images and their masks by the image's name; a mask for every image, or none at all."""
    images, masks = _by_name(source)
    if not images:
        raise StudyError(f"{source} holds no volume; name the folder that holds NAME with {', '.join(VOLUMES)}")
    if not masks:
        return images, {}
    # LSPINE_000_0000 has the mask LSPINE_000, and sub-01_T2w may have sub-01_dseg
    mask_names = {name: name if name in masks else name.rpartition("_")[0] for name in images}
    alone = [images[name] for name in images if mask_names[name] not in masks]
    alone += [masks[name] for name in masks if name not in mask_names.values()]
    if alone:
        raise StudyError(
            f"{alone[0]} is alone: there is a mask for every image, with the image's name, or for none; add the other, "
            "rename it, or move it elsewhere"
        )
    for mask_name in masks:
        owners = {CHANNEL.sub("", name) for name in images if mask_names[name] == mask_name}
        if len(owners) > 1:
            raise StudyError(
                f"mask {masks[mask_name]} may be that of {' or of '.join(sorted(owners))}; name it as its image"
            )
    return images, {name: masks[mask_name] for name, mask_name in mask_names.items()}


def _by_name(source: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Name without suffix -> image, and name of the image -> mask. Raises StudyError if two share a case's name."""
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
        other = cases.setdefault((is_mask, volumes.case_name(name)), path)
        if other != path:
            raise StudyError(f"{path} and {other.relative_to(source)} share a name; remove or rename one")
        (masks if is_mask else images)[name] = path
    return images, masks


def _labels(source: Path, masked: bool) -> dict[int, str]:
    """Mask value -> name: tools number vertebrae in many ways, so none is assumed."""
    own, of_nnunet = source / "labels.json", source / "dataset.json"
    if own.exists() and not masked:
        raise StudyError(f"{own} names mask values but there is no mask; add NAME_mask{VOLUMES[0]}, or remove it")
    if not masked:
        return {}
    if own.exists():
        labels = named_values(read_json(own), own)
    elif of_nnunet.exists():
        labels = named_values(read_json(of_nnunet).get("labels"), of_nnunet)
    else:
        raise StudyError(f"there are masks but no {own}; write it to name their values, {LABELS} for instance")
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
    table = read_table(path, ("file", "patient"))
    table.index = [split_suffix(Path(file))[0] for file in table["file"]]
    wrong = [name for name in names if (table.index == name).sum() != 1 or not table.loc[name, "patient"]]
    if wrong:
        raise StudyError(f"{path} names no patient of {wrong[0]}, or several; give each volume one line")
    return table["patient"].to_dict()


def _refuse_ambiguous(path: Path, patients: dict[str, str]) -> None:
    """Raise StudyError if the names leave open whether volumes are of one patient or of several."""
    first, unique, problem = next(iter(patients)), sorted(set(patients.values())), ""
    if len(patients) > 1 and len(unique) == 1 and not first.startswith("sub-"):
        problem = f"all {len(patients)} volumes would be of one patient, {unique[0]}"
    keys: dict[str, str] = {}
    for patient, key in zip(unique, _keys(unique), strict=True):
        other = keys.setdefault(key, patient)
        if other != patient:
            problem = f"{other} and {patient} may be one patient"
        if SEQUENCE.fullmatch(patient):
            problem = f"volumes would be of a patient {patient!r}, a word that names no one"
    if problem:
        raise StudyError(
            f"{problem}, by their names; write {path} of the lines 'file,patient', '{first},PATIENT' and so on to say "
            "whose each volume is"
        )


def _keys(patients: list[str]) -> list[str]:
    """The part that names of one patient share: P01 of P01-T1, P01-T2, P01a and P01b, but not `case` of case-01.

    A beginning without a number that all names share is that of the data set.
    """
    names = [re.split(r"[\W_]+", patient) for patient in patients]
    while len({parts[0] for parts in names}) == 1 and names[0][0].isalpha() and min(map(len, names)) > 1:
        names = [parts[1:] for parts in names]
    return [re.sub(r"^([A-Za-z]*\d+)[A-Za-z]+\d*$", r"\1", parts[0]) for parts in names]
