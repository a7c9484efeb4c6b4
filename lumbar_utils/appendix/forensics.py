"""Checks of a printed table of precision, recall, F1 and mAP: which readings of its numbers are impossible.

No image is needed. Each printed number stands for all values that round to it, so nothing is excluded by rounding.
A bound can exclude a reading but never prove one: `consistent` means that these numbers do not contradict it.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd

from lumbar_utils import MODELS, StudyError

VERDICTS = ("consistent", "contradiction", "ruled out", "not decidable")
METRICS = {"precision": "precision", "recall": "recall", "f1": "F1", "map": "mAP"}  # column -> name in a sentence
COCO = {"COCO AP@[.50:.95]": np.arange(50, 100, 5) / 100, "COCO AP50": np.array([0.5]), "COCO AP75": np.array([0.75])}
EPSILON = 1e-9  # for rounding errors, far below the last printed place
Check = tuple[str, str, str, str]  # check, model, verdict, reasoning


def read_table(path: Path | str) -> pd.DataFrame:
    """Table of results from a CSV file, one row a model: precision, recall, f1, map in [0, 1]; others are left out."""
    try:
        table = pd.read_csv(path, encoding="utf-8-sig", skipinitialspace=True, index_col=False, dtype={"model": str})
    except (OSError, ValueError) as error:
        raise StudyError(f"{path} cannot be read ({error}); give a text file in UTF-8, one row a model") from error
    return _validated(table)


def examine(
    results: Mapping | pd.DataFrame, elsewhere: Mapping | None = None, highest: Mapping | None = None,
    recorded: dict[str, str] | None = None, decimals: int | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Every check of a table, one row per (check, model): check, model, verdict (of VERDICTS), reasoning.

    results : model -> {precision, recall, f1, map}, or a table of these with the models as its index.
    elsewhere : place -> model -> metric -> value stated there. highest : place -> metric -> model stated to be highest.
    recorded : contradictions that no formula finds, name -> sentence.
    decimals : decimal places that the table was rounded to; None takes those of its longest number.
    Raises StudyError for a table without these columns, and for a value that is no number in [0, 1].
    """
    table = _validated(results).to_dict("index")
    if decimals is None:
        decimals = max(_decimals(value) for row in table.values() for value in row.values())
    half = 0.5 * 10.0**-decimals
    rows: list[Check] = []
    for model, row in table.items():
        rows += _check_f1(model, row, half)
    map_rows: list[Check] = []
    for model, row in table.items():
        map_rows += _check_map(model, row, half)
    rows += [*map_rows, _one_definition(map_rows)]
    for place, models in (elsewhere or {}).items():
        rows += [_check_statement(table, half, place, model, stated) for model, stated in models.items()]
    for place, leaders in (highest or {}).items():
        rows += [_check_leader(table, place, metric, model) for metric, model in leaders.items()]
    rows += [(check, "all", "contradiction", sentence) for check, sentence in (recorded or {}).items()]
    return pd.DataFrame(rows, columns=["check", "model", "verdict", "reasoning"])


def harmonic_mean(precision: float, recall: float) -> float:
    """F1 of one pair of precision and recall; 0 if both are 0."""
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def pixel_ap_floor(precision: float, recall: float, interpolated: bool) -> tuple[float, float]:
    """Lower bounds of pixel-wise average precision: of one curve, and of a mean over units (images, levels).

    Assumes that a mask is its probability map cut at one threshold, so that (R, P) lies on the curve; an argmax over
    classes is, except at pixels where no class reaches one half. Interpolated (precision made non-increasing): x = P
    bounds precision from below up to recall R. Summed (precision x gain in recall): at worst all false positives rank
    before the first hit; the k-th hit then has precision k / (false positives + k), whose mean is at least
    x = 1 + (1-P)/P ln(1-P). So AP >= x R of one curve. x R >= x + R - 1, as (1-x)(1-R) >= 0, and x is convex in P, so
    by Jensen a mean over units is at least x(mean P) + mean R - 1. No upper bound of a mean is below 1.
    """
    mean_precision = precision
    if not interpolated and 0 < precision < 1:
        mean_precision = 1 + (1 - precision) / precision * float(np.log1p(-precision))
    return mean_precision * recall, max(0.0, mean_precision + recall - 1)


def coco_ap_bounds(f1: float, thresholds: np.ndarray) -> tuple[float, float]:
    """Lower and upper bound of COCO average precision, given F1 as the mean Dice over (image, level).

    thresholds : of IoU, COCO's ten or one of them.
    Assumes that every image shows every level once and has at most one prediction of each, in any ranking.
    An instance of Dice D has IoU D / (2-D), so it is matched at threshold t if D >= 2t / (1+t): at a share g(D) of the
    thresholds, a step function. By Jensen the mean of g lies between its convex envelope (chords through the feet of
    the steps) and its concave envelope (a line from 0 to the head of the last step), both at the mean of D.
    If a share s of the vertebrae is matched, recall ends at s. At best precision is 1 up to there: at 100 s + 1 of
    COCO's 101 recalls. At worst all false positives rank first: precision is then at least s, as there are no more
    predictions than vertebrae, at 100 s recalls or more, so AP >= 100/101 s^2. The square is convex, so the mean over
    thresholds and levels is no less at the mean s. Tighter lower bounds exist.
    """
    dice = 2 * thresholds / (1 + thresholds)
    matched = float(np.interp(f1, [0, *dice, 1], [0, *np.arange(len(dice)) / len(dice), 1]))
    return 100 / 101 * matched**2, (100 * min(1.0, f1 / dice[-1]) + 1) / 101


def _range(printed: float, half: float) -> tuple[float, float]:
    """Smallest and largest value in [0, 1] that rounds to the printed one."""
    return max(0.0, printed - half), min(1.0, printed + half)


def _check_f1(model: str, row: dict[str, float], half: float) -> list[Check]:
    """F1 against precision and recall: of pooled pixels, and as a mean (F1 is concave: Jensen)."""
    precision, recall, f1 = row["precision"], row["recall"], row["f1"]
    p_low, p_high = _range(precision, half)
    r_low, r_high = _range(recall, half)
    f_low, f_high = _range(f1, half)
    harmonic = f"{harmonic_mean(precision, recall):.4f}"
    above = f_low > harmonic_mean(p_high, r_high) + EPSILON
    below = f_high < harmonic_mean(p_low, r_low) - EPSILON
    differs = above or below
    pooled = (
        f"F1 {f1:.4f} {'is not' if differs else 'is, within rounding,'} {harmonic}, the harmonic mean of precision "
        f"{precision:.4f} and recall {recall:.4f}."
    )
    impossible = above or f_high < p_low + r_low - 1 - EPSILON
    averaged = (
        f"A mean of F1 over the units of precision and recall lies from {max(0, precision + recall - 1):.4f} "
        f"(P + R - 1) to {harmonic} (their harmonic mean, concave); {f1:.4f} {'does not' if impossible else 'does'}."
    )
    return [
        ("F1 of pooled pixels", model, "ruled out" if differs else "consistent", pooled),
        ("F1 as a mean", model, "contradiction" if impossible else "consistent", averaged),
    ]


def _check_map(model: str, row: dict[str, float], half: float) -> list[Check]:
    """mAP against the bounds of each definition that it may have, rounding allowed for."""
    p_low, _ = _range(row["precision"], half)
    r_low, _ = _range(row["recall"], half)
    f_low, f_high = _range(row["f1"], half)
    bounds = {}
    for name, interpolated in {"pixel AP, interpolated": True, "pixel AP, summed": False}.items():
        one_curve, mean = pixel_ap_floor(p_low, r_low, interpolated)
        given = f"precision {row['precision']:.4f} and recall {row['recall']:.4f} leave to a mean over units"
        bounds[name] = mean, 1.0, f"{given} ({one_curve:.4f} or more to one pooled curve)"
    for name, thresholds in COCO.items():
        given = f"F1 {row['f1']:.4f} leaves as the mean Dice over every level of every image"
        bounds[name] = coco_ap_bounds(f_low, thresholds)[0], coco_ap_bounds(f_high, thresholds)[1], given
    rows = []
    for name, (low, high, given) in bounds.items():
        verdict, where = "consistent", "within"
        if row["map"] + half < low - EPSILON or row["map"] - half > high + EPSILON:
            verdict, where = "ruled out", "outside"
        elif low <= 0 and high >= 1:
            verdict = "not decidable"
        sentence = f"mAP {row['map']:.4f} lies {where} {low:.4f} to {high:.4f}, which {given}."
        rows.append((f"mAP as {name}", model, verdict, sentence))
    return rows


def _one_definition(map_rows: list[Check]) -> Check:
    """Whether one definition of mAP, of those tried, fits every model."""
    excluded: dict[str, list[str]] = {}
    for check, model, verdict, _ in map_rows:
        models = excluded.setdefault(check.removeprefix("mAP as "), [])
        if verdict == "ruled out":
            models.append(model)
    gone = "; ".join(f"{name} (for {_names(models)})" for name, models in excluded.items() if models) or "none"
    left = "; ".join(name for name, models in excluded.items() if not models)
    sentence = f"Ruled out: {gone}. Within its bounds for every model, which proves nothing: {left or 'none'}."
    return "one definition of mAP", "all", "not decidable" if left else "ruled out", sentence


def _check_statement(table: dict, half: float, place: str, model: str, stated: Mapping) -> Check:
    """Values of a model that are stated elsewhere, against the table."""
    row = table[model]
    differ = []
    for metric, value in stated.items():
        name = METRICS[metric]
        if abs(value - row[metric]) > half + 0.5 * 10.0 ** -_decimals(value) + EPSILON:
            differ.append(f"{name} {value:.{max(4, _decimals(value))}f} (table: {row[metric]:.4f})")
    sentence = f"states {', '.join(differ)}" if differ else f"differs in none of {', '.join(map(METRICS.get, stated))}"
    return f"{place} against table", model, "contradiction" if differ else "consistent", f"The {place} {sentence}."


def _check_leader(table: dict, place: str, metric: str, model: str) -> Check:
    """Whether the model stated to be highest is so in the table; models with the same number cannot be ranked."""
    name = METRICS[metric]
    own = table[model][metric]
    top = max(row[metric] for row in table.values())
    leaders = [other for other, row in table.items() if row[metric] == top]
    numbers = f"the table, {_names(leaders)} at {top:.4f}"
    verdict = "consistent" if len(leaders) == 1 else "not decidable"
    if own < top:
        verdict = "contradiction"
        numbers += f", above {own:.4f}"
    return f"{name} ranked in the {place}", model, verdict, f"The {place} puts {_names([model])} highest; {numbers}."


def _decimals(value: float) -> int:
    return max(0, -Decimal(repr(float(value))).as_tuple().exponent)


def _names(models: Iterable[str]) -> str:
    return ", ".join(MODELS.get(model, model) for model in models)


def _validated(results: Mapping | pd.DataFrame) -> pd.DataFrame:
    """The numbers of a table that `examine` takes, in [0, 1], one row a model. Raises StudyError for anything else."""
    table = pd.DataFrame.from_dict(results, orient="index") if isinstance(results, Mapping) else results
    if "model" in table:
        table = table.set_index("model")
    numbers = table.reindex(columns=list(METRICS)).apply(pd.to_numeric, errors="coerce")
    right = ((numbers >= 0) & (numbers <= 1)).all(axis=1).to_numpy() & ~table.index.duplicated()
    if table.empty or not right.all():
        raise StudyError(
            f"a table of {table[~right].head(1).to_dict('index') or 'no model'} cannot be examined; give one row a "
            f"model, each model once, with {', '.join(METRICS)} from 0 to 1: write 92 % as 0.92, with a decimal point, "
            "or leave the model out"
        )
    return numbers
