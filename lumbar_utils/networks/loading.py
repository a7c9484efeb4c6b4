"""Cases as networks see them: shuffled and augmented by seed, epoch and case, normalised and in batches."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from lumbar_utils import LEVELS, StudyError
from lumbar_utils.data.decoding import decode
from lumbar_utils.data.folder import Cohort
from lumbar_utils.networks.devices import device_of, loading_processes
from lumbar_utils.study import Study


def annotated_classes(cohort: Cohort) -> list[int]:
    """Output channels that the data set can teach: background and its annotated levels."""
    return classes_of(cohort.annotated)


def classes_of(levels: Iterable[str]) -> list[int]:
    """Output channels of the background and of these levels."""
    return [0] + [LEVELS.index(level) + 1 for level in levels]


def seed_of(*parts: int) -> int:
    """A 32-bit seed for any tuple of whole numbers, unrelated to that of its neighbours."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def normalise(image: np.ndarray, how: str = "zscore") -> np.ndarray:
    """(height, width) uint8 -> float32; a flat image becomes 0.

    how : `zscore`, to mean 0 and standard deviation 1 over the image; or `percentile`, the first to the 99th
        percentile to -1..1 and what lies outside cut off.
    """
    pixels = image.astype(np.float32)
    if how == "percentile":
        low, high = np.percentile(pixels, (1, 99)).astype(np.float32)  # in 64 bits it would widen every pixel
        return np.clip((pixels - (low + high) / 2) / max((high - low) / 2, np.float32(1)), -1, 1)
    return (pixels - pixels.mean()) / max(float(pixels.std()), 1.0)


class Cases(Dataset):
    """(epoch, index) -> image (1, height, width) float32, label map (height, width) uint8, row of the cohort.

    What happens to a case depends on the seed, the epoch and the index alone: neither on the number of loading
    processes nor on what was loaded before. Epoch -1 stands for an untouched image. An index beyond the cases begins
    with the first again, which is then varied in another way.

    images, masks : (cases, height, width) uint8. rows : of those, the ones to load. augment : see `augmentation`.
    """

    def __init__(self, images: np.ndarray, masks: np.ndarray, rows: np.ndarray, seed: int, augment, normalisation: str):
        self.images, self.masks, self.rows = images, masks, rows
        self.seed, self.augment, self.normalisation = seed, augment, normalisation

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, int]:
        epoch, index = place
        again, place = divmod(index, len(self.rows))
        row = int(self.rows[place])
        image, mask = np.array(self.images[row]), np.array(self.masks[row])
        if epoch >= 0:
            self.augment.set_random_seed(seed_of(self.seed, epoch, row, *([again] if again else [])))
            varied = self.augment(image=image, mask=mask)
            image, mask = varied["image"], varied["mask"]
        return (
            torch.from_numpy(normalise(image, self.normalisation))[None],
            torch.from_numpy(mask),
            row,
        )


class Order(Sampler):
    """The order of cases in an epoch, a pure function of seed and epoch; yields (epoch, index).

    batch : cases of one step; those left over at the end of an epoch are not seen in it. Of several processes, each
        has its share of every batch: together they see the batches that one alone would. images : least images of an
        epoch: fewer cases are gone through again and again, each time in another order; index counts on beyond them.
    """

    def __init__(self, cases: int, seed: int, batch: int, rank: int = 0, processes: int = 1, images: int = 0):
        self.cases, self.seed, self.batch, self.rank, self.processes = cases, seed, batch, rank, processes
        self.images = max(images, cases)
        self.epoch = 0

    def __len__(self) -> int:
        return self.images // self.batch * (self.batch // self.processes)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of each epoch, after resuming too."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        draw, times = np.random.default_rng([self.seed, self.epoch]), -(-self.images // self.cases)
        order = np.concatenate([draw.permutation(self.cases) + again * self.cases for again in range(times)])
        whole = order[: self.images // self.batch * self.batch].reshape(
            -1, self.processes, self.batch // self.processes
        )
        return iter([(self.epoch, index) for index in whole[:, self.rank].ravel().tolist()])


def untouched(cases: int, batch: int, rank: int = 0, processes: int = 1) -> list[list[tuple[int, int]]]:
    """Batches of a process's share of all cases, none of them varied: as many batches for each process."""
    most = -(-cases // processes)
    parts = np.array_split(np.arange(rank, cases, processes), -(-most // batch))
    return [[(-1, index) for index in part.tolist()] for part in parts]


def loader(study: Study, cohort: Cohort, side: str, rank: int = 0, processes: int = 1) -> DataLoader:
    """Batches of one side of the split, or a process's share of them; shuffled and augmented for `train` only.

    Raises StudyError if there are too few cases to share.
    """
    from lumbar_utils.networks.augmentation import augmentation  # albumentations takes seconds to import

    images, masks = decode(cohort, study.height, study.width, study.cache)
    rows = np.flatnonzero(cohort.cases["split"] == side)
    train = side == "train"
    strength = study.augmentation if train else "none"
    parts = study.accumulate * processes
    step = min(study.batch_size, len(rows)) if train else study.batch_size
    if len(rows) < processes or step % parts:
        raise StudyError(
            f"{len(rows)} {side} cases cannot be shared by {processes} processes in {study.accumulate} parts each; "
            "lower devices, nodes or accumulate"
        )
    if train:
        sampler = Order(len(rows), study.seed, step, rank, processes, study.images_per_epoch)
        order = {"batch_size": step // parts, "sampler": sampler}
    else:
        order = {"batch_sampler": untouched(len(rows), max(2, step // parts), rank, processes)}
    processes_here = loading_processes(study)
    return DataLoader(
        Cases(images, masks, rows, study.seed, augmentation(strength, study.shift), study.normalisation),
        **order,
        num_workers=processes_here,
        persistent_workers=processes_here > 0,
        pin_memory=device_of(study) == "cuda",
    )
