"""A network as boxes and arrows: depth from left to right, resolution from top to bottom."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.textpath import TextPath

from lumbar_utils.output.figures.drawing import PAGE, SMALLEST, noted

BOX_COLOURS = {"encoder": "#DCE9F5", "decoder": "#DDF0E4", "branch": "#FBE7D8", "head": "#EEEEEE"}
MARGIN_IN = 0.35  # of the page, left for the names of the rows
WIDTH, BESIDE = 1.7, 1.95  # of a box, and from box to box in one row; from column to column otherwise it is 1
GAP_IN, LINE_IN = 0.17, 1.2 * SMALLEST / 72  # between rows; height of a line of text

ARROWS = {
    "forward": dict(color="#222222", linewidth=0.9),
    "skip": dict(color="#0072B2", linewidth=0.9, linestyle="--"),
    "exchange": dict(color="#D55E00", linewidth=0.5, alpha=0.7),
}


def architecture(
    stages: pd.DataFrame, connections: pd.DataFrame, title: str, unused: int = 0, note: str = ""
) -> Figure:
    """One box a stage, as wide as its words need; all lengths on the axes are inches.

    stages, connections : as from `diagram.describe`; unused : parameters that take no part.
    """
    x, width = _columns(stages)
    texts = [_lines(stage, 72 * width - 4) for stage in stages.itertuples()]
    y, heights = _rows(stages, texts)
    fig, ax = plt.subplots(figsize=(PAGE, y.max() - y.min() + heights.max() + 0.65), layout="constrained")
    boxes = [(x[row], y[row], width, heights[row]) for row in range(len(stages))]
    for connection in connections.itertuples():
        _arrow(ax, boxes[connection.source], boxes[connection.target], connection.kind)
    for box, kind, text in zip(boxes, stages["kind"], texts, strict=True):
        _box(ax, box, BOX_COLOURS[kind], text)
    ax.set(
        xlim=(x.min() - width / 2 - 0.02, x.max() + width / 2 + 0.02),
        ylim=(y.min() - heights.max() / 2 - 0.02, y.max() + heights.max() / 2 + 0.02),
    )
    ticks = dict(zip(y, stages["stride"], strict=True))
    ax.set_yticks(list(ticks), ["1" if stride == 1 else f"1/{stride}" for stride in ticks.values()])
    ax.set_ylabel("resolution, as part of the input's side")
    ax.set_xticks([])
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    total = f"{(stages['parameters'].sum() + unused) / 1e6:.2f} million parameters"
    spare = f", {unused / 1e6:.2f} million of them unused" if unused else ""
    ax.set_title(f"{title}: {total}{spare}", loc="left")
    for kind in dict.fromkeys(connections["kind"]):
        ax.plot([], [], label=kind, **ARROWS[kind])
    ax.legend(loc="lower left")
    return noted(fig, note)


def _columns(stages: pd.DataFrame) -> tuple[np.ndarray, float]:
    """x of each stage's middle, and the width of a box; columns stand closer where no row has a box in both."""
    strides = stages.groupby("column")["stride"].agg(set)
    steps = [BESIDE if left & right else 1.0 for left, right in pairwise(strides)]
    places = np.concatenate([[0], np.cumsum(steps)])
    unit = (PAGE - MARGIN_IN) / (places[-1] + WIDTH)
    return unit * stages["column"].map(dict(zip(strides.index, places, strict=True))).to_numpy(), unit * WIDTH


def _rows(stages: pd.DataFrame, texts: list[list[str]]) -> tuple[np.ndarray, np.ndarray]:
    """y of each stage's middle and the height of its box: in a row all have that of the longest text."""
    lines = stages.assign(lines=[len(text) for text in texts]).groupby("stride")["lines"].max()
    heights = LINE_IN * lines + 0.08
    tops = np.concatenate([[0], np.cumsum(heights[:-1] + GAP_IN)])
    middles = -pd.Series(tops, lines.index) - heights / 2
    return stages["stride"].map(middles - middles.iloc[0]).to_numpy(), stages["stride"].map(heights).to_numpy()


def _box(ax: Axes, box: tuple[float, float, float, float], colour: str, text: list[str]) -> None:
    x, y, width, height = box
    patch = FancyBboxPatch(
        (x - width / 2, y - height / 2), width, height, boxstyle="round,pad=0,rounding_size=0.04", zorder=2,
        facecolor=colour, edgecolor="#555555", linewidth=0.6,
    )  # fmt: skip
    ax.add_patch(patch)
    for number, line in enumerate(text):
        top = y + height / 2 - 0.05 - LINE_IN * (number + 0.5)
        colour = "#222222" if number else "#004488"
        ax.text(x, top, line, fontsize=SMALLEST, ha="center", va="center", color=colour, zorder=3)


def _lines(stage, width: float) -> list[str]:
    """A box's name and what stands below it, broken between words into lines of that many points."""
    size = f"{stage.height}²" if stage.height == stage.width else f"{stage.height}×{stage.width}"
    facts = [*stage.operation.split(", "), f"{stage.channels} × {size}", _count(stage.parameters)]
    return [stage.name] + [line for fact in facts if fact for line in _broken(fact, width)]


def _broken(words: str, width: float) -> list[str]:
    lines: list[str] = []
    for word in words.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and TextPath((0, 0), longer, SMALLEST).get_extents().width <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _count(parameters: int) -> str:
    if not parameters:
        return ""
    return f"{parameters / 1e6:.2f} M" if parameters >= 1e5 else f"{parameters / 1e3:.1f} k"


def _arrow(ax: Axes, start: tuple, end: tuple, kind: str) -> None:
    """From side to side; between boxes that stand partly below each other straight up or down."""
    (x0, y0, width, high0), (x1, y1, _, high1) = start, end
    if kind == "forward" and y0 != y1 and x1 - x0 < width:
        down = np.sign(y1 - y0)
        start, end = ((x0 + x1) / 2, y0 + down * high0 / 2), ((x0 + x1) / 2, y1 - down * high1 / 2)
    else:
        start, end = (x0 + width / 2, y0), (x1 - width / 2, y1)
    style = dict(arrowstyle="-|>", mutation_scale=6, shrinkA=0, shrinkB=0, **ARROWS[kind])
    ax.annotate("", end, start, zorder=1, arrowprops=style)
