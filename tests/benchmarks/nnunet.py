"""nnU-Net on the patients and folds of a grid: label maps that `run --add` takes as one more column.

    python tests/benchmarks/nnunet.py GRID WORK [--images 3240] [--folds 0 1 ...]

GRID is the folder of a grid of one seed, or of a study; WORK gets nnU-Net's own folders and `label_maps`, a PNG a test
case. Needs nnU-Net in the same environment, for this alone: `uv pip install nnunetv2`.
nnU-Net 2-D plans, preprocesses, augments, trains and predicts by its own rules, on images at the study's input size, as
the study's networks see them. The budget is the number of images seen in training; what it takes is printed. A fold's
test patients are nnU-Net's validation cases, which it does not learn from; the weights are those of the last step.
"""

import argparse
import json
import os
import time
from pathlib import Path

import cv2
import numpy as np

from lumbar_utils import LEVELS, records
from lumbar_utils.data.decoding import Fit, decode
from lumbar_utils.data.preparation import prepare
from lumbar_utils.study import Grid, Study, read_study

NUMBER, FOLDERS = 100, ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
STEPS_OF_AN_EPOCH = 27


def write_dataset(study: Study, work: Path) -> str:
    """The study's images as a data set of nnU-Net; returns its name."""
    cohort = prepare(study)
    images, masks = decode(cohort, study.height, study.width, study.cache)
    name = f"Dataset{NUMBER + study.fold}_{study.folder.name}"
    for part in ("imagesTr", "labelsTr"):
        (work / FOLDERS[0] / name / part).mkdir(parents=True, exist_ok=True)
    for case, image, mask in zip(cohort.cases["case"], images, masks, strict=True):
        cv2.imwrite(str(work / FOLDERS[0] / name / "imagesTr" / f"{case}_0000.png"), image)
        cv2.imwrite(str(work / FOLDERS[0] / name / "labelsTr" / f"{case}.png"), mask)
    labels = {"background": 0} | {level: LEVELS.index(level) + 1 for level in cohort.annotated}
    description = {
        "channel_names": {"0": "MR"}, "labels": labels, "numTraining": len(images), "file_ending": ".png",
    }  # fmt: skip
    records.write_json(work / FOLDERS[0] / name / "dataset.json", description)
    test = cohort.cases["split"] == "test"
    split = {"train": cohort.cases.loc[~test, "case"].tolist(), "val": cohort.cases.loc[test, "case"].tolist()}
    folder = work / FOLDERS[1] / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "splits_final.json").write_text(json.dumps([split]))
    return name


def train(name: str, images: int) -> Path:
    """Plan, preprocess, train on so many images and predict; returns the folder of predictions."""
    import torch
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api
    from nnunetv2.run.run_training import get_trainer_from_args

    number = int(name[len("Dataset") :].partition("_")[0])
    api.extract_fingerprints([number], num_processes=1)
    api.plan_experiments([number])
    api.preprocess([number], configurations=["2d"], num_processes=[1])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer = get_trainer_from_args(name, "2d", 0, device=device)
    trainer.initialize()
    trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = STEPS_OF_AN_EPOCH, 1
    trainer.num_epochs = max(1, round(images / trainer.batch_size / STEPS_OF_AN_EPOCH))
    print(
        f"{name}: {trainer.num_epochs} epochs of {STEPS_OF_AN_EPOCH} steps of {trainer.batch_size} images", flush=True
    )
    trainer.optimizer, trainer.lr_scheduler = trainer.configure_optimizers()  # for so many epochs
    trainer.run_training()
    trainer.perform_actual_validation(save_probabilities=True)
    return Path(trainer.output_folder) / "validation"


def bring_back(study: Study, predicted: Path, target: Path) -> None:
    """Write each test case's label map on the grid of its own image."""
    cohort = prepare(study)
    target.mkdir(parents=True, exist_ok=True)
    for _, case in cohort.cases[cohort.cases["split"] == "test"].iterrows():
        shape = cohort.image(case).shape
        maps = np.load(predicted / f"{case['case']}.npz")["probabilities"].reshape(-1, study.height, study.width)
        maps = Fit.of(shape, study.height, study.width).out_of_grid(maps.astype(np.float32), shape)
        values = [0, *(LEVELS.index(level) + 1 for level in cohort.annotated)]
        cv2.imwrite(str(target / f"{case['case']}.png"), np.array(values, np.uint8)[maps.argmax(axis=0)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=lambda path: Path(path).resolve())
    parser.add_argument("work", type=lambda path: Path(path).resolve())
    parser.add_argument("--images", type=int, default=3240)
    parser.add_argument("--folds", type=int, nargs="+")
    asked = parser.parse_args()
    os.environ |= {name: str(asked.work / name) for name in FOLDERS}
    os.environ |= {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1", "nnUNet_compile": "f"}
    made = read_study(asked.grid)
    studies = made.studies if isinstance(made, Grid) else [made]
    for study in studies:
        if asked.folds is None or study.fold in asked.folds:
            started = time.monotonic()
            predicted = train(write_dataset(study, asked.work), asked.images)
            bring_back(study, predicted, asked.work / "label_maps")
            print(f"fold {study.fold}: {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
