"""What all figures share: widths, colours, style, files; an image, contours over it, a bar of its scale, a note."""

import os
import tempfile
import zlib
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from lumbar_utils import MODELS, records

COLUMN, PAGE = 3.5, 7.16  # widths of a column and of a page in IEEE's journals, inches
STYLE = Path(__file__).with_name("style.mplstyle")
# Okabe and Ito 2008: told apart by colour-blind readers
MODEL_COLOURS = {"U-Net": "#0072B2", "HRNet": "#D55E00", "EfficientNet": "#009E73"}
OTHER_COLOURS = ("#CC79A7", "#000000", "#56B4E9", "#E69F00")
LEVEL_COLOURS = {
    "L1": "#56B4E9", "L2": "#E69F00", "L3": "#009E73", "L4": "#CC79A7", "L5": "#F0E442", "S1": "#D55E00",
}  # fmt: skip
NUMBERS = {"unet": ("fig1", "fig5"), "hrnet": ("fig2", "fig6"), "efficientnet": ("fig3", "fig7")}  # as in the paper

plt.style.use(STYLE)


def save(fig: Figure, folder: Path, name: str, caption: str) -> list[Path]:
    """Write <name>.pdf, .svg, .png (300 dpi) and .txt (the caption): whole or not at all, the same bytes every time."""
    folder.mkdir(parents=True, exist_ok=True)
    undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {"Software": None}}
    paths = []
    for kind, metadata in undated.items():
        path = folder / f"{name}.{kind}"
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".", suffix=f".{kind}", delete=False) as file:
            fig.savefig(file, format=kind, metadata=metadata)
        os.replace(file.name, path)
        os.chmod(path, 0o644)
        paths.append(path)
    records.write_text(folder / f"{name}.txt", f"{caption}\n")
    return [*paths, folder / f"{name}.txt"]


def colour_of(model: str) -> str:
    """Of a model's key (`unet`): its own among the three of the study, else one of four that goes with its name."""
    other = OTHER_COLOURS[zlib.crc32(model.encode()) % len(OTHER_COLOURS)]
    return MODEL_COLOURS.get(MODELS.get(model, model), other)


def noted(fig: Figure, note: str, below: bool = False) -> Figure:
    """The figure with a line below it on what its data are; `below` : under a label that all axes share."""
    if note and below:
        shared = fig.get_supxlabel()
        fig.supxlabel(f"{shared}\n{note}", fontsize=6.5)
    elif note:
        fig.supxlabel(note, x=0.005, ha="left", fontsize=6, style="italic", color="#555555")
    plt.close(fig)  # the notebook shows it once, where its cell returns it
    return fig


def draw_image(ax: Axes, example) -> None:
    """The image, its brightest and darkest half per cent cut off so that anatomy shows."""
    low, high = np.percentile(example.image, (0.5, 99.5))
    ax.imshow(example.image, vmin=low, vmax=max(high, low + 1))
    ax.axis("off")


def draw_contours(ax: Axes, label_map: np.ndarray, named: bool) -> None:
    """The outline of each level in its colour; named: with its name before it. label_map : (height, width)."""
    for value, (level, colour) in enumerate(LEVEL_COLOURS.items(), 1):
        inside = label_map == value
        if inside.any():
            ax.contour(inside, levels=[0.5], colors=colour, linewidths=0.9)
            if named:  # in front of the body, where it hides nothing
                ys, xs = np.nonzero(inside)
                name = ax.text(xs.min() - 0.02 * inside.shape[1], ys.mean(), level, color=colour, fontsize=6)
                name.set(ha="right", va="center", path_effects=[withStroke(linewidth=1.2, foreground="black")])


def scale_bar(ax: Axes, example, length_mm: float = 50) -> None:
    """A bar of 50 mm in the lower left corner, where the size of a pixel is known."""
    if not np.isnan(example.spacing_mm):
        height, width = example.image.shape
        start, end = 0.05 * width, 0.05 * width + length_mm / example.spacing_mm
        ax.plot([start, end], [0.95 * height] * 2, color="white", lw=2, solid_capstyle="butt")
        ax.text((start + end) / 2, 0.93 * height, f"{length_mm:.0f} mm", color="white", fontsize=6, ha="center")
