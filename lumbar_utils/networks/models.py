"""The three networks, each after its paper, and any timm encoder in a U-Net; from random or from ImageNet weights.

Every network maps one grey channel to one logit per class: (batch, 1, height, width) float32 -> (batch, classes,
height, width), height and width multiples of 32.
"""

import functools
import textwrap
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from lumbar_utils import FURTHER, LEVELS, MODELS, StudyError
from lumbar_utils.networks.dataset import seed_of
from lumbar_utils.study import Study, weight_files

HUB_FILE = "model.safetensors"
CLASSES = len(LEVELS) + 1  # with the background
ENCODERS = f"efficientnet-b0 to efficientnet-b7, or {FURTHER}NAME for one of timm's, tu-efficientnet_b0 for instance"


def network_of(study: Study, model: str) -> nn.Module:
    """The study's network of that name with its initial weights, which depend on the study's seed alone."""
    torch.manual_seed(seed_of(study.seed))
    network = build(model, study.unet_channels, study.hrnet, study.efficientnet)
    return network.to(memory_format=torch.channels_last)


def build(
    model: str, unet_channels: int = 64, hrnet: str = "hrnet_w18", efficientnet: str = "efficientnet-b0"
) -> nn.Module:
    """An untrained network; the defaults are the networks of the papers.

    Raises StudyError for an unknown model, backbone or encoder.
    """
    if model == "unet":
        network = UNet(unet_channels)
    elif model == "hrnet":
        network = HRNetV2(hrnet)
    elif model == "efficientnet":
        if "efficientnet" not in efficientnet:
            raise StudyError(f"unknown efficientnet {efficientnet!r}; give {ENCODERS}")
        network = unet_on(efficientnet)
    elif model.startswith(FURTHER):
        network = unet_on(model)
    else:
        raise StudyError(
            f"unknown model {model!r}; there are {', '.join(MODELS)}, and {FURTHER}NAME for any encoder of timm"
        )
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and 1 < layer.groups == layer.in_channels:
            layer.__class__ = type(layer.__class__.__name__, (_Float32OnCpu, layer.__class__), {})
        if isinstance(layer, nn.BatchNorm2d):
            # with EfficientNet's own 0.01 the averages lag so far behind a short training that it predicts nothing
            layer.momentum = 0.1
    return network


class UNet(nn.Module):
    """U-Net: convolutions and max-pooling down, transposed convolutions up, skip connections between the two.

    channels : of the first level, doubled on each of the four below; 64 to 1024 in the paper.
    Two deviations: convolutions keep the size (the paper's shrink it), and each is followed by batch normalisation.
    Source: Ronneberger, Fischer, Brox 2015, doi 10.1007/978-3-319-24574-4_28.
    """

    def __init__(self, channels: int):
        super().__init__()
        widths = [channels * 2**level for level in range(5)]
        self.down = nn.ModuleList(_double_convolution(*pair) for pair in pairwise([1, *widths]))
        self.pool = nn.MaxPool2d(2)
        above_below = list(pairwise(widths))[::-1]
        self.rise = nn.ModuleList(nn.ConvTranspose2d(below, above, 2, stride=2) for above, below in above_below)
        self.up = nn.ModuleList(_double_convolution(2 * above, above) for above, _ in above_below)
        self.classify = nn.Conv2d(channels, CLASSES, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, 1, height, width) -> logits (batch, classes, height, width)."""
        encoded = []  # outputs of the levels, from the largest to the smallest
        for level, block in enumerate(self.down):
            if level > 0:
                x = self.pool(x)
            x = block(x)
            encoded.append(x)
        for rise, block, skip in zip(self.rise, self.up, encoded[-2::-1], strict=True):
            x = block(torch.cat([skip, rise(x)], dim=1))
        return self.classify(x)


def _double_convolution(inputs: int, outputs: int) -> nn.Sequential:
    layers = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(True)]
    return nn.Sequential(*layers)


class HRNetV2(nn.Module):
    """HRNet for segmentation: its four parallel branches resized to 1/4 of the input, concatenated and classified.

    backbone : timm's name of an HRNet; hrnet_w18 is the paper's HRNetV2-W18.
    Source: Wang et al. 2020, doi 10.1109/TPAMI.2020.2983686, section 3.2.
    """

    def __init__(self, backbone: str):
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
            nn.Conv2d(joined, joined, 1), nn.BatchNorm2d(joined), nn.ReLU(True), nn.Conv2d(joined, CLASSES, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, 1, height, width) -> logits (batch, classes, height, width)."""
        branches = self.backbone(x)
        size = branches[0].shape[2:]
        joined = torch.cat([upsample(branch, size) for branch in branches], dim=1)
        return upsample(self.head(joined), x.shape[2:])


def upsample(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(batch, channels, height, width) resized bilinearly to `size`.

    On a GPU by two matrix products: torch's deterministic interpolation sorts every pixel there.
    """
    if maps.device.type == "cpu":
        return F.interpolate(maps, size=size, mode="bilinear")
    return upsample_by_matrices(maps, size)


def upsample_by_matrices(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """`upsample` as a weighted sum of rows and one of columns."""
    rows = _interpolation_weights(maps.shape[2], size[0], maps.device, maps.dtype)
    columns = _interpolation_weights(maps.shape[3], size[1], maps.device, maps.dtype)
    return (rows @ maps @ columns.T).contiguous(memory_format=torch.channels_last)


@functools.cache  # otherwise copied to the GPU at each step
def _interpolation_weights(old: int, new: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """(new, old): share of each old pixel in each new one; rows sum to 1."""
    with torch.inference_mode(False):  # weights cached while predicting could otherwise not be used in training
        weights = F.interpolate(torch.eye(old)[None], size=new, mode="linear")[0].T
        return weights.to(device, dtype)


def unet_on(encoder: str) -> nn.Module:
    """segmentation_models_pytorch's U-Net on an encoder of its own or, as `tu-NAME`, of timm's; EfficientNet as a rule.

    The paper names no decoder for EfficientNet.
    Source: Tan and Le 2019, arXiv 1905.11946; Iakubovskii 2019, segmentation_models_pytorch.
    """
    import segmentation_models_pytorch as smp

    try:
        network = smp.Unet(encoder, encoder_weights=None, in_channels=1, classes=CLASSES)
        with torch.inference_mode():
            network.eval()(torch.zeros(1, 1, 64, 64))
    except Exception as error:  # each kind of network fails in its own way
        raise StudyError(
            f"{encoder} gives no pyramid of features for a U-Net ({_short(error)}); give {ENCODERS}, or tu-resnet34: a "
            "convolutional encoder of timm.list_models()"
        ) from error
    return network.train()


class _Float32OnCpu:
    """Mixed into a depthwise convolution: in bfloat16 a CPU takes ten times as long for its backward pass."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float())


def load_encoder_weights(network: nn.Module, model: str, study: Study) -> None:
    """Give a network's encoder the weights that the study's `encoder_weights` names; a U-Net stays as it is.

    Raises StudyError if the weights cannot be downloaded or read, or do not fit.
    """
    if model == "unet":
        print(f"unet has no encoder to pre-train: encoder_weights={study.encoder_weights} does not affect it")
        return
    name = getattr(study, model, model)
    file = _weights_file(name, study.encoder_weights)
    encoder = network.backbone if isinstance(network, HRNetV2) else network.encoder
    load_encoder(encoder, _read_weights(file), f"{name} in {file}")


def load_encoder(encoder: nn.Module, weights: dict[str, torch.Tensor], source: str) -> None:
    """Load weights made for colour images into an encoder of grey ones: its first kernels are summed over colours.

    weights : layer -> tensor. Layers of a classifier, which no name of the encoder starts like, are left out.
    source : of the weights, for the error. Raises StudyError if a tensor is missing, unexpected or of another shape.
    """
    layers = encoder.state_dict()
    names = {_comparable(name): name for name in layers}
    given = {}
    for name, tensor in weights.items():
        part = name.split(".")[0]
        if not any(comparable.startswith(f"{part}_") for comparable in names):
            continue
        name = names.get(_comparable(name), name)
        if name in layers and layers[name].shape[1:2] == (1,) and tensor.shape[1:2] == (3,):
            tensor = tensor.sum(dim=1, keepdim=True)
        given[name] = tensor
    try:
        encoder.load_state_dict(given)
    except RuntimeError as error:
        raise StudyError(
            f"weights of {source} do not fit ({_short(error)}); take a file made for this encoder"
        ) from None


def _comparable(name: str) -> str:
    """A layer's name without what timm changes when it wraps an encoder: `model.`, and stages_0 for stages.0."""
    return name.replace("model.", "").replace(".", "_")


def _weights_file(encoder: str, source: str) -> Path:
    """The file of an encoder's weights. source : `imagenet`, a file, or a folder of files named after encoders."""
    if source == "imagenet":
        return _download(encoder)
    path = Path(source)
    if not path.is_dir():
        return path
    for file in weight_files(path):
        if file.stem == encoder:
            return file
    raise StudyError(f"encoder_weights={path} has no weights of {encoder}; put {encoder}.safetensors or .pth there")


def _read_weights(file: Path) -> dict[str, torch.Tensor]:
    from timm.models import load_state_dict

    try:
        return load_state_dict(str(file), weights_only=True)
    except Exception as error:  # torch and safetensors raise many kinds
        raise StudyError(
            f"weights {file} cannot be read ({_short(error)}); they must hold only tensors, saved by torch.save "
            "or safetensors"
        ) from error


def _download(encoder: str) -> Path:
    """The file of an encoder's ImageNet weights, downloaded unless it is in the hub's cache already."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    repository, revision = _hub_repository(encoder)
    cached = try_to_load_from_cache(repository, HUB_FILE, revision=revision)
    if isinstance(cached, str):
        return Path(cached)
    try:
        # without a network this fails at once, where hf_hub_download would try five times
        get_hf_file_metadata(hf_hub_url(repository, HUB_FILE, revision=revision))
        return Path(hf_hub_download(repository, HUB_FILE, revision=revision))
    except Exception as error:  # of the hub, the connection or the disk
        raise StudyError(
            f"encoder_weights=imagenet: the weights of {encoder} could not be fetched ({_short(error)}); on a "
            f"machine with a network, take {HUB_FILE} from https://huggingface.co/{repository}, and give it as "
            "encoder_weights=FILE"
        ) from error


def _hub_repository(encoder: str) -> tuple[str, str | None]:
    """Repository and revision of an encoder's ImageNet weights."""
    import segmentation_models_pytorch as smp
    import timm

    if encoder in smp.encoders.encoders:
        settings = smp.encoders.encoders[encoder]["pretrained_settings"]["imagenet"]
        return settings["repo_id"], settings["revision"]
    config = timm.get_pretrained_cfg(encoder.removeprefix(FURTHER))
    if not (config and config.hf_hub_id):
        raise StudyError(f"encoder_weights=imagenet: there are none of {encoder}; use encoder_weights=none or a file")
    return config.hf_hub_id, None


def _short(error: Exception) -> str:
    return textwrap.shorten(str(error) or type(error).__name__, 300)
