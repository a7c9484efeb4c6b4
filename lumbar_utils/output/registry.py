"""Every figure and table of a study, described once: which notebook makes it, its title, its place in the report.

A new figure is a drawing function in `output/figures` and a row of FIGURES here; a new table is a row of TABLES. The
export, the report, grids and the pipeline read these rows, and show figures and tables in this order.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import pandas as pd

from lumbar_utils import MODELS
from lumbar_utils.appendix.definitions import spread_over_definitions
from lumbar_utils.output import tables
from lumbar_utils.scores.metrics import DEFINITIONS

TABLE_FORMATS = ("csv", "tex", "md", "html")
CSV_ONLY = ("csv",)
DIAGRAMS = {"unet": "fig1", "hrnet": "fig2", "efficientnet": "fig3"}  # model -> figure, numbered as in the paper


class Figure(NamedTuple):
    """One figure of a study.

    notebook : number of the notebook that makes it; "" for a grid's, which `run` makes. part : of the report.
    alt : the alternative text, for readers who cannot see the figure.
    of_images : whether it shows a result on images; beside one, the report says that synthetic images are synthetic.
    """

    notebook: str
    part: str
    title: str
    alt: str
    of_images: bool = True


class Table(NamedTuple):
    """One table of a study.

    printed : function from the table as stored to the table as the report prints it. formats : that are stored.
    notebook, part, of_images : as of a Figure.
    """

    notebook: str
    part: str
    printed: Callable[[pd.DataFrame], pd.DataFrame]
    title: str
    formats: tuple[str, ...] = TABLE_FORMATS
    of_images: bool = True


class Part(NamedTuple):
    """A part of the report: its heading, and how to read its tables and figures."""

    heading: str
    words: str


# anchor on the page -> part; what is of `results`, `training`, `data` or `environment` stands in sections of their own
PARTS = {
    "claims": Part(
        "The paper's claims",
        "Judged over three seeds or more, on images of patients. Supported: every difference that a claim needs has "
        "its whole 99 % interval, over patients and seeds, on its side of zero. Contradicted: one has it on the "
        "other side. Undecided: otherwise. On simulated images the claims are not judged.",
    ),
    "forensics": Part("Consistency of the paper's table", "What its printed numbers rule out, without any image."),
    "tests": Part(
        "Statistical tests",
        "Model against model on the same patients. One run shows the uncertainty that patients leave, not that of "
        "another seed or split: for that, a grid of several.",
    ),
    "runs": Part(
        "Variation over seeds and splits",
        "Each run by itself, one seed on one fold, and where the spread over runs and patients comes from.",
    ),
    "definitions": Part(
        "Sensitivity to the metric's definition",
        "The same label maps under every reasonable definition of the four numbers. Where the band of a network is "
        "wider than its lead, a table that does not define its metric cannot be compared with another.",
    ),
    "metrics": Part(
        "All metrics",
        "With 95 % intervals over patients where there are enough. Curves are of the pixels of all images together.",
    ),
    "errors": Part(
        "Error analysis",
        "A mean hides where a network fails; a good outline under a neighbour's name scores as badly as none.",
    ),
    "calibration": Part(
        "Calibration, robustness, computational cost",
        "Whether probabilities can be believed, what worse images do, and what each network costs.",
    ),
    "predictions": Part(
        "Predictions", "Best, median and worst test case of each by F1: figures 5, 6 and 7 of the paper."
    ),
    "networks": Part("The networks", "As built for this study."),
    "more": Part("Further tables and figures", ""),
}


# name, which is that of its files -> figure
FIGURES = {
    "fig4": Figure("01", "data", "Figure 4: the data",
        "Sample images of the data set, with the reference outlines of their vertebrae."),
    "data_overview": Figure("01", "data", "The data at a glance",
        "Grey values of each tissue, areas and centres of each level, patients on each side of the split."),
    "audit": Figure("01", "data", "Findings of the audit",
        "Bars: findings of the audit by kind and severity, or a line that says nothing was found; images of some."),
    "fig1": Figure("02", "networks", "Figure 1: U-Net",
        "Diagram of U-Net's blocks with channels and sizes, encoder left, decoder right.", of_images=False),
    "fig2": Figure("03", "networks", "Figure 2: HRNet",
        "Diagram of HRNet: parallel branches of four resolutions that exchange features.", of_images=False),
    "fig3": Figure("04", "networks", "Figure 3: EfficientNet",
        "Diagram of EfficientNet's blocks with channels and sizes, and its decoder.", of_images=False),
    "table2": Figure("05", "results", "Table II as a picture",
        "Bars: each score of each network with its 95 % interval; diamonds: the paper's."),
    "differences": Figure("05", "tests", "Differences between networks",
        "Each pair of networks: mean difference in each score, interval."),
    "grid": Figure("", "runs", "State of the grid",
        "One square a network, seed and fold, coloured by its state, with the best validation F1 so far."),
    "runs": Figure("06", "runs", "F1 of each run",
        "F1 of each network in each run; bars: where the spread over runs and patients comes from."),
    "multiverse": Figure("06", "definitions", "Scores under every definition",
        "Each score of each network under all its definitions; rimmed: the paper's."),
    "precision_recall": Figure("06", "metrics", "Precision and recall",
        "Precision against recall of pixels as the threshold falls, one panel a level, one curve a network."),
    "f1_by_level": Figure("05", "errors", "F1 by level",
        "Box plots of F1 over test patients, one box a network and vertebral level."),
    "errors": Figure("06", "errors", "Errors by kind",
        "Bars a network: vertebrae found, named rightly, shifted by one, missed, extra."),
    "confusion": Figure("06", "errors", "Confusion of names",
        "Matrices of reference levels against names given, by each network alone and after names were put in order."),
    "groups": Figure("06", "errors", "F1 in parts of the test set",
        "F1 with interval of each network by level, contrast, spacing and finding."),
    "worst": Figure("06", "errors", "The worst cases",
        "The two worst test images of each network, prediction in colour, reference dashed."),
    "reliability": Figure("06", "calibration", "Calibration",
        "Share of right pixels against stated probability, one curve a network."),
    "robustness": Figure("06", "calibration", "Robustness to image degradation",
        "F1 of each network under rising noise, bias, blur, contrast and rotation."),
    "cost": Figure("06", "calibration", "F1 against computational cost",
        "F1 of each network against its size, operations, latency and training time."),
    "fig5": Figure("05", "predictions", "Figure 5: U-Net",
        "Best, median and worst test image of U-Net: image, reference, prediction, differences."),
    "fig6": Figure("05", "predictions", "Figure 6: HRNet",
        "Best, median and worst test image of HRNet: image, reference, prediction, differences."),
    "fig7": Figure("05", "predictions", "Figure 7: EfficientNet",
        "Best, median and worst test image of EfficientNet: image, reference, prediction, differences."),
    "learning_curves": Figure("06", "training", "Learning curves",
        "Training loss, validation loss and validation F1 against epochs."),
}  # fmt: skip


def made_by(rows: Mapping[str, Figure | Table], notebook: str) -> list[str]:
    """Names of the figures or tables, rows of FIGURES or TABLES, that the notebook of this number makes."""
    return [name for name, row in rows.items() if row.notebook == notebook]


def drawn_from_scores() -> list[str]:
    """Names of the figures that notebooks 05 and 06 draw from the scores of label maps."""
    return [*made_by(FIGURES, "05"), *made_by(FIGURES, "06")]


def figure(name: str) -> Figure:
    """The row of a figure; for a name that is not in FIGURES, that of a further network's diagram."""
    further = Figure("02 to 04", "more", name, f"Figure {name} of this study; see its title.")
    return FIGURES.get(name, further)


def _print_claims(table: pd.DataFrame) -> pd.DataFrame:
    """All evidence rests on the same data: the caption names them once, instead of every row."""
    evidence = table["evidence"].str.replace(r" Data: .*$", "", regex=True)
    return table.assign(evidence=evidence)[["claim", "verdict", "place", "evidence"]]


def _print_multiverse(table: pd.DataFrame) -> pd.DataFrame:
    return spread_over_definitions(table).rename(columns=_column_title)


def _column_title(column: str) -> str:
    """`unet_low` as `U-Net, low`; a model's own name may hold underscores too."""
    model, _, quantity = column.rpartition("_")
    return f"{MODELS.get(model, model)}, {quantity}" if model else quantity


def _print_metrics(table: pd.DataFrame) -> pd.DataFrame:
    printed = tables.print_metrics(table)
    names = printed["metric"].str.removesuffix("_mm").str.removesuffix("_px")
    return printed.assign(definition=names.map(DEFINITIONS).fillna(""))


def _print_groups(table: pd.DataFrame) -> pd.DataFrame:
    texts = [tables.interval_text(row.value, row.low, row.high) for row in table.itertuples()]
    named = table.replace({"model": MODELS}).assign(F1=texts, patients=table["n"])
    return named[["kind", "group", "model", "F1", "patients"]]


# name, which is that of its files -> table
TABLES = {
    "table1": Table("05", "environment", tables.print_table1, "Table I: the environment, the paper's and this study's",
        of_images=False),
    "table2": Table("05", "results", tables.print_table2, "Table II: scores on the test images"),
    "claims": Table("05", "claims", _print_claims, "Verdicts on the paper's claims"),
    "forensics": Table("06", "forensics", tables.print_forensics, "What the paper's own numbers rule out",
        of_images=False),
    "comparisons": Table("05", "tests", tables.print_comparisons, "Paired tests between the networks"),
    "variance": Table("06", "runs", tables.print_variance, "Where the spread of F1 comes from"),
    "runs": Table("06", "runs", tables.print_runs, "F1 of each run", CSV_ONLY),
    "multiverse": Table("06", "definitions", _print_multiverse, "How far definitions move each score, and who leads",
        CSV_ONLY),
    "metrics": Table("06", "metrics", _print_metrics, "Every metric, with its definition"),
    "errors": Table("06", "errors", tables.print_errors, "Errors by kind: found, named, outlined"),
    "groups": Table("06", "errors", _print_groups, "F1 of parts of the test set", CSV_ONLY),
    "cost": Table("06", "calibration", tables.print_cost, "Computational cost of each network"),
}  # fmt: skip


def print_table(name: str, stored: pd.DataFrame) -> pd.DataFrame:
    """A table as it stands on the page, all cells text."""
    return TABLES[name].printed(stored).map(cell_text)


def cell_text(value) -> str:
    """A cell as text: at most three decimals, thousands set apart, nothing for a missing value."""
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return ""
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return f"{value:,}"
