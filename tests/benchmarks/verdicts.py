"""How often verdicts on claims change when every network is trained again, and how often a true order is found.

python tests/benchmarks/verdicts.py simulate
python tests/benchmarks/verdicts.py trainings RUNS    # studies that differ in seed and fold, six seeds or more

Two rules are compared: the study's own (three seeds or more, 99 % intervals over patients and seeds), and that of a
single run (one seed, 95 % intervals over patients alone). A *rerun* has the same patients and other seeds. *Flipped*:
from supported to contradicted or back. *Changed*: to any other verdict.
"""

import argparse
import dataclasses
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from lumbar_utils import records
from lumbar_utils.data import sources
from lumbar_utils.scores.evaluation import COLUMNS, Evaluation, evaluate
from lumbar_utils.scores.paper import CONFIDENCE, judge
from lumbar_utils.scores.statistics import interval_over_seeds, with_interval
from lumbar_utils.scores.summary import differences, summarise
from lumbar_utils.study import Study

DECIDED = ("supported", "contradicted")
GAPS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.10)  # true difference in F1 between two architectures
# standard deviations of the difference of two networks' F1: between patients, between seeds, and what is left
SPREAD = {"patients": 0.06, "seeds": 0.02, "rest": 0.05}


def sign_of(gains: np.ndarray, seeds: bool) -> int:
    """1, -1 or 0 (undecided), for the difference of two networks. gains : (seeds, patients)."""
    means = gains.mean(axis=0)
    confidence = CONFIDENCE if seeds else 0.95
    value, low, high = with_interval(lambda rows: means[rows].mean(-1), np.arange(len(means)), confidence)
    if seeds:
        low, high = interval_over_seeds(value, low, high, gains.mean(axis=1), confidence)
    return int(low > 0) - int(high < 0)


def simulate(patients: int, seeds: int, repetitions: int, rng: np.random.Generator) -> pd.DataFrame:
    """One row a true gap: shares of decided, wrongly decided, and of reruns whose verdict flipped or changed."""
    rows = []
    for gap in GAPS:
        signs = []
        for _ in range(repetitions):
            of_patient = rng.normal(0, SPREAD["patients"], patients)
            of_seed = rng.normal(0, SPREAD["seeds"], (2, seeds, 1))
            rest = rng.normal(0, SPREAD["rest"], (2, seeds, patients))
            signs.append([sign_of(gap + of_patient + run, seeds > 1) for run in of_seed + rest])
        first, again = np.array(signs).T
        wrong = (first < 0) if gap else (first != 0)
        row = {"patients": patients, "seeds": seeds, "true gap": gap, "wrong": wrong.mean()}
        row |= {"true side found": (first > 0).mean() if gap else np.nan}
        row |= {"flipped": (first * again < 0).mean(), "changed": (first != again).mean()}
        rows.append(row)
    return pd.DataFrame(rows)


def scores_of(runs: Path) -> tuple[Evaluation, pd.DataFrame]:
    """The scores of all studies in a folder as those of one grid; the table of its cases, with seed and fold."""
    parts, tables = [], []
    for file in sorted(runs.glob("*/study.json")):
        study = Study(**records.read_json(file)["settings"])
        cohort = sources.load(study)
        sides = pd.read_csv(file.with_name("split.csv"), dtype=str)
        cases = cohort.cases.merge(sides, on="patient").assign(seed=study.seed, fold=study.fold)
        folders = {record.parent.name: record.parent / "label_maps" for record in file.parent.glob("*/predict.json")}
        found = evaluate(dataclasses.replace(cohort, cases=cases), folders)
        parts.append({name: _of_seed(getattr(found, name), study.seed) for name in COLUMNS})
        tables.append(_of_seed(cases[cases["split"] == "test"], study.seed))
    rows = {name: pd.concat([part[name] for part in parts], ignore_index=True) for name in COLUMNS}
    return Evaluation(**rows, curves=pd.DataFrame(), reliability=pd.DataFrame()), pd.concat(tables, ignore_index=True)


def _of_seed(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    return table.assign(case=table["case"].astype(str) + f".seed{seed}")


def verdicts(found: Evaluation, cases: pd.DataFrame, over_seeds: bool) -> pd.Series:
    """Verdict of each testable claim on the runs of some seeds; with `over_seeds` by the study's own rule."""
    part = found.of_cases(cases["case"])
    rule = {"cases": cases, "confidence": CONFIDENCE} if over_seeds else {}
    gaps = differences(part, **rule)
    table = judge(summarise(part), gaps, "trainings", seeds=3, synthetic=False)
    return table[table["verdict"] != "not testable"].set_index(["claim", "place"])["verdict"]


def reruns(found: Evaluation, cases: pd.DataFrame, seeds: int, most: int = 60) -> pd.DataFrame:
    """Pairs of groups of so many seeds that share none, up to `most`: how many verdicts flipped, how many changed."""
    every = sorted(cases["seed"].unique())
    groups = list(combinations(every, seeds))
    judged = {}
    rows = []
    pairs = [pair for pair in combinations(groups, 2) if not set(pair[0]) & set(pair[1])]
    for pair in [pairs[place] for place in np.random.default_rng(0).permutation(len(pairs))[:most]]:
        for group in pair:
            if group not in judged:
                judged[group] = verdicts(found, cases[cases["seed"].isin(group)], seeds > 1)
        one, other = judged[pair[0]], judged[pair[1]]
        decided = one.isin(DECIDED)
        flipped = decided & other.isin(DECIDED) & (one != other)
        rows.append({
            "claims": len(one), "decided": decided.sum(), "flipped": flipped.sum(), "changed": (one != other).sum(),
            "decided, changed": (decided & (one != other)).sum(),
        })  # fmt: skip
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["simulate", "trainings"])
    parser.add_argument("runs", type=Path, nargs="?")
    parser.add_argument("--repetitions", type=int, default=1000)
    asked = parser.parse_args()
    if asked.what == "simulate":
        rng = np.random.default_rng(0)
        tables = [simulate(patients, seeds, asked.repetitions, rng) for patients in (25, 77) for seeds in (1, 3, 5)]
        print(pd.concat(tables).round(3).to_markdown(index=False))
        return
    found, cases = scores_of(asked.runs)
    for seeds in (1, 3, 5):
        if 2 * seeds <= cases["seed"].nunique():
            table = reruns(found, cases, seeds)
            print(f"{seeds} seeds, {len(table)} reruns, of {table['claims'].iloc[0]} claims on average:")
            print(table.mean().round(2).to_string(), end="\n\n")


if __name__ == "__main__":
    main()
