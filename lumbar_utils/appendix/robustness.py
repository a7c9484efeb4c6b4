"""Robustness to image degradation: F1 of a trained network under noise, bias field, blur, contrast and rotation.

Images are degraded and scored on the network's grid, as `decode` gives it, and F1 is the mean over the levels of a
case. Table II scores on the image's grid and averages level by level (`summary.statistic`), so it differs a little.
"""

import zlib
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm.auto import tqdm

from lumbar_utils import freshness, records
from lumbar_utils.data.decoding import AIR, decode
from lumbar_utils.data.folder import Cohort
from lumbar_utils.machine import device_of, explain_out_of_memory
from lumbar_utils.networks.checkpoints import trained_network
from lumbar_utils.networks.dataset import normalise
from lumbar_utils.networks.prediction import probabilities_of, refuse_untrained, taught_classes
from lumbar_utils.scores import metrics
from lumbar_utils.scores.evaluation import annotated_levels
from lumbar_utils.study import Study

MAX_CASES = 32  # each is predicted 21 times; more would not change the curves


class Degradation(NamedTuple):
    """A kind of degradation. strengths : rising; the first leaves the image as it is.

    apply : (pixels float32, strength, random numbers) -> pixels float32.
    """

    unit: str
    strengths: tuple[float, ...]
    apply: Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def _brightest(pixels: np.ndarray) -> float:
    """The 99.5th percentile, the upper end of the range of grey values as in training."""
    return max(float(np.percentile(pixels, 99.5)), 1.0)


def _noise(pixels: np.ndarray, strength: float, random: np.random.Generator) -> np.ndarray:
    """Rician noise, as of a magnitude image. Source: Gudbjartsson and Patz 1995, doi 10.1002/mrm.1910340618."""
    real, imaginary = strength * _brightest(pixels) * random.standard_normal((2, *pixels.shape), np.float32)
    return np.hypot(pixels + real, imaginary)


def _bias_field(pixels: np.ndarray, strength: float, random: np.random.Generator) -> np.ndarray:
    """Multiplied by a field from 1 down to 1 / strength: exp of a second-degree polynomial. Van Leemput 1999."""
    y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in pixels.shape)
    terms = np.stack(np.broadcast_arrays(x, y[:, None], x * y[:, None], x**2, y[:, None] ** 2))
    field = np.tensordot(random.uniform(-1, 1, 5).astype(np.float32), terms, 1)
    return pixels * np.exp(np.log(strength) * (field - field.max()) / np.ptp(field)).astype(np.float32)


def _blur(pixels: np.ndarray, strength: float, random: np.random.Generator) -> np.ndarray:
    return cv2.GaussianBlur(pixels, (0, 0), strength)


def _contrast(pixels: np.ndarray, strength: float, random: np.random.Generator) -> np.ndarray:
    """Gamma or its inverse, equally often; black and the brightest grey value stay."""
    brightest = np.float32(_brightest(pixels))
    return brightest * (pixels / brightest) ** np.float32(strength ** random.choice((-1.0, 1.0)))


def _rotation(pixels: np.ndarray, strength: float, random: np.random.Generator, how=cv2.INTER_LINEAR) -> np.ndarray:
    """Clockwise or counterclockwise about the centre; outside of the image is air, as in training."""
    height, width = pixels.shape
    middle, degrees = ((width - 1) / 2, (height - 1) / 2), strength * random.choice((-1.0, 1.0))
    matrix = cv2.getRotationMatrix2D(middle, degrees, 1)
    return cv2.warpAffine(pixels, matrix, (width, height), flags=how, borderValue=AIR)


# the first degraded strength is mild; the last exceeds augmentation, which has noise up to 0.05, blur over 3 pixels,
# gamma from 0.7 to 1.5 and rotation up to 12 degrees
DEGRADATIONS = {
    "noise": Degradation("standard deviation, share of the range", (0, 0.02, 0.05, 0.1, 0.2), _noise),
    "bias field": Degradation("brightest over darkest", (1, 3, 10, 30, 100), _bias_field),
    "blur": Degradation("sigma in pixels", (0, 0.5, 1, 2, 4), _blur),
    "contrast": Degradation("gamma or its inverse", (1, 1.25, 1.6, 2.4, 4), _contrast),
    "rotation": Degradation("degrees either way", (0, 4, 8, 16, 32), _rotation),
}
STEPS = [(kind, strength) for kind, degradation in DEGRADATIONS.items() for strength in degradation.strengths]
DEGRADED_STEPS = [(kind, strength) for kind, strength in STEPS if strength != DEGRADATIONS[kind].strengths[0]]


def degrade(image: np.ndarray, kind: str, strength: float, seed: int) -> np.ndarray:
    """(height, width) uint8 -> float32 degraded image, not clipped: a pure function of its arguments.

    A seed gives one pattern per kind, which is scaled by the strength. The first strength returns the image itself.
    """
    pixels = image.astype(np.float32)
    if strength == DEGRADATIONS[kind].strengths[0]:
        return pixels
    return DEGRADATIONS[kind].apply(pixels, strength, _random(kind, seed))


def transform_mask(mask: np.ndarray, kind: str, strength: float, seed: int) -> np.ndarray:
    """The label map of the image that `degrade` makes from the same arguments: rotated with it, else unchanged."""
    if kind != "rotation":
        return mask
    return _rotation(mask, strength, _random(kind, seed), cv2.INTER_NEAREST)


def _random(kind: str, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, list(DEGRADATIONS).index(kind)])


def robustness(study: Study, cohort: Cohort, model: str) -> pd.DataFrame:
    """F1 of a trained network on degraded test images: model, kind, unit, strength, case, patient, f1 in [0, 1].

    f1 : mean over the annotated levels in either label map; a case without any has no row.
    Saved as robustness.csv in the model's folder, and read from there if it is up to date. Raises StudyError if the
    model is not trained.
    """
    file, record = study.folder / model / "robustness.csv", study.folder / model / "robustness.json"
    made_from = freshness.made_from("robustness", freshness.predicted(study, cohort.fingerprint, model))
    if not records.is_finished(record, made_from):
        refuse_untrained(study, cohort, model)
        records.write_csv(file, _measure(study, cohort, model))
        records.mark_finished(record, made_from, [file])
    return records.read_csv(file)


def select_cases(cohort: Cohort) -> list[int]:
    """Rows of up to MAX_CASES test cases, equally spaced in the order of patients, so each patient keeps its share."""
    test = np.flatnonzero(cohort.cases["split"] == "test")
    ordered = test[np.argsort(cohort.cases["patient"].to_numpy(str)[test], kind="stable")]
    return ordered[np.linspace(0, len(test) - 1, min(MAX_CASES, len(test))).round().astype(int)].tolist()


def _measure(study: Study, cohort: Cohort, model: str) -> pd.DataFrame:
    images, masks = decode(cohort, study.height, study.width, study.cache)
    network = trained_network(study, model, study.folder / model).to(device_of(study))
    classes, rows = taught_classes(study, cohort), []
    for row in tqdm(select_cases(cohort), desc=f"degrading for {model}", unit="case"):
        case, image, mask = cohort.cases.iloc[row], np.array(images[row]), np.array(masks[row])
        seed = zlib.crc32(case["case"].encode())  # the same for every network and study
        images_of_case = [image, *(degrade(image, *step, seed) for step in DEGRADED_STEPS)]
        undegraded, *degraded = _label_maps(study, network, classes, images_of_case)
        label_maps = dict.fromkeys(STEPS, undegraded) | dict(zip(DEGRADED_STEPS, degraded, strict=True))
        for (kind, strength), label_map in label_maps.items():
            true = transform_mask(mask, kind, strength, seed)
            scores = metrics.f1_by_level(label_map, true, annotated_levels(cohort))
            f1 = np.mean(list(scores.values())) if scores else np.nan
            rows.append((model, kind, DEGRADATIONS[kind].unit, strength, case["case"], case["patient"], f1))
    return pd.DataFrame(rows, columns=["model", "kind", "unit", "strength", "case", "patient", "f1"]).dropna()


def _label_maps(study: Study, network: nn.Module, classes: list[int], images: list[np.ndarray]) -> np.ndarray:
    """(images, height, width) uint8, predicted as `predict` does."""
    ready = torch.from_numpy(np.stack([normalise(image) for image in images]))[:, None]
    with torch.inference_mode(), explain_out_of_memory(study, "predicting"):
        maps = [
            probabilities_of(network, part.to(device_of(study)), classes).argmax(1).cpu()
            for part in ready.split(study.batch_size)
        ]
    return np.array(classes, np.uint8)[torch.cat(maps).numpy()]
