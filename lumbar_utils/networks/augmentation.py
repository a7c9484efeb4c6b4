"""Augmentation of training images: geometry, grey values, and artefacts of MR imaging."""

from typing import Literal

import albumentations as A
import cv2
import numpy as np

# albumentations' default, the nearest pixel, moves an image by up to a pixel against its mask
INTERPOLATION = {"downscale": cv2.INTER_AREA, "upscale": cv2.INTER_LINEAR}
BIAS = 0.4  # largest absolute value of the exponent of a bias field
GHOSTING = 0.4  # largest share by which rows of k-space are weakened


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


def random_polynomial(shape: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    """(height, width) float32: a polynomial of second degree of the position, its coefficients from -1 to 1."""
    y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in shape)
    terms = np.stack(np.broadcast_arrays(x, y[:, None], x * y[:, None], x**2, y[:, None] ** 2))
    return np.tensordot(random.uniform(-1, 1, 5).astype(np.float32), terms, 1)


class BiasField(A.ImageOnlyTransform):
    """The smooth change of brightness that a surface coil leaves: a factor exp(f), f a polynomial of second degree.

    Source of the model: Van Leemput 1999, doi 10.1109/42.811268.
    """

    def apply(self, img: np.ndarray, **_) -> np.ndarray:
        """(height, width) uint8 -> the same."""
        field = random_polynomial(img.shape[:2], self.random_generator)
        field *= self.random_generator.uniform(0, BIAS) / max(float(np.abs(field).max()), 1e-6)
        return np.clip(np.rint(img * np.exp(field)), 0, 255).astype(np.uint8)


class Ghosting(A.ImageOnlyTransform):
    """Faint copies along the columns, as of breathing: every n-th row of k-space is weakened, n from 2 to 5."""

    def apply(self, img: np.ndarray, **_) -> np.ndarray:
        """(height, width) uint8 -> the same."""
        frequencies = np.fft.rfft2(img)
        row = np.abs(np.rint(np.fft.fftfreq(len(img)) * len(img)).astype(int))
        # rows 0 to 2 hold the brightness and the coarse shape
        weakened = (row % int(self.random_generator.integers(2, 6)) == 0) & (row > 2)
        frequencies[weakened] *= 1 - self.random_generator.uniform(0, GHOSTING)
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
            Stretch(p=1),
            A.RandomGamma((70, 150), p=0.3),
            A.GaussianBlur(blur_limit=3, p=0.15),
            A.GaussNoise(std_range=(0.01, 0.05), p=0.3),
        ]
    if strength == "mr":
        transforms += [BiasField(p=0.5), Ghosting(p=0.3), A.Downscale((0.5, 0.9), INTERPOLATION, p=0.2)]
    return A.Compose(transforms, seed=0)
