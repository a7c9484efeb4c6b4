"""Where a network is trained, and how many bits its numbers have there."""

import torch

from lumbar_utils.study import Study


def device_of(study: Study) -> str:
    """`cuda`, `mps` or `cpu`."""
    if study.device != "auto":
        return study.device
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def precision_of(study: Study) -> str:
    """Lightning's name of the precision: mixed where `auto` finds hardware that gains by it."""
    device = device_of(study)
    if study.precision != "auto":
        chosen = study.precision
    elif device == "cuda":
        chosen = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "16"
    elif device == "cpu":
        chosen = "bf16" if torch.cpu.get_capabilities().get("amx_bf16") else "32"
    else:
        chosen = "32"
    return {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[chosen]
