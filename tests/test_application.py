"""A trained network applied to another source."""

import json

import cv2
import numpy as np
import pytest
from conftest import write_dataset
from test_dicom import ID, NAME, write_series
from typer.testing import CliRunner

from lumbar_utils import StudyError
from lumbar_utils.__main__ import app
from lumbar_utils.application import predict_source
from lumbar_utils.data.preparation import prepare
from lumbar_utils.networks.training import fit
from lumbar_utils.study import Study


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A study's folder with U-Net trained to find L1 and L2, moved since."""
    folder = tmp_path_factory.mktemp("trained")
    dataset = write_dataset(folder / "dataset")
    study = Study(
        "smoke",
        dataset=str(dataset),
        runs=folder / "runs",
        cache=folder / "cache",
        device="cpu",
        epochs=1,
        images_per_epoch=240,
    )
    fit(study, prepare(study), "unet")
    return study.folder.rename(folder / "moved")


def test_label_maps_of_another_source_lie_on_its_images(trained, tmp_path):
    other = write_dataset(tmp_path / "other", patients=2, shape=(70, 50))
    out = predict_source(trained, "unet", str(other), tmp_path / "out")
    maps = {path.name: cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in (out / "label_maps").glob("*.png")}
    assert sorted(maps) == ["case0.png", "case1.png"]
    assert {label_map.shape for label_map in maps.values()} == {(70, 50)}
    assert set(np.unique(list(maps.values()))) <= {0, 1, 2}  # what the study taught
    assert (out / "cases.csv").read_text() == "case,patient,spacing_mm\ncase0,p0,1.0\ncase1,p1,1.0\n"
    record = json.loads((out / "predict.json").read_text())
    assert (record["model"], record["levels"]) == ("unet", ["L1", "L2"])
    assert len(record["files"]) == 2 * 2 + 1 + 4


def test_the_command_predicts_on_dicom_and_no_byte_names_the_patient(trained, tmp_path):
    write_series(tmp_path / "in" / NAME)
    out = tmp_path / "out"
    arguments = ["predict", str(trained), "unet", f"dicom:{tmp_path / 'in'}", str(out), "--slices", "3"]
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, str(out))
    assert sorted(path.stem for path in (out / "label_maps").glob("*.png")) == [f"p0001_s1_slice{i}" for i in (2, 3, 4)]
    told = b"".join(path.name.encode() + path.read_bytes() for path in out.rglob("*") if path.is_file())
    for secret in (*NAME.split("^"), ID, str(tmp_path / "in")):
        assert secret.encode() not in told


@pytest.mark.parametrize(
    "model, folder, message",
    [
        pytest.param("vnet", ".", "unknown model 'vnet'; allowed are unet, hrnet, efficientnet", id="unknown model"),
        pytest.param("hrnet", ".", "hrnet is not trained in .*; run its training notebook first", id="not trained"),
        pytest.param("unet", "unet", "has no study.json; name the folder of a study", id="no study"),
    ],
)
def test_without_a_trained_network_nothing_is_written(trained, tmp_path, model, folder, message):
    with pytest.raises(StudyError, match=message):
        predict_source(trained / folder, model, "phantom", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_not_overwritten(trained, tmp_path):
    with pytest.raises(StudyError, match="exists already; remove it, or name another folder to write into"):
        predict_source(trained, "unet", "phantom", tmp_path)
