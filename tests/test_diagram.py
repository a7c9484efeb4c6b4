"""Diagrams of networks hold every parameter, every measured shape and every connection."""

import pandas as pd
import pytest
from test_figures import texts

from lumbar_utils.networks.diagram import describe, unused_parameters
from lumbar_utils.networks.models import build
from lumbar_utils.output import figures


@pytest.mark.parametrize(
    "model, spare",
    [("unet", 0), ("hrnet", 0), ("efficientnet", 320 * 1280 + 2 * 1280), ("tu-resnet18", 0), ("tu-convnext_atto", 0)],
    ids=["unet", "hrnet", "efficientnet", "resnet", "convnext"],
)
def test_a_diagram_accounts_for_every_parameter_and_measured_shape(model, spare):
    network = build(model, unet_channels=8, hrnet="hrnet_w18_small")
    stages, connections = describe(network, 64, 96)
    assert unused_parameters(network, stages) == spare
    assert stages["parameters"].sum() + spare == sum(weights.numel() for weights in network.parameters())
    assert stages.iloc[-1][["channels", "height", "width", "stride"]].tolist() == [7, 64, 96, 1]
    assert network.training
    fig = figures.architecture(stages, connections, "title", spare)
    assert set(stages["name"]) <= {text.replace("\n", " ") for text in texts(fig)}
    assert f"{sum(w.numel() for w in network.parameters()) / 1e6:.2f} million" in " ".join(texts(fig))


@pytest.mark.parametrize(
    "model, expected",
    [("unet", {1: 2, 2: 2, 4: 2, 8: 2})]
    + [(model, {2: 2, 4: 2, 8: 2, 16: 2}) for model in ("efficientnet", "tu-resnet18")],
)
def test_skip_connections_join_stages_of_one_resolution(model, expected):
    stages, connections = describe(build(model, unet_channels=8), 64, 64)
    skips = connections[connections["kind"] == "skip"]
    ends = pd.concat([stages.loc[skips["source"], "stride"], stages.loc[skips["target"], "stride"]])
    assert ends.value_counts().to_dict() == expected


def test_hrnet_s_branches_exchange_with_one_another():
    stages, connections = describe(build("hrnet", hrnet="hrnet_w18_small"), 64, 64)
    last = stages[stages["column"] == 4]
    assert last["stride"].tolist() == [4, 8, 16, 32]
    assert connections["target"].isin(last.index).sum() == 3 * 4
