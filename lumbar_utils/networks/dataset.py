"""Images as networks take them: normalised and in batches, for training also shuffled and augmented.

The order of an epoch depends on (seed, epoch) alone, the augmentation of an image on (seed, epoch, image) alone. So
neither the number of loader processes nor an interruption changes what a network is trained on.
"""

from collections.abc import Iterable, Iterator
from typing import Literal

import albumentations as A
import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from lumbar_utils import LEVELS, StudyError
from lumbar_utils.data.decoding import decode
from lumbar_utils.data.folder import Cohort
from lumbar_utils.networks.devices import device_of, loader_processes
from lumbar_utils.study import Study

NOT_AUGMENTED = -1  # in place of an epoch: the image is loaded as it is
# albumentations' default, the nearest pixel, moves an image by up to a pixel against its mask
INTERPOLATION = {"downscale": cv2.INTER_AREA, "upscale": cv2.INTER_LINEAR}


def classes_of(levels: Iterable[str]) -> list[int]:
    """Output channels of the background and of these levels."""
    return [0] + [LEVELS.index(level) + 1 for level in levels]


def seed_of(*parts: int) -> int:
    """A 32-bit seed from whole numbers; neighbouring numbers give unrelated seeds."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def normalise(image: np.ndarray, method: Literal["zscore", "percentile"] = "zscore") -> np.ndarray:
    """(height, width) uint8 -> float32; a constant image becomes 0.

    method : `zscore`, to mean 0 and standard deviation 1 over the image; `percentile`, the 1st and 99th percentile
        to -1 and 1, values beyond them clipped.
    """
    pixels = image.astype(np.float32)
    if method == "percentile":
        low, high = np.percentile(pixels, (1, 99)).astype(np.float32)  # float64 would widen every pixel
        return np.clip((pixels - (low + high) / 2) / max((high - low) / 2, np.float32(1)), -1, 1)
    return (pixels - pixels.mean()) / max(float(pixels.std()), 1.0)


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


class SliceDataset(Dataset):
    """(epoch, index) -> image (1, height, width) float32, label map (height, width) uint8, row of the cohort.

    The epoch NOT_AUGMENTED gives the image as it is. An index beyond the last case starts again with the first one,
    which is then augmented differently.

    images, masks : (cases, height, width) uint8. rows : which of them to load. augment : see `augmentation`.
    """

    def __init__(
        self, images: np.ndarray, masks: np.ndarray, rows: np.ndarray, seed: int, augment: A.Compose, normalisation: str
    ):
        self.images, self.masks, self.rows = images, masks, rows
        self.seed, self.augment, self.normalisation = seed, augment, normalisation

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, epoch_and_index: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, int]:
        epoch, index = epoch_and_index
        repeat, index = divmod(index, len(self.rows))
        row = int(self.rows[index])
        image, mask = np.array(self.images[row]), np.array(self.masks[row])
        if epoch != NOT_AUGMENTED:
            seed = (self.seed, epoch, row, repeat) if repeat else (self.seed, epoch, row)
            self.augment.set_random_seed(seed_of(*seed))
            augmented = self.augment(image=image, mask=mask)
            image, mask = augmented["image"], augmented["mask"]
        return torch.from_numpy(normalise(image, self.normalisation))[None], torch.from_numpy(mask), row


class EpochSampler(Sampler):
    """The order of the training images in an epoch, a function of seed and epoch alone; yields (epoch, index).

    cases : number of training images.
    batch : images of one step, of all processes together; a last incomplete batch is left out.
    rank, processes : this process's share of every batch, so that together they see the batches of a single process.
    images : least number of images in an epoch. Fewer cases are repeated, each time in a new order; the index counts
        on: the second pass has the indices cases to 2 * cases - 1.
    """

    def __init__(self, cases: int, seed: int, batch: int, rank: int = 0, processes: int = 1, images: int = 0):
        self.cases, self.seed, self.batch, self.rank, self.processes = cases, seed, batch, rank, processes
        self.images = max(images, cases)
        self.epoch = 0

    def __len__(self) -> int:
        return self.images // self.batch * (self.batch // self.processes)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of each epoch, also after resuming."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        passes = -(-self.images // self.cases)
        order = np.concatenate([rng.permutation(self.cases) + number * self.cases for number in range(passes)])
        batches = self.images // self.batch
        shares = order[: batches * self.batch].reshape(batches, self.processes, self.batch // self.processes)
        for index in shares[:, self.rank].ravel().tolist():
            yield self.epoch, index


def evaluation_batches(cases: int, batch: int, rank: int = 0, processes: int = 1) -> list[list[tuple[int, int]]]:
    """Batches of at most `batch` images without augmentation, each image once; every process gets as many batches."""
    largest_share = -(-cases // processes)
    batches = np.array_split(np.arange(rank, cases, processes), -(-largest_share // batch))
    return [[(NOT_AUGMENTED, index) for index in indices.tolist()] for indices in batches]


def loader(study: Study, cohort: Cohort, side: str, rank: int = 0, processes: int = 1) -> DataLoader:
    """Batches of one side of the split (train, validation or test), or one process's share of them.

    Only `train` is shuffled and augmented. Raises StudyError if the cases cannot be shared between the processes.
    """
    images, masks = decode(cohort, study.height, study.width, study.cache)
    rows = np.flatnonzero(cohort.cases["split"] == side)
    train = side == "train"
    step = min(study.batch_size, len(rows)) if train else study.batch_size
    parts = study.accumulate * processes
    if len(rows) < processes or step % parts:
        raise StudyError(
            f"{len(rows)} {side} cases cannot be shared by {processes} processes in {study.accumulate} parts each; "
            "lower devices, nodes or accumulate"
        )
    if train:
        augment = augmentation(study.augmentation, study.shift)
        sampler = EpochSampler(len(rows), study.seed, step, rank, processes, study.images_per_epoch)
        batches = {"sampler": sampler, "batch_size": step // parts}
    else:
        augment = augmentation("none")
        batches = {"batch_sampler": evaluation_batches(len(rows), max(2, step // parts), rank, processes)}
    workers = loader_processes(study)
    return DataLoader(
        SliceDataset(images, masks, rows, study.seed, augment, study.normalisation),
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device_of(study) == "cuda",
        **batches,
    )
