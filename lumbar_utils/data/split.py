"""Who is trained on, who is tested on: always whole patients, never images."""

from pathlib import Path

import numpy as np
import pandas as pd

from lumbar_utils import StudyError
from lumbar_utils.data.textfiles import plain, read_table

SPLITS = ("train", "test", "validation")


def strata_of(cases: pd.DataFrame) -> pd.Series:
    """patient -> what is known of a patient and should be alike on all sides: contrasts, levels in view, subset.

    cases : one row an image; of the columns contrast, levels and subset those are used that are there.
    """
    known = [name for name in ("contrast", "levels", "subset") if name in cases]
    described = (
        cases[known].astype(str).fillna("unknown").agg(" ".join, axis=1) if known else pd.Series("", index=cases.index)
    )
    return described.groupby(cases["patient"].astype(str)).agg(lambda values: " + ".join(sorted(set(values))))


def split_patients(strata: pd.Series, seed: int, train_fraction: float, test_fraction: float) -> pd.DataFrame:
    """Assign every patient to train, test or validation at random; the rest of the fractions validates.

    strata : patient -> stratum, each spread over the sides in proportion. At least three patients: each side gets one.
    Returns one row a patient, sorted: patient, split. 514 patients at 0.70 and 0.15 give 360, 77 and 77.
    """
    patients = len(strata)
    if patients < 3:
        raise StudyError(f"the data set has {patients} patients; a split needs three or more, one for each side")
    test = max(1, round(test_fraction * patients + 1e-9))  # a half rounds up, towards more to test on
    validation = max(1, round((1 - train_fraction - test_fraction) * patients - 1e-9))
    train = patients - test - validation
    if train < 1:
        raise StudyError(f"fractions leave none of {patients} patients to train on; raise train_fraction")
    return _deal(strata, seed, dict(zip(SPLITS, (train, test, validation), strict=True)))


def split_by_fold(strata: pd.Series, seed: int, folds: int, fold: int, validation_fraction: float) -> pd.DataFrame:
    """Cross-validation: the patients of one fold test; of the others a share of all validates, the rest trains.

    strata : patient -> stratum. fold : 0..folds-1. Over all folds every patient tests exactly once.
    Returns one row a patient, sorted: patient, split.
    """
    patients = len(strata)
    if patients < max(3, folds):
        raise StudyError(
            f"{patients} patients cannot be split into {folds} folds; use {max(2, patients)} folds or fewer"
        )
    sizes = {number: patients // folds + (number < patients % folds) for number in range(folds)}
    dealt = _deal(strata, seed, sizes)
    others = strata[dealt.loc[dealt["split"] != fold, "patient"]]
    validation = min(max(1, round(validation_fraction * patients)), len(others) - 1)
    rest = _deal(others, seed + 1, {"train": len(others) - validation, "validation": validation})
    tested = dealt[dealt["split"] == fold].assign(split="test")
    return pd.concat([rest, tested]).sort_values("patient", ignore_index=True)


def _deal(strata: pd.Series, seed: int, sizes: dict) -> pd.DataFrame:
    """Deal patients out to sides of the given sizes, as cards are: in the order of their strata, at random within one.

    The sides take turns as evenly as their sizes allow, so each gets its share of every stratum, give or take two.
    """
    rng = np.random.default_rng(seed)
    places = [(np.arange(size) + rng.random()) / max(size, 1) for size in sizes.values()]
    turns = np.repeat(np.array(list(sizes), dtype=object), list(sizes.values()))[np.argsort(np.concatenate(places))]
    shuffled = strata.sort_index().sample(frac=1, random_state=rng)
    order = shuffled.sort_values(kind="stable").index
    return pd.DataFrame({"patient": order, "split": turns}).sort_values("patient", ignore_index=True)


def guard(cases: pd.DataFrame, source: str | Path) -> None:
    """Raise StudyError if a patient is on two sides. cases : patient, split; source : where they are from."""
    sides = cases.groupby("patient")["split"].unique()
    torn = sides[sides.map(len) > 1]
    if len(torn):
        raise StudyError(f"{source} puts patient {torn.index[0]} on two sides: {', '.join(torn.iloc[0])}; keep one")


def read_sides(path: Path) -> pd.DataFrame:
    """What a split.csv says, one row a line: patient, split; StudyError for a line that does not name both."""
    table = read_table(path, ("patient", "split"))[["patient", "split"]]
    for line, patient, side in table.itertuples():
        if not patient:
            raise StudyError(f"{path} line {line} names no patient; fill it in")
        if side not in SPLITS:
            raise StudyError(f"{path} line {line} has split {side!r}; allowed are {', '.join(SPLITS)}")
    return table.assign(patient=table["patient"].map(plain))


def read_split(path: Path, patients: pd.Series) -> pd.DataFrame:
    """A split that a data set brings: split.csv with patient, split; every patient once, on one side, no side empty."""
    table = read_sides(path)
    guard(table, path)
    missing = set(patients.astype(str)) - set(table["patient"])
    if missing:
        raise StudyError(f"{path} leaves out {len(missing)} patients, first {min(missing)}; give each a split")
    table = table.drop_duplicates()
    table = table[table["patient"].isin(patients.astype(str))].sort_values("patient", ignore_index=True)
    empty = set(SPLITS) - set(table["split"])
    if empty:
        raise StudyError(f"{path} has no patient in {', '.join(sorted(empty))}; each side needs one or more")
    return table
