"""How a trained network bears images that get worse step by step: noise, bias field, blur, contrast, rotation.

All on the network's grid, as `decode` gives it: a pixel is one of that grid, and F1 differs a little from Table II's.
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
from lumbar_utils.networks.checkpoints import trained_network
from lumbar_utils.networks.dataset import normalise
from lumbar_utils.networks.devices import device_of, explain_out_of_memory
from lumbar_utils.networks.prediction import probabilities_of, refuse_untrained, taught_classes
from lumbar_utils.scores import metrics
from lumbar_utils.scores.evaluation import annotated_levels
from lumbar_utils.study import Study

CASES = 32  # of the test cases at most, each predicted 21 times: a curve needs no more


class Kind(NamedTuple):
    """A way to spoil an image; `strengths` rise, the first of them leaves it untouched.

    spoil : (pixels float32, strength, random numbers) -> pixels float32.
    """

    unit: str
    strengths: tuple[float, ...]
    spoil: Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def _brightest(pixels: np.ndarray) -> float:
    """The 99.5th percentile, which ends the range of grey values in training too."""
    return max(float(np.percentile(pixels, 99.5)), 1.0)


def _noise(pixels: np.ndarray, strength: float, random: np.random.Generator) -> np.ndarray:
    """Rician, as in a magnitude image. Source: Gudbjartsson and Patz 1995, doi 10.1002/mrm.1910340618."""
    real, imaginary = strength * _brightest(pixels) * random.standard_normal((2, *pixels.shape), np.float32)
    return np.hypot(pixels + real, imaginary)


def _bias_field(pixels: np.ndarray, strength: float, random: np.random.Generator) -> np.ndarray:
    """A factor from 1 down to 1 / strength: exp of a polynomial of second degree. Van Leemput 1999."""
    y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in pixels.shape)
    terms = np.stack(np.broadcast_arrays(x, y[:, None], x * y[:, None], x**2, y[:, None] ** 2))
    field = np.tensordot(random.uniform(-1, 1, 5).astype(np.float32), terms, 1)
    return pixels * np.exp(np.log(strength) * (field - field.max()) / np.ptp(field)).astype(np.float32)


def _blur(pixels: np.ndarray, strength: float, random: np.random.Generator) -> np.ndarray:
    return cv2.GaussianBlur(pixels, (0, 0), strength)


def _contrast(pixels: np.ndarray, strength: float, random: np.random.Generator) -> np.ndarray:
    """Gamma or its inverse, one as often as the other; black and the brightest stay."""
    brightest = np.float32(_brightest(pixels))
    return brightest * (pixels / brightest) ** np.float32(strength ** random.choice((-1.0, 1.0)))


def _rotation(pixels: np.ndarray, strength: float, random: np.random.Generator, how=cv2.INTER_LINEAR) -> np.ndarray:
    """One way or the other about the middle; what comes into sight is air, as in training."""
    height, width = pixels.shape
    middle, degrees = ((width - 1) / 2, (height - 1) / 2), strength * random.choice((-1.0, 1.0))
    matrix = cv2.getRotationMatrix2D(middle, degrees, 1)
    return cv2.warpAffine(pixels, matrix, (width, height), flags=how, borderValue=AIR)


# the weakest is harmless; the strongest lies beyond augmentation, which has noise up to 0.05, a bias field of about 2
# (only as `mr`), blur over 3 pixels, gamma from 0.7 to 1.5 and rotation up to 12 degrees
KINDS = {
    "noise": Kind("standard deviation, share of the range", (0, 0.02, 0.05, 0.1, 0.2), _noise),
    "bias field": Kind("brightest over darkest", (1, 3, 10, 30, 100), _bias_field),
    "blur": Kind("sigma in pixels", (0, 0.5, 1, 2, 4), _blur),
    "contrast": Kind("gamma or its inverse", (1, 1.25, 1.6, 2.4, 4), _contrast),
    "rotation": Kind("degrees either way", (0, 4, 8, 16, 32), _rotation),
}
STEPS = [(kind, strength) for kind, about in KINDS.items() for strength in about.strengths]
WORSE = [(kind, strength) for kind, strength in STEPS if strength != KINDS[kind].strengths[0]]


def degrade(image: np.ndarray, kind: str, strength: float, seed: int) -> np.ndarray:
    """(height, width) uint8 -> float32, spoilt: a pure function of its arguments, neither rounded nor cut off.

    A seed has one pattern of each kind, which grows with the strength. At the first strength it is the image itself.
    """
    pixels = image.astype(np.float32)
    if strength == KINDS[kind].strengths[0]:
        return pixels
    return KINDS[kind].spoil(pixels, strength, _random(kind, seed))


def follow(mask: np.ndarray, kind: str, strength: float, seed: int) -> np.ndarray:
    """The label map of the image that `degrade` makes of the same arguments: turned with it, else as it is."""
    return _rotation(mask, strength, _random(kind, seed), cv2.INTER_NEAREST) if kind == "rotation" else mask


def _random(kind: str, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, list(KINDS).index(kind)])


def robustness(study: Study, cohort: Cohort, model: str) -> pd.DataFrame:
    """F1 of a trained network on degraded test images: model, kind, unit, strength, case, patient, f1 in [0, 1].

    f1 is the mean over the annotated levels; one absent from both maps has no score, and a case without any no row.
    Kept as robustness.csv in the model's folder; done already, it is read. Raises StudyError if it is not trained.
    """
    file, record = study.folder / model / "robustness.csv", study.folder / model / "robustness.json"
    made_from = freshness.made_from("robustness", freshness.predicted(study, cohort.fingerprint, model))
    if not records.is_finished(record, made_from):
        refuse_untrained(study, cohort, model)
        records.write_csv(file, _measure(study, cohort, model))
        records.mark_finished(record, made_from, [file])
    return records.read_csv(file)


def chosen(cohort: Cohort) -> list[int]:
    """Rows of up to CASES test cases, at equal distances in the order of patients: each patient keeps its share."""
    test = np.flatnonzero(cohort.cases["split"] == "test")
    ordered = test[np.argsort(cohort.cases["patient"].to_numpy(str)[test], kind="stable")]
    return ordered[np.linspace(0, len(test) - 1, min(CASES, len(test))).round().astype(int)].tolist()


def _measure(study: Study, cohort: Cohort, model: str) -> pd.DataFrame:
    images, masks = decode(cohort, study.height, study.width, study.cache)
    network = trained_network(study, model, study.folder / model).to(device_of(study))
    classes, rows = taught_classes(study, cohort), []
    for row in tqdm(chosen(cohort), desc=f"degrading for {model}", unit="case"):
        case, image, mask = cohort.cases.iloc[row], np.array(images[row]), np.array(masks[row])
        seed = zlib.crc32(case["case"].encode())  # every network and every study sees the same
        spoilt = [image, *(degrade(image, *step, seed) for step in WORSE)]
        own, *others = _label_maps(study, network, classes, spoilt)
        f1 = dict.fromkeys(STEPS, _mean_f1(own, mask, cohort))
        for step, label_map in zip(WORSE, others, strict=True):
            f1[step] = _mean_f1(label_map, follow(mask, *step, seed), cohort)
        for (kind, strength), value in f1.items():
            rows.append((model, kind, KINDS[kind].unit, strength, case["case"], case["patient"], value))
    return pd.DataFrame(rows, columns=["model", "kind", "unit", "strength", "case", "patient", "f1"]).dropna()


def _label_maps(study: Study, network: nn.Module, classes: list[int], images: list[np.ndarray]) -> np.ndarray:
    """(images, height, width) uint8, predicted as `predict` does."""
    ready = torch.from_numpy(np.stack([normalise(image, study.normalisation) for image in images]))[:, None]
    with torch.inference_mode(), explain_out_of_memory(study, "predicting"):
        maps = [
            probabilities_of(network, part.to(device_of(study)), classes, study.test_time_augmentation).argmax(1).cpu()
            for part in ready.split(study.batch_size)
        ]
    return np.array(classes, np.uint8)[torch.cat(maps).numpy()]


def _mean_f1(pred: np.ndarray, true: np.ndarray, cohort: Cohort) -> float:
    found = metrics.f1_by_level(pred, true, annotated_levels(cohort))
    return float(np.mean(list(found.values()))) if found else float("nan")
