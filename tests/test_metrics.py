"""Every score against a count by hand, and against an independent implementation."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, precision_recall_fscore_support
from torchmetrics.detection import MeanAveragePrecision
from torchmetrics.functional.segmentation import dice_score

from lumbar_utils.metrics import coco_average_precision, names_given, overlap, pixel_average_precision, score_case


def block(rows):
    """A 4x4 mask whose given rows are filled: small enough to score by hand."""
    mask = np.zeros((4, 4), bool)
    mask[list(rows)] = True
    return mask


@pytest.mark.parametrize(
    "pred, true, precision, recall, f1",
    [
        pytest.param(block([0, 1]), block([0, 1]), 1.0, 1.0, 1.0, id="identical"),
        pytest.param(block([0, 1]), block([1, 2]), 0.5, 0.5, 0.5, id="shifted by half"),
        pytest.param(block([0]), block([0, 1]), 1.0, 0.5, 2 / 3, id="half of it"),
        pytest.param(block([0, 1, 2, 3]), block([0]), 0.25, 1.0, 0.4, id="four times too large"),
        pytest.param(block([]), block([0]), 0.0, 0.0, 0.0, id="missed"),
        pytest.param(block([0]), block([]), 0.0, 0.0, 0.0, id="invented"),
    ],
)
def test_overlap_matches_a_count_by_hand(pred, true, precision, recall, f1):
    assert overlap(pred, true) == pytest.approx({"precision": precision, "recall": recall, "f1": f1})


def test_a_vertebra_absent_from_both_has_no_score():
    assert overlap(block([]), block([])) == {}


def test_masks_on_different_grids_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 4\) and \(2, 2\)"):
        overlap(block([0]), np.ones((2, 2), bool))


def test_overlap_agrees_with_scikit_learn_and_torchmetrics():
    rng = np.random.default_rng(0)
    pred, true = rng.random((2, 50, 40)) < [[[0.3]], [[0.5]]]
    precision, recall, f1, _ = precision_recall_fscore_support(true.ravel(), pred.ravel(), average="binary")
    assert overlap(pred, true) == pytest.approx({"precision": precision, "recall": recall, "f1": f1})
    tensors = [torch.from_numpy(mask.astype(int))[None, None] for mask in (pred, true)]
    assert overlap(pred, true)["f1"] == pytest.approx(dice_score(*tensors, 1).item(), abs=1e-6)


def test_pixel_average_precision_by_hand():
    # sure of one hit, then of one miss, then of the second hit: precision 1/1 and 2/3, each for half of the recall
    probability, true = np.array([[1.0, 0.8, 0.6, 0.0]]), np.array([[True, False, True, False]])
    assert pixel_average_precision(probability, true) == pytest.approx((1 / 1 + 2 / 3) / 2)


@pytest.mark.parametrize("seed", range(5))
def test_pixel_average_precision_agrees_with_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    true = rng.random((30, 30)) < 0.1
    probability = np.rint(np.clip(0.4 * true + 0.6 * rng.random((30, 30)), 0, 1) * 255) / 255
    assert pixel_average_precision(probability, true) == pytest.approx(
        average_precision_score(true.ravel(), probability.ravel())
    )


def test_pixel_average_precision_of_an_absent_vertebra_is_undefined():
    assert np.isnan(pixel_average_precision(np.ones((2, 2)), np.zeros((2, 2), bool)))


def test_only_the_levels_asked_for_are_scored():
    pred, true = block([0]) * 1 + block([2]) * 6, block([0]) * 1
    assert score_case(pred, true, {1: "L1", 2: "L2"}) == [
        ("L1", "precision", 1.0), ("L1", "recall", 1.0), ("L1", "f1", 1.0),
    ]  # fmt: skip


def test_average_precision_needs_a_reference_and_probabilities():
    maps = {1: block([0]) * 1.0, 2: block([1]) * 1.0}
    rows = score_case(block([0]) * 1 + block([1]) * 2, block([0]) * 1, {1: "L1", 2: "L2"}, maps)
    assert [row for row in rows if row[1] == "ap_pixel"] == [("L1", "ap_pixel", 1.0)]


def square(side, value=1):
    """A 20x20 label map with a square of that side in the upper left corner."""
    label_map = np.zeros((20, 20), np.uint8)
    label_map[:side, :side] = value
    return label_map


@pytest.mark.parametrize(
    "side, expected",
    [
        pytest.param(10, 1.0, id="identical"),
        pytest.param(9, 0.7, id="IoU 0.81 reaches 7 of the 10 thresholds"),
        pytest.param(8, 0.3, id="IoU 0.64 reaches 0.50, 0.55 and 0.60"),
        pytest.param(7, 0.0, id="IoU 0.49 reaches none"),
        pytest.param(0, 0.0, id="missed"),
    ],
)
def test_coco_average_precision_counts_the_thresholds_reached(side, expected):
    images = [(square(side), square(10), {1: 0.9})]
    assert coco_average_precision(images, {1: "L1"}) == pytest.approx({"L1": expected})


def test_coco_average_precision_ranks_instances_by_how_sure_they_are():
    hit, invented = (square(10), square(10)), (square(10), square(0))
    sure_of_the_hit = [(*hit, {1: 0.9}), (*invented, {1: 0.2})]
    sure_of_the_invented = [(*hit, {1: 0.2}), (*invented, {1: 0.9})]
    assert coco_average_precision(sure_of_the_hit, {1: "L1"})["L1"] == pytest.approx(1.0)
    assert coco_average_precision(sure_of_the_invented, {1: "L1"})["L1"] == pytest.approx(0.5)


def test_coco_average_precision_leaves_out_a_level_that_no_reference_holds():
    assert coco_average_precision([(square(10), square(10), {1: 1.0, 2: 1.0})], {1: "L1", 2: "L2"}) == {"L1": 1.0}


def test_coco_average_precision_agrees_with_torchmetrics():
    rng, levels = np.random.default_rng(0), {1: "L1", 2: "L2"}
    images = []
    for _ in range(12):
        true = square(10) + square(4, 2)[::-1]
        pred = square(rng.integers(7, 13)) + square(rng.integers(0, 6), 2)[::-1]
        images.append((pred, true, dict(enumerate(rng.random(2), 1))))
    measure = MeanAveragePrecision(iou_type="segm", class_metrics=True, backend="faster_coco_eval")
    for pred, true, sureness in images:
        found = [value for value in levels if (pred == value).any()]
        masks = torch.from_numpy(np.stack([pred == value for value in found]))
        scores = torch.tensor([sureness[value] for value in found], dtype=torch.float64)
        target = {"masks": torch.from_numpy(np.stack([true == 1, true == 2])), "labels": torch.tensor([1, 2])}
        measure.update([{"masks": masks, "labels": torch.tensor(found), "scores": scores}], [target])
    expected = measure.compute()["map_per_class"].tolist()
    assert list(coco_average_precision(images, levels).values()) == pytest.approx(expected, abs=1e-6)


def test_a_vertebra_bears_the_name_of_most_of_its_named_pixels():
    true = np.repeat([1, 2, 3, 0], 4).reshape(4, 4)
    pred = np.array([[2, 2, 2, 1], [0, 0, 0, 2], [0, 0, 0, 0], [3, 3, 3, 3]])
    names = {1: "L1", 2: "L2", 3: "L3", 4: "L4"}
    assert names_given(pred, true, names) == [("L1", "L2"), ("L2", "L2"), ("L3", "missed")]
