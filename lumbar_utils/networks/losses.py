"""The training loss, over the levels that a data set annotates.

It takes log-probabilities and the one-hot reference, both (batch, classes, height, width) with class 0 the background,
and returns a scalar. It does without gather, whose backward pass is not deterministic on CUDA.
"""

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


def loss_of(logits: torch.Tensor, masks: torch.Tensor, classes: list[int]) -> torch.Tensor:
    """Dice and cross-entropy over `classes`; predicting a level that is not annotated counts as background.

    logits : (batch, 7, height, width). masks : (batch, height, width), integers in `classes`.
    """
    log_probabilities = log_probabilities_of(logits, classes)
    truth = torch.stack([masks == value for value in classes], dim=1).to(log_probabilities.dtype)
    return dice_and_cross_entropy(log_probabilities, truth)
