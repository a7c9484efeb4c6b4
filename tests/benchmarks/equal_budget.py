"""U-Net with the parameters, the arithmetic or the time of HRNet and of EfficientNet: what is left of the difference?

    python tests/benchmarks/equal_budget.py DATASET FOLDER [--patients N] [--size PIXELS] [--epochs N] [--seeds N ...]

DATASET is `phantom` or a folder in the form of data/README.md. FOLDER keeps every trained network, so that a second
call goes on where the first was, `equal_budget.csv` and `equal_budget.json` (machine and versions).
U-Net is the only one of the three with a knob for its width; so it is made as wide as it takes to meet the others:

as they come      the three networks as profile `quick` has them
equal parameters  U-Net of the width whose parameters come nearest to the reference's
equal operations  U-Net of the width whose multiply-adds come nearest
equal time        U-Net as it comes, for as many epochs as fit into those of the reference, by the median epoch of each

Columns: seconds are those of all epochs, validation included, and epoch_seconds their median; f1 is the study's, low
and high its 95 % interval over test patients; reference_f1 that of the network to be met. The defaults take some twelve
minutes of one core, too short for every network to learn all names: one seed of them decides nothing. Time is equal on
the machine that measures it; run it alone, on one thread (OMP_NUM_THREADS=1).
"""

import argparse
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from lumbar_utils import MODELS, records
from lumbar_utils.appendix.cost import cost, multiply_adds
from lumbar_utils.data.preparation import prepare
from lumbar_utils.networks.models import UNet
from lumbar_utils.networks.prediction import predict
from lumbar_utils.networks.training import fit
from lumbar_utils.scores.evaluation import evaluate
from lumbar_utils.scores.summary import summarise
from lumbar_utils.study import Study

WIDTHS = range(2, 65)  # channels of U-Net's first level


def study_of(asked: argparse.Namespace, seed: int, **changes) -> Study:
    settings = {"phantom_patients": asked.patients, "height": asked.size, "width": asked.size, "epochs": asked.epochs}
    kept = {"runs": asked.folder / "runs", "cache": asked.folder / "cache", "device": asked.device}
    return Study("quick", dataset=asked.dataset, seed=seed, **kept, **settings | changes)


def parameters(network: nn.Module) -> int:
    return sum(weights.numel() for weights in network.parameters())


def width_of(size: Callable[[nn.Module], int], wanted: int) -> int:
    """The width at which a U-Net's size, parameters or multiply-adds, comes nearest to the wanted one, as a ratio."""

    def distance(width: int) -> float:
        with torch.device("meta"):
            return abs(math.log(size(UNet(width).eval()) / wanted))

    return min(WIDTHS, key=distance)


def trained(study: Study, model: str) -> dict:
    """Train, predict and score: one row of the table, without its basis."""
    cohort = prepare(study)
    history = fit(study, cohort, model)
    found = summarise(evaluate(cohort, {model: predict(study, cohort, model)}), ["f1"]).iloc[0]
    spent = cost(study, cohort, model)
    return {
        "model": model, "unet_channels": study.unet_channels if model == "unet" else None,
        "parameters": spent["parameters"], "multiply_adds": spent["multiply_adds"], "epochs": spent["epochs"],
        "seconds": spent["training_seconds"], "epoch_seconds": history["seconds"].median(),
        "f1": found["value"], "low": found["low"], "high": found["high"],
    }  # fmt: skip


def met(asked: argparse.Namespace, reference: dict, own: dict) -> dict[str, dict]:
    """basis -> the settings with which U-Net meets the reference on it."""
    longer = round(own["epochs"] * reference["epoch_seconds"] / own["epoch_seconds"])
    arithmetic = partial(multiply_adds, height=asked.size, width=asked.size)
    return {
        "equal parameters": {"unet_channels": width_of(parameters, reference["parameters"])},
        "equal operations": {"unet_channels": width_of(arithmetic, reference["multiply_adds"])},
        "equal time": {"epochs": max(1, longer)},
    }


def compared(asked: argparse.Namespace, seed: int) -> Iterator[dict]:
    """The rows of one seed, each as soon as it is trained."""
    own = {}
    for model in MODELS:
        own[model] = trained(study_of(asked, seed), model)
        yield {"basis": "as they come", "reference": ""} | own[model]
    for model in [name for name in MODELS if name != "unet"]:
        for basis, changes in met(asked, own[model], own["unet"]).items():
            row = {"basis": basis, "reference": model} | trained(study_of(asked, seed, **changes), "unet")
            yield row | {"reference_f1": own[model]["f1"]}


def main(asked: argparse.Namespace) -> None:
    found = []
    for seed in asked.seeds:
        for row in compared(asked, seed):
            found.append({"seed": seed} | row)
            records.write_csv(asked.folder / "equal_budget.csv", pd.DataFrame(found))
    records.write_json(asked.folder / "equal_budget.json", {"asked": vars(asked), **records.provenance()})
    print(pd.DataFrame(found).round(4).to_string(index=False))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("folder", type=lambda path: Path(path).resolve())
    for option, default in (("patients", 160), ("size", 96), ("epochs", 15)):
        parser.add_argument(f"--{option}", type=int, default=default)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--device", default="auto")
    main(parser.parse_args())
