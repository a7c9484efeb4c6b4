"""Label maps of another tool, put into a study's folder as one more column of the comparison."""

import re
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np

from lumbar_utils import LEVELS, MODELS, StudyError, freshness, records
from lumbar_utils.data.files import VOLUMES, named_values, read_json
from lumbar_utils.data.folder import Cohort
from lumbar_utils.data.images import read_mask, write_png
from lumbar_utils.study import Study, absolute

ENDINGS = (".png", *VOLUMES)


def add(study: Study, cohort: Cohort, name: str, folder: Path) -> Path:
    """Check a folder of label maps of the test cases and copy them into the study's folder as <name>/label_maps.

    folder : <case>.png, or as nnU-Net writes them <case>.nii.gz (.nii, .mha, .nrrd): one slice on the grid of the
        image, rows from top to bottom. Values are 0 background and 1..6 = L1..S1, or those of the folder's
        dataset.json, whose `labels` are value -> name as in a data set, or name -> value as in nnU-Net.
    Returns the folder of label maps; added before with the same files, it does nothing.
    Raises StudyError, and adds nothing, for a name that cannot be a column, for a case without a label map, another
    size, or a label that is not named.
    """
    if not re.fullmatch(r"\w[\w.-]*", name) or name in MODELS or name in ("figures", "tables", "notebooks"):
        raise StudyError(
            f"{name!r} cannot name a column; use letters, digits, '.', '_', '-', and none of the study's own"
        )
    test = cohort.cases[cohort.cases["split"] == "test"]
    files, maps = _files(folder, list(test["case"])), {}
    labels = _labels(folder, cohort.annotated)
    target, record = study.folder / name / "label_maps", study.folder / name / "predict.json"
    contents = records.fingerprint_files(files.values())
    made_from = freshness.made_from("added", cohort.fingerprint, list(files), labels, contents)
    if records.is_finished(record, made_from):
        return target
    if (study.folder / name / "fit.json").exists():
        raise StudyError(f"{name!r} is a network of this study; give the added label maps another name")
    for _, case in test.iterrows():
        file, shape = files[case["case"]], cohort.image(case).shape
        maps[case["case"]] = read_mask(file, labels) if file.suffix.lower() == ".png" else _read_volume(file, labels)
        found = maps[case["case"]].shape
        if found != shape:
            raise StudyError(f"label map {file} has shape {found} but its image {shape}; write it on that grid")
    record.unlink(missing_ok=True)  # or a mixture of old and new maps would count as whole if this is killed
    shutil.rmtree(target, ignore_errors=True)
    for case, label_map in maps.items():
        with records.atomic_file(target / f"{case}.png") as temporary:
            write_png(temporary, label_map)
    files = [target / f"{case}.png" for case in maps]
    records.mark_finished(record, made_from, files, data=cohort.fingerprint, source=folder.name)
    return target


def add_all(study: Study, cohort: Cohort, folders: dict[str, str | Path]) -> None:
    """Add each folder under its name; see `add`. A relative folder starts at the project's root."""
    for name, folder in folders.items():
        add(study, cohort, name, absolute(folder))


def _files(folder: Path, cases: list[str]) -> dict[str, Path]:
    """Case -> its one label map. Raises StudyError if there is none, or more than one."""
    if not folder.is_dir():
        raise StudyError(f"there is no folder {folder}; name the one that holds the label maps")
    found = defaultdict(list)
    for path in sorted(folder.iterdir()):
        for ending in ENDINGS:
            if path.name.lower().endswith(ending):
                found[path.name[: -len(ending)]].append(path)
    for case in cases:
        if len(found[case]) != 1:
            raise StudyError(
                f"{folder} has {len(found[case])} label maps of case {case} ({', '.join(ENDINGS)}); give every case of "
                "the test set one"
            )
    return {case: found[case][0] for case in cases}


def _labels(folder: Path, annotated: tuple[str, ...]) -> dict[int, str]:
    """Value -> name, as the folder's dataset.json has them, or the study's own."""
    file = folder / "dataset.json"
    if not file.exists():
        return dict(enumerate(LEVELS, 1))
    return named_values(read_json(file).get("labels"), file, annotated)


def _read_volume(file: Path, labels: dict[int, str]) -> np.ndarray:
    """(height, width) uint8 in the study's values of a file of medical formats that holds one slice."""
    import SimpleITK as sitk  # takes long to load, and only volumes need it

    from lumbar_utils.data import volumes

    try:
        pixels = np.squeeze(sitk.GetArrayFromImage(volumes.load(file)))
        if pixels.ndim != 2:
            raise volumes.Unsuitable(f"has shape {pixels.shape}; write one slice a file")
        pixels = volumes.whole_labels(pixels)
    except volumes.Unsuitable as reason:
        raise StudyError(f"label map {file} {reason}") from None
    unknown = set(np.unique(pixels).tolist()) - {0, *labels}
    if unknown:
        named = ", ".join(f"{value} = {name}" for value, name in sorted(labels.items()))
        raise StudyError(
            f"label map {file} has label {min(unknown):g}; known are {named}; name it in dataset.json beside it"
        )
    values = np.zeros(pixels.shape, np.uint8)
    for value, name in labels.items():
        if name in LEVELS:
            values[pixels == value] = LEVELS.index(name) + 1
    return values
