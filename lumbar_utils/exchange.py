"""A study's trained networks as files for others: weights in half precision as safetensors, and ONNX."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn

from lumbar_utils import FURTHER, MODELS, StudyError, records
from lumbar_utils.application import read_trained
from lumbar_utils.data import familiarity
from lumbar_utils.networks.checkpoints import WEIGHTS, trained_weights
from lumbar_utils.networks.losses import log_probabilities_of
from lumbar_utils.output.export import published
from lumbar_utils.study import record_of


def export_networks(folder: Path, to: Path, formats: Sequence[str]) -> list[Path]:
    """Write every trained network of a study's folder in these formats; returns the files.

    formats : `safetensors` makes `to` a folder that `predict` and `start_from` take in the place of the study's, a
    quarter as large; `onnx` makes `to`/MODEL.onnx, see `write_onnx`.
    Raises StudyError if nothing is trained there, or `to` holds another study.
    """
    record, models = record_of(folder), trained_models(folder)
    if not models:
        raise StudyError(f"{folder} has no trained network; name a study, or one of a grid's runs, in {folder.parent}")
    there = records.read_json(to / "study.json").get("fingerprint", record["fingerprint"])
    if "safetensors" in formats and (to.resolve() == folder.resolve() or there != record["fingerprint"]):
        raise StudyError(f"{to} holds a study already; name a new folder to export the networks to")
    files = []
    if "onnx" in formats:
        files += [write_onnx(folder, model, to / f"{model}.onnx") for model in models]
    if "safetensors" not in formats:
        return files
    copied = [folder / "split.csv"]
    for model in models:
        files += _write_weights(folder / model, to / model)
        copied += sorted((folder / "record").glob(f"model_card_{model}.md"))
    records.write_json(to / "study.json", published(record))
    records.write_json(to / "seen.json", familiarity.seen_by(folder))
    return [*files, to / "study.json", to / "seen.json", *(shutil.copyfile(file, to / file.name) for file in copied)]


def trained_models(folder: Path) -> list[str]:
    """The networks whose training is finished in a study's folder."""
    names = sorted(path.parent.name for path in folder.glob("*/fit.json") if records.is_complete(path))
    return [name for name in names if name in MODELS or name.startswith(FURTHER)]


def _write_weights(source: Path, target: Path) -> list[Path]:
    """Weights, history and completion record of one network.

    Convolutions are stored in half precision; vectors, such as those of batch normalisation, as they are.
    """
    record = records.read_json(source / "fit.json")
    weights = trained_weights(source)
    for name, values in weights.items():
        weights[name] = (values if values.ndim < 2 else values.half()).contiguous()
    with records.atomic_file(target / WEIGHTS) as temporary:
        temporary.write_bytes(save(weights))
    shutil.copyfile(source / "history.csv", target / "history.csv")
    written = [target / WEIGHTS, target / "history.csv"]
    facts = {name: value for name, value in record.items() if name not in ("made_from", "files", "bytes")}
    records.mark_finished(target / "fit.json", record["made_from"], written, **facts)
    return [*written, target / "fit.json"]


class FromGreyValues(nn.Module):
    """A network that normalises its input and gives probabilities: what an ONNX file holds."""

    def __init__(self, network: nn.Module, classes: list[int]):
        super().__init__()
        self.network, self.classes = network, classes

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(batch, 1, height, width) grey values -> (batch, classes, height, width) probabilities in [0, 1]."""
        mean = image.mean(dim=(1, 2, 3), keepdim=True)
        spread = image.std(dim=(1, 2, 3), correction=0, keepdim=True).clamp(min=1)
        return log_probabilities_of(self.network((image - mean) / spread), self.classes).exp()


def write_onnx(folder: Path, model: str, path: Path) -> Path:
    """A trained network as ONNX: `image` (1, 1, height, width) float32 in [0, 255] -> `probabilities`.

    Height and width are those of the study's input; images are scaled into it, not distorted, and padded with 0.
    Probabilities are (1, classes, height, width), background first; the file's metadata names the classes.
    Raises StudyError where the packages are missing.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 (torch needs it)
    except ImportError:
        raise StudyError('ONNX needs further packages: pip install --editable ".[onnx]"') from None
    trained = read_trained(folder, model)
    study = trained.study
    network = FromGreyValues(trained.network, trained.classes).eval()
    names = {"input_names": ["image"], "output_names": ["probabilities"]}
    example = torch.zeros(1, 1, study.height, study.width)
    content = torch.onnx.export(network, (example,), dynamo=True, verbose=False, **names).model_proto
    onnx.helper.set_model_props(content, {"classes": ", ".join(["background", *trained.levels]), "model": model})
    with records.atomic_file(path) as temporary:
        temporary.write_bytes(content.SerializeToString())
    return path
