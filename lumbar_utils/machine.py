"""What this machine offers: its processor, its memory, and the device that networks run on."""

import contextlib
import functools
import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from lumbar_utils import StudyError

if TYPE_CHECKING:
    from lumbar_utils.study import Study

LIGHTNING_PRECISION = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}
MAX_LOADER_PROCESSES = 12
PROCESSORS = Path("/proc/cpuinfo")  # of Linux


def best_device() -> str:
    """The device that `auto` stands for: the first of cuda, mps and cpu that works here."""
    import torch

    if not without_cuda():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@functools.cache
def without_cuda() -> str:
    """Why no network can be trained on an NVIDIA or AMD card here; "" where one can.

    Prints, once, that a card is too old.
    """
    import torch

    if not torch.cuda.is_available():
        return "torch finds no GPU"
    capability = torch.cuda.get_device_capability()
    built = torch.cuda.get_arch_list()
    if torch.version.hip or supports(capability, built):
        return ""
    name = f"{torch.cuda.get_device_name()} (compute capability {capability[0]}.{capability[1]})"
    reason = f"{name} is none of those that torch {torch.__version__} is built for ({', '.join(built)})"
    print(f"{reason}; networks are trained on the CPU")
    return reason


def supports(capability: tuple[int, int], built: Sequence[str]) -> bool:
    """Whether a card runs what torch was built for: sm_XY from the same major version on, compute_XY from any.

    capability : (major, minor) of the card. built : sm_75, sm_90a, compute_90, ...; empty where torch does not say.
    """
    runs = []
    for name in built:
        kind, version = re.fullmatch(r"(sm|compute)_(\d+)[af]?", name).groups()
        oldest = (int(version[:-1]), int(version[-1]))
        runs.append(oldest <= capability and (kind == "compute" or oldest[0] == capability[0]))
    return any(runs) or not built


def device_of(study: "Study") -> str:
    """`cuda`, `mps` or `cpu`. Raises StudyError if the study asks for a device that cannot be used here."""
    if study.device == "cpu":  # loading torch takes seconds
        return "cpu"
    import torch

    if study.device == "auto":
        return best_device()
    if study.device == "cuda" and without_cuda():
        raise StudyError(f"device=cuda cannot be used: {without_cuda()}; use device=cpu, or auto")
    if study.device == "mps" and not torch.backends.mps.is_available():
        raise StudyError("device=mps cannot be used: torch finds no Apple GPU; use device=cpu, or auto")
    return study.device


def precision_of(study: "Study") -> str:
    """Lightning's name of the study's precision; `auto` is mixed precision where the hardware is faster with it."""
    device, precision = device_of(study), study.precision
    if precision == "auto":
        precision = _fastest_precision(device)
    return LIGHTNING_PRECISION[precision]


def _fastest_precision(device: str) -> str:
    import torch

    if device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16"
    if device == "cuda":
        return "16"
    if device == "cpu":
        capabilities = torch.cpu.get_capabilities()
        if capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"):
            return "bf16"
    return "32"


def loader_processes(study: "Study") -> int:
    """Processes that load and augment images: beside a GPU one per core but one; none on a CPU, which is busy."""
    if study.workers >= 0:
        return study.workers
    if device_of(study) == "cuda":
        import joblib

        return min(joblib.cpu_count() - 1, MAX_LOADER_PROCESSES)
    return 0


@contextlib.contextmanager
def explain_out_of_memory(study: "Study", activity: str) -> Iterator[None]:
    """Turn an out-of-memory error of the device into a StudyError that names the settings that need less.

    activity : what ran out of memory, such as "predicting".
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise StudyError(
            f"out of memory on {device_of(study)} while {activity} with batch_size={study.batch_size}, "
            f"accumulate={study.accumulate}, height={study.height}, width={study.width}: raise accumulate (a step "
            "then takes the same images in smaller parts), or lower batch_size, or height and width; finished work is "
            "kept"
        ) from error


def environment() -> dict[str, str]:
    """Hardware and software of this machine, as the rows of the paper's Table I.

    GPU: its name, `none`, or `not used` in a process that has not loaded torch.
    """
    torch = sys.modules.get("torch")
    # a loaded torch adds the version of CUDA
    torch_version = torch.__version__ if torch else importlib.metadata.version("torch")
    return {
        "CPU": f"{_processor()}, {os.cpu_count()} cores",
        "Memory": f"{psutil.virtual_memory().total / 2**30:.0f} GB",
        "GPU": _gpu(),
        "Operating system": platform.platform(terse=True),
        "Software environment": f"Python {platform.python_version()}, torch {torch_version}",
    }


@functools.cache
def _processor() -> str:
    """The processor's name."""
    if PROCESSORS.exists() and (name := re.search(r"^model name\s*: (.+)", PROCESSORS.read_text(), re.MULTILINE)):
        return name[1]
    import cpuinfo  # asks the processor itself, in a process of its own, which takes a second

    return cpuinfo.get_cpu_info().get("brand_raw", platform.machine())


def _gpu() -> str:
    torch = sys.modules.get("torch")
    if torch is None:
        return "not used"
    if torch.backends.mps.is_available():
        return "Apple"
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
