"""Names from outside in figures: in any script, of any length, and never taken for mathematics."""

import functools

from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager, get_font
from matplotlib.text import Text

USUAL = "DejaVu Sans"  # comes with matplotlib: Latin, Greek, Cyrillic, Arabic and more
LONGEST = 24  # characters without a space


def make_legible(fig: Figure) -> None:
    """Show each letter of a figure's texts: in a font of this machine that has it, else as its number, [U+4E2D].

    A word longer than LONGEST loses its middle. `$` is a dollar sign, but where matplotlib itself wrote it.
    """
    for ax in fig.axes:
        for axis in (ax.xaxis, ax.yaxis):
            labels = [label.get_text() for label in axis.get_majorticklabels()]
            if any(legible(label) != label for label in labels):  # they are written anew at each drawing
                axis.set_ticks(axis.get_majorticklocs(), [legible(label) for label in labels])
    for text in fig.findobj(Text):
        shown = text.get_text()
        if "$" in shown and r"\mathdefault" not in shown:
            text.set_parse_math(False)
        if _missing(shown, _letters(fontManager.findfont(text.get_fontproperties()))):
            text.set(fontstyle="normal", fontfamily=[USUAL, *_fonts(_missing(shown, _usual()))])
        text.set_text(legible(shown))


def legible(text: str) -> str:
    """A text with the numbers of letters that no font here has, and without the middle of long words."""
    missing = _missing(text, _usual())
    for letter in missing:
        if not _fonts(frozenset(letter)):
            text = text.replace(letter, f"[U+{ord(letter):04X}]")
    lines = (" ".join(map(_short, line.split(" "))) for line in text.split("\n"))
    return "\n".join(lines)


def _short(word: str) -> str:
    return word if len(word) <= LONGEST else f"{word[: LONGEST // 2]}…{word[-LONGEST // 2 :]}"


def _missing(text: str, letters: frozenset[int]) -> frozenset[str]:
    return frozenset(letter for letter in text if letter != "\n" and ord(letter) not in letters)


def _usual() -> frozenset[int]:
    return _letters(fontManager.findfont(USUAL))


@functools.cache
def _fonts(letters: frozenset[str]) -> tuple[str, ...]:
    """Installed fonts that have some of the letters, as few as are needed for all that can be shown."""
    left, fonts = {ord(letter) for letter in letters}, []
    # the Last Resort font draws every letter as a box
    upright = [font for font in fontManager.ttflist if font.style == "normal" and "Last Resort" not in font.name]
    for font in sorted(upright if left else [], key=lambda font: (font.name, font.fname)):
        if left & _letters(font.fname):
            fonts.append(font.name)
            left -= _letters(font.fname)
    return tuple(fonts)


@functools.cache
def _letters(file: str) -> frozenset[int]:
    """Code points that a font file has; none of one that cannot be drawn."""
    try:
        return frozenset(get_font(file).get_charmap())
    except (ValueError, RuntimeError, OSError):  # bitmaps of emoji for instance
        return frozenset()
