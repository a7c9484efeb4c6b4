"""How far the comparison is to be believed: differences, errors taken apart, calibration, parts of the test set."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lumbar_utils import METRICS, MODELS
from lumbar_utils.output.figures.drawing import (
    HALO,
    PAGE,
    RIM,
    SMALLEST,
    keyed,
    lettered,
    look_of,
    noted,
    of_two_widths,
    two_panels,
)

SHARED = "#EEEEEE"  # of a lead that several models have
# ways to go wrong, from harmless to grave and from light to dark (Tol's "muted"); none is a model's or a level's
OUTCOME_COLOURS = {
    "right": "#DDDDDD", "one up": "#88CCEE", "one down": "#44AA99", "other": "#117733", "missing": "#882255",
    "extra": "#332288",
}  # fmt: skip


@of_two_widths
def paired_differences(differences: pd.DataFrame, note: str = "", width: float = PAGE) -> Figure:
    """Model against model, metric by metric: mean difference and 95 % interval about a line at none.

    differences : metric, first, second, difference, low, high; other metrics than those of Table II are left out.
    """
    rows = differences[differences["metric"].isin(list(METRICS))]
    pairs = list(dict.fromkeys(zip(rows["first"], rows["second"], strict=True)))
    metrics = [metric for metric in METRICS if metric in set(rows["metric"])]
    down, across = (1, len(metrics)) if width == PAGE else (len(metrics), 1)
    height = 0.7 + down * (0.2 + 0.24 * len(pairs))
    fig, axes = plt.subplots(down, across, figsize=(width, height), layout="constrained", sharey=True, squeeze=False)
    for ax, metric in zip(axes.flat, metrics, strict=True):
        for place, (first, second) in enumerate(pairs):
            row = rows[(rows["metric"] == metric) & (rows["first"] == first) & (rows["second"] == second)]
            for cell in row.itertuples():
                _whisker(ax, cell.difference, cell.low, cell.high, place, first)
        ax.axvline(0, color="#888888", linewidth=0.7)
        ax.margins(x=0.15)
        ax.xaxis.set_major_locator(plt.MaxNLocator(3))
        ax.tick_params(labelsize=SMALLEST)
    lettered(axes.flat, [METRICS[metric] for metric in metrics])
    names = [f"{MODELS.get(first, first)} - {MODELS.get(second, second)}" for first, second in pairs]
    axes[0, 0].set(yticks=range(len(pairs)), yticklabels=names, ylim=(len(pairs) - 0.5, -0.5))
    said = "Difference in score, first minus second, with 95 % interval over patients"
    fig.supxlabel(said if width == PAGE else said.replace(", with", ",\nwith"), fontsize=7)
    return noted(fig, note, below=True)


def _whisker(ax: Axes, value: float, low: float, high: float, place: float, model: str) -> None:
    """A model's mark with its interval, in a row; an interval that is not known is not drawn."""
    colour, marker, _ = look_of(model)
    if not np.isnan(low):
        ax.plot([low, high], [place, place], color=colour, linewidth=1.2)
    ax.plot(value, place, marker, color=colour, markersize=3.8)


@of_two_widths
def errors(bodies: pd.DataFrame, note: str = "", width: float = PAGE) -> Figure:
    """What became of each vertebra, in per cent of the reference's; beside it the outlines of those found, name aside.

    bodies : model, level, outcome, f1, merged, split; as of an Evaluation.
    """
    import seaborn as sns  # takes seconds

    fig, (left, right) = two_panels(width, 2.4, 3.6, (2, 1))
    models = list(dict.fromkeys(bodies["model"]))
    counts = pd.crosstab(bodies["model"], bodies["outcome"]).reindex(index=models, columns=list(OUTCOME_COLOURS))
    total = bodies[bodies["level"] != ""].groupby("model").size().reindex(models)
    shares, start = (100 * counts.fillna(0)).div(total, axis=0), np.zeros(len(models))
    between = " " if width == PAGE else "\n"
    names = [f"{MODELS.get(model, model)}{between}(n = {total[model]})" for model in models]
    for outcome, colour in OUTCOME_COLOURS.items():
        left.barh(names, shares[outcome], left=start, color=colour, label=outcome, height=0.6, edgecolor="white")
        start += shares[outcome].to_numpy()
    wrong = [f"{100 - share:.1f} % not right" for share in shares["right"]]
    for place, text in enumerate(wrong):
        left.text(1, place, text, fontsize=SMALLEST, va="center", **HALO)
    left.set(xlabel="Vertebrae of the reference (%); extra ones beyond 100", ylim=(len(models) - 0.5, -0.5))
    found = bodies[bodies["f1"].notna()].assign(name=lambda table: table["model"].map(lambda key: MODELS.get(key, key)))
    palette = {MODELS.get(model, model): look_of(model).colour for model in models}
    sns.boxplot(
        found, x="f1", y="name", hue="name", palette=palette, ax=right, linewidth=0.7, fliersize=1.5, saturation=1,
        legend=False, medianprops=HALO,
    )  # fmt: skip
    right.set(xlabel="F1 of the outline, name aside", ylabel="", xlim=(min(0.7, found["f1"].min() - 0.01), 1))
    right.set_yticks([])
    lettered((left, right), ("found and named", "outlined, of those found"))
    keyed(fig, left)
    return noted(fig, note)


@of_two_widths
def reliability(table: pd.DataFrame, note: str = "", width: float = PAGE) -> Figure:
    """How often pixels are right, against how sure the network is of them; the diagonal is perfect calibration.

    table : model, bin, pixels, sureness, right (sums over the pixels of a bin).
    """
    fig, (left, right) = two_panels(width, 2.5, 4.8, (1, 2))
    left.plot([0, 100], [0, 100], color="#888888", linewidth=0.7)
    for model, rows in table[table["pixels"] > 0].groupby("model", sort=False):
        total = rows["pixels"].sum()
        error = (rows["sureness"] - rows["right"]).abs().sum() / total
        kept = rows[rows["pixels"] >= 1e-3 * total]  # a bin of a few pixels tells nothing
        name, (colour, marker, line) = MODELS.get(model, model), look_of(model)
        look = dict(color=colour, marker=marker, linestyle=line, markersize=3.5)
        x = 100 * kept["sureness"] / kept["pixels"]
        left.plot(x, 100 * kept["right"] / kept["pixels"], label=name, **look)
        right.plot(x, 100 * kept["pixels"] / total, label=f"{name}, calibration error {100 * error:.1f} %", **look)
    left.set(xlabel="Probability given (%)", ylabel="Pixels that are right (%)", xlim=(0, 100), ylim=(0, 100))
    left.set_aspect("equal")
    right.set(xlabel="Probability given (%)", ylabel="Pixels of a vertebra (%)", yscale="log")
    lettered((left, right), ("reliability", "how often it is given"))
    keyed(fig, right)
    return noted(fig, note)


@of_two_widths
def groups(table: pd.DataFrame, metric: str = "f1", note: str = "", width: float = PAGE) -> Figure:
    """A metric in parts of the test set, one panel a kind of part, with 95 % intervals over patients.

    table : kind, group, model, value, low, high, n.
    """
    kinds = list(dict.fromkeys(table["kind"]))
    counts = [table.loc[table["kind"] == kind, "group"].nunique() for kind in kinds]
    fig, axes = plt.subplots(
        len(kinds), 1, figsize=(width, 0.5 + sum(0.29 * count + 0.35 for count in counts)), layout="constrained",
        sharex=True, squeeze=False, gridspec_kw={"height_ratios": counts},
    )  # fmt: skip
    models, between = list(dict.fromkeys(table["model"])), "; " if width == PAGE else "\n"
    for ax, kind in zip(axes[:, 0], kinds, strict=True):
        rows = table[table["kind"] == kind]
        parts = sorted(rows["group"].unique(), key=lambda group: (group == "none", group))
        for cell in rows.itertuples():
            place = parts.index(cell.group) + 0.2 * (models.index(cell.model) - (len(models) - 1) / 2)
            _whisker(ax, cell.value, cell.low, cell.high, place, cell.model)
        patients = rows.groupby("group")["n"].max()
        ax.set(yticks=range(len(parts)), yticklabels=[f"{part} (n = {patients[part]})" for part in parts])
        ax.set(ylim=(len(parts) - 0.5, -0.5))
    lettered(axes[:, 0], [f"by {kind}" for kind in kinds])
    axes[-1, 0].set_xlabel(f"{METRICS.get(metric, metric)}, mean with 95 % interval{between}n: patients")
    for model in models:
        colour, marker, _ = look_of(model)
        axes[0, 0].plot([], [], marker=marker, color=colour, markersize=3.8, label=MODELS.get(model, model))
    keyed(fig, axes[0, 0])
    return noted(fig, note)


@of_two_widths
def multiverse(universe: pd.DataFrame, printed: pd.DataFrame, note: str = "", width: float = PAGE) -> Figure:
    """Every definition of a metric as one column of dots, sorted by their mean; below, who leads under it.

    universe : definition, metric (precision, recall, f1, map), model, value. printed : the paper's, without definition.
    """
    names = {"precision": "Precision", "recall": "Recall", "f1": "F1", "map": "mAP"}
    down, across = (1, 4) if width == PAGE else (2, 2)
    fig, axes = plt.subplots(
        2 * down, across, figsize=(width, 0.3 + 2.5 * down), layout="constrained",
        gridspec_kw={"height_ratios": [12, 1] * down},
    )  # fmt: skip
    models = list(dict.fromkeys(universe["model"]))
    for above, below, metric in zip(axes[::2].flat, axes[1::2].flat, names, strict=True):
        wide = universe[universe["metric"] == metric].pivot(index="definition", columns="model", values="value")[models]
        wide = wide.loc[wide.mean(axis=1).sort_values().index].reset_index(drop=True)
        for model in models:
            colour, marker, _ = look_of(model)
            above.plot(wide.index, wide[model], marker, color=colour, markersize=2)
        for cell in printed[printed["metric"] == metric].itertuples():
            colour, marker, _ = look_of(cell.model)
            above.plot(1.08 * len(wide), cell.value, marker, color=colour, markersize=4.5, clip_on=False, **RIM)
        best = wide.round(12).eq(wide.round(12).max(axis=1), axis=0)
        leaders = [look_of(row.idxmax()).colour if row.sum() == 1 else SHARED for _, row in best.iterrows()]
        below.bar(wide.index, 1, width=1, color=leaders)
        below.set(yticks=[], xlabel=f"{len(wide)} definitions", ylim=(0, 1), xlim=above.get_xlim())
        for ax in (above, below):
            ax.set_xticks([])
        below.spines[:].set_visible(False)
    lettered(axes[::2].flat, names.values())
    for above, below in zip(axes[::2, 0], axes[1::2, 0], strict=True):
        above.set_ylabel("Score")
        below.set_ylabel("leads", rotation=0, ha="right", va="center")
    for model in models:
        colour, marker, _ = look_of(model)
        axes[0, 0].plot([], [], marker, color=colour, markersize=4, label=MODELS.get(model, model))
    axes[0, 0].plot([], [], "o", color="white", markersize=4.5, label="printed in the paper, of its images", **RIM)
    keyed(fig, axes[0, 0])
    return noted(fig, note)
