"""Costs counted by hand on layers small enough for it, measured once, and drawn where they belong."""

import pandas as pd
import pytest
import torch
from torch import nn

from lumbar_utils import StudyError
from lumbar_utils.appendix.cost import cost, latencies_ms, memory_mb, multiply_adds
from lumbar_utils.data.preparation import prepare
from lumbar_utils.networks.models import UNet
from lumbar_utils.networks.training import fit
from lumbar_utils.output import figures
from lumbar_utils.output.figures.variation import COSTS, cost_against_accuracy
from lumbar_utils.study import Study

ONE_LAYER = nn.Conv2d(1, 8, 3, padding=1, bias=False)


@pytest.mark.parametrize(
    "layers, expected",
    [
        pytest.param([ONE_LAYER], 8 * 9 * 64 * 32, id="3x3, 1 to 8 channels"),
        pytest.param([ONE_LAYER, nn.Conv2d(8, 8, 3, padding=1, groups=8)], 2 * 8 * 9 * 64 * 32, id="depthwise"),
        pytest.param([nn.Conv2d(1, 4, 3, padding=1, stride=2)], 4 * 9 * 32 * 16, id="stride 2"),
        pytest.param([ONE_LAYER, nn.ConvTranspose2d(8, 4, 2, stride=2)], (72 + 8 * 4 * 4) * 64 * 32, id="transposed"),
        pytest.param([ONE_LAYER, nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)], 72 * 64 * 32, id="the rest is free"),
    ],
)
def test_multiply_adds_match_a_count_by_hand(layers, expected):
    assert multiply_adds(nn.Sequential(*layers), 64, 32) == expected


def test_multiply_adds_are_counted_without_computing():
    with torch.device("meta"):
        network = UNet(8)
    assert multiply_adds(network, 64, 64) == multiply_adds(UNet(8), 64, 64)


def test_memory_is_the_weights_the_image_and_the_tensors_alive_at_once():
    image, maps = 4 * 64 * 32, 4 * 8 * 64 * 32
    two = nn.Sequential(ONE_LAYER, nn.Conv2d(8, 8, 1, bias=False))
    bytes_at_peak = 4 * (72 + 64) + image + 2 * maps  # the first layer's output is the second one's input
    assert memory_mb(two, 64, 32, "cpu") == pytest.approx(bytes_at_peak / 1e6, rel=1e-9)


def test_latency_is_of_passes_after_the_warm_up():
    found = latencies_ms(ONE_LAYER, 64, 32, "cpu")
    assert len(found) == 30 and min(found) > 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cache):
    """A study of two epochs, its cohort, and what its U-Net cost."""
    study = Study("smoke", runs=tmp_path_factory.mktemp("runs"), cache=cache, device="cpu")
    cohort = prepare(study)
    history = fit(study, cohort, "unet")
    return study, cohort, history, cost(study, cohort, "unet")


def test_a_trained_network_s_cost_is_told_with_where_it_was_measured(trained):
    _, _, history, spent = trained
    assert spent["model"] == spent.name == "unet"
    assert spent["parameters"] == sum(weights.numel() for weights in UNet(4).parameters())
    assert spent["multiply_adds"] == multiply_adds(UNet(4), 64, 64)
    assert spent["epochs"] == 2
    assert spent["training_seconds"] == pytest.approx(history["seconds"].sum(), abs=0.1)
    assert spent["latency_low_ms"] <= spent["latency_ms"] <= spent["latency_high_ms"]
    assert (spent["device"], spent["threads"]) == ("cpu", torch.get_num_threads())
    assert "GPU: " in spent["measured_on"] and "GPU: " in spent["trained_on"]


def test_a_cost_is_measured_once(trained):
    study, cohort, _, spent = trained
    assert cost(study, cohort, "unet").equals(spent)


def test_a_network_that_is_not_trained_has_no_cost(trained):
    study, cohort, *_ = trained
    with pytest.raises(StudyError, match=r"hrnet is not trained in .*; run its training notebook first"):
        cost(study, cohort, "hrnet")


def costs():
    rows = [("unet", 2e6, 3e9, 20.0, 18.0, 25.0, 120.0), ("hrnet", 4e6, 1e9, 40.0, 39.0, 41.0, 240.0)]
    names = ["model", "parameters", "multiply_adds", "latency_ms", "latency_low_ms", "latency_high_ms"]
    return pd.DataFrame(rows, columns=[*names, "training_seconds"])


def summary():
    rows = {"model": ["unet", "hrnet", "unet"], "metric": ["f1", "f1", "recall"]}
    return pd.DataFrame(rows).assign(value=0.9, low=0.8, high=0.95)


def test_a_panel_a_cost_in_the_unit_of_its_axis_with_its_interval():
    fig = cost_against_accuracy(costs(), summary(), "synthetic images")
    assert fig.get_figwidth() == figures.PAGE and fig.get_supxlabel() == "synthetic images"
    unet = [ax.lines[0].get_xydata().tolist() for ax in fig.axes]
    assert unet == [[[x, 0.9]] for x in (2, 3, 20, 2)]
    assert [ax.get_xlabel() for ax in fig.axes] == [name for name, _ in COSTS.values()]
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["U-Net", "HRNet"]
    assert fig.axes[0].get_ylabel() == "F1, 95 % interval"
    assert fig.axes[0].collections[0].get_segments()[0].tolist() == [[2, 0.8], [2, 0.95]]
    latency = fig.axes[2].collections[1].get_segments()[0]
    assert latency.tolist() == [[18, 0.9], [25, 0.9]]
