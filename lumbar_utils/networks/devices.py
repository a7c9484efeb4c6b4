"""Where a network is trained, and how many bits its numbers have there."""

import contextlib
from collections.abc import Iterator

import joblib
import torch

from lumbar_utils import StudyError
from lumbar_utils.machine import best_device, without_cuda
from lumbar_utils.study import Study


def device_of(study: Study) -> str:
    """`cuda`, `mps` or `cpu`. Raises StudyError for one that the study names and that does not work here."""
    if study.device == "auto":
        return best_device()
    if study.device == "cuda" and without_cuda():
        raise StudyError(f"device=cuda cannot be used: {without_cuda()}; use device=cpu, or auto")
    if study.device == "mps" and not torch.backends.mps.is_available():
        raise StudyError("device=mps cannot be used: torch finds no GPU of Apple's; use device=cpu, or auto")
    return study.device


def precision_of(study: Study) -> str:
    """Lightning's name of the precision: mixed where `auto` finds hardware that gains by it."""
    device = device_of(study)
    if study.precision != "auto":
        chosen = study.precision
    elif device == "cuda":
        chosen = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "16"
    elif device == "cpu":
        has = torch.cpu.get_capabilities()
        chosen = "bf16" if has.get("amx_bf16") or has.get("avx512_bf16") else "32"
    else:
        chosen = "32"
    return {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[chosen]


def loading_processes(study: Study) -> int:
    """How many processes load and vary cases: beside a GPU the cores but one, 12 at most; a CPU has its own work."""
    if study.workers >= 0:
        return study.workers
    return min(joblib.cpu_count() - 1, 12) if device_of(study) == "cuda" else 0


@contextlib.contextmanager
def memory_named(study: Study, doing: str) -> Iterator[None]:
    """A device that runs out of memory becomes a StudyError, which names the settings that take less."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise StudyError(
            f"out of memory on {device_of(study)} while {doing} with batch_size={study.batch_size}, "
            f"accumulate={study.accumulate}, height={study.height}, width={study.width}: raise accumulate (the step "
            "keeps its cases and takes them in more parts), or lower batch_size, or height and width; what was "
            "finished is kept"
        ) from error
