"""Figures show what their tables hold, in print size and in the same bytes every time."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from lumbar_utils import figures
from lumbar_utils.architecture import describe, unused
from lumbar_utils.examples import Example
from lumbar_utils.models import build


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
    rows = [
        (f"c{n}", f"p{n}", level, model, "f1", 0.9) for n in range(4) for level in ("L1", "S1") for model in ("unet",)
    ]
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
        {"model": "unet", "bin": [7, 14], "pixels": [10, 90], "sureness": [5.0, 88.0], "right": [5, 80]}
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


DRAWN = {
    "worst": lambda note: figures.worst([example()] * 4, ["U-Net\nL1 missing"] * 4, 2, note),
    "samples": lambda note: figures.samples([example(), example("case1")], note),
    "predictions": lambda note: figures.predictions([example()], "unet", note),
    "learning_curves": lambda note: figures.learning_curves(history(), note),
    "comparison": lambda note: figures.comparison(table2(), note),
    "scores_by_level": lambda note: figures.scores_by_level(scores(), note=note),
    "confusion": lambda note: figures.confusion(naming(), naming(), note),
    "data_overview": lambda note: figures.data_overview(*data_tables(), note),
    "paired_differences": lambda note: figures.paired_differences(differences(), note),
    "errors": lambda note: figures.errors(naming(), note),
    "reliability": lambda note: figures.reliability(bins(), note),
    "groups": lambda note: figures.groups(parts(), note=note),
    "multiverse": lambda note: figures.multiverse(universe(), printed(), note),
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_is_as_wide_as_a_page_and_says_on_what_data(name):
    fig = DRAWN[name]("synthetic images")
    assert fig.get_figwidth() == figures.PAGE
    assert "synthetic images" in " ".join(texts(fig))


def test_files_have_the_same_bytes_every_time(tmp_path):
    first = figures.save(DRAWN["learning_curves"](""), tmp_path / "a", "fig", "Loss and F1.")
    second = figures.save(DRAWN["learning_curves"](""), tmp_path / "b", "fig", "Loss and F1.")
    assert [path.name for path in first] == ["fig.pdf", "fig.svg", "fig.png", "fig.txt"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_text_stays_text_in_fonts_that_journals_accept(tmp_path):
    pdf, svg, _, _ = figures.save(DRAWN["learning_curves"](""), tmp_path, "fig", "Loss and F1.")
    assert b"/FontFile2" in pdf.read_bytes() and b"/Type3" not in pdf.read_bytes()  # TrueType, embedded as type 42
    assert ">Epoch</text>" in svg.read_text()


def test_the_caption_lies_beside_its_figure(tmp_path):
    figures.save(DRAWN["learning_curves"](""), tmp_path, "fig", "Loss and F1.")
    assert (tmp_path / "fig.txt").read_text() == "Loss and F1.\n"


def test_samples_name_the_levels_and_the_scale():
    found = texts(DRAWN["samples"](""))
    assert found.count("L1") == found.count("S1") == 2
    assert "50 mm" in found
    assert "50 mm" not in texts(figures.samples([example(spacing=float("nan"))]))


def test_predictions_show_case_score_and_the_three_kinds_of_error():
    fig = DRAWN["predictions"]("")
    assert len(fig.axes) == 4
    assert {"case0, F1 0.700", "Reference", "U-Net", "missed", "invented", "wrong level"} <= set(texts(fig))


def test_differences_are_coloured_by_kind():
    kinds = dataclasses.replace(example(), prediction=np.where(example().reference == 1, 2, 0).astype(np.uint8))
    layers = [image.get_array() for image in figures.predictions([kinds], "unet").axes[3].images[1:]]
    missed, invented, wrong = ((layer[..., 3] > 0).sum() for layer in layers)
    assert (missed, invented, wrong) == (200, 0, 200)  # S1 missed, L1 taken for L2


def test_learning_curves_mark_the_best_epoch():
    right = DRAWN["learning_curves"]("").axes[1]
    marks = [line.get_xydata().tolist() for line in right.lines if line.get_marker() == "o"]
    assert marks == [[[3, pytest.approx(0.3)]]] * 2


def test_the_comparison_shows_every_value_and_the_paper_s_marks():
    ax = DRAWN["comparison"]("").axes[0]
    assert sorted(bar.get_height() for bar in ax.patches) == [0.4, 0.5, 0.8, 0.95]
    marks = [line.get_ydata().tolist() for line in ax.lines if line.get_marker() == "D" and len(line.get_ydata())]
    assert marks[0] == [0.9742, 0.7084]


def test_models_and_levels_keep_their_colours():
    assert DRAWN["learning_curves"]("").axes[1].lines[0].get_color() == figures.MODEL_COLOURS["U-Net"]
    assert len(set(figures.LEVEL_COLOURS.values())) == 6


def test_scores_by_level_tell_how_many_patients():
    whole, enlarged = DRAWN["scores_by_level"]("").axes
    assert whole.get_ylim()[0] < 0
    assert enlarged.get_xlabel() == "Vertebra (n = 4 test patients)"


@pytest.mark.parametrize(
    "model, spare",
    [("unet", 0), ("hrnet", 0), ("efficientnet", 320 * 1280 + 2 * 1280), ("tu-resnet18", 0), ("tu-convnext_atto", 0)],
    ids=["unet", "hrnet", "efficientnet", "resnet", "convnext"],
)
def test_a_diagram_accounts_for_every_parameter_and_measured_shape(model, spare):
    network = build(model, unet_channels=8, hrnet="hrnet_w18_small")
    stages, connections = describe(network, 64, 96)
    assert unused(network, stages) == spare
    assert stages["parameters"].sum() + spare == sum(weights.numel() for weights in network.parameters())
    assert stages.iloc[-1][["channels", "height", "width", "stride"]].tolist() == [7, 64, 96, 1]
    assert network.training
    fig = figures.architecture(stages, connections, "title", spare)
    assert set(stages["name"]) <= set(texts(fig))
    assert f"{sum(w.numel() for w in network.parameters()) / 1e6:.2f} million" in " ".join(texts(fig))


@pytest.mark.parametrize(
    "model, expected",
    [("unet", {1: 2, 2: 2, 4: 2, 8: 2})]
    + [(model, {2: 2, 4: 2, 8: 2, 16: 2}) for model in ("efficientnet", "tu-resnet18")],
)
def test_skip_connections_join_stages_of_one_resolution(model, expected):
    stages, connections = describe(build(model, unet_channels=8), 64, 64)
    skips = connections[connections["kind"] == "skip"]
    ends = pd.concat([stages.loc[skips["source"], "stride"], stages.loc[skips["target"], "stride"]])
    assert ends.value_counts().to_dict() == expected


def test_hrnet_s_branches_exchange_with_one_another():
    stages, connections = describe(build("hrnet", hrnet="hrnet_w18_small"), 64, 64)
    last = stages[stages["column"] == 4]
    assert last["stride"].tolist() == [4, 8, 16, 32]
    assert connections["target"].isin(last.index).sum() == 3 * 4


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
    left, right = figures.reliability(bins()).axes
    assert left.lines[1].get_xydata() == pytest.approx(np.array([[50, 50], [100 * 88 / 90, 100 * 80 / 90]]))
    assert right.get_legend().get_texts()[0].get_text() == "U-Net: calibration error 8.0 %, all images"


def test_the_multiverse_shows_every_definition_and_who_leads():
    fig = figures.multiverse(universe(), printed())
    above, below = fig.axes[2], fig.axes[6]  # F1
    assert above.lines[0].get_ydata().tolist() == [0.8, 0.9]
    assert len(below.patches) == 2
    assert {"Precision", "Recall", "F1", "mAP"} <= set(texts(fig))
