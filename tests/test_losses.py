"""The loss agrees with counts by hand and with torch, and leaves out what is not annotated."""

import pytest
import torch
from torch.nn import functional as F

from lumbar_utils.networks.losses import loss_of, soft_dice


def one_hot(masks, classes=3):
    return F.one_hot(masks, classes).permute(0, 3, 1, 2).float()


def test_soft_dice_by_hand():
    truth = one_hot(torch.tensor([[[0, 1], [1, 2]]]))
    assert soft_dice(truth, truth).item() == 1
    predicted = one_hot(torch.tensor([[[0, 1], [0, 2]]]))  # class 1: one of two pixels; class 2: right
    assert soft_dice(predicted, truth).item() == pytest.approx(((2 + 1) / (3 + 1) + 1) / 2)


def test_cross_entropy_agrees_with_torch():
    logits, masks = torch.randn(2, 7, 8, 8), torch.randint(0, 7, (2, 8, 8))
    dice = 1 - soft_dice(logits.softmax(dim=1), one_hot(masks, 7))
    expected = dice + F.cross_entropy(logits, masks)
    assert loss_of(logits, masks, list(range(7))).item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_level_that_is_not_annotated_counts_as_background():
    logits, masks = torch.randn(2, 7, 8, 8), torch.randint(0, 6, (2, 8, 8))
    probabilities = logits.softmax(dim=1)
    merged = torch.cat([probabilities[:, :1] + probabilities[:, 6:], probabilities[:, 1:6]], dim=1)
    expected = 1 - soft_dice(merged, one_hot(masks, 6)) + F.nll_loss(merged.log(), masks)
    assert loss_of(logits, masks, [0, 1, 2, 3, 4, 5]).item() == pytest.approx(expected.item(), rel=1e-5)


def test_where_background_is_asked_for_a_level_that_is_not_annotated_costs_nothing():
    background, masks = torch.full((1, 7, 4, 4), -9.0), torch.zeros(1, 4, 4, dtype=torch.long)
    background[:, 0] = 9
    sacrum = background.roll(6, dims=1)
    one, other = (loss_of(logits, masks, [0, 1, 2, 3, 4, 5]).item() for logits in (background, sacrum))
    assert one == pytest.approx(other, abs=1e-6) and one < 1e-3


def test_loss_without_gather_is_differentiable_as_torch_says():
    logits = torch.randn(1, 3, 4, 4, dtype=torch.double, requires_grad=True)
    masks = torch.randint(0, 3, (1, 4, 4))
    F.cross_entropy(logits, masks).backward()
    expected, logits.grad = logits.grad, None
    truth = one_hot(masks)
    (loss_of(logits, masks, [0, 1, 2]) + soft_dice(logits.float().softmax(1), truth) - 1).backward()
    assert torch.allclose(logits.grad, expected, atol=1e-6)


def test_the_loss_is_least_where_the_network_is_right():
    torch.manual_seed(0)
    masks = torch.randint(0, 3, (2, 8, 8))
    right = 12 * one_hot(masks)
    guess = torch.randn_like(right, requires_grad=True)
    losses = [loss_of(logits, masks, [0, 1, 2]) for logits in (right, guess)]
    assert losses[0] < 0.01 < losses[1]
    losses[1].backward()
    assert guess.grad.isfinite().all()
