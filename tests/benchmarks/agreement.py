"""The study's scores beside those of field libraries: how far apart are they, and why?

    python tests/benchmarks/agreement.py STUDY FOLDER [--model unet] [--panoptica PYTHON]

STUDY is a study's folder: study.json, cases.csv, <model>/label_maps. Its test cases are scored as notebook 05 does it
(`evaluate`), and by scikit-learn, torchmetrics, MONAI and faster-coco-eval; by DeepMind's surface-distance where it is
installed, and by panoptica where PYTHON is an interpreter that has it (see agreement_panoptica.py).

FOLDER gets two tables. `agreement.csv` has one row a quantity and function:

n         pairs of finite values: cases x levels, cases (panoptic quality, calibration) or levels (COCO)
ours      mean of the study's; theirs: of the function's; largest: absolute difference of a pair
one_only  cases x levels, or cases, that only one of the two gives a value for, be it infinity; panoptica is not asked
          about a level that is in one label map only
why       "the same to rounding", or the convention in which they differ; it is named only if nothing is left of the
          difference once ours is computed by it, else the difference is `not explained`
left      the largest difference that is left then

`agreement_edges.csv` tells of what is not there, in drawn label maps: a level that is missed, invented or in neither,
and an image without reference. It has a row where only one of the two gives a value, or they give different ones.
"""

import argparse
import contextlib
import dataclasses
import importlib.metadata
import io
import json
import subprocess
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from faster_coco_eval import COCO, COCOeval_faster
from faster_coco_eval.core import mask as coco_mask
from monai import metrics as monai
from scipy import ndimage
from sklearn import metrics as sklearn
from torchmetrics.detection import MeanAveragePrecision, PanopticQuality
from torchmetrics.functional import classification, segmentation

from lumbar_utils import LEVELS, StudyError, records
from lumbar_utils.data.folder import Cohort
from lumbar_utils.data.sources import load
from lumbar_utils.scores.evaluation import (
    WHOLE_IMAGE,
    Evaluation,
    annotated_levels,
    evaluate,
    read_label_map,
    read_probabilities,
)
from lumbar_utils.scores.metrics import CALIBRATION_BINS, NSD_TOLERANCE, coco_average_precision
from lumbar_utils.scores.summary import COCO_METRICS as THRESHOLDS
from lumbar_utils.study import Study

try:
    import surface_distance
except ImportError:
    surface_distance = None

CLASSES = len(LEVELS) + 1  # background first
ROUNDING = {"rtol": 2e-6, "atol": 2e-6}  # torchmetrics and MONAI compute in 32 bits
IMAGES = "all images"  # stands for the case of a quantity that is of all of them
COLUMNS = ["case", "library", "function", "level", "metric", "theirs"]
Row = tuple[str, str, str, float]  # function, level, metric, value


@dataclasses.dataclass(frozen=True)
class Pair:
    """One case: label maps (height, width) uint8, only of annotated levels; probabilities (6, height, width)."""

    case: str
    true: np.ndarray
    pred: np.ndarray
    maps: np.ndarray
    side: float  # of a pixel, mm; 1 where it is unknown
    levels: dict[int, str]

    def masks(self, level: int) -> tuple[np.ndarray, np.ndarray]:
        """Of a level in the prediction and in the reference."""
        return self.pred == level, self.true == level

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(self.pred.astype(np.int64)), torch.from_numpy(self.true.astype(np.int64))

    def one_hot(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(1, levels, height, width) float of the prediction and of the reference, without the background."""
        both = np.stack([self.masks(level) for level in self.levels], axis=1).astype(np.float32)
        return torch.from_numpy(both[:1]), torch.from_numpy(both[1:])

    def window(self) -> "Pair":
        """What matters of the label maps, with a margin of background."""
        (place,) = ndimage.find_objects(((self.pred > 0) | (self.true > 0)).astype(int))
        return dataclasses.replace(self, true=np.pad(self.true[place], 1), pred=np.pad(self.pred[place], 1))

    def confidence(self) -> tuple[np.ndarray, np.ndarray]:
        """(pixels, 7) probability of each class, and the reference's class, where either map has a vertebra."""
        where = (self.pred > 0) | (self.true > 0)
        maps = self.maps[:, where].T
        return np.c_[np.clip(1 - maps.sum(axis=1), 0, 1), maps], self.true[where].astype(np.int64)


def pairs_of(cohort: Cohort, folder: Path) -> list[Pair]:
    levels, found = annotated_levels(cohort), []
    for _, case in cohort.cases[cohort.cases["split"] == "test"].iterrows():
        true = cohort.mask(case)
        pred, maps = read_label_map(folder, case, true.shape), read_probabilities(folder, case["case"], true.shape)
        if maps is None:
            raise StudyError(f"{folder} has no probabilities of case {case['case']}; name a model that gives them")
        true, pred = (np.where(np.isin(of, [*levels]), of, 0) for of in (true, pred))
        found.append(Pair(case["case"], true, pred, maps, float(np.nan_to_num(case["spacing_mm"], nan=1.0)), levels))
    return found


def in_turn(function: str, pair: Pair, metric: str, values: Iterable) -> Iterator[Row]:
    """A value each of the levels."""
    for level, value in zip(pair.levels.values(), values, strict=True):
        yield function, level, metric, float(value)


def by_scikit_learn(pair: Pair) -> Iterator[Row]:
    flat, options = (pair.true.ravel(), pair.pred.ravel()), {"labels": [*pair.levels], "average": None}
    *found, _ = sklearn.precision_recall_fscore_support(*flat, **options)
    for metric, values in zip(("precision", "recall", "f1"), found, strict=True):
        yield from in_turn("precision_recall_fscore_support", pair, metric, values)
    yield from in_turn("jaccard_score", pair, "iou", sklearn.jaccard_score(*flat, **options))
    for value, level in pair.levels.items():
        score = sklearn.average_precision_score(flat[0] == value, pair.maps[value - 1].ravel())
        yield "average_precision_score", level, "ap_pixel", score


def by_torchmetrics(pair: Pair) -> Iterator[Row]:
    tensors, levels = pair.tensors(), [*pair.levels]
    for metric in ("precision", "recall", "f1_score"):
        values = getattr(classification, f"multiclass_{metric}")(*tensors, CLASSES, average=None)[levels]
        yield from in_turn(f"multiclass_{metric}", pair, metric.removesuffix("_score"), values)
    batch, options = [of[None] for of in tensors], {"num_classes": CLASSES, "input_format": "index"}
    values = segmentation.dice_score(*batch, average="none", **options)[0, levels]
    yield from in_turn("dice_score", pair, "f1", values)
    yield from in_turn("mean_iou", pair, "iou", segmentation.mean_iou(*batch, per_class=True, **options)[0, levels])
    for value, level in pair.levels.items():
        probability, real = torch.from_numpy(pair.maps[value - 1]).ravel(), (tensors[1] == value).long().ravel()
        yield (
            "binary_average_precision",
            level,
            "ap_pixel",
            float(classification.binary_average_precision(probability, real)),
        )
    sure = map(torch.from_numpy, pair.confidence())
    score = classification.multiclass_calibration_error(*sure, CLASSES, n_bins=CALIBRATION_BINS)
    yield "multiclass_calibration_error", WHOLE_IMAGE, "ece", float(score)
    yield from panoptic_of_torchmetrics(pair.window())


def panoptic_of_torchmetrics(pair: Pair) -> Iterator[Row]:
    """Each level is a category, the background another; mean over the levels in either map, of sq over those found."""
    measure = PanopticQuality([*pair.levels], [0], return_sq_and_rq=True, return_per_class=True)
    measure.update(*(torch.stack([of, of], dim=-1)[None] for of in pair.tensors()))
    of_levels = measure.compute()[: len(pair.levels)]
    there = [bool(np.any(pair.masks(value))) for value in pair.levels]
    for metric, values in zip(("pq", "sq", "rq"), of_levels.T, strict=True):
        yield "PanopticQuality", WHOLE_IMAGE, metric, float(values[values > 0 if metric == "sq" else there].mean())


def by_monai(pair: Pair) -> Iterator[Row]:
    masks, of_side = pair.one_hot(), {"include_background": True, "spacing": (pair.side, pair.side)}
    counts = monai.get_confusion_matrix(*masks)
    for metric in ("precision", "recall"):
        values = monai.compute_confusion_matrix_metric(metric, counts)[0]
        yield from in_turn("compute_confusion_matrix_metric", pair, metric, values)
    yield from in_turn("compute_dice", pair, "f1", monai.compute_dice(*masks)[0])
    yield from in_turn("compute_iou", pair, "iou", monai.compute_iou(*masks)[0])
    values = monai.compute_hausdorff_distance(*masks, percentile=95, **of_side)[0]
    yield from in_turn("compute_hausdorff_distance", pair, "hd95", values)
    values = monai.compute_average_surface_distance(*masks, symmetric=True, **of_side)[0]
    yield from in_turn("compute_average_surface_distance", pair, "assd", values)
    of_side["class_thresholds"] = [NSD_TOLERANCE] * len(pair.levels)
    yield from in_turn("compute_surface_dice", pair, "nsd", monai.compute_surface_dice(*masks, **of_side)[0])
    values = monai.compute_surface_dice(*masks, use_subvoxels=True, **of_side)[0]
    yield from in_turn("compute_surface_dice use_subvoxels", pair, "nsd", values)
    for metric in ("pq", "sq", "rq"):
        value = monai.compute_panoptic_quality(*pair.tensors(), metric_name=metric)
        yield "compute_panoptic_quality", WHOLE_IMAGE, metric, float(value)


def by_surface_distance(pair: Pair) -> Iterator[Row]:
    """It asks NumPy for np.Inf where a mask is empty, which NumPy 2 has only once torchmetrics is imported."""
    for value, level in pair.levels.items():
        pred, true = pair.masks(value)
        if not pred.any() and not true.any():
            continue
        found = surface_distance.compute_surface_distances(true, pred, (pair.side, pair.side))
        yield "compute_robust_hausdorff", level, "hd95", surface_distance.compute_robust_hausdorff(found, 95)
        both = surface_distance.compute_average_surface_distance(found)
        yield "compute_average_surface_distance, mean of both", level, "assd", float(np.mean(both))
        share = surface_distance.compute_surface_dice_at_tolerance(found, NSD_TOLERANCE)
        yield "compute_surface_dice_at_tolerance", level, "nsd", share


def by_panoptica(pairs: list[Pair], python: Path, folder: Path) -> list[tuple]:
    """Rows of COLUMNS; folder : for the arrays, and what panoptica makes of them."""
    folder.mkdir(parents=True, exist_ok=True)
    windows = [*enumerate(pair.window() for pair in pairs)]
    arrays = {f"{number}_{which}": getattr(pair, which) for number, pair in windows for which in ("true", "pred")}
    np.savez_compressed(folder / "cases.npz", sides=[pair.side for pair in pairs], **arrays)
    subprocess.run([python, Path(__file__).with_name("agreement_panoptica.py"), folder], check=True)
    rows = pd.read_csv(folder / "panoptica.csv").itertuples(index=False)
    return [
        (pairs[number].case, library, function, LEVELS[level - 1] if level else WHOLE_IMAGE, metric, value)
        for number, library, function, level, metric, value in rows
    ]


def by_faster_coco_eval(pairs: list[Pair], sure: dict[tuple[str, str], float]) -> Iterator[Row]:
    """sure : (case, level) -> how sure the study takes a predicted vertebra to be."""
    images, truths, found = [], [], []
    for number, pair in enumerate(pairs):
        images.append({"id": number, "height": pair.true.shape[0], "width": pair.true.shape[1]})
        for value, level in pair.levels.items():
            row = {"image_id": number, "category_id": value, "iscrowd": 0}
            pred, true = (coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in pair.masks(value))
            if coco_mask.area(true):
                outline = {"segmentation": true, "bbox": coco_mask.toBbox(true).tolist()}
                truths.append(row | outline | {"id": len(truths) + 1, "area": int(coco_mask.area(true))})
            if coco_mask.area(pred):
                found.append(row | {"segmentation": pred, "score": sure[pair.case, level]})
    categories = [{"id": value, "name": level} for value, level in pairs[0].levels.items()]
    reference = COCO({"images": images, "annotations": truths, "categories": categories})
    measure = COCOeval_faster(reference, reference.loadRes(found), "segm", print_function=lambda *_: None)
    measure.evaluate()
    measure.accumulate()
    yield from of_precisions("COCOeval_faster", measure.eval["precision"], [*pairs[0].levels])


def by_mean_average_precision(pairs: list[Pair], sure: dict[tuple[str, str], float]) -> Iterator[Row]:
    """torchmetrics; sure as above."""
    measure, classes = MeanAveragePrecision("xyxy", "segm", backend="faster_coco_eval", extended_summary=True), set()
    for pair in pairs:
        sides = []
        for which, label_map in enumerate((pair.pred, pair.true)):
            values = [value for value in pair.levels if pair.masks(value)[which].any()]
            masks = np.array([label_map == value for value in values], bool).reshape(-1, *label_map.shape)
            sides.append({"labels": torch.tensor(values, dtype=torch.int), "masks": torch.from_numpy(masks)})
            classes.update(values)
        scores = [sure[pair.case, LEVELS[value - 1]] for value in sides[0]["labels"]]
        measure.update([sides[0] | {"scores": torch.tensor(scores, dtype=torch.float64)}], [sides[1]])
    with contextlib.redirect_stdout(io.StringIO()):
        precisions = measure.compute()["precision"].numpy()
    yield from of_precisions("MeanAveragePrecision", precisions, sorted(classes))


def of_precisions(function: str, precisions: np.ndarray, values: list[int]) -> Iterator[Row]:
    """precisions : (thresholds, recalls, levels, areas, most instances), as pycocotools and its heirs give them."""
    for place, value in enumerate(values):
        of_level = precisions[:, :, place, 0, -1]
        for metric, chosen in (("map_coco", of_level), ("map_50", of_level[0]), ("map_75", of_level[5])):
            yield function, LEVELS[value - 1], metric, float(chosen.mean())


def theirs(pairs: list[Pair], found: Evaluation, python: Path | None, folder: Path) -> pd.DataFrame:
    """Table of COLUMNS: every library on every pair. python, folder : as of `by_panoptica`; without it, left out."""
    sure = {(row.case, row.level): row.confidence for row in found.instances.itertuples()}
    by_pair = {"scikit-learn": by_scikit_learn, "torchmetrics": by_torchmetrics, "monai": by_monai}
    by_pair |= {"surface-distance": by_surface_distance} if surface_distance else {}
    by_all = {"faster-coco-eval": by_faster_coco_eval, "torchmetrics": by_mean_average_precision}
    named = {name: f"{name} {importlib.metadata.version(name)}" for name in by_pair | by_all}
    rows = [
        (pair.case, named[name], *row) for name, scores in by_pair.items() for pair in pairs for row in scores(pair)
    ]
    rows += [(IMAGES, named[name], *row) for name, scores in by_all.items() for row in scores(pairs, sure)]
    rows += by_panoptica(pairs, python, folder) if python else []
    return pd.DataFrame(rows, columns=COLUMNS)


def ours(found: Evaluation) -> pd.DataFrame:
    """case, level, metric, ours: what `evaluate` says, distances without their unit, and COCO's average precision."""
    rows = []
    for level, of_level in found.instances.groupby("level", sort=False):
        parts = [of_level[name].to_numpy() for name in ("iou", "confidence", "real")]
        for metric, thresholds in THRESHOLDS.items():
            value = coco_average_precision(*parts, np.ones(len(of_level)), thresholds)
            rows.append((IMAGES, level, metric, float(value)))
    columns = ["case", "level", "metric", "ours"]
    scores = found.scores.assign(metric=found.scores["metric"].str.replace(r"_(mm|px)$", "", regex=True))
    return pd.concat([scores.rename(columns={"value": "ours"})[columns], pd.DataFrame(rows, columns=columns)])


Outlines = list[tuple[np.ndarray, np.ndarray]]  # there and back: distances, and how long a piece each stands for
C = np.sqrt(0.5)  # what a corner cuts off
# length of outline, in pixels, in a square of 2 x 2 pixels, by which of them (8, 4, 2, 1) are inside
LENGTHS = np.array([0, C, C, 1, C, 1, 2 * C, C, C, 2 * C, 1, C, 1, C, C, 0])


def through_pixels(pair: Pair, level: int) -> Outlines:
    """Outlines as in lumbar_utils.scores.metrics: the outermost pixels of a mask."""
    edges = [np.pad(mask & ~ndimage.binary_erosion(mask), 1) for mask in pair.masks(level)]
    return between(edges, [edge.astype(float) for edge in edges], pair.side)


def through_corners(pair: Pair, level: int) -> Outlines:
    """Outlines as in surface-distance: corners of pixels that have both inside and outside about them."""
    padded = [np.pad(mask, 1).astype(int) for mask in pair.masks(level)]
    codes = [8 * of[:-1, :-1] + 4 * of[:-1, 1:] + 2 * of[1:, :-1] + of[1:, 1:] for of in padded]
    return between([(code > 0) & (code < 15) for code in codes], [LENGTHS[code] for code in codes], pair.side)


def between(edges: list[np.ndarray], lengths: list[np.ndarray], side: float) -> Outlines:
    ways = ((0, 1), (1, 0))
    return [(side * ndimage.distance_transform_edt(~edges[to])[edges[of]], lengths[of][edges[of]]) for of, to in ways]


def hd95_of_both(pair: Pair, level: int) -> float:
    return float(np.percentile(np.concatenate([apart for apart, _ in through_pixels(pair, level)]), 95))


def hd95_by_length(pair: Pair, level: int) -> float:
    """The least distance that 95 % of an outline's length lies within, the larger of both directions."""
    ends = []
    for apart, length in through_corners(pair, level):
        order = np.argsort(apart, kind="stable")
        reached = np.searchsorted(np.cumsum(length[order]) / length.sum(), 0.95)
        ends.append(apart[order][min(reached, len(apart) - 1)])
    return float(max(ends))


def mean_of_means(outlines: Callable[[Pair, int], Outlines], pair: Pair, level: int) -> float:
    return float(np.mean([np.average(apart, weights=length) for apart, length in outlines(pair, level)]))


def mean_of_shares(pair: Pair, level: int) -> float:
    return float(np.mean([(apart <= NSD_TOLERANCE).mean() for apart, _ in through_pixels(pair, level)]))


def nsd_by_length(pair: Pair, level: int) -> float:
    apart, length = (np.concatenate(part) for part in zip(*through_corners(pair, level), strict=True))
    return float(length[apart <= NSD_TOLERANCE].sum() / length.sum())


def calibration_in_32_bits(pair: Pair, _: None) -> float:
    """By the class that is surest in the rounded probabilities, whose steps of 1/255 lie on every edge of the bins."""
    sure, real = map(torch.from_numpy, pair.confidence())
    surest, chosen = sure.max(dim=1)
    place = torch.bucketize(surest, torch.linspace(0, 1, CALIBRATION_BINS + 1), right=True) - 1
    parts = (torch.ones_like(surest), surest, (chosen == real).float())
    pixels, sums, right = (torch.zeros(CALIBRATION_BINS + 1).scatter_add_(0, place, part) for part in parts)
    return float((sums - right).abs().sum() / pixels.sum())


def shared(pair: Pair) -> np.ndarray:
    """(7, 7) IoU of each of the reference's levels with each of the prediction's, where it is above 0.5, else 0."""
    counts = np.bincount(CLASSES * pair.true.ravel().astype(int) + pair.pred.ravel(), minlength=CLASSES**2)
    both = counts.reshape(CLASSES, CLASSES)
    union = both.sum(axis=1, keepdims=True) + both.sum(axis=0) - both
    iou = both[1:, 1:] / np.maximum(union[1:, 1:], 1)
    return np.where(iou > 0.5, iou, 0)


def panoptic_by_overlap(metric: str, pair: Pair, _: None) -> float:
    """A vertebra is found where any other lies on it, whatever its name."""
    found = shared(pair)
    sides = sum(len(np.unique(of[of > 0])) for of in (pair.true, pair.pred))
    total, hits = found.sum(), (found > 0).sum()
    part, whole = {"pq": (2 * total, sides), "rq": (2 * hits, sides), "sq": (total, hits)}[metric]
    return float(part / whole) if whole else np.nan


def panoptic_of_levels(metric: str, pair: Pair, _: None) -> float:
    """Mean over the levels in either map: one that is in one map only weighs as much as one in both."""
    found = shared(pair).diagonal()
    there = [value - 1 for value in pair.levels if np.any(pair.masks(value))]
    return float((found if metric == "pq" else found > 0)[there].mean())


# (quantity, function) -> the convention in words, and ours computed by it
OVERLAP = "a vertebra is found under whatever name, not only its own"
OF_LEVELS = "mean over levels: one in one map only counts as 1, not as 1/2"
LENGTH = "outlines run through corners of pixels and are weighted by length"
CONVENTIONS: dict[tuple[str, str], tuple[str, Callable[[Pair, int | None], float]]] = {
    ("hd95", "Metric.HD95"): ("95th percentile of both directions together, not the larger of two", hd95_of_both),
    ("assd", "Metric.ASSD"): (
        "mean of the two directions' means, not over the pixels of both", partial(mean_of_means, through_pixels)),
    ("nsd", "Metric.NSD"): ("mean of the two outlines' shares, not the share of both", mean_of_shares),
    ("hd95", "compute_robust_hausdorff"): (f"{LENGTH}; percentile not interpolated", hd95_by_length),
    ("assd", "compute_average_surface_distance, mean of both"): (
        f"mean of two means; {LENGTH}", partial(mean_of_means, through_corners)),
    ("nsd", "compute_surface_dice_at_tolerance"): (LENGTH, nsd_by_length),
    ("nsd", "compute_surface_dice use_subvoxels"): (LENGTH, nsd_by_length),
    ("ece", "multiclass_calibration_error"): (
        "class by the rounded probabilities, not the label map's; bins in 32 bits", calibration_in_32_bits),
} | {
    (metric, function): (OVERLAP, partial(panoptic_by_overlap, metric)) for metric in ("pq", "sq", "rq")
    for function in ("compute_panoptic_quality", "Panoptica_Evaluator by overlap")
} | {
    (metric, "PanopticQuality"): (OF_LEVELS, partial(panoptic_of_levels, metric)) for metric in ("pq", "rq")
}  # fmt: skip


def compare(cohort: Cohort, label_maps: Path, python: Path | None, folder: Path) -> pd.DataFrame:
    """COLUMNS and ours, and `mended`: ours by their convention, nan where none is known or there is nothing to mend."""
    found, pairs = evaluate(cohort, {"model": label_maps}), pairs_of(cohort, label_maps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of empty masks, which the second table is about, and of their own old calls
        table = theirs(pairs, found, python, folder)
    table = table.merge(ours(found), how="left", on=["case", "level", "metric"])
    of_case, mended = {pair.case: pair for pair in pairs}, []
    for row in table.itertuples():
        _, convention = CONVENTIONS.get((row.metric, row.function), (None, None))
        value = LEVELS.index(row.level) + 1 if row.level in LEVELS else None
        usable = convention and np.isfinite([row.ours, row.theirs]).all()
        mended.append(convention(of_case[row.case], value) if usable else np.nan)
    return table.assign(mended=mended)


def agreement(table: pd.DataFrame) -> pd.DataFrame:
    """One row a quantity and function; columns as above."""
    rows = []
    for key, part in table.groupby(["metric", "library", "function"], sort=False):
        both = part[np.isfinite(part[["ours", "theirs"]]).all(axis=1)]
        largest, left = ((both[which] - both["theirs"]).abs().max() for which in ("ours", "mended"))
        why = "not explained" if len(both) else "nothing to compare"
        if len(both) and np.allclose(both["ours"], both["theirs"], **ROUNDING):
            why, left = "the same to rounding", np.nan
        elif len(both) and np.allclose(both["mended"], both["theirs"], **ROUNDING):
            why = CONVENTIONS[key[0], key[2]][0]
        alone = int((part["ours"].isna() != part["theirs"].isna()).sum())
        rows.append((*key, len(both), both["ours"].mean(), both["theirs"].mean(), largest, alone, why, left))
    columns = ["quantity", "library", "function", "n", "ours", "theirs", "largest", "one_only", "why", "left"]
    order = {metric: place for place, metric in enumerate(dict.fromkeys(table["metric"]))}
    return pd.DataFrame(rows, columns=columns).sort_values("quantity", key=lambda of: of.map(order), kind="stable")


def drawn(folder: Path) -> Cohort:
    """Label maps of 24 x 16 pixels: L1 in both, L2 missed, L3 invented, L4 in neither; and L1 invented on its own."""
    there = {"L1": slice(2, 7), "L2": slice(9, 13), "L3": slice(15, 20)}
    maps = {"some": (("L1", "L2"), ("L1", "L3"), 0.6), "none": ((), ("L1",), 0.9)}
    folder.mkdir(parents=True, exist_ok=True)
    for case, (real, predicted, sure) in maps.items():
        true, pred = np.zeros((2, 24, 16), np.uint8)
        for label_map, levels in ((true, real), (pred, predicted)):
            for level in levels:
                label_map[there[level], 3:12] = LEVELS.index(level) + 1
        chances = np.stack([255 * sure * (pred == value) for value in range(1, CLASSES)]).astype(np.uint8)
        cv2.imwrite(str(folder / f"{case}_true.png"), true)
        cv2.imwrite(str(folder / f"{case}.png"), pred)
        np.savez_compressed(folder / f"{case}.npz", probabilities=chances)
    cases = pd.DataFrame({"case": [*maps], "patient": [*maps], "mask": [f"{case}_true.png" for case in maps]})
    cases, labels = cases.assign(image="", spacing_mm=1.0, split="test"), dict(enumerate(LEVELS[:4], 1))
    return Cohort(folder, "drawn", "CC0", True, labels, tuple(LEVELS[:4]), cases, "")


WHERE = {
    ("some", "L2"): "missed", ("some", "L3"): "invented", ("some", "L4"): "in neither",
    ("none", WHOLE_IMAGE): "image without reference", (IMAGES, "L3"): "invented", (IMAGES, "L4"): "in neither",
    (IMAGES, "L1"): "found; and invented, surer, in an image without reference",
}  # fmt: skip


def edges(table: pd.DataFrame) -> pd.DataFrame:
    """library, function, quantity, where, ours, theirs, of the drawn label maps; as text, `none` for no value."""
    where = [WHERE.get(place) for place in zip(table["case"], table["level"], strict=True)]
    table = table.rename(columns={"metric": "quantity"}).assign(where=where).dropna(subset="where")
    differ = table[~np.isclose(table["ours"], table["theirs"], equal_nan=True, **ROUNDING)].copy()
    for which in ("ours", "theirs"):
        differ[which] = ["none" if np.isnan(value) else f"{value + 0:.3g}" for value in differ[which]]
    keys = ["library", "function", "quantity", "where", "ours", "theirs"]
    for joined in ("where", "quantity"):  # those that differ alike in one row
        alike = [key for key in keys if key != joined]
        differ = differ.groupby(alike, sort=False)[joined].agg(lambda of: ", ".join(dict.fromkeys(of))).reset_index()
    return differ[keys]


def main(asked: argparse.Namespace) -> None:
    settings = json.loads((asked.study / "study.json").read_text())["settings"]
    cases = pd.read_csv(asked.study / "cases.csv", dtype={"case": str, "patient": str})
    cohort = dataclasses.replace(load(Study(**settings)), cases=cases)
    left_out = {"surface-distance": not surface_distance, "panoptica": not asked.panoptica}
    print("left out:", ", ".join(name for name, out in left_out.items() if out) or "nothing", flush=True)
    here = asked.folder
    label_maps = asked.study / asked.model / "label_maps"
    found = agreement(compare(cohort, label_maps, asked.panoptica, here / "panoptica"))
    records.write_csv(here / "agreement.csv", found)
    beyond = edges(compare(drawn(here / "drawn"), here / "drawn", asked.panoptica, here / "drawn" / "panoptica"))
    records.write_csv(here / "agreement_edges.csv", beyond)
    numbers = {"ours": "{:.4f}", "theirs": "{:.4f}", "largest": "{:.1e}", "left": "{:.1e}"}
    shown = found.assign(**{name: found[name].map(form.format).replace("nan", "") for name, form in numbers.items()})
    print(shown.to_markdown(index=False, disable_numparse=True))
    print(f"\n{beyond.to_markdown(index=False, disable_numparse=True)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=lambda path: Path(path).resolve())
    parser.add_argument("folder", type=lambda path: Path(path).resolve())
    parser.add_argument("--model", default="unet")
    parser.add_argument("--panoptica", type=lambda path: Path(path).absolute(), help="interpreter that has panoptica")
    main(parser.parse_args())
