"""Who is trained on, who is tested on: always whole patients, never images."""

from pathlib import Path

import numpy as np
import pandas as pd

from lumbar_utils import StudyError

SPLITS = ("train", "test", "validation")


def split_patients(patients: pd.Series, seed: int, train_fraction: float, test_fraction: float) -> pd.DataFrame:
    """Assign every patient to train, test or validation at random; the rest of the fractions validates.

    patients : names, repeated or not. At least three different ones: each side gets one or more.
    Returns one row a patient, sorted: patient, split. 514 patients at 0.70 and 0.15 give 360, 77 and 77.
    """
    names = np.unique(patients.to_numpy(dtype=str))
    if len(names) < 3:
        raise StudyError(f"the data set has {len(names)} patients; a split needs three or more, one for each side")
    test = max(1, round(test_fraction * len(names) + 1e-9))  # a half rounds up, towards more to test on
    validation = max(1, round((1 - train_fraction - test_fraction) * len(names) - 1e-9))
    train = len(names) - test - validation
    if train < 1:
        raise StudyError(f"fractions leave none of {len(names)} patients to train on; raise train_fraction")
    order = np.random.default_rng(seed).permutation(len(names))
    sides = np.repeat(SPLITS, [train, test, validation])
    return pd.DataFrame({"patient": names[order], "split": sides}).sort_values("patient", ignore_index=True)


def read_split(path: Path, patients: pd.Series) -> pd.DataFrame:
    """A split that a data set brings: split.csv with patient, split; every patient once, on one side, no side empty."""
    table = pd.read_csv(path, dtype=str)
    if not {"patient", "split"} <= set(table):
        raise StudyError(f"{path} must have the columns patient, split; it has {', '.join(table)}")
    strange = set(table["split"].dropna()) - set(SPLITS)
    if strange or table["split"].isna().any():
        raise StudyError(f"{path} has split {min(strange, default='(empty)')!r}; allowed are {', '.join(SPLITS)}")
    sides = table.groupby("patient")["split"].unique()
    torn = sides[sides.map(len) > 1]
    if len(torn):
        raise StudyError(f"{path} puts patient {torn.index[0]} on two sides: {', '.join(torn.iloc[0])}; keep one")
    missing = set(patients.astype(str)) - set(table["patient"])
    if missing:
        raise StudyError(f"{path} leaves out {len(missing)} patients, first {min(missing)}; give each a split")
    table = table[["patient", "split"]].drop_duplicates()
    table = table[table["patient"].isin(patients.astype(str))].sort_values("patient", ignore_index=True)
    empty = set(SPLITS) - set(table["split"])
    if empty:
        raise StudyError(f"{path} has no patient in {', '.join(sorted(empty))}; each side needs one or more")
    return table
