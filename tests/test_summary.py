"""From scores to numbers with intervals: patients are drawn, whatever the metric is made of."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lumbar_utils.output.tables import seeds_of
from lumbar_utils.scores import statistics, summary
from lumbar_utils.scores.evaluation import COLUMNS, Evaluation


def evaluation(rows, instances=(), **tables):
    """Of rows (case, patient, level, model, metric, value)."""
    scores = pd.DataFrame(rows, columns=COLUMNS["scores"])
    pixels = scores[["case", "patient", "model"]].drop_duplicates().assign(true=0, pred=0, pixels=1)
    made = {name: pd.DataFrame(columns=COLUMNS[name]) for name in ("bodies",)}
    made |= {"scores": scores, "pixels": pixels, "instances": pd.DataFrame(instances, columns=COLUMNS["instances"])}
    return Evaluation(**made | {"curves": pd.DataFrame(), "reliability": pd.DataFrame()} | tables)


def f1(values, model="unet", level="L1"):
    """One case a patient."""
    return [(f"c{n}", f"p{n}", level, model, "f1", value) for n, value in enumerate(values)]


def test_cases_are_averaged_within_patients_and_patients_before_levels():
    rows = [
        ("a1", "a", "L1", "unet", "f1", 1.0), ("a2", "a", "L1", "unet", "f1", 0.0),  # patient a: 0.5
        ("b1", "b", "L1", "unet", "f1", 0.9),  # level L1: (0.5 + 0.9) / 2 = 0.7
        ("b1", "b", "L2", "unet", "f1", 0.1),  # level L2: 0.1
    ]  # fmt: skip
    table = summary.summarise(evaluation(rows))
    assert table[["model", "metric", "n"]].values.tolist() == [["unet", "f1", 2]]
    assert table["value"].tolist() == pytest.approx([(0.7 + 0.1) / 2])
    assert table[["low", "high"]].isna().all(axis=None)  # two patients tell nothing of a third


def test_the_interval_of_a_mean_is_scipy_s_expanded_for_few_patients():
    expanded = 2 * stats.norm.cdf((30 / 29) ** 0.5 * stats.t.ppf(0.975, 29)) - 1
    values = np.random.default_rng(0).beta(8, 2, 30)
    row = summary.summarise(evaluation(f1(values))).iloc[0]
    expected = stats.bootstrap(
        (np.array([values[n] for n in sorted(range(30), key=str)]),), np.mean, n_resamples=2000, method="BCa",
        rng=np.random.default_rng(0), confidence_level=expanded,
    ).confidence_interval  # fmt: skip
    assert row[["low", "high"]].tolist() == pytest.approx(list(expected), abs=1e-12)
    assert row["n"] == 30


def test_a_patient_without_a_value_is_not_drawn():
    rows = [*f1([0.2, 0.4, 0.6, 0.8]), ("c9", "p9", "L1", "unet", "precision", 0.5)]
    table = summary.summarise(evaluation(rows)).set_index("metric")
    assert table.loc["f1", ["value", "n"]].tolist() == [pytest.approx(0.5), 4]


def test_average_precision_of_whole_vertebrae_draws_patients_with_all_their_images():
    instances = [(f"c{n}", f"p{n // 2}", "L1", "unet", iou, 0.9, True) for n, iou in enumerate([1.0, 1.0, 0.0, 0.0])]
    found = evaluation(f1([1, 1, 0, 0]), instances)
    found.pixels["patient"] = [f"p{n // 2}" for n in range(4)]
    of = summary.statistic(found, "unet", "map_coco")
    both, first, second = of(np.array([[0, 1], [0, 0], [1, 1]]))
    assert (first, second) == (1.0, 0.0)
    assert 0 < both < 1
    assert of(np.array([0, 1])) == both


def test_differences_are_of_the_same_patients():
    rows = f1([0.5, 0.6, 0.7, 0.8, 0.9]) + f1([0.4, 0.5, 0.6, 0.7], "hrnet")  # the second lacks a patient
    rows += [(case, patient, level, model, "recall", 0.9) for case, patient, level, model, _, _ in rows]
    rows += [(case, patient, level, model, "precision", 0.6) for case, patient, level, model, *_ in f1([0] * 5)]
    table = summary.differences(evaluation(rows), ["f1"]).set_index("metric")
    assert table.loc["f1", ["first", "second"]].tolist() == ["unet", "hrnet"]
    assert table.loc["f1", ["difference", "low", "high"]].tolist() == pytest.approx([0.1, 0.1, 0.1])
    assert table.loc["recall-precision", ["first", "second"]].tolist() == ["unet", "unet"]
    assert table.loc["recall-precision", "difference"] == pytest.approx(0.3)


def of_seeds(gaps):
    """Scores of two networks on ten patients, under seeds: the first is better by the gap of a seed."""
    rows, cases = [], []
    for seed, gap in enumerate(gaps):
        for patient in range(10):
            case, level = f"c{patient}.seed{seed}", 0.5 + 0.01 * patient
            cases.append((case, seed))
            rows.append((case, f"p{patient}", "L1", "unet", "f1", level + gap))
            rows.append((case, f"p{patient}", "L1", "hrnet", "f1", level))
    return evaluation(rows), pd.DataFrame(cases, columns=["case", "seed"]).assign(fold=0)


def test_over_seeds_a_difference_has_the_t_interval_of_its_seeds_where_patients_agree():
    found, cases = of_seeds([0.1, 0.2, 0.3])
    row = summary.differences(found, ["f1"], cases).iloc[0]
    half = stats.t.ppf(0.975, 2) * 0.1 / 3**0.5  # the standard deviation of 0.1, 0.2 and 0.3 is 0.1
    assert row[["difference", "low", "high"]].tolist() == pytest.approx([0.2, 0.2 - half, 0.2 + half])
    wider = summary.differences(found, ["f1"], cases, confidence=0.99).iloc[0]
    half = stats.t.ppf(0.995, 2) * 0.1 / 3**0.5
    assert wider[["difference", "low", "high"]].tolist() == pytest.approx([0.2, 0.2 - half, 0.2 + half])


def test_a_seed_that_lacks_a_fold_is_no_training_more():
    found, cases = of_seeds([0.1, 0.2, 0.3])
    second = cases["case"].str.contains("c[5-9]").astype(int)  # on which every seed but the last was run too
    cases = cases.assign(fold=second)[(cases["seed"] < 2) | (second == 0)]
    assert len(summary.split_by_seed(found, cases)) == seeds_of(cases) == 2


def test_without_seeds_or_with_one_a_difference_has_its_interval_over_patients():
    found, cases = of_seeds([0.1])
    for table in (summary.differences(found, ["f1"]), summary.differences(found, ["f1"], cases)):
        assert table.iloc[0][["difference", "low", "high"]].tolist() == pytest.approx([0.1, 0.1, 0.1])


def test_the_widths_over_patients_and_seeds_add_up_as_independent_errors_do():
    low, high = statistics.interval_over_seeds(0.5, 0.2, 0.9, np.array([0.4, 0.6]))
    half = stats.t.ppf(0.975, 1) * np.std([0.4, 0.6], ddof=1) / 2**0.5
    assert low == pytest.approx(0.5 - (0.3**2 + half**2) ** 0.5)
    assert high == pytest.approx(0.5 + (0.4**2 + half**2) ** 0.5)


def test_per_patient_is_the_mean_over_levels():
    table = summary.per_patient(evaluation(f1([0.5, 0.7]) + f1([0.7], level="L2")))
    assert table["unet"].to_dict() == pytest.approx({"p0": 0.6, "p1": 0.7})


def test_groups_by_hand():
    cases = pd.DataFrame({"case": ["c0", "c1"], "contrast": ["T1", None], "spacing_mm": [0.5, 0.75]})
    cases["findings"] = ["wedge L1; spur L1", None]
    table = summary.by_group(evaluation(f1([0.5, 0.9]) + f1([0.7], level="L2")), cases)
    values = table.set_index(["kind", "group"])["value"].to_dict()
    assert values == pytest.approx({
        ("level", "L1"): 0.7, ("level", "L2"): 0.7, ("contrast", "T1"): 0.6, ("contrast", "unknown"): 0.9,
        ("spacing", "0.50 mm"): 0.6, ("spacing", "0.75 mm"): 0.9, ("finding", "wedge"): 0.5, ("finding", "spur"): 0.5,
        ("finding", "none"): 0.8,
    })  # fmt: skip
    assert table.set_index(["kind", "group"])["n"].to_dict()["level", "L1"] == 2


@pytest.mark.parametrize(
    "findings, level, expected",
    [
        pytest.param("fracture", "L1", ["fracture"], id="of every vertebra"),
        pytest.param("wedge L2; old fracture", "L1", ["old fracture"], id="of another vertebra, and of all"),
        pytest.param("wedge L2; old fracture", "L2", ["wedge", "old fracture"], id="of this one, and of all"),
        pytest.param("wedge T12", "L1", ["none"], id="of a vertebra without scores"),
        pytest.param("wedge L1\nspur L2", "L2", ["spur"], id="one a line"),
        pytest.param(3, "L1", ["3"], id="a number"),
        pytest.param(None, "L1", ["none"], id="nothing"),
        pytest.param(" ; ", "L1", ["none"], id="separators alone"),
    ],
)
def test_findings_in_free_text_belong_to_their_level_or_to_all(findings, level, expected):
    cases = pd.DataFrame({"case": ["c0"], "findings": [findings], "spacing_mm": [np.nan]})
    table = summary.by_group(evaluation(f1([0.5], level=level)), cases)
    assert table.loc[table["kind"] == "finding", "group"].tolist() == expected


@pytest.mark.parametrize("many", [2, 11])
def test_a_spacing_that_is_not_known_is_a_group_of_its_own(many):
    spacings = [*(0.5 + 0.1 * n for n in range(many)), np.nan]
    cases = pd.DataFrame({"case": [f"c{n}" for n in range(many + 1)], "spacing_mm": spacings})
    table = summary.by_group(evaluation(f1([0.5] * (many + 1))), cases)
    groups = table.loc[table["kind"] == "spacing", "group"].tolist()
    assert "unknown" in groups and len(groups) == min(many, 3) + 1
    assert all(name == "unknown" or name.endswith(" mm") for name in groups)


def test_degraded_images_are_averaged_within_patients_and_patients_before_strengths():
    rows = [("a", "p", 0.2), ("b", "p", 0.6), ("c", "q", 0.8), ("d", "q", np.nan), ("e", "r", np.nan)]
    images = pd.DataFrame(rows, columns=["case", "patient", "f1"]).assign(model="unet", kind="blur", unit="px")
    table = summary.by_strength(pd.concat([images.assign(strength=0.0), images.assign(strength=2.0, f1=0.1)]))
    assert table["strength"].tolist() == [0, 2] and table["value"].tolist() == pytest.approx([0.6, 0.1])
    assert table["n"].tolist() == [2, 3] and table["images"].tolist() == [5, 5]
    assert table["low"].isna().tolist() == [True, False]  # two patients are too few


def test_models_stand_in_the_paper_s_order_then_the_others():
    rows = [row for model in ("mine", "efficientnet", "unet") for row in f1([0.5], model)]
    assert summary.models_of(evaluation(rows)) == ["unet", "efficientnet", "mine"]


def found_in_runs():
    """Two patients, a seed on two folds, one level: U-Net 0.9 and 0.7, HRNet 0.8 both times."""
    rows = [("a", "p", "L1", "unet", "f1", 0.9), ("b", "q", "L1", "unet", "f1", 0.7)]
    rows += [("a", "p", "L1", "hrnet", "f1", 0.8), ("b", "q", "L1", "hrnet", "f1", 0.8)]
    cases = pd.DataFrame({"case": ["a", "b"], "patient": ["p", "q"], "seed": [0, 0], "fold": [0, 1]})
    return evaluation(rows), cases


def test_each_run_has_its_own_score_and_a_leader():
    runs = summary.by_run(*found_in_runs())
    assert runs.set_index(["model", "fold"])["value"].to_dict() == {
        ("unet", 0): 0.9, ("unet", 1): 0.7, ("hrnet", 0): 0.8, ("hrnet", 1): 0.8,
    }  # fmt: skip
    assert summary.leads(runs).to_dict() == {"unet": 1, "hrnet": 1}


def test_the_spread_of_one_run_is_not_taken_apart():
    found, cases = found_in_runs()
    assert summary.variance_of_runs(found, cases.assign(fold=0)).empty
    assert summary.variance_of_runs(found, cases)["what"].unique().tolist() == ["unet", "hrnet", "unet - hrnet"]
