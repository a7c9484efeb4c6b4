"""What all figures share: their width, colours and files; images with contours and a scale bar."""

import re
import string
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from lumbar_utils import model_name, records

COLUMN, PAGE = 3.5, 7.16  # widths of a column and of a page in IEEE's journals, inches
STYLE = Path(__file__).with_name("style.mplstyle")
SMALLEST = 6.2  # points, of any text: journals ask for 6, and LaTeX shrinks PAGE to its \textwidth of 7.14 inches
OUTLINED = {"markeredgecolor": "black", "markeredgewidth": 0.8}  # a mark that stands out: the paper's, the best epoch's
# a line that crosses dark and light colours: black with a white rim
HALO = {"color": "black", "path_effects": [withStroke(linewidth=2.2, foreground="white")]}
DARK = 0.4  # luminance below which white letters are read better than black ones
UNDATED = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {"Software": None}}  # metadata by format
LONG_WORD = re.compile(r"(\S{12})\S+(\S{12})")  # of more than 24 letters, a case's name for instance


class ModelStyle(NamedTuple):
    """How a model is drawn in every figure: by its colour, and where print has no colours by its marker and line."""

    colour: str
    marker: str
    line: str | tuple

    def curve(self) -> dict:
        """As options of `plot`."""
        return {"color": self.colour, "marker": self.marker, "linestyle": self.line}


# Tol 2021, "Colour schemes", technical note SRON/EPS/TN/09-002, the scheme "high contrast": colour-blind readers tell
# them apart, and in grey they are dark, middle and light
MODEL_STYLES = {
    "U-Net": ModelStyle("#004488", "o", "-"),
    "HRNet": ModelStyle("#BB5566", "s", (0, (4, 1.2))),
    "EfficientNet": ModelStyle("#DDAA33", "^", (0, (5, 1, 1, 1))),
}
FURTHER_STYLES = (
    ModelStyle("#000000", "D", ":"),
    ModelStyle("#66CCEE", "v", (0, (1, 1))),
    ModelStyle("#AA4499", "P", (0, (3, 1, 1, 1, 1, 1))),
    ModelStyle("#777777", "X", (0, (6, 2))),
    ModelStyle("#117733", "<", (0, (2, 1))),
    ModelStyle("#999933", ">", (0, (8, 1, 2, 1))),
    ModelStyle("#882255", "*", (0, (3, 3))),
    ModelStyle("#44AA99", "p", (0, (8, 3))),
)
_STYLE_OF_FURTHER: dict[str, ModelStyle] = {}  # in the order in which they are first drawn
# Okabe and Ito 2008: colour-blind readers tell them apart; a level's name stands beside its contour
LEVEL_COLOURS = {
    "L1": "#56B4E9", "L2": "#E69F00", "L3": "#009E73", "L4": "#CC79A7", "L5": "#F0E442", "S1": "#D55E00",
}  # fmt: skip

plt.style.use(["default", STYLE])  # from matplotlib's own defaults, whatever the user's matplotlibrc says


def save(figure: Figure, folder: Path, name: str, caption: str) -> list[Path]:
    """Write <name>.pdf, .svg, .png (300 dpi) and .txt (the caption), each complete and with the same bytes always."""
    paths = []
    for ending, undated in UNDATED.items():
        paths.append(folder / f"{name}.{ending}")
        with records.atomic_file(paths[-1]) as temporary:
            figure.savefig(temporary, format=ending, metadata=undated)
    records.write_text(folder / f"{name}.txt", f"{caption}\n")
    return [*paths, folder / f"{name}.txt"]


def style_of(model: str) -> ModelStyle:
    """The style of a model by its key (`unet`): of the study's three their own, else the next that is free."""
    name = model_name(model)
    if name in MODEL_STYLES:
        return MODEL_STYLES[name]
    return _STYLE_OF_FURTHER.setdefault(name, FURTHER_STYLES[len(_STYLE_OF_FURTHER) % len(FURTHER_STYLES)])


def luminance(colour: str) -> float:
    """Relative luminance of a colour, black 0 to white 1: what is left of it in grey. Source: WCAG 2.1."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast_colour(colour: str) -> str:
    """White or black: the colour of legible text on a coloured ground."""
    return "white" if luminance(colour) < DARK else "black"


def panels(rows: int, columns: int, size: tuple[float, float], **options) -> tuple[Figure, np.ndarray]:
    """A figure of rows x columns axes. size : width and height, inches. options : of `plt.subplots`."""
    return plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, **options)


def label_panels(axes: Iterable[Axes], titles: Iterable[str], fontsize: float = 8) -> None:
    """Letters for panels, from a on, with a title each, flush left above them; long words lose their middle."""
    for letter, ax, title in zip(string.ascii_lowercase, axes, titles, strict=False):
        shortened = LONG_WORD.sub(r"\1…\2", title)
        ax.set_title(f"{letter}  {shortened}", loc="left", fontsize=fontsize)


def add_legend(fig: Figure, ax: Axes) -> None:
    """A legend of what one panel shows, above all panels, in as many columns as the figure is wide enough for."""
    handles, names = ax.get_legend_handles_labels()
    for columns in range(len(names), 0, -1):
        legend = fig.legend(handles, names, loc="outside upper center", ncols=columns)
        if columns == 1 or legend.get_window_extent().width <= fig.bbox.width:
            return
        legend.remove()


def finish(fig: Figure, note: str) -> Figure:
    """Add a line at the foot of a figure that says what its data are, and fix its layout for every format."""
    if note:
        lines = textwrap.fill(note, round(18 * fig.get_figwidth()))
        fig.supxlabel(lines, x=0.005, ha="left", fontsize=SMALLEST, style="italic", color="#555555")
    layout = fig.get_layout_engine()
    fig.draw_without_rendering()  # makes the ticks
    layout.execute(fig)  # shares out the room between them
    fig.set_layout_engine("none")
    fig._layout_engine = None  # else each saving begins with a drawing of its own, a quarter of its time
    plt.close(fig)  # the notebook shows it once, where its cell returns it
    return fig


def draw_image(ax: Axes, example) -> None:
    """An image with a scale bar, its brightest and darkest half per cent cut off so that anatomy shows.

    example : image (height, width) uint8, spacing_mm (side of a pixel, nan if unknown: then there is no bar).
    """
    low, high = np.percentile(example.image, (0.5, 99.5))
    ax.imshow(example.image, vmin=low, vmax=max(high, low + 1))
    ax.axis("off")
    _scale_bar(ax, example.image.shape, example.spacing_mm)


def draw_contours(ax: Axes, label_map: np.ndarray) -> None:
    """The outline of each level in its colour, with its name. label_map : (height, width)."""
    for value, (level, colour) in enumerate(LEVEL_COLOURS.items(), 1):
        inside = label_map == value
        if inside.any():
            ax.contour(inside, levels=[0.5], colors=colour, linewidths=0.9)
            name_level(ax, inside, level, colour)


def name_level(ax: Axes, inside: np.ndarray, level: str, colour: str, fontsize: float = SMALLEST) -> None:
    """A level's name in front of its body, where it hides nothing. inside : (height, width) boolean."""
    ys, xs = np.nonzero(inside)
    add_text(ax, xs.min() - 0.02 * inside.shape[1], ys.mean(), level, colour, ha="right", fontsize=fontsize)


def add_text(
    ax: Axes, x: float, y: float, text: str, colour: str, rim: str = "black", width: float = 1.2, **options
) -> None:
    """A text that is legible on any ground. rim, width : of the line around its letters. options : of `Axes.text`."""
    options = {"fontsize": SMALLEST, "va": "center"} | options
    ax.text(x, y, text, color=colour, path_effects=[withStroke(linewidth=width, foreground=rim)], **options)


def stacked_bars(ax: Axes, lengths: pd.DataFrame, colours: dict[str, str], **options) -> None:
    """Lying bars, one a row of `lengths`, of one part a column, in the order of `colours`. options : of `Axes.barh`."""
    start = np.zeros(len(lengths))
    for part, colour in colours.items():
        ax.barh(lengths.index, lengths[part], left=start, color=colour, label=part, **options)
        start = start + lengths[part].to_numpy()


def _scale_bar(ax: Axes, shape: tuple[int, int], spacing_mm: float) -> None:
    """A bar in the lower left corner of an image of that (height, width): 50 mm, or what fits in 0.4 of its width.

    White on black, so that it shows on any image; none where the size of a pixel is not known.
    """
    height, width = shape
    fitting = [length for length in (1, 2, 5, 10, 20, 50) if length <= 0.4 * width * spacing_mm]
    if not fitting:  # nan too
        return
    start, end = 0.04 * width, 0.04 * width + fitting[-1] / spacing_mm
    rim = [withStroke(linewidth=3, foreground="black")]
    ax.plot([start, end], [0.96 * height] * 2, color="white", lw=2, solid_capstyle="butt", path_effects=rim)
    add_text(ax, (start + end) / 2, 0.94 * height, f"{fitting[-1]} mm", "white", ha="center", va="baseline")
