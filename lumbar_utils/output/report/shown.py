"""Every figure and table that a study makes: in which part of the page, under what title, and how it is printed."""

from collections.abc import Callable
from typing import NamedTuple

import pandas as pd

from lumbar_utils import MODELS
from lumbar_utils.appendix.multiverse import spread
from lumbar_utils.output import tables
from lumbar_utils.scores.metrics import DEFINITIONS

NOT_OF_IMAGES = {"table1", "forensics", "fig1", "fig2", "fig3"}  # the only ones that hold no result on images


class Part(NamedTuple):
    """A part of the page: its heading, how to read it, its tables and figures by name."""

    anchor: str
    heading: str
    words: str
    tables: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()


PARTS = (
    Part(
        "claims",
        "The paper's claims, one by one",
        "Judged over three seeds or more, on images of patients. Supported: every difference that a claim needs has "
        "its whole 99 % interval, over patients and seeds, on its side of zero. Contradicted: one has it on the "
        "other side. Undecided: otherwise. On simulated images the claims are not judged.",
        ("claims",),
    ),
    Part(
        "forensics",
        "The paper's table, examined by itself",
        "What its printed numbers rule out, without any image.",
        ("forensics",),
    ),
    Part(
        "sure",
        "How sure",
        "Model against model on the same patients. One run shows the doubt that patients leave, not that of another "
        "seed or split: for that, a grid of several.",
        ("comparisons",),
        ("differences",),
    ),
    Part(
        "runs",
        "Over seeds and splits",
        "Each run apart, one seed on one fold, and where the spread over runs and patients comes from.",
        ("variance", "runs"),
        ("grid", "runs"),
    ),
    Part(
        "definitions",
        "Under every definition",
        "The same label maps under every reasonable definition of the four numbers. Where the band of a network is "
        "wider than its lead, a table that does not define its metric cannot be compared with another.",
        ("multiverse",),
        ("multiverse",),
    ),
    Part(
        "metrics",
        "Every metric",
        "With 95 % intervals over patients where there are enough. Curves are of the pixels of all images together.",
        ("metrics",),
        ("precision_recall",),
    ),
    Part(
        "errors",
        "Where they fail",
        "A mean hides where a network fails; a good outline under a neighbour's name scores as badly as none.",
        ("errors", "groups"),
        ("f1_by_level", "errors", "error_map", "confusion", "groups", "worst"),
    ),
    Part(
        "trust",
        "Certainty, worse images, cost",
        "Whether probabilities can be believed, what worse images do, and what each network costs.",
        ("cost",),
        ("reliability", "robustness", "cost"),
    ),
    Part(
        "drawn",
        "What the networks draw",
        "Best, median and worst test case of each by F1: figures 5, 6 and 7 of the paper.",
        (),
        ("fig5", "fig6", "fig7"),
    ),
    Part("networks", "The networks", "As built for this study.", (), ("fig1", "fig2", "fig3")),
)
DATA_FIGURES = ("fig4", "data_overview", "audit")

TITLES = {
    "table1": "Table I: the environment, the paper's and this study's",
    "table2": "Table II: scores on the test images",
    "claims": "Verdicts on the paper's claims",
    "forensics": "What the paper's own numbers rule out",
    "comparisons": "Paired tests between the networks",
    "multiverse": "How far definitions move each score, and who leads",
    "metrics": "Every metric, with its definition",
    "errors": "Errors taken apart: found, named, outlined",
    "groups": "F1 of parts of the test set",
    "cost": "What each network costs",
    "runs": "F1 of each run",
    "variance": "Where the spread of F1 comes from",
}

# name -> title, and what a reader who cannot see it is told; the numbers are in the tables
FIGURES = {
    "table2": (
        "Table II as a picture",
        "Bars: each score of each network with its 95 % interval; diamonds: the paper's.",
    ),
    "differences": ("Differences between networks", "Each pair of networks: mean difference in each score, interval."),
    "runs": (
        "Each run apart",
        "F1 of each network in each run; bars: where the spread over runs and patients comes from.",
    ),
    "multiverse": ("Every definition", "Each score of each network under all its definitions; rimmed: the paper's."),
    "precision_recall": (
        "Precision and recall",
        "Precision against recall of pixels as the threshold falls, one panel a level, one curve a network.",
    ),
    "f1_by_level": ("F1 by level", "Box plots of F1 over test patients, one box a network and vertebral level."),
    "errors": ("Errors taken apart", "Bars a network: vertebrae found, named rightly, shifted by one, missed, extra."),
    "error_map": (
        "Errors on the anatomy",
        "A mean spine for each network, coloured by the share of test images with a wrong outline, or a wrong name, "
        "at that place.",
    ),
    "confusion": (
        "Names given",
        "Matrices of levels in the reference against names given, by each network alone and after names were put in "
        "order.",
    ),
    "groups": ("Parts of the test set", "F1 with interval of each network by level, contrast, spacing and finding."),
    "worst": ("The worst cases", "The two worst test images of each network, prediction in colour, reference dashed."),
    "reliability": ("Reliability", "Share of right pixels against stated probability, one curve a network."),
    "robustness": ("On worse images", "F1 of each network under rising noise, bias, blur, contrast and rotation."),
    "cost": ("F1 against cost", "F1 of each network against its size, operations, latency and training time."),
    "fig5": ("Figure 5: U-Net", "Best, median and worst test image of U-Net: image, reference, prediction, faults."),
    "fig6": ("Figure 6: HRNet", "Best, median and worst test image of HRNet: image, reference, prediction, faults."),
    "fig7": ("Figure 7: EfficientNet", "Best, median and worst test image of EfficientNet: as in figure 5."),
    "learning_curves": ("Learning curves", "Training loss, validation loss and validation F1 against epochs."),
    "fig1": ("Figure 1: U-Net", "Diagram of U-Net's blocks with channels and sizes, encoder left, decoder right."),
    "fig2": ("Figure 2: HRNet", "Diagram of HRNet: parallel branches of four resolutions that exchange features."),
    "fig3": ("Figure 3: EfficientNet", "Diagram of EfficientNet's blocks with channels and sizes, and its decoder."),
    "fig4": ("Figure 4: the data", "Sample images of the data set, with the reference outlines of their vertebrae."),
    "data_overview": ("The data at a glance", "Counts of patients, levels and image properties on each side."),
    "audit": ("What the audit found", "Images with findings of the audit, or a line that says nothing was found."),
}


def printed(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """A table as it stands on the page, all cells text; one that is not known here as it is."""
    ready = PRINTERS[name](table) if name in PRINTERS and len(table) else table
    return ready.map(cell_text)


def cell_text(value) -> str:
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return ""
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else f"{value:,}"


def _named(table: pd.DataFrame) -> pd.DataFrame:
    return table.replace({"model": MODELS})


def _claims(table: pd.DataFrame) -> pd.DataFrame:
    """The same data stand behind all evidence: said once, in the caption, and not in each row."""
    brief = table["evidence"].str.replace(r" Data: .*$", "", regex=True)
    return table.assign(evidence=brief)[["claim", "verdict", "place", "evidence"]]


def _multiverse(table: pd.DataFrame) -> pd.DataFrame:
    return spread(table).rename(columns=_of_model)


def _of_model(column: str) -> str:
    """`unet_low` as `U-Net, low`; a model's own name may hold the sign too."""
    model, _, what = column.rpartition("_")
    return f"{MODELS.get(model, model)}, {what}" if model else what


def _metrics(table: pd.DataFrame) -> pd.DataFrame:
    ready = tables.print_metrics(table)
    meanings = ready["metric"].map(lambda metric: DEFINITIONS.get(metric.removesuffix("_mm").removesuffix("_px"), ""))
    return ready.assign(definition=meanings)


def _groups(table: pd.DataFrame) -> pd.DataFrame:
    texts = [tables.interval_text(row.value, row.low, row.high) for row in table.itertuples()]
    ready = _named(table.assign(f1=texts, patients=table["n"]))
    return ready[["kind", "group", "model", "f1", "patients"]].rename(columns={"f1": "F1"})


PRINTERS: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "table1": tables.print_table1,
    "table2": tables.print_table2,
    "claims": _claims,
    "forensics": tables.print_forensics,
    "comparisons": tables.print_comparisons,
    "multiverse": _multiverse,
    "metrics": _metrics,
    "errors": tables.print_errors,
    "groups": _groups,
    "cost": tables.print_cost,
    "runs": tables.print_runs,
    "variance": tables.print_variance,
}
