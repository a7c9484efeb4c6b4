"""What a network costs. Parameters and multiply-adds are its own; times belong to the machine named, busy or idle."""

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
from lumbar_utils.networks.devices import device_of
from lumbar_utils.networks.models import network_of
from lumbar_utils.networks.prediction import refuse_untrained
from lumbar_utils.study import Study

WARM_UP, PASSES, SECONDS = 3, 30, 20.0  # passes before, and at most; no further one after so many seconds


def cost(study: Study, cohort: Cohort, model: str) -> pd.Series:
    """What a trained network of the study costs, measured once and kept as cost.csv in its folder.

    parameters (all, those without effect too), multiply_adds (of an image of the study's size); epochs and
    training_seconds (with validation, without starting up; on trained_on); latency_ms, latency_low_ms, latency_high_ms
    (median and quartiles of passes of one image in float32, as predicted), memory_mb, memory_of; device, threads.
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
    """Of one image, in convolutions and matrix products alone; with weights on `meta` nothing is computed."""
    image = torch.zeros(1, 1, height, width, device=next(network.parameters()).device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(image)
    return counter.get_total_flops() // 2


@torch.inference_mode()
def latencies_ms(network: nn.Module, height: int, width: int, device: str) -> list[float]:
    """Of forward passes of one image that lies on the device already, one after the other, warmed up."""
    network, image, found = network.to(device), torch.randn(1, 1, height, width, device=device), []
    while len(found) < WARM_UP + PASSES and (len(found) < 2 * WARM_UP or sum(found) < 1000 * SECONDS):
        started = time.perf_counter()
        network(image)
        if device != "cpu":
            torch.accelerator.synchronize()
        found.append(1000 * (time.perf_counter() - started))
    return found[WARM_UP:]


@torch.inference_mode()
def memory_mb(network: nn.Module, height: int, width: int, device: str) -> float:
    """Peak in a forward pass of one image, weights and image included but not the program, in 10^6 bytes.

    On CUDA of what torch's allocator hands out, work space of layers too; elsewhere of the tensors alive at once.
    """
    network, image = network.to(device), torch.randn(1, 1, height, width, device=device)
    tensors = [*network.parameters(), *network.buffers(), image]
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        network(image)
        return (sum(tensor.nbytes for tensor in tensors) + torch.cuda.max_memory_allocated() - before) / 1e6
    with Alive(tensors) as alive:
        network(image)
    return alive.peak / 1e6


class Alive(TorchDispatchMode):
    """The most bytes that tensors held at once: those given, and those that operations made since."""

    def __init__(self, tensors: list[torch.Tensor]):
        super().__init__()
        self.alive, self.peak = WeakIdKeyDictionary({tensor.untyped_storage(): None for tensor in tensors}), 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        made = operation(*args, **(kwargs or {}))
        tensors = [part for part in tree_leaves(made) if isinstance(part, torch.Tensor)]
        self.alive.update({tensor.untyped_storage(): None for tensor in tensors})
        self.peak = max(self.peak, sum(storage.nbytes() for storage in self.alive))
        return made
