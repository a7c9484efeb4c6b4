"""What training_speed.py lets compete: each contender trains for one epoch and tells its seconds.

What touches the package's way of training is in Ours, Timed, Limit and levers alone.
"""

import contextlib
import dataclasses
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

from lumbar_utils import LEVELS  # before torch, since it says how long the threads of OpenMP spin

# isort: split
import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from lumbar_utils.data.decoding import Fit, decode
from lumbar_utils.data.folder import Cohort
from lumbar_utils.machine import device_of, precision_of
from lumbar_utils.networks import segmentation
from lumbar_utils.networks.augmentation import augmentation
from lumbar_utils.networks.dataset import NOT_AUGMENTED, loader
from lumbar_utils.networks.models import build, network_of
from lumbar_utils.study import Study


def clock() -> float:
    """Seconds, once the accelerator has done all that it was given."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()


def images_of(study: Study, cohort: Cohort, least: int = 0) -> int:
    """Images in the whole batches of an epoch, of so many at least, or in its only batch."""
    cases = max(least, int((cohort.cases["split"] == "train").sum()))
    return cases // study.batch_size * study.batch_size or cases


def circumstances(study: Study, cohort: Cohort) -> dict:
    """What a speed holds for, beside the machine."""
    return {
        "cohort": cohort.name, "images an epoch": images_of(study, cohort), "device": device_of(study),
        "precision": precision_of(study), "threads": torch.get_num_threads(),
    }  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Lever:
    """What is changed in ours; as it stands here, nothing."""

    settings: dict = dataclasses.field(default_factory=dict)
    network: Callable[[nn.Module], nn.Module] = lambda network: network
    loader: Callable = lambda made, cohort: made
    fused: bool = False
    threads: int | None = None


class Timed(segmentation.Segmentation):
    """The package's module with a clock, which stops before validation."""

    fused = False

    def on_train_epoch_start(self):
        self.started_at = clock()
        super().on_train_epoch_start()

    def on_validation_start(self):
        self.seconds = clock() - self.started_at

    def configure_optimizers(self):
        made = super().configure_optimizers()
        if self.fused:
            for group in made["optimizer"].param_groups:
                group.update(fused=True, foreach=False)
        return made


class Ours:
    """Training by the package, one epoch at a time, with at most one lever moved.

    The optimiser starts anew each epoch, and its schedule is that of one epoch.
    """

    def __init__(self, study: Study, cohort: Cohort, model: str, lever: Lever | None = None):
        self.lever = lever or Lever()
        self.study = Study(**study.settings | self.lever.settings)
        self.module = Timed(self.lever.network(network_of(self.study, model)), self.study, cohort, model, {})
        self.module.fused = self.lever.fused
        self.images = images_of(self.study, cohort, self.study.images_per_epoch)

    def epoch(self) -> float:
        with mock.patch.object(segmentation, "loader", self._loader), threads(self.lever.threads):
            segmentation.train(self.module)
        return self.module.seconds

    def _loader(self, study: Study, cohort: Cohort, side: str, *share: int):
        made = loader(study, cohort, side, *share)
        return self.lever.loader(made, cohort) if side == "train" else made


@contextlib.contextmanager
def threads(number: int | None):
    """Layers computed by that many threads; None: by as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    yield
    torch.set_num_threads(before)


class Limit:
    """The same network, loss, precision and memory format with nothing around it.

    deterministic : with layers that give the same bits each time, as ours has them.
    """

    def __init__(self, study: Study, cohort: Cohort, model: str, deterministic: bool = False):
        self.deterministic = deterministic
        self.device, self.precision = device_of(study), precision_of(study)
        self.module = segmentation.Segmentation(network_of(study, model), study, cohort, model, {}).to(self.device)
        self.optimizer, _ = segmentation.optimizer_and_schedule(study, self.module.parameters(), 2)
        self.scaler = torch.amp.GradScaler(self.device, enabled=self.precision == "16-mixed")
        self.images = images_of(study, cohort)
        cases = loader(study, cohort, "train").dataset
        loaded = [cases[NOT_AUGMENTED, index][:2] for index in range(self.images)]
        images, masks = (torch.stack(part).to(self.device) for part in zip(*loaded, strict=True))
        self.batches = list(zip(images.split(study.batch_size), masks.split(study.batch_size), strict=True))

    def epoch(self) -> float:
        torch.use_deterministic_algorithms(self.deterministic, warn_only=True)
        torch.backends.cudnn.deterministic = self.deterministic
        self.module.train()
        dtype = torch.float16 if self.precision == "16-mixed" else torch.bfloat16
        started = clock()
        for images, masks in self.batches:
            with torch.autocast(self.device, dtype, enabled=self.precision != "32-true"):
                loss = self.module.loss(self.module.network(images), masks)
            self.optimizer.zero_grad()
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return clock() - started


class PlainCases(Dataset):
    """Files read, decoded, resized, augmented and normalised at each access."""

    def __init__(self, study: Study, cohort: Cohort):
        train = cohort.cases[cohort.cases["split"] == "train"]
        self.files = [(str(cohort.folder / image), str(cohort.folder / mask)) for image, mask in
                      zip(train["image"], train["mask"], strict=True)]  # fmt: skip
        self.size, self.augment = (study.width, study.height), augmentation(study.augmentation)
        self.values = np.zeros(256, np.uint8)
        for value, name in cohort.labels.items():
            self.values[value] = LEVELS.index(name) + 1 if name in LEVELS else 0

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = cv2.imread(self.files[index][0], cv2.IMREAD_GRAYSCALE)
        mask = self.values[cv2.imread(self.files[index][1], cv2.IMREAD_UNCHANGED)]
        image = cv2.resize(image, self.size, interpolation=cv2.INTER_AREA)
        mask = cv2.resize(mask, self.size, interpolation=cv2.INTER_NEAREST)
        varied = self.augment(image=image, mask=mask)
        pixels = varied["image"].astype(np.float32)
        pixels = (pixels - pixels.mean()) / (pixels.std() + 1e-6)
        return torch.from_numpy(pixels)[None], torch.from_numpy(varied["mask"].astype(np.int64))


def plain_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """(1 - soft Dice of the foreground, pooled over the batch) + cross-entropy, as the package's."""
    probabilities = logits.softmax(dim=1)
    truth = F.one_hot(masks, logits.shape[1]).permute(0, 3, 1, 2).float()
    overlap, size = (probabilities * truth).sum((0, 2, 3)), (probabilities + truth).sum((0, 2, 3))
    return 1 - ((2 * overlap + 1) / (size + 1))[1:].mean() + F.cross_entropy(logits, masks)


class Plain:
    """The training loop that people write; its loader processes stay from epoch to epoch."""

    def __init__(self, study: Study, cohort: Cohort, model: str, workers: int, epochs: int):
        self.device = device_of(study)
        chosen = {name: getattr(study, name) for name in ("unet_channels", "hrnet", "efficientnet")}
        self.network = build(model, **chosen).to(self.device)
        self.loader = DataLoader(
            PlainCases(study, cohort), study.batch_size, shuffle=True, drop_last=True, num_workers=workers,
            persistent_workers=workers > 0, pin_memory=self.device == "cuda",
        )  # fmt: skip
        self.optimizer = torch.optim.AdamW(self.network.parameters(), study.learning_rate, weight_decay=1e-2)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, study.learning_rate, total_steps=max(2, epochs * len(self.loader))
        )
        self.images = images_of(study, cohort)

    def epoch(self) -> float:
        torch.use_deterministic_algorithms(False)
        started, total = clock(), 0.0
        self.network.train()
        for images, masks in self.loader:
            images, masks = images.to(self.device, non_blocking=True), masks.to(self.device, non_blocking=True)
            self.optimizer.zero_grad()
            loss = plain_loss(self.network(images), masks)
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            total += loss.item()
        return clock() - started


class NnUNet:
    """nnU-Net in its own environment; a new process each round, which warms up for an epoch before it is timed."""

    def __init__(self, python: str, folder: Path, study: Study, cohort: Cohort, workers: int):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        rows = np.flatnonzero(cohort.cases["split"] == "train")
        images, masks = decode(cohort, study.height, study.width, study.cache)
        np.savez(folder / "cases.npz", images=images[rows], masks=masks[rows])
        settings = {"batch": study.batch_size, "channels": study.unet_channels, "workers": workers}
        self.command = [python, str(Path(__file__).with_name("nnunet_speed.py")), str(folder)]
        self.command += [f"--{name}={value}" for name, value in settings.items()]
        self.command += [f"--device={device_of(study)}"]
        self.images = images_of(study, cohort)

    def epoch(self) -> float:
        printed = subprocess.run(self.command, check=True, stdout=subprocess.PIPE, text=True).stdout
        self.found = json.loads(printed.splitlines()[-1])
        return self.found["seconds"][0]


class FromFiles:
    """Stands in for the decoded memory map, and decodes a file at each access."""

    def __init__(self, read: Callable, cohort: Cohort, grid: tuple[int, int], interpolation: int):
        self.read, self.cohort, self.grid, self.interpolation = read, cohort, grid, interpolation

    def __getitem__(self, row: int) -> np.ndarray:
        pixels = self.read(self.cohort.cases.iloc[row])
        return Fit.of(pixels.shape, *self.grid).into_grid(pixels, self.interpolation)


def undecoded(made: DataLoader, cohort: Cohort) -> DataLoader:
    cases = made.dataset
    grid = cases.images.shape[1:]
    cases.images = FromFiles(cohort.image, cohort, grid, cv2.INTER_AREA)
    cases.masks = FromFiles(cohort.mask, cohort, grid, cv2.INTER_NEAREST_EXACT)
    return made


def unpinned(made: DataLoader, cohort: Cohort) -> DataLoader:
    made.pin_memory = False
    return made


def resident(made: DataLoader, cohort: Cohort) -> DataLoader:
    """The batches of one epoch, augmented once and kept on the GPU."""
    return DataLoader([[part.to("cuda") for part in batch] for batch in made], batch_size=None)


class Augmenting(nn.Module):
    """A network that turns, scales, brightens and noises its images itself in training: for speed, not for use.

    Label maps are left as they are, so nothing can be learnt.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(self.varied(images) if self.training else images)

    def varied(self, images: torch.Tensor) -> torch.Tensor:
        angle, scale = (torch.rand(2, len(images), device=images.device) - 0.5) * 0.3
        cos, sin, zero = (1 + scale) * angle.cos(), (1 + scale) * angle.sin(), torch.zeros_like(angle)
        matrix = torch.stack([cos, -sin, zero, sin, cos, zero], 1).view(-1, 2, 3)
        grid = F.affine_grid(matrix, images.shape, align_corners=False)
        turned = F.grid_sample(images, grid, align_corners=False)
        return turned * (1 + scale.view(-1, 1, 1, 1)) + 0.05 * torch.randn_like(images)


def levers(study: Study) -> dict[str, Lever]:
    """Every lever, moved to where ours has it not."""
    single = precision_of(study) == "32-true"
    found = {
        "PNG decoded at each access": Lever(loader=undecoded),
        "channels first": Lever(network=lambda network: network.to(memory_format=torch.contiguous_format)),
        "bf16" if single else "float32": Lever({"precision": "bf16" if single else "32"}),
        "torch.compile": Lever(network=partial(torch.compile, dynamic=False)),
        "fused AdamW": Lever(fused=True),
        "batch of 8": Lever({"batch_size": 8}),
        "batch of 16": Lever({"batch_size": 16}),
        **{f"OpenMP threads: {n}": Lever(threads=n) for n in (1, 2) if n != torch.get_num_threads()},
        "one loader process": Lever({"workers": 1}),
        "no augmentation": Lever({"augmentation": "none"}),
    }
    if device_of(study) == "cuda":
        del found["one loader process"]
        found |= {
            "loading in the main process": Lever({"workers": 0}),
            "4 loader processes": Lever({"workers": 4}),
            "memory not pinned": Lever(loader=unpinned),
            "data on the GPU": Lever(loader=resident),
            "augmentation on the GPU": Lever({"augmentation": "none"}, network=Augmenting),
        }
    elif not any(map(shutil.which, ("g++", "c++", "clang++"))):
        print("no C++ compiler here: torch.compile is left out")
        del found["torch.compile"]
    return found
