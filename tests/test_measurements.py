"""Measures of drawn bodies and of phantoms, whose truth is known; agreement of two measurements."""

import numpy as np
import pandas as pd
import pytest
from benchmarks.measurements import limits_of_agreement, phantom_errors

from lumbar_utils import LEVELS, StudyError
from lumbar_utils.output import figures
from lumbar_utils.scores.measurements import measure

NAN = float("nan")


def values_of(table):
    return {(row.level, row.measure): row.value for row in table.itertuples()}


def rectangles(shift=0):
    """L1 to S1 as rectangles of 20 x 30 px, 10 px apart; each is `shift` px further back than the one above."""
    drawn = np.zeros((200, 100), np.uint8)
    for number in range(6):
        left = 20 + number * shift
        drawn[10 + 30 * number : 30 + 30 * number, left : left + 30] = number + 1
    return drawn


def polygons(*bodies, turn_deg=0.0, size=480):
    """Label map of L1, L2, ... from their corners (x, y) in px, turned clockwise about the middle of the image.

    A pixel belongs to a body where its centre lies on the right of each side, front-top, back-top and so on.
    """
    turn = np.radians(turn_deg)
    matrix = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    rows, columns = np.indices((size, size))
    drawn = np.zeros((size, size), np.uint8)
    for value, body in enumerate(bodies, 1):
        corners = (np.array(body) - size / 2) @ matrix + size / 2 - 0.5  # sides between the pixels' centres
        inside = np.ones((size, size), bool)
        for (x, y), (next_x, next_y) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            inside &= (next_x - x) * (rows - y) > (next_y - y) * (columns - x)
        drawn[inside] = value
    return drawn


STEPS = 1.2  # px by which a tilted body comes out larger: see the module
WEDGE = [(160, 140), (240, 120), (240, 200), (160, 180)]  # 40 px in front, 80 px at the back
BLOCK = [(160, 220), (240, 220), (240, 280), (160, 280)]


def test_rectangles_measure_what_they_were_drawn_with():
    values = values_of(measure(rectangles(), NAN))
    for level in LEVELS[:5]:
        for height in ("anterior", "middle", "posterior"):
            assert values[level, f"{height} height"] == 20
        assert values[level, "depth"] == 30
        assert values[level, "wedge ratio"] == 1
        assert values[level, "upper end plate angle"] == values[level, "lower end plate angle"] == 0
    for disc in ("L1-L2", "L5-S1"):
        for height in ("anterior", "middle", "posterior"):
            assert values[disc, f"{height} disc height"] == 10
        assert values[disc, "slip"] == values[disc, "disc angle"] == 0
    assert values["L1-S1", "lordosis"] == values["L1-L5", "lordosis"] == 0


def test_the_sacrum_has_only_the_depth_and_angle_of_its_upper_end_plate():
    table = measure(rectangles(), NAN)
    assert list(table[table["level"] == "S1"]["measure"]) == ["depth", "upper end plate angle"]


def test_rows_go_from_bodies_to_pairs_to_lordosis():
    levels = [*LEVELS, "L1-L2", "L2-L3", "L3-L4", "L4-L5", "L5-S1", "L1-S1", "L1-L5"]
    table = measure(rectangles(), NAN)
    assert list(table["level"].unique()) == levels
    assert list(table) == ["level", "measure", "value", "unit"]
    assert not table.duplicated(["level", "measure"]).any()


def test_spacing_scales_lengths_and_nothing_else():
    px, mm = measure(rectangles(shift=3), NAN), measure(rectangles(shift=3), 0.5)
    lengths = px["unit"] == "px"
    assert list(mm["unit"]) == list(px["unit"].replace("px", "mm"))
    assert set(px["unit"]) == {"px", "deg", "ratio", "%"}
    assert mm[lengths]["value"].to_numpy() == pytest.approx(px[lengths]["value"] / 2, abs=1e-4)
    assert mm[~lengths]["value"].to_numpy() == pytest.approx(px[~lengths]["value"], abs=1e-4)


@pytest.mark.parametrize("shift, slip", [pytest.param(3, 3, id="forwards"), pytest.param(-3, -3, id="backwards")])
def test_slip_is_the_step_from_back_corner_to_back_corner_positive_forwards(shift, slip):
    values = values_of(measure(np.roll(rectangles(shift), 20, axis=1), NAN))
    assert values["L4-L5", "slip"] == slip
    assert values["L4-L5", "slip share"] == 10 * np.sign(shift)  # of 30 px


def test_a_wedge_has_the_ratio_and_the_angles_it_was_drawn_with():
    values = values_of(measure(polygons(WEDGE, BLOCK), NAN))
    assert values["L1", "anterior height"] == pytest.approx(40, abs=STEPS)
    assert values["L1", "posterior height"] == pytest.approx(80, abs=STEPS)
    assert values["L1", "middle height"] == pytest.approx(60, abs=0.5)
    assert values["L1", "wedge ratio"] == pytest.approx(0.5, abs=0.01)
    tilt = np.degrees(np.arctan(20 / 80))
    assert values["L1", "upper end plate angle"] == pytest.approx(tilt, abs=0.3)  # the back is higher
    assert values["L1", "lower end plate angle"] == pytest.approx(-tilt, abs=0.3)
    assert values["L1-L2", "disc angle"] == pytest.approx(tilt, abs=0.3)


@pytest.mark.parametrize("turn", [-35, -10, 5, 20, 45])
def test_turning_the_spine_changes_angles_to_the_image_alone(turn):
    straight = values_of(measure(polygons(WEDGE, BLOCK), NAN))
    turned = values_of(measure(polygons(WEDGE, BLOCK, turn_deg=turn), NAN))
    for (level, name), value in straight.items():
        if "end plate" in name:
            assert turned[level, name] == pytest.approx(value - turn, abs=0.3), (level, name)
        elif name != "lordosis":
            assert turned[level, name] == pytest.approx(value, abs=STEPS), (level, name)


def test_hollow_end_plates_lower_the_middle_height_alone():
    drawn = rectangles()
    drawn[10:13, 25:45] = 0  # 3 px into the upper end plate of L1, not as far as its corners
    drawn[20, 30] = 0  # a hole is no hollow
    values = values_of(measure(drawn, NAN))
    heights = [values["L1", f"{height} height"] for height in ("anterior", "middle", "posterior")]
    assert heights == [20, 17, 20]


def test_lordosis_is_the_angle_of_the_upper_end_plates_of_l1_and_s1():
    l1, l5 = [(100, 40), (180, 40), (180, 100), (100, 100)], [(100, 340), (180, 320), (180, 380), (100, 400)]
    sacrum = [(100, 460), (170, 400), (210, 470), (130, 490)]  # its lower end is less steep
    drawn = np.array([0, 1, 5, 6], np.uint8)[polygons(l1, l5, sacrum, size=520)]
    values = values_of(measure(drawn, NAN))
    assert values["L1-S1", "lordosis"] == pytest.approx(np.degrees(np.arctan(60 / 70)), abs=0.3)
    assert values["L1-L5", "lordosis"] == pytest.approx(np.degrees(np.arctan(20 / 80)), abs=0.3)


def test_a_missing_level_has_no_rows_and_no_neighbours_and_its_lordosis_is_nan():
    drawn = rectangles()
    drawn[(drawn == 3) | (drawn == 6)] = 0
    table = measure(drawn, NAN)
    assert set(table["level"]) == {"L1", "L2", "L4", "L5", "L1-L2", "L4-L5", "L1-S1", "L1-L5"}
    lordosis = table[table["measure"] == "lordosis"].set_index("level")["value"]
    assert np.isnan(lordosis["L1-S1"])
    assert lordosis["L1-L5"] == 0


def test_an_empty_label_map_has_a_lordosis_of_nan_alone():
    table = measure(np.zeros((50, 50), np.uint8), 1.0)
    assert list(table["measure"]) == ["lordosis", "lordosis"]
    assert table["value"].isna().all()


def test_bodies_that_the_border_cuts_are_not_measured():
    cut = measure(rectangles()[15:], NAN)  # through L1
    assert not cut["level"].str.contains("L1").loc[cut["value"].notna()].any()
    assert values_of(cut)["L2", "anterior height"] == 20


def test_fragments_are_not_measured_and_do_not_count_for_a_body():
    drawn = rectangles()
    drawn[drawn == 1] = 0
    drawn[10:16, 20:40] = 1  # a fifth of a body
    drawn[60:64, 80:84] = 2  # apart from L2
    table = measure(drawn, NAN)
    assert "L1" not in set(table["level"])
    assert values_of(table)["L2", "depth"] == 30


def test_of_a_spur_no_more_than_a_stub_of_two_pixels_is_measured():
    drawn = rectangles()
    drawn[10:14, 50:70] = 1  # 20 px from the back of L1, along its upper end plate
    drawn[30:38, 35:38] = 1  # 8 px from its lower end plate
    values = values_of(measure(drawn, NAN))
    for name, true in (("anterior height", 20), ("middle height", 20), ("posterior height", 20), ("depth", 30)):
        assert true <= values["L1", name] < true + 2.5


def test_a_volume_is_measured_in_the_middle_of_each_body():
    middle, side = rectangles(), rectangles()
    side[10::30] = 0  # towards its sides a body is lower
    empty = np.zeros_like(middle)
    volume = np.stack([empty, side, side, middle, middle, middle, side, side])
    pd.testing.assert_frame_equal(measure(volume, 0.5), measure(middle, 0.5))


def test_bodies_of_a_scoliotic_spine_have_different_middle_slices():
    flat, full = rectangles(), rectangles()
    flat[10::30] = 0
    upper = np.where(full <= 2, full, 0)
    lower = np.where(full > 2, full, 0)
    low_upper, low_lower = np.where(flat <= 2, flat, 0), np.where(flat > 2, flat, 0)
    volume = np.stack([low_upper, upper, upper, upper, low_upper + low_lower, lower, lower, lower, low_lower])
    values = values_of(measure(volume, NAN))
    assert [values[level, "anterior height"] for level in LEVELS[:5]] == [20] * 5


@pytest.mark.parametrize(
    "wrong", [pytest.param(np.zeros(5, int), id="shape"), pytest.param(np.full((9, 9), 7), id="label")]
)
def test_what_is_no_label_map_is_refused(wrong):
    with pytest.raises(StudyError, match="give \\(height, width\\) or \\(slices, height, width\\)"):
        measure(wrong, 1.0)


# Measure, limit of the bias and of the standard deviation over vertebrae; 0.8 to 1.1 mm per px
BOUNDS = [
    ("anterior height", 0.3, 0.6), ("middle height", 0.5, 0.4), ("posterior height", 0.6, 0.6), ("depth", 0.6, 1.1),
    ("wedge ratio", 0.02, 0.03), ("upper end plate angle", 0.3, 1.0), ("lower end plate angle", 0.7, 1.1),
    ("anterior disc height", 0.4, 0.7), ("middle disc height", 0.6, 0.4), ("posterior disc height", 0.6, 0.6),
    ("disc angle", 0.6, 1.5), ("slip", 0.3, 1.0), ("lordosis", 0.5, 1.3),
]  # fmt: skip


@pytest.fixture(scope="module")
def errors():
    return phantom_errors(20)


@pytest.mark.parametrize("name, bias, spread", BOUNDS)
def test_measures_of_phantoms_are_near_their_truth(errors, name, bias, spread):
    own = errors[errors["measure"] == name]
    assert abs(own["error"].mean()) < bias
    assert own["error"].std() < spread


def test_limits_of_agreement_match_a_computation_by_hand():
    first, second = np.array([1.0, 2, 3, NAN]), np.array([1.0, 1, 1, 1])  # differences 0, 1, 2: mean 1, deviation 1
    assert limits_of_agreement(first, second) == pytest.approx((1, -0.96, 2.96))


def test_slices_of_a_patient_are_averaged_before_the_limits():
    first, second = np.array([0.0, 2, 2, 3]), np.zeros(4)
    bias, low, high = limits_of_agreement(first, second, np.array(["a", "a", "b", "c"]))  # means 1, 2, 3
    assert (bias, low, high) == pytest.approx((2, 0.04, 3.96))


def test_one_unit_has_a_bias_and_no_limits():
    bias, low, high = limits_of_agreement(np.array([2.0, 4]), np.zeros(2), np.array(["a", "a"]))
    assert bias == 3
    assert np.isnan([low, high]).all()


def drawn_texts(label_map, spacing_mm):
    image = np.random.default_rng(0).integers(0, 255, label_map.shape, np.uint8)
    figure = figures.measurements(image, label_map, spacing_mm, "a note")
    assert figure.get_figwidth() == figures.style.COLUMN
    assert figure.get_supxlabel() == "a note"
    (axes,) = figure.axes
    return axes.get_title(), [text.get_text().strip() for text in axes.texts]


def test_the_figure_names_bodies_and_shows_heights_of_bodies_and_discs():
    title, texts = drawn_texts(rectangles(), 0.5)
    assert title == "Heights in mm, lordosis L1-S1 0°"
    assert texts.count("10.0") == 15  # three a body
    assert texts.count("5.0") == 5  # one a disc
    assert set(LEVELS) < set(texts)


def test_the_figure_of_a_slice_without_labels_is_its_image():
    assert drawn_texts(np.zeros((60, 40), np.uint8), NAN) == ("Heights in px", [])
