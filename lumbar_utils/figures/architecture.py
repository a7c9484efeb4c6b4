"""A network as boxes and arrows."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.textpath import TextPath

from lumbar_utils.figures.drawing import PAGE, SMALLEST, noted

BOX_COLOURS = {"encoder": "#DCE9F5", "decoder": "#DDF0E4", "branch": "#FBE7D8", "head": "#EEEEEE"}
WIDTH, HEIGHT = 0.86, 0.8  # of a box, in columns and rows

ARROWS = {
    "forward": dict(color="#222222", linewidth=0.9),
    "skip": dict(color="#0072B2", linewidth=0.9, linestyle="--"),
    "exchange": dict(color="#D55E00", linewidth=0.5, alpha=0.7),
}


def architecture(
    stages: pd.DataFrame, connections: pd.DataFrame, title: str, unused: int = 0, note: str = ""
) -> Figure:
    """A network from left to right, its resolution from top to bottom; one box a stage.

    stages, connections : as from `architecture.describe`; unused : parameters that take no part.
    """
    depth, last = np.log2(stages["stride"].to_numpy(float)), stages["column"].max()
    pitch = (PAGE - 0.4) / (last + 1)  # inches from column to column
    inside = [_lines(stage, 72 * WIDTH * pitch - 2.5) for stage in stages.itertuples()]
    most = max(len(name) + len(lines) for name, lines in inside)
    rise = (1.15 * SMALLEST * most + 6) / 72 / HEIGHT  # inches from row to row
    fig, ax = plt.subplots(figsize=(PAGE, 0.6 + rise * (1 + depth.max())), layout="constrained")
    places = list(zip(stages["column"], -depth, strict=True))
    for connection in connections.itertuples():
        _arrow(ax, places[connection.source], places[connection.target], connection.kind)
    for place, stage, lines in zip(places, stages.itertuples(), inside, strict=True):
        _box(ax, place, stage, lines)
    ax.set(xlim=(-0.5, last + 0.5), ylim=(-depth.max() - 0.5, 0.5))
    ax.set_yticks(-np.unique(depth), ["1" if level == 0 else f"1/{2**level:.0f}" for level in np.unique(depth)])
    ax.set_xticks([])
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    total = f"{(stages['parameters'].sum() + unused) / 1e6:.2f} million parameters"
    spare = f", {unused / 1e6:.2f} million of them unused" if unused else ""
    ax.set_title(f"{title}: {total}{spare}", loc="left")
    for kind in dict.fromkeys(connections["kind"]):
        ax.plot([], [], label=kind, **ARROWS[kind])
    ax.legend(loc="lower left", title="rows: part of the input's side", title_fontsize=7, alignment="left")
    return noted(fig, note)


def _box(ax: Axes, place: tuple[float, float], stage, lines: tuple[list[str], list[str]]) -> None:
    x, y = place
    patch = FancyBboxPatch(
        (x - WIDTH / 2, y - HEIGHT / 2), WIDTH, HEIGHT, boxstyle="round,pad=0,rounding_size=0.05", zorder=2,
        facecolor=BOX_COLOURS[stage.kind], edgecolor="#555555", linewidth=0.6,
    )  # fmt: skip
    ax.add_patch(patch)
    words = dict(fontsize=SMALLEST, linespacing=1.1, ha="center", va="top", zorder=3, textcoords="offset points")
    name, rest = ("\n".join(part) for part in lines)
    ax.annotate(name, (x, y + HEIGHT / 2), (0, -2.5), color="#004488", **words)
    ax.annotate(rest, (x, y + HEIGHT / 2), (0, -2.5 - 1.28 * SMALLEST * len(lines[0])), **words)


def _lines(stage, width: float) -> tuple[list[str], list[str]]:
    """A box's name, and what stands below it, broken between words into lines of that many points."""
    size = f"{stage.height}²" if stage.height == stage.width else f"{stage.height}×{stage.width}"
    told = filter(None, [*stage.operation.split(", "), f"{stage.channels} × {size}", _count(stage.parameters)])
    return _broken(stage.name, width), [line for words in told for line in _broken(words, width)]


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


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], kind: str) -> None:
    (x0, y0), (x1, y1) = start, end
    if kind == "skip":  # above the forward arrows, so that it shows between boxes of one row
        y0, y1 = y0 + 0.25, y1 + 0.25
    ax.annotate(
        "", (x1 - WIDTH / 2, y1), (x0 + WIDTH / 2, y0), zorder=1,
        arrowprops=dict(arrowstyle="-|>", mutation_scale=6, shrinkA=0, shrinkB=0, **ARROWS[kind]),
    )  # fmt: skip
