"""A caption tells the numbers of its figure's table, of how many patients, and on what data."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from test_figures import (
    bins,
    costs,
    curves,
    data_tables,
    differences,
    f1_of_each,
    history,
    naming,
    of_runs,
    parts,
    scores,
    spread_of_runs,
    table2,
    universe,
    worse,
)

from lumbar_utils.data.folder import Cohort
from lumbar_utils.output import figures, tables
from lumbar_utils.output.viewer import Example
from lumbar_utils.scores.instances import summarise_instances


def cohort(synthetic=True, tested=1):
    """Two patients to train on, one to validate on, and some to test on; one image each."""
    sides = ["train", "train", "validation", *["test"] * tested]
    cases = pd.DataFrame({"split": sides, "patient": range(len(sides)), "case": range(len(sides))})
    return Cohort(None, "slices", "CC0", synthetic, {}, ("L1", "L2"), cases, "")


def matched():
    """Of four vertebrae two are found and rightly named, one is found and named L1, one is not found."""
    return naming().assign(patient="a", hd95=1.0, unit="mm", merged=False, split=False)


def shown():
    image = np.zeros((4, 4), np.uint8)
    return [Example("x", image, image, 1.0, image, 0.9), Example("y", image, image, 1.0, image, 0.25)]


def of_a_grid(data):
    """Only test cases, as a grid gathers them."""
    return dataclasses.replace(data, cases=data.cases[data.cases["split"] == "test"])


FINDINGS = pd.DataFrame({"severity": ["error", "warning", "warning"]})
WORST = ["U-Net, x\nF1 0.412: L1 missing; an\nextra S1"]
CAPTIONS = {
    "audit": (
        lambda data: figures.audit_caption(FINDINGS, tables.describe_data(data, "all")),
        "(error 1, warning 2, accepted 0)",
    ),
    "samples": (
        lambda data: figures.samples_caption(shown(), data),
        "of 2 patients with the reference contours of L1, L2",
    ),
    "overview": (
        lambda data: figures.data_overview_caption(data_tables()[1], data),
        "centres of 2 vertebrae, (d) patients to train on (2), to validate on (1) and to test on (1)",
    ),
    "learning": (lambda data: figures.learning_curves_caption(history(), data), "U-Net 0.300 (epoch 3 of 3)"),
    "learning of a grid": (
        lambda data: figures.learning_curves_caption(history(), of_a_grid(data)),
        "Means over runs, each with its own validation images. Data: ",
    ),
    "comparison": (
        lambda data: figures.comparison_caption(table2(), data),
        "F1: U-Net 0.9500 [0.850, 1.000], mine 0.5000 [0.400, 0.550]; n = 7.",
    ),
    "differences": (
        lambda data: figures.paired_differences_caption(differences(), data),
        "F1: U-Net - HRNet 0.1000 [0.050, 0.150].",
    ),
    "multiverse": (
        lambda data: figures.multiverse_caption(universe(), data),
        "Of 2 definitions of F1, U-Net leads under 2, HRNet leads under 1.",
    ),
    "precision_recall": (
        lambda data: figures.precision_recall_caption(curves(), data),
        "there is no interval. Average precision (AP) of any level: HRNet 0.889, U-Net 1.000.",
    ),
    "by level": (
        lambda data: figures.scores_by_level_caption(scores(), data),
        "(n = 4) by level. Lowest mean over patients: U-Net 0.800 at S1",
    ),
    "errors": (
        lambda data: figures.errors_caption(summarise_instances(matched()), data),
        "U-Net found 75.0 % of 4, of these 66.7 % rightly named, with outlines of F1 0.833 whatever the name",
    ),
    "confusion": (
        lambda data: figures.confusion_caption(naming(), naming().assign(named=naming()["level"]), data),
        "Under their own name: U-Net 50.0 %, then 100.0 %",
    ),
    "groups": (
        lambda data: figures.groups_caption(parts(), data),
        "F1 in parts of the test set by level, contrast, with 95 % bootstrap",
    ),
    "reliability": (lambda data: figures.reliability_caption(bins(), data), "calibration error: U-Net 8.0 %"),
    "robustness": (
        lambda data: figures.robustness_curves_caption(worse(), data),
        "(n = 3, 5 images). From untouched images on: U-Net 0.900, lowest 0.700 (noise)",
    ),
    "cost": (
        lambda data: figures.cost_against_accuracy_caption(costs(), f1_of_each(), data),
        "U-Net 31.00 million parameters, 20.0 ms; HRNet 9.00 million parameters, 10.0 ms. F1: U-Net 0.9000",
    ),
    "predictions": (
        lambda data: figures.predictions_caption(shown(), "hrnet", data),
        "the worst by F1: x (0.900), y (0.250). From left to right: image, reference, prediction, differences. The "
        "reference does not annotate L3, L4, L5, S1: drawn where predicted, and no difference.",
    ),
    "worst": (lambda data: figures.worst_caption(WORST, data), "the reference dashed: U-Net, x (F1 0.412)."),
    "overlay": (lambda data: figures.overlay_caption("unet", 2, data), "Label maps of U-Net over 2 of 4 "),
}


@pytest.mark.parametrize("name", CAPTIONS)
def test_a_caption_tells_its_numbers_and_its_data(name):
    write, numbers = CAPTIONS[name]
    assert numbers in write(cohort())
    assert "which say nothing about patients, of" in write(cohort())
    assert "(slices)" in write(cohort(synthetic=False)) and "synthetic" not in write(cohort(synthetic=False))


def test_scores_of_too_few_patients_have_no_interval_and_say_so():
    text = figures.comparison_caption(table2().assign(low=np.nan, high=np.nan), cohort())
    assert "without intervals, for which patients are too few" in text and "F1: U-Net 0.9500, mine 0.5000" in text


def test_intervals_over_fewer_than_ten_patients_are_doubted():
    assert "(below 10 patients they do not hold)" in figures.comparison_caption(table2(), cohort(tested=9))
    assert "below 10" not in figures.comparison_caption(table2(), cohort(tested=10))


def test_the_lowest_part_is_named_with_its_patients():
    assert "The lowest is 0.7000, of U-Net for T2 (n = 2)." in figures.groups_caption(parts(), cohort())


def test_a_network_that_finds_nothing_is_not_said_to_name_it_rightly():
    nothing = matched().query("level != ''").assign(outcome="missing", named="", f1=np.nan)
    assert "U-Net found none of 4." in figures.errors_caption(summarise_instances(nothing), cohort())


def test_a_diagram_s_caption_counts_its_parameters_and_those_unused():
    stages = pd.DataFrame({"parameters": [1_000_000, 500_000], "height": [32, 64], "width": [48, 96]})
    assert "1.50 million parameters. Each box" in figures.architecture_caption("unet", stages)
    text = figures.architecture_caption("tu-resnet34", stages, unused=250_000)
    assert text.startswith("tu-resnet34 as built for this study: 1.75 million parameters, 0.25 million of them unused")
    assert text.endswith("input and output have 64 x 96 pixels.")


def test_the_caption_of_runs_says_in_how_many_each_leads():
    text = figures.runs_caption(of_runs(), spread_of_runs(), cohort())
    assert "Highest: U-Net in 3, HRNet in 1." in text and "75.0 % for U-Net" in text
