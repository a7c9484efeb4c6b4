"""Where on the spine the networks are wrong."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from scipy.ndimage import gaussian_filter

from lumbar_utils import MODELS
from lumbar_utils.output.figures.drawing import PAGE, SMALLEST, lettered, noted, of_two_widths, scale_bar

# light to dark; white where nothing is counted, and not transparent, which leaves a dark seam in a PDF
SHADES = plt.get_cmap("OrRd").with_extremes(bad="white")


@of_two_widths
def error_map(found, note: str = "", width: float = PAGE) -> Figure:
    """Two panels a model on the mean spine: the share of cases with a wrong outline at a pixel, and with a wrong name.

    found : as from `error_map.error_map`; the mean vertebrae are outlined and named.
    """
    panels = [(model, what) for model in found.errors for what in ("outline", "name")]
    down, across = 1, len(panels)
    if width < PAGE:
        panels.sort(key=lambda panel: panel[1] == "name")
        down, across = 2, len(found.errors)
    height = min((width - 0.6) / across * found.body.shape[0] / found.body.shape[1], 4.5 / down) + 0.5
    fig, axes = plt.subplots(down, across, figsize=(width, down * height), layout="constrained", squeeze=False)
    shares = [_share(found.errors[model], what) for model, what in panels]
    most = max(5, 5 * np.ceil(20 * max(np.nanmax(share) for share in shares)))
    for ax, share in zip(axes.flat, shares, strict=True):
        drawn = ax.imshow(100 * share, vmin=0, vmax=most, cmap=SHADES, interpolation="nearest")
        _vertebrae(ax, found)
    lettered(axes.flat, [f"{MODELS.get(model, model)}\n{what}" for model, what in panels])
    bar = fig.colorbar(drawn, ax=axes.ravel().tolist(), fraction=0.02 * PAGE / width, pad=0.01)
    bar.set_label("Test images with that pixel wrong (%)")
    return noted(fig, note)


def _share(kinds: dict[str, np.ndarray], what: str) -> np.ndarray:
    return kinds["missed"] + kinds["invented"] if what == "outline" else kinds["misnamed"]


def _vertebrae(ax: Axes, found) -> None:
    """The mean outlines, each with its name in front, and a bar of the scale where it is known."""
    for number, (level, (x, y)) in enumerate(zip(found.levels, found.centres, strict=True)):
        inside = gaussian_filter(np.where(found.owner == number, np.nan_to_num(found.body), 0), 1)  # no steps
        if inside.max() > 0.5:
            ax.contour(inside, levels=[0.5], colors="black", linewidths=0.4)
            name = ax.text(x, y, level, fontsize=SMALLEST, ha="center", va="center")
            name.set_path_effects([withStroke(linewidth=1.5, foreground="white")])
    ax.axis("off")
    scale_bar(ax, found.body.shape, found.pixel_mm, colour="black")
