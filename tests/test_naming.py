"""Names are counted vertebra by vertebra, and put in order beside what the network said."""

import dataclasses

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import write_dataset

from lumbar_utils.data.preparation import prepare
from lumbar_utils.scores.evaluation import evaluate
from lumbar_utils.scores.naming import put_in_order, summarise_names
from lumbar_utils.study import Study


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
    own, in_order = evaluate(cohort, {"a": folder}), evaluate(cohort, put_in_order(cohort, {"a": folder}))
    assert [file.name for file in (tmp_path / "ordered").iterdir()] == [f"{case}.png"]
    assert own.bodies["named"].tolist() == ["L2", "L2"]
    assert in_order.bodies["named"].tolist() == ["L1", "L2"]
    assert summarise_names(own, in_order).set_index("metric")["value"].to_dict() == pytest.approx({
        "F1, own names": (0 + 2 / 3) / 2, "F1, in order": 1.0, "right, own names": 0.5, "right, in order": 1.0,
    })  # fmt: skip


def test_a_method_without_probabilities_is_not_put_in_order(cohort, tmp_path):
    assert put_in_order(cohort, {"other": tmp_path}) == {}


def test_where_one_case_has_no_probabilities_nothing_is_put_in_order(cohort, tmp_path):
    several = dataclasses.replace(cohort, cases=cohort.cases.assign(split="test"))
    (tmp_path / f"{cohort.cases['case'].iloc[0]}.npz").write_text("not looked into, since others are missing")
    assert put_in_order(several, {"a": tmp_path}) == {}


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
    for sureness, names, (_, case) in zip((240, 150), ((1, 2), (2, 3)), test.iterrows(), strict=True):
        true, chances = cohort.mask(case), np.zeros((6, 64, 48), np.uint8)  # the second slice is wrong, and less sure
        for value, name in zip((1, 2), names, strict=True):
            chances[name - 1][true == value] = sureness
        np.savez_compressed(maps / f"{case['case']}.npz", probabilities=chances)
    named = evaluate(cohort, put_in_order(cohort, {"a": maps})).bodies["named"]
    assert named.tolist() == ["L1", "L2", "L1", "L2"]
