"""Trained networks as files for other programs: the same label maps from safetensors and from ONNX."""

from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import write_dataset
from test_application import trained  # noqa: F401 (a fixture)
from typer.testing import CliRunner

from lumbar_utils import LEVELS, MODELS, StudyError, records
from lumbar_utils.__main__ import app
from lumbar_utils.application import predict_source
from lumbar_utils.data.preparation import prepare
from lumbar_utils.exchange import export_networks
from lumbar_utils.networks.checkpoints import trained_weights
from lumbar_utils.networks.prediction import predict
from lumbar_utils.networks.training import fit
from lumbar_utils.phantom import phantom
from lumbar_utils.study import PRETRAINED, Study, record_of


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):  # noqa: F811
    """The folder that `export --format safetensors --format onnx` makes of U-Net, trained to find L1 and L2."""
    to = tmp_path_factory.mktemp("exported")
    command = ["export", str(trained), "--to", str(to), "--format", "safetensors", "--format", "onnx"]
    result = CliRunner().invoke(app, command)
    assert (result.exit_code, result.stdout) == (0, f"7 files -> {to}\n")
    return to


def label_maps(folder, trained, source):  # noqa: F811
    out = predict_source(trained, "unet", str(source), folder)
    return [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted((out / "label_maps").glob("*.png"))]


def test_weights_in_half_precision_give_the_label_maps_of_the_study(trained, exported, tmp_path):  # noqa: F811
    other = write_dataset(tmp_path / "other", patients=3, shape=(70, 50))
    own, after = (label_maps(tmp_path / folder.name, folder, other) for folder in (trained, exported))
    assert np.mean(np.array(own) == np.array(after)) > 0.999
    assert np.unique(own).size > 1  # there is something to compare


def test_convolutions_are_rounded_to_half_precision_and_vectors_are_exact(trained, exported):  # noqa: F811
    own, after = trained_weights(trained / "unet"), trained_weights(exported / "unet")
    assert own.keys() == after.keys()
    for name, values in own.items():
        if values.ndim < 2:
            assert torch.equal(values, after[name])
        else:
            assert after[name].dtype == torch.float16
            assert torch.allclose(values, after[name].float(), rtol=2**-11, atol=2**-24)


def test_what_the_networks_have_seen_goes_with_them(exported):
    seen = records.read_json(exported / "seen.json")
    assert (seen["images"], seen["height_mm"], seen["width_mm"]) == (4, [64, 64], [48, 48])


def test_onnx_gives_the_label_maps_of_the_study(trained, exported, tmp_path):  # noqa: F811
    images = write_dataset(tmp_path / "other", patients=3, shape=(64, 64))  # the size of the network's input
    own = label_maps(tmp_path / "own", trained, images)
    session = onnxruntime.InferenceSession(exported / "unet.onnx")
    for label_map, file in zip(own, sorted((images / "images").iterdir()), strict=True):
        image = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE).astype(np.float32)
        probabilities = session.run(["probabilities"], {"image": image[None, None]})[0][0]
        np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-5)
        np.testing.assert_array_equal(probabilities.argmax(axis=0), label_map)
    metadata = {entry.key: entry.value for entry in onnx.load(exported / "unet.onnx").metadata_props}
    assert metadata == {"classes": "background, L1, L2", "model": "unet"}


def test_a_study_starts_from_exported_weights_and_tests_them(exported, tmp_path):
    other = write_dataset(tmp_path / "other", patients=4, shape=(70, 50))
    study = Study(
        "smoke", dataset=str(other), start_from=str(exported), epochs=0, runs=tmp_path, cache=tmp_path / "cache",
        device="cpu",
    )  # fmt: skip
    cohort = prepare(study)
    assert list(fit(study, cohort, "unet")["epoch"]) == [1]
    assert len(list(predict(study, cohort, "unet").glob("*.png"))) == 4


def test_exported_weights_are_not_tested_on_patients_they_were_trained_on(exported, trained, tmp_path):  # noqa: F811
    other = {"start_from": str(exported), "epochs": 0, "runs": tmp_path}
    study = Study(**record_of(trained)["settings"] | other)
    with pytest.raises(StudyError, match=r"was trained on \d+ patients that are tested on here"):
        fit(study, prepare(study), "unet")


def test_what_cannot_be_exported_or_read_is_named(trained, exported, tmp_path):  # noqa: F811
    records.write_json(tmp_path / "study.json", records.read_json(trained / "study.json"))
    with pytest.raises(StudyError, match=r"has no trained network; name a study, or one of a grid's runs"):
        export_networks(tmp_path, tmp_path / "out", ["onnx"])
    assert not (tmp_path / "out").exists()
    for there in (trained, tmp_path):  # the study itself, and another one
        study = {"fingerprint": "another"} if there == tmp_path else records.read_json(trained / "study.json")
        records.write_json(there / "study.json", study)
        with pytest.raises(StudyError, match="holds a study already; name a new folder to export the networks to"):
            export_networks(trained, there, ["safetensors"])
    export_networks(trained, tmp_path / "cut", ["safetensors"])
    weights = tmp_path / "cut" / "unet" / "weights.safetensors"
    weights.write_bytes(b"\0" * weights.stat().st_size)
    with pytest.raises(StudyError, match=r"weights.safetensors cannot be read .*; fetch the project's file"):
        trained_weights(tmp_path / "cut" / "unet")


RECORDED = Path(__file__).with_name("pretrained_label_maps.npz")


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """Two phantoms of 320 x 320 pixels, the same bits every time."""
    folder = tmp_path_factory.mktemp("phantoms") / "phantoms"
    phantom.generate(folder, 2, size=320)
    return folder


@pytest.mark.parametrize("model", MODELS)
def test_the_networks_of_the_project_give_the_recorded_label_maps(phantoms, tmp_path, model):
    out = predict_source(PRETRAINED, model, str(phantoms), tmp_path / "out")
    recorded = np.load(RECORDED)[model]
    given = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted((out / "label_maps").glob("*.png"))]
    assert np.mean(recorded == np.array(given)) > 0.999  # another processor rounds otherwise
    assert np.unique(recorded).tolist() == list(range(len(LEVELS) + 1))


def test_the_networks_of_the_project_are_small_and_say_where_they_are_from():
    weights = sorted(PRETRAINED.glob("*/weights.safetensors"))
    assert [file.parent.name for file in weights] == sorted(MODELS)
    assert sum(file.stat().st_size for file in weights) < 25e6
    data = records.read_json(PRETRAINED / "study.json")["data"]
    assert "CC BY 4.0" in data["licence"]
    card = (PRETRAINED / "README.md").read_text(encoding="utf-8")
    assert "Not a medical device" in card
    assert "SPIDER" in card
