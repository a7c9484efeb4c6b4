"""Numbers are carried to the page as they are."""

import dataclasses
import re

import pandas as pd
import pytest

from lumbar_utils import records
from lumbar_utils.data.folder import Cohort
from lumbar_utils.output import tables
from lumbar_utils.scores import paper, statistics


def summary():
    rows = [("hrnet", "f1", 0.5), ("unet", "map_coco", 0.25), ("unet", "f1", 0.97414), ("mine", "f1", 0.1)]
    return pd.DataFrame(rows, columns=["model", "metric", "value"]).assign(
        low=[0.4, 0.2, 0.96, float("nan")], high=0.99, n=7
    )


def cohort(synthetic=True):
    cases = pd.DataFrame({"case": list("abc"), "patient": ["p", "p", "q"], "split": ["test", "test", "train"]})
    return Cohort(None, "slices", "CC0", synthetic, {}, ("L1", "L2"), cases, "")


def test_the_paper_s_numbers_are_the_paper_s():
    assert [paper.result("unet", metric) for metric in ("precision", "recall", "f1")] == [0.9809, 0.9715, 0.9742]
    assert paper.result("efficientnet", "map_pixel") == paper.result("efficientnet", "map_coco") == 0.7666


def test_table_2_is_tidy_in_the_paper_s_order_and_beside_the_paper():
    table = tables.table2(summary())
    assert list(table.columns) == ["model", "metric", "value", "low", "high", "n", "paper"]
    assert table.head(3).values.tolist() == [
        ["unet", "f1", 0.97414, 0.96, 0.99, 7, 0.9742], ["unet", "map_coco", 0.25, 0.2, 0.99, 7, 0.7084],
        ["hrnet", "f1", 0.5, 0.4, 0.99, 7, 0.7208],
    ]  # fmt: skip
    assert table["paper"].isna().tolist() == [False, False, False, True]  # the paper has not this model


def test_table_2_as_printed():
    printed = tables.print_table2(tables.table2(summary()))
    assert printed.iloc[0].tolist()[:3] == ["F1", "0.9741 [0.960, 0.990]", "0.9742"]
    assert printed.iloc[0].tolist()[-2:] == ["0.1000", ""]  # no interval, and not in the paper
    assert printed.iloc[1].tolist()[:3] == ["mAP (COCO)", "0.2500 [0.200, 0.990]", "0.7084"]


def test_table_1_names_the_machines_that_trained_beside_the_paper_s(tmp_path):
    machine = {
        "CPU": "a CPU",
        "Memory": "24 GB",
        "GPU": "H100",
        "Operating system": "Linux",
        "Software environment": "x",
    }
    for model, environment in {"unet": machine, "hrnet": machine, "mine": machine | {"GPU": "none"}}.items():
        records.mark_finished(tmp_path / model / "fit.json", "", [], provenance={"environment": environment})
    records.mark_finished(tmp_path / "scores.json", "", [])  # by the machine that runs this test, which trained nothing
    table = tables.table1(tmp_path).set_index("item")
    assert table.loc["Memory"].tolist() == ["64 GB", "24 GB"]
    assert table.loc["GPU"].tolist() == ["Quadro RTX 5000", "HRNet, U-Net: H100; mine: none"]


def test_tables_are_written_to_compute_with_and_to_paste(tmp_path):
    table = tables.table2(summary())
    tables.write(tmp_path, "table2", table, tables.print_table2(table), "Scores & more")
    assert pd.read_csv(tmp_path / "table2.csv")["value"].tolist() == table["value"].tolist()
    latex = (tmp_path / "table2.tex").read_text()
    assert all(word in latex for word in (r"\toprule", r"\bottomrule", r"\caption{Scores \& more}", "0.9741"))
    page = (tmp_path / "table2.html").read_text()
    assert "<td>0.9741 [0.960, 0.990]</td>" in page and "<p>Scores &amp; more</p>" in page
    markdown = (tmp_path / "table2.md").read_text()
    assert "| F1" in markdown and "0.9741" in markdown and markdown.endswith("Scores & more\n")


def test_a_table_in_latex_has_as_many_cells_in_each_row_as_columns_and_no_bare_sign(tmp_path):
    odd = pd.DataFrame({"model_a": ["a_b & c", "50 %"], "what": ["x < y", "~#$"]})
    tables.write(tmp_path, "odd", odd, odd, r"{a_b}^2 ~ 50 % of C:\x")
    latex = (tmp_path / "odd.tex").read_text()
    rows = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert [len(re.split(r"(?<!\\)&", row)) for row in rows] == [2, 2, 2]
    assert r"\caption{\{a\_b\}\textasciicircum{}2 \textasciitilde{} 50 \% of C:\textbackslash{}x}" in latex
    assert not re.search(r"(?<!\\)[_%#$]", latex.replace("tab:odd", ""))
    assert r"x \textless{} y" in latex  # in any encoding of fonts


@pytest.mark.parametrize(
    "table, expected",
    [
        pytest.param({"": ["F1"], "U-Net": ["0.9"]}, ("table", "lr"), id="fits a column"),
        pytest.param({"": ["F1"], "what": ["word " * 12]}, ("table*", "ll"), id="fits a page"),
        pytest.param({"a" * 60: ["x"], "1 heading of words": ["0.1"]},
                     ("table*", r"l>{\raggedleft\arraybackslash}p{0.058\linewidth}"), id="a heading is broken"),
        pytest.param({"": ["F1"], "what": ["word " * 100]},
                     ("table*", r"l>{\raggedright\arraybackslash}p{0.958\linewidth}"), id="the longest is broken"),
    ],
)  # fmt: skip
def test_a_table_in_latex_fits_the_column_or_the_page(table, expected):
    assert tables.layout(pd.DataFrame(table))[:2] == expected


def test_a_long_table_goes_on_under_its_number_and_a_wide_one_is_turned(tmp_path):
    long = pd.DataFrame({"case": range(120), "what": "word"})
    tables.write(tmp_path, "long", long, long, "Many cases.")
    latex = (tmp_path / "long.tex").read_text()
    assert latex.count(r"\begin{table}") == 3 and latex.count(r"\caption{(continued)}") == 2
    assert latex.count(r"\addtocounter{table}{-1}") == 2 and latex.count("word") == 120
    wide = pd.DataFrame([["unet", *range(9)], ["hrnet", *range(9)]], columns=["model", *"abcdefghi"])
    tables.write(tmp_path, "wide", wide, wide, "")
    assert (tmp_path / "wide.md").read_text().startswith("|    | unet   | hrnet   |")
    assert list(pd.read_csv(tmp_path / "wide.csv").columns) == ["model", *"abcdefghi"]


def test_long_text_is_whole_in_html(tmp_path):
    table = pd.DataFrame({"claim": ["word " * 40], "evidence": ["none"]})
    tables.write(tmp_path, "claims", table, table, "")
    assert "word " * 39 in (tmp_path / "claims.html").read_text()


def test_a_caption_says_on_what_and_that_it_is_synthetic():
    assert "2 synthetic test images, which say nothing about patients, of 1 patients (slices)" in tables.table2_caption(
        cohort(), {"start_from": "none"}
    )
    assert "synthetic" not in tables.table2_caption(cohort(synthetic=False), {"start_from": "none"})


@pytest.mark.parametrize(
    ("seeds", "start_from", "is_said"),
    [((0, 1, 2), "pretrained", True), ((0, 1, 2), "none", False), ((0,), "phantoms", False)],
)
def test_the_claims_caption_says_where_all_seeds_start_from_the_same_weights(seeds, start_from, is_said):
    one = cohort(synthetic=False)
    cases = pd.concat([one.cases.assign(seed=seed, fold=0) for seed in seeds])
    caption = tables.claims_caption(dataclasses.replace(one, cases=cases), {"start_from": start_from})
    assert ("start from the same trained weights" in caption) == is_said


def test_a_caption_says_that_weights_were_averaged():
    settings = {"start_from": "phantoms", "epochs": 9, "start_share": 0.5}
    assert tables.table2_caption(cohort(synthetic=False), settings).endswith(
        "of this data set; the weights before and after that are averaged, those before with a share of 0.5."
    )


@pytest.mark.parametrize(
    ("start_from", "epochs", "told"),
    [
        ("phantoms", 9, "were trained on phantoms, which are synthetic images, then on patients of this data set."),
        (
            "phantoms",
            0,
            "were trained on phantoms, which are synthetic images; they saw no image of this data set before.",
        ),
        (
            "pretrained",
            9,
            "were trained on phantoms, which are synthetic images, and on patients of SPIDER, then on patients of this "
            "data set.",
        ),
        (
            "/runs/spider-quick-1",
            0,
            "were trained on the data of spider-quick-1; they saw no image of this data set before.",
        ),
    ],
)
def test_a_caption_says_what_networks_were_trained_on_before(start_from, epochs, told):
    settings = {"start_from": start_from, "epochs": epochs}
    assert tables.table2_caption(cohort(synthetic=False), settings).endswith(f" The networks {told}")


def scores(leader, follower, patients=12):
    gap = leader - follower
    table = {"unet": [leader + 0.001 * n for n in range(patients)]}
    table["hrnet"] = [follower - 0.1 * gap * n for n in range(patients)]
    return pd.DataFrame(table | {"efficientnet": [follower - 0.3 - 0.01 * n for n in range(patients)]})


def told(table, synthetic=True):
    """The reading of patients' F1, as where no level is missing."""
    means = table.mean()
    summary = pd.DataFrame({"model": means.index, "metric": "f1", "value": means})
    pairs = statistics.compare(table)
    gaps = pairs[["first", "second", "difference", "low", "high"]].assign(metric="f1")
    return tables.reading(
        summary, gaps, pairs, statistics.probability_not_best(table, means.idxmax()), cohort(synthetic)
    )


def test_the_reading_follows_the_numbers_and_says_what_they_are_of():
    text = told(scores(0.9, 0.8))
    assert text.startswith("By F1: U-Net > HRNet > EfficientNet, not the paper's order (U-Net > EfficientNet > HRNet).")
    assert (
        "the trained U-Net scored higher than the trained HRNet on these images; of fewer than 3 seeds, this says"
        in text
    )
    assert "nothing of architectures. Drawing the patients again, U-Net is not the best in 0 % of the draws" in text
    assert "over 12 patients (Wilcoxon p = 0.001, permutation p = 0.001" in text  # 3 x 2/2^12, the least there is
    assert "Behind it: one split and one seed; others may turn it round." in text
    assert "synthetic test images, which say nothing about patients" in text


def test_a_lead_over_three_seeds_is_one_of_architectures():
    names = ["U-Net", "HRNet"]
    assert tables.describe_lead(names, True, 3) == "U-Net leads on these images"
    assert tables.describe_lead(names, True, 2).endswith("of fewer than 3 seeds, this says nothing of architectures")
    assert tables.describe_lead(names, False, 15) == "U-Net and HRNet do not differ significantly here"


@pytest.mark.parametrize(
    "p, decimals, expected",
    [(0.0059, 3, "= 0.006"), (0.0004, 3, "< 0.001"), (0.00096, 4, "= 0.0010"), (0.0, 4, "< 0.0001"), (1, 3, "= 1.000")],
)
def test_no_p_is_printed_as_none(p, decimals, expected):
    assert tables.p_text(p, decimals) == expected


def test_a_lead_that_chance_explains_is_no_lead():
    noise = [-0.1, 0.09, -0.08, 0.07, -0.06, 0.05, -0.04, 0.03, -0.02, 0.01, 0.0, 0.02]
    text = told(scores(0.9, 0.8).assign(hrnet=lambda table: table["unet"] + noise), synthetic=False)
    assert "U-Net and HRNet do not differ significantly here" in text
    assert "synthetic" not in text


def test_a_few_patients_make_no_lead_and_two_no_doubt():
    assert "U-Net and HRNet do not differ significantly here" in told(scores(0.9, 0.8, patients=8))
    assert "Drawing the patients again" not in told(scores(0.9, 0.8, patients=2))


def test_the_order_is_that_of_table_2_where_patients_means_say_another():
    summary = pd.DataFrame({"model": ["unet", "hrnet"], "metric": "f1", "value": [0.7, 0.85]})
    gaps = pd.DataFrame([("f1", "unet", "hrnet", -0.15, -0.2, -0.1)],
                        columns=["metric", "first", "second", "difference", "low", "high"])  # fmt: skip
    table = pd.DataFrame({"unet": [0.9] * 12, "hrnet": [0.85] * 12})
    text = tables.reading(summary, gaps, statistics.compare(table), 0.5, cohort())
    assert text.startswith("By F1: HRNet > U-Net")
    assert "HRNet is 0.1500 [0.100, 0.200] above U-Net" in text
    assert "HRNet and U-Net do not differ significantly here" in text  # the tests say the opposite


def test_a_comparison_as_printed():
    row = tables.print_comparisons(statistics.compare(scores(0.9, 0.8))).iloc[0]
    assert row.iloc[0] == "U-Net over HRNet"
    assert row["Patients"] == "12"


def test_every_metric_has_a_row_and_tells_its_patients():
    printed = tables.print_metrics(summary())
    assert printed.set_index("metric").loc["f1", ["HRNet", "U-Net", "patients"]].tolist() == [
        "0.5000 [0.400, 0.990]", "0.9741 [0.960, 0.990]", "7",
    ]  # fmt: skip


def test_errors_are_printed_as_counts_and_shares_outlines_as_means():
    rows = [("unet", "missing", 0.07, 0.01, 0.12, 5, 15.0), ("unet", "outline F1", 0.9, 0.8, 0.95, 5, float("nan"))]
    rows += [("mine", "missing", 0.5, float("nan"), float("nan"), 2, 1.0)]
    table = pd.DataFrame(rows, columns=["model", "metric", "value", "low", "high", "n", "count"])
    printed = tables.print_errors(table).set_index("metric")
    assert printed.loc["missing"].tolist() == ["15: 7.0 % [1.0, 12.0]", "1: 50.0 %"]
    assert printed.loc["outline F1"].tolist() == ["0.9000 [0.800, 0.950]", ""]


@pytest.mark.parametrize(
    "runs, words",
    [
        ([(0, 0)], "one split and one seed"),
        ([(0, 0), (1, 0)], "2 seeds (2 runs)"),
        ([(0, 0), (0, 1), (0, 2)], "1 seed on 3 folds (3 runs)"),
        ([(seed, fold) for seed in (0, 1, 2) for fold in (0, 1, 2)], "3 seeds on 3 folds (9 runs)"),
    ],
)
def test_runs_are_counted_in_words(runs, words):
    assert tables.describe_runs(pd.DataFrame(runs, columns=["seed", "fold"])) == words


def test_an_image_under_two_seeds_is_one_image():
    assert tables.images_of(pd.DataFrame({"case": ["a.seed0", "a.seed1"], "case_there": ["a", "a"]})) == 1
    assert tables.images_of(pd.DataFrame({"case": ["a", "b"]})) == 2


def test_the_spread_is_printed_as_a_standard_deviation_with_its_share():
    parts = pd.DataFrame(
        {"what": "unet - hrnet", "part": ["patient", "seed"], "variance": [0.04, float("nan")], "share": 1.0}
    )
    printed = tables.print_variance(parts)
    assert printed.iloc[0].tolist() == ["U-Net - HRNet", "0.2000 (100 %)", "not estimable"]


def test_costs_are_printed_one_column_a_network_in_units_that_can_be_read():
    one = {
        "parameters": 1942391, "multiply_adds": 754974720, "epochs": 9, "training_seconds": 149.7, "latency_ms": 36.76,
        "latency_low_ms": 35.91, "latency_high_ms": 37.98, "memory_mb": 15.04, "device": "cpu", "runs": 3,
    }  # fmt: skip
    printed = tables.print_cost(pd.DataFrame([{"model": "unet", **one}, {"model": "tu-x", **one, "epochs": 5}]))
    assert printed.columns.tolist() == ["", "U-Net", "tu-x"]
    assert printed["U-Net"].tolist() == ["1.94", "0.75", "9", "150", "36.8 [35.9, 38.0]", "15.0", "cpu", "3"]
    assert printed.set_index("").loc["Epochs", "tu-x"] == "5"


def test_what_a_table_rules_out_is_printed_under_the_networks_names():
    printed = tables.print_forensics(pd.DataFrame({"check": ["F1"], "model": ["unet"], "verdict": ["ruled out"]}))
    assert printed.to_dict("records") == [{"reading": "F1", "model": "U-Net", "verdict": "ruled out"}]


def test_a_network_that_has_learnt_next_to_nothing_is_named_with_what_to_change(tmp_path):
    for model, f1 in {"unet": [0.01, 0.04], "hrnet": [0.3, 0.1], "efficientnet": [0.0, 0.0]}.items():
        (tmp_path / model).mkdir()
        pd.DataFrame({"val_f1": f1}).to_csv(tmp_path / model / "history.csv", index=False)
    told = tables.training_warnings(tmp_path)
    assert told.startswith(
        " LEARNT NEXT TO NOTHING: EfficientNet (best validation F1 0.00), U-Net (best validation F1 0.04); such a row"
    )
    assert "epochs" in told and "start_from" in told
    for model in ("unet", "efficientnet"):
        pd.DataFrame({"val_f1": [0.2]}).to_csv(tmp_path / model / "history.csv", index=False)
    assert tables.training_warnings(tmp_path) == ""


def test_a_level_that_no_network_was_taught_is_named(tmp_path):
    records.write_json(tmp_path / "study.json", {"data": {"untaught": ["L5", "S1"]}})
    assert tables.training_warnings(tmp_path) == " Not scored, as it is in no training image: L5, S1."
