"""What varies in a training image: place, contrast, and the faults of an MR scanner."""

from typing import Literal

import albumentations as A
import cv2
import numpy as np

# albumentations' own choice, the nearest pixel, moves an image by up to a pixel against its mask
UNMOVED = {"downscale": cv2.INTER_AREA, "upscale": cv2.INTER_LINEAR}
Strength = Literal["none", "geometric", "intensity", "mr"]


class Stretch(A.ImageOnlyTransform):
    """The whole range of 8 bits for what lies below the 99.5th percentile, so that what follows acts alike on all.

    Some slices use the lowest fifth of the range: a change of brightness by a share of the whole range would
    leave nothing of them. The brightest 0.5 % become 255, in training only: images that are validated on, tested on
    or predicted keep theirs. After `zscore` the two differ by 0.006 standard deviations inside vertebral bodies, and by
    0.025 (root mean square) over the image: the mean of 263 T2-SPACE slices.
    """

    def __init__(self):
        super().__init__(p=1)

    def apply(self, img: np.ndarray, **_) -> np.ndarray:
        factor = 255 / max(float(np.percentile(img, 99.5)), 1.0)
        return np.clip(np.rint(img * np.float32(factor)), 0, 255).astype(np.uint8)


class BiasField(A.ImageOnlyTransform):
    """The slow change of brightness that a surface coil leaves: a factor exp(f), f a polynomial of second degree.

    strength : the largest absolute value of f. Source of the model: Van Leemput 1999, doi 10.1109/42.811268.
    """

    def __init__(self, strength: float = 0.4, p: float = 0.5):
        super().__init__(p=p)
        self.strength = strength

    def apply(self, img: np.ndarray, **_) -> np.ndarray:
        y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in img.shape[:2])
        terms = np.stack(np.broadcast_arrays(x, y[:, None], x * y[:, None], x**2, y[:, None] ** 2))
        field = np.tensordot(self.random_generator.uniform(-1, 1, 5).astype(np.float32), terms, 1)
        field *= self.random_generator.uniform(0, self.strength) / max(float(np.abs(field).max()), 1e-6)
        return np.clip(np.rint(img * np.exp(field)), 0, 255).astype(np.uint8)


class Ghosting(A.ImageOnlyTransform):
    """Faint copies along the columns, as breathing leaves them: every n-th row of k-space is weaker, n from 2 to 5.

    strength : the largest share by which those rows are weakened.
    """

    def __init__(self, strength: float = 0.4, p: float = 0.3):
        super().__init__(p=p)
        self.strength = strength

    def apply(self, img: np.ndarray, **_) -> np.ndarray:
        frequencies = np.fft.rfft2(img)
        row = np.abs(np.rint(np.fft.fftfreq(len(img)) * len(img)).astype(int))
        weaker = (row % int(self.random_generator.integers(2, 6)) == 0) & (row > 2)  # not brightness and coarse shape
        frequencies[weaker] *= 1 - self.random_generator.uniform(0, self.strength)
        return np.clip(np.rint(np.fft.irfft2(frequencies, img.shape)), 0, 255).astype(np.uint8)


def augmentation(strength: Strength, shift: float = 0.08) -> A.Compose:
    """Each strength adds to the one before; an image is never mirrored, since front and back of a body differ.

    strength : `none`; `geometric` (turned, scaled and moved); `intensity` (and gamma, blur, noise);
        `mr` (and bias field, ghosting, lower resolution). shift : largest share of its sides that an image is moved by.
    Takes and gives (height, width) uint8.
    """
    geometric = [A.Affine(scale=(0.85, 1.15), rotate=(-12, 12), translate_percent=(-shift, shift), p=0.8)]
    intensity = [  # no linear change of contrast: normalising would undo it
        Stretch(),
        A.RandomGamma((70, 150), p=0.3),
        A.GaussianBlur(blur_limit=3, p=0.15),
        A.GaussNoise(std_range=(0.01, 0.05), p=0.3),
    ]
    scanner = [BiasField(), Ghosting(), A.Downscale((0.5, 0.9), UNMOVED, p=0.2)]
    parts = {
        "none": [],
        "geometric": geometric,
        "intensity": geometric + intensity,
        "mr": geometric + intensity + scanner,
    }
    return A.Compose(parts[strength], seed=0)
