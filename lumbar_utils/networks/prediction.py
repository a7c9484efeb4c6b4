"""Prediction: label maps of the test cases on disk, with the probabilities behind them."""

import shutil
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from lumbar_utils import LEVELS, StudyError, freshness, records
from lumbar_utils.data.decoding import Fit
from lumbar_utils.data.folder import Cohort
from lumbar_utils.data.images import write_png
from lumbar_utils.data.preparation import taught
from lumbar_utils.machine import device_of, explain_out_of_memory
from lumbar_utils.networks.checkpoints import trained_network
from lumbar_utils.networks.dataset import classes_of, loader
from lumbar_utils.networks.losses import log_probabilities_of
from lumbar_utils.study import Study


def predict(study: Study, cohort: Cohort, model: str) -> Path:
    """Write a label map for every test case, on the grid of its image; if that is done already, do nothing.

    <case>.png holds the label map (0 background, 1..6 = L1..S1), <case>.npz the `probabilities` behind it.
    Returns their folder. Raises StudyError if the model is not trained.
    """
    folder, record = study.folder / model / "label_maps", study.folder / model / "predict.json"
    made_from = freshness.predicted(study, cohort.fingerprint, model)
    if records.is_finished(record, made_from):
        print(f"{model} has predicted already: {folder}")
        return folder
    refuse_untrained(study, cohort, model)
    network, classes = trained_network(study, model, study.folder / model), taught_classes(study, cohort)
    record.unlink(missing_ok=True)  # otherwise old and new maps would count as complete if this is killed
    shutil.rmtree(folder, ignore_errors=True)
    files = write_label_maps(study, cohort, network, classes, folder)
    records.mark_finished(record, made_from, files, content=records.fingerprint_files(files))
    return folder


def taught_classes(study: Study, cohort: Cohort) -> list[int]:
    """Output channels that the study's networks were trained on, background first."""
    return classes_of(taught(study, cohort))


def refuse_untrained(study: Study, cohort: Cohort, model: str) -> None:
    """Raise StudyError unless the study has this network, trained to the end with its settings, data and code."""
    if not records.is_finished(study.folder / model / "fit.json", freshness.trained(study, cohort.fingerprint, model)):
        raise StudyError(f"{model} is not trained in {study.folder}; run its training notebook first")


def write_label_maps(study: Study, cohort: Cohort, network: nn.Module, classes: list[int], folder: Path) -> list[Path]:
    """Write <case>.png and <case>.npz for every case of the test set; returns the files.

    classes : the output channels that the network was trained on, background first; no other class is predicted.
    """
    device, files, batches = device_of(study), [], loader(study, cohort, "test")
    network = network.to(device)
    bar = tqdm(total=len(batches.dataset), desc="predicting", unit="case")
    with torch.inference_mode(), bar, explain_out_of_memory(study, "predicting"):
        for images, _, rows in batches:
            maps = probabilities_of(network, images.to(device), classes)
            for case_maps, row in zip(maps.cpu().numpy(), rows.tolist(), strict=True):
                files += _write_case(folder, cohort, row, case_maps, classes)
            bar.update(len(rows))
    return files


def probabilities_of(network: nn.Module, images: torch.Tensor, classes: list[int]) -> torch.Tensor:
    """Images (batch, 1, height, width) -> probabilities (batch, classes, height, width) in [0, 1]."""
    return log_probabilities_of(network(images), classes).exp()


def _write_case(folder: Path, cohort: Cohort, row: int, maps: np.ndarray, classes: list[int]) -> list[Path]:
    """Resample probabilities (classes, grid height, grid width) onto the case's image; write label map and them."""
    case = cohort.cases.iloc[row]
    shape = cohort.image(case).shape
    maps = Fit.of(shape, *maps.shape[1:]).out_of_grid(maps, shape)
    label_map = np.array(classes, np.uint8)[maps.argmax(axis=0)]
    probabilities = np.zeros((len(LEVELS), *shape), np.uint8)  # in 1/255
    for value, channel in zip(classes[1:], maps[1:], strict=True):
        probabilities[value - 1] = np.rint(channel * 255)
    label_map_file, probabilities_file = folder / f"{case['case']}.png", folder / f"{case['case']}.npz"
    with records.atomic_file(label_map_file) as temporary:
        write_png(temporary, label_map)
    with records.atomic_file(probabilities_file) as temporary:
        np.savez_compressed(temporary, probabilities=probabilities)
    return [label_map_file, probabilities_file]
