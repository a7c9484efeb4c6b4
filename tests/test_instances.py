"""Predicted vertebrae matched to the reference, on maps small enough to see: a row of letters is a row of pixels."""

import numpy as np
import pandas as pd
import pytest

from lumbar_utils.scores.instances import COLUMNS, match_instances, summarise_instances

LEVELS = {1: "L1", 2: "L2", 3: "L3"}


def column(text):
    """A label map four pixels wide: one digit a row, `.` for background."""
    return np.repeat([[0 if letter == "." else int(letter)] for letter in text], 4, axis=1).astype(np.uint8)


TRUE = "1111.2222.3333"


@pytest.mark.parametrize(
    "pred, outcomes",
    [
        pytest.param("1111.2222.3333", ["right"] * 3, id="perfect"),
        pytest.param("2222.3333.3333", ["one down", "one down", "right"], id="two shifted down"),
        pytest.param("1111.1111.2222", ["right", "one up", "one up"], id="two shifted up"),
        pytest.param("3333.2222.1111", ["other", "right", "other"], id="the wrong way round"),
        pytest.param("1111......3333", ["right", "missing", "right"], id="one missing"),
        pytest.param("1111.2.....333", ["right", "missing", "right"], id="a quarter is not found"),
    ],
)
def test_a_vertebra_is_matched_whatever_its_name_and_then_named(pred, outcomes):
    rows = pd.DataFrame(match_instances(column(pred), column(TRUE), LEVELS, 1.0), columns=COLUMNS)
    assert rows.loc[rows["level"] != "", "outcome"].tolist() == outcomes


def found(pred, true=TRUE):
    return pd.DataFrame(match_instances(column(pred), column(true), LEVELS, 0.5), columns=COLUMNS)


def test_the_outline_is_judged_without_the_name():
    row = found("2222.......333").iloc[0]
    assert (row["named"], row["f1"], row["hd95"], row["unit"]) == ("L2", 1.0, 0.0, "mm")


def test_what_matches_nothing_is_extra():
    rows = found("1111.2222.3333", "1111.2222.....")
    assert rows[["level", "named", "outcome"]].values.tolist()[-1] == ["", "L3", "extra"]
    assert rows["outcome"].tolist() == ["right", "right", "extra"]


def test_a_vertebra_under_two_names_is_split_and_found_by_its_greater_part():
    rows = found("1111.2223.3333")
    assert rows.loc[1, ["outcome", "split"]].tolist() == ["right", True]
    assert not rows.loc[[0, 2], "split"].any()
    halved = found("1111.2233.3333")
    assert halved.loc[1, ["outcome", "split"]].tolist() == ["missing", True]  # neither half reaches an IoU of 0.5
    assert (halved["outcome"] == "extra").sum() == 2


def test_one_component_over_two_vertebrae_merges_them():
    rows = found("1111.2222222222"[:14])
    assert rows.loc[rows["level"] != "", "merged"].tolist() == [False, True, True]


def test_specks_are_no_vertebrae():
    pred = column(TRUE)
    pred[4, 0] = 3  # a pixel between L1 and L2
    assert len(match_instances(pred, column(TRUE), LEVELS, 1.0)) == 3


def test_specks_are_no_vertebrae_where_the_reference_has_none_either():
    pred = column("1111.........2")
    pred[-1, 1:] = 0  # L2 is one pixel
    assert [row[1] for row in match_instances(pred, column("." * 14), LEVELS, 1.0)] == ["L1"]


def test_empty_maps_have_no_rows():
    assert match_instances(column("...."), column("...."), LEVELS, 1.0) == []
    assert found("....", "1111")["outcome"].tolist() == ["missing"]
    assert found("1111", "....")["outcome"].tolist() == ["extra"]


def summary(**changes):
    tables = [found("2222.......333"), found("1111.2222.3333"), found("1111.2222.3333")]
    table = pd.concat([rows.assign(patient=f"p{number}") for number, rows in enumerate(tables)], ignore_index=True)
    return summarise_instances(table.assign(model="unet", **changes)).set_index("metric")


def test_the_summary_counts_what_there_is():
    table = summary()
    counts = table["count"].dropna().to_dict()
    assert counts == {
        "found": 8, "rightly named": 7, "right": 7, "one up": 0, "one down": 1, "other": 0, "missing": 1, "extra": 0,
        "merged": 0, "split": 0,
    }  # fmt: skip
    assert table.loc["found", "value"] == pytest.approx(8 / 9)
    assert table.loc["rightly named", "value"] == pytest.approx(7 / 8)
    assert table.loc["outline F1", "value"] == pytest.approx((1 + 6 / 7 + 6 * 1) / 8)
    assert table.loc["missing", ["low", "high"]].tolist() == [0, pytest.approx(1 / 3, abs=0.1)]
    assert (table["n"] == 3).all()


def test_what_is_extra_where_the_reference_has_nothing_is_counted():
    tables = [found("1111.2222.3333"), found("1111.........", "." * 13)]
    table = pd.concat([rows.assign(patient=f"p{number}") for number, rows in enumerate(tables)], ignore_index=True)
    assert summarise_instances(table.assign(model="unet")).set_index("metric").loc["extra", "count"] == 1


def test_distances_in_two_units_have_no_mean():
    assert "outline HD95, mm" in summary().index
    mixed = summary(unit=["mm"] * 3 + ["px"] * 6)
    assert not [name for name in mixed.index if "HD95" in name]
