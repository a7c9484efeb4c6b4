"""Bodies get one name each, and names follow one another."""

import numpy as np
import pytest

from lumbar_utils.scores.ordering import bodies, consecutive, ordered


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
    found = bodies(mask > 0, side=15)
    assert np.array_equal(np.unique(found), range(6))
    inside = spine() > 0
    assert np.array_equal(found[inside], spine()[inside])


def test_a_speck_is_no_body():
    mask = spine()
    mask[75:78, 5:8] = 6
    assert bodies(mask > 0, side=15).max() == 5


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
    assert consecutive(np.array(votes)) == expected


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
        assert consecutive(votes) == list(best)


def test_a_body_with_two_names_gets_the_one_that_fits_its_neighbours():
    chances = probabilities(spine())
    chances[1, 34:46, 20:31], chances[2, 34:46, 20:31] = 0.9, 0.0  # the larger part of L3 is named L2
    assert (chances.argmax(axis=0)[34:46, 20:40] == 1).mean() > 0.5
    assert np.array_equal(ordered(chances), spine())


def test_nothing_found_stays_nothing():
    assert not ordered(np.zeros((6, 32, 32))).any()


def test_slices_of_a_patient_name_a_body_together():
    sure, shifted = (
        probabilities(spine()),
        np.roll(probabilities(spine(), sure=0.6), 1, axis=0),
    )  # all named one too low
    assert np.array_equal(np.unique(ordered(shifted)), [0, 2, 3, 4, 5, 6])
    assert np.array_equal(ordered(shifted, np.mean([sure, shifted], axis=0)), spine())
