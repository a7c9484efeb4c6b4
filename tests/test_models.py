"""The networks are those of their papers, and can learn."""

import pytest
import timm
import torch

from lumbar_utils import MODELS, StudyError
from lumbar_utils.networks.dataset import seed_of
from lumbar_utils.networks.losses import loss_of
from lumbar_utils.networks.models import build, upsample, upsample_by_matrices

NARROW = {"unet_channels": 8, "hrnet": "hrnet_w18_small"}


@pytest.mark.parametrize(
    "model, parameters, millions",
    [("unet", 31036871, 31.0), ("hrnet", 9636715, 9.6), ("efficientnet", 6251763, 6.3)],
)
def test_full_size_networks_have_the_parameters_of_their_papers(model, parameters, millions):
    count = sum(weights.numel() for weights in build(model).parameters())
    assert count == parameters
    assert round(count / 1e6, 1) == millions


@pytest.mark.parametrize("model", MODELS)
def test_a_logit_a_class_for_every_pixel(model):
    network = build(model, **NARROW).eval()
    with torch.inference_mode():
        logits = network(torch.randn(2, 1, 64, 96))
    assert logits.shape == (2, 7, 64, 96)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "tf_efficientnet_lite0"])
def test_any_encoder_of_timm_takes_the_place_of_the_three(name):
    network = build(f"tu-{name}").eval()
    with torch.inference_mode():
        assert network(torch.randn(2, 1, 64, 96)).shape == (2, 7, 64, 96)
    features = timm.create_model(name, features_only=True, in_chans=1)
    assert sum(w.numel() for w in network.encoder.parameters()) == sum(w.numel() for w in features.parameters())


@pytest.mark.parametrize("model", MODELS)
def test_a_network_overfits_one_batch(model):
    torch.manual_seed(0)
    masks = torch.zeros(2, 64, 64, dtype=torch.long)
    masks[0, 8:24, 8:24], masks[0, 36:52, 36:52], masks[1, 20:44, 20:44] = 1, 6, 3
    images = torch.randn(2, 1, 64, 64) * 0.1 + masks[:, None] / 3
    network = build(model, **NARROW).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss_of(network(images), masks, list(range(7))).backward()
        optimizer.step()
    with torch.inference_mode():
        predicted = network(images).argmax(dim=1)
    for value in (1, 3, 6):
        both = ((predicted == value) & (masks == value)).sum()
        assert 2 * both / ((predicted == value).sum() + (masks == value).sum()) > 0.9


@pytest.mark.parametrize("model", MODELS)
def test_the_seed_decides_the_first_weights(model):
    def weights(seed):
        torch.manual_seed(seed_of(seed))
        return torch.cat([parameter.flatten() for parameter in build(model, **NARROW).parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


@pytest.mark.parametrize(
    "model, settings, message",
    [
        ("segnet", {}, "unknown model 'segnet'; there are unet, hrnet, efficientnet, and tu-NAME for any encoder"),
        (
            "tu-resnet19",
            {},
            r"tu-resnet19 gives no pyramid of features for a U-Net \(.*resnet19.*\); give efficientnet-b0",
        ),
        ("tu-vit_tiny_patch16_224", {}, "gives no pyramid of features .*, or tu-resnet34: a convolutional encoder"),
        ("hrnet", {"hrnet": "hrnet_w19"}, "unknown hrnet 'hrnet_w19'; timm knows .*hrnet_w18"),
        ("efficientnet", {"efficientnet": "b0"}, "unknown efficientnet 'b0'; .*efficientnet-b0"),
    ],
)
def test_an_unknown_network_is_refused_with_the_known_ones(model, settings, message):
    with pytest.raises(StudyError, match=message):
        build(model, **settings)


@pytest.mark.parametrize("old, new", [((5, 6), (20, 24)), ((20, 10), (320, 160)), ((7, 9), (23, 11)), ((4, 4), (4, 4))])
def test_maps_upsampled_on_a_gpu_are_those_of_a_cpu(old, new):
    maps = torch.randn(2, 3, *old, dtype=torch.double, requires_grad=True)
    gradient = torch.randn(2, 3, *new, dtype=torch.double)
    expected, found = upsample(maps, new), upsample_by_matrices(maps, new)
    assert torch.allclose(found, expected, atol=1e-4)
    assert torch.allclose(*(torch.autograd.grad(out, maps, gradient)[0] for out in (found, expected)), atol=1e-3)


def test_weights_that_were_kept_while_predicting_can_be_trained_with():
    with torch.inference_mode():
        upsample_by_matrices(torch.ones(1, 1, 3, 3), (9, 9))
    maps = torch.ones(1, 1, 3, 3, requires_grad=True)
    upsample_by_matrices(maps, (9, 9)).sum().backward()
    assert maps.grad.sum() == pytest.approx(81)
