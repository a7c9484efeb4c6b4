"""Bodies get one level each, levels follow one another, and the result stands beside the network's own."""

import dataclasses

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import write_dataset

from lumbar_utils.data.preparation import prepare
from lumbar_utils.scores.evaluation import evaluate
from lumbar_utils.scores.ordering import (
    compare_naming,
    consecutive_levels,
    relabel,
    relabel_all,
    relabel_volume,
    separate_bodies,
)
from lumbar_utils.study import Study


def spine(heights=(4, 19, 34, 49, 64), touching=False):
    """(80, 60): bodies of 12 x 20 pixels, one below the other; touching: bridged by a neck of 4 pixels."""
    mask = np.zeros((80, 60), np.uint8)
    for value, top in enumerate(heights, 1):
        mask[top : top + 12, 20:40] = value
        if touching and value > 1:
            mask[top - 3 : top, 28:32] = value
    return mask


def probabilities(mask, sure=0.9):
    return np.stack([np.where(mask == value, sure, 0.0) for value in range(1, 7)])


@pytest.mark.parametrize("touching", [False, True])
def test_bodies_are_numbered_from_top_to_bottom_and_parted_where_they_touch(touching):
    mask = spine(touching=touching)
    found = separate_bodies(mask > 0, side=15)
    assert np.array_equal(np.unique(found), range(6))
    inside = spine() > 0
    assert np.array_equal(found[inside], spine()[inside])


def test_a_speck_is_no_body():
    mask = spine()
    mask[75:78, 5:8] = 6
    assert separate_bodies(mask > 0, side=15).max() == 5


@pytest.mark.parametrize(
    "votes, expected",
    [
        pytest.param([[1, 8, 1], [1, 1, 8]], [1, 2], id="in order already"),
        pytest.param([[1, 8, 1], [1, 5, 4]], [1, 2], id="one name twice"),
        pytest.param([[8, 1, 1], [1, 8, 1]], [0, 1], id="no name for the first"),
        pytest.param([[1, 1, 8], [8, 1, 1]], [2, 0], id="no name for the last"),
        pytest.param([[6, 3, 1], [1, 1, 8]], [1, 2], id="what lies above a second name has the first"),
        pytest.param([[0, 9, 1, 0], [1, 1, 8, 0], [0, 0, 9, 1], [0, 0, 0, 9]], [0, 1, 2, 3], id="one above too many"),
        pytest.param([[1, 9, 0], [1, 0, 0], [0, 0, 9]], [1, 0, 2], id="a fragment between two bodies"),
        pytest.param([[0, 9, 0, 0], [0, 0, 0, 9]], [1, 2], id="no gap, though the votes have one"),
    ],
)
def test_names_without_a_gap_that_are_right_for_most(votes, expected):
    assert consecutive_levels(np.array(votes)) == expected


def allowed(names):
    """Whether the names above 0 follow one another by one."""
    given = [name for name in names if name]
    return not given or given == list(range(given[0], given[0] + len(given)))


def worth(names, votes):
    """Pixels expected to be right, less twice the size of unnamed bodies that are not above name 1 or below name 4."""
    total = 0
    for body, name in enumerate(names):
        before, after = [n for n in names[:body] if n], [n for n in names[body:] if n]
        outside = (not before and (not after or after[0] == 1)) or (not after and before and before[-1] == 4)
        total += votes[body, name] if name or outside else -2 * votes[body].sum()
    return total


def test_naming_agrees_with_trying_everything():
    rng = np.random.default_rng(0)
    for _ in range(20):
        votes = rng.random((4, 5))
        best = max(filter(allowed, np.ndindex(5, 5, 5, 5)), key=lambda names: worth(names, votes))
        assert consecutive_levels(votes) == list(best)


def test_a_body_with_two_names_gets_the_one_that_fits_its_neighbours():
    chances = probabilities(spine())
    chances[1, 34:46, 20:31], chances[2, 34:46, 20:31] = 0.9, 0.0  # the larger part of L3 is named L2
    assert (chances.argmax(axis=0)[34:46, 20:40] == 1).mean() > 0.5
    assert np.array_equal(relabel(chances), spine())


def test_nothing_found_stays_nothing():
    assert not relabel(np.zeros((6, 32, 32))).any()


def test_slices_of_a_patient_name_a_body_together():
    sure, shifted = (
        probabilities(spine()),
        np.roll(probabilities(spine(), sure=0.6), 1, axis=0),
    )  # all named one too low
    assert np.array_equal(np.unique(relabel(shifted)), [0, 2, 3, 4, 5, 6])
    assert np.array_equal(relabel(shifted, np.mean([sure, shifted], axis=0)), spine())


@pytest.fixture
def cohort(dataset, tmp_path, cache):
    return prepare(Study("smoke", dataset=str(dataset), runs=tmp_path / "runs", cache=cache))


def test_names_are_put_in_order_beside_the_label_maps_and_counted(cohort, tmp_path):
    folder, case = tmp_path / "maps", cohort.cases[cohort.cases["split"] == "test"]["case"].item()
    folder.mkdir()
    true = cohort.mask(cohort.cases.set_index("case", drop=False).loc[case])
    sure = np.zeros((6, *true.shape), np.uint8)  # L1 is named L2 by two thirds of its pixels, and so is L2
    sure[1][(true == 1) | (true == 2)] = 160
    sure[0][true == 1], sure[1, 20:30, 16:30] = 90, 150
    np.savez_compressed(folder / f"{case}.npz", probabilities=sure)
    cv2.imwrite(str(folder / f"{case}.png"), np.where(true > 2, 0, 2 * (true > 0)).astype(np.uint8))
    (tmp_path / "ordered").mkdir()
    (tmp_path / "ordered" / "no_longer_tested.png").write_text("of another split")
    own, in_order = evaluate(cohort, {"a": folder}), evaluate(cohort, relabel_all(cohort, {"a": folder}))
    assert [file.name for file in (tmp_path / "ordered").iterdir()] == [f"{case}.png"]
    assert own.bodies["named"].tolist() == ["L2", "L2"]
    assert in_order.bodies["named"].tolist() == ["L1", "L2"]
    assert compare_naming(own, in_order).set_index("metric")["value"].to_dict() == pytest.approx({
        "F1, own names": (0 + 2 / 3) / 2, "F1, in order": 1.0, "right, own names": 0.5, "right, in order": 1.0,
    })  # fmt: skip


def test_a_method_without_probabilities_is_not_relabel_all(cohort, tmp_path):
    assert relabel_all(cohort, {"other": tmp_path}) == {}


def test_where_one_case_has_no_probabilities_nothing_is_relabel_all(cohort, tmp_path):
    several = dataclasses.replace(cohort, cases=cohort.cases.assign(split="test"))
    (tmp_path / f"{cohort.cases['case'].iloc[0]}.npz").write_text("not looked into, since others are missing")
    assert relabel_all(several, {"a": tmp_path}) == {}


def test_all_slices_of_a_patient_name_its_vertebrae_together(tmp_path, cache):
    folder = write_dataset(tmp_path / "several", patients=12)
    table = pd.read_csv(folder / "cases.csv")
    table["patient"] = [f"p{row // 2}" for row in range(12)]  # two slices each
    table.to_csv(folder / "cases.csv", index=False)
    cohort = prepare(Study("smoke", dataset=str(folder), runs=tmp_path / "runs", cache=cache))
    test = cohort.cases[cohort.cases["split"] == "test"]
    assert len(test) == 2
    maps = tmp_path / "maps"
    maps.mkdir()
    for confidence, names, (_, case) in zip((240, 150), ((1, 2), (2, 3)), test.iterrows(), strict=True):
        true, chances = cohort.mask(case), np.zeros((6, 64, 48), np.uint8)  # the second slice is wrong, and less sure
        for value, name in zip((1, 2), names, strict=True):
            chances[name - 1][true == value] = confidence
        np.savez_compressed(maps / f"{case['case']}.npz", probabilities=chances)
    named = evaluate(cohort, relabel_all(cohort, {"a": maps})).bodies["named"]
    assert named.tolist() == ["L1", "L2", "L1", "L2"]


def test_a_lateral_slice_neither_spoils_the_vote_of_a_volume_nor_keeps_its_specks():
    middle, lateral = spine(), np.zeros((80, 60), np.uint8)
    lateral[4:16, 20:40] = 2  # one body with the wrong name
    lateral[70:76, 2:8] = 6  # a speck, smaller than a tenth of a body
    volume = np.stack([probabilities(mask) * 255 for mask in (middle, middle, lateral)]).astype(np.uint8)
    expected = np.zeros((80, 60), np.uint8)
    expected[4:16, 20:40] = 1
    assert np.array_equal(relabel_volume(volume), [middle, middle, expected])


def test_a_volume_without_vertebrae_stays_empty():
    assert not relabel_volume(np.zeros((3, 6, 40, 30), np.uint8)).any()
