"""Which images are the same, or nearly: hashes of pixels and of their coarse waves.

The perceptual hash is the usual one of a discrete cosine transform (Zauner 2010, phash.org), with more bits: images of
spines resemble one another more than holiday photographs do.
"""

import re
from collections.abc import Iterator

import cv2
import numpy as np

SIDE, WAVES = 64, 16  # an image is shrunk to 64 x 64 pixels, its 16 x 16 longest waves make 255 bits without the mean
BITS = WAVES**2 - 1
# Measured: different patients differ in 38 bits or more (400 000 pairs of phantoms; 64 among 30 real patients). A copy
# with noise, other contrast, JPEG at quality 30, half the size or moved by 2 of 320 pixels differs in 32 or fewer; one
# turned by 5 degrees or enlarged by 10 % in 50 to 100: it is not found.
NEAR = 32


def waves(image: np.ndarray) -> np.ndarray:
    """(255,) float32 of 1 and -1: which of the image's longest waves lie above their median."""
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    lowest = cv2.dct(small)[:WAVES, :WAVES].ravel()[1:]
    return np.where(lowest > np.median(lowest), 1, -1).astype(np.float32)


def near_pairs(hashes: np.ndarray, patients: np.ndarray, most: int = NEAR) -> Iterator[tuple[int, int, int]]:
    """Rows i < j of different patients whose hashes differ in at most `most` bits, and in how many.

    hashes : (images, bits) of 1 and -1. One row at a time, so that memory does not grow with the pairs.
    """
    for i in range(len(hashes) - 1):
        differing = ((hashes.shape[1] - hashes[i + 1 :] @ hashes[i]) / 2).astype(int)
        for j in np.flatnonzero((differing <= most) & (patients[i + 1 :] != patients[i])):
            yield i, i + 1 + int(j), int(differing[j])


def plain_name(patient: str) -> str:
    """A patient's name without what a typist varies: case, blanks, dashes, leading zeros."""
    return re.sub(r"(?<!\d)0+(?=\d)", "", re.sub(r"[\s_\-]+", "", patient.casefold()))
