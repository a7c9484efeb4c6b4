"""What scores of a few patients can tell: intervals, paired tests, ranks, and where the spread comes from.

Patients are the unit. A patient is drawn, or has the sign of a difference flipped, with all slices and levels; whoever
has several images is averaged before. Higher is better: negate a distance first.
"""

import itertools
import math
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from scipy import linalg, stats

PERMUTATIONS = 9999  # sign flips drawn; up to 13 patients (2**13 = 8192) all of them are counted
PIECE = 200_000  # patients drawn at a time over all resamples, so that memory stays bounded
ALPHA, POWER = 0.05, 0.8
FEWEST_SEEDS = 3  # to say anything of architectures, and not of the networks that one training each has left
FEWEST = 10  # patients to decide anything on; of fewer, intervals miss the truth: tests/benchmarks/coverage.py
PARTS = ("patient", "seed", "fold", "residual")


def macro(values: np.ndarray) -> np.ndarray:
    """Mean over levels of the mean over patients, as in Table II: (..., patients, levels) to (...).

    nan : the patient has no such level. A level that no patient has is left out; nan if none is left.
    """
    seen = ~np.isnan(values)
    total, patients = (np.einsum("...pl->...l", each) for each in (np.where(seen, values, 0.0), seen.astype(float)))
    means = total / np.maximum(patients, 1)  # by einsum, four times as fast as sum over this axis
    levels = (patients > 0).sum(-1)
    return np.where(levels > 0, means.sum(-1) / np.maximum(levels, 1), np.nan)


def interval(
    statistic: Callable[[np.ndarray], np.ndarray], patients: int,
    confidence: float = 0.95, resamples: int = 2000, seed: int = 0,
) -> tuple[float, float]:  # fmt: skip
    """BCa bootstrap interval (low, high) of a statistic over patients, expanded for few of them.

    statistic : integer rows (..., n) of the patients drawn, each in [0, patients) -> values (...); defined on every
        draw, so leave out patients without a value first.
    (nan, nan) below three patients. Where the correction is undefined (every resample the same, or all on one side of
    the value) the percentiles of the resamples stand, without it.
    Expanded: resamples spread by sqrt((n - 1) / n) too little, and percentiles know no t distribution; the confidence
    asked of BCa is raised until an even sample gets the width of its t interval. Failures that no patient showed are
    in no interval: tests/benchmarks/coverage.py says how often it holds the truth.
    Sources: Efron 1987, doi 10.1080/01621459.1987.10478410; Hesterberg 2014, arXiv 1411.5279.
    """
    if patients < 3:
        return float("nan"), float("nan")
    width = stats.t.ppf((1 + confidence) / 2, patients - 1) * math.sqrt(patients / (patients - 1))
    expanded = float(2 * stats.norm.cdf(width) - 1)
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            (np.arange(patients),),
            lambda rows, axis: np.round(statistic(rows), 12),  # or rounding would decide which draws tie
            n_resamples=resamples, batch=max(1, PIECE // patients), confidence_level=expanded, method="BCa",
            rng=np.random.default_rng(seed),
        )  # fmt: skip
    low, high = found.confidence_interval
    if math.isnan(low) or math.isnan(high):
        low, high = np.quantile(found.bootstrap_distribution, [(1 - expanded) / 2, (1 + expanded) / 2])
    return float(low), float(high)


def with_interval(
    statistic: Callable[[np.ndarray], np.ndarray], rows: np.ndarray, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Value of a statistic (see `interval`) on patients, whose rows are given, and its interval: value, low, high."""
    return float(statistic(rows)), *interval(lambda drawn: statistic(rows[drawn]), len(rows), confidence)


def over_runs(value: float, low: float, high: float, runs: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """An interval over patients widened by the spread over trainings: low, high; unchanged for a single run.

    runs : the value of each run (runs,); a run is a seed with all its folds. The mean over runs has a t interval of its
    own, which is combined with the interval over patients as for two independent errors. Drawing runs again with
    replacement would be too narrow: of three there are but ten different draws.
    Source: Zou and Donner 2008, doi 10.1002/sim.3095.
    """
    if len(runs) < 2:
        return low, high
    half = stats.t.ppf((1 + confidence) / 2, len(runs) - 1) * np.std(runs, ddof=1) / math.sqrt(len(runs))
    return value - float(np.hypot(value - low, half)), value + float(np.hypot(high - value, half))


def whole_seeds(cases: pd.DataFrame) -> list[int]:
    """Seeds of as many folds as any other has: under the rest, some patients were not tested. cases : seed, fold."""
    folds = cases.groupby("seed")["fold"].nunique()
    return folds.index[folds == folds.max()].tolist()


def compare(scores: pd.DataFrame, confidence: float = 0.95, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Every pair of models on the patients that both have, one row a pair; `first` has the higher mean.

    scores : one row a patient, one column a model; nan where there is no score.
    n : patients. difference : mean of first - second, with its BCa interval low, high.
    p_wilcoxon, p_permutation : two-sided, of Wilcoxon's signed ranks and of the mean under flipped signs; *_holm :
        the same after Holm's correction over all pairs.
    effect : matched-pairs rank-biserial correlation in [-1, 1]; dz : difference / its standard deviation over patients.
    patients_needed : by a paired t test, see `patients_needed`.

    n patients bring no p below 2 / 2**n: five stop at 0.0625 and can never decide at 0.05; three pairs, corrected, need
    seven. A large p from few patients says that they are few, not that the models are equal.
    """
    from statsmodels.stats.multitest import multipletests

    pairs = [_pair(scores, *pair, confidence, resamples, seed) for pair in itertools.combinations(scores.columns, 2)]
    if not pairs:
        raise ValueError(f"a comparison takes two models or more, got {list(scores.columns)}; add a column of scores")
    table = pd.DataFrame(pairs)
    for test in ("p_wilcoxon", "p_permutation"):
        corrected = multipletests(table[test], method="holm")[1]
        table.insert(table.columns.get_loc(test) + 1, f"{test}_holm", corrected)
    return table


def _pair(scores: pd.DataFrame, first: str, second: str, confidence: float, resamples: int, seed: int) -> dict:
    both = scores[[first, second]].dropna()
    if both.empty:
        raise ValueError(f"no patient has a score of both {first} and {second}; score them on the same patients")
    gain = (both[first] - both[second]).to_numpy().round(12)  # 0.3 - 0.2 and 0.2 - 0.1 are one rank
    if gain.mean() < 0:
        first, second, gain = second, first, -gain
    low, high = interval(lambda rows: gain[rows].mean(-1), len(gain), confidence, resamples, seed)
    dz = standardised(gain)
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
    return float(stats.wilcoxon(moved).pvalue) if moved.size else 1.0


def permutation(gain: np.ndarray, seed: int = 0) -> float:
    """Two-sided p of the mean of paired differences (patients,) under flipped signs; 1 if all are 0.

    Exact up to 13 patients; beyond from 9999 flips drawn, and then never below 0.0002.
    """
    if gain.size < 2:  # SciPy refuses one patient, whose sign either way is as extreme
        return 1.0
    test = stats.permutation_test(
        (gain,), np.mean, permutation_type="samples", n_resamples=PERMUTATIONS, batch=max(1, PIECE // gain.size),
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(test.pvalue)


def rank_biserial(gain: np.ndarray) -> float:
    """Share of the ranks of paired differences (patients,) that are gains less that of losses, in [-1, 1]; 0 if all 0.

    Differences of 0 are left out. Source: Kerby 2014, doi 10.2466/11.IT.3.1.
    """
    moved = gain[gain != 0]
    ranks = stats.rankdata(abs(moved))
    return float((ranks * np.sign(moved)).sum() / ranks.sum()) if moved.size else 0.0


def standardised(gain: np.ndarray) -> float:
    """Cohen's dz: mean of paired differences (patients,) in standard deviations; nan below two patients, 0 if all 0.

    inf, with the mean's sign, where all are the same and not 0.
    """
    if gain.size < 2:
        return float("nan")
    if np.ptp(gain) == 0:
        return math.copysign(math.inf, gain[0]) if gain[0] else 0.0
    return float(gain.mean() / gain.std(ddof=1))


def patients_needed(dz: float) -> float:
    """Fewest patients with which a paired two-sided t test at 0.05 finds a difference dz in four of five studies.

    dz : Cohen's, of either sign. inf at 0, two at least, nan of nan. From few patients dz is rough, and so is this: it
    says what it would take were the difference and spread just as measured.
    """
    from statsmodels.stats.power import TTestPower

    if not 0 < abs(dz) < math.inf:
        return math.nan if math.isnan(dz) else 2.0 if dz else math.inf
    normal = (stats.norm.ppf(1 - ALPHA / 2) + stats.norm.ppf(POWER)) / abs(dz)
    patients = max(2.0, float(np.ceil(normal**2)))  # never too many, and beyond a million as good as exact
    while patients < 1e6 and TTestPower().power(abs(dz), patients, ALPHA / 2, alternative="larger") < POWER:
        patients += 1
    return patients


def ranks(scores: pd.DataFrame, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Probability in [0, 1], over patients drawn again, that a model has a rank by its mean: models x ranks 1, 2, ...

    scores : one row a patient, one column a model; patients that lack a model are left out. Models that tie share
    their ranks equally. Rows and columns sum to 1.
    """
    whole = scores.dropna().to_numpy()
    if not len(whole):
        raise ValueError(f"no patient has a score of each of {list(scores.columns)}; score them on the same patients")
    times = np.random.default_rng(seed).multinomial(len(whole), np.full(len(whole), 1 / len(whole)), size=resamples)
    means = (times @ whole / len(whole)).round(12)  # or rounding would part what ties
    above = (means[:, None, :] > means[:, :, None]).sum(-1)[..., None]
    level = (means[:, None, :] == means[:, :, None]).sum(-1)[..., None]
    rank = np.arange(scores.shape[1])
    share = ((rank >= above) & (rank < above + level)) / level
    return pd.DataFrame(share.mean(0), index=scores.columns, columns=pd.Index(rank + 1, name="rank"))


def doubt(scores: pd.DataFrame, winner: str, resamples: int = 2000, seed: int = 0) -> float:
    """Probability in [0, 1], over patients drawn again, that `winner` does not have the highest mean.

    scores : as for `ranks`; a tie for the first place is shared. Of the patients alone: another seed is not in it.
    """
    if winner not in scores:
        raise ValueError(f"no scores of {winner!r}; the winner is one of {list(scores.columns)}")
    return float(1 - ranks(scores, resamples, seed).loc[winner, 1])


def variance_parts(table: pd.DataFrame) -> pd.DataFrame:
    """Where the spread of a score comes from, one row a part (patient, seed, fold, residual): variance and share.

    table : value, patient, seed, fold. Patients meet every seed; a fold is of its seed, which deals patients anew.
        `fold` holds what differs from one trained network of a seed to the next, its other training set above all.
    Value = mean + patient + seed + fold + residual, each random. The squares that a fit of some parts leaves are, on
    average, known amounts of the variances: one equation a fit. So they come out unbiased, on unequal groups too, but
    for those below 0, which become 0. Few seeds tell little of seeds.
    A part that cannot be told is nan and counted in another: with one fold, fold in seed; with one seed, patient in
    residual, and seed nowhere. Source: method 3 of Henderson 1953, doi 10.2307/3001853.
    """
    amounts, squares = np.empty((0, len(PARTS))), np.empty(0)
    for amount, square in _leftovers(table[["value", "patient", "seed", "fold"]].dropna()):
        if np.linalg.matrix_rank(np.vstack([amounts, amount])) > len(amounts):  # or it says nothing new
            amounts, squares = np.vstack([amounts, amount]), np.append(squares, square)
    told = []
    for part in (3, 1, 0, 2) if len(amounts) else ():  # what comes later gives way
        if np.linalg.matrix_rank(amounts[:, [*told, part]]) > len(told):
            told.append(part)
    variance = np.full(len(PARTS), np.nan)
    variance[told] = np.maximum(np.linalg.solve(amounts[:, told], squares), 0)
    parts = pd.DataFrame({"part": PARTS, "variance": variance})
    return parts.assign(share=parts["variance"] / parts["variance"].sum())


def _leftovers(rows: pd.DataFrame) -> Iterator[tuple[np.ndarray, float]]:
    """What fits leave, the fullest fit first: amounts of the variances of PARTS (4,), and squares of the value."""
    patient, *codes = (rows.groupby(keys).ngroup().to_numpy() for keys in (["patient"], ["seed"], ["seed", "fold"]))
    seed, fold = (np.eye(code.max() + 1)[code] for code in codes)
    value = (rows["value"] - rows["value"].mean()).to_numpy()[:, None]
    for design, and_patients in itertools.product((fold, seed, np.ones_like(value)), (True, False)):
        block = np.hstack([value, seed, fold])
        if and_patients:
            block, design = (each - _by_patient(each, patient, "mean")[patient] for each in (block, design))
        basis = linalg.orth(design)
        left = ((block - basis @ (basis.T @ block)) ** 2).sum(0)
        of_seed, of_fold = left[1 : 1 + seed.shape[1]].sum(), left[1 + seed.shape[1] :].sum()
        of_patient = 0 if and_patients else len(rows) - (_by_patient(basis, patient, "sum") ** 2).sum()
        of_residual = len(rows) - basis.shape[1] - and_patients * (patient.max() + 1)
        yield np.round([of_patient, of_seed, of_fold, of_residual], 6), left[0]  # or rounding would pass for an amount


def _by_patient(block: np.ndarray, patient: np.ndarray, how: str) -> np.ndarray:
    return pd.DataFrame(block).groupby(patient).agg(how).to_numpy()
