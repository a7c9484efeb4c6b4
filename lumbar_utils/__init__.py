"""Reproducible comparison of U-Net, HRNet and EfficientNet at segmenting lumbar vertebrae in sagittal MRI."""

import os

# albumentations asks a registry for updates at import unless this variable is set; nothing here may need a network
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
# OpenMP threads that sleep at once between two layers make training up to twice slower on a quiet machine, ones that
# spin for long make it several times slower on a busy one: a short spin
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

__version__ = "0.1.0"

LEVELS = ("L1", "L2", "L3", "L4", "L5", "S1")  # value 1..6 of every label map, in this order; 0 is background

# keys in tables and folders -> names in print, in the paper's order
MODELS = {"unet": "U-Net", "hrnet": "HRNet", "efficientnet": "EfficientNet"}
FURTHER = "tu-"  # begins the names of networks beyond the three: tu-resnet34 is timm's resnet34 in a U-Net
METRICS = {
    "precision": "Precision", "recall": "Recall", "f1": "F1", "map_pixel": "mAP (pixels)", "map_coco": "mAP (COCO)",
}  # fmt: skip


def model_name(model: str) -> str:
    """The printed name of a model's key; a further model's key is its name."""
    return MODELS.get(model, model)


class StudyError(ValueError):
    """Input or surroundings that the study cannot work with: what it got, what is allowed, and the remedy."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows below a cell: only the message, which has the remedy, and no traceback."""
        return [f"\x1b[31m{type(self).__name__}\x1b[39m: {self}"]


class Failure(Exception):
    """A notebook that stopped; its text names it, the cell, the error and the executed copy."""
