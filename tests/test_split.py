"""Patients stay on one side."""

import dataclasses
import math

import pandas as pd
import pytest
from hypothesis import assume, settings
from hypothesis import given as for_all
from hypothesis import strategies as some

from lumbar_utils import StudyError
from lumbar_utils.data import folder
from lumbar_utils.data.split import read_split, split_by_fold, split_patients, strata_of


def names(count):
    return pd.Series([f"p{number:03}" for number in range(count)])


def alike(count):
    """That many patients of whom nothing is known."""
    return strata_of(pd.DataFrame({"patient": names(count)}))


def sizes(table):
    return table["split"].value_counts().to_dict()


@pytest.mark.parametrize(
    "patients, train, test, validation",
    [(514, 360, 77, 77), (30, 21, 5, 4), (3, 1, 1, 1), (100, 70, 15, 15)],
)
def test_the_paper_s_shares_of_patients(patients, train, test, validation):
    table = split_patients(alike(patients), 0, 0.70, 0.15)
    assert sizes(table) == {"train": train, "test": test, "validation": validation}


def test_a_patient_with_many_images_is_one_patient():
    strata = strata_of(pd.DataFrame({"patient": pd.concat([names(20)] * 9)}))
    assert split_patients(strata, 0, 0.70, 0.15)["patient"].tolist() == names(20).tolist()


def test_the_seed_decides_and_the_order_of_the_table_does_not():
    first = split_patients(alike(50), 1, 0.70, 0.15)
    assert first.equals(split_patients(alike(50).sample(frac=1, random_state=0), 1, 0.70, 0.15))
    assert not first.equals(split_patients(alike(50), 2, 0.70, 0.15))


def test_fewer_than_three_patients_are_refused():
    with pytest.raises(StudyError, match="has 2 patients; a split needs three or more"):
        split_patients(alike(2), 0, 0.70, 0.15)


def test_more_folds_than_patients_are_refused():
    with pytest.raises(StudyError, match="4 patients cannot be split into 5 folds; use 4 folds or fewer"):
        split_by_fold(alike(4), 0, 5, 0, 0.15)


def test_a_patient_of_unknown_contrast_has_a_stratum_too():
    cases = pd.DataFrame({"patient": ["a", "b"], "contrast": ["T1", None]})
    assert strata_of(cases).to_dict() == {"a": "T1", "b": "unknown"}


def test_what_is_known_of_a_patient_is_one_stratum_over_all_of_the_images():
    cases = pd.DataFrame({"patient": ["a", "a", "b"], "contrast": ["T2", "T1", "T1"], "levels": [6, 6, 5]})
    assert strata_of(cases).to_dict() == {"a": "T1 6 + T2 6", "b": "T1 5"}


known = some.lists(some.sampled_from(["T1", "T2", "T1 + T2"]), min_size=3, max_size=120)


@settings(deadline=None)
@for_all(kinds=known, seed=some.integers(0, 2**32 - 1), test=some.floats(0.05, 0.45))
def test_whoever_is_split_is_on_one_side_and_every_side_has_its_share_of_each_stratum(kinds, seed, test):
    strata = pd.Series(kinds, index=names(len(kinds)))
    table = split_patients(strata, seed, 0.5, test)
    assert sorted(table["patient"]) == sorted(strata.index)
    assert set(table["split"]) == {"train", "test", "validation"}
    counts = pd.crosstab(table["patient"].map(strata), table["split"])
    expected = counts.sum(axis=1).to_numpy()[:, None] * counts.sum().to_numpy() / len(strata)
    assert (abs(counts - expected) < 2.5).all(axis=None)


@pytest.mark.parametrize(("patients", "folds"), [(2, 2), (3, 2)])
def test_folds_that_leave_nobody_to_train_or_validate_on_are_refused(patients, folds):
    with pytest.raises(StudyError, match=f"{patients} patients in {folds} folds leave fewer than two to train"):
        split_by_fold(pd.Series("", index=names(patients)), 0, folds, 0, 0.15)


@settings(deadline=None)
@for_all(kinds=known, seed=some.integers(0, 2**32 - 1), folds=some.integers(2, 5))
def test_over_all_folds_every_patient_tests_once_and_trains_nowhere_near(kinds, seed, folds):
    strata = pd.Series(kinds, index=names(len(kinds)))
    assume(len(strata) >= folds and len(strata) - math.ceil(len(strata) / folds) >= 2)
    tables = [split_by_fold(strata, seed, folds, fold, 0.15) for fold in range(folds)]
    tested = [table.loc[table["split"] == "test", "patient"] for table in tables]
    assert sorted(pd.concat(tested)) == sorted(strata.index)
    assert max(map(len, tested)) - min(map(len, tested)) <= 1
    for table in tables:
        assert sorted(table["patient"]) == sorted(strata.index)
        assert set(table["split"]) == {"train", "test", "validation"}


def test_no_cohort_comes_to_be_with_a_patient_on_two_sides(dataset):
    cohort = folder.read(dataset)
    leaking = cohort.cases.assign(patient="same", split=["train", "test"] * 3)
    with pytest.raises(StudyError, match="the split puts patient same on two sides: train, test; keep one"):
        dataclasses.replace(cohort, cases=leaking)


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
        ([("p000", "train"), ("p001", "val")], "split 'val'; give a name, and one of train, test, validation"),
        ([("p000", "train"), ("p001", "test")], "leaves out 1 patients, first p002"),
        ([("p000", "train"), ("p001", "test"), ("p002", "test")], "no patient in validation"),
    ],
)
def test_a_split_that_would_leak_or_lack_is_refused(tmp_path, rows, message):
    with pytest.raises(StudyError, match=message):
        read_split(given(tmp_path, rows), names(3))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_a_split_is_read_in_any_spelling_and_names_stay_names(tmp_path, encoding):
    text = " Split ;Patient\r\ntrain; NA\r\ntest;001\r\n\r\nvalidation;Müller\r\n;\r\n"
    (tmp_path / "split.csv").write_bytes(text.encode(encoding))
    table = read_split(tmp_path / "split.csv", pd.Series(["NA", "001", "Müller"]))
    assert table.set_index("patient")["split"].to_dict() == {"001": "test", "Müller": "validation", "NA": "train"}


@pytest.mark.parametrize(
    "text, message",
    [
        ("patient,split\np0,train,x\n", "split.csv line 2 has 3 values and the header 2"),
        ("patient,split\n,train\n", "split.csv line 2 has patient '', split 'train'; give a name"),
        ("patient,split\np0,\n", "split.csv line 2 has patient 'p0', split ''; give a name, and one of"),
        ("patient,side\np0,train\n", "split.csv has the columns patient, side; patient, split are needed"),
    ],
)
def test_a_table_that_is_no_split_is_refused_by_its_line(tmp_path, text, message):
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(StudyError, match=message):
        read_split(tmp_path / "split.csv", names(1))
