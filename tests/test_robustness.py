"""Images get worse as stated, masks turn with them, curves show what the table holds."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from lumbar_utils import StudyError
from lumbar_utils.appendix.robustness import (
    DEGRADATIONS,
    DEGRADED_STEPS,
    MAX_CASES,
    STEPS,
    degrade,
    robustness,
    select_cases,
    transform_mask,
)
from lumbar_utils.data.preparation import prepare
from lumbar_utils.networks.training import fit
from lumbar_utils.output import figures
from lumbar_utils.output.figures.style import style_of
from lumbar_utils.output.figures.variation import robustness_curves
from lumbar_utils.scores.summary import by_strength
from lumbar_utils.study import Study

FLAT = np.full((128, 128), 100, np.uint8)
DRAWN = np.random.default_rng(0).integers(0, 256, (64, 48), np.uint8)


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_the_first_strength_is_the_image_itself(kind):
    assert (degrade(DRAWN, kind, DEGRADATIONS[kind].strengths[0], 1) == DRAWN).all()


@pytest.mark.parametrize("kind, strength", DEGRADED_STEPS)
def test_an_image_is_degraded_by_its_arguments_alone(kind, strength):
    first, again = degrade(DRAWN, kind, strength, 1), degrade(DRAWN, kind, strength, 1)
    assert first.shape == DRAWN.shape and first.dtype == np.float32
    assert (first == again).all() and (first != DRAWN).any()


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_strengths_rise_and_so_does_the_difference(kind):
    assert list(DEGRADATIONS[kind].strengths) == sorted(DEGRADATIONS[kind].strengths)
    smooth = np.outer(np.hanning(64), np.hanning(64)) * 200
    differences = [
        np.abs(degrade(smooth.astype(np.uint8), kind, s, 3) - smooth).mean() for s in DEGRADATIONS[kind].strengths
    ]
    assert differences == sorted(differences)


@pytest.mark.parametrize("strength", DEGRADATIONS["noise"].strengths[1:])
def test_noise_has_the_stated_share_of_the_range_as_standard_deviation(strength):
    assert degrade(FLAT, "noise", strength, 0).std() == pytest.approx(100 * strength, rel=0.03)


def test_noise_in_air_is_rayleigh_s_as_in_a_magnitude_image():
    half = FLAT.copy()
    half[:, :64] = 0
    air = degrade(half, "noise", 0.1, 0)[:, :64]
    assert air.min() >= 0
    assert air.mean() == pytest.approx(10 * np.sqrt(np.pi / 2), rel=0.03)


def test_a_bias_field_darkens_to_the_stated_part_and_leaves_the_brightest():
    degraded = degrade(FLAT, "bias field", 5, 0)
    assert (degraded.max(), degraded.min()) == (pytest.approx(100), pytest.approx(20))


def test_a_blurred_point_has_the_stated_sigma():
    point = np.zeros((65, 65), np.uint8)
    point[32, 32] = 255
    weights = degrade(point, "blur", 2, 0).sum(axis=0) / 255
    assert np.sqrt((weights * (np.arange(65) - 32) ** 2).sum()) == pytest.approx(2, rel=0.05)


def test_contrast_is_a_gamma_or_its_inverse_over_the_image_s_own_range():
    image = np.full((64, 64), 50, np.uint8)
    image[:, 32:] = 100
    seen = {round(float(degrade(image, "contrast", 2.4, seed)[0, 0])) for seed in range(8)}
    assert seen == {round(100 * 0.5**2.4), round(100 * 0.5 ** (1 / 2.4))}
    assert degrade(image, "contrast", 2.4, 0)[0, 63] == pytest.approx(100)


def test_a_quarter_turn_moves_image_and_mask_alike_pixel_by_pixel():
    square = DRAWN[:48]
    turned = degrade(square, "rotation", 90, 5)
    assert any(np.allclose(turned, np.rot90(square, quarter), atol=0.5) for quarter in (1, 3))
    assert (transform_mask(square, "rotation", 90, 5) == np.rint(turned)).all()


@pytest.mark.parametrize("strength", DEGRADATIONS["rotation"].strengths)
@pytest.mark.parametrize("seed", range(4))
def test_a_body_turns_with_its_mask(strength, seed):
    mask = np.zeros((96, 80), np.uint8)
    mask[30:50, 20:44] = 3
    turned = transform_mask(mask, "rotation", strength, seed) > 0
    bright = degrade(mask * 80, "rotation", strength, seed) > 120
    assert (turned != bright).sum() <= 0.02 * turned.sum()


def test_only_rotation_moves_a_mask():
    assert all(
        (transform_mask(DRAWN, kind, strength, 0) == DRAWN).all() for kind, strength in STEPS if kind != "rotation"
    )


def of_patients(cohort, cases):
    names = [f"p{patient:02}" for patient, count in enumerate(cases) for _ in range(count)]
    table = pd.DataFrame({"case": [f"c{n}" for n in range(len(names))], "patient": names, "split": "test"})
    return dataclasses.replace(cohort, cases=table)


def test_cases_are_spread_over_the_patients(study):
    cohort = prepare(study)
    few, many = of_patients(cohort, [1, 2]), of_patients(cohort, [12] * 8)
    assert select_cases(few) == [0, 1, 2]
    assert len(select_cases(many)) == len(set(select_cases(many))) == MAX_CASES
    assert many.cases.iloc[select_cases(many)]["patient"].value_counts().tolist() == [MAX_CASES // 8] * 8


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cache):
    """A study of one epoch, its cohort, and how its U-Net bears worse images."""
    study = Study("smoke", epochs=1, runs=tmp_path_factory.mktemp("runs"), cache=cache, device="cpu")
    cohort = prepare(study)
    fit(study, cohort, "unet")
    return study, cohort, robustness(study, cohort, "unet")


def test_every_case_is_scored_at_every_strength_of_every_kind(trained):
    _, cohort, table = trained
    assert list(table.columns) == ["model", "kind", "unit", "strength", "case", "patient", "f1"]
    tests = cohort.cases[cohort.cases["split"] == "test"]
    assert len(table) == len(tests) * len(STEPS)
    assert set(table["case"]) == set(tests["case"])
    assert table["f1"].between(0, 1).all()


def test_the_untouched_image_has_one_score_whatever_the_kind(trained):
    table = trained[2]
    untouched = table[table["strength"] == table.groupby("kind")["strength"].transform("min")]
    assert len(untouched.drop_duplicates(["case", "f1"])) == untouched["case"].nunique()


def test_what_is_measured_is_read_again_and_what_is_lost_is_measured_alike(trained):
    study, cohort, table = trained
    file = study.folder / "unet" / "robustness.csv"
    written, content = file.stat().st_mtime_ns, file.read_bytes()
    assert robustness(study, cohort, "unet").equals(table)
    assert file.stat().st_mtime_ns == written
    file.unlink()
    assert robustness(study, cohort, "unet").equals(table)
    assert file.read_bytes() == content


def test_a_network_that_is_not_trained_is_refused(trained):
    study, cohort, _ = trained
    with pytest.raises(StudyError, match=r"hrnet is not trained in .*; run its training notebook first"):
        robustness(study, cohort, "hrnet")


def curves():
    rows = [
        (model, kind, about.unit, strength, f"c{n}", f"p{n % 3}", value)
        for model, value in (("unet", 0.9), ("hrnet", 0.5)) for kind, about in DEGRADATIONS.items()
        for strength in about.strengths for n in range(6)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["model", "kind", "unit", "strength", "case", "patient", "f1"])


def test_a_panel_a_kind_a_curve_a_model():
    fig = robustness_curves(by_strength(curves()), "synthetic images")
    panels = [ax for ax in fig.axes if ax.lines]
    assert fig.get_figwidth() == figures.PAGE and fig.get_supxlabel() == "synthetic images"
    for ax, about in zip(panels, DEGRADATIONS.values(), strict=True):
        unet, hrnet = ax.lines
        assert unet.get_xydata().tolist() == [[strength, pytest.approx(0.9)] for strength in about.strengths]
        assert set(hrnet.get_ydata().round(6)) == {0.5}
        assert (unet.get_color(), hrnet.get_color()) == (style_of("unet").colour, style_of("hrnet").colour)
        assert ax.get_xlabel().lower() == about.unit
    assert "n = 3 test patients" in fig.axes[-1].get_legend().get_title().get_text()
