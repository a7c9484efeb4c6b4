"""Speed of nnU-Net's own 2-D trainer on given cases, grid and batch; training_speed.py calls it.

    PYTHON tests/benchmarks/nnunet_speed.py FOLDER [--epochs N] [--batch N] [--channels N] [--workers N] [--device cpu]

PYTHON is an interpreter of a virtual environment of its own (`uv venv nnunet; uv pip install nnunetv2`), since nnU-Net
is no part of the study. FOLDER holds cases.npz: images and masks, (cases, height, width) uint8, the masks 0 to 6; the
rest of it is nnU-Net's. The plan is nnU-Net's but for grid, batch and network: five stages, two convolutions each.
All else is as it comes: augmentation, deep supervision, optimiser, loss. One epoch warms up; the last line printed is
JSON: seconds of each epoch after it, images an epoch, parameters, versions.
"""

import argparse
import importlib.metadata
import json
import os
import time
from pathlib import Path

import numpy as np
import torch

NUMBER, NAME = 1, "Dataset001_speed"


def write_raw(folder: Path) -> None:
    """The cases as nnU-Net wants them: one PNG an image and a mask, and dataset.json."""
    from skimage import io

    raw = folder / "raw" / NAME
    with np.load(folder / "cases.npz") as cases:
        images, masks = cases["images"], cases["masks"]
    for part, pixels, ending in (("imagesTr", images, "_0000"), ("labelsTr", masks, "")):
        (raw / part).mkdir(parents=True, exist_ok=True)
        for number, one in enumerate(pixels):
            io.imsave(raw / part / f"case{number:05d}{ending}.png", one, check_contrast=False)
    levels = ("background", "L1", "L2", "L3", "L4", "L5", "S1")
    description = {
        "channel_names": {"0": "MRI"}, "labels": {level: value for value, level in enumerate(levels)},
        "numTraining": len(images), "file_ending": ".png", "overwrite_image_reader_writer": "NaturalImage2DIO",
    }  # fmt: skip
    (raw / "dataset.json").write_text(json.dumps(description))


def prepare(folder: Path, batch: int, channels: int) -> None:
    """Fingerprint, plan and preprocess by nnU-Net's own functions; the plan's grid, batch and network are set."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprint_dataset,
        plan_experiment_dataset,
        preprocess_dataset,
    )

    write_raw(folder)
    extract_fingerprint_dataset(NUMBER, num_processes=1, show_progress_bar=False)
    plan_experiment_dataset(NUMBER)
    file = folder / "preprocessed" / NAME / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    with np.load(folder / "cases.npz") as cases:
        grid = cases["images"].shape[1:]
    flat = plans["configurations"]["2d"]
    flat["patch_size"], flat["batch_size"] = list(grid), batch
    flat["architecture"]["arch_kwargs"].update(
        n_stages=5, features_per_stage=[channels * 2**stage for stage in range(5)], kernel_sizes=[[3, 3]] * 5,
        strides=[[1, 1]] + [[2, 2]] * 4, n_conv_per_stage=[2] * 5, n_conv_per_stage_decoder=[2] * 4,
    )  # fmt: skip
    file.write_text(json.dumps(plans, indent=2))
    preprocess_dataset(NUMBER, configurations=("2d",), num_processes=(1,), show_progress_bar=False)


def trainer_of(folder: Path, device: str):
    """nnUNetTrainer on all cases, its loaders started."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    plans = json.loads((folder / "preprocessed" / NAME / "nnUNetPlans.json").read_text())
    description = json.loads((folder / "raw" / NAME / "dataset.json").read_text())
    trainer = nnUNetTrainer(plans | {"continue_training": False}, "2d", "all", description, torch.device(device))
    trainer.num_iterations_per_epoch = description["numTraining"] // trainer.configuration_manager.batch_size
    trainer.on_train_start()
    return trainer


def epoch(trainer) -> float:
    """Seconds of the training half of nnUNetTrainer.run_training's epoch."""
    started = time.perf_counter()
    trainer.on_train_epoch_start()
    losses = [trainer.train_step(next(trainer.dataloader_train)) for _ in range(trainer.num_iterations_per_epoch)]
    trainer.on_train_epoch_end(losses)  # each step has waited for its loss, so the device has caught up
    seconds = time.perf_counter() - started
    trainer.current_epoch += 1
    return seconds


def finish(trainer) -> None:
    """End the loaders' processes, where there are any."""
    for loader in (trainer.dataloader_train, trainer.dataloader_val):
        if hasattr(loader, "_finish"):
            loader._finish()


def main(folder: Path, epochs: int, batch: int, channels: int, workers: int, device: str) -> None:
    folders = {f"nnUNet_{part}": str(folder / part) for part in ("raw", "preprocessed", "results")}
    os.environ.update(folders | {"nnUNet_n_proc_DA": str(workers)})
    done = folder / "preprocessed" / "done"
    if not done.exists():
        prepare(folder, batch, channels)
        done.touch()
    trainer = trainer_of(folder, device)
    epoch(trainer)
    seconds = [epoch(trainer) for _ in range(epochs)]
    finish(trainer)
    found = {
        "seconds": seconds, "images": trainer.num_iterations_per_epoch * batch,
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
        "versions": {name: importlib.metadata.version(name) for name in ("nnunetv2", "torch")},
    }  # fmt: skip
    print("\n" + json.dumps(found), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=lambda path: Path(path).resolve())
    for name, default in (("epochs", 1), ("batch", 4), ("channels", 16), ("workers", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    main(**vars(parser.parse_args()))
