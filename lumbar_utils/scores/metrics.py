"""Agreement between a predicted and a reference mask of one vertebra, or of one image.

A vertebra missing from both maps has no score: it gets no row, never a zero or a one. A vertebra missing from one map
only has an overlap of 0 and no distance. Distances are in mm where the size of a pixel is known, in px elsewhere; the
name of the metric says which, so the two are never averaged. Averages over cases are taken in `summary`.
"""

import numpy as np
from scipy import ndimage

DEFINITIONS = {
    "precision": "share of the predicted pixels that are the vertebra, mean over patients, then levels",
    "recall": "share of the vertebra's pixels that are predicted, mean over patients, then levels",
    "f1": "Dice overlap, 2TP/(2TP+FP+FN) of a vertebra's pixels, mean over patients, then levels",
    "map_pixel": "area under the precision-recall curve of a vertebra's pixels, mean over patients, then levels",
    "map_coco": "COCO AP@[.50:.95] of whole vertebrae over all images, mean over levels; ties are one threshold",
    "map_50": "the same at the one threshold IoU 0.50",
    "map_75": "the same at the one threshold IoU 0.75",
    "iou": "intersection over union, TP/(TP+FP+FN)",
    "area_error": "(predicted area - true area) / true area; 0 is right, -1 is missed",
    "hd95": "95th percentile of the distances from one outline to the other, the larger of the two directions",
    "assd": "mean distance between the two outlines, over the pixels of both",
    "nsd": "share of both outlines that lies within 1 (mm or px) of the other",
    "centroid": "distance between the centres of gravity",
    "pq": "panoptic quality of an image, sq x rq: a level is found where IoU > 0.5",
    "sq": "segmentation quality: mean IoU of the levels that are found",
    "rq": "recognition quality: F1 of finding levels",
    "ece": "expected calibration error of an image, over the pixels that are a vertebra in either map, 15 bins",
}
COCO_THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10))
COCO_RECALLS = np.linspace(0, 1, 101)
NSD_TOLERANCE = 1.0  # mm or px: one to two pixels of the images here
CALIBRATION_BINS = 15  # of confidence


def overlap(pred: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Precision TP/(TP+FP), recall TP/(TP+FN), F1 2TP/(2TP+FP+FN) and IoU of two boolean masks of one shape, in [0, 1].

    Empty if both masks are empty; all 0 if one of them is. F1 of pixels is the Dice overlap.
    """
    if pred.shape != true.shape:
        raise ValueError(f"masks differ in shape: {pred.shape} and {true.shape}; resample one onto the other's grid")
    both, predicted, real = int((pred & true).sum()), int(pred.sum()), int(true.sum())
    if not predicted and not real:
        return {}
    return {
        "precision": both / predicted if predicted else 0.0,
        "recall": both / real if real else 0.0,
        "f1": 2 * both / (predicted + real),
        "iou": both / (predicted + real - both),
    }


def f1_by_level(pred: np.ndarray, true: np.ndarray, levels: dict[int, str]) -> dict[str, float]:
    """Level -> F1 of the levels in either label map. levels : value -> name of the levels to score.

    Their mean is the F1 of one case, as of examples and of robustness; it is not the F1 of Table II, which `summary`
    averages over patients level by level.
    """
    scores = {level: overlap(pred == value, true == value) for value, level in levels.items()}
    return {level: score["f1"] for level, score in scores.items() if score}


def distances(pred: np.ndarray, true: np.ndarray, spacing_mm: float) -> dict[str, float]:
    """Distances between the outlines and the centres of two boolean masks; empty if either is empty.

    An outline is the pixels of a mask with one of their four neighbours outside of it; distances go from pixel centre
    to pixel centre. spacing_mm : side of a pixel, nan if unknown.
    Keys end in `_mm` where the spacing is known, in `_px` where it is not. Source: Maier-Hein and Reinke 2024,
    Metrics reloaded, doi 10.1038/s41592-023-02151-z; NSD Nikolov 2021, doi 10.2196/26151.
    """
    if not pred.any() or not true.any():
        return {}
    side, unit = (1.0, "px") if np.isnan(spacing_mm) else (spacing_mm, "mm")
    ys, xs = np.nonzero(pred | true)  # the distance transform of a crop is faster
    window = slice(ys.min(), ys.max() + 1), slice(xs.min(), xs.max() + 1)
    pred, true = np.pad(pred[window], 1), np.pad(true[window], 1)
    pred_edge, true_edge = (mask & ~ndimage.binary_erosion(mask) for mask in (pred, true))
    to_true = side * ndimage.distance_transform_edt(~true_edge)[pred_edge]
    to_pred = side * ndimage.distance_transform_edt(~pred_edge)[true_edge]
    both = np.concatenate([to_true, to_pred])
    shift = np.subtract(ndimage.center_of_mass(pred), ndimage.center_of_mass(true))
    return {
        f"hd95_{unit}": float(max(np.percentile(to_true, 95), np.percentile(to_pred, 95))),
        f"assd_{unit}": float(both.mean()),
        f"nsd_{unit}": float((both <= NSD_TOLERANCE).mean()),
        f"centroid_{unit}": float(side * np.hypot(*shift)),
    }


def precision_recall_counts(probability: np.ndarray, true: np.ndarray) -> np.ndarray:
    """(2, 256) pixels of the vertebra, and all pixels, by probability: what precision-recall curves are made of.

    probability : float map of the shape of `true`, in [0, 1], in steps of 1/255. Counts of several images are summed.
    """
    step = np.rint(probability * 255).astype(np.int64).ravel()
    return np.stack([np.bincount(step[true.ravel()], minlength=256), np.bincount(step, minlength=256)])


def average_precision(counts: np.ndarray, interpolated: bool = False) -> float:
    """Area under the precision-recall curve: sum of precision x gain in recall, in [0, 1]; nan without the vertebra.

    counts : as from `precision_recall_counts`; equal probabilities are one threshold. As scikit-learn's
    average_precision_score; `interpolated` takes at each recall the best precision at it or beyond, as COCO and VOC do.
    """
    hits, pixels = counts[:, ::-1].cumsum(axis=1)  # at or above each threshold, from the highest down
    if not hits[-1]:
        return float("nan")
    precision = hits / np.maximum(pixels, 1)
    if interpolated:
        precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float((precision * np.diff(hits / hits[-1], prepend=0)).sum())


def panoptic(ious: list[tuple[float, bool, bool]]) -> dict[str, float]:
    """Panoptic quality of an image and its parts, in [0, 1]. Source: Kirillov 2019, doi 10.1109/CVPR.2019.00963.

    ious : one (IoU, predicted, in the reference) per level in either map. A level is found where IoU > 0.5.
    Empty without a level; no sq where none is found.
    """
    found = [iou for iou, _, _ in ious if iou > 0.5]
    instances = sum(predicted + real for _, predicted, real in ious)
    if not instances:
        return {}
    scores = {"pq": 2 * sum(found) / instances, "rq": 2 * len(found) / instances}
    if found:
        scores["sq"] = float(np.mean(found))
    return scores


def calibration_bins(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(3, 15) per bin of confidence: pixels, sum of their confidence, right pixels. Bins of several images are summed.

    confidence : (pixels,) probability of the predicted class, in [0, 1]. right : (pixels,) bool.
    """
    bins = (confidence * CALIBRATION_BINS + 1e-6).astype(int)  # steps of 1/255 fall on edges of bins
    bins = np.minimum(bins, CALIBRATION_BINS - 1)
    return np.stack([np.bincount(bins, weight, CALIBRATION_BINS) for weight in (None, confidence, right.astype(float))])


def calibration_error(bins: np.ndarray) -> float:
    """Mean distance between confidence and accuracy over bins of `calibration_bins`, weighted by their pixels.

    In [0, 1]; nan without a pixel. Source: Guo 2017, On calibration of modern neural networks.
    """
    pixels, confidence, right = bins
    return float(np.abs(confidence - right).sum() / pixels.sum()) if pixels.sum() else float("nan")


def coco_average_precision(
    iou: np.ndarray,
    confidence: np.ndarray,
    real: np.ndarray,
    weights: np.ndarray,
    thresholds: tuple[float, ...] = COCO_THRESHOLDS,
) -> np.ndarray:
    """COCO's average precision of one level, mean over IoU thresholds, in [0, 1]: (..., images) weights -> (...).

    iou, confidence, real : (images,) of the images with this level in either map: IoU, confidence of the prediction
        (nan if not predicted), whether it is in the reference. All pixels of a level are one instance.
    weights : (..., images) how often each image counts: ones, or a resample. nan where no reference has the level.
    COCO's rules: instances of all images by falling confidence, precision made non-increasing, read at 101 recalls.
    Equal confidences are one threshold here, where COCO goes by the order of the images.
    Written here since libraries start from pixels in each resample; tests compare it with faster-coco-eval.
    """
    rank = np.where(np.isnan(confidence), np.inf, -confidence)
    order = np.argsort(rank, kind="stable")
    iou, real, rank, weights = iou[order], real[order], rank[order], np.asarray(weights, float)[..., order]
    predicted = np.isfinite(rank)
    last = np.searchsorted(rank, rank, side="right") - 1  # of equal confidences, which are one threshold
    total = (weights * real).sum(axis=-1)
    detections, values = np.cumsum(weights * predicted, axis=-1)[..., last], []
    for threshold in thresholds:
        hits = np.cumsum(weights * (predicted & real & (iou >= threshold)), axis=-1)[..., last]
        precision = np.divide(hits, detections, out=np.zeros_like(hits), where=detections > 0)
        falling = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
        recalls = np.searchsorted(COCO_RECALLS, hits / np.maximum(total, 1)[..., None], side="right")
        values.append((falling * np.diff(recalls, axis=-1, prepend=0)).sum(axis=-1) / len(COCO_RECALLS))
    return np.where(total > 0, np.mean(values, axis=0), np.nan)
