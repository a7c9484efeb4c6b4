"""Numbers are carried to the page as they are."""

import pandas as pd
import pytest

from lumbar_utils import paper, tables
from lumbar_utils.datasets.folder import Cohort


def summary():
    rows = [("hrnet", "f1", 0.5), ("unet", "map_coco", 0.25), ("unet", "f1", 0.97414), ("mine", "f1", 0.1)]
    return pd.DataFrame(rows, columns=["model", "metric", "value"])


def cohort(synthetic=True):
    cases = pd.DataFrame({"case": list("abc"), "patient": ["p", "p", "q"], "split": ["test", "test", "train"]})
    return Cohort(None, "slices", "CC0", synthetic, {}, ("L1", "L2"), cases, "")


def test_the_paper_s_numbers_are_the_paper_s():
    assert [paper.result("unet", metric) for metric in ("precision", "recall", "f1")] == [0.9809, 0.9715, 0.9742]
    assert paper.result("efficientnet", "map_pixel") == paper.result("efficientnet", "map_coco") == 0.7666


def test_table_2_is_tidy_in_the_paper_s_order_and_beside_the_paper():
    table = tables.table2(summary())
    assert list(table.columns) == ["model", "metric", "value", "paper"]
    assert table.head(3).values.tolist() == [
        ["unet", "f1", 0.97414, 0.9742], ["unet", "map_coco", 0.25, 0.7084], ["hrnet", "f1", 0.5, 0.7208],
    ]  # fmt: skip
    assert table["paper"].isna().tolist() == [False, False, False, True]  # the paper has not this model


def test_table_2_as_printed():
    printed = tables.print_table2(tables.table2(summary()))
    assert printed.iloc[0].tolist()[:3] == ["F1", "0.9741", "0.9742"]
    assert printed.iloc[1].tolist()[:3] == ["mAP (COCO)", "0.2500", "0.7084"]


def test_table_1_sets_this_environment_beside_the_paper_s():
    table = tables.table1({"Memory": "24 GB", "GPU": "none"})
    assert table.values.tolist() == [["Memory", "64 GB", "24 GB"], ["GPU", "Quadro RTX 5000", "none"]]


def test_tables_are_written_to_compute_with_and_to_paste(tmp_path):
    table = tables.table2(summary())
    tables.write(tmp_path, "table2", table, tables.print_table2(table), "Scores & more")
    assert pd.read_csv(tmp_path / "table2.csv")["value"].tolist() == table["value"].tolist()
    latex = (tmp_path / "table2.tex").read_text()
    assert all(word in latex for word in (r"\toprule", r"\bottomrule", r"\caption{Scores \& more}", "0.9741"))
    markdown = (tmp_path / "table2.md").read_text()
    assert "| F1" in markdown and "0.9741" in markdown and markdown.endswith("Scores & more\n")


def test_a_caption_says_on_what_and_that_it_is_synthetic():
    assert "2 test images of 1 patients (slices; synthetic images, which say nothing" in tables.caption2(cohort())
    assert "synthetic" not in tables.caption2(cohort(synthetic=False))


def scores(leader, follower):
    rows = [(f"p{n}", "unet", leader + 0.001 * n) for n in range(5)]
    rows += [(f"p{n}", "hrnet", follower + 0.001 * n * (-1) ** n) for n in range(5)]
    return pd.DataFrame(rows, columns=["patient", "model", "value"]).assign(metric="f1", level="L1")


@pytest.mark.parametrize(
    "leader, follower, words",
    [
        (0.9, 0.5, "U-Net leads on these images"),
        (0.900, 0.901, "this run cannot tell U-Net and HRNet apart"),
    ],
)
def test_the_reading_follows_the_numbers_and_says_what_they_are_of(leader, follower, words):
    text = tables.reading(scores(leader, follower), cohort())
    assert words in text
    assert "over 5 patients" in text
    assert "synthetic images: no number here says anything about patients" in text
    assert "One split and one seed" in text
