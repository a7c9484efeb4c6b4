"""The device that networks run on, its precision and loader processes, and a clear error where memory runs out."""

import contextlib
from collections.abc import Iterator

import joblib
import torch

from lumbar_utils import StudyError
from lumbar_utils.machine import best_device, without_cuda
from lumbar_utils.study import Study

LIGHTNING_PRECISION = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}
MAX_LOADER_PROCESSES = 12


def device_of(study: Study) -> str:
    """`cuda`, `mps` or `cpu`. Raises StudyError if the study asks for a device that cannot be used here."""
    if study.device == "auto":
        return best_device()
    if study.device == "cuda" and without_cuda():
        raise StudyError(f"device=cuda cannot be used: {without_cuda()}; use device=cpu, or auto")
    if study.device == "mps" and not torch.backends.mps.is_available():
        raise StudyError("device=mps cannot be used: torch finds no Apple GPU; use device=cpu, or auto")
    return study.device


def precision_of(study: Study) -> str:
    """Lightning's name of the study's precision; `auto` is mixed precision where the hardware is faster with it."""
    device, precision = device_of(study), study.precision
    if precision == "auto":
        precision = _fastest_precision(device)
    return LIGHTNING_PRECISION[precision]


def _fastest_precision(device: str) -> str:
    if device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16"
    if device == "cuda":
        return "16"
    if device == "cpu":
        capabilities = torch.cpu.get_capabilities()
        if capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"):
            return "bf16"
    return "32"


def loader_processes(study: Study) -> int:
    """Processes that load and augment images: beside a GPU one per core but one; none on a CPU, which is busy."""
    if study.workers >= 0:
        return study.workers
    if device_of(study) == "cuda":
        return min(joblib.cpu_count() - 1, MAX_LOADER_PROCESSES)
    return 0


@contextlib.contextmanager
def explain_out_of_memory(study: Study, activity: str) -> Iterator[None]:
    """Turn an out-of-memory error of the device into a StudyError that names the settings that need less.

    activity : what ran out of memory, such as "predicting".
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise StudyError(
            f"out of memory on {device_of(study)} while {activity} with batch_size={study.batch_size}, "
            f"accumulate={study.accumulate}, height={study.height}, width={study.width}: raise accumulate (a step "
            "then takes the same images in smaller parts), or lower batch_size, or height and width; finished work is "
            "kept"
        ) from error
