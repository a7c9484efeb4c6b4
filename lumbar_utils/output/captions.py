"""The caption of each figure: what it shows, its main numbers in this run, and on what data.

Each function takes the tables from which its figure is drawn, so no number is typed. `cohort` is the data; of synthetic
images a caption says that they say nothing about patients.
"""

from collections.abc import Iterable, Sequence

import pandas as pd

from lumbar_utils import LEVELS, METRICS, model_name
from lumbar_utils.appendix.definitions import spread_over_definitions
from lumbar_utils.data.folder import Cohort
from lumbar_utils.output.tables import describe_data, describe_runs, interval_text, seeds_of
from lumbar_utils.scores.evaluation import ANY_LEVEL
from lumbar_utils.scores.instances import summarise_instances
from lumbar_utils.scores.metrics import average_precision, calibration_error
from lumbar_utils.scores.statistics import MIN_PATIENTS
from lumbar_utils.scores.summary import leads

SEVERITIES = ("error", "warning", "accepted")


def audit(findings: pd.DataFrame, data: str) -> str:
    """findings : severity, one row a finding. data : description of the data, which may be too broken for a cohort."""
    counts = findings["severity"].value_counts()
    numbers = ", ".join(f"{severity} {counts.get(severity, 0)}" for severity in SEVERITIES)
    return f"Findings of the audit by kind and severity ({numbers}), with pictures. Data: {data}."


def samples(examples: Sequence, cohort: Cohort) -> str:
    """examples : those drawn."""
    return (
        f"The first image of {len(examples)} patients with the reference contours of {', '.join(cohort.annotated)}. "
        f"Data: {describe_data(cohort, 'all')}."
    )


def data_overview(areas: pd.DataFrame, cohort: Cohort) -> str:
    """areas : one row a vertebra."""
    patients = cohort.cases.drop_duplicates("patient")["split"].value_counts()
    return (
        f"(a) Grey values of each tissue, (b) areas and (c) centres of {len(areas)} vertebrae, (d) patients to train "
        f"on ({patients.get('train', 0)}), to validate on ({patients.get('validation', 0)}) and to test on "
        f"({patients.get('test', 0)}). Data: {describe_data(cohort, 'all')}."
    )


def architecture(model: str, stages: pd.DataFrame, unused: int = 0) -> str:
    """stages : as from `diagram.describe`; unused : parameters that take no part."""
    total, last = stages["parameters"].sum() + unused, stages.iloc[-1]
    spare = f", {unused / 1e6:.2f} million of them unused" if unused else ""
    return (
        f"{model_name(model)} as built for this study: {total / 1e6:.2f} million parameters{spare}. Each box is a "
        f"stage with its channels, the size of its output and its parameters; input and output have {last['height']} x "
        f"{last['width']} pixels."
    )


def learning_curves(history: pd.DataFrame, cohort: Cohort) -> str:
    """history : model, epoch, val_f1; of a grid, whose cases are all test cases, means over its runs."""
    data = f"Data: {describe_data(cohort, 'validation')}."
    if (cohort.cases["split"] == "test").all():
        data = f"Means over runs, each with its own validation images. Data: {describe_data(cohort, 'all')}."
    best = history.loc[history.groupby("model", sort=False)["val_f1"].idxmax()]
    last = history.groupby("model")["epoch"].max()
    scores = [
        f"{model_name(row.model)} {row.val_f1:.3f} (epoch {row.epoch} of {last[row.model]})"
        for row in best.itertuples()
    ]
    return (
        "Loss on training and validation images and macro F1 of validation pixels over epochs, the best epoch of each "
        f"kept: {'; '.join(scores)}. {data}"
    )


def comparison(table: pd.DataFrame, cohort: Cohort) -> str:
    """table : Table II, tidy."""
    f1 = table[table["metric"] == "f1"]
    return (
        f"Scores {_with_intervals(table, cohort)}, and the paper's as marks, which are of its own images. "
        f"F1: {_scores(f1)}; {_patients(f1['n'])}. Data: {describe_data(cohort)}."
    )


def differences(gaps: pd.DataFrame, cohort: Cohort) -> str:
    """gaps : as from `summary.differences`."""
    f1 = [
        f"{model_name(row.first)} - {model_name(row.second)} {interval_text(row.difference, row.low, row.high)}"
        for row in gaps[gaps["metric"] == "f1"].itertuples()
    ]
    units = "patients and seeds" if seeds_of(cohort.cases) > 1 else "patients"
    return (
        f"Model against model on the same patients: differences in score {_with_intervals(gaps, cohort, units)}. "
        f"F1: {'; '.join(f1)}. Data: {describe_data(cohort)}."
    )


def multiverse(universe: pd.DataFrame, cohort: Cohort) -> str:
    """universe : definition, metric, model, value."""
    (f1,) = spread_over_definitions(universe).query("metric == 'f1'").to_dict("records")
    models = dict.fromkeys(universe["model"])
    counts = ", ".join(f"{model_name(model)} leads under {f1[f'{model}_leads']}" for model in models)
    return (
        "The same label maps under every definition of each metric, sorted by the mean; rimmed marks are the paper's "
        f"numbers, of its own images. Of {f1['definitions']} definitions of F1, {counts}. "
        f"Data: {describe_data(cohort)}."
    )


def runs(table: pd.DataFrame, parts: pd.DataFrame, cohort: Cohort) -> str:
    """table, parts : as from `summary.by_run` and `summary.variance_of_runs`."""
    counts = ", ".join(f"{model_name(model)} in {count}" for model, count in leads(table).items())
    return (
        f"(a) F1 of each network in each run, a seed on a fold, lines: means; {describe_runs(cohort.cases)}. Highest: "
        f"{counts}. (b) {_variance(parts, dict.fromkeys(table['model']))} Data: {describe_data(cohort)}."
    )


def _variance(parts: pd.DataFrame, models: Iterable[str]) -> str:
    """Sentences on where the variance over runs comes from. parts : what, part, share; empty with a single run."""
    if parts.empty:
        return "One run tells nothing of where its spread comes from."
    shares = parts[parts["part"] == "patient"].set_index("what")["share"].dropna()
    patients = [f"{_percent(shares[model])} for {model_name(model)}" for model in models if model in shares]
    of_patients = f" Of the variance of a patient's F1, patients make up {', '.join(patients)}." if patients else ""
    return (
        f"The variance over patients and runs taken apart, SD: its root.{of_patients} Runs of one seed share "
        "patients to train on, so they are no independent repetitions."
    )


def grid(jobs: pd.DataFrame) -> str:
    """jobs : as from `progress.table_of`."""
    counts = jobs.loc[jobs["model"] != "", "state"].value_counts()
    states = ", ".join(f"{count} {state}" for state, count in counts.items())
    return (
        f"Jobs of the grid, one a network, seed and fold, by state ({states}), with the best F1 on the validation "
        "patients of that run, on which the epoch is chosen: it says nothing of test patients."
    )


def precision_recall(curves: pd.DataFrame, cohort: Cohort) -> str:
    """curves : of an Evaluation."""
    of_any = curves[(curves["level"] == ANY_LEVEL) & (curves["pixels"] > 0)].sort_values("probability")
    areas = [
        f"{model_name(model)} {average_precision(rows[['hits', 'pixels']].to_numpy().T):.3f}"
        for model, rows in of_any.groupby("model", sort=False)
    ]
    result = f"Average precision (AP) of any level: {', '.join(areas)}" if areas else "No network gave probabilities"
    return (
        "Precision against recall of a level's pixels as the threshold falls, marks at a probability of 0.5, lines of "
        f"equal F1 in grey; the pixels of all images are taken together, so there is no interval. {result}. "
        f"Data: {describe_data(cohort)}."
    )


def by_level(scores: pd.DataFrame, cohort: Cohort, metric: str = "f1") -> str:
    """scores : of an Evaluation."""
    rows = scores[scores["metric"] == metric].groupby(["model", "level", "patient"], sort=False)["value"].mean()
    means = rows.groupby(["model", "level"], sort=False).mean()
    lowest = means[means.groupby("model", sort=False).idxmin()]
    numbers = ", ".join(f"{model_name(model)} {value:.3f} at {level}" for (model, level), value in lowest.items())
    return (
        f"{METRICS[metric]} of each patient (n = {scores['patient'].nunique()}) by level. Lowest mean over patients: "
        f"{numbers}. Data: {describe_data(cohort)}."
    )


def errors(bodies: pd.DataFrame, cohort: Cohort) -> str:
    """bodies : of an Evaluation."""
    sentences = []
    for model, rows in summarise_instances(bodies).groupby("model", sort=False):
        values = rows.set_index("metric")["value"]
        count = ((bodies["model"] == model) & (bodies["level"] != "")).sum()
        if "rightly named" in values:
            sentences.append(
                f"{model_name(model)} found {_percent(values['found'])} of {count}, of these "
                f"{_percent(values['rightly named'])} rightly named, with outlines of F1 "
                f"{values['outline F1']:.3f} whatever the name"
            )
        else:
            sentences.append(f"{model_name(model)} found none of {count}")
    return f"What became of each vertebra of the reference. {'; '.join(sentences)}. Data: {describe_data(cohort)}."


def confusion(own: pd.DataFrame, in_order: pd.DataFrame, cohort: Cohort) -> str:
    """own, in_order : bodies of an Evaluation before and after names are put in order."""
    before, after = _rightly_named(own), _rightly_named(in_order)
    shares = [f"{model_name(model)} {_percent(before[model])}, then {_percent(after[model])}" for model in before.index]
    return (
        "Names given to the vertebrae of each level, in per cent, by the network alone (above) and once names are put "
        f"in order (below). Under their own name: {'; '.join(shares)}. Data: {describe_data(cohort)}."
    )


def _rightly_named(bodies: pd.DataFrame) -> pd.Series:
    """Model -> share of the reference's vertebrae that got their own name."""
    real = bodies[bodies["level"] != ""]
    return (real["named"] == real["level"]).groupby(real["model"], sort=False).mean()


def groups(table: pd.DataFrame, cohort: Cohort) -> str:
    """table : kind, group, model, value, low, high, n; of F1."""
    lowest = table.loc[table["value"].idxmin()]
    none = "None: vertebrae without a finding; a patient may have both. " if "none" in set(table["group"]) else ""
    return (
        f"F1 in parts of the test set by {', '.join(dict.fromkeys(table['kind']))}, {_with_intervals(table, cohort)}. "
        f"The lowest is {interval_text(lowest['value'], lowest['low'], lowest['high'])}, of "
        f"{model_name(lowest['model'])} for {lowest['group']} (n = {lowest['n']}). {none}Data: {describe_data(cohort)}."
    )


def reliability(table: pd.DataFrame, cohort: Cohort) -> str:
    """table : model, bin, pixels, sureness (confidence), right."""
    calibration_errors = [
        f"{model_name(model)} {_percent(calibration_error(bins[['pixels', 'sureness', 'right']].to_numpy().T))}"
        for model, bins in table.groupby("model", sort=False)
    ]
    return (
        "(a) Share of right pixels against the probability they were given, (b) how often it is given: pixels that are "
        "a vertebra in either map, of all images together, so there is no interval. "
        f"Expected calibration error: {', '.join(calibration_errors)}. Data: {describe_data(cohort)}."
    )


def robustness(table: pd.DataFrame, cohort: Cohort) -> str:
    """table : model, kind, strength, case, patient, f1."""
    steps = ["model", "kind", "strength"]
    means = table.groupby([*steps, "patient"], sort=False)["f1"].mean().groupby(steps, sort=False).mean().reset_index()
    scores = []
    for model, rows in means.groupby("model", sort=False):
        lowest = rows.loc[rows["f1"].idxmin()]
        scores.append(f"{model_name(model)} {rows['f1'].iloc[0]:.3f}, lowest {lowest['f1']:.3f} ({lowest['kind']})")
    return (
        f"F1 on images that get worse, with {_intervals(cohort)} "
        f"(n = {table['patient'].nunique()}, {table['case'].nunique()} images). From untouched images on: "
        f"{'; '.join(scores)}. Data: of the {describe_data(cohort)}."
    )


def cost(costs: pd.DataFrame, summary: pd.DataFrame, cohort: Cohort) -> str:
    """costs : as from `cost.cost`; summary : model, metric, value, low, high."""
    prices = [
        f"{model_name(row.model)} {row.parameters / 1e6:.2f} million parameters, {row.latency_ms:.1f} ms"
        for row in costs.itertuples()
    ]
    f1 = summary[summary["metric"] == "f1"]
    return (
        f"F1 {_with_intervals(summary, cohort)} against what a network costs, times as measured on this machine. "
        f"{'; '.join(prices)}. F1: {_scores(f1)}. Data: {describe_data(cohort)}."
    )


def predictions(examples: Sequence, model: str, cohort: Cohort) -> str:
    """examples : those drawn, each with case and f1."""
    if not examples:
        return f"{model_name(model)} has no label maps of the test images."
    cases = ", ".join(f"{example.case} ({example.f1:.3f})" for example in examples)
    return (
        f"Test images of {model_name(model)} from the best through the median to the worst by F1: {cases}. From left "
        f"to right: image, reference, prediction, differences.{_not_annotated(cohort)} Chosen from "
        f"{describe_data(cohort)}."
    )


def _not_annotated(cohort: Cohort) -> str:
    """A sentence on the levels that are drawn where they are predicted, although the reference leaves them out."""
    missing = [level for level in LEVELS if level not in cohort.annotated]
    if not missing:
        return ""
    return f" The reference does not annotate {', '.join(missing)}: drawn where predicted, and no difference."


def worst(titles: Sequence[str], cohort: Cohort) -> str:
    """titles : above each picture; the first line names network and case, the second begins with the F1."""
    cases = []
    for title in titles:
        network_and_case, errors_of_case = title.split("\n")[:2]
        cases.append(f"{network_and_case} ({errors_of_case.split(':')[0]})")
    return (
        f"The worst test images of each network, the reference dashed: {'; '.join(cases)}. "
        f"Chosen from {describe_data(cohort)}."
    )


def overlay(model: str, count: int, cohort: Cohort) -> str:
    """count : how many images are drawn."""
    data = describe_data(cohort, "all")
    return f"Label maps of {model_name(model)} over {count} of {data}. There is no reference to score by."


def labelled_scan(name: str, model: str, slices: Sequence[str], warnings: Sequence[str], note: str) -> str:
    """slices : names of those drawn. note : what has to be said of every result."""
    text = f"Label map of {model_name(model)} over {name}: {', '.join(slices)}. There is no reference to score by."
    return " ".join([text, *warnings, note])


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _scores(rows: pd.DataFrame) -> str:
    """rows : model, value, low, high."""
    scores = [f"{model_name(row.model)} {interval_text(row.value, row.low, row.high)}" for row in rows.itertuples()]
    return ", ".join(scores)


def _with_intervals(rows: pd.DataFrame, cohort: Cohort, units: str = "patients") -> str:
    """rows : low, not known where patients are too few. units : that are drawn again."""
    if rows["low"].isna().all():
        return "without intervals, for which patients are too few"
    return f"with {_intervals(cohort, units)}"


def _intervals(cohort: Cohort, units: str = "patients") -> str:
    """Over what intervals are, and whether they can be trusted."""
    patients = cohort.cases.loc[cohort.cases["split"] == "test", "patient"].nunique()
    doubt = f" (below {MIN_PATIENTS} patients they do not hold)" if patients < MIN_PATIENTS else ""
    return f"95 % bootstrap intervals over {units}{doubt}"


def _patients(counts: Iterable[int]) -> str:
    """n = 77, or n = 70-77 where models differ."""
    return "n = " + "-".join(map(str, sorted({min(counts), max(counts)})))
