"""Tidy tables and images to figures of print width: nothing is read, saved or shown here, `save` aside.

Tables hold the models' keys (`unet`); figures show their names. `note` says on what data a result was obtained.
"""

from lumbar_utils.output.figures.anatomy import error_map
from lumbar_utils.output.figures.architecture import architecture
from lumbar_utils.output.figures.audit import audit_page
from lumbar_utils.output.figures.data import data_overview
from lumbar_utils.output.figures.drawing import (  # fmt: skip
    COLUMN,
    LEVEL_COLOURS,
    MODEL_COLOURS,
    PAGE,
    STYLE,
    draw_contours,
    draw_image,
    noted,
    save,
)
from lumbar_utils.output.figures.evaluation import errors, groups, multiverse, paired_differences, reliability
from lumbar_utils.output.figures.grid import grid_overview, runs
from lumbar_utils.output.figures.images import predictions, samples, worst
from lumbar_utils.output.figures.robustness import cost_against_accuracy, robustness_curves
from lumbar_utils.output.figures.scores import comparison, confusion, precision_recall, scores_by_level
from lumbar_utils.output.figures.training import learning_curves
from lumbar_utils.output.figures.view import view

__all__ = [
    "COLUMN", "LEVEL_COLOURS", "MODEL_COLOURS", "PAGE", "STYLE", "architecture", "audit_page",
    "comparison", "confusion", "cost_against_accuracy", "data_overview", "draw_contours", "draw_image", "error_map",
    "errors", "grid_overview", "groups", "learning_curves", "multiverse", "noted", "paired_differences",
    "precision_recall", "predictions", "reliability", "robustness_curves", "runs", "samples", "save",
    "scores_by_level", "view", "worst",
]  # fmt: skip
