"""Agreement between a predicted and a reference label map, one row per vertebra and metric.

A vertebra missing from both maps has no score: it gets no row, never a zero or a one. A vertebra missing from one map
only scores 0 in what overlaps, and has no distance: there is nothing to measure it to. Distances are in mm where the
side of a pixel is known, in px elsewhere; the name of the metric says which, so the two are never averaged.
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
TOLERANCE = 1.0  # of the normalised surface distance, mm or px: one to two pixels of the images here
BINS = 15  # of sureness, for calibration


def overlap(pred: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Precision TP/(TP+FP), recall TP/(TP+FN), F1 2TP/(2TP+FP+FN) and IoU of two boolean masks of one shape, in [0, 1].

    Empty if both masks are empty; all 0 if one of them is. F1 of pixels is the Dice overlap.
    """
    if pred.shape != true.shape:
        raise ValueError(f"masks differ in shape: {pred.shape} and {true.shape}; resample one onto the other's grid")
    return overlap_of(int((pred & true).sum()), int(pred.sum()), int(true.sum()))


def overlap_of(both: int, predicted: int, real: int) -> dict[str, float]:
    """The same from counts of pixels: in both masks, in the prediction, in the reference."""
    if not predicted and not real:
        return {}
    return {
        "precision": both / predicted if predicted else 0.0,
        "recall": both / real if real else 0.0,
        "f1": 2 * both / (predicted + real),
        "iou": both / (predicted + real - both),
    }


def f1_by_level(pred: np.ndarray, true: np.ndarray, levels: dict[int, str]) -> dict[str, float]:
    """Level -> F1, of the levels that either of two label maps holds. levels : value -> name of those to look for."""
    scores = {level: overlap(pred == value, true == value) for value, level in levels.items()}
    return {level: found["f1"] for level, found in scores.items() if found}


def distances(pred: np.ndarray, true: np.ndarray, spacing_mm: float) -> dict[str, float]:
    """Distances between the outlines and the centres of two boolean masks; empty where one of them is empty.

    An outline is the pixels of a mask with one of their four neighbours outside of it; distances go from centre of
    pixel to centre of pixel. spacing_mm : side of a pixel, nan if unknown.
    Keys end in `_mm` where the spacing is known, in `_px` where it is not. Source: Maier-Hein and Reinke 2024,
    Metrics reloaded, doi 10.1038/s41592-023-02151-z; NSD Nikolov 2021, doi 10.2196/26151.
    """
    if not pred.any() or not true.any():
        return {}
    side, unit = (1.0, "px") if np.isnan(spacing_mm) else (spacing_mm, "mm")
    ys, xs = np.nonzero(pred | true)  # all else is far from either outline
    window = slice(ys.min(), ys.max() + 1), slice(xs.min(), xs.max() + 1)
    pred, true = np.pad(pred[window], 1), np.pad(true[window], 1)
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in (pred, true)]
    there, back = (
        side * ndimage.distance_transform_edt(~to)[of] for of, to in ((edges[0], edges[1]), (edges[1], edges[0]))
    )
    both = np.concatenate([there, back])
    apart = np.subtract(ndimage.center_of_mass(pred), ndimage.center_of_mass(true))
    return {
        f"hd95_{unit}": float(max(np.percentile(there, 95), np.percentile(back, 95))),
        f"assd_{unit}": float(both.mean()),
        f"nsd_{unit}": float((both <= TOLERANCE).mean()),
        f"centroid_{unit}": float(side * np.hypot(*apart)),
    }


def precision_recall_counts(probability: np.ndarray, true: np.ndarray) -> np.ndarray:
    """(2, 256) counts that precision-recall curves are made of: pixels of the vertebra, and all pixels, by probability.

    probability : float map of one shape with `true`, in [0, 1], in steps of 1/255. Counts of images add up.
    """
    step = np.rint(probability * 255).astype(np.int64).ravel()
    return np.stack([np.bincount(step[true.ravel()], minlength=256), np.bincount(step, minlength=256)])


def average_precision(counts: np.ndarray, interpolated: bool = False) -> float:
    """Area under the precision-recall curve: sum of precision x gain in recall, in [0, 1]; nan if there is nothing.

    counts : as from `precision_recall_counts`; equal probabilities are one threshold. As in scikit-learn's
    average_precision_score; `interpolated` takes at each recall the best precision at it or beyond, as COCO and VOC do.
    """
    hits, pixels = counts[:, ::-1].cumsum(axis=1)  # how many reach a threshold, from sure to unsure
    if not hits[-1]:
        return float("nan")
    precision = hits / np.maximum(pixels, 1)
    if interpolated:
        precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float((precision * np.diff(hits / hits[-1], prepend=0)).sum())


def panoptic(ious: list[tuple[float, bool, bool]]) -> dict[str, float]:
    """Panoptic quality of an image and its parts, in [0, 1]. Source: Kirillov 2019, doi 10.1109/CVPR.2019.00963.

    ious : for each level in either map (IoU, whether predicted, whether in the reference). A level is found where
    IoU > 0.5. Empty where there is no level; no sq where none is found.
    """
    found = [iou for iou, _, _ in ious if iou > 0.5]
    sides = sum(predicted + real for _, predicted, real in ious)
    if not sides:
        return {}
    recognised = 2 * len(found) / sides
    segmented = {"sq": float(np.mean(found))} if found else {}
    return {"pq": 2 * sum(found) / sides, "rq": recognised} | segmented


def calibration(sureness: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(3, 15) per bin of sureness: pixels, sum of their sureness, how many are right. Such sums of images add up.

    sureness : (pixels,) probability of the class that was predicted, in [0, 1]; right : (pixels,) bool.
    """
    place = np.minimum((sureness * BINS + 1e-6).astype(int), BINS - 1)  # steps of 1/255 fall on edges of bins
    return np.stack([np.bincount(place, weight, BINS) for weight in (None, sureness, right.astype(float))])


def calibration_error(bins: np.ndarray) -> float:
    """Mean distance of sureness and share of right pixels over bins as from `calibration`, weighted by their pixels.

    In [0, 1]; nan without a pixel. Source: Guo 2017, On calibration of modern neural networks.
    """
    pixels, sureness, right = bins
    return float(np.abs(sureness - right).sum() / pixels.sum()) if pixels.sum() else float("nan")


def coco_average_precision(
    iou: np.ndarray,
    sureness: np.ndarray,
    real: np.ndarray,
    weights: np.ndarray,
    thresholds: tuple[float, ...] = COCO_THRESHOLDS,
) -> np.ndarray:
    """COCO's average precision of one level, mean over IoU thresholds, in [0, 1], one a row of `weights`.

    iou, sureness, real : (images,) of a level that an image holds or is said to hold: IoU of the two, how sure the
        prediction is (nan where there is none), whether it is in the reference. All its pixels are one instance.
    weights : (..., images) how often each image counts: ones, or a resample. nan where nothing is to be found.
    By COCO's rules: instances from sure to unsure over all images, precision made to fall, read off at 101 recalls; but
    those equally sure are one threshold, where COCO goes by the order of the images.
    Written here since libraries start again from pixels in each resample; tests hold it against faster-coco-eval.
    """
    order = np.argsort(np.where(np.isnan(sureness), np.inf, -sureness), kind="stable")
    iou, predicted, real = iou[order], ~np.isnan(sureness[order]), real[order]
    weights, sure = np.asarray(weights, float)[..., order], np.where(predicted, -sureness[order], np.inf)
    last = np.searchsorted(sure, sure, side="right") - 1  # of those that are equally sure: one threshold
    total = (weights * real).sum(axis=-1)
    pixels, values = np.cumsum(weights * predicted, axis=-1)[..., last], []
    for threshold in thresholds:
        hits = np.cumsum(weights * (predicted & real & (iou >= threshold)), axis=-1)[..., last]
        precision = np.divide(hits, pixels, out=np.zeros_like(hits), where=pixels > 0)
        falling = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
        reached = np.searchsorted(COCO_RECALLS, hits / np.maximum(total, 1)[..., None], side="right")
        values.append((falling * np.diff(reached, axis=-1, prepend=0)).sum(axis=-1) / len(COCO_RECALLS))
    return np.where(total > 0, np.mean(values, axis=0), np.nan)
