"""Computational cost of a network: size, operations, latency, memory and training time.

Parameters and multiply-adds depend on the network alone; times and memory on the machine named, and on its load.
"""

import time

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.weak import WeakIdKeyDictionary

from lumbar_utils import freshness, machine, records
from lumbar_utils.data.folder import Cohort
from lumbar_utils.machine import device_of
from lumbar_utils.networks.models import network_of
from lumbar_utils.networks.prediction import refuse_untrained
from lumbar_utils.study import Study

WARM_UP, MAX_PASSES = 3, 30
MAX_SECONDS = 20.0  # no further pass once this is spent


def cost(study: Study, cohort: Cohort, model: str) -> pd.Series:
    """Cost of a trained network of the study, measured once and saved as cost.csv in its folder.

    parameters : all of them. multiply_adds : of one image of the study's size.
    epochs, training_seconds : with validation, without start-up, on the machine `trained_on`.
    latency_ms, latency_low_ms, latency_high_ms : median and quartiles of forward passes of one image in float32.
    memory_mb, memory_of : peak of such a pass, and what it counts. device, threads, measured_on : of these passes.
    Raises StudyError if the model is not trained.
    """
    file, record = study.folder / model / "cost.csv", study.folder / model / "cost.json"
    made_from = freshness.made_from("cost", freshness.trained(study, cohort.fingerprint, model))
    if not records.is_finished(record, made_from):
        refuse_untrained(study, cohort, model)
        records.write_csv(file, pd.DataFrame([{"model": model} | _measure(study, model)]))
        records.mark_finished(record, made_from, [file])
    return records.read_csv(file).iloc[0].rename(model)


def _measure(study: Study, model: str) -> dict:
    network, folder = network_of(study, model).eval(), study.folder / model
    trained, seconds = records.read_json(folder / "fit.json"), records.read_csv(folder / "history.csv")["seconds"]
    size, device = (study.height, study.width), device_of(study)
    low, median, high = np.percentile(latencies_ms(network, *size, device), (25, 50, 75)).round(2).tolist()
    return {
        "parameters": trained["parameters"], "multiply_adds": multiply_adds(network, *size),
        "epochs": len(seconds), "training_seconds": round(float(seconds.sum()), 1),
        "latency_ms": median, "latency_low_ms": low, "latency_high_ms": high,
        "memory_mb": round(memory_mb(network, *size, device), 1),
        "memory_of": "CUDA's allocator" if device == "cuda" else "tensors alive at once",
        "device": device, "threads": torch.get_num_threads(), "measured_on": _hardware(machine.environment()),
        "trained_on": _hardware(trained["provenance"]["environment"]),
    }  # fmt: skip


def _hardware(environment: dict[str, str]) -> str:
    return f"{environment['CPU']}; GPU: {environment['GPU']}"


def multiply_adds(network: nn.Module, height: int, width: int) -> int:
    """Of one image, in convolutions and matrix products only; with weights on `meta` nothing is computed."""
    image = torch.zeros(1, 1, height, width, device=next(network.parameters()).device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(image)
    return counter.get_total_flops() // 2


@torch.inference_mode()
def latencies_ms(network: nn.Module, height: int, width: int, device: str) -> list[float]:
    """Of consecutive forward passes of one image that is on the device, after a warm-up."""
    network, image = network.to(device), torch.randn(1, 1, height, width, device=device)
    latencies = []
    for number in range(WARM_UP + MAX_PASSES):
        if number >= 2 * WARM_UP and sum(latencies) >= 1000 * MAX_SECONDS:
            break
        started = time.perf_counter()
        network(image)
        if device != "cpu":
            torch.accelerator.synchronize()
        latencies.append(1000 * (time.perf_counter() - started))
    return latencies[WARM_UP:]


@torch.inference_mode()
def memory_mb(network: nn.Module, height: int, width: int, device: str) -> float:
    """Peak memory of a forward pass of one image in 10^6 bytes: weights, image and activations, not the program.

    On CUDA measured by torch's allocator, workspaces of layers included; elsewhere summed over the live tensors.
    """
    network, image = network.to(device), torch.randn(1, 1, height, width, device=device)
    tensors = [*network.parameters(), *network.buffers(), image]
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        network(image)
        return (sum(tensor.nbytes for tensor in tensors) + torch.cuda.max_memory_allocated() - before) / 1e6
    with PeakMemory(tensors) as memory:
        network(image)
    return memory.peak / 1e6


class PeakMemory(TorchDispatchMode):
    """Peak bytes of live tensors: those given, and those that operations create within the context."""

    def __init__(self, tensors: list[torch.Tensor]):
        super().__init__()
        self.live = WeakIdKeyDictionary({tensor.untyped_storage(): None for tensor in tensors})
        self.peak = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        output = operation(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor)]
        self.live.update({tensor.untyped_storage(): None for tensor in tensors})
        self.peak = max(self.peak, sum(storage.nbytes() for storage in self.live))
        return output
