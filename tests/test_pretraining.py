"""An encoder starts from weights of ImageNet as the libraries would load them, or says why it cannot."""

import http.server
import os
import subprocess
import sys
import threading

import pytest
import segmentation_models_pytorch as smp
import timm
import torch

from lumbar_utils import StudyError, freshness
from lumbar_utils.application import predict_source
from lumbar_utils.data.preparation import prepare
from lumbar_utils.networks.models import load_encoder_weights, network_of
from lumbar_utils.networks.training import fit
from lumbar_utils.study import Study

LITE0 = "tu-tf_efficientnet_lite0"


def classifier(name):
    """timm's classifier of colour images, with weights that stand for those of ImageNet."""
    torch.manual_seed(7)
    return timm.create_model(name).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights by the names of their encoders; HRNet's with an entry beside them, as training scripts write it."""
    place = tmp_path_factory.mktemp("weights")
    torch.save({"state_dict": classifier("hrnet_w18_small").state_dict(), "epoch": 9}, place / "hrnet_w18_small.pth")
    torch.save(classifier("tf_efficientnet_lite0").state_dict(), place / f"{LITE0}.pt")
    return place


@pytest.fixture
def study(study, folder):
    return Study(**study.settings | {"efficientnet": LITE0, "encoder_weights": str(folder)})


@pytest.mark.parametrize("model, name", [("hrnet", "hrnet_w18_small"), ("efficientnet", "tf_efficientnet_lite0")])
def test_a_grey_image_is_seen_as_its_three_equal_colours_are_by_the_colour_network(study, model, name):
    network = network_of(study, model)
    load_encoder_weights(network, model, study)
    grey = torch.randn(1, 1, 64, 64)
    features = {"feature_location": "", "out_indices": (1, 2, 3, 4)} if model == "hrnet" else {}
    weights = classifier(name).state_dict()
    oracle = timm.create_model(
        name, features_only=True, pretrained=True, pretrained_cfg_overlay={"state_dict": weights}, **features
    )
    with torch.inference_mode():
        seen = network.backbone.eval()(grey) if model == "hrnet" else network.encoder.eval()(grey)[1:]
        expected = oracle.eval()(grey.expand(-1, 3, -1, -1))
    for ours, theirs in zip(seen, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_the_encoder_of_the_paper_takes_weights_as_segmentation_models_pytorch_does(study, tmp_path):
    oracle = smp.encoders.get_encoder("efficientnet-b0")
    file = tmp_path / "b0.pth"
    torch.save(oracle.state_dict() | {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}, file)
    study = Study(**study.settings | {"efficientnet": "efficientnet-b0", "encoder_weights": str(file)})
    network = network_of(study, "efficientnet")
    load_encoder_weights(network, "efficientnet", study)
    oracle.set_in_channels(1, pretrained=True)
    ours = network.encoder.state_dict()
    assert ours.keys() == oracle.state_dict().keys()
    for name, tensor in oracle.state_dict().items():
        torch.testing.assert_close(ours[name], tensor)


def test_what_is_no_encoder_starts_as_it_would_without(study):
    with_weights = network_of(study, "efficientnet")
    load_encoder_weights(with_weights, "efficientnet", study)
    without = network_of(study, "efficientnet")
    assert torch.equal(with_weights.decoder.blocks[0].conv1[0].weight, without.decoder.blocks[0].conv1[0].weight)
    assert not torch.equal(with_weights.encoder.model.conv_stem.weight, without.encoder.model.conv_stem.weight)


def test_unet_says_that_it_has_no_such_encoder_and_stays_as_it_is(study, capsys):
    network = network_of(study, "unet")
    load_encoder_weights(network, "unet", study)
    assert "unet has no encoder to pre-train" in capsys.readouterr().out
    assert torch.equal(network.classify.weight, network_of(study, "unet").classify.weight)


def without_a_layer(weights):
    return {name: tensor for name, tensor in weights.items() if not name.startswith("blocks.2.0.bn1.")}


@pytest.mark.parametrize(
    "change, message",
    [
        (without_a_layer, r'do not fit \(.*Missing key.*"model.blocks.2.0.bn1.weight".*\); take a file made for'),
        (
            lambda weights: weights | {"blocks.9.weight": torch.zeros(1)},
            'Unexpected key.*"blocks.9.weight"',
        ),
        (
            lambda weights: weights | {"bn1.bias": torch.zeros(3)},
            "size mismatch for model.bn1.bias",
        ),
    ],
)
def test_weights_of_another_encoder_are_refused_with_the_first_tensors_that_do_not_fit(
    study, tmp_path, change, message
):
    file = tmp_path / "other.pth"
    torch.save(change(classifier("tf_efficientnet_lite0").state_dict()), file)
    study = Study(**study.settings | {"encoder_weights": str(file)})
    with pytest.raises(StudyError, match=message):
        load_encoder_weights(network_of(study, "efficientnet"), "efficientnet", study)


def test_a_file_that_would_run_code_is_refused(study, tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "trapped"),))

    torch.save({"conv_stem.weight": Trap()}, tmp_path / "trap.pth")
    study = Study(**study.settings | {"encoder_weights": str(tmp_path / "trap.pth")})
    with pytest.raises(StudyError, match=r"trap.pth cannot be read \(.*\); they must hold only tensors"):
        load_encoder_weights(network_of(study, "efficientnet"), "efficientnet", study)
    assert not (tmp_path / "trapped").exists()


def test_a_folder_without_the_encoder_s_weights_names_the_file_to_put_there(study):
    study = Study(**study.settings | {"efficientnet": "efficientnet-b0"})
    with pytest.raises(StudyError, match=r"has no weights of efficientnet-b0; put efficientnet-b0.safetensors or .pth"):
        load_encoder_weights(network_of(study, "efficientnet"), "efficientnet", study)


def test_what_is_in_the_file_counts_and_not_where_it_lies(study, tmp_path):
    cohort, file, copy = prepare(study), tmp_path / "a.pth", tmp_path / "b.pth"
    file.write_bytes(b"some weights")
    copy.write_bytes(b"some weights")
    here, there = (Study(**study.settings | {"encoder_weights": str(path)}) for path in (file, copy))
    assert here.folder == there.folder
    assert freshness.trained(here, cohort.fingerprint, "hrnet") == freshness.trained(there, cohort.fingerprint, "hrnet")
    copy.write_bytes(b"other weights")
    assert here.folder != there.folder
    assert freshness.trained(here, cohort.fingerprint, "hrnet") != freshness.trained(there, cohort.fingerprint, "hrnet")


@pytest.mark.parametrize(
    "settings, message",
    [
        (
            {"encoder_weights": "imagnet"},
            r"encoder_weights='imagnet' is refused: .*use none, imagenet \(downloads\), such",
        ),
        ({"encoder_weights": "/no/file.pth"}, r"/no/file.pth is no .pth, .pt or .safetensors file"),
        ({"encoder_weights": "imagenet", "start_from": "x"}, "start_from brings all the weights"),
    ],
)
def test_weights_that_cannot_be_are_refused_when_the_study_is_made(settings, message):
    with pytest.raises(StudyError, match=message):
        Study("smoke", **settings)


def test_a_pre_trained_encoder_is_trained_on_and_predicts_where_the_file_is_not(study, dataset, tmp_path):
    file = tmp_path / "weights.pth"
    torch.save(classifier("tf_efficientnet_lite0").state_dict(), file)
    study = Study(**study.settings | {"encoder_weights": str(file)})
    place = study.folder
    fit(study, prepare(study), "efficientnet")
    trained = torch.load(place / "efficientnet" / "checkpoints" / "final.ckpt", weights_only=True)["state_dict"]
    first = classifier("tf_efficientnet_lite0").conv_stem.weight.sum(dim=1, keepdim=True)
    moved = (trained["encoder.model.conv_stem.weight"] - first).abs().max()
    assert 0 < moved < 0.1
    file.unlink()
    out = predict_source(place, "efficientnet", str(dataset), tmp_path / "out")
    assert len(list((out / "label_maps").glob("*.png"))) == 6


class Hub(http.server.BaseHTTPRequestHandler):
    """The one file of a hub, with the headers that its client asks for."""

    content: bytes

    def do_HEAD(self):
        found = self.path == "/timm/hrnet_w18_small.gluon_in1k/resolve/main/model.safetensors"
        self.send_response(200 if found else 404)
        self.send_header("ETag", '"0"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(self.content) if found else 0))
        self.end_headers()
        return found

    def do_GET(self):
        if self.do_HEAD():
            self.wfile.write(self.content)

    def log_message(self, *_):
        pass


FETCH = """
import time
from lumbar_utils import StudyError
from lumbar_utils.study import Study
from lumbar_utils.networks.models import network_of, load_encoder_weights
study = Study("smoke", encoder_weights="imagenet")
for model in ("hrnet", "efficientnet"):
    network = network_of(study, model)
    began = time.monotonic()
    try:
        load_encoder_weights(network, model, study)
        print(f"{model} starts with {network.backbone.conv1.weight.sum().item():.4f}")
    except StudyError as error:
        print(f"after {time.monotonic() - began:.0f} s: {error}")
"""


def fetch(endpoint, home):
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "OMP_NUM_THREADS": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run([sys.executable, "-c", FETCH], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_imagenet_is_downloaded_once_and_without_a_network_says_how_to_provide_the_file(tmp_path):
    from safetensors.torch import save

    Hub.content = save(classifier("hrnet_w18_small").state_dict())
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        online = fetch(endpoint, tmp_path)
        server.shutdown()
    offline = fetch(endpoint, tmp_path)
    downloaded = f"hrnet starts with {classifier('hrnet_w18_small').conv1.weight.sum().item():.4f}"
    assert (online[0], offline[0]) == (downloaded, downloaded)
    for told in (online[1], offline[1]):
        assert told.startswith(("after 0 s: ", "after 1 s: "))
        assert "encoder_weights=imagenet: the weights of efficientnet-b0 could not be fetched (" in told
        assert "take model.safetensors from https://huggingface.co/smp-hub/efficientnet-b0.imagenet, and" in told
