"""Patients stay on one side."""

import pandas as pd
import pytest

from lumbar_utils import StudyError
from lumbar_utils.split import read_split, split_patients


def names(count):
    return pd.Series([f"p{number:03}" for number in range(count)])


def sizes(table):
    return table["split"].value_counts().to_dict()


@pytest.mark.parametrize(
    "patients, train, test, validation",
    [(514, 360, 77, 77), (30, 21, 5, 4), (3, 1, 1, 1), (100, 70, 15, 15)],
)
def test_the_paper_s_shares_of_patients(patients, train, test, validation):
    table = split_patients(names(patients), 0, 0.70, 0.15)
    assert sizes(table) == {"train": train, "test": test, "validation": validation}


def test_a_patient_with_many_images_is_on_one_side():
    table = split_patients(pd.concat([names(20)] * 9), 0, 0.70, 0.15)
    assert table["patient"].tolist() == names(20).tolist()


def test_the_seed_decides_and_the_order_of_the_table_does_not():
    first = split_patients(names(50), 1, 0.70, 0.15)
    assert first.equals(split_patients(names(50).sample(frac=1, random_state=0), 1, 0.70, 0.15))
    assert not first.equals(split_patients(names(50), 2, 0.70, 0.15))


def test_fewer_than_three_patients_are_refused():
    with pytest.raises(StudyError, match="has 2 patients; a split needs three or more"):
        split_patients(names(2), 0, 0.70, 0.15)


def given(tmp_path, rows):
    path = tmp_path / "split.csv"
    pd.DataFrame(rows, columns=["patient", "split"]).to_csv(path, index=False)
    return path


def test_a_split_that_comes_with_the_data_is_used(tmp_path):
    rows = [("p000", "test"), ("p001", "train"), ("p002", "validation"), ("elsewhere", "train")]
    table = read_split(given(tmp_path, rows), names(3))
    assert list(table.itertuples(index=False, name=None)) == rows[:3]


@pytest.mark.parametrize(
    "rows, message",
    [
        ([("p000", "train"), ("p000", "test"), ("p001", "validation")], "patient p000 on two sides: train, test"),
        ([("p000", "train"), ("p001", "val")], "split 'val'; allowed are train, test, validation"),
        ([("p000", "train"), ("p001", "test")], "leaves out 1 patients, first p002"),
        ([("p000", "train"), ("p001", "test"), ("p002", "test")], "no patient in validation"),
    ],
)
def test_a_split_that_would_leak_or_lack_is_refused(tmp_path, rows, message):
    with pytest.raises(StudyError, match=message):
        read_split(given(tmp_path, rows), names(3))
