"""Figures of the networks, with their captions: architecture as boxes and arrows, and learning curves.

In a diagram depth runs from left to right and resolution from top to bottom; its lengths are in inches.
"""

from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.textpath import TextPath

from lumbar_utils import model_name
from lumbar_utils.data.folder import Cohort
from lumbar_utils.output.figures.style import (
    OUTLINED,
    PAGE,
    SMALLEST,
    add_legend,
    finish,
    label_panels,
    panels,
    style_of,
)
from lumbar_utils.output.tables import describe_data

BOX_COLOURS = {"encoder": "#DCE9F5", "decoder": "#DDF0E4", "branch": "#FBE7D8", "head": "#EEEEEE"}
ARROWS = {
    "forward": dict(color="#222222", linewidth=0.9),
    "skip": dict(color="#0072B2", linewidth=0.9, linestyle="--"),
    "exchange": dict(color="#D55E00", linewidth=0.5, alpha=0.7),
}
MARGIN_IN = 0.35  # of the page, left for the names of the rows
BOX_WIDTH = 1.7  # in units of the distance between two columns that share no row
ROW_NEIGHBOURS = 1.95  # distance between columns with boxes in one row, in these units
GAP_IN = 0.17  # between rows
LINE_IN = 1.2 * SMALLEST / 72  # height of a line of text


def learning_curves(history: pd.DataFrame, note: str = "") -> Figure:
    """Loss and validation F1 over epochs, the best epoch of each model marked.

    history : model, epoch, train_loss, val_loss, val_f1 in [0, 1].
    """
    fig, ((left, right),) = panels(1, 2, (PAGE, 2.5))
    for model, rows in history.groupby("model", sort=False):
        colour, marker, _ = style_of(model)
        best = rows.loc[rows["val_f1"].idxmax()]
        line = dict(color=colour, marker=marker, markersize=3, markevery=1 + len(rows) // 12)
        left.plot(rows["epoch"], rows["train_loss"], ":", color=colour)
        left.plot(rows["epoch"], rows["val_loss"], **line)
        right.plot(rows["epoch"], rows["val_f1"], label=f"{model_name(model)}, best {best['val_f1']:.3f}", **line)
        right.plot(best["epoch"], best["val_f1"], marker, color=colour, markersize=5.5, **OUTLINED)
    left.set(xlabel="Epoch", ylabel="Loss", ylim=(0, None))
    right.set(xlabel="Epoch", ylabel="Macro F1 of pixels", ylim=(0, 1))
    titles = ("training (dotted) and validation (marks)", "validation; rimmed: the epoch that is kept")
    label_panels((left, right), titles)
    for ax in (left, right):
        ax.xaxis.get_major_locator().set_params(integer=True)
    add_legend(fig, right)
    return finish(fig, note)


def learning_curves_caption(history: pd.DataFrame, cohort: Cohort) -> str:
    """history : model, epoch, val_f1; of a grid, whose cases are all test cases, means over its runs."""
    data = f"Data: {describe_data(cohort, 'validation')}."
    if (cohort.cases["split"] == "test").all():
        data = f"Means over runs, each with its own validation images. Data: {describe_data(cohort, 'all')}."
    scores = []
    for model, rows in history.groupby("model", sort=False):
        best = rows.loc[rows["val_f1"].idxmax()]
        scores.append(f"{model_name(model)} {best['val_f1']:.3f} (epoch {best['epoch']} of {rows['epoch'].max()})")
    return (
        "Loss on training and validation images and macro F1 of validation pixels over epochs, the best epoch of each "
        f"kept: {'; '.join(scores)}. {data}"
    )


def architecture(
    stages: pd.DataFrame, connections: pd.DataFrame, title: str, unused: int = 0, note: str = ""
) -> Figure:
    """One box a stage, as wide as its words need.

    stages, connections : as from `diagram.describe`; unused : parameters that take no part.
    """
    x, width = _columns(stages)
    texts = [_box_lines(stage, 72 * width - 4) for stage in stages.itertuples()]
    y, heights = _rows(stages, texts)
    fig, ((ax,),) = panels(1, 1, (PAGE, y.max() - y.min() + heights.max() + 0.65))
    boxes = [(x[row], y[row], width, heights[row]) for row in range(len(stages))]
    for connection in connections.itertuples():
        _draw_arrow(ax, boxes[connection.source], boxes[connection.target], connection.kind)
    for box, kind, text in zip(boxes, stages["kind"], texts, strict=True):
        _draw_box(ax, box, BOX_COLOURS[kind], text)
    right, top = width / 2 + 0.02, heights.max() / 2 + 0.02
    ax.set(xlim=(x.min() - right, x.max() + right), ylim=(y.min() - top, y.max() + top))
    _label_resolutions(ax, dict(zip(y, stages["stride"], strict=True)))
    ax.set_title(f"{title}: {_size(stages, unused)}", loc="left")
    for kind in dict.fromkeys(connections["kind"]):
        ax.plot([], [], label=kind, **ARROWS[kind])
    ax.legend(loc="lower left")
    return finish(fig, note)


def _columns(stages: pd.DataFrame) -> tuple[np.ndarray, float]:
    """x of each stage's middle, and the width of a box; columns stand closer where no row has a box in both."""
    strides = stages.groupby("column")["stride"].agg(set)
    steps = [ROW_NEIGHBOURS if left & right else 1.0 for left, right in pairwise(strides)]
    places = np.concatenate([[0], np.cumsum(steps)])
    unit = (PAGE - MARGIN_IN) / (places[-1] + BOX_WIDTH)
    place_of = dict(zip(strides.index, places, strict=True))
    return unit * stages["column"].map(place_of).to_numpy(), unit * BOX_WIDTH


def _rows(stages: pd.DataFrame, texts: list[list[str]]) -> tuple[np.ndarray, np.ndarray]:
    """y of each stage's middle and the height of its box: in a row all have that of the longest text."""
    lines = stages.assign(lines=[len(text) for text in texts]).groupby("stride")["lines"].max()
    heights = LINE_IN * lines + 0.08
    tops = np.concatenate([[0], np.cumsum(heights[:-1] + GAP_IN)])
    middles = -pd.Series(tops, lines.index) - heights / 2
    return stages["stride"].map(middles - middles.iloc[0]).to_numpy(), stages["stride"].map(heights).to_numpy()


def _label_resolutions(ax: Axes, strides: dict[float, int]) -> None:
    """Name the rows of a diagram. strides : y of a row -> its stride."""
    ax.set_yticks(list(strides), ["1" if stride == 1 else f"1/{stride}" for stride in strides.values()])
    ax.set_ylabel("resolution, as part of the input's side")
    ax.set_xticks([])
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)


def _draw_box(ax: Axes, box: tuple[float, float, float, float], colour: str, text: list[str]) -> None:
    """A box with its lines of text, the first in blue. box : x and y of its middle, width, height."""
    x, y, width, height = box
    patch = FancyBboxPatch(
        (x - width / 2, y - height / 2), width, height, boxstyle="round,pad=0,rounding_size=0.04", zorder=2,
        facecolor=colour, edgecolor="#555555", linewidth=0.6,
    )  # fmt: skip
    ax.add_patch(patch)
    for number, line in enumerate(text):
        top = y + height / 2 - 0.05 - LINE_IN * (number + 0.5)
        text_colour = "#222222" if number else "#004488"
        ax.text(x, top, line, fontsize=SMALLEST, ha="center", va="center", color=text_colour, zorder=3)


def _box_lines(stage, width: float) -> list[str]:
    """A box's name and what stands below it, broken between words into lines of that many points."""
    size = f"{stage.height}²" if stage.height == stage.width else f"{stage.height}×{stage.width}"
    lines = [stage.name]
    for fact in (*stage.operation.split(", "), f"{stage.channels} × {size}", _count_text(stage.parameters)):
        if fact:
            lines += _wrap(fact, width)
    return lines


def _wrap(text: str, width: float) -> list[str]:
    lines: list[str] = []
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and TextPath((0, 0), longer, SMALLEST).get_extents().width <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _count_text(parameters: int) -> str:
    if not parameters:
        return ""
    return f"{parameters / 1e6:.2f} M" if parameters >= 1e5 else f"{parameters / 1e3:.1f} k"


def _draw_arrow(ax: Axes, start: tuple, end: tuple, kind: str) -> None:
    """From side to side; between boxes that stand partly below each other straight up or down."""
    (x0, y0, width, high0), (x1, y1, _, high1) = start, end
    if kind == "forward" and y0 != y1 and x1 - x0 < width:
        down = np.sign(y1 - y0)
        start, end = ((x0 + x1) / 2, y0 + down * high0 / 2), ((x0 + x1) / 2, y1 - down * high1 / 2)
    else:
        start, end = (x0 + width / 2, y0), (x1 - width / 2, y1)
    style = dict(arrowstyle="-|>", mutation_scale=6, shrinkA=0, shrinkB=0, **ARROWS[kind])
    ax.annotate("", end, start, zorder=1, arrowprops=style)


def architecture_caption(model: str, stages: pd.DataFrame, unused: int = 0) -> str:
    """stages : as from `diagram.describe`; unused : parameters that take no part."""
    last = stages.iloc[-1]
    return (
        f"{model_name(model)} as built for this study: {_size(stages, unused)}. Each box is a stage with its channels, "
        f"the size of its output and its parameters; input and output have {last['height']} x {last['width']} pixels."
    )


def _size(stages: pd.DataFrame, unused: int) -> str:
    spare = f", {unused / 1e6:.2f} million of them unused" if unused else ""
    return f"{(stages['parameters'].sum() + unused) / 1e6:.2f} million parameters{spare}"
