"""Averages of scores over the test patients, each with its interval: the numbers of every table.

`statistic` defines how a score is averaged; F1 in Table II is `summarise` of that.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd

from lumbar_utils import METRICS, MODELS
from lumbar_utils.scores.evaluation import Evaluation
from lumbar_utils.scores.metrics import COCO_THRESHOLDS, coco_average_precision
from lumbar_utils.scores.statistics import (
    complete_seeds,
    interval_over_seeds,
    macro_average,
    variance_components,
    with_interval,
)

# COCO's metrics -> IoU thresholds; they are of all images at once, so a single image has none
COCO_METRICS = {"map_coco": COCO_THRESHOLDS, "map_50": (0.5,), "map_75": (0.75,)}
SCORE_NAMES = {"map_pixel": "ap_pixel"}  # metrics of a table whose scores have another name
FINDING = re.compile(r"(?P<name>.+?)(\s+(?P<level>[CTLS]\d+))?")  # `wedge L2`: a finding, and its level if it has one
Statistic = Callable[[np.ndarray], np.ndarray]  # (..., n) rows of patients, resampled or not -> (...) values


def summarise(evaluation: Evaluation, metrics: Sequence[str] = tuple(METRICS)) -> pd.DataFrame:
    """One row per (model, metric): value, low, high (95 % BCa interval over patients), n (patients with a value).

    metrics : names as in Table II or in `metrics.DEFINITIONS`; a model without any value of a metric has no row.
    """
    rows = []
    for model in models_of(evaluation):
        for metric in metrics:
            patients = _patients_with(evaluation, model, metric)
            if len(patients):
                interval = with_interval(statistic(evaluation, model, metric), patients)
                rows.append((model, metric, *interval, len(patients)))
    return pd.DataFrame(rows, columns=["model", "metric", "value", "low", "high", "n"])


def statistic(evaluation: Evaluation, model: str, metric: str) -> Statistic:
    """The value of a metric in a table, as a function of the patients that it is averaged over.

    F1 and all other metrics of single vertebrae are averaged over the cases c of a patient p with level l, then over
    the patients, then over the levels:

        F1 = mean over l of (mean over p of (mean over c of F1(c, p, l)))    F1(c, p, l) = 2 TP / (2 TP + FP + FN)

    A vertebra that neither map has is left out of each mean. `map_coco`, `map_50` and `map_75` are COCO's average
    precision of all images of the patients at once, averaged over levels.
    """
    if metric in COCO_METRICS:
        return _coco_statistic(evaluation, model, COCO_METRICS[metric])
    return partial(_macro_average_of, scores_by_patient(evaluation, model, metric).to_numpy())


def _macro_average_of(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return macro_average(values[rows])


def scores_by_patient(evaluation: Evaluation, model: str, metric: str) -> pd.DataFrame:
    """patients x levels: mean over the cases of a patient; nan where the patient has no such vertebra."""
    scores = evaluation.scores
    rows = scores[(scores["model"] == model) & (scores["metric"] == SCORE_NAMES.get(metric, metric))]
    means = rows.groupby([rows["patient"].astype(str), "level"], sort=False)["value"].mean().unstack("level")
    return means.reindex(patients_of(evaluation))


def _coco_statistic(evaluation: Evaluation, model: str, thresholds: tuple[float, ...]) -> Statistic:
    patients = pd.Index(patients_of(evaluation))
    instances = evaluation.instances[evaluation.instances["model"] == model]
    levels = []
    for _, level in instances.groupby("level", sort=False):
        place = patients.get_indexer(level["patient"].astype(str))
        levels.append((place, *(level[name].to_numpy() for name in ("iou", "confidence", "real"))))

    def value(rows: np.ndarray) -> np.ndarray:
        counts = _draw_counts(np.asarray(rows), len(patients))
        precisions = []
        for place, iou, confidence, real in levels:
            precisions.append(coco_average_precision(iou, confidence, real, counts[..., place], thresholds))
        return macro_average(np.stack(precisions, axis=-1)[..., None, :])

    return value


def _draw_counts(rows: np.ndarray, patients: int) -> np.ndarray:
    """(..., n) rows of the patients drawn -> (..., patients) how often each was drawn."""
    flat = rows.reshape(-1, rows.shape[-1])
    shifted = flat + patients * np.arange(len(flat))[:, None]
    return np.bincount(shifted.ravel(), minlength=len(flat) * patients).reshape(*rows.shape[:-1], patients)


def patients_of(evaluation: Evaluation) -> list[str]:
    """The test patients in order; the rows that a Statistic takes are positions in this list."""
    return sorted(evaluation.pixels["patient"].astype(str).unique())


def models_of(evaluation: Evaluation) -> list[str]:
    """The models of an evaluation: the paper's three in its order, then the others as they come."""
    models = list(dict.fromkeys(evaluation.pixels["model"]))
    return [model for model in MODELS if model in models] + [model for model in models if model not in MODELS]


def metrics_of(evaluation: Evaluation) -> list[str]:
    """Names, as in tables, of every metric with a score."""
    table_names = {score: name for name, score in SCORE_NAMES.items()}
    names = [table_names.get(metric, metric) for metric in evaluation.scores["metric"]]
    return list(dict.fromkeys([*names, *COCO_METRICS]))


def _patients_with(evaluation: Evaluation, model: str, metric: str) -> np.ndarray:
    """Rows of the patients of whom a model has a value."""
    if metric in COCO_METRICS:
        table = evaluation.instances
    else:
        table = evaluation.scores[evaluation.scores["metric"] == SCORE_NAMES.get(metric, metric)]
    patients = table.loc[table["model"] == model, "patient"].astype(str).unique()
    return np.flatnonzero(np.isin(patients_of(evaluation), patients))


def differences(
    evaluation: Evaluation,
    metrics: Iterable[str] = tuple(METRICS),
    cases: pd.DataFrame | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Every two models on the patients of both, one row per (metric, first, second): difference, low, high.

    low, high : BCa interval over patients of that confidence; with `cases` (case, seed, fold) of several seeds, over
    patients and seeds. Metric `recall-precision`, one row per model, is its recall minus its precision.
    """
    seeds = [] if cases is None else split_by_seed(evaluation, cases)
    models = models_of(evaluation)
    pairs = []
    for metric in metrics:
        pairs += [(metric, (first, metric), (second, metric)) for first, second in combinations(models, 2)]
    pairs += [("recall-precision", (model, "recall"), (model, "precision")) for model in models]
    rows = []
    for name, first, second in pairs:
        patients = np.intersect1d(_patients_with(evaluation, *first), _patients_with(evaluation, *second))
        if len(patients):
            value, low, high = with_interval(_difference(evaluation, first, second), patients, confidence)
            by_seed = [_difference(part, first, second)(np.arange(len(patients_of(part)))) for part in seeds]
            low, high = interval_over_seeds(value, low, high, np.array(by_seed), confidence)
            rows.append((name, first[0], second[0], value, low, high))
    return pd.DataFrame(rows, columns=["metric", "first", "second", "difference", "low", "high"])


def _difference(evaluation: Evaluation, first: tuple[str, str], second: tuple[str, str]) -> Statistic:
    """first, second : (model, metric)."""
    one, other = statistic(evaluation, *first), statistic(evaluation, *second)
    return lambda rows: one(rows) - other(rows)


def split_by_seed(evaluation: Evaluation, cases: pd.DataFrame) -> list[Evaluation]:
    """One evaluation per seed, of the cases tested under it on all folds. cases : case, seed, fold."""
    tested = cases[cases["case"].isin(evaluation.pixels["case"])]
    return [evaluation.of_cases(tested.loc[tested["seed"] == seed, "case"]) for seed in complete_seeds(tested)]


def per_patient(evaluation: Evaluation) -> pd.DataFrame:
    """patients x models, for paired tests: mean F1 over the levels of a patient.

    The mean of a column is not the value of Table II, which weighs every level alike: see `statistic`.
    """
    columns = {}
    for model in models_of(evaluation):
        columns[model] = scores_by_patient(evaluation, model, "f1").mean(axis=1)
    return pd.DataFrame(columns)


def by_run(evaluation: Evaluation, cases: pd.DataFrame) -> pd.DataFrame:
    """F1 of each run, averaged as in Table II, one row per (model, seed, fold): value, n patients.

    cases : of the cohort, with the seed and fold of the run that tested them.
    """
    run = ["model", "seed", "fold"]
    scores = _f1_with(evaluation, cases[["case", "seed", "fold"]])
    means = scores.groupby([*run, "patient", "level"], sort=False)["value"].mean().unstack("level")
    rows = []
    for key, patients in means.groupby(run, sort=False):
        rows.append((*key, float(macro_average(patients.to_numpy())), len(patients)))
    return pd.DataFrame(rows, columns=[*run, "value", "n"])


def variance_of_runs(evaluation: Evaluation, cases: pd.DataFrame) -> pd.DataFrame:
    """Variance of F1 over patients and runs by its sources, of each model and of the difference of each two.

    One row per (what, part): variance and share of `statistics.variance_components`, on the mean over the levels of
    each patient in each run. what : a model, or `unet - hrnet`. Empty for a single run.
    """
    scores = _f1_with(evaluation, cases[["case", "seed", "fold"]])
    means = scores.groupby(["seed", "fold", "patient", "model"])["value"].mean().unstack("model")
    columns = ["what", "part", "variance", "share"]
    if means.index.droplevel("patient").nunique() < 2:
        return pd.DataFrame(columns=columns)
    models = models_of(evaluation)
    values = {model: means[model] for model in models}
    for one, other in combinations(models, 2):
        values[f"{one} - {other}"] = means[one] - means[other]
    tables = []
    for what, value in values.items():
        tables.append(variance_components(value.rename("value").reset_index()).assign(what=what))
    return pd.concat(tables, ignore_index=True)[columns]


def leads(runs: pd.DataFrame) -> pd.Series:
    """model -> number of runs in which it has the highest value. runs : as from `by_run`."""
    best = runs.loc[runs.groupby(["seed", "fold"])["value"].idxmax(), "model"]
    return best.value_counts().reindex(list(dict.fromkeys(runs["model"])), fill_value=0)


def _f1_with(evaluation: Evaluation, cases: pd.DataFrame) -> pd.DataFrame:
    """F1 of each level of each case, with the columns of `cases`."""
    return evaluation.scores[evaluation.scores["metric"] == "f1"].merge(cases, on="case")


def by_group(evaluation: Evaluation, cases: pd.DataFrame) -> pd.DataFrame:
    """F1 in subgroups of the test set, one row per (kind, group, model): value, low, high, n patients.

    Averaged as in Table II. Kinds are level, contrast, spacing and finding, as far as they are known; cases : of the
    cohort. A vertebra counts under each of its findings, one without any under `none`.
    """
    scores = _f1_with(evaluation, _groups_of(cases))
    if "findings" in scores:
        texts = scores["findings"].fillna("").astype(str)
        scores["finding"] = list(map(_findings, texts, scores["level"]))
    rows = []
    for kind in [kind for kind in ("level", "contrast", "spacing", "finding") if kind in scores]:
        for (model, group), part in scores.explode(kind).groupby(["model", kind], sort=False):
            values = part.groupby(["patient", "level"])["value"].mean().unstack("level").to_numpy()
            interval = with_interval(partial(_macro_average_of, values), np.arange(len(values)))
            rows.append((kind, group, model, *interval, len(values)))
    return pd.DataFrame(rows, columns=["kind", "group", "model", "value", "low", "high", "n"])


def by_strength(table: pd.DataFrame) -> pd.DataFrame:
    """F1 on degraded images, one row per (model, kind, unit, strength): value, low, high, n patients, images.

    Means over patients, the images of a patient averaged; the models see the same images, so intervals that touch may
    differ. table : as from `robustness.robustness`, of all models.
    """
    steps, rows = ["model", "kind", "unit", "strength"], []
    for step, images in table.groupby(steps, sort=False):
        patients = images.groupby("patient")["f1"].mean().dropna().to_numpy()
        interval = with_interval(partial(_mean_of, patients), np.arange(len(patients)))
        rows.append((*step, *interval, len(patients), images["case"].nunique()))
    return pd.DataFrame(rows, columns=[*steps, "value", "low", "high", "n", "images"])


def _mean_of(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return values[rows].mean(axis=-1)


def _groups_of(cases: pd.DataFrame) -> pd.DataFrame:
    """case, and what is known of it: contrast, spacing (mm, in thirds if there are more than six), findings."""
    groups = cases[["case", *(name for name in ("contrast", "findings") if name in cases)]].copy()
    if "contrast" in groups:
        groups["contrast"] = groups["contrast"].fillna("unknown")
    spacing = cases["spacing_mm"].round(2)
    if spacing.nunique(dropna=False) < 2:
        return groups
    if spacing.nunique() > 6:
        thirds = pd.qcut(spacing, 3, duplicates="drop").astype(object)
        names = thirds.map(lambda third: f"{third.left:.2f} to {third.right:.2f} mm", na_action="ignore")
    else:
        names = spacing.map("{:.2f} mm".format, na_action="ignore")
    return groups.assign(spacing=names.astype(object).where(spacing.notna(), "unknown"))


def _findings(text: str, level: str) -> list[str]:
    """Findings of a vertebra, `none` if it has none: of "wedge L2; spur L4; fracture" wedge and fracture at L2.

    A finding that names no level is of every vertebra of its image.
    """
    names = []
    for part in re.split("[;\n]", text):
        finding = FINDING.fullmatch(part.strip())
        if finding and finding["level"] in (None, level):
            names.append(finding["name"])
    return list(dict.fromkeys(names)) or ["none"]
