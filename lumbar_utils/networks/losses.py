"""Training losses, over the levels that a data set annotates.

Each loss takes log-probabilities and the one-hot reference, both (batch, classes, height, width) with class 0 the
background, and returns a scalar. None uses gather: its backward pass is not deterministic on CUDA.
"""

from collections.abc import Callable

import torch

BATCH_AND_PIXELS = (0, 2, 3)  # the axes that a sum per class runs over


def soft_dice(probabilities: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean Dice overlap of the foreground classes, each pooled over the batch, in [0, 1].

    probabilities, truth : (batch, classes, height, width), class 0 the background; truth one-hot.
    A class absent from the batch is pulled towards probability 0. Source: Milletari 2016, V-Net.
    """
    overlap = (probabilities * truth).sum(BATCH_AND_PIXELS)
    size = probabilities.sum(BATCH_AND_PIXELS) + truth.sum(BATCH_AND_PIXELS)
    return ((2 * overlap + 1) / (size + 1))[1:].mean()


def cross_entropy(log_probabilities: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean over pixels of -log of the true class's probability; at least 0."""
    return -(truth * log_probabilities).sum(dim=1).mean()


def dice_and_cross_entropy(log_probabilities: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """(1 - soft Dice) + cross-entropy. Source: Isensee 2021, nnU-Net."""
    return 1 - soft_dice(log_probabilities.exp(), truth) + cross_entropy(log_probabilities, truth)


def generalised_dice(log_probabilities: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """1 - Dice with classes weighted by the inverse square of their size, plus cross-entropy.

    A class absent from the batch has weight 0. Source: Sudre 2017, doi 10.1007/978-3-319-67558-9_28.
    """
    probabilities, size = log_probabilities.exp(), truth.sum(BATCH_AND_PIXELS)
    weight = torch.where(size > 0, 1 / size.clamp(min=1) ** 2, 0)
    overlap = (weight * (probabilities * truth).sum(BATCH_AND_PIXELS)).sum()
    total = (weight * (probabilities.sum(BATCH_AND_PIXELS) + size)).sum()
    return 1 - 2 * overlap / total + cross_entropy(log_probabilities, truth)


def focal_tversky(log_probabilities: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean over foreground classes of (1 - Tversky index)^(3/4); false negatives weigh 0.7, false positives 0.3.

    Source: Abraham and Khan 2019, doi 10.1109/ISBI.2019.8759329.
    """
    probabilities = log_probabilities.exp()
    true_positives = (probabilities * truth).sum(BATCH_AND_PIXELS)
    false_negatives = (truth - probabilities * truth).sum(BATCH_AND_PIXELS)
    false_positives = (probabilities - probabilities * truth).sum(BATCH_AND_PIXELS)
    index = (true_positives + 1) / (true_positives + 0.7 * false_negatives + 0.3 * false_positives + 1)
    # clamped because the gradient of the power is unbounded at 0, a perfect overlap
    return (1 - index[1:]).clamp(min=1e-6).pow(0.75).mean()


LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "dice_ce": dice_and_cross_entropy,
    "ce": cross_entropy,
    "generalised_dice": generalised_dice,
    "focal_tversky": focal_tversky,
}


def log_probabilities_of(logits: torch.Tensor, classes: list[int]) -> torch.Tensor:
    """Logits (batch, 7, height, width) -> log-probabilities of `classes` (batch, classes, height, width), float32.

    classes : output channels to keep, background first. The probability of every other channel is added to the
    background, which holds the levels that are not annotated. Source: Shi et al. 2021, marginal loss,
    doi 10.1016/j.media.2021.101979.
    """
    log_probabilities = logits.float().log_softmax(dim=1)
    others = [channel for channel in range(logits.shape[1]) if channel not in classes]
    if not others:
        return log_probabilities
    background = log_probabilities[:, [0, *others]].logsumexp(dim=1, keepdim=True)
    return torch.cat([background, log_probabilities[:, classes[1:]]], dim=1)


def loss_of(name: str, logits: torch.Tensor, masks: torch.Tensor, classes: list[int]) -> torch.Tensor:
    """The loss of that name over `classes`; predicting a level that is not annotated counts as background.

    name : a key of LOSSES. logits : (batch, 7, height, width). masks : (batch, height, width), integers in `classes`.
    """
    log_probabilities = log_probabilities_of(logits, classes)
    truth = torch.stack([masks == value for value in classes], dim=1).to(log_probabilities.dtype)
    return LOSSES[name](log_probabilities, truth)
