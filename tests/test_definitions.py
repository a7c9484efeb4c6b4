"""Every definition by hand, on two images of one level each."""

import numpy as np
import pandas as pd
import pytest
from test_summary import evaluation

from lumbar_utils.appendix.definitions import nearest_to_paper, score_definitions, spread_over_definitions


def counted(cells, model="unet", levels=("L1", "L2")):
    """An Evaluation of pixels: cells (case, true, pred, pixels), one patient a case."""
    table = pd.DataFrame([(case, f"p{case}", model, *cell) for case, *cell in cells],
                         columns=["case", "patient", "model", "true", "pred", "pixels"])  # fmt: skip
    blank = [(level, step, 0, 0) for level in (*levels, "vertebra") for step in range(256)]
    curves = pd.DataFrame(blank, columns=["level", "probability", "hits", "pixels"]).assign(model=model)
    instances = [("a", "pa", "L1", model, 1.0, 1.0, True)]
    return evaluation([("a", "pa", "L1", model, "f1", 1.0)], instances, pixels=table, curves=curves)


# image a: L1 10 px, all found, and 10 px invented; image b: L1 30 px, 15 found; L2 in neither; 1000 px of background
CELLS = [("a", 1, 1, 10), ("a", 0, 1, 10), ("a", 0, 0, 990), ("b", 1, 1, 15), ("b", 1, 0, 15), ("b", 0, 0, 1000)]


@pytest.mark.parametrize(
    "definition, precision, recall, f1",
    [
        ("all images; each level", 25 / 35, 25 / 40, 50 / 75),
        ("all images; each level, and background", (25 / 35 + 1990 / 2005) / 2, (25 / 40 + 0.995) / 2, None),
        ("all images; levels together", 25 / 35, 25 / 40, 50 / 75),
        ("all images; levels together, and background", 2015 / 2040, 2015 / 2040, 2015 / 2040),  # plain accuracy
        ("all images; any vertebra", 25 / 35, 25 / 40, 50 / 75),
        ("per image; each level; absent left out", 0.75, 0.75, 2 / 3),
        ("per image; each level; absent as 0", 0.375, 0.375, 1 / 3),
        ("per image; each level; absent as 1", 0.875, 0.875, 5 / 6),
        ("per image; any vertebra; absent left out", 0.75, 0.75, 2 / 3),
        ("per image; each level; absent left out; F1 of the means", 0.75, 0.75, 0.75),
    ],
)
def test_a_definition_by_hand(definition, precision, recall, f1):
    universe = score_definitions(counted(CELLS))
    values = universe[universe["definition"] == definition].set_index("metric")["value"]
    assert values["precision"] == pytest.approx(precision)
    assert values["recall"] == pytest.approx(recall)
    if f1 is not None:
        assert values["f1"] == pytest.approx(f1)


def test_patients_are_averaged_before_they_are_counted():
    found = counted([*CELLS, ("c", 1, 1, 10), ("c", 0, 0, 990)])
    found.pixels.loc[found.pixels["case"] == "c", "patient"] = "pb"  # b and c are of one patient
    found.instances.loc[0, "patient"] = "pa"
    universe = score_definitions(found).set_index(["definition", "metric"])["value"]
    assert universe["per patient; each level; absent left out", "recall"] == pytest.approx((1 + (0.5 + 1) / 2) / 2)
    assert universe["per image; each level; absent left out", "recall"] == pytest.approx((1 + 0.5 + 1) / 3)


def test_average_precision_of_label_maps_is_scikit_learn_s():
    from sklearn.metrics import average_precision_score

    truth = np.repeat([1, 1, 0, 0], [25, 15, 10, 1990])
    said = np.repeat([1, 0, 1, 0], [25, 15, 10, 1990])
    universe = score_definitions(counted(CELLS, levels=("L1",))).set_index("definition")["value"]
    assert universe["pixels, each level, label maps"] == pytest.approx(average_precision_score(truth, said))


def universe():
    rows = [
        ("a", "f1", "unet", 0.9), ("a", "f1", "hrnet", 0.5), ("a", "f1", "efficientnet", 0.7),
        ("b", "f1", "unet", 0.6), ("b", "f1", "hrnet", 0.8), ("b", "f1", "efficientnet", 0.7),
        ("x", "map", "unet", 0.7084), ("x", "map", "hrnet", 0.6568), ("x", "map", "efficientnet", 0.7666),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["definition", "metric", "model", "value"])


def test_the_spread_tells_how_far_numbers_move_and_who_leads():
    row = spread_over_definitions(universe()).set_index("metric").loc["f1"]
    assert row[["definitions", "orders", "unet_leads", "hrnet_leads"]].tolist() == [2, 2, 1, 1]
    assert row[["unet_low", "unet_high"]].tolist() == [0.6, 0.9]


def test_definitions_that_differ_in_no_number_are_counted_once_and_a_shared_lead_is_shared():
    twice = pd.concat([universe(), universe().assign(definition=lambda table: table["definition"] + ", again")])
    tied = pd.DataFrame({"definition": "c", "metric": "f1", "model": ["unet", "hrnet"], "value": 0.9})
    row = spread_over_definitions(pd.concat([twice, tied])).set_index("metric").loc["f1"]
    assert row[["definitions", "unet_leads", "hrnet_leads"]].tolist() == [3, 2, 2]


def test_a_model_without_probabilities_has_fewer_definitions_and_stops_nothing():
    found = counted(CELLS)
    silent = counted(CELLS, model="other")
    parts = {name: pd.concat([getattr(one, name) for one in (found, silent)], ignore_index=True)
             for name in ("pixels", "curves", "instances", "scores")}  # fmt: skip
    parts["curves"].loc[parts["curves"]["model"] == "unet", ["hits", "pixels"]] = 1
    row = spread_over_definitions(score_definitions(evaluation([], **parts))).set_index("metric").loc["map"]
    assert row["orders"] == 1


def test_the_nearest_definition_is_the_paper_s_own():
    table = nearest_to_paper(universe())
    best = table[table["kind"] == "mAP"].iloc[0]
    assert best[["definition", "distance", "pattern", "same_order"]].tolist() == ["x", 0, 0, 1]
    assert table[table["kind"] != "mAP"]["definition"].tolist() == ["a", "b"]
