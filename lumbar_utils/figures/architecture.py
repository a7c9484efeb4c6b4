"""A network as boxes and arrows."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from lumbar_utils.figures.drawing import PAGE, noted

BOX_COLOURS = {"encoder": "#DCE9F5", "decoder": "#DDF0E4", "branch": "#FBE7D8", "head": "#EEEEEE"}


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
    fig, ax = plt.subplots(figsize=(PAGE, 0.75 + 0.72 * (1 + depth.max())), layout="constrained")
    places = list(zip(stages["column"], -depth, strict=True))
    for connection in connections.itertuples():
        _arrow(ax, places[connection.source], places[connection.target], connection.kind)
    for place, stage in zip(places, stages.itertuples(), strict=True):
        _box(ax, place, stage, scale=min(1, 10 / (last + 1)))
    ax.set(xlim=(-0.55, last + 0.55), ylim=(-depth.max() - 0.5, 0.5), ylabel="Resolution: part of the input's side")
    ax.set_yticks(-np.unique(depth), ["1" if level == 0 else f"1/{2**level:.0f}" for level in np.unique(depth)])
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


def _box(ax: Axes, place: tuple[float, float], stage, scale: float) -> None:
    x, y = place
    patch = FancyBboxPatch(
        (x - 0.41, y - 0.31), 0.82, 0.62, boxstyle="round,pad=0,rounding_size=0.05", zorder=2,
        facecolor=BOX_COLOURS[stage.kind], edgecolor="#555555", linewidth=0.6,
    )  # fmt: skip
    ax.add_patch(patch)
    size = f"{stage.height}²" if stage.height == stage.width else f"{stage.height}×{stage.width}"
    lines = [*stage.operation.split(", "), f"{stage.channels} × {size}", _count(stage.parameters)]
    ax.text(x, y + 0.21, stage.name, fontsize=6 * scale, fontweight="bold", ha="center", va="center", zorder=3)
    ax.text(x, y - 0.06, "\n".join(filter(None, lines)), fontsize=5.4 * scale, ha="center", va="center", zorder=3)


def _count(parameters: int) -> str:
    if not parameters:
        return ""
    return f"{parameters / 1e6:.2f} M" if parameters >= 1e5 else f"{parameters / 1e3:.1f} k"


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], kind: str) -> None:
    (x0, y0), (x1, y1) = start, end
    if kind == "skip":  # above the forward arrows, so that it shows between boxes of one row
        y0, y1 = y0 + 0.2, y1 + 0.2
    ax.annotate(
        "", (x1 - 0.41, y1), (x0 + 0.41, y0), zorder=1,
        arrowprops=dict(arrowstyle="-|>", mutation_scale=6, shrinkA=0, shrinkB=0, **ARROWS[kind]),
    )  # fmt: skip
