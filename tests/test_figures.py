"""Figures show what their tables hold, in print size and in the same bytes every time."""

import dataclasses
import functools
import hashlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from lumbar_utils.data.audit import Picture
from lumbar_utils.output import figures
from lumbar_utils.output.figures.style import FURTHER_STYLES, MODEL_STYLES, luminance, style_of
from lumbar_utils.output.viewer import Example
from lumbar_utils.scores import metrics


def example(case="case0", spacing=1.0):
    reference = np.zeros((64, 48), np.uint8)
    reference[10:20, 10:30], reference[40:50, 10:30] = 1, 6
    return Example(case, reference * 30 + 20, reference, spacing, np.roll(reference, 3, axis=0), 0.7)


def texts(fig):
    found = [text.get_text() for ax in fig.axes for text in [*ax.texts, *(ax.title, ax._left_title)]]
    found += [text.get_text() for ax in fig.axes if ax.get_legend() for text in ax.get_legend().get_texts()]
    found += [text.get_text() for legend in fig.legends for text in legend.get_texts()]
    return [*found, fig.get_supxlabel()]


def history():
    rows = [(model, epoch, 1 / epoch, 1 / epoch, 0.1 * epoch) for model in ("unet", "hrnet") for epoch in (1, 2, 3)]
    return pd.DataFrame(rows, columns=["model", "epoch", "train_loss", "val_loss", "val_f1"])


def scores():
    rows = [(f"c{n}", f"p{n}", level, "unet", "f1", f1) for n in range(4) for level, f1 in (("L1", 0.9), ("S1", 0.8))]
    return pd.DataFrame(rows, columns=["case", "patient", "level", "model", "metric", "value"])


def table2():
    rows = [("unet", "f1", 0.95, 0.9742), ("unet", "map_coco", 0.8, 0.7084), ("mine", "f1", 0.5, np.nan)]
    table = pd.DataFrame([*rows, ("mine", "map_coco", 0.4, np.nan)], columns=["model", "metric", "value", "paper"])
    return table.assign(low=table["value"] - 0.1, high=table["value"] + 0.05, n=7)


def data_tables():
    intensities = pd.DataFrame({"tissue": ["background", "L1"], "grey": [2.0, 90.0], "share": [1.0, 1.0]})
    areas = pd.DataFrame(
        {"case": ["a", "b"], "level": ["L1", "S1"], "area": [9.0, 8.0], "unit": "mm2", "x": 0.5, "y": 0.4}
    )
    return intensities, areas, pd.DataFrame({"patient": list("abc"), "split": ["train", "train", "test"]})


def naming():
    rows = [
        ("unet", "L1", "L1", "right", 0.9),
        ("unet", "L2", "L1", "one up", 0.8),
        ("unet", "L2", "L2", "right", 0.8),
        ("unet", "S1", "", "missing", np.nan),
        ("unet", "", "S1", "extra", np.nan),
    ]
    return pd.DataFrame(rows, columns=["model", "level", "named", "outcome", "f1"])


def differences():
    rows = [("f1", "unet", "hrnet", 0.1, 0.05, 0.15), ("recall-precision", "unet", "unet", 0.2, 0.1, 0.3)]
    return pd.DataFrame(rows, columns=["metric", "first", "second", "difference", "low", "high"])


def bins():
    return pd.DataFrame(
        {"model": "unet", "bin": [7, 14], "pixels": [10, 90], "confidence": [5.0, 88.0], "right": [5, 80]}
    )


def parts():
    rows = [("level", "L1", "unet", 0.9, 0.8, 0.95, 5), ("contrast", "T2", "unet", 0.7, np.nan, np.nan, 2)]
    return pd.DataFrame(rows, columns=["kind", "group", "model", "value", "low", "high", "n"])


def printed():
    return pd.DataFrame({"metric": ["f1", "map"], "model": "unet", "value": [0.9742, 0.7084]})


def universe():
    rows = [("a", metric, "unet", 0.9) for metric in ("precision", "recall", "f1", "map")]
    rows += [("b", metric, model, 0.8) for _, metric, _, _ in rows for model in ("unet", "hrnet")]
    rows += [("a", metric, "hrnet", 0.85) for metric in ("precision", "recall", "f1", "map")]
    return pd.DataFrame(rows, columns=["definition", "metric", "model", "value"])


def curves():
    """L1: 3 of the 4 surest pixels are right, then 1 of 4. Any level: all right. Another tool gave no probabilities."""
    rows = [("unet", "L1", 255, 3, 4), ("unet", "L1", 51, 1, 4), ("unet", "vertebra", 255, 8, 8)]
    rows += [("hrnet", "L1", 204, 4, 5), ("hrnet", "vertebra", 102, 8, 9)]
    rows += [("mine", level, 0, 0, 0) for level in ("L1", "vertebra")]
    table = pd.DataFrame(rows, columns=["model", "level", "probability", "hits", "pixels"])
    every = pd.MultiIndex.from_product(
        [["unet", "hrnet", "mine"], ["L1", "vertebra"], range(256)], names=["model", "level", "probability"]
    )
    return table.set_index(every.names).reindex(every, fill_value=0).reset_index()


def findings():
    rows = [("holes:a", "error", "holes"), ("speck:b", "warning", "speck")]
    return pd.DataFrame(rows, columns=["finding", "severity", "kind"])


def pictured():
    shown = example()
    return [Picture("holes:a", "error", shown.image, shown.reference, 1.0), Picture("speck:b", "warning", shown.image)]


def worse():
    rows = [(model, kind, strength, 0.9 - 0.1 * strength) for model in ("unet", "hrnet")
            for kind in ("noise", "blur", "contrast") for strength in (0, 1, 2)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["model", "kind", "strength", "value"])
    return table.assign(unit="degrees", low=table["value"] - 0.1, high=table["value"] + 0.05, n=3, images=5)


def costs():
    return pd.DataFrame({"model": ["unet", "hrnet"], "parameters": [31e6, 9e6], "multiply_adds": [5e9, 2e9],
                         "latency_ms": [20.0, 10.0], "latency_low_ms": [18.0, 9.0],
                         "latency_high_ms": [25.0, 11.0], "training_seconds": [600.0, 300.0]})  # fmt: skip


def f1_of_each():
    return pd.DataFrame({"model": ["unet", "hrnet"], "metric": "f1", "value": [0.9, 0.8], "low": 0.7, "high": 0.95})


@functools.cache
def longest():
    """Of the three networks the one with the most stages in a row."""
    from lumbar_utils.networks.diagram import describe  # loads torch, which no other figure needs
    from lumbar_utils.networks.models import build

    return describe(build("efficientnet"), 64, 64)


def of_runs():
    """Two seeds on two folds: U-Net leads in three of the four runs."""
    rows = [("unet", 0, 0, 0.9), ("unet", 0, 1, 0.8), ("unet", 1, 0, 0.9), ("unet", 1, 1, 0.6)]
    rows += [("hrnet", seed, fold, 0.7) for seed in (0, 1) for fold in (0, 1)]
    return pd.DataFrame(rows, columns=["model", "seed", "fold", "value"]).assign(n=15)


def spread_of_runs():
    rows = [("unet", "patient", 0.03, 0.75), ("unet", "fold", 0.01, 0.25), ("unet", "seed", 0, 0)]
    return pd.DataFrame(rows, columns=["what", "part", "variance", "share"])


def grid_cells():
    rows = [("unet", 0, 0, "finished", 0.91), ("unet", 0, 1, "running", 0.5), ("hrnet", 0, 0, "failed", np.nan),
            ("hrnet", 0, 1, "waiting", np.nan), ("", 0, 0, "finished", np.nan)]  # fmt: skip
    return pd.DataFrame(rows, columns=["model", "seed", "fold", "state", "val_f1"])


DRAWN = {
    "runs": lambda **options: figures.runs(of_runs(), spread_of_runs(), **options),
    "grid_overview": lambda **options: figures.grid_overview(grid_cells(), **options),
    "precision_recall": lambda **options: figures.precision_recall(curves(), **options),
    "audit_page": lambda **options: figures.audit_page(findings(), pictured(), **options),
    "robustness_curves": lambda **options: figures.robustness_curves(worse(), **options),
    "cost_against_accuracy": lambda **options: figures.cost_against_accuracy(costs(), f1_of_each(), **options),
    "architecture": lambda **options: figures.architecture(*longest(), "EfficientNet", **options),
    "worst": lambda **options: figures.worst([example()] * 4, ["U-Net\nL1 missing"] * 4, 2, **options),
    "samples": lambda **options: figures.samples([example(), example("case1")], **options),
    "predictions": lambda **options: figures.predictions([example()], "unet", **options),
    "learning_curves": lambda **options: figures.learning_curves(history(), **options),
    "comparison": lambda **options: figures.comparison(table2(), **options),
    "scores_by_level": lambda **options: figures.scores_by_level(scores(), **options),
    "confusion": lambda **options: figures.confusion(naming(), naming(), **options),
    "data_overview": lambda **options: figures.data_overview(*data_tables(), **options),
    "paired_differences": lambda **options: figures.paired_differences(differences(), **options),
    "errors": lambda **options: figures.errors(naming(), **options),
    "reliability": lambda **options: figures.reliability(bins(), **options),
    "groups": lambda **options: figures.groups(parts(), **options),
    "multiverse": lambda **options: figures.multiverse(universe(), printed(), **options),
}


NOTE = "Synthetic images of a phantom, quick: nothing of it says anything about any patient of any clinic."


@functools.cache
def drawn(name):
    """A figure of DRAWN, once for all tests that look at it."""
    return DRAWN[name](note=NOTE)


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_is_as_wide_as_a_page_and_says_on_what_data(name):
    assert drawn(name).get_figwidth() == 7.16
    assert NOTE in " ".join(texts(drawn(name))).replace("\n", " ")


@pytest.mark.parametrize("name", DRAWN)
def test_nothing_of_a_figure_is_cut_off(name):
    fig = drawn(name)
    fig.draw_without_rendering()
    drawn_over = fig.get_tightbbox()
    assert drawn_over.x0 >= 0 and drawn_over.y0 >= 0
    assert drawn_over.x1 <= fig.get_figwidth() and drawn_over.y1 <= fig.get_figheight()


def fingerprints(folder):
    """File -> sha256 of every figure of DRAWN, saved in all its formats; with few pixels, which takes less time."""
    with plt.rc_context({"savefig.dpi": 40}):
        files = [file for name in DRAWN for file in figures.save(DRAWN[name](note="note"), folder, name, f"{name}.")]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_another_process_gives_every_figure_the_same_bytes(tmp_path):
    """The other process orders its sets in another way."""
    script = "import json, sys, test_figures as t\njson.dump(t.fingerprints(t.Path(sys.argv[1])), sys.stdout)"
    other = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "b"], cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    here = fingerprints(tmp_path / "a")
    assert {Path(name).suffix for name in here} == {".pdf", ".svg", ".png", ".txt"}
    assert json.loads(other.communicate()[0]) == here


@pytest.mark.parametrize("name", DRAWN)
def test_text_is_read_in_print_and_panels_have_letters(name):
    fig = drawn(name)
    sizes = [text.get_fontsize() for text in fig.findobj(Text) if text.get_text() and text.get_visible()]
    assert min(sizes) * 7.14 / figures.PAGE >= 6  # at the width that LaTeX gives a figure of two columns
    firsts = [ax.get_title(loc="left").partition("  ") for ax in fig.axes if ax.get_title(loc="left")]
    letters = [letter for letter, gap, _ in firsts if gap]
    assert letters == list("abcdefghijkl"[: len(letters)])
    assert bool(letters) == (name not in ("comparison", "architecture", "grid_overview"))  # those of one panel


COLOURS = {name: style.colour for name, style in MODEL_STYLES.items()}
# Machado 2009, doi 10.1109/TVCG.2009.113, severity 1, for linear RGB
SEEN = {
    "everybody": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(colour, matrix=SEEN["everybody"]):
    """CIELAB, D65, of a colour as somebody sees it."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ (np.array(matrix) @ linear).clip(0, 1) / (0.9505, 1, 1.089)
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("who", SEEN)
def test_the_models_colours_are_told_apart_by_everybody(who):
    for one, other in itertools.combinations(COLOURS.values(), 2):
        assert np.linalg.norm(lab(one, SEEN[who]) - lab(other, SEEN[who])) > 20  # 2 is just noticeable


def test_the_models_are_told_apart_in_grey():
    lightness = sorted(lab(colour)[0] for colour in COLOURS.values())
    assert min(np.diff(lightness)) > 15 and lightness[-1] < 80  # and stand out from white paper
    looks = [*MODEL_STYLES.values(), *FURTHER_STYLES]
    for part in ("colour", "marker", "line"):
        assert len({str(getattr(look, part)) for look in looks}) == len(looks)
    assert luminance("white") == pytest.approx(1) and luminance("black") == 0


@pytest.mark.parametrize("name, lines", [("reliability", 1), ("robustness_curves", 2), ("precision_recall", 2)])
def test_curves_differ_by_model_in_more_than_colour(name, lines):
    drawn = [line for line in DRAWN[name]().axes[0].lines if line.get_marker() != "None"]
    assert len(drawn) == lines
    assert len({(line.get_marker(), str(line._dash_pattern)) for line in drawn}) == lines


def test_the_area_under_a_curve_is_its_average_precision():
    ax, any_level, key = DRAWN["precision_recall"]().axes[:3]
    own = curves().query("model == 'unet' and level == 'L1'")
    recall, precision = ax.lines[0].get_data()
    area = (np.diff(recall) * precision[1:]).sum()  # a step holds the precision at its end
    assert area == pytest.approx(metrics.average_precision(own[["hits", "pixels"]].to_numpy().T))
    assert area == pytest.approx(0.75 * 3 / 4 + 1 / 4 * 4 / 8)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["AP 0.688", "AP 0.800"]
    assert ax.lines[0].get_xydata()[ax.lines[0].get_markevery()].tolist() == [[0.75, 0.75]]  # at one half
    assert any_level.get_title(loc="left") == "b  any level"
    assert [text.get_text() for text in key.get_legend().get_texts()] == ["U-Net", "HRNet"]  # mine has no curve


def test_a_level_that_is_not_annotated_is_no_difference():
    reference = np.zeros((40, 30), np.uint8)
    reference[5:15, 10:20] = 5
    prediction = reference.copy()
    prediction[25:35, 10:20] = 6  # S1, which this reference leaves out
    case = Example("a", reference, reference, 1.0, prediction, 1.0)
    marked = []
    for example in (case, dataclasses.replace(case, annotated=(1, 2, 3, 4, 5))):
        layers = figures.predictions([example], "unet").axes[3].images[1:]
        marked.append([int((layer.get_array()[..., 3] > 0).sum()) for layer in layers])
    assert marked == [[0, 100, 0], [0, 0, 0]]  # missed, invented, wrong level


def test_text_stays_text_in_fonts_that_journals_accept(tmp_path):
    pdf, svg, *_ = figures.save(DRAWN["learning_curves"](), tmp_path, "fig", "Loss and F1.")
    assert b"/FontFile2" in pdf.read_bytes() and b"/Type3" not in pdf.read_bytes()  # TrueType, embedded as type 42
    assert ">Epoch</text>" in svg.read_text()


def test_the_caption_lies_beside_its_figure(tmp_path):
    figures.save(DRAWN["learning_curves"](), tmp_path, "fig", "Loss and F1.")
    assert (tmp_path / "fig.txt").read_text() == "Loss and F1.\n"


def test_samples_name_the_levels_and_the_scale():
    found = texts(DRAWN["samples"]())
    assert found.count("L1") == found.count("S1") == 2
    assert not [text for text in texts(figures.samples([example(spacing=float("nan"))])) if "mm" in text]


@pytest.mark.parametrize("name, bars", [("samples", 2), ("predictions", 4), ("worst", 4), ("audit_page", 1)])
def test_every_image_whose_spacing_is_known_has_its_own_bar(name, bars):
    assert texts(DRAWN[name]()).count("10 mm") == bars


@pytest.mark.parametrize("spacing, length, pixels", [(1.0, "10 mm", 10), (3.0, "50 mm", 50 / 3), (0.01, "", 0)])
def test_a_bar_is_as_long_as_it_says(spacing, length, pixels):
    ax = figures.samples([example(spacing=spacing)]).axes[0]
    assert [text.get_text() for text in ax.texts if "mm" in text.get_text()] == [length] * bool(length)
    assert [np.ptp(line.get_xdata()) for line in ax.lines] == pytest.approx([pixels] * bool(length))


def test_predictions_show_case_score_and_the_three_kinds_of_error():
    fig = DRAWN["predictions"]()
    assert len(fig.axes) == 4
    assert {"a  case0, F1 0.700", "Reference", "U-Net", "missed", "invented", "wrong level"} <= set(texts(fig))


def test_differences_are_coloured_by_kind():
    kinds = dataclasses.replace(example(), prediction=np.where(example().reference == 1, 2, 0).astype(np.uint8))
    layers = [image.get_array() for image in figures.predictions([kinds], "unet").axes[3].images[1:]]
    missed, invented, wrong = ((layer[..., 3] > 0).sum() for layer in layers)
    assert (missed, invented, wrong) == (200, 0, 200)  # S1 missed, L1 taken for L2


def test_learning_curves_mark_the_best_epoch():
    right = DRAWN["learning_curves"]().axes[1]
    marks = [line.get_xydata().tolist() for line in right.lines if len(line.get_xdata()) == 1]
    assert marks == [[[3, pytest.approx(0.3)]]] * 2


def test_the_comparison_shows_every_value_and_the_paper_s_marks():
    ax = DRAWN["comparison"]().axes[0]
    assert sorted(bar.get_height() for bar in ax.patches) == [0.4, 0.5, 0.8, 0.95]
    marks = [line.get_ydata().tolist() for line in ax.lines if line.get_marker() == "D" and len(line.get_ydata())]
    assert marks[0] == [0.9742, 0.7084]


def test_models_and_levels_keep_their_colours():
    assert DRAWN["learning_curves"]().axes[1].lines[0].get_color() == COLOURS["U-Net"]
    assert len(set(figures.LEVEL_COLOURS.values())) == 6


def test_scores_by_level_tell_how_many_patients():
    whole, enlarged = DRAWN["scores_by_level"]().axes
    assert whole.get_ylim()[0] < 0
    assert enlarged.get_xlabel() == "Vertebra (n = 4 test patients)"


def test_confusion_shows_the_share_of_each_level_under_each_name():
    fig = figures.confusion(naming(), naming().assign(named=naming()["level"]))
    own, in_order = ([text.get_text() for text in ax.texts] for ax in fig.axes)
    assert own == ["100", "", "", "", "50", "50", "", "", "", "", "", "100"]  # L1 as L1; half of L2 as L1; S1 not found
    assert in_order == ["100", "", "", "", "", "100", "", "", "", "", "100", ""]


def test_intervals_are_drawn_where_they_are_known():
    level, contrast = figures.groups(parts()).axes
    assert [line.get_xdata().tolist() for line in level.lines if len(line.get_xdata()) == 2] == [[0.8, 0.95]]
    assert [len(line.get_xdata()) for line in contrast.lines] == [1]
    assert contrast.get_yticklabels()[0].get_text() == "T2 (n = 2)"


def test_differences_stand_about_a_line_at_none():
    (ax,) = figures.paired_differences(differences()).axes
    assert list(ax.lines[0].get_xdata()) == [0.05, 0.15]
    assert ax.get_yticklabels()[0].get_text() == "U-Net - HRNet"


def test_errors_count_in_per_cent_of_the_reference():
    left, _ = figures.errors(naming()).axes
    widths = {bar.get_label(): bar.patches[0].get_width() for bar in left.containers}
    assert widths == {"right": 50, "one up": 25, "one down": 0, "other": 0, "missing": 25, "extra": 25}
    assert "50.0 % not right" in texts(left.figure)


def test_reliability_is_the_share_of_right_pixels_by_how_sure_they_are():
    left, _ = figures.reliability(bins()).axes
    assert left.lines[1].get_xydata() == pytest.approx(np.array([[50, 50], [100 * 88 / 90, 100 * 80 / 90]]))
    assert "U-Net, calibration error 8.0 %" in texts(left.figure)


def test_the_multiverse_shows_every_definition_and_who_leads():
    fig = figures.multiverse(universe(), printed())
    above, below = fig.axes[2], fig.axes[6]  # F1
    assert above.lines[0].get_ydata().tolist() == [0.8, 0.9]
    assert len(below.patches) == 2
    assert {"a  Precision", "b  Recall", "c  F1", "d  mAP"} <= set(texts(fig))


def test_each_run_is_a_mark_and_the_parts_of_the_spread_fill_a_bar():
    left, right = figures.runs(of_runs(), spread_of_runs()).axes
    marks = next(line for line in left.lines if line.get_label() == "U-Net")
    assert marks.get_ydata().tolist() == [0.9, 0.8, 0.9, 0.6]
    assert [bar.get_width() for bar in right.patches][:2] == [75, 25]
    assert "0.200" in texts(right.figure)


def test_the_names_of_many_runs_stand_upright():
    many = pd.concat([of_runs().assign(seed=seed) for seed in range(6)])
    left, _ = figures.runs(many.drop_duplicates(["model", "seed", "fold"]), spread_of_runs()).axes
    assert {label.get_rotation() for label in left.get_xticklabels()} == {90}
    left, _ = figures.runs(of_runs(), spread_of_runs()).axes
    assert {label.get_rotation() for label in left.get_xticklabels()} == {0}


def test_of_one_run_no_spread_is_drawn():
    _, right = figures.runs(of_runs().query("seed == 0 and fold == 0"), spread_of_runs().head(0)).axes
    assert not right.patches and "a single run" in " ".join(texts(right.figure))


def test_the_grid_shows_states_and_the_best_score_so_far():
    ax = figures.grid_overview(grid_cells()).axes[0]
    assert [text.get_text() for text in ax.texts] == ["0.91", "0.50"]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0 / 0", "0 / 1"]
    labels = ax.get_legend_handles_labels()[1]
    assert labels == ["finished (1)", "running (1)", "failed (1)", "waiting (1)"]


def test_further_models_never_look_alike():
    names = ["nnunet", "tu-resnet50", "tu-convnext_tiny"]
    looks = {name: style_of(name) for name in names}
    assert len(set(looks.values())) == len(names) and not set(looks.values()) & set(MODEL_STYLES.values())
    assert looks == {name: style_of(name) for name in reversed(names)}  # in every figure the same


def test_a_curve_without_a_pixel_at_one_half_has_no_mark_there():
    weak = curves().replace({"probability": {204: 100, 100: 204}})  # HRNet's surest of L1 are at 100 of 255
    axes = figures.precision_recall(weak).axes
    unet, hrnet = axes[0].lines[:2]
    assert len(unet.get_markevery()) == 1 and hrnet.get_markevery() == []
    assert axes[0].get_xlim()[0] == 0.5  # of U-Net's mark at 0.75


@pytest.mark.parametrize("name", ["модель", "λ-net", "a$b$_^%&\\x"], ids=["Cyrillic", "Greek", "mathematics"])
def test_a_name_is_shown_letter_by_letter_and_never_as_mathematics(tmp_path, name):
    tables = {"learning_curves": history(), "groups": parts().replace("T2", name), "reliability": bins()}
    for kind, table in tables.items():
        fig = getattr(figures, kind)(table.replace("unet", name), note=f"Data: {name}")  # a warning would be an error
        with plt.rc_context({"savefig.dpi": 40}):
            figures.save(fig, tmp_path, kind, name)
        shown = [text for text in fig.findobj(Text) if name in text.get_text()]
        assert shown and not any(text.get_parse_math() for text in shown)


def test_letters_that_no_font_has_stop_no_figure(tmp_path):
    with pytest.warns(UserWarning, match="missing from font"):
        figures.save(figures.samples([example("中文")], note="中文"), tmp_path, "fig", "中文")


def test_a_long_name_of_a_case_loses_its_middle():
    title = figures.samples([example("x" * 300)]).axes[0].get_title(loc="left")
    assert title == "a  " + "x" * 12 + "…" + "x" * 12


def test_the_user_s_own_matplotlibrc_changes_no_byte(tmp_path):
    """Nor does the backend."""
    rc = "savefig.bbox: tight\ntext.usetex: True\nfigure.dpi: 300\naxes.grid: True\nfont.weight: bold"
    (tmp_path / "matplotlibrc").write_text(rc)
    script = "import sys, test_figures as t\nfig = t.DRAWN['comparison'](note='note')\n"
    script += "t.figures.save(fig, t.Path(sys.argv[1]), 'fig', 'A caption.')"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "MATPLOTLIBRC": str(tmp_path / "matplotlibrc")}
    command = [sys.executable, "-c", script, tmp_path / "own"]
    subprocess.run(command, cwd=Path(__file__).parent, env=env, check=True)
    files = figures.save(DRAWN["comparison"](note="note"), tmp_path / "usual", "fig", "A caption.")
    assert [file.read_bytes() for file in files] == [(tmp_path / "own" / file.name).read_bytes() for file in files]
