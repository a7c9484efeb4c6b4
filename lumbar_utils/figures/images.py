"""Images with contours over them: the reference alone, or a prediction beside it."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lumbar_utils import MODELS
from lumbar_utils.figures.drawing import PAGE, draw_contours, draw_image, noted, scale_bar


def samples(examples: Sequence, note: str = "") -> Figure:
    """Images with the contours and names of their levels, four in a row.

    examples : each with case, image (height, width) uint8, reference (height, width) label map, spacing_mm.
    """
    rows = -(-len(examples) // 4)
    fig, axes = plt.subplots(rows, 4, figsize=(PAGE, 1.95 * rows), layout="constrained", squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for number, (ax, example) in enumerate(zip(axes.flat, examples, strict=False)):
        draw_image(ax, example)
        draw_contours(ax, example.reference, named=True)
        ax.set_title(f"{chr(97 + number)}  {example.case}", loc="left", fontsize=7)
    scale_bar(axes.flat[0], examples[0])
    return noted(fig, note)


def predictions(examples: Sequence, model: str, note: str = "") -> Figure:
    """One row a case: image, reference, prediction, and where the two differ.

    examples : as for `samples`, and prediction (height, width) label map and f1 (mean over levels).
    """
    height = 1.95 * len(examples) + 0.3
    fig, axes = plt.subplots(len(examples), 4, figsize=(PAGE, height), layout="constrained", squeeze=False)
    for ax, title in zip(axes[0, 1:], ("Reference", MODELS.get(model, model), "Differences"), strict=True):
        ax.set_title(title)
    for row, example in zip(axes, examples, strict=True):
        for ax in row:
            draw_image(ax, example)
        row[0].set_title(f"{example.case}, F1 {example.f1:.3f}", loc="left", fontsize=7)
        draw_contours(row[1], example.reference, named=True)
        draw_contours(row[2], example.prediction, named=True)
        _differences(row[3], example)
    scale_bar(axes[0, 0], examples[0])
    legend = {"missed": "#56B4E9", "invented": "#E69F00", "wrong level": "#CC79A7"}
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in legend.values()]
    fig.legend(handles, legend, loc="outside lower right", ncols=3)
    return noted(fig, note)


def worst(examples: Sequence, captions: Sequence[str], across: int, note: str = "") -> Figure:
    """Predictions that went wrong, each with its reference in white and words on what is wrong, `across` in a row.

    examples : as for `predictions`.
    """
    rows = -(-len(examples) // across)
    fig, axes = plt.subplots(rows, across, figsize=(PAGE, 2.6 * rows), layout="constrained", squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, example, caption in zip(axes.flat, examples, captions, strict=False):
        draw_image(ax, example)
        for value in np.unique(example.reference[example.reference > 0]):
            ax.contour(example.reference == value, levels=[0.5], colors="white", linewidths=0.6, linestyles="--")
        draw_contours(ax, example.prediction, named=True)
        ax.set_title(caption, loc="left", fontsize=6)
    return noted(fig, note)


def _differences(ax: Axes, example) -> None:
    true, pred = example.reference, example.prediction
    wrong = {"#56B4E9": (true > 0) & (pred == 0), "#E69F00": (true == 0) & (pred > 0)}
    wrong["#CC79A7"] = (true > 0) & (pred > 0) & (true != pred)
    for colour, where in wrong.items():
        layer = np.zeros((*true.shape, 4))
        layer[where] = (*(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)), 0.9)
        ax.imshow(layer)
