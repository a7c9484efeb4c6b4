"""A sentence or two below each figure: what it shows, its main numbers as this run has them, and on what data.

Each function takes the tables that its figure is drawn from, so that no number is typed; `cohort` gives the words on
the data, and says of synthetic images that they say nothing about patients.
"""

from collections.abc import Iterable, Sequence

import pandas as pd

from lumbar_utils import METRICS, MODELS
from lumbar_utils.appendix.error_map import ErrorMap, peaks
from lumbar_utils.appendix.multiverse import spread
from lumbar_utils.data.folder import Cohort
from lumbar_utils.output.tables import data_words, interval_text, runs_words, seeds_of
from lumbar_utils.scores.evaluation import ANY_LEVEL
from lumbar_utils.scores.instances import summarise_instances
from lumbar_utils.scores.metrics import average_precision
from lumbar_utils.scores.statistics import MIN_PATIENTS
from lumbar_utils.scores.summary import leads

SEVERITIES = ("error", "warning", "accepted")


def audit(findings: pd.DataFrame, data: str) -> str:
    """findings : severity, one row a finding. data : words on the data, which may be too broken to be a cohort."""
    counts = findings["severity"].value_counts()
    told = ", ".join(f"{severity} {counts.get(severity, 0)}" for severity in SEVERITIES)
    return f"Findings of the audit by kind and severity ({told}), with pictures. Data: {data}."


def samples(shown: Sequence, cohort: Cohort) -> str:
    """shown : the examples drawn."""
    return (
        f"The first image of {len(shown)} patients with the reference contours of {', '.join(cohort.annotated)}. "
        f"Data: {data_words(cohort, 'all')}."
    )


def data_overview(areas: pd.DataFrame, cohort: Cohort) -> str:
    """areas : one row a vertebra."""
    sides = cohort.cases.drop_duplicates("patient")["split"].value_counts()
    return (
        f"(a) Grey values of each tissue, (b) areas and (c) centres of {len(areas)} vertebrae, (d) patients to train "
        f"on ({sides.get('train', 0)}), to validate on ({sides.get('validation', 0)}) and to test on "
        f"({sides.get('test', 0)}). Data: {data_words(cohort, 'all')}."
    )


def architecture(model: str, stages: pd.DataFrame, unused: int = 0) -> str:
    """stages : as from `diagram.describe`; unused : parameters that take no part."""
    total, last = stages["parameters"].sum() + unused, stages.iloc[-1]
    spare = f", {unused / 1e6:.2f} million of them unused" if unused else ""
    return (
        f"{_name(model)} as built for this study: {total / 1e6:.2f} million parameters{spare}. Each box is a stage "
        f"with its channels, the size of its output and its parameters; input and output have {last['height']} x "
        f"{last['width']} pixels."
    )


def learning_curves(history: pd.DataFrame, cohort: Cohort) -> str:
    """history : model, epoch, val_f1."""
    best = history.loc[history.groupby("model", sort=False)["val_f1"].idxmax()]
    last = history.groupby("model")["epoch"].max()
    told = [
        f"{_name(row.model)} {row.val_f1:.3f} (epoch {row.epoch} of {last[row.model]})" for row in best.itertuples()
    ]
    return (
        "Loss on training and validation images and macro F1 of validation pixels over epochs, the best epoch of each "
        f"kept: {'; '.join(told)}. Data: {data_words(cohort, 'validation')}."
    )


def comparison(table: pd.DataFrame, cohort: Cohort) -> str:
    """table : Table II, tidy."""
    f1 = table[table["metric"] == "f1"]
    return (
        f"Scores {_intervals(table, cohort)}, and the paper's as marks, which are of its own images. "
        f"F1: {_values(f1)}; {_patients(f1['n'])}. Data: {data_words(cohort)}."
    )


def differences(gaps: pd.DataFrame, cohort: Cohort) -> str:
    """gaps : as from `summary.differences`."""
    told = [
        f"{_name(row.first)} - {_name(row.second)} {interval_text(row.difference, row.low, row.high)}"
        for row in gaps[gaps["metric"] == "f1"].itertuples()
    ]
    units = "patients and seeds" if seeds_of(cohort.cases) > 1 else "patients"
    return (
        f"Model against model on the same patients: differences in score {_intervals(gaps, cohort, units)}. "
        f"F1: {'; '.join(told)}. Data: {data_words(cohort)}."
    )


def multiverse(universe: pd.DataFrame, cohort: Cohort) -> str:
    """universe : definition, metric, model, value."""
    rows, models = spread(universe).set_index("metric"), list(dict.fromkeys(universe["model"]))
    told = [f"{_name(model)} leads under {rows.loc['f1', f'{model}_leads']}" for model in models]
    return (
        "The same label maps under every definition of each metric, sorted by the mean; rimmed marks are the paper's "
        f"numbers, of its own images. Of {rows.loc['f1', 'definitions']} definitions of F1, {', '.join(told)}. "
        f"Data: {data_words(cohort)}."
    )


def runs(table: pd.DataFrame, parts: pd.DataFrame, cohort: Cohort) -> str:
    """table, parts : as from `summary.by_run` and `summary.variance_of_runs`."""
    first = leads(table)
    told = ", ".join(f"{_name(model)} in {count}" for model, count in first.items())
    shares = parts[parts["part"] == "patient"].set_index("what")["share"]
    of_patients = [
        f"{_percent(shares[model])} for {_name(model)}" for model in first.index if shares.notna().get(model, False)
    ]
    spread = f" Of the variance of a patient's F1, patients make up {', '.join(of_patients)}." if of_patients else ""
    apart = (
        "(b) One run tells nothing of where its spread comes from. "
        if parts.empty
        else (
            f"(b) The variance over patients and runs taken apart, SD: its root.{spread} Runs of one seed share "
            "patients to train on, so they are no independent repetitions. "
        )
    )
    return (
        f"(a) F1 of each network in each run, a seed on a fold, lines: means; {runs_words(cohort.cases)}. Highest: "
        f"{told}. {apart}Data: {data_words(cohort)}."
    )


def grid(cells: pd.DataFrame) -> str:
    """cells : as from `progress.table_of`."""
    of_networks = cells[cells["model"] != ""]
    counts = ", ".join(f"{count} {state}" for state, count in of_networks["state"].value_counts().items())
    return (
        f"Cells of the grid, one a network, seed and fold, by state ({counts}), with the best F1 on the validation "
        "patients of that run, on which the epoch is chosen: it says nothing of test patients."
    )


def precision_recall(curves: pd.DataFrame, cohort: Cohort) -> str:
    """curves : of an Evaluation."""
    own = (
        curves[(curves["level"] == ANY_LEVEL) & (curves["pixels"] > 0)]
        .sort_values("probability")
        .groupby("model", sort=False)
    )
    told = [f"{_name(model)} {average_precision(rows[['hits', 'pixels']].to_numpy().T):.3f}" for model, rows in own]
    areas = f"Average precision (AP) of any level: {', '.join(told)}" if told else "No network gave probabilities"
    return (
        "Precision against recall of a level's pixels as the threshold falls, marks at a probability of 0.5, lines of "
        f"equal F1 in grey; the pixels of all images are taken together, so there is no interval. {areas}. "
        f"Data: {data_words(cohort)}."
    )


def by_level(scores: pd.DataFrame, cohort: Cohort, metric: str = "f1") -> str:
    """scores : of an Evaluation."""
    rows = scores[scores["metric"] == metric].groupby(["model", "level", "patient"], sort=False)["value"].mean()
    means = rows.groupby(["model", "level"], sort=False).mean()
    worst = means[means.groupby("model", sort=False).idxmin()]
    told = ", ".join(f"{_name(model)} {value:.3f} at {level}" for (model, level), value in worst.items())
    return (
        f"{METRICS[metric]} of each patient (n = {scores['patient'].nunique()}) by level. Lowest mean over patients: "
        f"{told}. Data: {data_words(cohort)}."
    )


def errors(bodies: pd.DataFrame, cohort: Cohort) -> str:
    """bodies : of an Evaluation."""
    told = []
    for model, rows in summarise_instances(bodies).groupby("model", sort=False):
        cells, own = rows.set_index("metric"), bodies[(bodies["model"] == model) & (bodies["level"] != "")]
        if "rightly named" not in cells.index:
            told.append(f"{_name(model)} found none of {len(own)}")
            continue
        told.append(
            f"{_name(model)} found {_percent(cells.loc['found', 'value'])} of {len(own)}, of these "
            f"{_percent(cells.loc['rightly named', 'value'])} rightly named, with outlines of F1 "
            f"{cells.loc['outline F1', 'value']:.3f} whatever the name"
        )
    return f"What became of each vertebra of the reference. {'; '.join(told)}. Data: {data_words(cohort)}."


def error_map(found: ErrorMap, cohort: Cohort) -> str:
    """found : as from `error_map.error_map`."""
    told = []
    for model, rows in peaks(found).groupby("model", sort=False):
        wrong = "; ".join(f"{row.what} {100 * row.share:.0f} % ({row.level})" for row in rows.itertuples())
        told.append(f"{_name(model)}: {wrong}")
    counts = ", ".join(f"{level} {count}" for level, count in zip(found.levels, found.cases, strict=True))
    return (
        "Where on the mean spine pixels are wrong, in per cent of the images: outline, missed within the mean vertebra "
        "(black) or invented outside of it, whatever the name; name, a vertebra's pixel under another's name. Each "
        "vertebra is brought onto its mean place, direction and size. Highest: "
        f"{'. '.join(told)}. Images with each level: {counts}. Data: {data_words(cohort)}."
    )


def confusion(own: pd.DataFrame, in_order: pd.DataFrame, cohort: Cohort) -> str:
    """own, in_order : bodies of an Evaluation before and after names are put in order."""
    before, after = _rightly_named(own), _rightly_named(in_order)
    told = [f"{_name(model)} {_percent(before[model])}, then {_percent(after[model])}" for model in before.index]
    return (
        "Names given to the vertebrae of each level, in per cent, by the network alone (above) and once names are put "
        f"in order (below). Under their own name: {'; '.join(told)}. Data: {data_words(cohort)}."
    )


def groups(table: pd.DataFrame, cohort: Cohort) -> str:
    """table : kind, group, model, value, low, high, n; of F1."""
    lowest = table.loc[table["value"].idxmin()]
    none = "None: vertebrae without a finding; a patient may have both. " if "none" in set(table["group"]) else ""
    return (
        f"F1 in parts of the test set by {', '.join(dict.fromkeys(table['kind']))}, {_intervals(table, cohort)}. "
        f"The lowest is {interval_text(lowest['value'], lowest['low'], lowest['high'])}, of "
        f"{_name(lowest['model'])} for {lowest['group']} (n = {lowest['n']}). {none}Data: {data_words(cohort)}."
    )


def reliability(table: pd.DataFrame, cohort: Cohort) -> str:
    """table : model, bin, pixels, sureness, right."""
    gaps = (table["sureness"] - table["right"]).abs().groupby(table["model"], sort=False).sum()
    error = gaps / table.groupby("model", sort=False)["pixels"].sum()
    told = ", ".join(f"{_name(model)} {_percent(value)}" for model, value in error.items())
    return (
        "(a) Share of right pixels against the probability they were given, (b) how often it is given: pixels that are "
        "a vertebra in either map, of all images together, so there is no interval. "
        f"Expected calibration error: {told}. "
        f"Data: {data_words(cohort)}."
    )


def robustness(table: pd.DataFrame, cohort: Cohort) -> str:
    """table : model, kind, strength, case, patient, f1."""
    means = table.groupby(["model", "kind", "strength", "patient"], sort=False)["f1"].mean()
    means = means.groupby(["model", "kind", "strength"], sort=False).mean().reset_index()
    told = []
    for model, rows in means.groupby("model", sort=False):
        worst = rows.loc[rows["f1"].idxmin()]
        told.append(f"{_name(model)} {rows['f1'].iloc[0]:.3f}, lowest {worst['f1']:.3f} ({worst['kind']})")
    return (
        f"F1 on images that get worse, with {_over(cohort)} "
        f"(n = {table['patient'].nunique()}, {table['case'].nunique()} images). From untouched images on: "
        f"{'; '.join(told)}. Data: of the {data_words(cohort)}."
    )


def cost(costs: pd.DataFrame, summary: pd.DataFrame, cohort: Cohort) -> str:
    """costs : as from `cost.cost`; summary : model, metric, value, low, high."""
    told = [
        f"{_name(row.model)} {row.parameters / 1e6:.2f} million parameters, {row.latency_ms:.1f} ms"
        for row in costs.itertuples()
    ]
    return (
        f"F1 {_intervals(summary, cohort)} against what a network costs, times as measured on this machine. "
        f"{'; '.join(told)}. F1: {_values(summary[summary['metric'] == 'f1'])}. Data: {data_words(cohort)}."
    )


def predictions(shown: Sequence, model: str, cohort: Cohort) -> str:
    """shown : the examples drawn, each with case and f1."""
    told = ", ".join(f"{example.case} ({example.f1:.3f})" for example in shown)
    if not told:
        return f"{_name(model)} has no label maps of the test images."
    return (
        f"Test images of {_name(model)} from the best through the median to the worst by F1: {told}. From left to "
        f"right: image, reference, prediction, differences. Chosen from {data_words(cohort)}."
    )


def worst(words: Sequence[str], cohort: Cohort) -> str:
    """words : above each picture; its first line names network and case, its second begins with the F1."""
    heads = [lines.split("\n")[:2] for lines in words]
    told = "; ".join(f"{who} ({how.split(':')[0]})" for who, how in heads)
    return f"The worst test images of each network, the reference dashed: {told}. Chosen from {data_words(cohort)}."


def overlay(model: str, shown: int, cohort: Cohort) -> str:
    """shown : how many images are drawn."""
    return (
        f"Label maps of {_name(model)} over {shown} of {data_words(cohort, 'all')}. There is no reference to score by."
    )


def _name(model: str) -> str:
    return MODELS.get(model, model)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _values(rows: pd.DataFrame) -> str:
    """rows : model, value, low, high."""
    return ", ".join(f"{_name(row.model)} {interval_text(row.value, row.low, row.high)}" for row in rows.itertuples())


def _intervals(rows: pd.DataFrame, cohort: Cohort, units: str = "patients") -> str:
    """rows : low, not known where patients are too few. units : what the intervals are over."""
    if rows["low"].isna().all():
        return "without intervals, for which patients are too few"
    return f"with {_over(cohort, units)}"


def _over(cohort: Cohort, units: str = "patients") -> str:
    """What an interval is over, and whether it can be trusted."""
    few = cohort.cases.loc[cohort.cases["split"] == "test", "patient"].nunique() < MIN_PATIENTS
    return f"95 % bootstrap intervals over {units}" + (
        f" (below {MIN_PATIENTS} patients they do not hold)" if few else ""
    )


def _patients(counts: Iterable[int]) -> str:
    """n = 77, or n = 70-77 where models differ."""
    return "n = " + "-".join(map(str, sorted({min(counts), max(counts)})))


def _rightly_named(bodies: pd.DataFrame) -> pd.Series:
    """Share of the reference's vertebrae that bear their own name, by model."""
    real = bodies[bodies["level"] != ""]
    return (real["named"] == real["level"]).groupby(real["model"], sort=False).mean()
