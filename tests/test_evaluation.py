"""Files against files."""

import cv2
import numpy as np
import pandas as pd
import pytest

from lumbar_utils import StudyError
from lumbar_utils.data.exploration import explore
from lumbar_utils.data.preparation import prepare
from lumbar_utils.output.viewer import best_median_worst, examples, worst_cases
from lumbar_utils.scores.evaluation import Evaluation, evaluate, label_maps, read_model_tables, read_probabilities
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


def value(found, metric, level):
    return found.scores.query("metric == @metric and level == @level")["value"].tolist()


def test_label_maps_of_any_method_are_scored_by_a_folder(cohort, tmp_path):
    found = evaluate(cohort, {"perfect": write_label_maps(cohort, tmp_path / "perfect")})
    perfect = {
        "precision": 1, "recall": 1, "f1": 1, "iou": 1, "area_error": 0, "hd95_mm": 0, "assd_mm": 0, "nsd_mm": 1,
        "centroid_mm": 0, "pq": 1, "sq": 1, "rq": 1,
    }  # fmt: skip
    assert found.scores.groupby("metric")["value"].unique().map(list).to_dict() == {
        metric: [value] for metric, value in perfect.items()
    }  # and no probabilities, no average precision of pixels
    assert set(found.scores["level"]) == {"L1", "L2", "all"}  # T12 is in the masks and is no level of the study
    assert found.instances[["iou", "confidence", "real"]].drop_duplicates().values.tolist() == [[1.0, 1.0, True]]
    assert (found.bodies["outcome"] == "right").all()


def test_scores_by_hand(cohort, tmp_path):
    found = evaluate(cohort, {"moved": write_label_maps(cohort, tmp_path / "moved", shift=2)})
    assert value(found, "f1", "L1") == pytest.approx([0.8])  # 8 of 10 rows
    assert value(found, "iou", "L1") == pytest.approx([8 / 12])
    assert value(found, "centroid_mm", "L1") == pytest.approx([2.0])
    assert value(found, "area_error", "L1") == [0]
    table = found.pixels.set_index(["true", "pred"])["pixels"]
    assert table[1, 1] == 8 * 20  # rows x columns of L1 that stay
    assert table[1, 0] == table[0, 1] == 2 * 20
    assert table.sum() == 64 * 48


def test_scores_on_disk_are_read_back_to_the_bit_and_refused_for_other_label_maps(dataset, tmp_path, cache):
    study = Study("smoke", dataset=str(dataset), runs=tmp_path / "runs", cache=cache)
    cohort = prepare(study)
    folders = {"moved": write_label_maps(cohort, tmp_path / "moved", shift=9)}  # L1 is missed, others are extra
    written = evaluate(cohort, folders)
    written.write(study, cohort, folders)
    read = Evaluation.read(study, cohort, folders)
    for name, table in vars(written).items():
        pd.testing.assert_frame_equal(getattr(read, name), table, check_exact=True, check_dtype=False, obj=name)
    assert "" in set(read.bodies["level"]) and "" in set(read.bodies["named"])
    others = {"perfect": write_label_maps(cohort, tmp_path / "perfect")}
    with pytest.raises(StudyError, match="has no scores of these label maps; run notebook 05 first"):
        Evaluation.read(study, cohort, others)


def test_probabilities_make_curves_reliability_and_average_precision(cohort, tmp_path):
    folder, case = write_label_maps(cohort, tmp_path / "maps"), cohort.cases[cohort.cases["split"] == "test"].iloc[0]
    sure = np.zeros((6, 64, 48), np.uint8)
    true = cohort.mask(case)
    sure[0][true == 1], sure[1][true == 2] = 255, 204  # 1.0 and 0.8
    np.savez_compressed(folder / f"{case['case']}.npz", probabilities=sure)
    found = evaluate(cohort, {"sure": folder})
    assert value(found, "ap_pixel", "L1") == [1.0]
    assert value(found, "ece", "all") == pytest.approx([0.1])  # half of the pixels are 0.2 less sure than right
    assert found.instances.set_index("level")["confidence"].to_dict() == pytest.approx({"L1": 1.0, "L2": 0.8})
    curve = found.curves.query("level == 'L2' and hits > 0")
    assert curve[["probability", "hits", "pixels"]].values.tolist() == [[204, 200, 200]]
    assert found.reliability["pixels"].sum() == 400


def test_a_level_that_is_not_annotated_is_left_out_of_every_score(cohort, tmp_path):
    folder = write_label_maps(cohort, tmp_path / "maps")
    for file in folder.glob("*.png"):
        label_map = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        label_map[-6:] = 6  # S1, which these masks do not outline
        cv2.imwrite(str(file), label_map)
    found = evaluate(cohort, {"more": folder})
    assert value(found, "pq", "all") == [1.0]
    assert set(found.bodies["outcome"]) == {"right"}
    assert found.pixels["pred"].max() == 2


def test_probabilities_that_exceed_one_are_refused_by_name(cohort, tmp_path):
    folder, case = write_label_maps(cohort, tmp_path / "maps"), cohort.cases[cohort.cases["split"] == "test"].iloc[0]
    np.savez_compressed(folder / f"{case['case']}.npz", probabilities=np.full((6, 64, 48), 128, np.uint8))
    with pytest.raises(StudyError, match=rf"{case['case']}.npz: probabilities of a pixel add up to 3.012"):
        evaluate(cohort, {"x": folder})
    np.savez_compressed(folder / f"{case['case']}.npz", probabilities=np.zeros((6, 8, 8), np.uint8))
    with pytest.raises(StudyError, match=r"holds uint8 of shape \(6, 8, 8\); write uint8 of shape"):
        evaluate(cohort, {"x": folder})


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
        label_maps(study, prepare(study))


def test_best_median_and_worst_case():
    rows = [(case, "L1", "unet", "f1", score) for case, score in zip("abcde", (0.2, 0.9, 0.5, 0.4, 0.7), strict=True)]
    assert best_median_worst(pd.DataFrame(rows, columns=["case", "level", "model", "metric", "value"]), "unet") == list(
        "bca"
    )


def test_the_worst_case_is_told_in_words(cohort, tmp_path):
    folder = write_label_maps(cohort, tmp_path / "maps")
    case = cohort.cases[cohort.cases["split"] == "test"].iloc[0]
    true = cohort.mask(case)
    cv2.imwrite(str(folder / f"{case['case']}.png"), np.where(true == 2, 1, 0).astype(np.uint8))
    (told,) = worst_cases(evaluate(cohort, {"unet": folder}), "unet")
    assert told == (case["case"], "F1 0.000: L1 missing; L2 named L1")


def test_examples_carry_what_a_figure_needs(cohort, tmp_path):
    case = cohort.cases[cohort.cases["split"] == "test"]["case"].iloc[0]
    (example,) = examples(cohort, [case], write_label_maps(cohort, tmp_path / "moved", shift=2))
    assert (example.case, example.spacing_mm, example.f1) == (case, 1.0, pytest.approx(0.8))
    assert example.image.shape == example.reference.shape == example.prediction.shape


def test_probabilities_are_read_as_written(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", probabilities=np.full((6, 2, 2), 34, np.uint8))
    assert read_probabilities(tmp_path, "a") == pytest.approx(np.full((6, 2, 2), 34 / 255))
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


def test_what_notebooks_left_is_read_together_and_missed_by_name(tmp_path):
    folders = {model: tmp_path / model / "label_maps" for model in ("unet", "other")}
    folders["unet"].mkdir(parents=True)
    with pytest.raises(StudyError, match=r"no model has history\.csv; run the training notebooks"):
        read_model_tables(folders, "history.csv")
    pd.DataFrame({"model": ["unet"], "epoch": [1]}).to_csv(tmp_path / "unet" / "history.csv", index=False)
    assert read_model_tables(folders, "history.csv").values.tolist() == [["unet", 1]]
