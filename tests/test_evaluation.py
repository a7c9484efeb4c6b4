"""Files against files."""

import cv2
import numpy as np
import pandas as pd
import pytest

from lumbar_utils import StudyError
from lumbar_utils.evaluation import evaluate, examples, label_maps, read_probabilities, summarise, telling_cases
from lumbar_utils.exploration import explore
from lumbar_utils.preparation import prepare
from lumbar_utils.study import Study


@pytest.fixture
def cohort(dataset, tmp_path, cache):
    return prepare(Study("smoke", dataset=str(dataset), runs=tmp_path / "runs", cache=cache))


def write_label_maps(cohort, folder, shift=0):
    """Another method's label maps: the reference, moved down by some rows."""
    folder.mkdir()
    for _, case in cohort.cases[cohort.cases["split"] == "test"].iterrows():
        cv2.imwrite(str(folder / f"{case['case']}.png"), np.roll(cohort.mask(case), shift, axis=0))
    return folder


def value(scores, metric, level):
    return scores.query("metric == @metric and level == @level")["value"].tolist()


def test_label_maps_of_any_method_are_scored_by_a_folder(cohort, tmp_path):
    scores = evaluate(cohort, {"perfect": write_label_maps(cohort, tmp_path / "perfect")})
    assert set(scores["metric"]) == {"precision", "recall", "f1", "ap_coco"}  # no probabilities, no pixel-wise AP
    assert (scores["value"] == 1).all()
    assert set(scores["level"]) == {"L1", "L2"}  # T12 is in the masks and is no level of the study


def test_scores_by_hand(cohort, tmp_path):
    scores = evaluate(cohort, {"moved": write_label_maps(cohort, tmp_path / "moved", shift=2)})
    assert value(scores, "f1", "L1") == pytest.approx([0.8])  # 8 of 10 rows
    assert value(scores, "ap_coco", "L1") == pytest.approx([0.4])  # IoU 8/12 = 0.67: .50, .55, .60, .65 of ten


def test_label_maps_that_are_missing_or_on_another_grid_are_refused(cohort, tmp_path):
    folder = write_label_maps(cohort, tmp_path / "maps")
    file = next(folder.glob("*.png"))
    cv2.imwrite(str(file), np.zeros((10, 10), np.uint8))
    with pytest.raises(StudyError, match=rf"{file.name} has shape \(10, 10\) but its image \(64, 48\)"):
        evaluate(cohort, {"x": folder})
    file.unlink()
    with pytest.raises(StudyError, match=f"has no label map for case {file.stem}; predict every case"):
        evaluate(cohort, {"x": folder})


def test_a_study_whose_models_have_not_predicted_is_told_what_to_run(study):
    with pytest.raises(StudyError, match=r"unet has no label maps in .*; run its training notebook first"):
        label_maps(study)


def test_cases_are_averaged_within_patients_and_patients_before_levels():
    rows = [
        ("a1", "a", "L1", 1.0), ("a2", "a", "L1", 0.0),  # patient a: 0.5
        ("b1", "b", "L1", 0.9),  # level L1: (0.5 + 0.9) / 2 = 0.7
        ("b1", "b", "L2", 0.1),  # level L2: 0.1
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["case", "patient", "level", "value"]).assign(model="unet", metric="f1")
    assert summarise(table)["value"].tolist() == pytest.approx([(0.7 + 0.1) / 2])


def test_table_2_s_names_of_average_precision():
    rows = [("a", "a", "L1", "unet", metric, 0.5) for metric in ("ap_pixel", "ap_coco")]
    table = pd.DataFrame(rows, columns=["case", "patient", "level", "model", "metric", "value"])
    assert set(summarise(table)["metric"]) == {"map_pixel", "map_coco"}


def test_best_median_and_worst_case():
    rows = [(case, "L1", "unet", "f1", score) for case, score in zip("abcde", (0.2, 0.9, 0.5, 0.4, 0.7), strict=True)]
    assert telling_cases(pd.DataFrame(rows, columns=["case", "level", "model", "metric", "value"]), "unet") == list(
        "bca"
    )


def test_examples_carry_what_a_figure_needs(cohort, tmp_path):
    case = cohort.cases[cohort.cases["split"] == "test"]["case"].iloc[0]
    (example,) = examples(cohort, [case], write_label_maps(cohort, tmp_path / "moved", shift=2))
    assert (example.case, example.spacing_mm, example.f1) == (case, 1.0, pytest.approx(0.8))
    assert example.image.shape == example.reference.shape == example.prediction.shape


def test_probabilities_are_read_as_written(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", probabilities=np.full((6, 2, 2), 51, np.uint8))
    assert read_probabilities(tmp_path, "a") == pytest.approx(np.full((6, 2, 2), 0.2))
    assert read_probabilities(tmp_path, "b") is None


def test_exploration_by_hand(cohort):
    sizes, areas, intensities = explore(cohort)
    assert sizes.loc[0, ["height", "width", "height_mm", "levels"]].tolist() == [64, 48, 64.0, 2]
    first = areas[areas["case"] == "case0"].set_index("level")
    assert first.loc["L1", ["area", "unit"]].tolist() == [200, "mm2"]  # 10 rows of 20 pixels of 1 mm
    assert first.loc["L1", ["x", "y"]].tolist() == pytest.approx([20 / 48, 25 / 64])
    shares = intensities.groupby("tissue")["share"].sum()
    assert shares.to_dict() == pytest.approx({"background": 1, "L1": 1, "L2": 1})
    assert intensities.query("tissue == 'L1' and share > 0")["grey"].between(198, 208).all()
