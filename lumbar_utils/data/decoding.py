"""Images and masks on the network's grid, decoded once and kept in a memory map."""

import contextlib
import dataclasses
import shutil
from pathlib import Path

import cv2
import numpy as np
from tqdm.auto import tqdm

from lumbar_utils import StudyError, freshness
from lumbar_utils.data.folder import Cohort
from lumbar_utils.records import atomic_folder

AIR = 0  # pads an image of another aspect ratio than the network's grid


@dataclasses.dataclass(frozen=True)
class Fit:
    """Placement of an image, scaled but not distorted, in the middle of the network's grid.

    grid : its height and width. inside : rows and columns of the grid that the image takes.
    """

    grid: tuple[int, int]
    inside: tuple[slice, slice]

    @classmethod
    def of(cls, shape: tuple[int, int], height: int, width: int) -> "Fit":
        """The largest placement of an image of `shape` in a grid of height x width."""
        scale = min(height / shape[0], width / shape[1])
        rows, columns = (max(1, round(side * scale)) for side in shape)
        top, left = (height - rows) // 2, (width - columns) // 2
        return cls((height, width), (slice(top, top + rows), slice(left, left + columns)))

    def into_grid(self, pixels: np.ndarray, interpolation: int) -> np.ndarray:
        """Scale `pixels` (height, width) into the grid, padded with AIR."""
        grid = np.full(self.grid, AIR, pixels.dtype)
        rows, columns = grid[self.inside].shape
        grid[self.inside] = cv2.resize(pixels, (columns, rows), interpolation=interpolation)
        return grid

    def out_of_grid(self, maps: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """Scale float maps (channels, grid height, grid width) back onto an image of `shape`."""
        return np.stack([cv2.resize(channel[self.inside], shape[::-1]) for channel in maps])


def decode(cohort: Cohort, height: int, width: int, cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images and label maps of a cohort on the network's grid, each (cases, height, width) uint8, memory-mapped.

    Decoded once and kept in `cache`. Raises StudyError for a file that cannot be read, a mask of another size
    than its image, or a label that the data set does not name.
    """
    made_from = freshness.made_from("decoded", cohort.fingerprint, cohort.cases["case"].tolist(), height, width)
    folder = cache / f"decoded-{made_from[:16]}"
    if maps := _mapped(folder):
        return maps
    shutil.rmtree(folder, ignore_errors=True)  # a part of it may be left
    with atomic_folder(folder) as temporary:
        _decode_into(temporary, cohort, height, width)
    return _mapped(folder)


def _mapped(folder: Path) -> tuple[np.ndarray, np.ndarray] | None:
    with contextlib.suppress(OSError, ValueError, EOFError):  # absent, or cut off
        return tuple(np.load(folder / name, mmap_mode="r") for name in ("images.npy", "masks.npy"))
    return None


def _decode_into(folder: Path, cohort: Cohort, height: int, width: int) -> None:
    """Write images.npy and masks.npy case by case, so that memory holds one case, however many there are."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(cohort.cases), height, width)}
    with (folder / "images.npy").open("wb") as images, (folder / "masks.npy").open("wb") as masks:
        for file in (images, masks):
            np.lib.format.write_array_header_1_0(file, header)
        rows = cohort.cases.iterrows()
        for _, case in tqdm(rows, total=len(cohort.cases), desc="decoding", unit="case", delay=2, mininterval=1):
            image, mask = cohort.image(case), cohort.mask(case)
            if image.shape != mask.shape:
                raise StudyError(
                    f"mask {case['mask']} is {mask.shape[1]}x{mask.shape[0]} but its image is "
                    f"{image.shape[1]}x{image.shape[0]}; export both from the same slice"
                )
            fit = Fit.of(image.shape, height, width)
            images.write(fit.into_grid(image, cv2.INTER_AREA).tobytes())
            masks.write(fit.into_grid(mask, cv2.INTER_NEAREST_EXACT).tobytes())
