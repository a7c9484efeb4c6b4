"""Checkpoints as files: read without running what is in them."""

from pathlib import Path

import torch

from lumbar_utils import StudyError


def read_checkpoint(path: Path) -> dict:
    """A checkpoint's tensors and plain values. Raises StudyError if it is cut off or holds anything else."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds, from zip's to unpickler's
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise StudyError(f"checkpoint {path} cannot be read ({reason}); delete it to train again") from error


def best_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Layer -> weights of the best epoch that a study kept in a model's folder."""
    weights = read_checkpoint(folder / "checkpoints" / "best.ckpt")["state_dict"]
    return {name.removeprefix("network."): value for name, value in weights.items()}
