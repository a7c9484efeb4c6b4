"""Augmentation of training images: geometry and grey values."""

from typing import Literal

import albumentations as A
import numpy as np


class Stretch(A.ImageOnlyTransform):
    """Scale grey values so that the 99.5th percentile becomes 255; later transforms then act alike on all images.

    Some slices use only the lowest fifth of the 8-bit range: a change of brightness by a share of the whole range
    would leave nothing of them. The brightest 0.5 % are clipped, in training only. After `zscore` the two differ by
    0.006 standard deviations inside vertebral bodies, and by 0.025 (root mean square) over the image: the mean of 263
    T2-SPACE slices.
    """

    def apply(self, img: np.ndarray, **_) -> np.ndarray:
        """(height, width) uint8 -> the same."""
        factor = 255 / max(float(np.percentile(img, 99.5)), 1.0)
        return np.clip(np.rint(img * np.float32(factor)), 0, 255).astype(np.uint8)


def augmentation(strength: Literal["none", "geometric", "intensity"], shift: float = 0.08) -> A.Compose:
    """Random transforms of an image and its mask, both (height, width) uint8; each strength includes the one before.

    strength : `none`; `geometric` (rotation, scale, translation); `intensity` (also gamma, blur, noise).
    shift : largest translation as a share of each side.
    Images are never mirrored, because front and back of a vertebra differ. Contrast is never changed linearly, because
    normalisation would undo it.
    """
    transforms = []
    if strength != "none":
        transforms += [A.Affine(scale=(0.85, 1.15), rotate=(-12, 12), translate_percent=(-shift, shift), p=0.8)]
    if strength == "intensity":
        transforms += [
            Stretch(p=1),
            A.RandomGamma((70, 150), p=0.3),
            A.GaussianBlur(blur_limit=3, p=0.15),
            A.GaussNoise(std_range=(0.01, 0.05), p=0.3),
        ]
    return A.Compose(transforms, seed=0)
