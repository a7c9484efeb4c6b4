"""What all figures share: widths, colours, files, legible names; images with contours and a scale bar."""

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
from matplotlib.font_manager import fontManager, get_font
from matplotlib.patheffects import withStroke
from matplotlib.text import Text

from lumbar_utils import model_name, records

__all__ = ["COLUMN", "LEVEL_COLOURS", "MODEL_COLOURS", "PAGE", "draw_contours", "draw_image", "save", "two_widths"]

COLUMN, PAGE = 3.5, 7.16  # widths of a column and of a page in IEEE's journals, inches
STYLE = Path(__file__).with_name("style.mplstyle")
SMALLEST = 6.2  # points, of any text: journals ask for 6, and LaTeX shrinks PAGE to its \textwidth of 7.14 inches
OUTLINED = {"markeredgecolor": "black", "markeredgewidth": 0.8}  # a mark that stands out: the paper's, the best epoch's
# a line that crosses dark and light colours: black with a white rim
HALO = {"color": "black", "path_effects": [withStroke(linewidth=2.2, foreground="white")]}
DARK = 0.4  # luminance below which white letters are read better than black ones
UNDATED = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {"Software": None}}  # metadata by format
FONT = "DejaVu Sans"  # comes with matplotlib: Latin, Greek, Cyrillic, Arabic and more
LONGEST_WORD = 24  # characters


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
PREFERRED = 4  # of FURTHER_STYLES: a further model's name chooses one of these, unless another model has it
_TAKEN: list[ModelStyle] = []  # by further models
MODEL_COLOURS = {name: style.colour for name, style in MODEL_STYLES.items()}
# Okabe and Ito 2008: colour-blind readers tell them apart; a level's name stands beside its contour
LEVEL_COLOURS = {
    "L1": "#56B4E9", "L2": "#E69F00", "L3": "#009E73", "L4": "#CC79A7", "L5": "#F0E442", "S1": "#D55E00",
}  # fmt: skip

plt.style.use(["default", STYLE])  # from matplotlib's own defaults, whatever the user's matplotlibrc says


class TwoWidths(NamedTuple):
    """One figure drawn twice: as wide as a page and as wide as a column."""

    page: Figure
    column: Figure


def two_widths(draw: Callable[..., Figure], *tables, note: str = "") -> TwoWidths:
    """Draw a figure in both widths. draw : function of tables, `note` and `width`."""
    return TwoWidths(draw(*tables, note=note, width=PAGE), draw(*tables, note=note, width=COLUMN))


def save(figure: Figure | TwoWidths, folder: Path, name: str, caption: str) -> list[Path]:
    """Write <name>.pdf, .svg, .png (300 dpi) and .txt (the caption), each in one piece and with the same bytes always.

    The column width of a figure that has two is written to column/, as .pdf and .svg.
    """
    page, column = figure if isinstance(figure, TwoWidths) else (figure, None)
    written = _write(page, folder, name, ("pdf", "svg", "png"))
    if column:
        written += _write(column, folder / "column", name, ("pdf", "svg"))
    records.write_text(folder / f"{name}.txt", f"{caption}\n")
    return [*written, folder / f"{name}.txt"]


def _write(fig: Figure, folder: Path, name: str, formats: Iterable[str]) -> list[Path]:
    paths = []
    for ending in formats:
        path = folder / f"{name}.{ending}"
        with records.atomic_file(path) as temporary:
            fig.savefig(temporary, format=ending, metadata=UNDATED[ending])
        paths.append(path)
    return paths


def style_of(model: str) -> ModelStyle:
    """The style of a model by its key (`unet`): of the study's three their own, else one that no other model has."""
    return MODEL_STYLES.get(model_name(model)) or _further_style(model)


@functools.cache
def _further_style(model: str) -> ModelStyle:
    """The style that a further model's name chooses, or the next that is free."""
    preferred = FURTHER_STYLES[zlib.crc32(model.encode()) % PREFERRED]
    mixed = [ModelStyle(one.colour, *other[1:]) for other in FURTHER_STYLES for one in FURTHER_STYLES]
    free = (style for style in (preferred, *FURTHER_STYLES, *mixed) if style not in _TAKEN)
    style = next(free, preferred)
    _TAKEN.append(style)
    return style


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


def two_panels(
    width: float, page_height: float, column_height: float, ratios: tuple[float, float] = (1, 1)
) -> tuple[Figure, np.ndarray]:
    """A figure of two axes: side by side on a page, in that ratio of widths; one above the other in a column.

    page_height, column_height : of the figure, inches.
    """
    if width == PAGE:
        fig, axes = panels(1, 2, (width, page_height), gridspec_kw={"width_ratios": ratios})
    else:
        fig, axes = panels(2, 1, (width, column_height))
    return fig, axes.ravel()


def label_panels(axes: Iterable[Axes], titles: Iterable[str] = ()) -> None:
    """Letters for panels, from a on, with a title each, flush left above them."""
    for number, (ax, title) in enumerate(zip_longest(axes, titles, fillvalue="")):
        ax.set_title(f"{chr(ord('a') + number)}  {title}".rstrip(), loc="left")


def add_legend(fig: Figure, ax: Axes) -> None:
    """A legend of what one panel shows, above all panels, in as many columns as the figure is wide enough for."""
    handles, names = ax.get_legend_handles_labels()
    for columns in range(len(names), 0, -1):
        legend = fig.legend(handles, names, loc="outside upper center", ncols=columns)
        make_legible(fig)
        if columns == 1 or legend.get_window_extent().width <= fig.bbox.width:
            return
        legend.remove()


def finish(fig: Figure, note: str, below: bool = False) -> Figure:
    """Add a line at the foot of a figure that says what its data are, and fix its layout for every format.

    below : whether the note stands under a label that all axes share.
    """
    note = textwrap.fill(legible(note), round(18 * fig.get_figwidth()))
    if note and below:
        fig.supxlabel(f"{fig.get_supxlabel()}\n{note}", fontsize=6.5)
    elif note:
        fig.supxlabel(note, x=0.005, ha="left", fontsize=SMALLEST, style="italic", color="#555555")
    make_legible(fig)
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
    scale_bar(ax, example.image.shape, example.spacing_mm)


def draw_contours(ax: Axes, label_map: np.ndarray) -> None:
    """The outline of each level in its colour, with its name. label_map : (height, width)."""
    for value, (level, colour) in enumerate(LEVEL_COLOURS.items(), 1):
        inside = label_map == value
        if inside.any():
            ax.contour(inside, levels=[0.5], colors=colour, linewidths=0.9)
            name_level(ax, inside, level, colour, SMALLEST, 1.2)


def name_level(ax: Axes, inside: np.ndarray, level: str, colour: str, fontsize: float, rim: float) -> None:
    """A level's name in front of its body, where it hides nothing. inside : (height, width) boolean; rim : points."""
    ys, xs = np.nonzero(inside)
    text = ax.text(xs.min() - 0.02 * inside.shape[1], ys.mean(), level, color=colour, fontsize=fontsize)
    text.set(ha="right", va="center", path_effects=[withStroke(linewidth=rim, foreground="black")])


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


def make_legible(fig: Figure) -> None:
    """Make every text of a figure legible, in a font of this machine that has its letters; see `legible`.

    `$` is a dollar sign, except where matplotlib itself wrote it.
    """
    for ax in fig.axes:
        for axis in (ax.xaxis, ax.yaxis):
            labels = [label.get_text() for label in axis.get_majorticklabels()]
            legible_labels = [legible(label) for label in labels]
            if legible_labels != labels:  # matplotlib writes tick labels anew at each drawing
                axis.set_ticks(axis.get_majorticklocs(), legible_labels)
    for text in fig.findobj(Text):
        content = text.get_text()
        if "$" in content and r"\mathdefault" not in content:
            text.set_parse_math(False)
        if _missing_letters(content, fontManager.findfont(text.get_fontproperties())):
            fonts = _fonts_with(_missing_letters(content, fontManager.findfont(FONT)))
            text.set(fontstyle="normal", fontfamily=[FONT, *fonts])
        text.set_text(legible(content))


def legible(text: str) -> str:
    """A text in which long words lose their middle and letters that no font here has become numbers, [U+4E2D]."""
    for letter in _missing_letters(text, fontManager.findfont(FONT)):
        if not _fonts_with(frozenset(letter)):
            text = text.replace(letter, f"[U+{ord(letter):04X}]")
    lines = [" ".join(map(_shorten, line.split(" "))) for line in text.split("\n")]
    return "\n".join(lines)


def _shorten(word: str) -> str:
    return word if len(word) <= LONGEST_WORD else f"{word[: LONGEST_WORD // 2]}…{word[-LONGEST_WORD // 2 :]}"


def _missing_letters(text: str, font_file: str) -> frozenset[str]:
    """Letters of a text that a font file lacks."""
    letters = _letters_of(font_file)
    return frozenset(letter for letter in text if letter != "\n" and ord(letter) not in letters)


@functools.cache
def _fonts_with(letters: frozenset[str]) -> tuple[str, ...]:
    """Installed fonts that have some of the letters, as few as are needed for all that can be shown."""
    missing, fonts = {ord(letter) for letter in letters}, []
    # the Last Resort font draws every letter as a box
    upright = [font for font in fontManager.ttflist if font.style == "normal" and "Last Resort" not in font.name]
    for font in sorted(upright if missing else [], key=lambda font: (font.name, font.fname)):
        if missing & _letters_of(font.fname):
            fonts.append(font.name)
            missing -= _letters_of(font.fname)
    return tuple(fonts)


@functools.cache
def _letters_of(file: str) -> frozenset[int]:
    """Code points that a font file has; none of one that cannot be drawn."""
    try:
        return frozenset(get_font(file).get_charmap())
    except (ValueError, RuntimeError, OSError):  # bitmaps of emoji for instance
        return frozenset()
