"""A network without batch statistics, trained as the study trains; also as a script, for several processes at once.

python tests/shared_steps.py RUNS CACHE SETTINGS    settings as JSON; each process leaves RUNS/rank<number>.pt
"""

import json
import sys

import torch
from torch import nn
from torch.nn import functional as F

from lumbar_utils.data.preparation import prepare
from lumbar_utils.networks.segmentation import Segmentation, train
from lumbar_utils.study import Study


class PixelByPixel(Segmentation):
    """Its loss is a mean over pixels, so that the parts of a step add up to the whole; the Dice of a batch does not."""

    def loss(self, logits, masks):
        return F.cross_entropy(logits.float(), masks.long())


def trained(study: Study) -> tuple[list[dict], torch.Tensor, int]:
    """History, all weights in one row, and the number of this process."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 7, 5, padding=2))
    module = PixelByPixel(network, study, prepare(study), "unet", {"made_from": "here"})
    train(module)
    weights = torch.cat([weights.detach().flatten() for weights in network.parameters()])
    return module.history, weights, module.global_rank


if __name__ == "__main__":
    runs, cache, settings = sys.argv[1:]
    history, weights, rank = trained(Study("smoke", runs=runs, cache=cache, **json.loads(settings)))
    torch.save((history, weights), f"{runs}/rank{rank}.pt")
