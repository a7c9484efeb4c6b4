"""Train/test split: always of whole patients, never of images."""

import math
from pathlib import Path

import numpy as np
import pandas as pd

from lumbar_utils import StudyError
from lumbar_utils.data.files import plain, read_table

SPLITS = ("train", "test", "validation")


def strata_of(cases: pd.DataFrame) -> pd.Series:
    """patient -> stratum: the contrasts, numbers of levels in view and subsets of a patient's images.

    cases : one row an image; of the columns contrast, levels and subset those are used that exist.
    """
    columns = [name for name in ("contrast", "levels", "subset") if name in cases]
    strata = pd.Series("", index=cases.index)
    if columns:
        strata = cases[columns].astype(str).fillna("unknown").agg(" ".join, axis=1)
    return strata.groupby(cases["patient"].astype(str)).agg(lambda values: " + ".join(sorted(set(values))))


def split_patients(strata: pd.Series, seed: int, train_fraction: float, test_fraction: float) -> pd.DataFrame:
    """Assign every patient to train, test or validation at random; the rest of the fractions is for validation.

    strata : patient -> stratum, each spread over the splits in proportion. At least three patients: no split is empty.
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
    return _assign(strata, seed, dict(zip(SPLITS, (train, test, validation), strict=True)))


def split_by_fold(strata: pd.Series, seed: int, folds: int, fold: int, validation_fraction: float) -> pd.DataFrame:
    """Cross-validation: the patients of one fold are tested; of the others a share of all is for validation.

    strata : patient -> stratum. fold : 0..folds-1. Over all folds every patient is tested exactly once.
    Returns one row a patient, sorted: patient, split.
    """
    patients = len(strata)
    if patients < folds:
        raise StudyError(f"{patients} patients cannot be split into {folds} folds; use {patients} folds or fewer")
    if patients - math.ceil(patients / folds) < 2:
        raise StudyError(
            f"{patients} patients in {folds} folds leave fewer than two to train and to validate on; use more patients"
        )
    sizes = {number: patients // folds + (number < patients % folds) for number in range(folds)}
    by_fold = _assign(strata, seed, sizes)
    others = strata[by_fold.loc[by_fold["split"] != fold, "patient"]]
    validation = min(max(1, round(validation_fraction * patients)), len(others) - 1)
    rest = _assign(others, seed + 1, {"train": len(others) - validation, "validation": validation})
    tested = by_fold[by_fold["split"] == fold].assign(split="test")
    return pd.concat([rest, tested]).sort_values("patient", ignore_index=True)


def _assign(strata: pd.Series, seed: int, sizes: dict) -> pd.DataFrame:
    """Assign patients to splits of the given sizes, like cards dealt in the order of strata, at random within one.

    The splits take turns as evenly as their sizes allow, so each gets its share of every stratum, give or take two.
    """
    rng = np.random.default_rng(seed)
    places = [(np.arange(size) + rng.random()) / max(size, 1) for size in sizes.values()]
    turns = np.repeat(np.array(list(sizes), dtype=object), list(sizes.values()))[np.argsort(np.concatenate(places))]
    shuffled = strata.sort_index().sample(frac=1, random_state=rng)
    order = shuffled.sort_values(kind="stable").index
    return pd.DataFrame({"patient": order, "split": turns}).sort_values("patient", ignore_index=True)


def refuse_leak(cases: pd.DataFrame, source: str | Path) -> None:
    """Raise StudyError if a patient is in two splits. cases : patient, split; source : for the error."""
    splits = cases.groupby("patient")["split"].unique()
    leaking = splits[splits.map(len) > 1]
    if len(leaking):
        raise StudyError(
            f"{source} puts patient {leaking.index[0]} on two sides: {', '.join(leaking.iloc[0])}; keep one"
        )


def read_rows(path: Path) -> pd.DataFrame:
    """The rows of a split.csv: patient, split; StudyError for a line that does not name both."""
    table = read_table(path, ("patient", "split"))[["patient", "split"]]
    for line, patient, split in table.itertuples():
        if not patient or split not in SPLITS:
            allowed = ", ".join(SPLITS)
            raise StudyError(
                f"{path} line {line} has patient {patient!r}, split {split!r}; give a name, and one of {allowed}"
            )
    return table.assign(patient=table["patient"].map(plain))


def read_split(path: Path, patients: pd.Series) -> pd.DataFrame:
    """The split.csv of a data set: patient, split; every patient once, in one split, and no split empty."""
    table = read_rows(path)
    refuse_leak(table, path)
    missing = set(patients.astype(str)) - set(table["patient"])
    if missing:
        raise StudyError(f"{path} leaves out {len(missing)} patients, first {min(missing)}; give each a split")
    table = table.drop_duplicates()
    table = table[table["patient"].isin(patients.astype(str))].sort_values("patient", ignore_index=True)
    empty = set(SPLITS) - set(table["split"])
    if empty:
        raise StudyError(f"{path} has no patient in {', '.join(sorted(empty))}; each side needs one or more")
    return table
