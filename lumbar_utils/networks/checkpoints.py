"""Checkpoint files: written atomically, read without executing anything in them, checked to be of the right study."""

import io
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from lumbar_utils import StudyError, records
from lumbar_utils.networks.models import network_of
from lumbar_utils.study import Study

WEIGHTS = "weights.safetensors"  # in the place of checkpoints/final.ckpt, in a folder that `export` wrote


def read_checkpoint(path: Path) -> dict:
    """A checkpoint's tensors and plain values. Raises StudyError if it is cut off or holds anything else."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(checkpoint, dict):
            raise TypeError(f"it holds a {type(checkpoint).__name__} instead of a dictionary")
    except Exception as error:  # torch raises many kinds, from zip's to unpickler's
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise StudyError(f"checkpoint {path} cannot be read ({reason}); delete it to train again") from error
    return checkpoint


def write_checkpoint(path: Path, checkpoint: dict) -> None:
    """Replace the file at `path` once the new one is complete. Raises StudyError on a full disk; the old one stays."""
    content = io.BytesIO()  # on a full disk torch.save would raise an error of C++, where writing bytes raises OSError
    torch.save(checkpoint, content)
    with records.atomic_file(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def can_resume_from(last: Path, made_from: str, study: str) -> bool:
    """Whether last.ckpt exists and was made from the same settings, data and code.

    made_from : fingerprint, see `freshness`. study : `<folder of the study>/<model>`.
    Raises StudyError if it was made by another study or model.
    """
    if not last.exists():
        return False
    checkpoint = read_checkpoint(last)
    if "made_from" not in checkpoint or checkpoint.get("study", study) != study:
        made_by = checkpoint.get("study", "another program")
        raise StudyError(f"{last} was made by {made_by}, not by {study}; put it back there, or delete it to train anew")
    return checkpoint["made_from"] == made_from


def weights_file(folder: Path) -> Path:
    """Where a trained network is kept: as training writes it, or as `export` does. folder : of a study and model."""
    checkpoints = folder / "checkpoints"
    # best.ckpt: in studies of earlier versions
    files = (checkpoints / "final.ckpt", checkpoints / "best.ckpt", folder / WEIGHTS)
    return next((file for file in files if file.exists()), files[0])


def trained_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Layer -> weights of a network that is trained to the end. folder : of a study and model.

    Raises StudyError if final.ckpt is not of the training that fit.json records, or weights are damaged.
    """
    path, record = weights_file(folder), records.read_json(folder / "fit.json")
    if not path.exists():
        raise StudyError(
            f"{folder} holds no weights; name a study, or one of a grid's runs, or train the network again"
        )
    if path.name == WEIGHTS:
        return _read_exported(path)
    checkpoint = read_checkpoint(path)
    if checkpoint.get("made_from") != record["made_from"]:
        raise StudyError(
            f"{path} was made by {checkpoint.get('study', 'another program')}, not by the training of "
            f"{record.get('study', folder)} that fit.json records; put the right file back, or delete it to train again"
        )
    return {name.removeprefix("network."): values for name, values in checkpoint["state_dict"].items()}


def _read_exported(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)  # those of half precision become single when a network takes them
    except SafetensorError as error:
        raise StudyError(f"{path} cannot be read ({error}); fetch the project's file or export it again") from None


def load_weights(network: nn.Module, model: str, folder: Path) -> nn.Module:
    """Give a network the `trained_weights` of a folder, and return it. Raises StudyError if it has other layers."""
    try:
        network.load_state_dict(trained_weights(folder))
    except RuntimeError:
        raise StudyError(
            f"the weights in {folder} do not fit {model} as these settings and this code build it; use the settings of "
            "that study (unet_channels, hrnet, efficientnet), or train it again"
        ) from None
    return network


def trained_network(study: Study, model: str, folder: Path) -> nn.Module:
    """The trained network in a folder, in evaluation mode. Raises StudyError if it has other layers."""
    return load_weights(network_of(study, model), model, folder).eval()
