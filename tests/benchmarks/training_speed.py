"""Speed of training in images a second: the package beside a plain loop, the bare network and nnU-Net.

    python tests/benchmarks/training_speed.py DATASET FOLDER [--models ...] [--rounds N] [--nnunet PYTHON] [--levers]

DATASET is `phantom` or a folder in the form of data/README.md. FOLDER gets `training_speed.csv` (medians, least and
greatest of the rounds), `training_speed_rounds.csv` (every epoch) and `training_speed.json` (machine and versions).
The contenders, each on all training cases, on one grid and with one batch size, the networks those of profile `quick`:

ours      `lumbar_utils.networks.segmentation.train` through Lightning, with loading, augmentation and schedule
plain_N   files decoded at each access by N loader processes, float32, channels first, an ordinary loop
limit     the network of ours, in its precision and memory format, fed from tensors in memory; no augmentation
nnunet_N  nnU-Net's own trainer with N loader processes and a U-Net of as many parameters, in a process of its own

They take turns, an epoch each a round; a first round warms up. A ratio is taken within a round. Not counted: starting
of any process, validation, checkpoints. With --levers ours runs beside itself with one thing changed instead, written
to `training_speed_levers.csv`; `first_epoch_more_s` is then what torch.compile takes to compile. nnU-Net needs an
environment of its own: `uv venv nnunet`, `uv pip install --python nnunet/bin/python nnunetv2` and the torch and
torchvision of requirements.lock; PYTHON is its interpreter.
"""

import argparse
import dataclasses
from pathlib import Path

import pandas as pd
from training_contenders import Limit, NnUNet, Ours, Plain, circumstances, levers  # before torch

from lumbar_utils import MODELS, records
from lumbar_utils.data.folder import Cohort
from lumbar_utils.data.preparation import prepare
from lumbar_utils.study import Study

VALIDATION_CASES = 16  # they are computed, and not timed


def measure(contenders: dict[tuple[str, str], object], rounds: int) -> pd.DataFrame:
    """One row an epoch: model, contender, round (-1 warms up), seconds, images_per_second."""
    rows = []
    for number in range(-1, rounds):
        for (model, name), contender in contenders.items():
            seconds = contender.epoch()
            rows.append((model, name, number, round(seconds, 4), round(contender.images / seconds, 4)))
            print(f"round {number + 1} of {rounds}: {model} {name} {seconds:.2f} s", flush=True)
    return pd.DataFrame(rows, columns=["model", "contender", "round", "seconds", "images_per_second"])


def spread(rounds: pd.DataFrame, column: str, name: str) -> pd.DataFrame:
    """Median, least and greatest over the measured rounds, one row a model and contender, in the order of rounds."""
    grouped = rounds[rounds["round"] >= 0].groupby(["model", "contender"], sort=False)[column]
    return grouped.agg(**{name: "median", f"{name}_least": "min", f"{name}_greatest": "max"})


def summarise(rounds: pd.DataFrame, ratio: str) -> pd.DataFrame:
    """One row a model and contender: speed, its ratio to ours, and what the first epoch took beyond the median.

    ratio : `ours_over_it` or `it_over_ours`.
    """
    ours = rounds[rounds["contender"] == "ours"].drop(columns=["contender", "seconds"])
    rounds = rounds.merge(ours, on=["model", "round"], suffixes=("", "_ours"))
    share = rounds["images_per_second"] / rounds["images_per_second_ours"]
    rounds[ratio] = share if ratio == "it_over_ours" else 1 / share
    table = spread(rounds, "images_per_second", "images_per_s").join(spread(rounds, ratio, ratio))
    first = rounds[rounds["round"] == -1].set_index(["model", "contender"])["seconds"]
    return table.assign(first_epoch_more_s=first - spread(rounds, "seconds", "s")["s"]).round(3)


def few(cohort: Cohort, training_cases: int | None, validation_cases: int) -> Cohort:
    """The cohort with that many of its training cases (None: all), and of its validation cases, which take no part."""
    sides = cohort.cases.groupby("split")
    kept = [sides.get_group("train").head(training_cases or len(cohort.cases))]
    kept.append(sides.get_group("validation").head(validation_cases))
    return dataclasses.replace(cohort, cases=pd.concat(kept).reset_index(drop=True))


def contest(study: Study, cohort: Cohort, asked: argparse.Namespace) -> tuple[pd.DataFrame, dict]:
    """Rounds of ours, limit and plain loop of each model, and of nnU-Net beside them all; what nnU-Net tells."""
    found, others = {}, {}
    for model in asked.models:
        found[model, "ours"] = Ours(study, cohort, model)
        found[model, "limit"] = Limit(study, cohort, model)
        for workers in asked.plain_workers:
            found[model, f"plain_{workers}"] = Plain(study, cohort, model, workers, asked.rounds + 1)
    for workers in asked.nnunet_workers if asked.nnunet else ():
        name = f"nnunet_{workers}"
        others["all", name] = NnUNet(asked.nnunet, asked.folder / name, study, cohort, workers)
    rounds = measure(found | others, asked.rounds)
    shared = rounds["model"] == "all"
    rounds = pd.concat([rounds[~shared], *(rounds[shared].assign(model=model) for model in asked.models)])
    return rounds, {name: contender.found for (_, name), contender in others.items()}


def contest_of_levers(study: Study, cohort: Cohort, asked: argparse.Namespace) -> pd.DataFrame:
    """Rounds of ours as it is, and with each lever moved."""
    found = {}
    for model in asked.models:
        found[model, "ours"] = Ours(study, cohort, model)
        found |= {(model, name): Ours(study, cohort, model, lever) for name, lever in levers(study).items()}
    return measure(found, asked.rounds)


def conclusions(table: pd.DataFrame) -> str:
    """Ours against the faster plain loop, the limit and the faster nnU-Net."""
    lines = []
    for model, rows in table.groupby(level="model", sort=False):
        rows = rows.droplevel("model")
        for kind in ("plain", "limit", "nnunet"):
            speeds = rows["images_per_s"][rows.index.str.startswith(kind)]
            if len(speeds):
                best = rows.loc[speeds.idxmax()]
                least_to_greatest = f"{best['ours_over_it_least']:.2f}-{best['ours_over_it_greatest']:.2f}"
                lines.append(f"{model}: {best['ours_over_it']:.2f} ({least_to_greatest}) times {best.name}")
    return "\n".join(lines)


def main(asked: argparse.Namespace) -> None:
    study = Study(
        "quick", dataset=asked.dataset, height=asked.height, width=asked.width, batch_size=asked.batch, epochs=1,
        images_per_epoch=0, device=asked.device, runs=asked.folder / "runs", cache=asked.folder / "cache",
    )  # fmt: skip
    cohort = few(prepare(study), asked.cases, VALIDATION_CASES)
    if asked.levers:
        name, rounds, facts = "training_speed_levers", contest_of_levers(study, cohort, asked), {}
        table = summarise(rounds, "it_over_ours")
    else:
        name, (rounds, facts) = "training_speed", contest(study, cohort, asked)
        table = summarise(rounds, "ours_over_it")
    facts |= {"asked": vars(asked), **circumstances(study, cohort), **records.provenance()}
    records.write_csv(asked.folder / f"{name}_rounds.csv", rounds)
    records.write_csv(asked.folder / f"{name}.csv", table.reset_index())
    records.write_json(asked.folder / f"{name}.json", facts)
    print(circumstances(study, cohort), table.to_string(), sep="\n")
    if not asked.levers:
        print(conclusions(table))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("folder", type=lambda path: Path(path).resolve())
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    for option, default in (("rounds", 5), ("height", 192), ("width", 192), ("batch", 4), ("cases", None)):
        parser.add_argument(f"--{option}", type=int, default=default)
    parser.add_argument("--plain-workers", nargs="+", type=int, default=[0, 2])
    parser.add_argument("--nnunet", metavar="PYTHON", help="interpreter that has nnunetv2; else it is left out")
    parser.add_argument("--nnunet-workers", nargs="+", type=int, default=[2])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--levers", action="store_true")
    main(parser.parse_args())
