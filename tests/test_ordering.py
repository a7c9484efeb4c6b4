"""Bodies get one name each, and names descend."""

import numpy as np
import pytest

from lumbar_utils.ordering import bodies, descending, ordered


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
    "evidence, expected",
    [
        pytest.param([[1, 8, 1], [1, 1, 8]], [1, 2], id="in order already"),
        pytest.param([[1, 8, 1], [1, 5, 4]], [1, 2], id="one name twice"),
        pytest.param([[1, 2, 7], [2, 8, 1]], [0, 1], id="swapped: 1 + 8 beats 7 + 2 and 2 + 1"),
        pytest.param([[8, 1, 1], [1, 8, 1]], [0, 1], id="no name for the first"),
    ],
)
def test_the_names_that_descend_and_are_right_for_most(evidence, expected):
    assert descending(np.array(evidence)) == expected


def test_descending_agrees_with_trying_everything():
    rng, tried = np.random.default_rng(0), 0
    for _ in range(20):
        evidence = rng.normal(size=(4, 5))
        allowed = [
            names
            for names in np.ndindex(5, 5, 5, 5)
            if all(a < b for a, b in zip(*[[n for n in names if n][i:] for i in (0, 1)], strict=False))
        ]
        best = max(allowed, key=lambda names: sum(evidence[range(4), names]))
        assert descending(evidence) == list(best)
        tried += len(allowed)
    assert tried == 20 * 70  # choose as many names as bodies: sum of C(4, k)^2


def test_a_body_with_two_names_gets_the_one_that_fits_its_neighbours():
    chances = probabilities(spine())
    chances[1, 34:46, 20:31], chances[2, 34:46, 20:31] = 0.9, 0.0  # the larger part of L3 is named L2
    assert (chances.argmax(axis=0)[34:46, 20:40] == 1).mean() > 0.5
    assert np.array_equal(ordered(chances), spine())


def test_nothing_found_stays_nothing():
    assert not ordered(np.zeros((6, 32, 32))).any()
