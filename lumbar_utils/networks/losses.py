"""What a network is trained to make small, over the levels that a data set annotates.

Each takes log-probabilities and one-hot truth, both (batch, classes, height, width), class 0 the background. Written
without gather, whose backward pass on CUDA depends on the order of threads.
"""

from collections.abc import Callable

import torch

OVER = (0, 2, 3)  # batch, height, width: classes are pooled over the batch


def soft_dice(probabilities: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean Dice overlap of the foreground classes, each pooled over the batch, in [0, 1].

    probabilities, truth : (batch, classes, height, width), class 0 the background; truth one-hot.
    A class that the batch does not hold pulls its probability down to nothing. Source: Milletari 2016, V-Net.
    """
    overlap = (probabilities * truth).sum(OVER)
    size = probabilities.sum(OVER) + truth.sum(OVER)
    return ((2 * overlap + 1) / (size + 1))[1:].mean()


def cross_entropy(log_probabilities: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean over pixels of -log of the true class's probability; 0 and more."""
    return -(truth * log_probabilities).sum(dim=1).mean()


def dice_and_cross_entropy(log_probabilities: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """(1 - soft Dice) + cross-entropy. Source: Isensee 2021, nnU-Net."""
    return 1 - soft_dice(log_probabilities.exp(), truth) + cross_entropy(log_probabilities, truth)


def generalised_dice(log_probabilities: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """1 - Dice with classes weighted by the inverse square of their size, plus cross-entropy.

    A class that the batch does not hold has no weight. Source: Sudre 2017, doi 10.1007/978-3-319-67558-9_28.
    """
    probabilities, size = log_probabilities.exp(), truth.sum(OVER)
    weight = torch.where(size > 0, 1 / size.clamp(min=1) ** 2, 0)
    overlap = (weight * (probabilities * truth).sum(OVER)).sum()
    both = (weight * (probabilities.sum(OVER) + size)).sum()
    return 1 - 2 * overlap / both + cross_entropy(log_probabilities, truth)


def focal_tversky(log_probabilities: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean over foreground classes of (1 - Tversky index)^(3/4); a missed pixel weighs 0.7, a false one 0.3.

    Source: Abraham and Khan 2019, doi 10.1109/ISBI.2019.8759329.
    """
    probabilities = log_probabilities.exp()
    hit = (probabilities * truth).sum(OVER)
    missed, false = (truth - probabilities * truth).sum(OVER), (probabilities - probabilities * truth).sum(OVER)
    index = (hit + 1) / (hit + 0.7 * missed + 0.3 * false + 1)
    # the power's slope has no bound at 0, where a perfect overlap lies
    return (1 - index[1:]).clamp(min=1e-6).pow(0.75).mean()


LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "dice_ce": dice_and_cross_entropy,
    "ce": cross_entropy,
    "generalised_dice": generalised_dice,
    "focal_tversky": focal_tversky,
}


def log_probabilities_of(logits: torch.Tensor, classes: list[int]) -> torch.Tensor:
    """Logits (batch, 7, height, width) -> log-probabilities of `classes` (batch, classes, height, width), float32.

    classes : output channels, background first. What the others are given counts as background: a level that is not
    annotated lies somewhere in it. Source: Shi et al. 2021, marginal loss, doi 10.1016/j.media.2021.101979.
    """
    every = logits.float().log_softmax(dim=1)
    others = [channel for channel in range(logits.shape[1]) if channel not in classes]
    if not others:
        return every
    background = every[:, [0, *others]].logsumexp(dim=1, keepdim=True)
    return torch.cat([background, every[:, classes[1:]]], dim=1)


def loss_of(name: str, logits: torch.Tensor, masks: torch.Tensor, classes: list[int]) -> torch.Tensor:
    """The loss of that name over `classes`; a level that is not annotated is background, or itself, as it likes.

    logits (batch, 7, height, width); masks (batch, height, width) whole numbers, all of them in `classes`.
    """
    log_probabilities = log_probabilities_of(logits, classes)
    truth = torch.stack([masks == value for value in classes], dim=1).to(log_probabilities.dtype)
    return LOSSES[name](log_probabilities, truth)
