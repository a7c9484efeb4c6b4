"""Relabelling in anatomical order: each vertebral body gets one level, and levels follow one another without a gap.

A network classifies pixel by pixel, so one body may get two levels, or two bodies one. Here the bodies are separated
first, whatever their levels, and then get the gapless sequence of levels under which most pixels are expected to be
right. Slices of a patient vote together. The result is reported beside the network's own label maps and never
replaces them.
"""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from scipy import ndimage

from lumbar_utils import records
from lumbar_utils.data.folder import Cohort
from lumbar_utils.data.images import write_png
from lumbar_utils.scores.evaluation import Evaluation, read_probabilities
from lumbar_utils.scores.instances import summarise_instances
from lumbar_utils.scores.summary import summarise

FRAGMENT = 0.1  # of the median vertebra of a volume


def relabel_all(cohort: Cohort, folders: dict[str, Path]) -> dict[str, Path]:
    """Write relabelled label maps of the test cases into a folder `ordered` beside each folder of label maps.

    Slices of one patient, contrast and size are taken for one volume, and vote together; in a grid only those that the
    networks of one seed predicted.
    folders : model -> folder of <case>.npz with probabilities; models without all of them are left out.
    Returns model -> folder `ordered`.
    """
    test = cohort.cases[cohort.cases["split"] == "test"]
    keys = [name for name in ("patient", "contrast", "seed") if name in test]
    written = {}
    for model, folder in folders.items():
        if not all((folder / f"{case}.npz").exists() for case in test["case"]):
            continue
        written[model] = folder.with_name("ordered")
        shutil.rmtree(written[model], ignore_errors=True)  # it may hold cases that are no longer tested
        for _, cases in test.groupby(keys, dropna=False)["case"]:
            maps = {case: read_probabilities(folder, case) for case in cases}
            for case, probabilities in maps.items():
                same_size = [other for other in maps.values() if other.shape == probabilities.shape]
                label_map = relabel(probabilities, np.mean(same_size, axis=0))
                with records.atomic_file(written[model] / f"{case}.png") as temporary:
                    write_png(temporary, label_map)
    return written


def compare_naming(own: Evaluation, in_order: Evaluation) -> pd.DataFrame:
    """Scores before and after relabelling, one row per (model, metric): value, low, high (95 % over patients), n.

    metric : `right`, the share of vertebrae that are found and rightly named, and F1 as in Table II.
    """
    tables = []
    for when, evaluation in {"own names": own, "in order": in_order}.items():
        shares = summarise_instances(evaluation.bodies)
        right = shares[shares["metric"] == "right"].drop(columns="count")
        tables.append(right.assign(metric=f"right, {when}"))
        tables.append(summarise(evaluation, ["f1"]).assign(metric=f"F1, {when}"))
    return pd.concat(tables, ignore_index=True).sort_values("metric", kind="stable", ignore_index=True)


def relabel(probabilities: np.ndarray, votes: np.ndarray | None = None) -> np.ndarray:
    """(6, height, width) probabilities of L1..S1 in [0, 1] -> (height, width) uint8 label map, levels in order.

    votes : mean probabilities over all slices of the patient, which decide the levels; without them, `probabilities`.
    A lowest level without any probability is taken as not annotated, and no body gets it.
    """
    votes = probabilities if votes is None else votes
    levels = 1 + max(np.flatnonzero(votes.any(axis=(1, 2))), default=0)
    label_map = _with_background(probabilities[:levels]).argmax(axis=0)
    areas = np.bincount(label_map.ravel())[1:]
    if not areas.any():
        return np.zeros(label_map.shape, np.uint8)
    bodies = separate_bodies(label_map > 0, float(np.sqrt(np.median(areas[areas > 0]))))
    maps = _with_background(votes[:levels])
    sums = [maps[:, bodies == body].sum(axis=1) for body in range(1, bodies.max() + 1)]
    names = consecutive_levels(np.array(sums).reshape(-1, 1 + levels))
    return np.array([0, *names], np.uint8)[bodies]


def relabel_volume(probabilities: np.ndarray) -> np.ndarray:
    """(slices, 6, height, width) uint8 probabilities in 1/255 -> (slices, height, width) uint8 label map.

    All slices vote for the levels, each with the weight of the vertebrae that it shows, so that lateral ones hardly
    count. Pieces smaller than FRAGMENT of a typical vertebra become background.
    """
    weights = probabilities.sum(axis=(1, 2, 3), dtype=np.float64)
    votes = np.zeros(probabilities.shape[1:], np.float32)
    for weight, maps in zip(weights / max(weights.sum(), 1), probabilities, strict=True):
        votes += np.float32(weight / 255) * maps
    label_map = np.stack([relabel(maps / np.float32(255), votes) for maps in probabilities])
    _remove_fragments(label_map)
    return label_map


def _remove_fragments(label_map: np.ndarray) -> None:
    """Make small pieces background, in place. label_map : (slices, height, width)."""
    parts = []
    for value, box in enumerate(ndimage.find_objects(label_map), 1):
        if box is not None:
            pieces, _ = ndimage.label(label_map[box] == value)
            parts.append((box, pieces, np.bincount(pieces.ravel())))
    largest = [sizes[1:].max() for _, _, sizes in parts]
    for box, pieces, sizes in parts:
        small = sizes < FRAGMENT * np.median(largest)
        label_map[box][small[pieces] & (pieces > 0)] = 0


def _with_background(probabilities: np.ndarray) -> np.ndarray:
    return np.concatenate([np.clip(1 - probabilities.sum(axis=0, keepdims=True), 0, 1), probabilities])


def separate_bodies(foreground: np.ndarray, side: float) -> np.ndarray:
    """(height, width) bool -> int32 label map of the bodies, 1.. from top to bottom; 0 is background.

    side : of a typical body in pixels. Touching bodies are split at their narrowest place: the foreground is eroded by
    a sixth of `side`, and each pixel belongs to the nearest component that remains. Pieces that vanish are dropped.
    """
    radius = max(1, round(side / 6))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    eroded = cv2.erode(foreground.astype(np.uint8), kernel)
    count, cores, _, centres = cv2.connectedComponentsWithStats(eroded)
    if count == 1:
        return np.zeros(foreground.shape, np.int32)
    _, nearest = cv2.distanceTransformWithLabels(
        (cores == 0).astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
    )
    core_of = np.zeros(nearest.max() + 1, np.int32)
    core_of[nearest[cores > 0]] = cores[cores > 0]
    rank = np.zeros(count, np.int32)
    rank[1 + np.argsort(centres[1:, 1], kind="stable")] = np.arange(1, count)
    return np.where(foreground, rank[core_of[nearest]], 0)


def consecutive_levels(votes: np.ndarray) -> list[int]:
    """The level of each body, gapless from body to body, under which most pixels are expected to be right.

    votes : (bodies from top to bottom, 1 + levels) expected pixels of each level; column 0 is background.
    Bodies above the first level or below the last may stay without one. Elsewhere a body without a level is a fragment
    and costs twice its size, more than a wrong level can.
    Returns a column of `votes` for each body, 0 for no level. Solved by dynamic programming.
    """
    last = votes.shape[1] - 1
    # level given last -> (gain, levels so far); before any level: 0 if the first level comes next, -1 if another does
    paths = {0: (0.0, []), -1: (0.0, [])}
    for row in votes:
        extended: dict[int, tuple[float, list[int]]] = {}
        for state, (gain, path) in paths.items():
            following = range(2, last + 1) if state < 0 else range(state + 1, min(state + 1, last) + 1)
            unnamed = row[0] if state in (0, last) else -2 * row.sum()
            for target, level, added in [(state, 0, unnamed), *((level, level, row[level]) for level in following)]:
                if target not in extended or gain + added > extended[target][0]:
                    extended[target] = (gain + added, [*path, level])
        paths = extended
    return max(paths.values(), key=lambda path: path[0])[1]
