"""Label maps of another tool, put into a study's folder as one more column of the comparison."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import SimpleITK as sitk

from lumbar_utils import LEVELS, MODELS, StudyError, records
from lumbar_utils.datasets.folder import Cohort, read_mask
from lumbar_utils.study import ROOT, Study

ENDINGS = (".png", ".nii.gz", ".nii", ".mha", ".nrrd")


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
    labels, maps = _labels(folder), {}
    test = cohort.cases[cohort.cases["split"] == "test"]
    files = {case: _file(folder, case) for case in test["case"]}
    target, record = study.folder / name / "label_maps", study.folder / name / "predict.json"
    made_from = records.fingerprint(cohort.fingerprint, labels, records.fingerprint_files(files.values()))
    if records.is_finished(record, made_from):
        return target
    if (study.folder / name / "fit.json").exists():
        raise StudyError(f"{name!r} is a network of this study; give the added label maps another name")
    for _, case in test.iterrows():
        file, shape = files[case["case"]], cohort.image(case).shape
        maps[case["case"]] = read_mask(file, labels) if file.suffix == ".png" else _read_volume(file, labels)
        if maps[case["case"]].shape != shape:
            raise StudyError(
                f"label map {file} is {_size(maps[case['case']].shape)} but its image {_size(shape)}; "
                "write it on that grid"
            )
    for case, label_map in maps.items():
        with records.atomic_file(target / f"{case}.png") as temporary:
            cv2.imwrite(str(temporary), label_map)
    records.mark_finished(record, made_from, [target / f"{case}.png" for case in maps], source=str(folder))
    return target


def add_all(study: Study, cohort: Cohort, folders: dict[str, str | Path]) -> None:
    """Add each folder under its name; see `add`. A relative folder starts at the project's root."""
    for name, folder in folders.items():
        add(study, cohort, name, ROOT / Path(folder).expanduser())


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _file(folder: Path, case: str) -> Path:
    for ending in ENDINGS:
        if (folder / f"{case}{ending}").exists():
            return folder / f"{case}{ending}"
    raise StudyError(
        f"{folder} has no label map for case {case} ({', '.join(ENDINGS)}); predict every case of the test set"
    )


def _labels(folder: Path) -> dict[int, str]:
    """Value -> name, as the folder's dataset.json has them, or the study's own."""
    if not (folder / "dataset.json").exists():
        return dict(enumerate(LEVELS, 1))
    named = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["labels"]
    return {
        int(value): name for value, name in (pair if str(pair[0]).isdigit() else pair[::-1] for pair in named.items())
    }


def _read_volume(file: Path, labels: dict[int, str]) -> np.ndarray:
    """(height, width) uint8 in the study's values of a file of medical formats that holds one slice."""
    pixels = np.squeeze(sitk.GetArrayFromImage(sitk.ReadImage(str(file))))
    if pixels.ndim != 2:
        raise StudyError(f"label map {file} has shape {pixels.shape}; write one slice a file")
    values = np.zeros(pixels.shape, np.uint8)
    unknown = set(np.unique(pixels).tolist()) - {0, *labels}
    if unknown:
        named = ", ".join(f"{value} = {name}" for value, name in sorted(labels.items()))
        raise StudyError(
            f"label map {file} has label {min(unknown)}; known are {named}; name it in dataset.json beside it"
        )
    for value, name in labels.items():
        if name in LEVELS:
            values[pixels == value] = LEVELS.index(name) + 1
    return values
