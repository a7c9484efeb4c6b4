"""Names and values of other tools' labels."""

from pathlib import Path

import pytest

from lumbar_utils import StudyError
from lumbar_utils.data.labels import level_of, named_values


@pytest.mark.parametrize(
    "name, level",
    [
        ("L1", "L1"), ("l1", "L1"), ("vertebrae_L1", "L1"), ("L1 vertebra", "L1"), ("Vertebra-S1", "S1"),
        ("lumbar vertebra 2 (L2)", "L2"), ("20_L1", "L1"), ("disc_L1", "disc_L1"), ("L5-S1", "L5-S1"),
        ("L1_L2", "L1_L2"), ("sacrum", "sacrum"), ("L12", "L12"), ("T12", "T12"), ("left facet L3", "left facet L3"),
        ("L 1", "L1"), ("L-02", "L2"), ("l_3", "L3"), ("LWK4", "L4"), ("Lumbar 5", "L5"), ("lumbar_vertebra_4", "L4"),
        ("L4/5", "L4/5"), ("L4-5", "L4-5"), ("disc L5-1", "disc L5-1"), ("rib_L_1", "rib_L_1"), ("L 12", "L 12"),
    ],
)  # fmt: skip
def test_a_name_with_one_level_in_it_is_that_vertebra_and_nothing_else_is(name, level):
    assert level_of(name) == level


@pytest.mark.parametrize(
    "labels, values",
    [
        pytest.param({"1": "L1", "7": "T12"}, {1: "L1", 7: "T12"}, id="value to name"),
        pytest.param({"background": 0, "vertebrae_L1": 1}, {0: "background", 1: "L1"}, id="name to value"),
        pytest.param({"L1": "3"}, {3: "L1"}, id="value as text"),
        pytest.param({"spine": [1, 2], "L1": 1, "L2": [2]}, {1: "L1", 2: "L2"}, id="regions, the whole first"),
        pytest.param({"L1": 1, "spine": [1, 2]}, {1: "L1", 2: "spine"}, id="regions, the whole last"),
    ],
)
def test_labels_are_read_either_way_round(labels, values):
    assert named_values(labels, Path("f")) == values


@pytest.mark.parametrize(
    "labels, message",
    [
        (None, "f has no labels but None"),
        ([1], r"f has no labels but \[1\]"),
        ({}, "f names nothing; one of L1"),
        ({"disc": 1, "sacrum": 2}, "f names 'disc', 'sacrum'; one of L1"),
        ({"L1": 1.5}, "f gives 'L1' the value 1.5; write a whole number"),
        ({"L1": True}, "the value True"),
        ({"L1": -1}, "the value -1"),
        ({"L1": None}, "the value None"),
        ({"L1": {"a": 1}}, "the value {'a': 1}"),
        ({"L1": [[1]]}, r"the value \[1\]"),
        ({"L1": 0}, "f gives L1 the value 0, which is background"),
        ({"L1": 1, "L2": [1, 2]}, "f gives L2 the value 1, which is L1"),
    ],
)
def test_labels_that_mean_nothing_or_two_things_are_refused(labels, message):
    with pytest.raises(StudyError, match=message):
        named_values(labels, Path("f"))
