"""Images with contours over them: the reference alone, or a prediction beside it."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lumbar_utils import MODELS
from lumbar_utils.output.figures.drawing import PAGE, SMALLEST, draw_contours, draw_image, lettered, noted


def samples(examples: Sequence, note: str = "") -> Figure:
    """Images with the contours and names of their levels, four in a row.

    examples : each with case, image (height, width) uint8, reference (height, width) label map, spacing_mm.
    """
    rows = -(-len(examples) // 4)
    fig, axes = plt.subplots(rows, 4, figsize=(PAGE, 1.95 * rows), layout="constrained", squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, example in zip(axes.flat, examples, strict=False):
        draw_image(ax, example)
        draw_contours(ax, example.reference, named=True)
    lettered(axes.flat[: len(examples)], [example.case for example in examples])
    return noted(fig, note)


def predictions(examples: Sequence, model: str, note: str = "") -> Figure:
    """One row a case: image, reference, prediction, and where the two differ.

    examples : as for `samples`, and prediction (height, width) label map and f1 (mean over levels).
    """
    if not examples:
        return _nothing(f"{MODELS.get(model, model)} has no label maps of the test images", note)
    tallest = max(example.image.shape[0] / example.image.shape[1] for example in examples)
    row = min(1.7 * tallest, 2.5) + 0.25  # as large as the width allows, three rows on a page
    fig, axes = plt.subplots(
        len(examples), 4, figsize=(PAGE, row * len(examples) + 0.3), layout="constrained", squeeze=False
    )
    for ax, title in zip(axes[0, 1:], ("Reference", MODELS.get(model, model), "Differences"), strict=True):
        ax.set_title(title)
    for row, example in zip(axes, examples, strict=True):
        for ax in row:
            draw_image(ax, example)
        draw_contours(row[1], example.reference, named=True)
        draw_contours(row[2], example.prediction, named=True)
        _differences(row[3], example)
    lettered(axes[:, 0], [f"{example.case}, F1 {example.f1:.3f}" for example in examples])
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
    for ax, example in zip(axes.flat, examples, strict=False):
        draw_image(ax, example)
        ax.set_anchor("W")  # so that the words have the width of the row's share, not of the image
        for value in np.unique(example.reference[example.reference > 0]):
            ax.contour(example.reference == value, levels=[0.5], colors="white", linewidths=0.6, linestyles="--")
        draw_contours(ax, example.prediction, named=True)
    lettered(axes.flat[: len(examples)], captions)
    for ax in axes.flat:
        ax.set_title(ax.get_title(loc="left"), loc="left", fontsize=SMALLEST)
    return noted(fig, note)


def _nothing(words: str, note: str) -> Figure:
    fig, ax = plt.subplots(figsize=(PAGE, 0.8), layout="constrained")
    ax.text(0.5, 0.5, words, ha="center", va="center")
    ax.axis("off")
    return noted(fig, note)


def _differences(ax: Axes, example) -> None:
    true, pred = example.reference, example.prediction
    wrong = {"#56B4E9": (true > 0) & (pred == 0), "#E69F00": (true == 0) & (pred > 0)}
    wrong["#CC79A7"] = (true > 0) & (pred > 0) & (true != pred)
    for colour, where in wrong.items():
        layer = np.zeros((*true.shape, 4))
        layer[where] = (*(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)), 0.9)
        ax.imshow(layer)
