"""The three networks, each after its own paper, behind one registry: one grey channel in, one logit a class out."""

import difflib
import functools
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from lumbar_utils import FURTHER, StudyError


class UNet(nn.Module):
    """U-Net: convolutions and max-pooling down, transposed convolutions up, the way down joined to the way up.

    channels : of the first level, doubled on each of the four below; 64 to 1024 in the paper.
    deep_supervision : in training, give a list of logits: of the whole size, of half, and so on, without the lowest.
    Two deviations: convolutions keep the size (the paper's shrink it), and each is followed by batch normalisation.
    Source: Ronneberger, Fischer, Brox 2015, doi 10.1007/978-3-319-24574-4_28.
    """

    def __init__(self, channels: int, classes: int, deep_supervision: bool = False):
        super().__init__()
        widths = [channels * 2**level for level in range(5)]
        self.down = nn.ModuleList(_double_convolution(*pair) for pair in pairwise([1, *widths]))
        self.pool = nn.MaxPool2d(2)
        above_below = list(pairwise(widths))[::-1]
        self.rise = nn.ModuleList(nn.ConvTranspose2d(below, above, 2, stride=2) for above, below in above_below)
        self.up = nn.ModuleList(_double_convolution(2 * above, above) for above, _ in above_below)
        self.classify = nn.Conv2d(channels, classes, 1)
        coarser = widths[1:-1] if deep_supervision else []
        self.classify_coarser = nn.ModuleList(nn.Conv2d(width, classes, 1) for width in coarser)

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        passed, risen = [], []
        for level, block in enumerate(self.down):
            x = block(self.pool(x) if level else x)
            passed.append(x)
        for rise, block, beside in zip(self.rise, self.up, passed[-2::-1], strict=True):
            x = block(torch.cat([beside, rise(x)], dim=1))
            risen.append(x)
        if self.training and self.classify_coarser:
            return [self.classify(x), *(head(y) for head, y in zip(self.classify_coarser, risen[-2::-1], strict=True))]
        return self.classify(x)


def _double_convolution(inside: int, outside: int) -> nn.Sequential:
    layers = []
    for channels in (inside, outside):
        layers += [nn.Conv2d(channels, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU(True)]
    return nn.Sequential(*layers)


class HRNetV2(nn.Module):
    """HRNet for segmentation: its four parallel branches brought to a quarter of the size, joined and classified.

    backbone : timm's name of an HRNet; hrnet_w18 is the paper's HRNetV2-W18.
    Source: Wang et al. 2020, doi 10.1109/TPAMI.2020.2983686, section 3.2.
    """

    def __init__(self, backbone: str, classes: int):
        super().__init__()
        import timm

        if backbone not in timm.list_models("hrnet_*"):
            raise StudyError(f"unknown hrnet {backbone!r}; timm knows {', '.join(timm.list_models('hrnet_*'))}")
        # feature_location "" gives the branches themselves, without the widened copies made for classification
        self.backbone = timm.create_model(
            backbone, features_only=True, feature_location="", out_indices=(1, 2, 3, 4), in_chans=1
        )
        joined = sum(self.backbone.feature_info.channels())
        self.head = nn.Sequential(
            nn.Conv2d(joined, joined, 1), nn.BatchNorm2d(joined), nn.ReLU(True), nn.Conv2d(joined, classes, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branches = self.backbone(x)
        size = branches[0].shape[2:]
        joined = torch.cat([upsample(branch, size) for branch in branches], dim=1)
        return upsample(self.head(joined), x.shape[2:])


def upsample(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(batch, channels, height, width) brought to `size`, bilinearly.

    On a GPU by two matrix products: torch's own is made deterministic there by sorting every pixel.
    """
    return (
        F.interpolate(maps, size=size, mode="bilinear")
        if maps.device.type == "cpu"
        else upsample_by_matrices(maps, size)
    )


def upsample_by_matrices(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """`upsample` as a weighted sum of rows and one of columns."""
    sides = zip(maps.shape[2:], size, strict=True)
    rows, columns = (_weights(old, new, maps.device, maps.dtype) for old, new in sides)
    return (rows @ maps @ columns.T).contiguous(memory_format=torch.channels_last)


@functools.cache  # else it would be copied to the GPU at each step
def _weights(old: int, new: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """(new, old): what each of `old` pixels gives to each of `new`; a row sums up to 1."""
    with torch.inference_mode(False):  # or what is kept while predicting could not be trained with
        weights = F.interpolate(torch.eye(old)[None], size=new, mode="linear")[0].T
        return weights.to(device, dtype)


def efficientnet_unet(encoder: str, classes: int) -> nn.Module:
    """EfficientNet as the encoder of segmentation_models_pytorch's U-Net; the paper names no decoder.

    Source: Tan and Le 2019, arXiv 1905.11946; Iakubovskii 2019, segmentation_models_pytorch.
    """
    import segmentation_models_pytorch as smp

    if encoder.startswith(FURTHER) and "efficientnet" in encoder:
        return timm_unet(encoder, classes)
    known = [name for name in smp.encoders.get_encoder_names() if name.startswith("efficientnet")]
    if encoder not in known:
        raise StudyError(
            f"unknown efficientnet {encoder!r}; segmentation_models_pytorch knows {', '.join(known)}, and timm's as "
            f"{FURTHER}NAME, tu-efficientnet_b0 for instance"
        )
    return smp.Unet(encoder, encoder_weights=None, in_channels=1, classes=classes)


def timm_unet(name: str, classes: int) -> nn.Module:
    """`tu-NAME`: any encoder of timm that gives a pyramid of features, in segmentation_models_pytorch's U-Net."""
    import segmentation_models_pytorch as smp
    import timm

    encoder = name.removeprefix(FURTHER)
    if encoder not in timm.list_models():
        near = difflib.get_close_matches(encoder, timm.list_models())
        raise StudyError(
            f"unknown model {name!r}; timm has no {encoder}"
            + (f", but {', '.join(near)}" if near else "; timm.list_models() lists what it has")
        )
    try:
        network = smp.Unet(name, encoder_weights=None, in_channels=1, classes=classes)
        with torch.inference_mode():
            network.eval()(torch.zeros(1, 1, 64, 64))
    except Exception as error:  # each kind of network fails in its own way
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise StudyError(
            f"{name} gives no pyramid of features for a U-Net ({reason}); take a convolutional encoder, tu-resnet34 "
            "for instance"
        ) from error
    return network.train()


class _WholePrecisionOnCpu:
    """A depthwise convolution kept in float32: in bfloat16 a CPU takes ten times as long for its backward pass."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float())


BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "unet": lambda classes, unet_channels, deep_supervision, **_: UNet(unet_channels, classes, deep_supervision),
    "hrnet": lambda classes, hrnet, **_: HRNetV2(hrnet, classes),
    "efficientnet": lambda classes, efficientnet, **_: efficientnet_unet(efficientnet, classes),
}


def build(
    model: str,
    *,
    unet_channels: int = 64,
    hrnet: str = "hrnet_w18",
    efficientnet: str = "efficientnet-b0",
    classes: int = 7,
    deep_supervision: bool = False,
) -> nn.Module:
    """An untrained network: (batch, 1, height, width) float32 -> (batch, classes, height, width) logits.

    Height and width must be multiples of 32. The defaults are the networks of their papers. Raises StudyError for
    an unknown model, backbone or encoder.
    """
    if model.startswith(FURTHER):
        network = timm_unet(model, classes)
    elif model in BUILDERS:
        network = BUILDERS[model](
            classes=classes, unet_channels=unet_channels, hrnet=hrnet, efficientnet=efficientnet,
            deep_supervision=deep_supervision,
        )  # fmt: skip
    else:
        raise StudyError(
            f"unknown model {model!r}; there are {', '.join(BUILDERS)}, and {FURTHER}NAME for any encoder of timm"
        )
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and 1 < layer.groups == layer.in_channels:
            layer.__class__ = type(layer.__class__.__name__, (_WholePrecisionOnCpu, layer.__class__), {})
        if isinstance(layer, nn.BatchNorm2d):
            # EfficientNet comes with 0.01, whose averages lag so far behind a short training that it predicts nothing
            layer.momentum = 0.1
    return network
