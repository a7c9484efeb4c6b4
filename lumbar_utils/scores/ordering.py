"""Names in order: each vertebral body gets one name, and names follow one another down the spine without a gap.

A network names pixels one by one, so a body may hold two names, or two bodies one. Here the bodies are found first,
whatever their names, and then, of all names without a gap, those under which most pixels are expected to be right. A
vertebra has one name in all slices of a patient, and it is easier to tell in some of them: what they say together
decides. The result is reported beside the network's own label maps, never in their place.
"""

import cv2
import numpy as np


def bodies(foreground: np.ndarray, side: float) -> np.ndarray:
    """(height, width) bool -> int32 label map of separate bodies, 1.. from top to bottom, 0 elsewhere.

    side : of a typical body in pixels. Bodies that touch are parted at their necks: a body is what lies nearest to one
    piece of the foreground eroded by a sixth of it. What is too small to leave such a piece is dropped.
    """
    filled, radius = foreground.astype(np.uint8), max(1, round(side / 6))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    count, cores, _, centres = cv2.connectedComponentsWithStats(cv2.erode(filled, kernel))
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


def consecutive(votes: np.ndarray) -> list[int]:
    """The name of each body under which most pixels are expected to be right, names without a gap from body to body.

    votes : (bodies from top to bottom, 1 + names), pixels that go to each name; column 0 counts those of no name.
    Only above the first of all names and below the last are there vertebrae that have none. Elsewhere a body without a
    name is a fragment, and costs twice its size: more than a name of its neighbour's can gain.
    Returns a column for each body, 0 for no name.
    """
    last = votes.shape[1] - 1
    paths = {0: (0.0, []), -1: (0.0, [])}  # by the name given last; none yet: the first is to come (0), or another (-1)
    for row in votes:
        steps: dict[int, tuple[float, list[int]]] = {}
        for state, (total, path) in paths.items():
            following = range(2, last + 1) if state < 0 else range(state + 1, min(state + 1, last) + 1)
            choices = [(state, 0, row[0] if state in (0, last) else -2 * row.sum())]
            for target, name, gain in choices + [(name, name, row[name]) for name in following]:
                if target not in steps or total + gain > steps[target][0]:
                    steps[target] = (total + gain, [*path, name])
        paths = steps
    return max(paths.values(), key=lambda found: found[0])[1]


def ordered(probabilities: np.ndarray, together: np.ndarray | None = None) -> np.ndarray:
    """(6, height, width) probabilities of L1..S1 in [0, 1] -> (height, width) uint8 label map, names in order.

    together : the mean of such probabilities over all slices of the patient, which then names the bodies of this one.
    A lowest level without any probability was not taught, and is no name.
    """
    together = probabilities if together is None else together
    taught = 1 + max(np.flatnonzero(together.any(axis=(1, 2))), default=0)
    label_map = _with_background(probabilities[:taught]).argmax(axis=0)
    sizes = np.bincount(label_map.ravel())[1:]
    if not sizes.any():
        return np.zeros(label_map.shape, np.uint8)
    parts = bodies(label_map > 0, float(np.sqrt(np.median(sizes[sizes > 0]))))
    evidence = _with_background(together[:taught])
    votes = [evidence[:, parts == body].sum(axis=1) for body in range(1, parts.max() + 1)]
    return np.array([0, *consecutive(np.array(votes).reshape(-1, 1 + taught))], np.uint8)[parts]


def _with_background(probabilities: np.ndarray) -> np.ndarray:
    return np.concatenate([np.clip(1 - probabilities.sum(axis=0, keepdims=True), 0, 1), probabilities])
