"""Agreement between a predicted and a reference label map, one row per vertebra and metric.

A vertebra missing from both maps has no score: it gets no row, never a zero or a one.
A vertebra missing from one map only scores 0.
"""

from collections.abc import Iterable

import numpy as np

DEFINITIONS = {
    "precision": "share of the predicted pixels that are the vertebra, mean over patients, then levels",
    "recall": "share of the vertebra's pixels that are predicted, mean over patients, then levels",
    "f1": "Dice overlap, 2TP/(2TP+FP+FN) of a vertebra's pixels, mean over patients, then levels",
    "map_pixel": "area under the precision-recall curve of a vertebra's pixels, mean over patients, then levels",
    "map_coco": "COCO AP@[.50:.95] of whole vertebrae over all images, mean over levels",
}


def overlap(pred: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Precision TP/(TP+FP), recall TP/(TP+FN) and F1 2TP/(2TP+FP+FN) of two boolean masks of one shape, in [0, 1].

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
    }


def pixel_average_precision(probability: np.ndarray, true: np.ndarray) -> float:
    """Area under the precision-recall curve of a level's pixels: sum of precision x gain in recall, in [0, 1].

    probability : float map of one shape with `true`, in [0, 1], in steps of 1/255; ties are one threshold.
    nan if the reference is empty. Without interpolation, as in scikit-learn's average_precision_score.
    """
    if not true.any():
        return float("nan")
    step = np.rint(probability * 255).astype(np.int64).ravel()
    pixels = np.bincount(step, minlength=256)[::-1].cumsum()  # how many pixels reach a threshold, from sure to unsure
    hits = np.bincount(step[true.ravel()], minlength=256)[::-1].cumsum()
    precision = hits / np.maximum(pixels, 1)
    recall = hits / hits[-1]
    return float((precision * np.diff(recall, prepend=0)).sum())


def score_case(
    pred: np.ndarray, true: np.ndarray, levels: dict[int, str], probabilities: dict[int, np.ndarray] | None = None
) -> list[tuple[str, str, float]]:
    """Rows (level, metric, value) of one case.

    pred, true : (height, width) label maps of one shape.
    levels : value -> name of the levels to score; leave out what the reference does not annotate.
    probabilities : value -> (height, width) float map in [0, 1]; without it there is no average precision.
    """
    rows = []
    for value, level in levels.items():
        rows += [(level, metric, score) for metric, score in overlap(pred == value, true == value).items()]
        if probabilities is not None and (true == value).any():
            rows.append((level, "ap_pixel", pixel_average_precision(probabilities[value], true == value)))
    return rows


def names_given(pred: np.ndarray, true: np.ndarray, levels: dict[int, str]) -> list[tuple[str, str]]:
    """(level, name) of each vertebra in the reference: the name that most of its pixels bear; `missed` if none has one.

    pred, true : (height, width) label maps of one shape. levels : value -> name of the levels to look for.
    """
    found = []
    for value, level in levels.items():
        inside = pred[true == value]
        if inside.size:
            given = np.bincount(inside[inside > 0], minlength=1)
            found.append((level, levels.get(int(given.argmax()), "other") if given.any() else "missed"))
    return found


def coco_average_precision(
    images: Iterable[tuple[np.ndarray, np.ndarray, dict[int, float]]], levels: dict[int, str]
) -> dict[str, float]:
    """COCO AP@[.50:.95] per level over all images, in [0, 1]: all pixels of a level in an image are one instance.

    images : (pred, true, sureness), two label maps of one shape and the mean probability of each predicted level,
        which ranks the instances over the images.
    A level that no reference holds has no row. Computed by faster-coco-eval (101-point interpolation); called
    directly, since torchmetrics 1.9 drops images without a reference, and what was invented there with them.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    pictures, references, found = [], [], []
    for number, (pred, true, sureness) in enumerate(images, 1):
        pictures.append({"id": number, "height": true.shape[0], "width": true.shape[1]})
        references += _instances(true, levels, number, len(references))
        found += [row | {"score": sureness[row["category_id"]]} for row in _instances(pred, levels, number, 0)]
    if not references or not found:
        return {level: 0.0 for value, level in levels.items() if value in {row["category_id"] for row in references}}
    categories = [{"id": value, "name": level} for value, level in levels.items()]
    truth = COCO({"images": pictures, "annotations": references, "categories": categories})
    measure = COCOeval_faster(truth, truth.loadRes(found), "segm", print_function=lambda *_: None)
    measure.evaluate()
    measure.accumulate()
    per_level = measure.eval["precision"][:, :, :, 0, -1].mean(axis=(0, 1))  # thresholds, recalls, levels
    kept = [levels[value] for value in measure.params.catIds]
    return {level: float(value) for level, value in zip(kept, per_level, strict=True) if value >= 0}  # -1: none to find


def _instances(label_map: np.ndarray, levels: dict[int, str], image: int, before: int) -> list[dict]:
    """COCO annotations of the levels in a label map, numbered from `before` on."""
    from faster_coco_eval.core import mask as coco

    rows = []
    for value in levels:
        inside = label_map == value
        if inside.any():
            shape = coco.encode(np.asfortranarray(inside, dtype=np.uint8))
            rows.append({
                "id": before + len(rows) + 1, "image_id": image, "category_id": value, "iscrowd": 0,
                "segmentation": shape, "area": int(inside.sum()), "bbox": coco.toBbox(shape).tolist(),
            })  # fmt: skip
    return rows
