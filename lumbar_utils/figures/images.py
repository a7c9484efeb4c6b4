"""Images with contours over them: the reference alone, or a prediction beside it."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lumbar_utils import MODELS
from lumbar_utils.figures.drawing import (
    LEVEL_COLOURS,
    PAGE,
    colour_of,
    draw_contours,
    draw_image,
    draw_name,
    noted,
    scale_bar,
)  # fmt: skip


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


def view(
    example, predictions: dict, levels: dict[int, str], title: str, note: str = "", opacity: float = 1, filled=False
) -> Figure:
    """One case on a screen: its reference dashed in white below one colour a model, or alone, in one colour a level.

    predictions : model -> (height, width) label map, and words for the legend. levels : value -> name, of those drawn.
    opacity : of the contours, in [0, 1]; what is filled has a third of it, so that the image shows through.
    """
    fig = plt.figure(figsize=(5.2, 5.7), facecolor="black")
    ax = fig.add_axes((0, 0.035, 1, 0.875 if predictions else 0.915))
    draw_image(ax, example)
    colour, style = ("white", "--") if predictions else (None, "-")
    for value, level in levels.items():
        for number, (model, (label_map, _)) in enumerate(predictions.items()):
            width = max(2 - 0.5 * number, 1)  # where contours lie on one another, each can be seen
            _outline(ax, label_map == value, colour_of(model), width, opacity, filled)
        inside = example.reference == value
        _outline(ax, inside, colour or LEVEL_COLOURS[level], 1.2, opacity, filled and not predictions, style)
        if inside.any():
            draw_name(ax, inside, level, colour or LEVEL_COLOURS[level], size=8)
    scale_bar(ax, example)
    fig.text(0.02, 0.985, title, color="white", fontsize=9, va="top")
    fig.text(0.02, 0.01, note, color="#BBBBBB", fontsize=7, style="italic")
    if predictions:
        lines = {words: plt.Line2D([], [], color=colour_of(model), lw=2) for model, (_, words) in predictions.items()}
        lines["reference"] = plt.Line2D([], [], color="white", ls="--")
        fig.legend(
            lines.values(), lines, loc="upper left", bbox_to_anchor=(0.003, 0.965), ncols=4, labelcolor="white",
            fontsize=8.5, handlelength=1.6, columnspacing=1.3,
        )  # fmt: skip
    plt.close(fig)
    return fig


def _outline(
    ax: Axes, inside: np.ndarray, colour: str, width: float, opacity: float, filled: bool, style: str = "-"
) -> None:
    """Of one level in one map, looked for about its body alone: a slider waits. inside : (height, width) boolean."""
    ys, xs = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if len(ys):
        top, left = max(ys[0] - 1, 0), max(xs[0] - 1, 0)
        window = inside[top : ys[-1] + 2, left : xs[-1] + 2]
        rows, columns = top + np.arange(window.shape[0]), left + np.arange(window.shape[1])
        ax.contour(columns, rows, window, [0.5], colors=colour, linewidths=width, linestyles=style, alpha=opacity)
        if filled:
            ax.contourf(columns, rows, window, [0.5, 1.5], colors=colour, alpha=opacity / 3)


def _differences(ax: Axes, example) -> None:
    true, pred = example.reference, example.prediction
    wrong = {"#56B4E9": (true > 0) & (pred == 0), "#E69F00": (true == 0) & (pred > 0)}
    wrong["#CC79A7"] = (true > 0) & (pred > 0) & (true != pred)
    for colour, where in wrong.items():
        layer = np.zeros((*true.shape, 4))
        layer[where] = (*(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)), 0.9)
        ax.imshow(layer)
