"""An encoder's weights of ImageNet, from the hub or from a file, their three colours summed into one grey."""

from pathlib import Path

import torch
from torch import nn

from lumbar_utils import StudyError
from lumbar_utils.networks.models import HRNetV2
from lumbar_utils.study import Study, weight_files

ON_THE_HUB = "model.safetensors"


def pretrain(network: nn.Module, model: str, study: Study) -> None:
    """Give a network's encoder the weights that the study names; U-Net, which has no such encoder, stays as it is.

    Raises StudyError if they cannot be fetched or read, or do not fit.
    """
    if model == "unet":
        print(f"unet has no encoder to pre-train: encoder_weights={study.encoder_weights} does not touch it")
        return
    name = getattr(study, model, model)
    file = _downloaded(name) if study.encoder_weights == "imagenet" else _file_of(name, Path(study.encoder_weights))
    load_encoder(
        network.backbone if isinstance(network, HRNetV2) else network.encoder, _read(file), f"{name} in {file}"
    )


def load_encoder(encoder: nn.Module, weights: dict[str, torch.Tensor], what: str) -> None:
    """Load weights made for colour images into an encoder of grey ones.

    A layer under a name that begins nothing of the encoder is the classifier's, and left out. Raises StudyError if
    any other is missing, unexpected or of another shape.
    """
    layers = encoder.state_dict()
    own = {_plain(name): name for name in layers}
    given = {
        plain: name for plain, name in zip(map(_plain, weights), weights, strict=True)
        if any(known.startswith(f"{name.split('.')[0]}_") for known in own)
    }  # fmt: skip
    summed = {
        plain: weights[given[plain]].sum(dim=1, keepdim=True) for plain in own.keys() & given.keys()
        if layers[own[plain]].shape[1:2] == (1,) and weights[given[plain]].shape[1:2] == (3,)
    }  # fmt: skip
    ready = {plain: weights[name] for plain, name in given.items()} | summed
    counters = {plain for plain in own if plain.endswith("num_batches_tracked")}  # absent from old files, and not used
    for problem, names in {
        "missing": own.keys() - ready.keys() - counters,
        "unexpected": ready.keys() - own.keys(),
        "of another shape": {
            name for name in own.keys() & ready.keys() if layers[own[name]].shape != ready[name].shape
        },
    }.items():
        if names:
            first = min(own.get(name, given.get(name)) for name in names)
            raise StudyError(
                f"weights of {what} do not fit: {len(names)} tensors are {problem}, first {first}; "
                "take a file made for this encoder"
            )
    encoder.load_state_dict({own[plain]: tensor for plain, tensor in ready.items()}, strict=False)


def _plain(name: str) -> str:
    """A layer's name without what timm adds when it wraps an encoder: `model.`, and stages_0 for stages.0."""
    return name.replace("model.", "").replace(".", "_")


def _file_of(encoder: str, path: Path) -> Path:
    if not path.is_dir():
        return path
    named = [file for file in weight_files(path) if file.stem == encoder]
    if not named:
        raise StudyError(f"encoder_weights={path} has no weights of {encoder}; put {encoder}.safetensors or .pth there")
    return named[0]


def _read(file: Path) -> dict[str, torch.Tensor]:
    from timm.models import load_state_dict

    try:
        return load_state_dict(str(file), weights_only=True)
    except Exception as error:  # torch and safetensors raise many kinds
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise StudyError(
            f"weights {file} cannot be read ({reason}); they must be tensors alone, saved by torch.save or safetensors"
        ) from error


def _downloaded(encoder: str) -> Path:
    """The file of an encoder's weights of ImageNet, downloaded unless it is in the hub's cache already."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    repo, revision = _on_the_hub(encoder)
    known = try_to_load_from_cache(repo, ON_THE_HUB, revision=revision)
    if isinstance(known, str):
        return Path(known)
    try:
        get_hf_file_metadata(hf_hub_url(repo, ON_THE_HUB, revision=revision))  # asks once; the next line five times
        return Path(hf_hub_download(repo, ON_THE_HUB, revision=revision))
    except Exception as error:  # the hub's, the connection's and the disk's
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise StudyError(
            f"encoder_weights=imagenet: the weights of {encoder} could not be fetched ({reason}); where there is a "
            f"network, take {ON_THE_HUB} from https://huggingface.co/{repo}, and give it as encoder_weights=FILE"
        ) from error


def _on_the_hub(encoder: str) -> tuple[str, str | None]:
    """Repository and revision of an encoder's weights of ImageNet."""
    import segmentation_models_pytorch as smp
    import timm

    if encoder in smp.encoders.encoders:
        found = smp.encoders.encoders[encoder]["pretrained_settings"]["imagenet"]
        return found["repo_id"], found["revision"]
    found = timm.get_pretrained_cfg(encoder.removeprefix("tu-"))
    if not (found and found.hf_hub_id):
        raise StudyError(f"encoder_weights=imagenet: there are none of {encoder}; use encoder_weights=none or a file")
    return found.hf_hub_id, None
