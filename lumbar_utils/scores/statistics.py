"""Statistics over patients: bootstrap intervals, paired tests, ranks, power and variance components.

Patients are the unit: they are resampled, or have the sign of a difference flipped, with all their slices and levels;
several images of a patient are averaged before. Higher is better: negate a distance first.
"""

import itertools
import math
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import scipy  # loads its parts where they are used: `stats` takes a second

PERMUTATIONS = 9999  # random sign flips; up to 13 patients (2**13 = 8192) all flips are counted
BATCH = 200_000  # patients drawn at once, over all resamples of a batch: it bounds memory
ALPHA, POWER = 0.05, 0.8
MIN_SEEDS = 3  # to compare architectures, and not the networks of single trainings
MIN_PATIENTS = 10  # below it intervals miss the truth too often: tests/benchmarks/coverage.py
COMPONENTS = ("patient", "seed", "fold", "residual")


def macro_average(values: np.ndarray) -> np.ndarray:
    """Mean over levels of the mean over patients: (..., patients, levels) -> (...).

    nan : the patient has no such level. A level that no patient has is left out; nan if no level is left.
    """
    present = ~np.isnan(values)
    total = np.einsum("...pl->...l", np.where(present, values, 0.0))  # four times as fast as sum over this axis
    patients = np.einsum("...pl->...l", present.astype(float))
    means = total / np.maximum(patients, 1)
    levels = (patients > 0).sum(-1)
    return np.where(levels > 0, means.sum(-1) / np.maximum(levels, 1), np.nan)


def interval(
    statistic: Callable[[np.ndarray], np.ndarray], patients: int,
    confidence: float = 0.95, resamples: int = 2000, seed: int = 0,
) -> tuple[float, float]:  # fmt: skip
    """BCa bootstrap interval (low, high) of a statistic over patients, expanded for small samples.

    statistic : integer rows (..., n) of the patients drawn, each in [0, patients) -> values (...). It must be defined
        for every draw, so leave out patients without a value first.
    (nan, nan) below three patients. Where BCa is undefined (all resamples equal, or all on one side of the value), the
    percentile interval is returned.
    Expanded: resamples spread by sqrt((n - 1) / n) too little, and percentiles ignore the t distribution; so BCa's
    confidence is raised until a symmetric sample gets the width of its t interval. A failure that no patient shows is
    in no interval; coverage is measured in tests/benchmarks/coverage.py.
    Sources: Efron 1987, doi 10.1080/01621459.1987.10478410; Hesterberg 2014, arXiv 1411.5279.
    """
    if patients < 3:
        return float("nan"), float("nan")
    width = scipy.stats.t.ppf((1 + confidence) / 2, patients - 1) * math.sqrt(patients / (patients - 1))
    expanded = float(2 * scipy.stats.norm.cdf(width) - 1)
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)
        bootstrap = scipy.stats.bootstrap(
            (np.arange(patients),),
            lambda rows, axis: np.round(statistic(rows), 12),  # equal values must tie despite rounding errors
            n_resamples=resamples, batch=max(1, BATCH // patients), confidence_level=expanded, method="BCa",
            rng=np.random.default_rng(seed),
        )  # fmt: skip
    low, high = bootstrap.confidence_interval
    if math.isnan(low) or math.isnan(high):
        low, high = np.quantile(bootstrap.bootstrap_distribution, [(1 - expanded) / 2, (1 + expanded) / 2])
    return float(low), float(high)


def with_interval(
    statistic: Callable[[np.ndarray], np.ndarray], rows: np.ndarray, confidence: float = 0.95
) -> tuple[float, float, float]:
    """value, low, high : a statistic (see `interval`) of the patients in `rows`, and its interval."""
    return float(statistic(rows)), *interval(lambda drawn: statistic(rows[drawn]), len(rows), confidence)


def interval_over_seeds(
    value: float, low: float, high: float, by_seed: np.ndarray, confidence: float = 0.95
) -> tuple[float, float]:
    """(low, high) : an interval over patients, widened by the spread over trainings; unchanged for a single seed.

    by_seed : (seeds,) the value of each seed, over all its folds. The t interval of the mean over seeds is combined
    with the interval over patients as for two independent errors. A bootstrap over seeds would be too narrow: three
    seeds have only ten different resamples.
    Source: Zou and Donner 2008, doi 10.1002/sim.3095.
    """
    if len(by_seed) < 2:
        return low, high
    half = scipy.stats.t.ppf((1 + confidence) / 2, len(by_seed) - 1) * np.std(by_seed, ddof=1) / math.sqrt(len(by_seed))
    return value - float(np.hypot(value - low, half)), value + float(np.hypot(high - value, half))


def complete_seeds(cases: pd.DataFrame) -> list[int]:
    """The seeds with the most folds; under the others some patients were not tested. cases : seed, fold."""
    folds = cases.groupby("seed")["fold"].nunique()
    return folds.index[folds == folds.max()].tolist()


def compare(scores: pd.DataFrame, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Paired tests of every two models on the patients of both, one row per pair; `first` has the higher mean.

    scores : one row per patient, one column per model; nan where there is no score. F1 here is a patient's mean over
        its levels (`summary.per_patient`), so its mean differs from Table II's, which averages level by level.
    n : patients. difference : mean of first - second, with its BCa interval low, high.
    p_wilcoxon, p_permutation : two-sided p of Wilcoxon's signed-rank test and of a sign-flip permutation test of the
        mean; *_holm : after Holm's correction over all pairs.
    effect : matched-pairs rank-biserial correlation in [-1, 1]. dz : difference / its standard deviation over patients.
    patients_needed : see `patients_needed`.

    With n patients no p is below 2 / 2**n: five patients give 0.0625 at best, and three pairs after Holm's correction
    need seven patients for p < 0.05. A large p of a few patients does not mean that the models are equal.
    """
    from statsmodels.stats.multitest import multipletests

    rows = []
    for first, second in itertools.combinations(scores.columns, 2):
        rows.append(_compare_pair(scores, first, second, resamples, seed))
    if not rows:
        raise ValueError(f"a comparison takes two models or more, got {list(scores.columns)}; add a column of scores")
    table = pd.DataFrame(rows)
    for test in ("p_wilcoxon", "p_permutation"):
        corrected = multipletests(table[test], method="holm")[1]
        table.insert(table.columns.get_loc(test) + 1, f"{test}_holm", corrected)
    return table


def _compare_pair(scores: pd.DataFrame, first: str, second: str, resamples: int, seed: int) -> dict:
    both = scores[[first, second]].dropna()
    if both.empty:
        raise ValueError(f"no patient has a score of both {first} and {second}; score them on the same patients")
    gain = (both[first] - both[second]).to_numpy().round(12)  # 0.3 - 0.2 and 0.2 - 0.1 must tie
    if gain.mean() < 0:
        first, second, gain = second, first, -gain
    low, high = interval(lambda rows: gain[rows].mean(-1), len(gain), resamples=resamples, seed=seed)
    dz = cohens_dz(gain)
    return {
        "first": first, "second": second, "n": len(gain), "difference": gain.mean(), "low": low, "high": high,
        "p_wilcoxon": wilcoxon(gain), "p_permutation": permutation(gain, seed),
        "effect": rank_biserial(gain), "dz": dz, "patients_needed": patients_needed(dz),
    }  # fmt: skip


def wilcoxon(gain: np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test of paired differences (patients,); 1 if all are 0.

    Differences of 0 are left out. Exact up to 50 patients without ties and 13 with; normal approximation beyond.
    """
    moved = gain[gain != 0]
    return float(scipy.stats.wilcoxon(moved).pvalue) if moved.size else 1.0


def permutation(gain: np.ndarray, seed: int = 0) -> float:
    """Two-sided p of the mean of paired differences (patients,) under random sign flips; 1 if all are 0.

    Exact up to 13 patients; above from 9999 random flips, and then at least 0.0002.
    """
    if gain.size < 2:  # SciPy refuses one patient, for whom both signs are equally extreme
        return 1.0
    test = scipy.stats.permutation_test(
        (gain,), np.mean, permutation_type="samples", n_resamples=PERMUTATIONS, batch=max(1, BATCH // gain.size),
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(test.pvalue)


def rank_biserial(gain: np.ndarray) -> float:
    """Rank-biserial correlation of paired differences (patients,): (rank sum of gains - of losses) / total; 0 if all 0.

    In [-1, 1]. Differences of 0 are left out. Source: Kerby 2014, doi 10.2466/11.IT.3.1.
    """
    moved = gain[gain != 0]
    ranks = scipy.stats.rankdata(abs(moved))
    return float((ranks * np.sign(moved)).sum() / ranks.sum()) if moved.size else 0.0


def cohens_dz(gain: np.ndarray) -> float:
    """Mean of paired differences (patients,) / their standard deviation; nan below two patients, 0 if all are 0.

    inf, with the mean's sign, where all are equal and not 0.
    """
    if gain.size < 2:
        return float("nan")
    if np.ptp(gain) == 0:
        return math.copysign(math.inf, gain[0]) if gain[0] else 0.0
    return float(gain.mean() / gain.std(ddof=1))


def patients_needed(dz: float) -> float:
    """Smallest sample with which a paired two-sided t test at 0.05 detects Cohen's dz with a power of 0.8.

    dz : of either sign. inf at 0, at least two, nan for nan. It assumes that the difference and its spread are exactly
    as measured, so from a few patients it is a rough guess.
    """
    from statsmodels.stats.power import TTestPower

    if not 0 < abs(dz) < math.inf:
        return math.nan if math.isnan(dz) else 2.0 if dz else math.inf
    normal = (scipy.stats.norm.ppf(1 - ALPHA / 2) + scipy.stats.norm.ppf(POWER)) / abs(dz)
    patients = max(2.0, float(np.ceil(normal**2)))  # a lower bound, and beyond a million as good as exact
    while patients < 1e6 and TTestPower().power(abs(dz), patients, ALPHA / 2, alternative="larger") < POWER:
        patients += 1
    return patients


def ranks(scores: pd.DataFrame, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Probability in [0, 1], over resampled patients, of each rank of each model's mean: models x ranks 1, 2, ...

    scores : one row per patient, one column per model; a patient without a score of every model is left out. Models
    that tie share their ranks equally. Rows and columns sum to 1.
    """
    complete = scores.dropna().to_numpy()
    patients = len(complete)
    if not patients:
        raise ValueError(f"no patient has a score of each of {list(scores.columns)}; score them on the same patients")
    counts = np.random.default_rng(seed).multinomial(patients, np.full(patients, 1 / patients), size=resamples)
    means = (counts @ complete / patients).round(12)  # equal means must tie despite rounding errors
    better = (means[:, None, :] > means[:, :, None]).sum(-1)[..., None]
    tied = (means[:, None, :] == means[:, :, None]).sum(-1)[..., None]
    rank = np.arange(scores.shape[1])
    share = ((rank >= better) & (rank < better + tied)) / tied
    return pd.DataFrame(share.mean(0), index=scores.columns, columns=pd.Index(rank + 1, name="rank"))


def probability_not_best(scores: pd.DataFrame, winner: str, resamples: int = 2000, seed: int = 0) -> float:
    """Probability in [0, 1], over resampled patients, that `winner` does not have the highest mean.

    scores : as for `ranks`; a tie for the first place is shared. It leaves out the variation between trainings.
    """
    return float(1 - ranks(scores, resamples, seed).loc[winner, 1])


def variance_components(table: pd.DataFrame) -> pd.DataFrame:
    """Variance of a score by its sources, one row per part (patient, seed, fold, residual): variance and share.

    table : value, patient, seed, fold. Every patient is tested under every seed; folds are nested in seeds. `fold` is
        what differs between the networks of one seed, above all the training set.
    Model: value = mean + patient + seed + fold + residual, all random. The residual sum of squares of a fit with some
    of these is, in expectation, a known combination of the variances, so a few fits give a linear system. Estimates
    are unbiased, on unequal groups too, except that negative ones become 0. A few seeds give a rough estimate.
    A component that cannot be separated is nan and included in another: with one fold, fold in seed; with one seed,
    patient in residual, and seed in none. Source: method 3 of Henderson 1953, doi 10.2307/3001853.
    """
    coefficients, squares = np.empty((0, len(COMPONENTS))), np.empty(0)
    for equation, square in _residual_equations(table[["value", "patient", "seed", "fold"]].dropna()):
        extended = np.vstack([coefficients, equation])
        if np.linalg.matrix_rank(extended) > len(coefficients):  # linearly independent
            coefficients, squares = extended, np.append(squares, square)
    estimable = []
    if len(coefficients):
        for component in (3, 1, 0, 2):  # where two cannot be separated, the earlier one stays
            if np.linalg.matrix_rank(coefficients[:, [*estimable, component]]) > len(estimable):
                estimable.append(component)
    variance = np.full(len(COMPONENTS), np.nan)
    variance[estimable] = np.maximum(np.linalg.solve(coefficients[:, estimable], squares), 0)
    parts = pd.DataFrame({"part": COMPONENTS, "variance": variance})
    return parts.assign(share=parts["variance"] / parts["variance"].sum())


def _residual_equations(rows: pd.DataFrame) -> Iterator[tuple[np.ndarray, float]]:
    """Coefficients (4,) of the variances of COMPONENTS and residual sum of squares of each fit, the fullest first."""
    patient = rows.groupby("patient").ngroup().to_numpy()
    seed, fold = _indicators(rows, ["seed"]), _indicators(rows, ["seed", "fold"])
    value = (rows["value"] - rows["value"].mean()).to_numpy()[:, None]
    for design, with_patients in itertools.product((fold, seed, np.ones_like(value)), (True, False)):
        block = np.hstack([value, seed, fold])
        if with_patients:
            block = block - _by_patient(block, patient, "mean")[patient]
            design = design - _by_patient(design, patient, "mean")[patient]
        basis = scipy.linalg.orth(design)
        squares = ((block - basis @ (basis.T @ block)) ** 2).sum(0)
        of_seed, of_fold = squares[1 : 1 + seed.shape[1]].sum(), squares[1 + seed.shape[1] :].sum()
        of_patient = 0 if with_patients else len(rows) - (_by_patient(basis, patient, "sum") ** 2).sum()
        of_residual = len(rows) - basis.shape[1] - with_patients * (patient.max() + 1)
        equation = np.round([of_patient, of_seed, of_fold, of_residual], 6)  # rounding errors are no coefficients
        yield equation, squares[0]


def _indicators(rows: pd.DataFrame, keys: list[str]) -> np.ndarray:
    """(rows, groups) 1 where a row is of a group, else 0."""
    groups = rows.groupby(keys).ngroup().to_numpy()
    return np.eye(groups.max() + 1)[groups]


def _by_patient(block: np.ndarray, patient: np.ndarray, how: str) -> np.ndarray:
    return pd.DataFrame(block).groupby(patient).agg(how).to_numpy()
