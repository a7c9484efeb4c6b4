"""Names in order: each vertebral body gets one name, and names follow one another down the spine.

A network names pixels one by one, so a body may hold two names, or two bodies one. Here the bodies are found first,
whatever their names, and then, of all names that descend, those under which most pixels are expected to be right. The
result is reported beside the network's own label maps, never in their place.
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


def descending(evidence: np.ndarray) -> list[int]:
    """The name of each body that makes the sum of evidence largest, while names descend from body to body.

    evidence : (bodies, 1 + names), how many pixels are expected to be right under each name; column 0 stands for no
        name, which any body may have.
    Returns a column for each body; of those above 0 each is larger than the one before.
    """
    count, names = evidence.shape
    best = np.full((count + 1, names), -np.inf)  # [after so many bodies, last name given]
    best[0, 0] = 0
    came_from = np.zeros((count + 1, names), int)
    for body, row in enumerate(evidence):
        for last in range(names):
            stays = best[body, last] + row[0]
            best[body + 1, last], came_from[body + 1, last] = stays, last
            if last and (before := best[body, :last]).max() + row[last] > stays:
                best[body + 1, last], came_from[body + 1, last] = before.max() + row[last], before.argmax()
    chosen, last = [], int(best[count].argmax())
    for body in range(count, 0, -1):
        before = int(came_from[body, last])
        chosen.append(last if before != last else 0)
        last = before
    return chosen[::-1]


def ordered(probabilities: np.ndarray) -> np.ndarray:
    """(6, height, width) probabilities of L1..S1 in [0, 1] -> (height, width) uint8 label map, names in order."""
    stacked = np.concatenate([np.clip(1 - probabilities.sum(axis=0, keepdims=True), 0, 1), probabilities])
    sizes = np.bincount(stacked.argmax(axis=0).ravel())[1:]
    if not sizes.any():
        return np.zeros(stacked.shape[1:], np.uint8)
    parts = bodies(stacked.argmax(axis=0) > 0, float(np.sqrt(np.median(sizes[sizes > 0]))))
    evidence = np.array([stacked[:, parts == body].sum(axis=1) for body in range(1, parts.max() + 1)]).reshape(-1, 7)
    return np.array([0, *descending(evidence)], np.uint8)[parts]
