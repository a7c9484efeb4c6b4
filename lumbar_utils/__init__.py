"""Reproducible comparison of U-Net, HRNet and EfficientNet at segmenting lumbar vertebrae in sagittal MRI."""

import os

# albumentations asks a registry for updates at import unless told not to; nothing here may need a network
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
# threads that spin while they wait make a training step up to fifty times slower as soon as another program is busy
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"

LEVELS = ("L1", "L2", "L3", "L4", "L5", "S1")  # value 1..6 of every label map, in this order; 0 is background


class StudyError(ValueError):
    """Input or surroundings that the study cannot work with: what was found, what is allowed, and the remedy."""
