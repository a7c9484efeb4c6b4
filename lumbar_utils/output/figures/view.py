"""One case on a screen."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from lumbar_utils.output.figures.drawing import LEVEL_COLOURS, draw_image, look_of
from lumbar_utils.output.figures.letters import make_legible


def view(
    example, predictions: dict, levels: dict[int, str], title: str, note: str = "", opacity: float = 1, filled=False
) -> Figure:
    """One case on a screen: its reference dashed in white upon one colour a model, or alone, in one colour a level.

    example : as for `samples`. predictions : model -> (height, width) label map, and words for the legend.
    levels : value -> name, of those drawn. opacity : of the contours, in [0, 1]; what is filled has a third of it.
    """
    fig = plt.figure(figsize=(5.2, 5.7), facecolor="black")
    ax = fig.add_axes((0, 0.035, 1, 0.875 if predictions else 0.915))
    draw_image(ax, example)
    for value, level in levels.items():
        for number, (model, (label_map, _)) in enumerate(predictions.items()):
            width = max(2 - 0.5 * number, 1)  # where contours lie on one another, each can be seen
            _outline(ax, label_map == value, look_of(model).colour, width, opacity, filled)
        inside = example.reference == value
        colour, style = ("white", "--") if predictions else (LEVEL_COLOURS[level], "-")
        _outline(ax, inside, colour, 1.2, opacity, filled and not predictions, style)
        _name(ax, inside, level, colour)
    fig.text(0.02, 0.985, title, color="white", fontsize=9, va="top")
    fig.text(0.02, 0.01, note, color="#BBBBBB", fontsize=7, style="italic")
    if predictions:
        _legend(fig, predictions)
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
        lines = ax.contour(columns, rows, window, [0.5], colors=colour, linewidths=width, linestyles=style)
        lines.set(alpha=opacity, path_effects=_rim(colour, width))
        if filled:
            ax.contourf(columns, rows, window, [0.5, 1.5], colors=colour, alpha=opacity / 3)


def _rim(colour: str, width: float) -> list:
    """Of a line of a dark colour, which a dark image would swallow: a pale one."""
    dark = np.dot(to_rgb(colour), (0.3, 0.6, 0.1)) < 0.4
    return [withStroke(linewidth=width + 1, foreground="#CCCCCC")] if dark else []


def _name(ax: Axes, inside: np.ndarray, level: str, colour: str) -> None:
    """In front of the body, where it hides nothing."""
    ys, xs = np.nonzero(inside)
    if len(ys):
        name = ax.text(xs.min() - 0.02 * inside.shape[1], ys.mean(), level, color=colour, fontsize=8)
        name.set(ha="right", va="center", path_effects=[withStroke(linewidth=1.5, foreground="black")])


def _legend(fig: Figure, predictions: dict) -> None:
    lines = {
        words: plt.Line2D([], [], color=look_of(model).colour, lw=2, path_effects=_rim(look_of(model).colour, 2))
        for model, (_, words) in predictions.items()
    } | {"reference": plt.Line2D([], [], color="white", ls="--")}  # fmt: skip
    fig.legend(
        lines.values(), lines, loc="upper left", bbox_to_anchor=(0.003, 0.965), ncols=4, labelcolor="white",
        fontsize=8.5, handlelength=1.6, columnspacing=1.3,
    )  # fmt: skip
    make_legible(fig)
