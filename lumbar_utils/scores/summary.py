"""From scores to the numbers of a table, each with its interval: patients are the unit, in every one of them."""

import re
from collections.abc import Callable, Iterable
from functools import partial
from itertools import combinations, product

import numpy as np
import pandas as pd

from lumbar_utils import METRICS, MODELS
from lumbar_utils.scores.evaluation import WHOLE_IMAGE, Evaluation
from lumbar_utils.scores.metrics import COCO_THRESHOLDS, coco_average_precision
from lumbar_utils.scores.statistics import macro, over_runs, variance_parts, whole_seeds, with_interval

# metrics of whole vertebrae over all images -> IoU thresholds; there is none of them for a single image
COCO = {"map_coco": COCO_THRESHOLDS, "map_50": (0.5,), "map_75": (0.75,)}
NAMED = {"map_pixel": "ap_pixel"}  # metrics of a table whose scores have another name
LEVELLED = re.compile(r"(?P<name>.+?)(\s+(?P<level>[CTLS]\d+))?")  # a finding and its level: `wedge L2`
Statistic = Callable[[np.ndarray], np.ndarray]  # (..., n) rows of patients, drawn again or not -> (...) values


def patients_of(found: Evaluation) -> list[str]:
    """The patients that were tested on, in order: row numbers in a Statistic are places in this list."""
    return sorted(found.pixels["patient"].astype(str).unique())


def by_patient(found: Evaluation, model: str, metric: str) -> pd.DataFrame:
    """patients x levels: mean over the cases of a patient; nan where the patient has no such vertebra."""
    scores = found.scores
    rows = scores[(scores["model"] == model) & (scores["metric"] == NAMED.get(metric, metric))]
    means = rows.groupby([rows["patient"].astype(str), "level"], sort=False)["value"].mean().unstack("level")
    return means.reindex(patients_of(found))


def statistic(found: Evaluation, model: str, metric: str) -> Statistic:
    """The number that stands in a table for a model and a metric, as a function of the patients it is computed from.

    Cases are averaged within a patient, patients within a level, then levels. Average precision of whole vertebrae is
    of all images of those patients at once, level by level.
    """
    if metric in COCO:
        return _coco(found, model, COCO[metric])
    return partial(_macro_of, by_patient(found, model, metric).to_numpy())


def _macro_of(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return macro(values[rows])


def _coco(found: Evaluation, model: str, thresholds: tuple[float, ...]) -> Statistic:
    patients = patients_of(found)
    rows = found.instances[found.instances["model"] == model]
    place = rows["patient"].astype(str).map({patient: number for number, patient in enumerate(patients)})
    levels = [
        (place[of_level.index].to_numpy(), *(of_level[name].to_numpy() for name in ("iou", "sureness", "real")))
        for _, of_level in rows.groupby("level", sort=False)
    ]

    def value(drawn: np.ndarray) -> np.ndarray:
        times = _times(np.asarray(drawn), len(patients))
        precisions = [coco_average_precision(*level, times[..., whose], thresholds) for whose, *level in levels]
        return macro(np.stack(precisions, axis=-1)[..., None, :])

    return value


def _times(rows: np.ndarray, patients: int) -> np.ndarray:
    """(..., n) drawn places -> (..., patients) how often each was drawn."""
    flat = rows.reshape(-1, rows.shape[-1])
    shifted = flat + patients * np.arange(len(flat))[:, None]
    return np.bincount(shifted.ravel(), minlength=len(flat) * patients).reshape(*rows.shape[:-1], patients)


def models_of(found: Evaluation) -> list[str]:
    """The models of an evaluation: the three in the paper's order, then the others as they come."""
    there = list(dict.fromkeys(found.pixels["model"]))
    return [model for model in MODELS if model in there] + [model for model in there if model not in MODELS]


def summarise(found: Evaluation, metrics: Iterable[str] = tuple(METRICS)) -> pd.DataFrame:
    """One row a (model, metric): value, low, high (95 % BCa interval over patients), n (patients that have a value).

    metrics : names as in Table II or in `metrics.DEFINITIONS`; one that a model has no value of is left out.
    """
    rows = []
    for model, metric in product(models_of(found), metrics):
        having = _having(found, model, metric)
        if len(having):
            rows.append((model, metric, *with_interval(statistic(found, model, metric), having), len(having)))
    return pd.DataFrame(rows, columns=["model", "metric", "value", "low", "high", "n"])


def _having(found: Evaluation, model: str, metric: str) -> np.ndarray:
    """Places of the patients of whom a model has a value."""
    table = found.instances if metric in COCO else found.scores
    rows = table[table["model"] == model]
    if metric not in COCO:
        rows = rows[rows["metric"] == NAMED.get(metric, metric)]
    return np.flatnonzero(np.isin(patients_of(found), rows["patient"].astype(str).unique()))


def metrics_of(found: Evaluation) -> list[str]:
    """Names of every metric there is a score of, as tables have them."""
    named = {score: name for name, score in NAMED.items()}
    return list(dict.fromkeys(named.get(metric, metric) for metric in [*found.scores["metric"], *COCO]))


def differences(
    found: Evaluation,
    metrics: Iterable[str] = tuple(METRICS),
    cases: pd.DataFrame | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Model against model on the patients of both, one row a (metric, first, second): difference, low, high.

    low, high : interval of that confidence, BCa over patients; with `cases` (case, seed, fold) of several seeds, over
    both.
    A last row a model has metric `recall-precision`, its recall minus its precision.
    """
    seeds = [] if cases is None else by_seed(found, cases)
    models = models_of(found)
    asked = [(metric, (a, metric), (b, metric)) for metric in metrics for a, b in combinations(models, 2)]
    asked += [("recall-precision", (model, "recall"), (model, "precision")) for model in models]
    rows = []
    for name, first, second in asked:
        both = np.intersect1d(_having(found, *first), _having(found, *second))
        if len(both):
            value, low, high = with_interval(_gap(found, first, second), both, confidence)
            of_seeds = np.array([_gap(part, first, second)(np.arange(len(patients_of(part)))) for part in seeds])
            rows.append((name, first[0], second[0], value, *over_runs(value, low, high, of_seeds, confidence)))
    return pd.DataFrame(rows, columns=["metric", "first", "second", "difference", "low", "high"])


def by_seed(found: Evaluation, cases: pd.DataFrame) -> list[Evaluation]:
    """An evaluation in parts, one a seed with all its folds: what its networks predicted. cases : case, seed, fold."""
    tested = cases[cases["case"].isin(found.pixels["case"])]
    return [found.of_cases(tested.loc[tested["seed"] == seed, "case"]) for seed in whole_seeds(tested)]


def _gap(found: Evaluation, first: tuple[str, str], second: tuple[str, str]) -> Statistic:
    one, other = statistic(found, *first), statistic(found, *second)
    return lambda rows: one(rows) - other(rows)


def per_patient(found: Evaluation, metric: str = "f1") -> pd.DataFrame:
    """patients x models: mean over the levels of a patient, for paired tests."""
    return pd.DataFrame({model: by_patient(found, model, metric).mean(axis=1) for model in models_of(found)})


def by_run(found: Evaluation, cases: pd.DataFrame, metric: str = "f1") -> pd.DataFrame:
    """A metric of each run, as in Table II, one row a (model, seed, fold): value, n patients.

    cases : of the cohort, with the seed and fold of the run that tested them.
    """
    rows = _of_runs(found, cases, metric)
    of_patients = rows.groupby(["model", "seed", "fold", "patient", "level"], sort=False)["value"].mean()
    wide = of_patients.unstack("level").groupby(["model", "seed", "fold"], sort=False)
    table = wide.apply(lambda part: pd.Series({"value": macro(part.to_numpy()), "n": len(part)})).reset_index()
    return table.astype({"n": int})


def variance_of_runs(found: Evaluation, cases: pd.DataFrame, metric: str = "f1") -> pd.DataFrame:
    """Where the spread over patients and runs comes from, of each model and of the gap between each two.

    One row a (what, part) : variance and share, as from `statistics.variance_parts` on the mean over the levels of each
    patient in each run; what : a model, or `unet - hrnet`. Without a second run there is none.
    """
    rows = _of_runs(found, cases, metric)
    wide = rows.groupby(["seed", "fold", "patient", "model"])["value"].mean().unstack("model")
    if wide.index.droplevel("patient").nunique() < 2:
        return pd.DataFrame(columns=["what", "part", "variance", "share"])
    models = models_of(found)
    asked = {model: wide[model] for model in models}
    asked |= {f"{one} - {other}": wide[one] - wide[other] for one, other in combinations(models, 2)}
    parts = [variance_parts(values.rename("value").reset_index()).assign(what=what) for what, values in asked.items()]
    return pd.concat(parts, ignore_index=True)[["what", "part", "variance", "share"]]


def leads(runs: pd.DataFrame) -> pd.Series:
    """model -> in how many runs it has the highest value; runs : as from `by_run`."""
    best = runs.loc[runs.groupby(["seed", "fold"])["value"].idxmax(), "model"]
    return best.value_counts().reindex(list(dict.fromkeys(runs["model"])), fill_value=0)


def _of_runs(found: Evaluation, cases: pd.DataFrame, metric: str) -> pd.DataFrame:
    scores = found.scores[(found.scores["metric"] == metric) & (found.scores["level"] != WHOLE_IMAGE)]
    return scores.merge(cases[["case", "seed", "fold"]], on="case")


def by_group(found: Evaluation, cases: pd.DataFrame, metric: str = "f1") -> pd.DataFrame:
    """A metric in parts of the test set, one row a (kind, group, model): value, low, high, n patients.

    Kinds are level, contrast, spacing and finding, as far as they are known; cases : as of the cohort. A vertebra
    counts under each of its findings, one without any under `none`.
    """
    scores = found.scores[(found.scores["metric"] == metric) & (found.scores["level"] != WHOLE_IMAGE)]
    scores = scores.merge(_grouped(cases), on="case")
    tables = {kind: scores.assign(group=scores[kind]) for kind in ("level", "contrast", "spacing") if kind in scores}
    if "findings" in scores:
        texts = scores["findings"].fillna("").astype(str)
        tables["finding"] = scores.assign(group=list(map(_findings, texts, scores["level"]))).explode("group")
    rows = []
    for kind, table in tables.items():
        for (model, group), part in table.groupby(["model", "group"], sort=False):
            values = part.groupby(["patient", "level"])["value"].mean().unstack("level").to_numpy()
            found_here = with_interval(partial(_macro_of, values), np.arange(len(values)))
            rows.append((kind, group, model, *found_here, len(values)))
    return pd.DataFrame(rows, columns=["kind", "group", "model", "value", "low", "high", "n"])


def _grouped(cases: pd.DataFrame) -> pd.DataFrame:
    """case, and what is known of it: contrast, spacing (mm, in thirds where there are many), findings."""
    known = cases[["case", *(name for name in ("contrast", "findings") if name in cases)]].copy()
    if "contrast" in known:
        known["contrast"] = known["contrast"].fillna("unknown")
    spacing = cases["spacing_mm"].round(2)
    if spacing.nunique(dropna=False) < 2:
        return known
    if spacing.nunique() > 6:
        thirds = pd.qcut(spacing, 3, duplicates="drop").astype(object)
        named = thirds.map(lambda part: f"{part.left:.2f} to {part.right:.2f} mm", na_action="ignore")
    else:
        named = spacing.map("{:.2f} mm".format, na_action="ignore")
    return known.assign(spacing=named.astype(object).where(spacing.notna(), "unknown"))


def _findings(text: str, level: str) -> list[str]:
    """What is found at a vertebra, `none` if nothing is: of "wedge L2; spur L4; fracture" wedge and fracture at L2.

    A finding that names no level is of every vertebra of its image.
    """
    parts = [LEVELLED.fullmatch(part.strip()) for part in re.split("[;\n]", text)]
    return list(dict.fromkeys(part["name"] for part in parts if part and part["level"] in (None, level))) or ["none"]
