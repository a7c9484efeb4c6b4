"""Errors lie where they were made, whatever the place, turn and size of the spine in an image."""

import cv2
import numpy as np
import pandas as pd
import pytest

from lumbar_utils.appendix.error_map import ERROR_KINDS, Frame, error_map, frames, peaks
from lumbar_utils.data.folder import Cohort

LABELS = {1: "L1", 2: "L2"}


def spine(side=12, top=20, left=20, shape=(120, 90)):
    """L1 above L2: two squares, as far apart as they are wide."""
    label_map = np.zeros(shape, np.uint8)
    label_map[top : top + side, left : left + side] = 1
    label_map[top + 2 * side : top + 3 * side, left : left + side] = 2
    return label_map


def make(tmp_path, pairs, spacing=1.0):
    """A cohort of label maps, and a folder with what a network made of each: pairs of (reference, prediction)."""
    for number, maps in enumerate(pairs):
        for name, label_map in zip(("masks", "unet"), maps, strict=True):
            (tmp_path / name).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / name / f"{number}.png"), label_map)
    names = [str(number) for number in range(len(pairs))]
    cases = pd.DataFrame({"case": names, "patient": names, "split": "test", "image": "", "spacing_mm": spacing})
    cases["mask"] = [f"masks/{name}.png" for name in names]
    return Cohort(tmp_path, "drawn", "CC0", False, LABELS, ("L1", "L2"), cases, ""), {"unet": tmp_path / "unet"}


def half_missed(true):
    """The prediction that lacks the right half of L1."""
    pred = true.copy()
    columns = np.flatnonzero((true == 1).any(axis=0))
    pred[:, columns[len(columns) // 2] :][true[:, columns[len(columns) // 2] :] == 1] = 0
    return pred


def at(found, share, level, across, along=0.0):
    """The share at a place of a vertebra, in halves of its width and height from its centre."""
    x, y = found.centres[found.levels.index(level)]
    half = np.sqrt(3) / 0.1 * 1.0  # of a square whose length is one: sqrt(12) / 2, in steps of the map
    return share[round(y + along * half), round(x + across * half)]


def test_a_frame_is_the_centre_the_way_down_and_the_lengths_of_a_body():
    upper, lower = frames(spine(), [1, 2]).values()
    assert upper.centre.tolist() == [25.5, 25.5] and lower.centre.tolist() == [25.5, 49.5]
    assert upper.down.tolist() == lower.down.tolist() == [0, 1]
    assert upper.lengths == pytest.approx([12 / np.sqrt(12)] * 2)


def test_a_turned_spine_has_turned_frames():
    upper, _ = frames(np.rot90(spine()), [1, 2]).values()  # L2 lies to the right of L1
    assert upper.down == pytest.approx([1, 0])
    alone = frames(np.where(spine() == 1, 1, 0), [1, 2])
    assert isinstance(alone[1], Frame) and alone[1].down.tolist() == [0, 1] and list(alone) == [1]


def test_what_every_case_misses_is_missed_at_that_place_alone(tmp_path):
    true = spine()
    found = error_map(*make(tmp_path, [(true, half_missed(true))]))
    missed = found.errors["unet"]["missed"]
    assert [at(found, missed, "L1", across) for across in (-0.8, -0.2, 0.2, 0.8)] == [0, 0, 1, 1]
    assert [at(found, missed, "L2", across) for across in (-0.8, 0.8)] == [0, 0]
    assert [at(found, missed, "L1", across) for across in (-1.3, 1.3)] == [0, 0]
    assert np.nansum(found.errors["unet"]["invented"]) == np.nansum(found.errors["unet"]["misnamed"]) == 0
    assert [at(found, found.body, "L1", across) for across in (-1.3, -0.8, 0.8, 1.3)] == [0, 1, 1, 0]
    assert np.nansum(missed) == pytest.approx(np.nansum(found.body) / 4, rel=0.05)  # half of one of the two


def test_place_size_and_turn_of_a_spine_make_no_difference(tmp_path):
    small, large = spine(), spine(side=20, top=5, left=40)
    turned = cv2.warpAffine(large, cv2.getRotationMatrix2D((45, 60), 25, 0.8), (90, 120), flags=cv2.INTER_NEAREST)
    lacking = cv2.warpAffine(half_missed(large), cv2.getRotationMatrix2D((45, 60), 25, 0.8), (90, 120),
                             flags=cv2.INTER_NEAREST)  # fmt: skip
    found = error_map(*make(tmp_path, [(small, half_missed(small)), (large, half_missed(large)), (turned, lacking)]))
    missed = found.errors["unet"]["missed"]
    assert [at(found, missed, "L1", across) for across in (-0.7, -0.3, 0.3, 0.7)] == [0, 0, 1, 1]
    assert found.cases.tolist() == [3, 3]


def test_a_share_is_of_the_cases_and_kinds_are_told_apart(tmp_path):
    true = spine()
    beside, named = true.copy(), true.copy()
    beside[20:32, 32:36] = 1  # 4 pixels too wide
    named[true == 2] = 1
    found = error_map(*make(tmp_path, [(true, true), (true, true), (true, beside), (true, named)]))
    kinds = found.errors["unet"]
    assert set(kinds) == set(ERROR_KINDS)
    assert at(found, kinds["invented"], "L1", 1.3) == 0.25 and at(found, kinds["invented"], "L1", 0.8) == 0
    assert at(found, kinds["misnamed"], "L2", 0) == 0.25 and at(found, kinds["misnamed"], "L1", 0) == 0
    assert peaks(found).values.tolist() == [["unet", "outline", 0.25, "L1"], ["unet", "name", 0.25, "L2"]]


def test_a_level_that_a_case_lacks_counts_and_moves_nothing(tmp_path):
    true, lower = spine(), np.where(spine(top=5) == 2, 2, 0).astype(np.uint8)
    found = error_map(*make(tmp_path, [(true, true), (lower, np.zeros_like(lower))]))
    assert found.cases.tolist() == [1, 2]
    assert np.diff(found.centres, axis=0) == pytest.approx(np.array([[0, 24 / np.sqrt(12) * 10]]))  # 24 pixels down
    assert at(found, found.errors["unet"]["missed"], "L2", 0) == 0.5 and at(found, found.body, "L1", 0) == 1


@pytest.mark.parametrize("spacing, side", [(2.0, 2 * np.sqrt(12) / 10), (float("nan"), float("nan"))])
def test_the_map_has_a_scale_where_all_spacings_are_known(tmp_path, spacing, side):
    found = error_map(*make(tmp_path, [(spine(), spine())] * 2, [2.0, spacing]))
    assert found.pixel_mm == pytest.approx(side, nan_ok=True)
