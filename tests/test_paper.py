"""Claims of the paper against numbers made up so that each verdict can be told by eye."""

import pandas as pd
import pytest

from lumbar_utils import METRICS, MODELS
from lumbar_utils.scores import paper
from lumbar_utils.scores.paper import NOT_TESTABLE, VERDICTS, claims

DATA = "77 test images, profile quick, three seeds"
PAIRS = [("unet", "hrnet"), ("unet", "efficientnet"), ("efficientnet", "hrnet")]


def judge(scores, table, data, seeds=3, synthetic=False):
    """Verdicts on images of patients, over three seeds."""
    return paper.judge(scores, table, data, seeds=seeds, synthetic=synthetic)


def summary(models=tuple(MODELS), metrics=tuple(METRICS)):
    rows = [(model, metric, 0.9, 0.85, 0.95, 77) for model in models for metric in metrics]
    return pd.DataFrame(rows, columns=["model", "metric", "value", "low", "high", "n"])


def differences(*rows):
    """(metric, first, second, low, high), with the difference half-way."""
    table = [(metric, first, second, (low + high) / 2, low, high) for metric, first, second, low, high in rows]
    return pd.DataFrame(table, columns=["metric", "first", "second", "difference", "low", "high"])


def as_the_paper_has_it():
    """Differences of the paper's own numbers, with intervals of +- 0.001."""
    rows = []
    for metric in METRICS:
        gains = [(pair, paper.result(pair[0], metric) - paper.result(pair[1], metric)) for pair in PAIRS]
        rows += [(metric, *pair, gain - 0.001, gain + 0.001) for pair, gain in gains]
    for model, row in paper.RESULTS.items():
        gap = row["recall"] - row["precision"]
        rows.append(("recall-precision", model, model, gap - 0.001, gap + 0.001))
    return differences(*rows)


def judged(scores, table):
    """Verdicts on what can be tested."""
    return judge(scores, table, DATA).query("verdict != 'not testable'")


def verdict_of(claim, table, place=None, scores=None):
    found = judge(summary() if scores is None else scores, table, DATA).set_index("claim")
    return found.loc[claim] if place is None else found[found["place"] == place].loc[claim]


def test_the_paper_s_own_numbers_support_its_table_and_contradict_its_conclusion_on_map():
    found = judge(summary(), as_the_paper_has_it(), DATA)
    against = found[~found["verdict"].isin(["supported", "not testable"])]
    assert against[["claim", "place", "verdict"]].values.tolist() == [
        ["U-Net has the highest mAP (pixels)", "conclusion", "contradicted"],
        ["U-Net has the highest mAP (COCO)", "conclusion", "contradicted"],
    ]


def test_every_claim_is_listed_once_in_words_of_its_own_with_its_place():
    assert [(words, place) for words, place, _ in claims()] == [
        ("U-Net has the highest Precision", "conclusion"),
        ("U-Net has the highest Recall", "conclusion"),
        ("U-Net has the highest F1", "conclusion"),
        ("U-Net has the highest mAP (pixels)", "conclusion"),
        ("U-Net has the highest mAP (COCO)", "conclusion"),
        ("EfficientNet has the highest mAP (pixels)", "table"),
        ("EfficientNet has the highest mAP (COCO)", "table"),
        ("HRNet has the lowest Precision", "table"),
        ("Precision: U-Net > EfficientNet > HRNet", "table"),
        ("Recall: U-Net > EfficientNet > HRNet", "table"),
        ("F1: U-Net > EfficientNet > HRNet", "table"),
        ("mAP (pixels): EfficientNet > U-Net > HRNet", "table"),
        ("mAP (COCO): EfficientNet > U-Net > HRNet", "table"),
        ("The recall of U-Net is below its precision", "table"),
        ("The recall of HRNet is above its precision", "table"),
        ("The recall of EfficientNet is above its precision", "table"),
    ]


@pytest.mark.parametrize(
    "to_hrnet, to_efficientnet, verdict",
    [
        pytest.param((0.01, 0.03), (0.02, 0.04), "supported", id="above both"),
        pytest.param((0.01, 0.03), (-0.01, 0.04), "undecided", id="above one only"),
        pytest.param((0.01, 0.03), (-0.04, -0.02), "contradicted", id="below one"),
        pytest.param((-0.01, 0.03), (-0.04, -0.02), "contradicted", id="below one, undecided on the other"),
        pytest.param((0.0, 0.03), (0.02, 0.04), "undecided", id="an interval that ends at 0"),
    ],
)
def test_a_leader_must_lead_both_and_is_refuted_by_one(to_hrnet, to_efficientnet, verdict):
    table = differences(("f1", "unet", "hrnet", *to_hrnet), ("f1", "unet", "efficientnet", *to_efficientnet))
    assert verdict_of("U-Net has the highest F1", table)["verdict"] == verdict


def test_the_order_of_a_difference_s_models_does_not_matter():
    one_way = differences(("f1", "unet", "hrnet", 0.01, 0.03), ("f1", "unet", "efficientnet", 0.02, 0.05))
    other_way = differences(("f1", "hrnet", "unet", -0.03, -0.01), ("f1", "efficientnet", "unet", -0.05, -0.02))
    pd.testing.assert_frame_equal(judge(summary(), one_way, DATA), judge(summary(), other_way, DATA))


@pytest.mark.parametrize(
    "low, high, unet, hrnet",
    [
        (0.1, 0.2, "contradicted", "supported"),
        (-0.2, -0.1, "supported", "contradicted"),
        (-0.1, 0.1, *["undecided"] * 2),
    ],
)
def test_recall_against_precision_is_judged_within_a_model(low, high, unet, hrnet):
    table = differences(*[("recall-precision", model, model, low, high) for model in MODELS])
    assert verdict_of("The recall of U-Net is below its precision", table)["verdict"] == unet
    assert verdict_of("The recall of HRNet is above its precision", table)["verdict"] == hrnet


def test_the_evidence_is_a_sentence_of_the_numbers_and_the_data():
    table = differences(("f1", "hrnet", "unet", -0.03, -0.01), ("f1", "unet", "efficientnet", 0.02, 0.04))
    assert verdict_of("U-Net has the highest F1", table)["evidence"] == (
        "F1, U-Net 0.9000 (n = 77) against HRNet 0.9000 (n = 77): +0.0200 (99 % interval +0.0100 to +0.0300); "
        "F1, U-Net 0.9000 (n = 77) against EfficientNet 0.9000 (n = 77): +0.0300 (99 % interval +0.0200 to +0.0400). "
        "Data: 77 test images, profile quick, three seeds."
    )


def test_every_evidence_says_on_which_data_it_was_obtained():
    assert judged(summary(), differences())["evidence"].str.endswith(f"Data: {DATA}.").all()


def test_without_any_number_every_claim_is_undecided():
    found = judged(summary(models=()), differences())
    assert set(found["verdict"]) == {"undecided"}
    assert found["evidence"].str.contains("was not measured").all()


@pytest.mark.parametrize(
    "scores, words",
    [
        pytest.param(summary(models=("unet", "efficientnet")), "as F1 of HRNet was not measured", id="model"),
        pytest.param(summary(metrics=("recall",)), "F1 of U-Net, F1 of HRNet was not measured", id="metric"),
        pytest.param(summary(), "as no interval of the difference was measured", id="difference"),
    ],
)
def test_what_was_not_measured_leaves_a_claim_undecided_and_is_named(scores, words):
    found = verdict_of("U-Net has the highest F1", differences(("f1", "unet", "efficientnet", 0.1, 0.2)), scores=scores)
    assert found["verdict"] == "undecided"
    assert words in found["evidence"]


def test_a_difference_without_an_interval_decides_nothing():
    table = differences(("f1", "unet", "hrnet", 0.1, 0.2), ("f1", "unet", "efficientnet", float("nan"), 0.2))
    assert verdict_of("U-Net has the highest F1", table)["verdict"] == "undecided"


def test_one_model_that_is_better_refutes_a_leader_whatever_is_missing():
    table = differences(("f1", "efficientnet", "unet", 0.1, 0.2))
    assert verdict_of("U-Net has the highest F1", table)["verdict"] == "contradicted"


def test_further_models_take_no_part():
    more = differences(("f1", "nnunet", "unet", 0.1, 0.2))
    table = as_the_paper_has_it()
    found = judge(summary((*MODELS, "nnunet")), pd.concat([table, more]), DATA)
    pd.testing.assert_frame_equal(found, judge(summary(), table, DATA))


def test_the_verdicts_are_the_documented_ones_and_what_cannot_be_tested_says_why():
    found = judge(summary(), as_the_paper_has_it(), DATA)
    assert set(found["verdict"]) <= set(VERDICTS)
    untested = found[found["verdict"] == "not testable"]
    assert untested["claim"].tolist() == [words for words, _, _ in NOT_TESTABLE]
    assert untested["evidence"].iloc[0] == "no score is named that would be too low."


def test_too_few_patients_decide_nothing():
    found = judge(summary().assign(n=5), as_the_paper_has_it(), DATA)
    assert set(found["verdict"]) == {"undecided", "not testable"}
    assert "of too few patients for an interval to hold (below 10)" in found["evidence"].iloc[0]


@pytest.mark.parametrize("seeds", [1, 2])
def test_of_fewer_than_three_seeds_a_claim_is_undecided_and_says_what_these_networks_did(seeds):
    found = judge(summary(), as_the_paper_has_it(), DATA, seeds=seeds).query("verdict != 'not testable'")
    assert set(found["verdict"]) == {"undecided"}
    assert found["evidence"].str.startswith("These trained networks, of fewer than 3 seeds, on these images: ").all()
    assert (
        "+0.2534 (99 % interval +0.2524 to +0.2544)"
        in found.set_index("claim").loc["U-Net has the highest F1", "evidence"]
    )


@pytest.mark.parametrize("seeds", [1, 3, 15])
def test_on_synthetic_images_no_claim_is_judged_however_many_the_seeds(seeds):
    found = judge(summary(), as_the_paper_has_it(), DATA, seeds=seeds, synthetic=True)
    assert set(found["verdict"]) == {"not judged", "not testable"}
    text = found.to_csv()
    assert "supported" not in text and "contradicted" not in text
    judged_on = found[found["verdict"] == "not judged"]["evidence"]
    assert judged_on.str.startswith("On synthetic images: ").all() and judged_on.str.contains("against").all()
