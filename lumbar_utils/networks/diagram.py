"""The stages of a built network and their connections, with shapes and parameters measured in a forward pass."""

import dataclasses
from itertools import groupby, pairwise, product

import pandas as pd
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from lumbar_utils.networks.models import HRNetV2, UNet

Connections = list[tuple[int, int, str]]  # indices of two stages, and forward, skip or exchange


@dataclasses.dataclass
class Stage:
    """Modules that are one box of the diagram.

    kind : encoder, branch, decoder or head. modules : those whose parameters are counted. output : the module whose
    output is the stage's; branch : which one, where the output is a list. column : order from left to right.
    """

    name: str
    kind: str
    operation: str
    modules: list[nn.Module]
    output: nn.Module
    branch: int = 0
    column: int = 0


def describe(network: nn.Module, height: int, width: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Stages and connections of one of the study's networks for an image of height x width pixels.

    stages : name, column (order from left to right), kind, operation, channels, height, width, stride (height of the
        input over height of the stage) and parameters.
    connections : source and target (rows of stages), kind (forward, skip or exchange).
    """
    if isinstance(network, UNet):
        stages, connections = _unet(network)
    elif isinstance(network, HRNetV2):
        stages, connections = _hrnet(network)
    else:
        stages, connections = _encoder_unet(network)
    shapes, rows = _output_shapes(network, height, width), []
    for stage in stages:
        shape = shapes[stage.output][stage.branch]
        row = (stage.name, stage.column, stage.kind, stage.operation, *shape, height // shape[1])
        rows.append((*row, _parameters(stage.modules)))
    columns = ["name", "column", "kind", "operation", "channels", "height", "width", "stride", "parameters"]
    return pd.DataFrame(rows, columns=columns), pd.DataFrame(connections, columns=["source", "target", "kind"])


def unused_parameters(network: nn.Module, stages: pd.DataFrame) -> int:
    """Parameters in no stage: EfficientNet's encoder keeps the last convolution of a classifier."""
    return _parameters([network]) - int(stages["parameters"].sum())


def _output_shapes(network: nn.Module, height: int, width: int) -> dict[nn.Module, list[tuple[int, int, int]]]:
    """Module -> (channels, height, width) of its output, or of each in a list of outputs."""
    shapes = {}

    def keep(module: nn.Module, _, output) -> None:
        maps = [output] if isinstance(output, torch.Tensor) else output
        shapes[module] = [tuple(map_.shape[1:]) for map_ in maps]

    was_training = network.training
    with torch.inference_mode(), register_module_forward_hook(keep):
        network.eval()(torch.zeros(1, 1, height, width))
    network.train(was_training)
    return shapes


def _parameters(modules: list[nn.Module]) -> int:
    return sum(weights.numel() for module in modules for weights in module.parameters())


def _u_shaped(encoder: list[Stage], decoder: list[Stage]) -> tuple[list[Stage], Connections]:
    """All stages from left to right, each connected to the next, with a skip connection from each encoder but one."""
    stages = encoder + decoder
    for column, stage in enumerate(stages):
        stage.column = column
    forward = [(index, index + 1, "forward") for index in range(len(stages) - 1)]
    lowest = len(encoder) - 1
    skips = [(index, 2 * lowest - index, "skip") for index in range(lowest)]
    return stages, forward + skips


def _unet(network: UNet) -> tuple[list[Stage], Connections]:
    encoder, decoder = [], []
    for level, block in enumerate(network.down):
        pooling = "max-pool, " if level else ""
        encoder.append(Stage(f"encoder {level + 1}", "encoder", f"{pooling}2 conv 3×3", [block], block))
    for step, (rise, block) in enumerate(zip(network.rise, network.up, strict=True)):
        name = f"decoder {len(network.up) - step}"
        decoder.append(Stage(name, "decoder", "up-conv 2×2, 2 conv 3×3", [rise, block], block))
    decoder.append(Stage("classes", "head", "conv 1×1", [network.classify], network.classify))
    return _u_shaped(encoder, decoder)


def _encoder_unet(network: nn.Module) -> tuple[list[Stage], Connections]:
    """segmentation_models_pytorch's U-Net: one stage for each size of features that its encoder passes on."""
    encoder = network.encoder
    stages = _efficientnet(encoder) if hasattr(encoder, "_blocks") else _timm(encoder)
    blocks, head, decoder = network.decoder.blocks, network.segmentation_head, []
    for number, block in enumerate(blocks):
        decoder.append(Stage(f"decoder {len(blocks) - number}", "decoder", "resize ×2, 2 conv 3×3", [block], block))
    return _u_shaped(stages, [*decoder, Stage("classes", "head", "conv 3×3", [head], head)])


def _efficientnet(encoder: nn.Module) -> list[Stage]:
    stages = [Stage("stem", "encoder", "conv 3×3", [encoder._conv_stem, encoder._bn0], encoder._bn0)]
    ends = [0, *(index + 1 for index in sorted(encoder._out_indexes))]
    for level, (start, end) in enumerate(pairwise(ends), 2):
        blocks = list(encoder._blocks[start:end])
        kinds = [f"{len(list(group))} {kind}" for kind, group in groupby(blocks, key=_mbconv)]
        stages.append(Stage(f"encoder {level}", "encoder", ", ".join(kinds), blocks, blocks[-1]))
    return stages


def _mbconv(block: nn.Module) -> str:
    """The type of an MBConv block, read off its weights: expansion factor and kernel size."""
    depthwise = block._depthwise_conv.weight
    inputs = depthwise.shape[0]
    if block._has_expansion:
        inputs = block._expand_conv.weight.shape[1]
    return f"MBConv{depthwise.shape[0] // inputs} {depthwise.shape[-1]}×{depthwise.shape[-1]}"


def _timm(encoder: nn.Module) -> list[Stage]:
    """All parameters of the encoder are counted in its last stage."""
    stages = []
    for size in range(1, len(encoder.out_channels)):
        stages.append(Stage(f"features {size}", "encoder", encoder.name, [], encoder, branch=size))
    stages[-1].modules = [encoder]
    return stages


def _hrnet(network: HRNetV2) -> tuple[list[Stage], Connections]:
    """One column for each of HRNet's stages, one box for each of its branches."""
    body = network.backbone
    stem_layers = [body.conv1, body.bn1, body.conv2, body.bn2]
    bottlenecks = f"{len(body.layer1)} bottleneck"
    if len(body.layer1) > 1:
        bottlenecks += "s"
    stages = [
        Stage("stem", "encoder", "2 conv 3×3, stride 2", stem_layers, body.act2, column=0),
        Stage("stage 1", "encoder", bottlenecks, [body.layer1], body.layer1, column=1),
    ]
    connections, before = [(0, 1, "forward")], [1]
    for number in (2, 3, 4):
        block, transition = getattr(body, f"stage{number}"), getattr(body, f"transition{number - 1}")
        after = range(len(stages), len(stages) + number)
        for branch in range(number):
            modules = [transition[branch]]
            for unit in block:
                # the layers that bring the other branches to this one; the last unit may keep one branch alone
                modules += [unit.branches[branch], *unit.fuse_layers[branch : branch + 1]]
            operation = f"{len(block)}×{len(block[0].branches[branch])} residual"
            stages.append(Stage(f"stage {number}.{branch + 1}", "branch", operation, modules, block, branch, number))
        for (j, source), (i, target) in product(enumerate(before), enumerate(after)):
            connections.append((source, target, "forward" if i == j else "exchange"))
        before = after
    joined = len(stages)
    stages.append(Stage("joined", "head", "resize, concat", [], network.head[0], column=5))
    stages.append(Stage("classes", "head", "2 conv 1×1, resize ×4", [network.head], network, column=6))
    for source in before:
        connections.append((source, joined, "forward" if source == before[0] else "exchange"))
    connections.append((joined, joined + 1, "forward"))
    return stages, connections
