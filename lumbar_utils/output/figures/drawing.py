"""What all figures share: widths, looks, style, files; an image, contours over it, a bar of its scale, a note."""

import functools
import textwrap
import zlib
from collections.abc import Callable, Iterable
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from lumbar_utils import MODELS, records
from lumbar_utils.output.figures.letters import legible, make_legible

COLUMN, PAGE = 3.5, 7.16  # widths of a column and of a page in IEEE's journals, inches
STYLE = Path(__file__).with_name("style.mplstyle")
SMALLEST = 6.2  # points, of any text: journals ask for 6, and LaTeX shrinks PAGE to its \textwidth of 7.14 inches
RIM = {"markeredgecolor": "black", "markeredgewidth": 0.8}  # of a mark that stands out: the paper's, the best epoch's
# of a line that crosses dark and light colours: black with a white rim
HALO = {"color": "black", "path_effects": [withStroke(linewidth=2.2, foreground="white")]}
DARK = 0.4  # luminance below which white letters are read better than black ones


class Look(NamedTuple):
    """How a model is drawn in every figure: by its colour, and by its marker and line where print has no colours."""

    colour: str
    marker: str
    line: str | tuple


# Tol 2021, "Colour schemes", technical note SRON/EPS/TN/09-002, the scheme "high contrast": told apart by colour-blind
# readers, and in grey, where they are dark, middle and light
LOOKS = {
    "U-Net": Look("#004488", "o", "-"),
    "HRNet": Look("#BB5566", "s", (0, (4, 1.2))),
    "EfficientNet": Look("#DDAA33", "^", (0, (5, 1, 1, 1))),
}
OTHER_LOOKS = (
    Look("#000000", "D", ":"), Look("#66CCEE", "v", (0, (1, 1))), Look("#AA4499", "P", (0, (3, 1, 1, 1, 1, 1))),
    Look("#777777", "X", (0, (6, 2))), Look("#117733", "<", (0, (2, 1))), Look("#999933", ">", (0, (8, 1, 2, 1))),
    Look("#882255", "*", (0, (3, 3))), Look("#44AA99", "p", (0, (8, 3))),
)  # fmt: skip
USUAL = 4  # of OTHER_LOOKS: a further model has one of these, which goes with its name, unless another model has it
_TAKEN: list[Look] = []  # by further models
MODEL_COLOURS = {name: look.colour for name, look in LOOKS.items()}
# Okabe and Ito 2008: told apart by colour-blind readers; a level's name stands beside its contour
LEVEL_COLOURS = {
    "L1": "#56B4E9", "L2": "#E69F00", "L3": "#009E73", "L4": "#CC79A7", "L5": "#F0E442", "S1": "#D55E00",
}  # fmt: skip
# what a file says of itself, without time and version: format -> metadata
UNDATED = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {"Software": None}}

plt.style.use(["default", STYLE])  # from matplotlib's own defaults, whatever the user's matplotlibrc says


def of_two_widths(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Of a function that takes a `width`: its figure, and what `save` needs to draw it as wide as a column too."""

    @functools.wraps(draw)
    def drawn(*tables, width: float = PAGE, **named) -> Figure:
        fig = draw(*tables, width=width, **named)
        fig.for_column = functools.partial(draw, *tables, width=COLUMN, **named)
        return fig

    return drawn


def save(fig: Figure, folder: Path, name: str, caption: str) -> list[Path]:
    """Write <name>.pdf, .svg, .png (300 dpi) and .txt (the caption): whole or not at all, the same bytes every time.

    A figure of two widths is written into column/ as well, as wide as a column: .pdf and .svg.
    """
    written = _write(fig, folder, name, ("pdf", "svg", "png"))
    if hasattr(fig, "for_column"):
        written += _write(fig.for_column(), folder / "column", name, ("pdf", "svg"))
    records.write_text(folder / f"{name}.txt", f"{caption}\n")
    return [*written, folder / f"{name}.txt"]


def _write(fig: Figure, folder: Path, name: str, kinds: Iterable[str]) -> list[Path]:
    paths = [folder / f"{name}.{kind}" for kind in kinds]
    for path in paths:
        kind = path.suffix.removeprefix(".")
        with records.atomic_file(path) as temporary:
            fig.savefig(temporary, format=kind, metadata=UNDATED[kind])
    return paths


def look_of(model: str) -> Look:
    """Of a model's key (`unet`): its own among the three of the study, else one that no other model has."""
    return LOOKS.get(MODELS.get(model, model)) or _further_look(model)


@functools.cache
def _further_look(model: str) -> Look:
    """The look that goes with a further model's name, or the next that is free."""
    usual = OTHER_LOOKS[zlib.crc32(model.encode()) % USUAL]
    mixed = (Look(one.colour, *other[1:]) for other in OTHER_LOOKS for one in OTHER_LOOKS)
    look = next((look for look in (usual, *OTHER_LOOKS, *mixed) if look not in _TAKEN), usual)
    _TAKEN.append(look)
    return look


def luminance(colour: str) -> float:
    """Of a colour in [0, 1], black to white: what is left of it in grey. Source: WCAG 2.1, relative luminance."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def letter_on(colour: str) -> str:
    """White or black: the colour in which letters are read on another."""
    return "white" if luminance(colour) < DARK else "black"


def lettered(axes: Iterable[Axes], words: Iterable[str] = ()) -> None:
    """Give panels their letters, from a on, and a word or two each, flush left above them."""
    for number, (ax, said) in enumerate(zip_longest(axes, words, fillvalue="")):
        ax.set_title(f"{chr(ord('a') + number)}  {said}".rstrip(), loc="left")


def two_panels(
    width: float, on_page: float, in_column: float, ratios: tuple[float, float] = (1, 1)
) -> tuple[Figure, np.ndarray]:
    """A figure of two axes: side by side on a page, at those ratios of width; one above the other in a column.

    on_page, in_column : height of the figure, inches.
    """
    if width == PAGE:
        form = {"ncols": 2, "figsize": (width, on_page), "gridspec_kw": {"width_ratios": ratios}}
    else:
        form = {"nrows": 2, "figsize": (width, in_column)}
    return plt.subplots(**form, layout="constrained")


def keyed(fig: Figure, ax: Axes) -> None:
    """Give a figure a legend of what a panel of it shows: above all panels, in as many columns as it is wide for."""
    handles, names = ax.get_legend_handles_labels()
    for columns in range(len(names), 0, -1):
        legend = fig.legend(handles, names, loc="outside upper center", ncols=columns)
        make_legible(fig)
        if columns == 1 or legend.get_window_extent().width <= fig.bbox.width:
            return
        legend.remove()


def noted(fig: Figure, note: str, below: bool = False) -> Figure:
    """The figure with a line below it on what its data are; `below` : under a label that all axes share."""
    note = textwrap.fill(legible(note), round(18 * fig.get_figwidth()))
    if note and below:
        shared = fig.get_supxlabel()
        fig.supxlabel(f"{shared}\n{note}", fontsize=6.5)
    elif note:
        fig.supxlabel(note, x=0.005, ha="left", fontsize=SMALLEST, style="italic", color="#555555")
    make_legible(fig)
    for _ in range(2):  # the second time, room is shared out by the ticks that the first has brought about
        fig.draw_without_rendering()
    fig.set_layout_engine("none")  # for good: the same in every format
    plt.close(fig)  # the notebook shows it once, where its cell returns it
    return fig


def draw_image(ax: Axes, example) -> None:
    """The image with a bar of its scale, its brightest and darkest half per cent cut off so that anatomy shows.

    example : image (height, width) uint8, spacing_mm (side of a pixel, nan if unknown: then there is no bar).
    """
    low, high = np.percentile(example.image, (0.5, 99.5))
    ax.imshow(example.image, vmin=low, vmax=max(high, low + 1))
    ax.axis("off")
    scale_bar(ax, example.image.shape, example.spacing_mm)


def draw_contours(ax: Axes, label_map: np.ndarray, named: bool) -> None:
    """The outline of each level in its colour; named: with its name before it. label_map : (height, width)."""
    for value, (level, colour) in enumerate(LEVEL_COLOURS.items(), 1):
        inside = label_map == value
        if inside.any():
            ax.contour(inside, levels=[0.5], colors=colour, linewidths=0.9)
            if named:  # in front of the body, where it hides nothing
                ys, xs = np.nonzero(inside)
                name = ax.text(xs.min() - 0.02 * inside.shape[1], ys.mean(), level, color=colour, fontsize=SMALLEST)
                name.set(ha="right", va="center", path_effects=[withStroke(linewidth=1.2, foreground="black")])


def scale_bar(ax: Axes, shape: tuple[int, int], spacing_mm: float, colour: str = "white") -> None:
    """A bar in the lower left corner of an image of that (height, width): 50 mm, or what fits in 0.4 of its width.

    White on black or black on white, so that it shows on any image; none where the size of a pixel is not known.
    """
    height, width = shape
    fitting = [length for length in (1, 2, 5, 10, 20, 50) if length <= 0.4 * width * spacing_mm]
    if not fitting:  # nan too
        return
    rim = "black" if colour == "white" else "white"
    start, end = 0.04 * width, 0.04 * width + fitting[-1] / spacing_mm
    (bar,) = ax.plot([start, end], [0.96 * height] * 2, color=colour, lw=2, solid_capstyle="butt")
    bar.set_path_effects([withStroke(linewidth=3, foreground=rim)])
    name = ax.text((start + end) / 2, 0.94 * height, f"{fitting[-1]} mm", color=colour, fontsize=SMALLEST, ha="center")
    name.set_path_effects([withStroke(linewidth=1.2, foreground=rim)])
