"""Label maps on disk: what a trained network says of the test cases, and how sure it is."""

from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm.auto import tqdm

from lumbar_utils import LEVELS, StudyError, records
from lumbar_utils.datasets.folder import Cohort
from lumbar_utils.decoding import Fit
from lumbar_utils.loading import loader
from lumbar_utils.study import Study
from lumbar_utils.training import annotated_classes, device_of, network_of, read_checkpoint, training_fingerprint


def predict(study: Study, cohort: Cohort, model: str) -> Path:
    """Write a label map for every test case, on the grid of its image; done already, it does nothing.

    <case>.png holds the label map (0 background, 1..6 = L1..S1) and <case>.npz the `probabilities` behind it.
    Returns the folder. Raises StudyError if the model is not trained.
    """
    folder, record = study.folder / model / "label_maps", study.folder / model / "predict.json"
    made_from = prediction_fingerprint(study, cohort, model)
    if records.is_finished(record, made_from):
        print(f"{model} has predicted already: {folder}")
        return folder
    if not records.is_finished(study.folder / model / "fit.json", training_fingerprint(study, cohort, model)):
        raise StudyError(f"{model} is not trained in {study.folder}; run its training notebook first")
    network, classes = trained_network(study, model, study.folder / model), annotated_classes(cohort)
    records.mark_finished(record, made_from, write_label_maps(study, cohort, network, classes, folder))
    return folder


def write_label_maps(
    study: Study, cohort: Cohort, network: torch.nn.Module, classes: list[int], folder: Path
) -> list[Path]:
    """Write <case>.png and <case>.npz for every case whose `split` is test; returns the files.

    classes : the network's output channels that were taught, background first; no other is predicted.
    """
    device, files, batches = device_of(study), [], loader(study, cohort, "test")
    network = network.to(device)
    with torch.inference_mode(), tqdm(total=len(batches.dataset), desc="predicting", unit="case") as bar:
        for images, _, rows in batches:
            logits = network(images.to(device))[:, classes].float()
            for maps, row in zip(logits.softmax(dim=1).cpu().numpy(), rows.tolist(), strict=True):
                files += _write_case(folder, cohort, row, maps, classes)
            bar.update(len(rows))
    return files


def prediction_fingerprint(study: Study, cohort: Cohort, model: str) -> str:
    """What a folder of label maps depends on."""
    return records.fingerprint(training_fingerprint(study, cohort, model), records.source_fingerprint("prediction"))


def trained_network(study: Study, model: str, folder: Path) -> torch.nn.Module:
    """The network of the best epoch in a model's folder, ready to predict. Raises StudyError if it has other layers."""
    weights = read_checkpoint(folder / "checkpoints" / "best.ckpt")["state_dict"]
    network = network_of(study, model)
    try:
        network.load_state_dict({name.removeprefix("network."): value for name, value in weights.items()})
    except RuntimeError:
        raise StudyError(f"the weights in {folder} do not fit {model} as this code builds it; train it again") from None
    return network.eval()


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
    with records.replacing(picture) as temporary:
        cv2.imwrite(str(temporary), label_map)
    with records.replacing(sureness) as temporary:
        np.savez_compressed(temporary, probabilities=probabilities)
    return [picture, sureness]
