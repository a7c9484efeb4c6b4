"""What a table of precision, recall, F1 and mAP says about itself: which readings of its numbers cannot be.

No image is needed. Each printed number stands for all values that round to it, so nothing is called wrong for rounding.
A bound excludes and never proves: `consistent` means that these numbers do not speak against it.
"""

import csv
import difflib
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd

from lumbar_utils import MODELS, StudyError

VERDICTS = ("consistent", "contradiction", "ruled out", "not decidable")
# columns of a table -> in a sentence
METRICS = {"precision": "precision", "recall": "recall", "f1": "F1", "map": "mAP"}
COCO = {"COCO AP@[.50:.95]": np.arange(50, 100, 5) / 100, "COCO AP50": np.array([0.5]), "COCO AP75": np.array([0.75])}
DUST = 1e-9  # of floating point, far below the last printed place


def read_table(path: Path | str) -> pd.DataFrame:
    """Table of results from a CSV file: model, precision, recall, f1, map in [0, 1]; other columns are left out."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StudyError(f"{path} cannot be read ({error}); give a text file in UTF-8, one row a model") from error
    if not rows or "model" not in rows[0] or any(None in row for row in rows):
        got = f"the header {', '.join(map(str, rows[0]))}" if rows else "no rows"
        raise StudyError(
            f"{path} has {got}, or cells beyond it; write model,{','.join(METRICS)}, then one row a model, parted by "
            "commas, and 0.98 with a point, not 0,98"
        )
    return pd.DataFrame.from_dict(_checked(pd.DataFrame(rows)), orient="index").rename_axis("model").reset_index()


def examine(
    results: dict | pd.DataFrame, elsewhere: dict | None = None, highest: dict | None = None,
    recorded: dict[str, str] | None = None, decimals: int | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Every check of a table, one row a (check, model): check, model, verdict (of VERDICTS), reasoning.

    results : model -> {precision, recall, f1, map}, or a table of these with `model` as a column or the index.
    elsewhere : place -> model -> metric -> what is stated there. highest : place -> metric -> model said to lead.
    recorded : contradictions that no formula finds, name -> sentence.
    decimals : places that the table was rounded to; None takes those of its longest number.
    Raises StudyError for a number that is none in [0, 1], and for models and metrics that the table has not.
    """
    table = _checked(results)
    if decimals is None:
        decimals = max(_decimals(value) for row in table.values() for value in row.values())
    half = 0.5 * 10.0**-decimals
    rows = [(check, model, *found) for model, row in table.items() for check, *found in _f1_rows(row, half)]
    readings = [(check, model, *found) for model, row in table.items() for check, *found in _map_rows(row, half)]
    rows += [*readings, _one_definition(readings)]
    for place, stated in (elsewhere or {}).items():
        rows += [_against(table, half, place, model, numbers) for model, numbers in stated.items()]
    for place, leaders in (highest or {}).items():
        rows += [_ranked(table, place, metric, model) for metric, model in leaders.items()]
    rows += [(check, "all", "contradiction", sentence) for check, sentence in (recorded or {}).items()]
    return pd.DataFrame(rows, columns=["check", "model", "verdict", "reasoning"])


def harmonic_mean(precision: float, recall: float) -> float:
    """F1 of one pair of precision and recall; 0 if both are 0."""
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def pixel_ap_floor(precision: float, recall: float, interpolated: bool) -> tuple[float, float]:
    """Lower bounds of pixel-wise average precision: of one curve, and of a mean over units (images, levels).

    Holds where a mask is its score cut at one threshold, so that (R, P) lies on the curve; an argmax over classes is
    so but for pixels where none reaches one half. Interpolated (area under the curve made non-increasing): precision
    is at least x = P up to recall R. As the sum of precision x gain in recall: at worst all false alarms rank before
    the first hit; the k-th hit then has precision k / (false alarms + k), on average x = 1 + (1-P)/P ln(1-P) or more.
    So AP >= x R of one curve; x R >= x + R - 1, as (1-x)(1-R) >= 0, and x is convex in P, so by Jensen a mean over
    the units of P and R is at least x(mean P) + mean R - 1. Nothing below 1 bounds a mean from above.
    """
    sure = interpolated or not 0 < precision < 1
    found = precision if sure else 1 + (1 - precision) / precision * float(np.log1p(-precision))
    return found * recall, max(0.0, found + recall - 1)


def coco_ap_bounds(f1: float, thresholds: np.ndarray) -> tuple[float, float]:
    """Lower and upper bound of COCO average precision, given F1 as the mean Dice over (image, level).

    thresholds : of IoU, COCO's ten or one of them.
    Assumes that every image shows every level once, with one prediction each at most, however these are ranked.
    An instance of Dice D has IoU D / (2-D) and is matched at threshold t from D = 2t / (1+t) on: at a share g(D) of the
    thresholds, a step function. By Jensen the mean of g lies between g's convex envelope (chords through the feet of
    its steps) and its concave one (a line from 0 to the head of the last step), both at the mean of D.
    Where a share s of the vertebrae is matched, recall ends at s. At best precision is 1 up to there, at 100 s + 1 of
    COCO's 101 recalls. At worst every false alarm ranks first: precision is then s or more, as there are no more
    predictions than vertebrae, at 100 s recalls or more, so AP >= 100/101 s^2; its mean over thresholds and levels is
    no less at the mean s, as the square is convex. Tighter lower bounds exist.
    """
    dice = 2 * thresholds / (1 + thresholds)
    least = float(np.interp(f1, [0, *dice, 1], [0, *np.arange(len(dice)) / len(dice), 1]))
    return 100 / 101 * least**2, (100 * min(1.0, f1 / dice[-1]) + 1) / 101


def _f1_rows(row: dict[str, float], half: float) -> list[tuple[str, str, str]]:
    """F1 against precision and recall: of pooled pixels, and as a mean (of a concave function: Jensen)."""
    (p, p_high), (r, r_high), (f, f_high), _ = (np.clip([row[name] - half, row[name] + half], 0, 1) for name in METRICS)
    above, below = f > harmonic_mean(p_high, r_high) + DUST, f_high < harmonic_mean(p, r) - DUST
    mean = f"{harmonic_mean(row['precision'], row['recall']):.4f}"
    of = f"{mean}, the harmonic mean of precision {row['precision']:.4f} and recall {row['recall']:.4f}"
    exact = not above and not below
    pooled = f"F1 {row['f1']:.4f} {'is, within rounding,' if exact else 'is not'} {of}."
    span = f"{max(0, row['precision'] + row['recall'] - 1):.4f} (P + R - 1) to {mean} (their harmonic mean, concave)"
    verdict = "contradiction" if above or f_high < p + r - 1 - DUST else "consistent"
    where = f"{row['f1']:.4f} {'does' if verdict == 'consistent' else 'does not'}"
    averaged = f"A mean of F1 over the units of precision and recall lies from {span}; {where}."
    return [
        ("F1 of pooled pixels", "consistent" if exact else "ruled out", pooled), ("F1 as a mean", verdict, averaged)
    ]  # fmt: skip


def _map_rows(row: dict[str, float], half: float) -> list[tuple[str, str, str]]:
    """mAP against the bounds of each definition that it may have, rounding allowed for."""
    (p, _), (r, _), (f, f_high), _ = (np.clip([row[name] - half, row[name] + half], 0, 1) for name in METRICS)
    bounds = {}
    for name, interpolated in {"pixel AP, interpolated": True, "pixel AP, summed": False}.items():
        once, mean = pixel_ap_floor(p, r, interpolated)
        given = f"precision {row['precision']:.4f} and recall {row['recall']:.4f} leave to a mean over units"
        bounds[name] = mean, 1.0, f"{given} ({once:.4f} or more to one pooled curve)"
    for name, thresholds in COCO.items():
        given = f"F1 {row['f1']:.4f} leaves as the mean Dice over every level of every image"
        bounds[name] = coco_ap_bounds(f, thresholds)[0], coco_ap_bounds(f_high, thresholds)[1], given
    rows = []
    for name, (low, high, given) in bounds.items():
        out = row["map"] + half < low - DUST or row["map"] - half > high + DUST
        verdict = "ruled out" if out else "not decidable" if low <= 0 and high >= 1 else "consistent"
        where = f"{'outside' if out else 'within'} {low:.4f} to {high:.4f}"
        rows.append((f"mAP as {name}", verdict, f"mAP {row['map']:.4f} lies {where}, which {given}."))
    return rows


def _one_definition(readings: list[tuple[str, str, str, str]]) -> tuple[str, str, str, str]:
    """Whether one definition of mAP, of those tried, fits every model."""
    against = {check.removeprefix("mAP as "): [] for check, *_ in readings}
    for check, model, verdict, _ in readings:
        against[check.removeprefix("mAP as ")] += [model] if verdict == "ruled out" else []
    gone = "; ".join(f"{name} (for {_print(models)})" for name, models in against.items() if models) or "none"
    left = "; ".join(name for name, models in against.items() if not models)
    sentence = f"Ruled out: {gone}. Within its bounds for every model, which proves nothing: {left or 'none'}."
    return "one definition of mAP", "all", "not decidable" if left else "ruled out", sentence


def _against(table: dict, half: float, place: str, model: str, numbers: dict[str, float]) -> tuple[str, str, str, str]:
    """What a place states of a model against the table."""
    printed = table[_known(model, table, "the table")]
    differ = []
    for metric in numbers:
        value, here = _value(numbers, model, _known(metric, METRICS, "a table of results")), printed[metric]
        if abs(value - here) > half + 0.5 * 10.0 ** -_decimals(value) + DUST:
            differ.append(f"{METRICS[metric]} {value:.{max(4, _decimals(value))}f} (table: {here:.4f})")
    sentence = f"states {', '.join(differ)}" if differ else f"differs in none of {', '.join(map(METRICS.get, numbers))}"
    return f"{place} against table", model, "contradiction" if differ else "consistent", f"The {place} {sentence}."


def _ranked(table: dict, place: str, metric: str, model: str) -> tuple[str, str, str, str]:
    """Whether the model that a place calls highest is so in the table; models printed alike cannot be told apart."""
    name, own = METRICS[_known(metric, METRICS, "a table of results")], table[_known(model, table, "the table")][metric]
    top = max(row[metric] for row in table.values())
    leaders = [other for other, row in table.items() if row[metric] == top]
    verdict = "contradiction" if own < top else "consistent" if len(leaders) == 1 else "not decidable"
    seen = f"the table, {_print(leaders)} at {top:.4f}" + (f", above {own:.4f}" if own < top else "")
    return f"{name} ranked in the {place}", model, verdict, f"The {place} puts {_print([model])} highest; {seen}."


def _decimals(value: float) -> int:
    return max(0, -Decimal(repr(float(value))).as_tuple().exponent)


def _print(models: Iterable[str]) -> str:
    return ", ".join(MODELS.get(model, model) for model in models)


def _checked(results: Mapping | pd.DataFrame) -> dict[str, dict[str, float]]:
    """model -> metric -> value in [0, 1], of all that `examine` takes; StudyError for anything else."""
    rows = results.items()
    if isinstance(results, pd.DataFrame):
        named = results.set_index("model") if "model" in results else results
        rows = zip(named.index, named.to_dict("records"), strict=True)
    table = {}
    for model, row in rows:
        if not isinstance(model, str) or not model.strip():
            raise StudyError(f"model {model!r} has no name; give text, in a column `model` or as the index")
        if model in table:
            raise StudyError(f"model {model} is there twice; allowed is one row a model; remove or rename one")
        table[model] = {metric: _value(row, model, metric) for metric in METRICS}
    if not table:
        raise StudyError(f"the table has no model; give one or more, with {', '.join(METRICS)}")
    return table


def _value(row: Mapping, model: str, metric: str) -> float:
    """The number of a model and metric, in [0, 1]; StudyError says what is there instead, and what to write."""
    got = row[_known(metric, row, model)]
    try:
        value = float("nan" if isinstance(got, bool) else got)
    except (TypeError, ValueError):
        value = float("nan")
    if 0 <= value <= 1:
        return value
    hint = "write the number, or leave the model out"
    if isinstance(got, str) and "," in got:
        hint = f"write a decimal point: {got.strip().replace(',', '.')}"
    elif value > 1 or str(got).strip().endswith("%"):
        hint = "divide it by 100 if it is in percent"
    raise StudyError(f"{metric} of {model} is {got!r}; allowed is a number from 0 to 1; {hint}")


def _known(name: str, names: Iterable, where: str) -> str:
    """The name itself; StudyError, with the nearest that there is, if it is none of the names."""
    if name in names:
        return name
    spelt = {str(other).lower(): other for other in names}
    near = difflib.get_close_matches(str(name).lower(), spelt, n=1, cutoff=0.4)
    hint = f"{spelt[near[0]]!r} is near: write both alike" if near else "add it, or correct it"
    raise StudyError(f"{where} has no {name!r}, only {', '.join(map(str, names))}; {hint}")
