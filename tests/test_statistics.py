"""Every number against a count by hand, a published value, or an independent computation."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from benchmarks import coverage
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from lumbar_utils.scores import statistics

DICE = np.array([58, 61, 56, 62, 57, 46, 59, 63, 6, 60]) / 64  # one failure; sums without rounding
GAINS = arrays(float, st.integers(2, 7), elements=st.integers(-20, 20).map(lambda step: step / 100))


def mean_of(values):
    return lambda rows: values[rows].mean(-1)


def table_of(**models):
    return pd.DataFrame(models)


# --- macro average


def test_macro_averages_patients_before_levels():
    values = np.array([[1.0, 0.9], [0.5, np.nan]])
    assert statistics.macro_average(values) == pytest.approx((0.75 + 0.9) / 2)


def test_macro_leaves_out_a_level_that_nobody_has():
    assert statistics.macro_average(np.array([[0.4, np.nan], [0.8, np.nan]])) == pytest.approx(0.6)


def test_macro_of_nothing_is_nan():
    assert math.isnan(statistics.macro_average(np.full((2, 2), np.nan)))


def test_macro_over_many_draws_is_the_macro_of_each():
    values = np.random.default_rng(0).random((7, 3))
    values[[0, 4], [1, 2]] = np.nan
    rows = np.random.default_rng(1).integers(7, size=(4, 5, 7))
    expected = [[np.nanmean(values[draw], axis=0).mean() for draw in draws] for draws in rows]
    assert statistics.macro_average(values[rows]) == pytest.approx(np.array(expected))


# --- interval


def test_interval_is_that_of_scipy_on_the_values_themselves():
    rng, confidence = np.random.default_rng(3), 1 - 2 * stats.norm.sf(stats.t.isf(0.025, 9) / 0.9**0.5)
    expected = stats.bootstrap(
        (DICE,), np.mean, n_resamples=500, method="BCa", confidence_level=confidence, rng=rng
    ).confidence_interval
    assert statistics.interval(mean_of(DICE), 10, resamples=500, seed=3) == pytest.approx(tuple(expected))


def test_interval_depends_on_its_seed_alone():
    first, again, other = (statistics.interval(mean_of(DICE), 10, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_interval_does_not_depend_on_the_size_of_a_batch(monkeypatch):
    whole = statistics.interval(mean_of(DICE), 10)
    monkeypatch.setattr(statistics, "BATCH", 70)
    assert statistics.interval(mean_of(DICE), 10) == pytest.approx(whole)


def test_interval_moves_and_stretches_with_its_values():
    low, high = statistics.interval(mean_of(DICE), 10)
    assert statistics.interval(mean_of(3 * DICE - 1), 10) == pytest.approx((3 * low - 1, 3 * high - 1))


def test_interval_reaches_further_towards_the_failures():
    low, high = statistics.interval(mean_of(DICE), 10)
    assert DICE.mean() - low > 1.5 * (high - DICE.mean())


def test_interval_of_even_values_is_as_wide_as_the_t_interval():
    values = np.arange(-10.0, 11.0)
    low, high = statistics.interval(mean_of(values), 21, resamples=20_000)
    expected = stats.t.interval(0.95, 20, values.mean(), values.std(ddof=1) / math.sqrt(21))
    assert (low, high) == pytest.approx(expected, abs=0.1)


def test_interval_of_few_patients_is_wider_than_plain_bca():
    low, high = stats.bootstrap((DICE[:5],), np.mean, method="BCa", rng=0).confidence_interval
    wider_low, wider_high = statistics.interval(mean_of(DICE[:5]), 5)
    assert wider_low < low < high < wider_high


def test_more_confidence_widens_an_interval():
    low, high = statistics.interval(mean_of(DICE), 10)
    wider_low, wider_high = statistics.interval(mean_of(DICE), 10, confidence=0.99)
    assert wider_low < low < high < wider_high


@pytest.mark.parametrize("value", [0.0, 0.1, 1.0])
def test_interval_of_equal_patients_is_their_value(value):
    assert statistics.interval(mean_of(np.full(7, value)), 7) == pytest.approx((value, value))


def test_interval_falls_back_on_percentiles_where_the_correction_is_undefined():
    def above(rows):
        return np.where(rows.shape[-1] == 5, 1 - 0.01 * (np.ptp(rows, -1) < 4), 1.0)

    drawn = above(np.random.default_rng(0).integers(5, size=(2000, 5)))
    assert statistics.interval(above, 5) == pytest.approx((drawn.min(), drawn.max()))


def test_more_confidence_than_three_patients_can_give_is_all_of_their_resamples():
    assert statistics.interval(mean_of(DICE[:3]), 3, confidence=0.9999) == (DICE[:3].min(), DICE[:3].max())


@pytest.mark.parametrize("failures", [0.0, 0.2])
def test_interval_holds_the_truth_in_95_of_100_test_sets(failures):
    rng, truth, held = np.random.default_rng(0), coverage.truths(failures)["macro mean"], []
    for seed in range(400):
        values = coverage.cohort(rng, 77, failures)[0]
        low, high = statistics.interval(
            lambda rows, v=values: statistics.macro_average(v[rows]), 77, resamples=999, seed=seed
        )
        held.append(low <= truth <= high)
    assert 0.93 <= np.mean(held) <= 0.97


def test_the_benchmark_of_coverage_writes_a_row_for_each_number_and_method(tmp_path):
    coverage.main(tmp_path, 2)
    table = pd.read_csv(tmp_path / "coverage.csv")
    assert len(table) == 3 * 3 * 5 * 4
    assert table["coverage"].between(0, 1).all()


@pytest.mark.parametrize("failures", [0.0, 0.2])
def test_the_truth_of_the_simulation_is_that_of_many_patients(failures):
    dice = coverage.cohort(np.random.default_rng(0), 100_000, failures)
    for name, values in coverage.columns(dice).items():
        error = np.nanstd(values, axis=0).max() / math.sqrt(70_000)  # S1 is there in seven of ten
        assert statistics.macro_average(values) == pytest.approx(coverage.truths(failures)[name], abs=3 * error)


@pytest.mark.parametrize("patients", [0, 1, 2])
def test_fewer_than_three_patients_have_no_interval(patients):
    assert np.isnan(statistics.interval(mean_of(DICE[:patients]), patients)).all()


# --- paired tests


@pytest.mark.parametrize(
    "gain, p",
    [
        pytest.param([1, 2, 3, 4, 5], 2 / 32, id="five of five"),
        pytest.param([-1, 2, 3, 4, 5], 4 / 32, id="all but the least"),
        pytest.param([1, 2, 3, -4, 5], 14 / 32, id="all but the fourth"),
        pytest.param([1, 2, 3, 4, 5, 6], 2 / 64, id="six of six"),
        pytest.param([0, 1, 2, 3, 4, 5], 2 / 32, id="a difference of 0 is left out"),
        pytest.param([2, 2, 2, 2, 2], 2 / 32, id="ties"),
        pytest.param([0, 0, 0], 1.0, id="no difference"),
        pytest.param([1], 1.0, id="one patient"),
    ],
)
def test_wilcoxon_matches_a_count_of_signs(gain, p):
    assert statistics.wilcoxon(np.array(gain, float)) == pytest.approx(p)


@pytest.mark.parametrize(
    "gain, p",
    [
        pytest.param([1, 2, 3, 4, 5], 2 / 32, id="five of five"),
        pytest.param([-1, 2, 3, 4, 5], 4 / 32, id="all but the least"),
        pytest.param([1, 1, 1, 1, -10], 1.0, id="one outlier"),
        pytest.param([0, 0, 0], 1.0, id="no difference"),
        pytest.param([1], 1.0, id="one patient"),
    ],
)
def test_permutation_matches_a_count_of_signs(gain, p):
    assert statistics.permutation(np.array(gain, float)) == pytest.approx(p)


def test_permutation_of_many_patients_is_near_the_t_test():
    gain = np.random.default_rng(2).normal(0.2, 1, 100)
    assert statistics.permutation(gain) == pytest.approx(stats.ttest_1samp(gain, 0).pvalue, abs=0.01)


def test_permutation_of_many_patients_is_never_0():
    assert statistics.permutation(np.ones(100)) == pytest.approx(2 / 10_000)


@pytest.mark.parametrize(
    "gain, expected",
    [
        pytest.param([1, 2, 3], 1.0, id="gains alone"),
        pytest.param([-1, -2], -1.0, id="losses alone"),
        pytest.param([-1, 2, 3], (2 + 3 - 1) / 6, id="the least is lost"),
        pytest.param([0, -5, 3], (1 - 2) / 3, id="0 is left out"),
        pytest.param([-2, 2], 0.0, id="a tie"),
        pytest.param([0, 0], 0.0, id="no difference"),
    ],
)
def test_rank_biserial_by_hand(gain, expected):
    assert statistics.rank_biserial(np.array(gain, float)) == pytest.approx(expected)


@pytest.mark.parametrize(
    "gain, expected",
    [
        pytest.param([1, 3], 2 / math.sqrt(2), id="mean 2, deviation root 2"),
        pytest.param([-1, 1], 0.0, id="even"),
        pytest.param([0, 0], 0.0, id="no difference"),
        pytest.param([-2, -2], -math.inf, id="the same everywhere"),
        pytest.param([1], math.nan, id="one patient"),
    ],
)
def test_dz_by_hand(gain, expected):
    assert statistics.cohens_dz(np.array(gain, float)) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    "dz, patients",
    [
        pytest.param(0.2, 199, id="small"),
        pytest.param(0.5, 34, id="medium"),
        pytest.param(-0.5, 34, id="of the other sign"),
        pytest.param(0.8, 15, id="large"),
        pytest.param(20, 2, id="huge"),
        pytest.param(0.001, 7848880, id="tiny"),
        pytest.param(0.0, math.inf, id="none"),
        pytest.param(math.inf, 2, id="the same everywhere"),
        pytest.param(math.nan, math.nan, id="unknown"),
    ],
)
def test_patients_needed_are_those_of_g_power(dz, patients):
    assert statistics.patients_needed(dz) == pytest.approx(patients, nan_ok=True)


@pytest.mark.parametrize("dz", [0.3, 1.0, 3.0])
def test_patients_needed_are_enough_and_one_fewer_is_not(dz):
    def power(n):  # of the noncentral t distribution, both tails
        edge = stats.t.ppf(0.975, n - 1)
        return stats.nct.sf(edge, n - 1, dz * math.sqrt(n)) + stats.nct.cdf(-edge, n - 1, dz * math.sqrt(n))

    n = statistics.patients_needed(dz)
    assert power(n) >= 0.8
    assert n == 2 or power(n - 1) < 0.8


# --- compare


def test_compare_names_the_better_first_and_corrects_over_all_pairs():
    base = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    step = np.array([0.01, 0.02, 0.03, 0.04, 0.05])
    table = statistics.compare(table_of(low=base, high=base + step, mid=base + step - [0.02, 0.01, 0.01, 0.01, 0.01]))
    assert table[["first", "second"]].to_numpy().tolist() == [["high", "low"], ["mid", "low"], ["high", "mid"]]
    assert table["difference"].to_numpy() == pytest.approx([0.03, 0.018, 0.012])
    assert table["n"].tolist() == [5, 5, 5]
    assert table["p_wilcoxon"].to_numpy() == pytest.approx([2 / 32, 6 / 32, 2 / 32])
    assert table["p_wilcoxon_holm"].to_numpy() == pytest.approx([6 / 32, 6 / 32, 6 / 32])
    assert table["p_permutation"].to_numpy() == pytest.approx([2 / 32, 6 / 32, 2 / 32])
    assert table["p_permutation_holm"].to_numpy() == pytest.approx([6 / 32, 6 / 32, 6 / 32])
    assert table["effect"].to_numpy() == pytest.approx([1, 12 / 15, 1])
    assert table["dz"].to_numpy()[0] == pytest.approx(0.03 / math.sqrt(0.00025))


def test_compare_has_these_columns():
    columns = ["first", "second", "n", "difference", "low", "high", "p_wilcoxon", "p_wilcoxon_holm", "p_permutation"]
    columns += ["p_permutation_holm", "effect", "dz", "patients_needed"]
    assert list(statistics.compare(table_of(a=DICE, b=DICE[::-1]))) == columns


def test_compare_gives_the_difference_its_interval():
    row = statistics.compare(table_of(a=DICE, b=DICE[::-1] - 0.1), seed=4).loc[0]
    gain = DICE - DICE[::-1] + 0.1
    assert (row["low"], row["high"]) == pytest.approx(statistics.interval(mean_of(gain), 10, seed=4))


def test_compare_leaves_out_patients_that_lack_one_of_the_two():
    table = statistics.compare(table_of(a=[0.5, 0.6, 0.7, np.nan], b=[0.4, 0.4, np.nan, 0.9]))
    assert table.loc[0, ["first", "n"]].tolist() == ["a", 2]
    assert table.loc[0, "difference"] == pytest.approx(0.15)


def test_models_that_agree_everywhere_cannot_be_told_apart():
    row = statistics.compare(table_of(a=DICE, b=DICE)).loc[0]
    assert row[["difference", "low", "high", "effect", "dz"]].tolist() == [0, 0, 0, 0, 0]
    assert row[["p_wilcoxon", "p_wilcoxon_holm", "p_permutation", "p_permutation_holm"]].tolist() == [1, 1, 1, 1]
    assert row["patients_needed"] == math.inf


def test_compare_refuses_what_it_cannot_pair():
    with pytest.raises(ValueError, match="no patient has a score of both a and b"):
        statistics.compare(table_of(a=[0.5, np.nan], b=[np.nan, 0.5]))
    with pytest.raises(ValueError, match="two models or more"):
        statistics.compare(table_of(a=DICE))


@settings(max_examples=8, deadline=None)
@given(GAINS)
def test_the_order_of_columns_does_not_matter(gain):
    scores = table_of(a=0.5 + gain, b=np.full(gain.size, 0.5))
    forth, back = (statistics.compare(scores[list(order)], resamples=50).loc[0] for order in ("ab", "ba"))
    assert forth["difference"] >= 0
    assert -1 <= forth["effect"] <= 1
    if forth["difference"] > 0:
        pd.testing.assert_series_equal(forth, back)


# --- ranks


def test_ranks_count_the_draws_of_two_patients():
    # drawn with replacement: AA, AB, BA, BB, in which x leads, ties, ties and follows
    table = statistics.ranks(table_of(x=[1.0, 0.0], y=[0.0, 1.0], z=[-1.0, -1.0]), resamples=40_000)
    assert table.loc["z"].tolist() == [0, 0, 1]
    assert table.loc["x"].to_numpy() == pytest.approx([0.5, 0.5, 0], abs=0.01)


def test_ranks_of_models_that_agree_are_shared():
    table = statistics.ranks(table_of(a=DICE, b=DICE, c=DICE - 0.5))
    assert table.to_numpy().tolist() == [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]]
    assert list(table.columns) == [1, 2, 3]


def test_ranks_leave_out_patients_that_lack_a_model():
    assert statistics.ranks(table_of(a=[0.5, 1.0], b=[0.4, np.nan])).loc["a", 1] == 1
    with pytest.raises(ValueError, match="no patient has a score of each"):
        statistics.ranks(table_of(a=[0.5, np.nan], b=[np.nan, 0.5]))


@settings(max_examples=30, deadline=None)
@given(arrays(float, st.tuples(st.integers(1, 8), st.integers(1, 5)), elements=st.integers(0, 4).map(float)))
def test_each_model_has_one_rank_and_each_rank_one_model(values):
    table = statistics.ranks(pd.DataFrame(values), resamples=100).to_numpy()
    assert table.sum(0) == pytest.approx(1)
    assert table.sum(1) == pytest.approx(1)


def test_the_probability_of_not_being_best_is_none_of_a_clear_winner_and_whole_of_a_clear_loser():
    scores = table_of(best=DICE, worst=DICE - 0.01)
    assert statistics.probability_not_best(scores, "best") == 0
    assert statistics.probability_not_best(scores, "worst") == 1


def test_the_probability_of_not_being_best_is_half_between_equals():
    gain = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    scores = table_of(a=np.r_[gain, -gain], b=np.zeros(10))
    assert statistics.probability_not_best(scores, "a", resamples=20_000) == pytest.approx(0.5, abs=0.02)


def test_the_probability_of_not_being_best_matches_the_normal_tail_of_many_patients():
    gain = np.random.default_rng(0).normal(0.1, 1, 400)
    expected = stats.norm.sf(gain.mean() / (gain.std() / 20))
    found = statistics.probability_not_best(table_of(a=gain, b=np.zeros(400)), "a", resamples=20_000)
    assert found == pytest.approx(expected, abs=0.01)


# --- parts of the variance


def simulated(rng, patients, seeds, folds, patient, seed, fold, residual):
    """Scores of patients dealt anew to folds by each seed; the last four are standard deviations."""
    hard, rows = rng.normal(0, patient, patients), []
    for number in range(seeds):
        dealt = rng.permutation(np.arange(patients) % folds)
        shift = rng.normal(0, seed) + rng.normal(0, fold, folds)[dealt]
        value = 0.9 + hard + shift + rng.normal(0, residual, patients)
        rows.append(pd.DataFrame({"value": value, "patient": np.arange(patients), "seed": number, "fold": dealt}))
    return pd.concat(rows, ignore_index=True)


def parts_of(table):
    return statistics.variance_components(table).set_index("part")["variance"]


def by_hand(rows):
    return pd.DataFrame(rows, columns=["value", "patient", "seed", "fold"])


def test_variance_parts_of_two_patients_and_two_seeds_by_hand():
    # patients at 1 and 5: variance 8; seeds at 2 and 4: variance 2; nothing beside; one fold cannot be told
    rows = by_hand([(0, "a", 0, 0), (2, "a", 1, 0), (4, "b", 0, 0), (6, "b", 1, 0)])
    table = statistics.variance_components(rows)
    assert table["part"].tolist() == ["patient", "seed", "fold", "residual"]
    assert table["variance"].to_numpy() == pytest.approx([8, 2, np.nan, 0], nan_ok=True)
    assert table["share"].to_numpy() == pytest.approx([0.8, 0.2, np.nan, 0], nan_ok=True)


def test_variance_parts_are_never_negative():
    rows = by_hand([(0, "a", 0, 0), (1, "a", 1, 0), (1, "b", 0, 0), (0, "b", 1, 0)])
    assert (parts_of(rows).dropna() >= 0).all()


def test_one_seed_tells_neither_seeds_nor_patients_from_the_rest():
    rows = by_hand([(0, "a", 0, 0), (2, "b", 0, 0), (10, "c", 0, 1), (12, "d", 0, 1)])
    # within a fold half the square of 2 is 2; across folds 50, 72, 32 and 50, on average 51
    assert parts_of(rows).to_numpy() == pytest.approx([np.nan, np.nan, 49, 2], nan_ok=True)


def test_scores_that_are_all_the_same_have_no_parts_to_share():
    table = statistics.variance_components(simulated(np.random.default_rng(0), 6, 2, 2, 0, 0, 0, 0))
    assert table["variance"].to_numpy() == pytest.approx(0, abs=1e-12)


def test_no_pair_tells_nothing():
    assert parts_of(by_hand([(0.5, "a", 0, 0)])).isna().all()


def test_variance_parts_match_projections_written_out():
    table = simulated(np.random.default_rng(1), 8, 3, 2, 3, 2, 2, 1).drop(index=[0, 5, 13])  # unequal groups
    dealt = table["seed"] * 10 + table["fold"]
    kinds = [pd.get_dummies(column).to_numpy(float) for column in (table["patient"], table["seed"], dealt)]
    amounts, squares = [], []
    for fitted in ([0, 2], [2], [0, 1], [0]):
        design = np.hstack([np.ones((len(table), 1)), *(kinds[part] for part in fitted)])
        left = np.eye(len(table)) - design @ np.linalg.pinv(design)
        amounts.append([*(np.trace(kind.T @ left @ kind) for kind in kinds), np.trace(left)])
        squares.append(table["value"] @ left @ table["value"])
    expected = np.linalg.solve(amounts, squares)
    assert (expected > 0).all()
    assert parts_of(table).to_numpy() == pytest.approx(expected)


def mixedlm_parts(table, parts):
    """Variances by restricted maximum likelihood, as from statsmodels."""
    from statsmodels.regression.mixed_linear_model import MixedLM

    table = table.assign(dealt=table["seed"] * 10 + table["fold"])
    kinds = {"patient": "0 + C(patient)", "seed": "0 + C(seed)", "fold": "0 + C(dealt)"}
    kinds = {part: kinds[part] for part in parts}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the path of its optimiser
        fit = MixedLM.from_formula("value ~ 1", table, groups=np.ones(len(table)), vc_formula=kinds).fit(reml=True)
    return dict(zip(sorted(kinds), fit.vcomp, strict=True)) | {"residual": fit.scale}


def test_variance_parts_of_equal_groups_are_those_of_the_analysis_of_variance_and_of_mixedlm():
    table = simulated(np.random.default_rng(2), 12, 6, 1, 0.3, 0.2, 0, 0.1)
    cells = table.pivot(index="patient", columns="seed", values="value")
    rest = cells.sub(cells.mean(axis=1), axis=0) - cells.mean() + cells.mean().mean()
    residual = (rest**2).to_numpy().sum() / (11 * 5)
    patient = cells.mean(axis=1).var() - residual / 6
    seed = cells.mean().var() - residual / 12
    ours = parts_of(table)
    assert ours.to_numpy() == pytest.approx([patient, seed, np.nan, residual], nan_ok=True)
    assert ours.dropna().to_dict() == pytest.approx(mixedlm_parts(table, ["patient", "seed"]), rel=0.01)


def test_variance_parts_with_folds_are_near_those_of_mixedlm():
    table = simulated(np.random.default_rng(0), 24, 5, 4, 0.3, 0.2, 0.25, 0.15)
    assert parts_of(table).to_dict() == pytest.approx(mixedlm_parts(table, ["patient", "seed", "fold"]), rel=0.05)


def test_variance_parts_are_right_on_average():
    rng, deviations = np.random.default_rng(3), np.array([0.3, 0.2, 0.25, 0.15])
    found = np.array([parts_of(simulated(rng, 30, 8, 5, *deviations)) for _ in range(100)])
    error = found.std(0) / 10
    assert (abs(found.mean(0) - deviations**2) < 3 * error).all()


def test_variance_parts_of_a_whole_study_are_near_the_truth():
    table = simulated(np.random.default_rng(4), 514, 5, 5, 0.2, 0, 0.1, 0.1)
    ours = parts_of(table)
    assert ours["patient"] == pytest.approx(0.04, rel=0.15)
    assert ours["residual"] == pytest.approx(0.01, rel=0.1)
    assert ours["fold"] == pytest.approx(0.01, rel=0.6)  # there are but twenty-five networks
    assert ours["seed"] < 0.01
