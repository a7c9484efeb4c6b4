"""How often a nominal 95 % interval holds the truth, on simulated test sets whose truth is known.

    python tests/benchmarks/coverage.py FOLDER [REPETITIONS]

FOLDER is made and gets `coverage.csv`; 2000 repetitions, the default, take five to seven minutes
on one core.

A simulated patient has six levels, each with a Dice from a skewed beta distribution; how hard a patient is, the levels
and the two models share. A share of the patients fails whole, at a Dice near 0, as when every name is shifted by one;
L1 and S1 are missing in some. Three numbers of a table get their interval: the macro mean of a model, its mean at
one level, and the mean paired difference of the models. `expanded` is `lumbar_utils.scores.statistics.interval`;
beside it stand plain BCa, the percentiles, and the t interval about the value by the jackknife's standard error.
Where one patient in fifty fails, a fifth of all test sets of 77 hold no failure (0.98**77), and no interval made of
them can know of any: its coverage there is a limit of the data, not of the method.
"""

import itertools
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import special, stats

from lumbar_utils.scores.statistics import interval, macro_average

SHAPES = np.array([  # (models, levels, 2): of beta distributions with means from 0.86 to 0.94
    [(12, 1.6), (18, 1.6), (20, 1.4), (20, 1.4), (18, 1.6), (10, 1.6)],
    [(11, 1.6), (16, 1.6), (18, 1.4), (18, 1.4), (16, 1.6), (9, 1.6)],
])  # fmt: skip
MISSING = np.array([0.1, 0, 0, 0, 0, 0.3])
GRID = np.linspace(0, 1, 2001)
QUANTILES = stats.beta.ppf(GRID, SHAPES[..., :1], SHAPES[..., 1:])  # (models, levels, grid)
FAILED = (1, 30)  # beta distribution of a failure, of mean 1 / 31
PATIENTS, FAILURES, RESAMPLES = (5, 10, 20, 30, 77), (0.0, 0.02, 0.2), 999
NUMBERS, METHODS = ("macro mean", "one level", "difference"), ("expanded", "bca", "percentile", "t")


def cohort(rng: np.random.Generator, patients: int, failures: float) -> np.ndarray:
    """(2, patients, 6) Dice of two models, nan where a patient has no such level."""
    patient, model, level = (rng.normal(size=shape) for shape in ((patients, 1), (2, patients, 1), (2, patients, 6)))
    place = special.ndtr(np.sqrt(0.4) * patient + np.sqrt(0.2) * model + np.sqrt(0.4) * level)
    dice = np.empty(place.shape)
    for which in np.ndindex(2, 6):
        dice[which[0], :, which[1]] = np.interp(place[which[0], :, which[1]], GRID, QUANTILES[which])
    dice = np.where(rng.random((2, patients, 1)) < failures, rng.beta(*FAILED, size=dice.shape), dice)
    return np.where(rng.random((patients, 6)) < MISSING, np.nan, dice)


def truths(failures: float) -> dict[str, float]:
    """The three numbers of the population that `cohort` draws from."""
    means = (1 - failures) * np.trapezoid(QUANTILES, GRID) + failures * FAILED[0] / sum(FAILED)
    gap, difference = means[0] - means[1], 0.0
    for missing in itertools.product((False, True), repeat=6):
        chance = np.where(missing, MISSING, 1 - MISSING).prod()
        difference += chance * gap[~np.array(missing)].mean() if chance else 0.0
    return dict(zip(NUMBERS, (means[0].mean(), means[0, 2], difference), strict=True))


def columns(dice: np.ndarray) -> dict[str, np.ndarray]:
    """The values (patients, levels) whose macro mean is each of the three numbers."""
    scores = np.nanmean(dice, axis=2)
    return dict(zip(NUMBERS, (dice[0], dice[0, :, 2:3], (scores[0] - scores[1])[:, None]), strict=True))


def intervals(values: np.ndarray, seed: int) -> dict[str, tuple[float, float]]:
    """Interval of the macro mean by each method."""
    patients = len(values)
    drawn, rng = (np.arange(patients),), np.random.default_rng(seed)
    statistic = {"statistic": lambda rows, axis: macro_average(values[rows]), "rng": rng}
    plain = stats.bootstrap(drawn, n_resamples=RESAMPLES, method="BCa", **statistic)
    simple = stats.bootstrap(drawn, n_resamples=0, method="percentile", bootstrap_result=plain, **statistic)
    without = macro_average(values[np.nonzero(~np.eye(patients, dtype=bool))[1].reshape(patients, -1)])
    error = np.sqrt((patients - 1) * without.var())
    return {
        "expanded": interval(lambda rows: macro_average(values[rows]), patients, resamples=RESAMPLES, seed=seed),
        "bca": plain.confidence_interval,
        "percentile": simple.confidence_interval,
        "t": macro_average(values) + error * stats.t.ppf([0.025, 0.975], patients - 1),
    }


def coverage(number: str, patients: int, failures: float, repetitions: int) -> list[dict]:
    """One row a method: share of the repetitions whose interval holds the truth, its standard error, mean width."""
    rng, truth = np.random.default_rng([patients, round(1000 * failures)]), truths(failures)[number]
    found = [intervals(columns(cohort(rng, patients, failures))[number], seed) for seed in range(repetitions)]
    rows = []
    for method in METHODS:
        low, high = np.array([each[method] for each in found]).T
        held = ((low <= truth) & (truth <= high)).mean()
        rows.append({
            "number": number, "failures": failures, "patients": patients, "method": method, "coverage": held,
            "error": np.sqrt(held * (1 - held) / repetitions), "too_low": (high < truth).mean(),
            "too_high": (low > truth).mean(), "width": (high - low).mean(),
        })  # fmt: skip
    return rows


def main(folder: Path, repetitions: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for case in itertools.product(NUMBERS, PATIENTS, FAILURES):
        rows += coverage(*case, repetitions)
        pd.DataFrame(rows).to_csv(folder / "coverage.csv", index=False)
    table = pd.DataFrame(rows)
    shown = table.pivot(index=["number", "failures", "patients"], columns="method", values=["coverage", "width"])
    print(shown.round(3).to_string())
    print(f"\n{repetitions} repetitions, {RESAMPLES} resamples, standard errors up to {table['error'].max():.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2000)
