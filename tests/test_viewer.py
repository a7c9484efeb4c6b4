"""The viewer shows the case, the order and the levels that are asked for, and a picture where nobody is there."""

import base64
import dataclasses

import cv2
import numpy as np
import pytest

from lumbar_utils import StudyError
from lumbar_utils.data.preparation import prepare
from lumbar_utils.output import viewer
from lumbar_utils.output.viewer import DATA_ORDER, Example, Viewer, draw_case
from lumbar_utils.scores.evaluation import evaluate
from lumbar_utils.study import Study

LEVELS = {1: "L1", 2: "L2"}


@pytest.fixture
def cohort(dataset, tmp_path, cache):
    """Three test cases of two levels, ten rows high each."""
    cohort = prepare(Study("smoke", dataset=str(dataset), runs=tmp_path / "runs", cache=cache))
    split = ["test"] * 3 + ["train"] * (len(cohort.cases) - 3)
    return dataclasses.replace(cohort, cases=cohort.cases.assign(split=split))


@pytest.fixture
def compared(cohort, tmp_path):
    """Label maps moved down by one, three and two rows: F1 0.9, 0.7 and 0.8."""
    folder = tmp_path / "maps"
    folder.mkdir()
    for (_, case), rows in zip(cohort.cases.head(3).iterrows(), (1, 3, 2), strict=True):
        cv2.imwrite(str(folder / f"{case['case']}.png"), np.roll(cohort.mask(case), rows, axis=0))
    return Viewer(cohort, {"unet": folder}, evaluate(cohort, {"unet": folder}).scores)


def test_the_worst_case_comes_first_unless_the_order_is_the_data_s(compared):
    assert compared.orders == {
        "worst of U-Net": ["case1", "case2", "case0"],
        DATA_ORDER: ["case0", "case1", "case2"],
    }
    assert compared.draw()[1] == "case1, 1 of 3; F1, mean of its levels: reference, U-Net 0.700"
    assert compared.draw(3)[1].startswith("case0, 3 of 3")
    assert compared.draw(1, DATA_ORDER)[1].endswith("reference, U-Net 0.900")


def test_one_level_has_its_own_score(compared, cohort):
    moved = np.where(cohort.mask(cohort.cases.iloc[1]) == 1, 1, 0).astype(np.uint8)  # L1 right, L2 missing
    cv2.imwrite(str(compared.folders["unet"] / "case1.png"), moved)
    found = Viewer(cohort, compared.folders, evaluate(cohort, compared.folders).scores)
    assert [found.draw(level=level)[1].split("U-Net ")[1] for level in ("all", "L1", "L2")] == [
        "0.500", "1.000", "0.000",
    ]  # fmt: skip


def test_without_label_maps_every_case_is_shown_by_itself(cohort):
    assert Viewer(cohort).orders == {DATA_ORDER: [f"case{number}" for number in range(6)]}
    assert Viewer(cohort).draw(2)[1] == "case1, 2 of 6: reference"


@pytest.mark.parametrize("levels, contours", [(LEVELS, 4), ({2: "L2"}, 2), ({3: "L3"}, 0)])
def test_only_the_levels_asked_for_are_drawn(levels, contours):
    reference = np.zeros((64, 48), np.uint8)
    reference[10:20, 10:30], reference[40:50, 10:30] = 1, 2
    fig = draw_case(Example("a", reference, reference, 1.0), {"unet": (reference, "U-Net")}, levels, "a")
    assert len([drawn for drawn in fig.axes[0].collections if drawn.get_paths()]) == contours
    assert [text.get_text() for text in fig.axes[0].texts] == ["10 mm", *list(levels.values())[: contours // 2]]


def test_a_contour_lies_on_the_border_of_its_body():
    inside = np.zeros((64, 48), np.uint8)
    inside[10:20, 0:30] = 1  # reaches the left border, where a contour has to end
    fig = draw_case(Example("a", inside, inside, 1.0), {}, LEVELS, "a")
    corners = fig.axes[0].collections[0].get_paths()[0].get_extents()
    assert (corners.x0, corners.x1, corners.y0, corners.y1) == (0, 29.5, 9.5, 19.5)


def test_what_is_moved_changes_the_picture(compared):
    moves = [{}, {"place": 2}, {"level": "L1"}, {"opacity": 0.3}, {"order": DATA_ORDER}]
    assert len({compared.draw(**move)[0] for move in moves}) == len(moves)
    assert compared.draw()[0] == compared.draw()[0]


def test_whoever_reads_the_notebook_later_finds_a_picture_and_words(compared):
    data, metadata = compared._repr_mimebundle_()
    assert set(data) == {"image/png", "text/plain"}  # nobody is there: a widget would be an error in the copy
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert metadata["image/png"]["alt"] == data["text/plain"] == compared.draw()[1]


def test_who_sits_before_the_notebook_gets_sliders_too(compared, monkeypatch):
    monkeypatch.setattr(viewer, "_is_interactive", lambda: True)
    data, _ = compared._repr_mimebundle_()
    assert {"image/png", "text/plain", "application/vnd.jupyter.widget-view+json"} == set(data)


def test_the_picture_follows_the_sliders_and_a_new_order_starts_with_its_first_case(compared):
    slider, order, *_, picture = compared.widget().children
    slider.value = 3
    assert 'alt="case0, 3 of 3;' in picture.value
    order.value = DATA_ORDER
    assert slider.value == 1 and 'alt="case0, 1 of 3;' in picture.value


def test_a_file_that_went_away_is_named_in_the_picture_s_place(compared):
    slider, *_, picture = compared.widget().children
    (compared.folders["unet"] / "case2.png").unlink()
    slider.value = 2
    assert "has no label map for case case2; predict every case of the test set" in picture.value


def test_a_wrong_input_is_told_in_a_cell_by_its_message_alone(capsys):
    from IPython.core.interactiveshell import InteractiveShell

    cell = "from lumbar_utils.study import Study\nStudy('smoke', epoch=3)"
    ended = InteractiveShell().run_cell(cell)
    assert type(ended.error_in_exec) is StudyError  # what runs the cell knows that it failed
    assert capsys.readouterr().out.splitlines() == [
        "\x1b[31mStudyError\x1b[39m: unknown setting 'epoch'; did you mean 'epochs'?"
    ]
