"""Images as networks take them: normalised and in batches, for training also shuffled and augmented.

The order of an epoch depends on (seed, epoch) alone, the augmentation of an image on (seed, epoch, image) alone. So
neither the number of loader processes nor an interruption changes what a network is trained on.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from lumbar_utils import LEVELS, StudyError
from lumbar_utils.data.decoding import decode
from lumbar_utils.data.folder import Cohort
from lumbar_utils.machine import device_of, loader_processes
from lumbar_utils.study import Study

if TYPE_CHECKING:
    import albumentations as A  # takes seconds to load

NOT_AUGMENTED = -1  # in place of an epoch: the image is loaded as it is


def classes_of(levels: Iterable[str]) -> list[int]:
    """Output channels of the background and of these levels."""
    return [0] + [LEVELS.index(level) + 1 for level in levels]


def seed_of(*parts: int) -> int:
    """A 32-bit seed from whole numbers; neighbouring numbers give unrelated seeds."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def normalise(image: np.ndarray) -> np.ndarray:
    """(height, width) uint8 -> float32 of mean 0 and standard deviation 1 over the image; a constant one becomes 0."""
    pixels = image.astype(np.float32)
    return (pixels - pixels.mean()) / max(float(pixels.std()), 1.0)


@dataclasses.dataclass(eq=False)
class SliceDataset(Dataset):
    """(epoch, index) -> image (1, height, width) float32, label map (height, width) uint8, row of the cohort.

    The epoch NOT_AUGMENTED gives the image as it is. An index beyond the last case starts again with the first one,
    which is then augmented differently.

    images, masks : (cases, height, width) uint8. rows : which of them to load. augment : see `augmentation`.
    """

    images: np.ndarray
    masks: np.ndarray
    rows: np.ndarray
    seed: int
    augment: "A.Compose"

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
        return torch.from_numpy(normalise(image))[None], torch.from_numpy(mask), row


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
    from lumbar_utils.networks.augmentation import augmentation

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
        SliceDataset(images, masks, rows, study.seed, augment),
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device_of(study) == "cuda",
        **batches,
    )
