"""Checkpoints as files: whole or absent, read without running what is in them, used only where they were made."""

import io
from pathlib import Path

import torch

from lumbar_utils import StudyError, records


def read_checkpoint(path: Path) -> dict:
    """A checkpoint's tensors and plain values. Raises StudyError if it is cut off or holds anything else."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(checkpoint, dict):
            raise TypeError(f"it holds a {type(checkpoint).__name__} where a dictionary belongs")
    except Exception as error:  # torch raises many kinds, from zip's to unpickler's
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise StudyError(f"checkpoint {path} cannot be read ({reason}); delete it to train again") from error
    return checkpoint


def write_checkpoint(path: Path, checkpoint: dict) -> None:
    """Take the predecessor's place only once whole. Raises StudyError on a full disk; the predecessor is then kept."""
    whole = io.BytesIO()  # a full disk then raises OSError; written by torch, it raises something of C++
    torch.save(checkpoint, whole)
    with records.atomic_file(path) as temporary:
        temporary.write_bytes(whole.getbuffer())


def goes_on_from(last: Path, made_from: str, study: str) -> bool:
    """Whether training goes on from `last`: it is there, and of the same settings, data and code.

    study : `<folder of the study>/<model>`. Raises StudyError if `last` was made by another study or model.
    """
    if not last.exists():
        return False
    checkpoint = read_checkpoint(last)
    theirs = checkpoint.get("study", study if "made_from" in checkpoint else "another program")
    if theirs != study:
        raise StudyError(f"{last} was made by {theirs}, not by {study}; put it back there, or delete it to train anew")
    return checkpoint["made_from"] == made_from


def best_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Layer -> weights of the best epoch that a study kept in a model's folder, trained to the end.

    Raises StudyError if they are not those that fit.json beside them tells of.
    """
    path, record = folder / "checkpoints" / "best.ckpt", records.read_json(folder / "fit.json")
    checkpoint = read_checkpoint(path)
    if checkpoint.get("made_from") != record["made_from"]:
        raise StudyError(
            f"{path} was made by {checkpoint.get('study', 'another program')}, not by the training of "
            f"{record.get('study', folder)} that fit.json tells of; put that one's back, or delete it to train again"
        )
    return {name.removeprefix("network."): value for name, value in checkpoint["state_dict"].items()}
