"""What the labels of other tools mean: their names, read as the study's levels."""

import re
from pathlib import Path

from lumbar_utils import LEVELS, StudyError

WORDS = {
    "vertebra", "vertebrae", "vertebral", "vert", "vb", "body", "bodies", "corpus", "lumbar", "lumbal", "sacral",
    "spine", "spinal", "level", "label", "segment", "bone", "mask", "the", "of",
}  # beside a level they say that the vertebra is meant, and not its disc or arch  # fmt: skip

SPELT = re.compile(r"(?<![^\W_])(L|S)(?:WK|UMBA[RL]|ACRAL)?[\W_]*(?:VERTEBRA)?[\W_]*0?([1-5])(?!\d)")  # L 1, LWK1, L01
NEXT = re.compile(r"[LS]\d[\W_]+[1-5](?!\d)")  # L4/5, a disc


def level_of(name: str) -> str:
    """The level that a label's name says (`vertebrae_L1`, `L1 vertebra`, `lumbar 1`, `l01`), or the name as it is.

    One level, and beside it nothing but numbers and WORDS: neither `disc_L1` nor `L5-S1` nor `L4/5` is a vertebra, nor
    is `sacrum` S1, which is only its uppermost part.
    """
    spelt = SPELT.sub(r"\1\2", name.upper())
    tokens = re.findall(r"[^\W_]+", spelt)
    levels = {token for token in tokens if token in LEVELS}
    others = {token.lower() for token in tokens if token not in LEVELS and not token.isdecimal()}
    return levels.pop() if len(levels) == 1 and others <= WORDS and not NEXT.search(spelt) else name


def named_values(labels: object, file: Path, levels: tuple[str, ...] = LEVELS) -> dict[int, str]:
    """Mask value -> name, a level's name as the study has it.

    labels : value -> name, or as in nnU-Net name -> value, or name -> values of a region.
    file : named by the error. Raises StudyError unless one of `levels` is named, and every value by one level only.
    """
    if not isinstance(labels, dict):
        raise StudyError(f'{file} has no labels but {labels!r:.80}; write {{"1": "L1", "2": "L2"}} for instance')
    named: dict[int, str] = {}
    for key, content in labels.items():
        by_value = key.strip().isdecimal() and isinstance(content, str)
        name, values = (content, key) if by_value else (key, content)
        for value in values if isinstance(values, list) else [values]:
            _name(named, value, level_of(name), file)
    if not set(named.values()) & set(levels):
        names = ", ".join(map(repr, named.values())) or "nothing"
        raise StudyError(f"{file} names {names}; one of {', '.join(levels)} or more must be among them")
    return named


def _name(named: dict[int, str], value: object, name: str, file: Path) -> None:
    """Add one value's name; a level's name goes before that of a region that holds it."""
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,5}", str(value).strip()):
        raise StudyError(f"{file} gives {name!r} the value {value!r:.80}; write a whole number, 1 for instance")
    number = int(value)
    former = named.get(number)
    if name in LEVELS and (number == 0 or (former in LEVELS and former != name)):
        raise StudyError(f"{file} gives {name} the value {number}, which is {former or 'background'}; give it another")
    if name in LEVELS or former is None:
        named[number] = name
