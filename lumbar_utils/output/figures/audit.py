"""One page on an audit: how many findings of which kind, and pictures of the gravest."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lumbar_utils.output.figures.drawing import PAGE, SMALLEST, draw_contours, draw_image, lettered, noted

SEVERITY_COLOURS = {"error": "#D55E00", "warning": "#E69F00", "accepted": "#D5D5D5"}
ACROSS = 3  # pictures in a row


def audit_page(findings: pd.DataFrame, pictures: Sequence = (), note: str = "") -> Figure:
    """Findings by kind as bars, coloured by severity; below, images with the contours of their masks.

    findings : finding, severity (error, warning or accepted), kind. pictures : each with finding, severity, image
        (height, width) uint8, spacing_mm and label_map of that shape or None.
    """
    counts = pd.crosstab(findings["kind"], findings["severity"]).reindex(columns=list(SEVERITY_COLOURS), fill_value=0)
    counts = counts.sort_values(list(SEVERITY_COLOURS))  # bars grow upwards: the most errors come out on top
    bars_height, rows = 0.8 + 0.18 * max(len(counts), 1), -(-len(pictures) // ACROSS)
    heights = [bars_height, *[2.4] * rows]
    fig = plt.figure(figsize=(PAGE, sum(heights)), layout="constrained")
    grid = fig.add_gridspec(1 + rows, ACROSS, height_ratios=heights)
    _bars(fig.add_subplot(grid[0, :]), counts)
    for number, picture in enumerate(pictures):
        ax = fig.add_subplot(grid[1 + number // ACROSS, number % ACROSS])
        draw_image(ax, picture)
        if picture.label_map is not None:
            draw_contours(ax, picture.label_map, named=True)
    if pictures:
        lettered(fig.axes, ["findings by kind", *(_words(picture) for picture in pictures)])
    return noted(fig, note)


def _words(picture) -> str:
    """speck (warning) above the case."""
    kind, _, case = picture.finding.partition(":")
    return f"{kind} ({picture.severity})\n{case}"


def _bars(ax: plt.Axes, counts: pd.DataFrame) -> None:
    """Stacked bars, one a kind; counts : kind x severity."""
    left = pd.Series(0, index=counts.index)
    for severity, colour in SEVERITY_COLOURS.items():
        ax.barh(counts.index, counts[severity], left=left, color=colour, height=0.7, label=severity)
        left = left + counts[severity]
    ax.bar_label(ax.containers[-1], left.astype(str), padding=2, fontsize=SMALLEST)
    ax.set(xlabel="Findings", xlim=(0, max(1, 1.08 * left.max()) if len(left) else 1))
    ax.xaxis.get_major_locator().set_params(integer=True)
    if len(counts):
        ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside upper right", ncols=len(SEVERITY_COLOURS))
    else:
        ax.text(0.5, 0.5, "nothing found", transform=ax.transAxes, ha="center", va="center")
        ax.set(yticks=[], xticks=[], xlabel="")
