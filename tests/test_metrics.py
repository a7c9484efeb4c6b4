"""Every score against a count by hand, and against an independent implementation."""

import numpy as np
import pytest
import torch
from faster_coco_eval import COCO, COCOeval_faster
from faster_coco_eval.core import mask as coco_mask
from sklearn.metrics import average_precision_score, precision_recall_fscore_support
from torchmetrics.classification import MulticlassCalibrationError
from torchmetrics.functional.segmentation import dice_score, mean_iou

from lumbar_utils.scores.metrics import (
    average_precision,
    calibration_bins,
    calibration_error,
    coco_average_precision,
    distances,
    f1_by_level,
    overlap,
    panoptic,
    precision_recall_counts,
)


def block(rows):
    """A 4x4 mask whose given rows are filled: small enough to score by hand."""
    mask = np.zeros((4, 4), bool)
    mask[list(rows)] = True
    return mask


@pytest.mark.parametrize(
    "pred, true, precision, recall, f1, iou",
    [
        pytest.param(block([0, 1]), block([0, 1]), 1.0, 1.0, 1.0, 1.0, id="identical"),
        pytest.param(block([0, 1]), block([1, 2]), 0.5, 0.5, 0.5, 1 / 3, id="shifted by half"),
        pytest.param(block([0]), block([0, 1]), 1.0, 0.5, 2 / 3, 0.5, id="half of it"),
        pytest.param(block([0, 1, 2, 3]), block([0]), 0.25, 1.0, 0.4, 0.25, id="four times too large"),
        pytest.param(block([]), block([0]), 0.0, 0.0, 0.0, 0.0, id="missed"),
        pytest.param(block([0]), block([]), 0.0, 0.0, 0.0, 0.0, id="invented"),
    ],
)
def test_overlap_matches_a_count_by_hand(pred, true, precision, recall, f1, iou):
    assert overlap(pred, true) == pytest.approx({"precision": precision, "recall": recall, "f1": f1, "iou": iou})


def test_a_vertebra_absent_from_both_has_no_score():
    assert overlap(block([]), block([])) == {}


def test_masks_on_different_grids_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 4\) and \(2, 2\)"):
        overlap(block([0]), np.ones((2, 2), bool))


def test_overlap_agrees_with_scikit_learn_and_torchmetrics():
    rng = np.random.default_rng(0)
    pred, true = rng.random((2, 50, 40)) < [[[0.3]], [[0.5]]]
    precision, recall, f1, _ = precision_recall_fscore_support(true.ravel(), pred.ravel(), average="binary")
    tensors = [torch.from_numpy(mask.astype(int))[None, None] for mask in (pred, true)]
    iou = mean_iou(*tensors, 1).item()
    assert overlap(pred, true) == pytest.approx({"precision": precision, "recall": recall, "f1": f1, "iou": iou})
    assert overlap(pred, true)["f1"] == pytest.approx(dice_score(*tensors, 1).item(), abs=1e-6)


def test_pixel_average_precision_by_hand():
    # sure of one hit, then of one miss, then of the second hit: precision 1/1 and 2/3, each for half of the recall
    probability, true = np.array([[1.0, 0.8, 0.6, 0.0]]), np.array([[True, False, True, False]])
    assert average_precision(precision_recall_counts(probability, true)) == pytest.approx((1 / 1 + 2 / 3) / 2)


@pytest.mark.parametrize("seed", range(5))
def test_pixel_average_precision_agrees_with_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    true = rng.random((30, 30)) < 0.1
    probability = np.rint(np.clip(0.4 * true + 0.6 * rng.random((30, 30)), 0, 1) * 255) / 255
    assert average_precision(precision_recall_counts(probability, true)) == pytest.approx(
        average_precision_score(true.ravel(), probability.ravel())
    )


def test_pixel_average_precision_of_an_absent_vertebra_is_undefined():
    assert np.isnan(average_precision(precision_recall_counts(np.ones((2, 2)), np.zeros((2, 2), bool))))


def test_interpolation_takes_the_best_precision_at_a_recall_or_beyond():
    # precision 1/2 at recall 1/2, then 2/3 at recall 1: interpolated 2/3 all the way
    counts = precision_recall_counts(np.array([[1.0, 1.0, 0.6, 0.0]]), np.array([[True, False, True, False]]))
    assert average_precision(counts) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert average_precision(counts, interpolated=True) == pytest.approx(2 / 3)


def test_counts_of_two_images_add_up_to_those_of_both():
    rng = np.random.default_rng(0)
    images = [(np.rint(rng.random((8, 8)) * 255) / 255, rng.random((8, 8)) < 0.3) for _ in range(2)]
    together = precision_recall_counts(*(np.concatenate(part) for part in zip(*images, strict=True)))
    assert (sum(precision_recall_counts(*image) for image in images) == together).all()


def rows(*filled):
    """A 40x40 mask with columns 10 to 29 of rows filled[0] to filled[1] - 1."""
    mask = np.zeros((40, 40), bool)
    mask[slice(*filled), 10:30] = True
    return mask


def test_distances_of_a_shift_by_hand():
    # both outlines are closed; a shift by two rows moves upper and lower edge by 2 px, the sides hardly: 2 px at most
    found = distances(rows(12, 22), rows(10, 20), 0.5)
    assert set(found) == {"hd95_mm", "assd_mm", "nsd_mm", "centroid_mm"}
    assert found["centroid_mm"] == pytest.approx(1.0)
    assert found["hd95_mm"] == pytest.approx(1.0)
    assert found["nsd_mm"] == 1.0  # nothing is farther than 1 mm


def test_distances_are_in_pixels_where_the_spacing_is_unknown_and_never_mixed():
    found = distances(rows(13, 23), rows(10, 20), float("nan"))
    assert found["centroid_px"] == pytest.approx(3.0)
    assert not [name for name in found if name.endswith("_mm")]


def test_identical_masks_have_no_distance():
    assert distances(rows(10, 20), rows(10, 20), 1.0) == {"hd95_mm": 0, "assd_mm": 0, "nsd_mm": 1, "centroid_mm": 0}


@pytest.mark.parametrize("pred, true", [(rows(0, 0), rows(10, 20)), (rows(10, 20), rows(0, 0))])
def test_a_vertebra_missing_from_one_map_has_no_distance(pred, true):
    assert distances(pred, true, 1.0) == {}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("seed", range(4))
def test_distances_agree_with_monai(seed):
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

    rng = np.random.default_rng(seed)
    masks = [np.kron(rng.random((10, 10)) < 0.6, np.ones((4, 4))).astype(bool) for _ in range(2)]
    one_hot = [torch.from_numpy(mask.astype(np.float32))[None, None] for mask in masks]
    options = {"include_background": True, "spacing": (0.5, 0.5)}
    found = distances(*masks, 0.5)
    expected = compute_hausdorff_distance(*one_hot, percentile=95, **options).item()
    assert found["hd95_mm"] == pytest.approx(expected, abs=1e-5)
    expected = compute_average_surface_distance(*one_hot, symmetric=True, **options).item()
    assert found["assd_mm"] == pytest.approx(expected, abs=1e-5)
    expected = compute_surface_dice(*one_hot, class_thresholds=[1.0], **options).item()
    assert found["nsd_mm"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    "levels, expected",
    [
        pytest.param([(0.8, True, True), (0.6, True, True)], {"pq": 0.7, "rq": 1.0, "sq": 0.7}, id="all found"),
        pytest.param(
            [(0.8, True, True), (0.5, True, True)], {"pq": 0.4, "rq": 0.5, "sq": 0.8}, id="half is too little"
        ),
        pytest.param([(0.9, True, True), (0, True, False)], {"pq": 0.6, "rq": 2 / 3, "sq": 0.9}, id="one invented"),
        pytest.param([(0.0, False, True)], {"pq": 0.0, "rq": 0.0}, id="missed"),
        pytest.param([], {}, id="nothing there"),
    ],
)
def test_panoptic_quality_by_hand(levels, expected):
    assert panoptic(levels) == pytest.approx(expected)


def test_calibration_error_by_hand():
    # two pixels 0.9 sure, one of them right: off by 0.4; two pixels 0.5 sure, one right: none
    bins = calibration_bins(np.array([0.9, 0.9, 0.5, 0.5]), np.array([True, False, True, False]))
    assert bins[0].sum() == 4
    assert calibration_error(bins) == pytest.approx((2 * 0.4 + 2 * 0.0) / 4)
    assert np.isnan(calibration_error(calibration_bins(np.zeros(0), np.zeros(0, bool))))


def test_a_step_of_1_255_on_the_edge_of_a_bin_is_in_the_upper_one():
    steps = np.arange(17, 255, 17)  # 1/15, 2/15, ... 14/15
    bins = calibration_bins((steps.astype(np.float32) / 255).astype(float), np.ones(len(steps), bool))
    assert bins[0].tolist() == [0] + [1] * 14


def test_calibration_error_agrees_with_torchmetrics():
    rng = np.random.default_rng(0)
    chances = rng.dirichlet(np.ones(7), 500)
    truth = rng.integers(0, 7, 500)
    bins = calibration_bins(chances.max(axis=1), chances.argmax(axis=1) == truth)
    measure = MulticlassCalibrationError(7, n_bins=15, norm="l1")
    assert calibration_error(bins) == pytest.approx(measure(torch.from_numpy(chances), torch.from_numpy(truth)).item())


def test_f1_by_level_looks_at_the_levels_asked_for_alone():
    pred, true = block([0]) * 1 + block([2]) * 6, block([0]) * 1
    assert f1_by_level(pred, true, {1: "L1", 2: "L2"}) == {"L1": 1.0}


def coco(iou, confidence, real, **options):
    """Average precision of one level, each image counted once."""
    parts = (np.array(part, float) for part in (iou, confidence, real))
    iou, confidence, real = parts
    return float(coco_average_precision(iou, confidence, real.astype(bool), np.ones(len(iou)), **options))


@pytest.mark.parametrize(
    "iou, expected",
    [
        pytest.param(1.0, 1.0, id="identical"),
        pytest.param(0.81, 0.7, id="IoU 0.81 reaches 7 of the 10 thresholds"),
        pytest.param(0.64, 0.3, id="IoU 0.64 reaches 0.50, 0.55 and 0.60"),
        pytest.param(0.49, 0.0, id="IoU 0.49 reaches none"),
    ],
)
def test_coco_average_precision_counts_the_thresholds_reached(iou, expected):
    assert coco([iou], [0.9], [1]) == pytest.approx(expected)


def test_coco_average_precision_of_a_missed_vertebra_is_0_and_of_one_that_nobody_has_undefined():
    assert coco([0.0], [np.nan], [1]) == 0
    assert np.isnan(coco([0.0], [0.9], [0]))


def test_coco_average_precision_ranks_instances_by_how_sure_they_are():
    assert coco([1, 0], [0.9, 0.2], [1, 0]) == pytest.approx(1.0)  # sure of the hit, not of the invented
    assert coco([1, 0], [0.2, 0.9], [1, 0]) == pytest.approx(0.5)


def test_instances_that_are_equally_sure_are_one_threshold_in_whatever_order():
    # two found of which one is right, one in the reference: precision 1/2 at recall 1
    assert coco([1, 0], [1.0, 1.0], [1, 0]) == coco([0, 1], [1.0, 1.0], [0, 1]) == pytest.approx(0.5)


def test_one_threshold_can_be_asked_for():
    assert coco([0.64], [0.9], [1], thresholds=(0.5,)) == 1.0


def instances(rng, images=15):
    """IoU, confidence, real of a level over images: hits, poor outlines, missed and invented ones."""
    real, predicted = rng.random(images) < 0.8, rng.random(images) < 0.8
    real[0] = predicted[0] = True
    iou = np.where(real & predicted, rng.beta(6, 2, images), 0)
    return iou, np.where(predicted, rng.random(images).round(3), np.nan), real


@pytest.mark.parametrize("seed", range(5))
def test_a_weight_of_two_is_the_image_twice(seed):
    rng = np.random.default_rng(seed)
    iou, confidence, real = instances(rng)
    times = rng.integers(0, 4, len(iou))
    twice = np.repeat(np.arange(len(iou)), times)
    expected = coco(iou[twice], confidence[twice], real[twice])
    weights = np.stack([times, np.ones_like(times)])
    assert coco_average_precision(iou, confidence, real, weights) == pytest.approx(
        [expected, coco(iou, confidence, real)]
    )


@pytest.mark.parametrize("seed", range(5))
def test_coco_average_precision_agrees_with_faster_coco_eval(seed):
    """Strips of 100 pixels a row, which an IoU in hundredths can be drawn on."""
    rng = np.random.default_rng(seed)
    pictures, truths, found, kept = [], [], [], []
    for image, (iou, confidence, real) in enumerate(zip(*instances(rng), strict=True), 1):
        shared = round(100 * iou)
        strips = np.zeros((2, 1, 200), np.uint8)
        strips[0, 0, :shared], strips[1, 0, :100] = 1, 1  # within the truth: IoU is shared / 100
        if real and shared == 0:
            strips[0, 0, 150:160] = 1
        pictures.append({"id": image, "height": 1, "width": 200})
        if not real:
            strips[0, 0, :50] = 1
        truth, drawn = (coco_mask.encode(np.asfortranarray(strip)) for strip in strips[::-1])
        row = {"image_id": image, "category_id": 1, "iscrowd": 0}
        if real:
            truths.append(row | {"id": len(truths) + 1, "segmentation": truth, "area": 100,
                                 "bbox": coco_mask.toBbox(truth).tolist()})  # fmt: skip
        if not np.isnan(confidence):
            found.append(row | {"segmentation": drawn, "score": float(confidence)})
        kept.append((shared / 100, confidence, real))
    reference = COCO({"images": pictures, "annotations": truths, "categories": [{"id": 1, "name": "L1"}]})
    measure = COCOeval_faster(reference, reference.loadRes(found), "segm", print_function=lambda *_: None)
    measure.evaluate()
    measure.accumulate()
    expected = measure.eval["precision"][:, :, 0, 0, -1].mean()
    assert coco(*zip(*kept, strict=True)) == pytest.approx(expected, abs=1e-9)
