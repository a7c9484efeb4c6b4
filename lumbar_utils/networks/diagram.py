"""A built network as a reader thinks of it: its stages, with shapes and parameters measured in a real pass."""

import dataclasses
from itertools import groupby, pairwise

import pandas as pd
import torch
from torch import nn

from lumbar_utils.networks.models import HRNetV2, UNet


@dataclasses.dataclass
class Stage:
    """Modules that a reader takes for one thing.

    output : the module whose output the stage hands on; branch : which one, where the output is a list.
    """

    name: str
    column: int
    kind: str
    operation: str
    modules: list[nn.Module]
    output: nn.Module
    branch: int | None = None


def describe(network: nn.Module, height: int, width: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Stages and connections of one of the study's networks for an image of height x width.

    stages : name, column (order from left to right), kind, operation, channels, height, width, stride (input size over
        size) and parameters, whose sum is the network's total.
    connections : source and target (rows of stages), kind (forward, skip or exchange).
    """
    if isinstance(network, UNet):
        stages, connections = _unet(network)
    elif isinstance(network, HRNetV2):
        stages, connections = _hrnet(network)
    elif hasattr(network.encoder, "_blocks"):
        stages, connections = _efficientnet(network)
    else:
        stages, connections = _timm(network)
    shapes = _measure(network, stages, height, width)
    rows = [
        (stage.name, stage.column, stage.kind, stage.operation, *shape, height // shape[1], _parameters(stage.modules))
        for stage, shape in zip(stages, shapes, strict=True)
    ]
    columns = ["name", "column", "kind", "operation", "channels", "height", "width", "stride", "parameters"]
    return pd.DataFrame(rows, columns=columns), pd.DataFrame(connections, columns=["source", "target", "kind"])


def _measure(network: nn.Module, stages: list[Stage], height: int, width: int) -> list[tuple[int, int, int]]:
    """(channels, height, width) that each stage hands on."""
    outputs: dict[nn.Module, object] = {}
    hooks = [
        module.register_forward_hook(lambda module, _, output: outputs.__setitem__(module, output))
        for module in {stage.output for stage in stages}
    ]
    was_training = network.training
    with torch.inference_mode():
        network.eval()(torch.zeros(1, 1, height, width))
    network.train(was_training)
    for hook in hooks:
        hook.remove()
    handed = [(outputs[stage.output], stage.branch) for stage in stages]
    return [tuple((output if branch is None else output[branch]).shape[1:]) for output, branch in handed]


def unused_parameters(network: nn.Module, stages: pd.DataFrame) -> int:
    """Parameters that take no part: EfficientNet's encoder keeps the last convolution of the classifier it once was."""
    return _parameters([network]) - int(stages["parameters"].sum())


def _parameters(modules: list[nn.Module]) -> int:
    return sum(weights.numel() for module in modules for weights in module.parameters())


def _chain(first: int, last: int) -> list[tuple[int, int, str]]:
    return [(row, row + 1, "forward") for row in range(first, last)]


def _unet(network: UNet):
    stages = []
    for level, block in enumerate(network.down):
        pooling = "max-pool, " if level else ""
        stages.append(Stage(f"encoder {level + 1}", level, "encoder", f"{pooling}2 conv 3×3", [block], block))
    for step, (rise, block) in enumerate(zip(network.rise, network.up, strict=True)):
        name = f"decoder {len(network.up) - step}"
        stages.append(Stage(name, len(stages), "decoder", "up-conv 2×2, 2 conv 3×3", [rise, block], block))
    stages.append(Stage("classes", len(stages), "head", "conv 1×1", [network.classify], network.classify))
    depth = len(network.up)
    skips = [(level, 2 * depth - level, "skip") for level in range(depth)]
    return stages, _chain(0, len(stages) - 1) + skips


def _hrnet(network: HRNetV2):
    body = network.backbone
    stem = Stage("stem", 0, "encoder", "2 conv 3×3, stride 2", [body.conv1, body.bn1, body.conv2, body.bn2], body.act2)
    first = Stage("stage 1", 1, "encoder", _number(len(body.layer1), "bottleneck"), [body.layer1], body.layer1)
    stages, connections, before = [stem, first], [(0, 1, "forward")], [1]
    for number in (2, 3, 4):
        block, transition = getattr(body, f"stage{number}"), getattr(body, f"transition{number - 1}")
        after = []
        for branch in range(number):
            modules = [part for unit in block for part in (unit.branches[branch], *_fusing(unit, branch))]
            units = len(block[0].branches[branch])
            operation = f"{len(block)}×{units} residual"
            name = f"stage {number}.{branch + 1}"
            stages.append(Stage(name, number, "branch", operation, [*modules, transition[branch]], block, branch))
            after.append(len(stages) - 1)
        connections += [
            (source, target, "forward" if i == j else "exchange")
            for j, source in enumerate(before) for i, target in enumerate(after)
        ]  # fmt: skip
        before = after
    stages.append(Stage("joined", 5, "head", "resize, concat", [], network.head[0]))
    stages.append(Stage("classes", 6, "head", "2 conv 1×1, resize ×4", [network.head], network))
    joined = len(stages) - 2
    connections += [(source, joined, "forward" if source == before[0] else "exchange") for source in before]
    return stages, [*connections, (joined, joined + 1, "forward")]


def _number(count: int, thing: str) -> str:
    return f"{count} {thing}" + ("s" if count > 1 else "")


def _fusing(unit: nn.Module, branch: int) -> list[nn.Module]:
    """The layers of an exchange unit that bring the other branches to `branch`; the last unit may keep one branch."""
    return [unit.fuse_layers[branch]] if branch < len(unit.fuse_layers) else []


def _efficientnet(network: nn.Module):
    """One box for each size that the encoder hands on, with the blocks on the way there."""
    encoder = network.encoder
    stages = [Stage("stem", 0, "encoder", "conv 3×3", [encoder._conv_stem, encoder._bn0], encoder._bn0)]
    ends = [0, *(index + 1 for index in sorted(encoder._out_indexes))]
    for level, (start, end) in enumerate(pairwise(ends), 1):
        blocks = list(encoder._blocks[start:end])
        runs = [(kind, len(list(group))) for kind, group in groupby(blocks, key=_mbconv)]
        operation = ", ".join(f"{count} {kind}" for kind, count in runs)
        stages.append(Stage(f"encoder {level + 1}", level, "encoder", operation, blocks, blocks[-1]))
    depth = len(stages)
    skips = [(row, 2 * depth - 2 - row, "skip") for row in range(depth - 1)]
    stages += _way_up(network, depth)
    return stages, _chain(0, len(stages) - 1) + skips


def _way_up(network: nn.Module, column: int) -> list[Stage]:
    """Decoder and head of segmentation_models_pytorch's U-Net, from a column on."""
    blocks, head = network.decoder.blocks, network.segmentation_head
    stages = [
        Stage(f"decoder {len(blocks) - number}", column + number, "decoder", "resize ×2, 2 conv 3×3", [block], block)
        for number, block in enumerate(blocks)
    ]
    return [*stages, Stage("classes", column + len(blocks), "head", "conv 3×3", [head], head)]


def _timm(network: nn.Module):
    """An encoder of timm is one box for each size that it hands on; what it has inside is all in the last."""
    encoder = network.encoder
    sizes = range(1, len(encoder.out_channels))
    stages = [Stage(f"features {size}", size - 1, "encoder", encoder.name, [], encoder, size) for size in sizes]
    stages[-1].modules = [encoder]
    skips = [(row, 2 * len(stages) - 2 - row, "skip") for row in range(len(stages) - 1)]
    stages += _way_up(network, len(stages))
    return stages, _chain(0, len(stages) - 1) + skips


def _mbconv(block: nn.Module) -> str:
    """What an MBConv block is, read off its weights: how often it widens its input, and its kernel."""
    depthwise = block._depthwise_conv.weight
    inside = block._expand_conv.weight.shape[1] if block._has_expansion else depthwise.shape[0]
    return f"MBConv{depthwise.shape[0] // inside} {depthwise.shape[-1]}×{depthwise.shape[-1]}"
