"""Label maps on disk: what a trained network says of the test cases, and how sure it is."""

import math
import shutil
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn import functional as F
from tqdm.auto import tqdm

from lumbar_utils import LEVELS, StudyError, freshness, records
from lumbar_utils.data.decoding import Fit
from lumbar_utils.data.folder import Cohort
from lumbar_utils.data.preparation import taught
from lumbar_utils.networks.devices import device_of, memory_named
from lumbar_utils.networks.loading import classes_of, loader
from lumbar_utils.networks.losses import log_probabilities_of
from lumbar_utils.networks.training import load_weights, network_of
from lumbar_utils.study import Study

VIEWS = ((-5, 1), (5, 1), (0, 0.93), (0, 1.07))  # degrees and scale of the copies that test-time augmentation adds


def predict(study: Study, cohort: Cohort, model: str) -> Path:
    """Write a label map for every test case, on the grid of its image; done already, it does nothing.

    <case>.png holds the label map (0 background, 1..6 = L1..S1) and <case>.npz the `probabilities` behind it.
    Returns the folder. Raises StudyError if the model is not trained.
    """
    folder, record = study.folder / model / "label_maps", study.folder / model / "predict.json"
    made_from = freshness.predicted(study, cohort.fingerprint, model)
    if records.is_finished(record, made_from):
        print(f"{model} has predicted already: {folder}")
        return folder
    refuse_untrained(study, cohort, model)
    network, classes = trained_network(study, model, study.folder / model), known_classes(study, cohort)
    record.unlink(missing_ok=True)  # or a mixture of old and new maps would count as whole if this is killed
    shutil.rmtree(folder, ignore_errors=True)
    files = write_label_maps(study, cohort, network, classes, folder)
    records.mark_finished(record, made_from, files, content=records.fingerprint_files(files))
    return folder


def known_classes(study: Study, cohort: Cohort) -> list[int]:
    """Output channels that the study's networks were taught, background first."""
    return classes_of(taught(study, cohort))


def refuse_untrained(study: Study, cohort: Cohort, model: str) -> None:
    """Raise StudyError if the study has no such network, trained to its end with these settings, data and code."""
    if not records.is_finished(study.folder / model / "fit.json", freshness.trained(study, cohort.fingerprint, model)):
        raise StudyError(f"{model} is not trained in {study.folder}; run its training notebook first")


def write_label_maps(
    study: Study, cohort: Cohort, network: torch.nn.Module, classes: list[int], folder: Path
) -> list[Path]:
    """Write <case>.png and <case>.npz for every case whose `split` is test; returns the files.

    classes : the network's output channels that were taught, background first; no other is predicted.
    """
    device, files, batches = device_of(study), [], loader(study, cohort, "test")
    network = network.to(device)
    bar = tqdm(total=len(batches.dataset), desc="predicting", unit="case")
    with torch.inference_mode(), bar, memory_named(study, "predicting"):
        for images, _, rows in batches:
            maps = probabilities_of(network, images.to(device), classes, study.test_time_augmentation)
            for of_case, row in zip(maps.cpu().numpy(), rows.tolist(), strict=True):
                files += _write_case(folder, cohort, row, of_case, classes)
            bar.update(len(rows))
    return files


def trained_network(study: Study, model: str, folder: Path) -> torch.nn.Module:
    """The network of the best epoch in a model's folder, ready to predict. Raises StudyError if it has other layers."""
    return load_weights(network_of(study, model), model, folder).eval()


def turned(images: torch.Tensor, degrees: float, scale: float) -> torch.Tensor:
    """(batch, channels, height, width) turned about its middle and scaled by `scale`; edges are drawn out."""
    angle, (height, width) = math.radians(degrees), images.shape[-2:]
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    matrix = torch.tensor([[cos, -sin * height / width, 0], [sin * width / height, cos, 0]]).to(images)
    grid = F.affine_grid(matrix.expand(len(images), 2, 3), images.shape, align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def probabilities_of(network: torch.nn.Module, images: torch.Tensor, classes: list[int], views: bool) -> torch.Tensor:
    """(batch, classes, height, width) in [0, 1]; with `views`, the mean over the image turned and scaled and back."""
    total = log_probabilities_of(network(images), classes).exp()
    for degrees, scale in VIEWS if views else ():
        maps = log_probabilities_of(network(turned(images, degrees, scale)), classes).exp()
        total = total + turned(maps, -degrees, 1 / scale)
    return total / (1 + len(VIEWS) if views else 1)


def _write_case(folder: Path, cohort: Cohort, row: int, maps: np.ndarray, classes: list[int]) -> list[Path]:
    """Bring probabilities (classes, grid height, grid width) onto the case's image; write map and probabilities."""
    case = cohort.cases.iloc[row]
    shape = cohort.image(case).shape
    maps = Fit.of(shape, *maps.shape[1:]).out_of_grid(maps, shape)
    label_map = np.array(classes, np.uint8)[maps.argmax(axis=0)]
    probabilities = np.zeros((len(LEVELS), *shape), np.uint8)
    for value, channel in zip(classes[1:], maps[1:], strict=True):
        probabilities[value - 1] = np.rint(channel * 255)
    picture, sureness = folder / f"{case['case']}.png", folder / f"{case['case']}.npz"
    with records.atomic_file(picture) as temporary:
        cv2.imwrite(str(temporary), label_map)
    with records.atomic_file(sureness) as temporary:
        np.savez_compressed(temporary, probabilities=probabilities)
    return [picture, sureness]
