"""What Kurachka, Ren and Wang printed, once and in one place, and their claims judged against measured intervals.

Source: Comparative Analysis of Deep Learning Models for Lumbar Vertebrae Segmentation in MRI Images.
"""

import itertools
from collections.abc import Iterator

import pandas as pd

from lumbar_utils import METRICS, MODELS
from lumbar_utils.scores.statistics import MIN_PATIENTS, MIN_SEEDS

ENVIRONMENT = {
    "CPU": "Intel(R) Xeon(R) Gold 6226R",
    "Memory": "64 GB",
    "GPU": "Quadro RTX 5000",
    "Operating system": "Windows 10 Professional Edition",
    "Software environment": "Python 3.12.7, torch 2.6.0+cu118",
}

# Table II (headed Table I in print). The F1 of HRNet is 0.77208 in the abstract and the text.
RESULTS = {
    "unet": {"precision": 0.9809, "recall": 0.9715, "f1": 0.9742, "map": 0.7084},
    "hrnet": {"precision": 0.6684, "recall": 0.9153, "f1": 0.7208, "map": 0.6568},
    "efficientnet": {"precision": 0.7995, "recall": 0.9247, "f1": 0.8491, "map": 0.7666},
}

# The same numbers as the abstract and the text state them: place -> model -> metric.
_STATED = RESULTS | {"hrnet": RESULTS["hrnet"] | {"f1": 0.77208}}
ELSEWHERE = {"abstract": _STATED, "text": _STATED}

# The model stated to be highest: place -> metric -> model. The abstract's "superior" names no score.
HIGHEST = {"conclusion": {"precision": "unet", "recall": "unet", "f1": "unet", "map": "unet"}}

INCONSISTENCIES = {"numbering of the tables": "The table of results is headed Table I and cited as Table II."}

VERDICTS = ("supported", "contradicted", "undecided", "not judged", "not testable")
CONFIDENCE = 0.99  # of the intervals: some twenty claims are judged at once, and verdicts must hold under other seeds
COMPARED = ["metric", "first", "second", "difference", "low", "high"]
RECALL_PRECISION = "recall-precision"  # metric of a difference within one model: its recall minus its precision
MEASURED = {"map": ("map_pixel", "map_coco")}  # the paper prints one mAP without a definition: each of ours is judged
NOT_TESTABLE = (  # claim, place, why no interval could speak for or against it
    (
        "All three networks are feasible and promising",
        "abstract, conclusion",
        "no score is named that would be too low",
    ),
    ("U-Net suits automated segmentation", "conclusion", "no requirement is named that it would have to meet"),
    ("Accuracy and efficiency are enhanced", "abstract", "nothing is named that they would be compared with"),
    ("U-Net is superior", "abstract", "of no score is it said to be highest; in the conclusion it is, of four"),
)


def result(model: str, metric: str) -> float:
    """The paper's value for a model and metric, in [0, 1]; nan for a model that it does not have.

    It prints one mAP without a definition, so each of our definitions of mAP has the same value.
    """
    return RESULTS.get(model, {}).get("map" if metric.startswith("map_") else metric, float("nan"))


def printed() -> pd.DataFrame:
    """The table of results, tidy: metric (precision, recall, f1, map), model, value in [0, 1]."""
    rows = [(metric, model, value) for model, row in RESULTS.items() for metric, value in row.items()]
    return pd.DataFrame(rows, columns=["metric", "model", "value"])


Comparison = tuple[str, str, str, int]  # metric, first, second, sign that first - second must have


def claims() -> Iterator[tuple[str, str, list[Comparison]]]:
    """Every testable claim: words, place, and the comparisons that must all hold.

    Within a model, metric is `recall-precision` and first = second. Orders and signs are those of the paper's table.
    """
    for place, leaders in HIGHEST.items():
        for metric, model in leaders.items():
            yield from _extreme("highest", model, metric, place)
    yield from _extreme("highest", "efficientnet", "map", "table")
    yield from _extreme("lowest", "hrnet", "precision", "table")
    for metric in ("precision", "recall", "f1", "map"):
        order = sorted(RESULTS, key=lambda model, metric=metric: -result(model, metric))
        words = " > ".join(MODELS[model] for model in order)
        for name in MEASURED.get(metric, (metric,)):
            yield f"{METRICS[name]}: {words}", "table", [(name, *pair, 1) for pair in itertools.pairwise(order)]
    for model, row in RESULTS.items():
        sign, words = (1, "above") if row["recall"] > row["precision"] else (-1, "below")
        comparison = (RECALL_PRECISION, model, model, sign)
        yield f"The recall of {MODELS[model]} is {words} its precision", "table", [comparison]


def _extreme(which: str, model: str, metric: str, place: str) -> Iterator[tuple[str, str, list[Comparison]]]:
    """The claim that a model is `highest` or `lowest` in a metric, once for each of our definitions of it."""
    sign = 1 if which == "highest" else -1
    for name in MEASURED.get(metric, (metric,)):
        comparisons = [(name, model, other, sign) for other in RESULTS if other != model]
        yield f"{MODELS[model]} has the {which} {METRICS[name]}", place, comparisons


def judge(summary: pd.DataFrame, differences: pd.DataFrame, data: str, *, seeds: int, synthetic: bool) -> pd.DataFrame:
    """Verdict on each claim of the paper: claim, place, verdict (of VERDICTS), evidence (one sentence).

    summary : from `summary.summarise`. differences : from `summary.differences` with CONFIDENCE, over patients and
        seeds. Models beyond the paper's are ignored.
    data : description of the data, which ends every evidence. seeds : trainings of each network. synthetic : whether
        the images are synthetic.

    The claims are about architectures on images of patients. So on synthetic images they are not judged, and with
    fewer than MIN_SEEDS seeds they are undecided; the evidence gives the numbers all the same. Otherwise a claim is
    supported if the interval of every comparison lies on the claimed side of 0, contradicted if one lies on the other
    side, else undecided, as with fewer than MIN_PATIENTS patients or a missing number.

    Nominally 0.5 % of intervals lie on a wrong side. A claim of k comparisons is therefore wrongly supported in at
    most 0.5 %, and wrongly contradicted in at most k times 0.5 %. How often verdicts change under other seeds, and
    their power: tests/benchmarks/verdicts.py. Claims that no score could decide come last, as not testable.
    """
    measured, intervals, rows = summary.dropna(subset="value").set_index(["model", "metric"]), {}, []
    for metric, first, second, difference, low, high in differences[COMPARED].dropna().itertuples(index=False):
        intervals.setdefault((metric, second, first), (-difference, -high, -low))
        intervals[metric, first, second] = difference, low, high
    for words, place, comparisons in claims():
        evidence = [_evidence(measured, intervals, *comparison) for comparison in comparisons]
        verdict, caveat = _verdict({side for side, _ in evidence}, seeds, synthetic)
        numbers = "; ".join(text for _, text in evidence)
        rows.append((words, place, verdict, f"{caveat}{numbers}. Data: {data}."))
    rows += [(words, place, "not testable", f"{why}.") for words, place, why in NOT_TESTABLE]
    return pd.DataFrame(rows, columns=["claim", "place", "verdict", "evidence"])


def _verdict(sides: set[str], seeds: int, synthetic: bool) -> tuple[str, str]:
    """The verdict, and the caveat that its evidence begins with. sides : of the claim's comparisons."""
    if synthetic:
        return "not judged", "On synthetic images: "
    if seeds < MIN_SEEDS:
        return "undecided", f"These trained networks, of fewer than {MIN_SEEDS} seeds, on these images: "
    if "against" in sides:
        return "contradicted", ""
    return ("supported" if sides == {"for"} else "undecided"), ""


def _evidence(
    measured: pd.DataFrame, intervals: dict[tuple, tuple], metric: str, first: str, second: str, sign: int
) -> tuple[str, str]:
    """Side of a comparison (`for`, `against`, `neither` or `missing`), and its numbers in words.

    measured : value and n by (model, metric). intervals : (metric, first, second) -> difference, low, high.
    """
    sides, name = [(first, metric), (second, metric)], METRICS.get(metric)
    if metric == RECALL_PRECISION:
        sides = [(first, "recall"), (first, "precision")]
        name = f"{METRICS['recall']} - {METRICS['precision']} of {MODELS[first]}"
    missing = [f"{METRICS[score]} of {MODELS[model]}" for model, score in sides if (model, score) not in measured.index]
    if missing:
        return "missing", f"{name}: not decided, as {', '.join(missing)} was not measured"
    rows = measured.loc[sides]
    values = [f"{MODELS[model]} {row['value']:.4f} (n = {row['n']:.0f})" for (model, _), row in rows.iterrows()]
    text = f"{name}, {' against '.join(values)}"
    if (metric, first, second) not in intervals:
        return "missing", f"{text}: not decided, as no interval of the difference was measured"
    difference, low, high = intervals[metric, first, second]
    if rows["n"].min() < MIN_PATIENTS:
        few = f"of too few patients for an interval to hold (below {MIN_PATIENTS})"
        return "neither", f"{text}: {difference:+.4f}, {few}"
    side, ends = "neither", (sign * low, sign * high)
    if min(ends) > 0:
        side = "for"
    elif max(ends) < 0:
        side = "against"
    return side, f"{text}: {difference:+.4f} ({100 * CONFIDENCE:.0f} % interval {low:+.4f} to {high:+.4f})"
