"""Augmentation of training images: geometry, grey values, and artefacts of MR imaging."""

from typing import Literal

import albumentations as A
import cv2
import numpy as np

# albumentations' default, the nearest pixel, moves an image by up to a pixel against its mask
INTERPOLATION = {"downscale": cv2.INTER_AREA, "upscale": cv2.INTER_LINEAR}


class Stretch(A.ImageOnlyTransform):
    """Scale grey values so that the 99.5th percentile becomes 255; later transforms then act alike on all images.

    Some slices use only the lowest fifth of the 8-bit range: a change of brightness by a share of the whole range
    would leave nothing of them. The brightest 0.5 % are clipped, in training only. After `zscore` the two differ by
    0.006 standard deviations inside vertebral bodies, and by 0.025 (root mean square) over the image: the mean of 263
    T2-SPACE slices.
    """

    def __init__(self):
        super().__init__(p=1)

    def apply(self, img: np.ndarray, **_) -> np.ndarray:
        """(height, width) uint8 -> the same."""
        factor = 255 / max(float(np.percentile(img, 99.5)), 1.0)
        return np.clip(np.rint(img * np.float32(factor)), 0, 255).astype(np.uint8)


class BiasField(A.ImageOnlyTransform):
    """The smooth change of brightness that a surface coil leaves: a factor exp(f), f a polynomial of second degree.

    strength : the largest absolute value of f. Source of the model: Van Leemput 1999, doi 10.1109/42.811268.
    """

    def __init__(self, strength: float = 0.4, p: float = 0.5):
        super().__init__(p=p)
        self.strength = strength

    def apply(self, img: np.ndarray, **_) -> np.ndarray:
        """(height, width) uint8 -> the same."""
        height, width = img.shape[:2]
        y, x = np.linspace(-1, 1, height, dtype=np.float32), np.linspace(-1, 1, width, dtype=np.float32)
        terms = np.stack(np.broadcast_arrays(x, y[:, None], x * y[:, None], x**2, y[:, None] ** 2))
        field = np.tensordot(self.random_generator.uniform(-1, 1, 5).astype(np.float32), terms, 1)
        field *= self.random_generator.uniform(0, self.strength) / max(float(np.abs(field).max()), 1e-6)
        return np.clip(np.rint(img * np.exp(field)), 0, 255).astype(np.uint8)


class Ghosting(A.ImageOnlyTransform):
    """Faint copies along the columns, as breathing leaves them: every n-th row of k-space is weakened, n from 2 to 5.

    strength : the largest share by which those rows are weakened.
    """

    def __init__(self, strength: float = 0.4, p: float = 0.3):
        super().__init__(p=p)
        self.strength = strength

    def apply(self, img: np.ndarray, **_) -> np.ndarray:
        """(height, width) uint8 -> the same."""
        frequencies = np.fft.rfft2(img)
        row = np.abs(np.rint(np.fft.fftfreq(len(img)) * len(img)).astype(int))
        # rows 0 to 2 hold the brightness and the coarse shape
        weakened = (row % int(self.random_generator.integers(2, 6)) == 0) & (row > 2)
        frequencies[weakened] *= 1 - self.random_generator.uniform(0, self.strength)
        return np.clip(np.rint(np.fft.irfft2(frequencies, img.shape)), 0, 255).astype(np.uint8)


def augmentation(strength: Literal["none", "geometric", "intensity", "mr"], shift: float = 0.08) -> A.Compose:
    """Random transforms of an image and its mask, both (height, width) uint8; each strength includes the one before.

    strength : `none`; `geometric` (rotation, scale, translation); `intensity` (also gamma, blur, noise);
        `mr` (also bias field, ghosting, lower resolution).
    shift : largest translation as a share of each side.
    Images are never mirrored, because front and back of a vertebra differ. Contrast is never changed linearly, because
    normalisation would undo it.
    """
    transforms = []
    if strength in ("geometric", "intensity", "mr"):
        transforms += [A.Affine(scale=(0.85, 1.15), rotate=(-12, 12), translate_percent=(-shift, shift), p=0.8)]
    if strength in ("intensity", "mr"):
        transforms += [
            Stretch(),
            A.RandomGamma((70, 150), p=0.3),
            A.GaussianBlur(blur_limit=3, p=0.15),
            A.GaussNoise(std_range=(0.01, 0.05), p=0.3),
        ]
    if strength == "mr":
        transforms += [BiasField(), Ghosting(), A.Downscale((0.5, 0.9), INTERPOLATION, p=0.2)]
    return A.Compose(transforms, seed=0)
