"""The paper's claims one by one, each judged over trainings and patients: a verdict, with the numbers behind it."""

import itertools
from collections.abc import Iterator

import pandas as pd

from lumbar_utils import METRICS, MODELS, StudyError
from lumbar_utils.scores import paper
from lumbar_utils.scores.statistics import FEWEST, FEWEST_SEEDS

VERDICTS = ("supported", "contradicted", "undecided", "not judged", "not testable")
CONFIDENCE = 0.99  # of the intervals: some twenty claims are judged at once, and verdicts must hold under other seeds
GAP = "recall-precision"  # within one model: its recall minus its precision
MEASURED = {"map": ("map_pixel", "map_coco")}  # the paper prints one mAP and does not define it: each of ours
NUMBERS = {"summary": ["value", "low", "high", "n"], "differences": ["difference", "low", "high"]}
KEYS = {"summary": ["model", "metric"], "differences": ["metric", "first", "second"]}

# What no interval of this run could speak for or against: claim, place, why.
NOT_TESTABLE = (
    (
        "All three networks are feasible and promising",
        "abstract, conclusion",
        "no score is named that would be too low",
    ),
    ("U-Net suits automated segmentation", "conclusion", "no requirement is named that it would have to meet"),
    ("Accuracy and efficiency are enhanced", "abstract", "nothing is named that they would be compared with"),
    ("U-Net is superior", "abstract", "of no score is it said to be highest; in the conclusion it is, of four"),
)


def claims() -> Iterator[tuple[str, str, list[tuple[str, str, str, int]]]]:
    """Every testable claim: words, place, and what must hold, as (metric, first, second, sign of first - second).

    Within a model, metric is `recall-precision` and first = second. Orders and signs are those of the paper's table.
    """
    for place, leaders in paper.HIGHEST.items():
        for metric, model in leaders.items():
            yield from _extreme("highest", model, metric, place)
    yield from _extreme("highest", "efficientnet", "map", "table")
    yield from _extreme("lowest", "hrnet", "precision", "table")
    for metric in ("precision", "recall", "f1", "map"):
        order = sorted(paper.RESULTS, key=lambda model, metric=metric: -paper.result(model, metric))
        for name in MEASURED.get(metric, (metric,)):
            needs = [(name, *pair, 1) for pair in itertools.pairwise(order)]
            yield f"{METRICS[name]}: {' > '.join(MODELS[model] for model in order)}", "table", needs
    for model, row in paper.RESULTS.items():
        sign, words = (1, "above") if row["recall"] > row["precision"] else (-1, "below")
        yield f"The recall of {MODELS[model]} is {words} its precision", "table", [(GAP, model, model, sign)]


def judge(summary: pd.DataFrame, differences: pd.DataFrame, data: str, *, seeds: int, synthetic: bool) -> pd.DataFrame:
    """Each claim of the paper: claim, place, verdict (of VERDICTS), evidence (one sentence).

    summary : one row a (model, metric): value, low, high, n. Models beyond the paper's take no part.
    differences : one row a (metric, first, second), in either order: difference = first - second, low and high of its
        interval of CONFIDENCE over patients and seeds. Metric `recall-precision` has first = second: recall minus
        precision of a model.
    data : on what data, in words that every evidence ends with. seeds : trainings of each network. synthetic : whether
        the images are drawn.

    The claims are about architectures on images of patients. So on synthetic images they are not judged: the evidence
    says how the order came out there. Of fewer than FEWEST_SEEDS seeds they are undecided: the evidence says what these
    trained networks did. Otherwise a claim is supported if every interval that it needs lies on its side of 0,
    contradicted if one lies on the other, else undecided, as with fewer than FEWEST patients or a number missing.

    An interval lies on one side wrongly in 0.5 % of samples, nominally. All of k do so together no more often; one of k
    does so in up to k times 0.5 %: a claim that needs two is wrongly contradicted in up to 1 %. How often verdicts
    change under other seeds, and what power that costs: tests/benchmarks/verdicts.py. Claims that no score could speak
    for or against come last, as not testable.
    """
    _refuse(summary, "summary")
    _refuse(differences, "differences")
    if not data.strip():
        raise StudyError("data is empty; say on what data this was measured, '77 synthetic test images' for instance")
    rows = []
    for words, place, needs in claims():
        found = [_hold(summary, differences, *need) for need in needs]
        verdict, about = _verdict({side for side, _ in found}, seeds, synthetic)
        numbers = "; ".join(text for _, text in found)
        rows.append((words, place, verdict, f"{about}{numbers}. Data: {data.strip()}."))
    rows += [(words, place, "not testable", f"{why}.") for words, place, why in NOT_TESTABLE]
    return pd.DataFrame(rows, columns=["claim", "place", "verdict", "evidence"])


def _verdict(sides: set[str], seeds: int, synthetic: bool) -> tuple[str, str]:
    """The verdict, and the words that its evidence begins with. sides : what the intervals say, as from `_hold`."""
    if synthetic:
        return "not judged", "On synthetic images: "
    if seeds < FEWEST_SEEDS:
        return "undecided", f"These trained networks, of fewer than {FEWEST_SEEDS} seeds, on these images: "
    if "against" in sides:
        return "contradicted", ""
    return ("supported" if sides == {"for"} else "undecided"), ""


def _extreme(which: str, model: str, metric: str, place: str) -> Iterator[tuple[str, str, list]]:
    """The claim that a model is highest or lowest in a metric, once for each way to measure it."""
    sign = 1 if which == "highest" else -1
    for name in MEASURED.get(metric, (metric,)):
        needs = [(name, model, other, sign) for other in paper.RESULTS if other != model]
        yield f"{MODELS[model]} has the {which} {METRICS[name]}", place, needs


def _hold(summary: pd.DataFrame, differences: pd.DataFrame, metric: str, first: str, second: str, sign: int) -> tuple:
    """Whether an interval speaks `for` or `against` a sign, `neither`, or is `missing`; and its numbers, in words."""
    sides = [(first, "recall"), (first, "precision")] if metric == GAP else [(first, metric), (second, metric)]
    values = [_value(summary, *side) for side in sides]
    name = f"{METRICS['recall']} - {METRICS['precision']} of {MODELS[first]}" if metric == GAP else METRICS[metric]
    if None in values:
        missing = ", ".join(
            f"{METRICS[of]} of {MODELS[model]}" for model, of in sides if not _value(summary, model, of)
        )
        return "missing", f"{name}: not decided, as {missing} was not measured"
    words = f"{name}, {' against '.join(values)}"
    found = differences[differences["metric"] == metric].set_index(["first", "second"])[NUMBERS["differences"]].dropna()
    if (first, second) in found.index:
        difference, low, high = found.loc[(first, second)]
    elif (second, first) in found.index:
        difference, high, low = -found.loc[(second, first)]
    else:
        return "missing", f"{words}: not decided, as no interval of the difference was measured"
    patients = summary.set_index(["model", "metric"])["n"].reindex(sides).min()
    if patients < FEWEST:
        return "neither", f"{words}: {difference:+.4f}, of too few patients for an interval to hold (below {FEWEST})"
    side = "for" if min(sign * low, sign * high) > 0 else "against" if max(sign * low, sign * high) < 0 else "neither"
    return side, f"{words}: {difference:+.4f} ({100 * CONFIDENCE:.0f} % interval {low:+.4f} to {high:+.4f})"


def _value(summary: pd.DataFrame, model: str, metric: str) -> str | None:
    """A model's value in words, with the number of patients where one is given; None if it was not measured."""
    row = summary[(summary["model"] == model) & (summary["metric"] == metric)].dropna(subset="value")
    if row.empty:
        return None
    n = row["n"].iloc[0]
    return f"{MODELS[model]} {row['value'].iloc[0]:.4f}" + ("" if pd.isna(n) else f" (n = {n:.0f})")


def _refuse(table: pd.DataFrame, name: str) -> None:
    """StudyError for a table without its columns, with text for numbers, or with two rows for one thing."""
    keys, numbers = KEYS[name], NUMBERS[name]
    missing = [column for column in [*keys, *numbers] if column not in table]
    if missing:
        raise StudyError(f"{name} has the columns {', '.join(map(str, table))}; add {', '.join(missing)}")
    for column in numbers:
        if len(table) and not pd.api.types.is_numeric_dtype(table[column]):
            raise StudyError(
                f"{column} of {name} holds {table[column].iloc[0]!r}; give numbers, nan where there is none"
            )
    things = table[keys].apply(lambda row: (row["metric"], *sorted(set(row) - {row["metric"]})), axis=1)
    if things.duplicated().any():
        raise StudyError(f"{name} has {', '.join(things[things.duplicated()].iloc[0])} twice; keep one row of the two")
    crossed = table[table["low"] > table["high"]]
    if len(crossed):
        raise StudyError(f"{name} has {', '.join(crossed[keys].iloc[0])} with low above high; exchange them")
