"""Figures of how scores vary: between networks, parts of the test set, definitions, runs, worse images, and costs."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from lumbar_utils import METRICS, model_name
from lumbar_utils.output.figures.style import (
    OUTLINED,
    PAGE,
    SMALLEST,
    add_legend,
    contrast_colour,
    finish,
    label_panels,
    panels,
    style_of,
    two_panels,
)
from lumbar_utils.scores.statistics import interval

__all__ = [
    "cost_against_accuracy", "grid_overview", "groups", "multiverse", "paired_differences", "robustness_curves", "runs",
]  # fmt: skip

SHARED_LEAD = "#EEEEEE"  # where several models lead
DEFINED_METRICS = {"precision": "Precision", "recall": "Recall", "f1": "F1", "map": "mAP"}
COSTS = {  # column -> label of the axis, and what its numbers are divided by
    "parameters": ("Parameters (million)", 1e6),
    "multiply_adds": ("Multiply-adds (10⁹)", 1e9),
    "latency_ms": ("Latency: median, quartiles (ms)", 1),
    "training_seconds": ("Training (minutes)", 60),
}
STATE_COLOURS = {"finished": "#D9E8D9", "running": "#56B4E9", "failed": "#882255", "waiting": "#F0F0F0"}
# from what no network can change to what is left; none of them is a model's colour
PART_COLOURS = {"patient": "#BBBBBB", "fold": "#88CCEE", "seed": "#332288", "residual": "#EEEEEE"}
MOST_FLAT = 10  # runs, beyond which their names stand upright
MOST_NAMED = 24  # runs, beyond which squares are too narrow for text


def paired_differences(differences: pd.DataFrame, note: str = "", width: float = PAGE) -> Figure:
    """Model against model, metric by metric: mean difference and 95 % interval about a line at none.

    differences : metric, first, second, difference, low, high; other metrics than those of Table II are left out.
    """
    rows = differences[differences["metric"].isin(list(METRICS))]
    pairs = list(dict.fromkeys(zip(rows["first"], rows["second"], strict=True)))
    metrics = [metric for metric in METRICS if metric in set(rows["metric"])]
    down, across = (1, len(metrics)) if width == PAGE else (len(metrics), 1)
    fig, axes = panels(down, across, (width, 0.7 + down * (0.2 + 0.24 * len(pairs))), sharey=True)
    for ax, metric in zip(axes.flat, metrics, strict=True):
        for row in rows[rows["metric"] == metric].itertuples():
            _draw_interval(ax, row.difference, row.low, row.high, pairs.index((row.first, row.second)), row.first)
        ax.axvline(0, color="#888888", linewidth=0.7)
        ax.margins(x=0.15)
        ax.xaxis.set_major_locator(MaxNLocator(3))
        ax.tick_params(labelsize=SMALLEST)
    label_panels(axes.flat, [METRICS[metric] for metric in metrics])
    names = [_printed(" - ".join(pair)) for pair in pairs]
    axes[0, 0].set(yticks=range(len(pairs)), yticklabels=names, ylim=(len(pairs) - 0.5, -0.5))
    line_end = " " if width == PAGE else "\n"
    fig.supxlabel(f"Difference in score, first minus second,{line_end}with 95 % interval over patients", fontsize=7)
    return finish(fig, note, below=True)


def _printed(models: str) -> str:
    """`unet - hrnet` as `U-Net - HRNet`."""
    return " - ".join(map(model_name, models.split(" - ")))


def _draw_interval(ax: Axes, value: float, low: float, high: float, place: float, model: str) -> None:
    """A model's mark with its interval, in a row; an interval that is not known is not drawn."""
    colour, marker, _ = style_of(model)
    if not np.isnan(low):
        ax.plot([low, high], [place, place], color=colour, linewidth=1.2)
    ax.plot(value, place, marker, color=colour, markersize=3.8)


def groups(table: pd.DataFrame, metric: str = "f1", note: str = "", width: float = PAGE) -> Figure:
    """A metric in parts of the test set, one panel a kind of part, with 95 % intervals over patients.

    table : kind, group, model, value, low, high, n.
    """
    kinds, models = list(dict.fromkeys(table["kind"])), list(dict.fromkeys(table["model"]))
    counts = [table.loc[table["kind"] == kind, "group"].nunique() for kind in kinds]
    height = 0.5 + sum(0.29 * count + 0.35 for count in counts)
    fig, axes = panels(len(kinds), 1, (width, height), sharex=True, gridspec_kw={"height_ratios": counts})
    for ax, kind in zip(axes[:, 0], kinds, strict=True):
        rows = table[table["kind"] == kind]
        parts = sorted(rows["group"].unique(), key=lambda group: (group == "none", group))
        for row in rows.itertuples():
            place = parts.index(row.group) + 0.2 * (models.index(row.model) - (len(models) - 1) / 2)
            _draw_interval(ax, row.value, row.low, row.high, place, row.model)
        patients = rows.groupby("group")["n"].max()
        ax.set(yticks=range(len(parts)), yticklabels=[f"{part} (n = {patients[part]})" for part in parts])
        ax.set(ylim=(len(parts) - 0.5, -0.5))
    label_panels(axes[:, 0], [f"by {kind}" for kind in kinds])
    line_end = "; " if width == PAGE else "\n"
    axes[-1, 0].set_xlabel(f"{METRICS.get(metric, metric)}, mean with 95 % interval{line_end}n: patients")
    for model in models:
        colour, marker, _ = style_of(model)
        axes[0, 0].plot([], [], marker=marker, color=colour, markersize=3.8, label=model_name(model))
    add_legend(fig, axes[0, 0])
    return finish(fig, note)


def multiverse(universe: pd.DataFrame, printed: pd.DataFrame, note: str = "", width: float = PAGE) -> Figure:
    """Every definition of a metric as one column of dots, sorted by their mean; below, who leads under it.

    universe : definition, metric (of DEFINED_METRICS), model, value. printed : the paper's, without definition.
    """
    down, across = (1, 4) if width == PAGE else (2, 2)
    size = (width, 0.3 + 2.5 * down)
    fig, axes = panels(2 * down, across, size, gridspec_kw={"height_ratios": [12, 1] * down})
    models = list(dict.fromkeys(universe["model"]))
    for above, below, metric in zip(axes[::2].flat, axes[1::2].flat, DEFINED_METRICS, strict=True):
        wide = universe[universe["metric"] == metric].pivot(index="definition", columns="model", values="value")[models]
        wide = wide.loc[wide.mean(axis=1).sort_values().index].reset_index(drop=True)
        _draw_definitions(above, wide, printed[printed["metric"] == metric])
        _draw_leaders(below, wide, above.get_xlim())
        above.set_xticks([])
    label_panels(axes[::2].flat, DEFINED_METRICS.values())
    for above, below in zip(axes[::2, 0], axes[1::2, 0], strict=True):
        above.set_ylabel("Score")
        below.set_ylabel("leads", rotation=0, ha="right", va="center")
    for model in models:
        colour, marker, _ = style_of(model)
        axes[0, 0].plot([], [], marker, color=colour, markersize=4, label=model_name(model))
    axes[0, 0].plot([], [], "o", color="white", markersize=4.5, label="printed in the paper, of its images", **OUTLINED)
    add_legend(fig, axes[0, 0])
    return finish(fig, note)


def _draw_definitions(ax: Axes, wide: pd.DataFrame, printed: pd.DataFrame) -> None:
    """Dots of every definition, and the paper's numbers to the right of them. wide : definitions x models."""
    for model in wide:
        colour, marker, _ = style_of(model)
        ax.plot(wide.index, wide[model], marker, color=colour, markersize=2)
    for row in printed.itertuples():
        colour, marker, _ = style_of(row.model)
        ax.plot(1.08 * len(wide), row.value, marker, color=colour, markersize=4.5, clip_on=False, **OUTLINED)


def _draw_leaders(ax: Axes, wide: pd.DataFrame, xlim: tuple[float, float]) -> None:
    """A stripe for each definition in the colour of the model that leads. wide : definitions x models."""
    rounded = wide.round(12)
    leads = rounded.eq(rounded.max(axis=1), axis=0)
    colours = [style_of(row.idxmax()).colour if row.sum() == 1 else SHARED_LEAD for _, row in leads.iterrows()]
    ax.bar(wide.index, 1, width=1, color=colours)
    ax.set(yticks=[], xlabel=f"{len(wide)} definitions", ylim=(0, 1), xlim=xlim)
    ax.set_xticks([])
    ax.spines[:].set_visible(False)


def runs(table: pd.DataFrame, parts: pd.DataFrame, metric: str = "f1", note: str = "", width: float = PAGE) -> Figure:
    """A metric of each network in each run, the mean over runs as a line; beside it where its variance comes from.

    table : model, seed, fold, value, n. parts : what, part, variance, share; empty with a single run.
    """
    fig, (left, right) = two_panels(width, 2.7, 5, (1.5, 1))
    order = sorted(set(zip(table["seed"], table["fold"], strict=True)))
    models = list(dict.fromkeys(table["model"]))
    for number, model in enumerate(models):
        rows = table[table["model"] == model].set_index(["seed", "fold"])["value"].reindex(order)
        x = np.arange(len(order)) + 0.12 * (number - (len(models) - 1) / 2)
        style = style_of(model)
        left.plot(x, rows, style.marker, color=style.colour, markersize=4, label=model_name(model))
        left.axhline(rows.mean(), color=style.colour, linestyle=style.line, linewidth=0.7)
    for place in range(1, len(order)):
        if order[place][0] != order[place - 1][0]:  # another seed
            left.axvline(place - 0.5, color="#CCCCCC", linewidth=0.7)
    left.set_xticks(range(len(order)), [f"{seed} / {fold}" for seed, fold in order], fontsize=SMALLEST)
    left.tick_params(axis="x", rotation=90 if len(order) > MOST_FLAT else 0)
    left.set(xlabel="Seed / fold of the run", ylabel=METRICS.get(metric, metric))
    left.set_xlim(-0.6, len(order) - 0.4)
    count = "1 run" if len(order) == 1 else f"{len(order)} runs, line: mean"
    label_panels((left, right), (count, "where the spread comes from"))
    _variance_bars(right, parts)
    add_legend(fig, left)
    return finish(fig, note)


def _variance_bars(ax: Axes, parts: pd.DataFrame) -> None:
    """One bar a model or difference of two: shares of the variance, which add up, and its root behind them."""
    if parts.empty:
        ax.text(0.5, 0.5, "one run: seeds and splits\ncannot be told from it", ha="center", va="center", fontsize=7)
        ax.axis("off")
        return
    quantities = list(dict.fromkeys(parts["what"]))
    names, start = [_printed(quantity) for quantity in quantities], np.zeros(len(quantities))
    for part, colour in PART_COLOURS.items():
        shares = 100 * parts[parts["part"] == part].set_index("what").reindex(quantities)["share"].fillna(0)
        ax.barh(names, shares, left=start, color=colour, edgecolor="#666666", linewidth=0.4, label=part)
        start += shares.to_numpy()
    total = parts.groupby("what", sort=False)["variance"].sum() ** 0.5
    for place, quantity in enumerate(quantities):
        ax.text(101, place, f"{total[quantity]:.3f}", fontsize=SMALLEST, va="center")
    ax.text(101, -0.75, "SD", fontsize=SMALLEST, va="center")
    ax.set(xlabel="Variance of a patient's F1 in a run (%)", xlim=(0, 113), ylim=(len(quantities) - 0.5, -1))
    ax.set_xticks([0, 50, 100])
    ax.tick_params(labelsize=SMALLEST)
    ax.legend(
        loc="upper center", bbox_to_anchor=(0.45, -0.28), ncols=4, fontsize=SMALLEST, handlelength=1, columnspacing=0.8
    )


def grid_overview(jobs: pd.DataFrame, note: str = "") -> Figure:
    """One square a job: a network in a run, coloured by its state, with its best validation F1 yet in it.

    jobs : as from `progress.table_of`.
    """
    jobs = jobs[jobs["model"] != ""]
    models = list(dict.fromkeys(jobs["model"]))
    order = list(dict.fromkeys(zip(jobs["seed"], jobs["fold"], strict=True)))
    fig, axes = panels(1, 1, (PAGE, 0.9 + 0.3 * len(models)))
    ax = axes[0, 0]
    for job in jobs.itertuples():
        x, y, colour = order.index((job.seed, job.fold)), models.index(job.model), STATE_COLOURS[job.state]
        ax.add_patch(plt.Rectangle((x - 0.47, y - 0.45), 0.94, 0.9, color=colour))
        if len(order) <= MOST_NAMED and not np.isnan(job.val_f1):
            text = ax.text(x, y, f"{job.val_f1:.2f}", ha="center", va="center", fontsize=SMALLEST)
            text.set_color(contrast_colour(colour))
    for state, colour in STATE_COLOURS.items():
        ax.plot([], [], "s", color=colour, markersize=7, label=f"{state} ({(jobs['state'] == state).sum()})")
    ax.set(xlim=(-0.5, len(order) - 0.5), ylim=(len(models) - 0.5, -0.5), xlabel="Seed / fold of the run")
    step = -(-len(order) // MOST_NAMED)
    ax.set_xticks(range(0, len(order), step), [f"{seed} / {fold}" for seed, fold in order[::step]], fontsize=SMALLEST)
    ax.set_yticks(range(len(models)), [model_name(model) for model in models])
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    add_legend(fig, ax)
    return finish(fig, note)


def robustness_curves(table: pd.DataFrame, note: str = "", width: float = PAGE) -> Figure:
    """Mean F1 over patients as images get worse: one panel a kind, one curve a model, from the untouched image on.

    table : model, kind, unit, strength, patient, f1 in [0, 1]; the cases of a patient are averaged. The band is a
        bootstrap 95 % interval over patients; the models see the same ones, so that bands which touch may differ.
    """
    kinds = list(dict.fromkeys(table["kind"]))
    half = -(-len(kinds) // 2)
    down, across = (2, half) if width == PAGE else (half, 2)
    fig, axes = panels(down, across, (width, 1.95 * down), sharey=True)
    for ax, kind in zip(axes.flat, kinds, strict=False):
        rows = table[table["kind"] == kind]
        _draw_kind(ax, rows)
        unit = rows["unit"].iloc[0]
        label = textwrap.fill(unit[:1].upper() + unit[1:], round(16 * width / across))
        ax.set(xlabel=label, ylim=(0, 1))
        ax.tick_params(labelleft=True)
    label_panels(axes.flat[: len(kinds)], kinds)
    for ax in axes[:, 0]:
        ax.set_ylabel("F1, mean over patients")
    patients = table.groupby("model")["patient"].nunique().max()
    title = f"n = {patients} test patients\nband: bootstrap 95 %\nfirst point: untouched"
    options = {"title": title, "title_fontsize": 7, "alignment": "left"}
    handles = axes.flat[0].get_legend_handles_labels()
    if len(kinds) % 2:  # the last panel is free
        axes.flat[-1].axis("off")
        axes.flat[-1].legend(*handles, loc="center left", bbox_to_anchor=(0.1, 0.5), **options)
    else:
        axes.flat[0].legend(*handles, loc="lower left", **options)
    return finish(fig, note)


def _draw_kind(ax: Axes, rows: pd.DataFrame) -> None:
    """The curves of one kind of degradation, on a logarithmic axis where its strength is a factor."""
    for model, own in rows.groupby("model", sort=False):
        by_patient = own.groupby(["strength", "patient"])["f1"].mean().unstack("patient")
        bounds = np.array([_mean_interval(row.dropna().to_numpy()) for _, row in by_patient.iterrows()])
        style = style_of(model)
        ax.fill_between(by_patient.index, *bounds.T, color=style.colour, alpha=0.15, linewidth=0)
        ax.plot(by_patient.index, by_patient.mean(axis=1), markersize=3.5, label=model_name(model), **style.curve())
    strengths = rows["strength"].unique()
    if strengths.min() > 0:
        ax.set_xscale("log")
        ax.set_xticks(strengths, [f"{strength:g}" for strength in strengths])
        ax.minorticks_off()


def _mean_interval(values: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean over patients, as in the tables; nan where there are too few."""
    return interval(lambda rows: values[rows].mean(axis=-1), len(values))


def cost_against_accuracy(costs: pd.DataFrame, summary: pd.DataFrame, note: str = "", width: float = PAGE) -> Figure:
    """F1 against parameters, multiply-adds of an image, its latency and the training of each model; logarithmic axes.

    costs : model and the columns of COSTS, one row a model, as from `cost.cost`; latency_low_ms and latency_high_ms,
        its quartiles, are drawn as a bar. summary : model, metric, value, and low and high where there is an interval.
    """
    f1 = summary[summary["metric"] == "f1"].set_index("model")
    down, across, height = (1, 4, 2.3) if width == PAGE else (2, 2, 3.9)
    fig, axes = panels(down, across, (width, height), sharey=True)
    for ax, (column, (label, unit)) in zip(axes.flat, COSTS.items(), strict=True):
        for row in costs.to_dict("records"):
            _draw_cost(ax, row, f1.loc[row["model"]], column, unit)
        least, most = costs[column].min() / unit, costs[column].max() / unit
        ax.set(xscale="log", xlim=(least / 2, 2 * most), xlabel=label)  # wide, or a narrow axis gets odd ticks
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
    label_panels(axes.flat, ("size", "operations", "latency", "training"))
    axes[0, 0].yaxis.set_major_locator(MaxNLocator(4))
    for ax in axes[:, 0]:
        ax.set_ylabel("F1" + (", 95 % interval" if "low" in f1 else ""))
    add_legend(fig, axes[0, 0])
    return finish(fig, note)


def _draw_cost(ax: Axes, row: dict, f1: pd.Series, column: str, unit: float) -> None:
    x, y = row[column] / unit, f1["value"]
    colour, marker, _ = style_of(row["model"])
    if "low" in f1:
        ax.vlines(x, f1["low"], f1["high"], color=colour, linewidth=1)
    if column == "latency_ms" and "latency_low_ms" in row:
        ax.hlines(y, row["latency_low_ms"] / unit, row["latency_high_ms"] / unit, color=colour, linewidth=1)
    ax.plot(x, y, marker, color=colour, markersize=5, label=model_name(row["model"]))
