"""Figures of how scores vary, with captions: over networks, subgroups, definitions, runs, degraded images, costs."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from lumbar_utils import METRICS, model_name
from lumbar_utils.appendix.definitions import spread_over_definitions
from lumbar_utils.data.folder import Cohort
from lumbar_utils.output.figures.style import (
    OUTLINED,
    PAGE,
    SMALLEST,
    add_legend,
    contrast_colour,
    finish,
    label_panels,
    panels,
    stacked_bars,
    style_of,
)
from lumbar_utils.output.tables import (
    describe_data,
    describe_runs,
    difference_name,
    interval_text,
    intervals_text,
    percent,
    scores_text,
    seeds_of,
    with_intervals,
)
from lumbar_utils.scores.summary import leads

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


def paired_differences(differences: pd.DataFrame, note: str = "") -> Figure:
    """Model against model, metric by metric: mean difference and 95 % interval about a line at none.

    differences : metric, first, second, difference, low, high; other metrics than those of Table II are left out.
    """
    rows = differences[differences["metric"].isin(list(METRICS))]
    pairs = list(dict.fromkeys(zip(rows["first"], rows["second"], strict=True)))
    metrics = [metric for metric in METRICS if metric in set(rows["metric"])]
    fig, axes = panels(1, len(metrics), (PAGE, 0.9 + 0.24 * len(pairs)), sharey=True)
    for ax, metric in zip(axes.flat, metrics, strict=True):
        for row in rows[rows["metric"] == metric].itertuples():
            _draw_interval(ax, row.difference, row.low, row.high, pairs.index((row.first, row.second)), row.first)
        ax.axvline(0, color="#888888", linewidth=0.7)
        ax.margins(x=0.15)
        ax.xaxis.set_major_locator(MaxNLocator(3))
        ax.tick_params(labelsize=SMALLEST)
    label_panels(axes.flat, [METRICS[metric] for metric in metrics])
    names = [difference_name(" - ".join(pair)) for pair in pairs]
    axes[0, 0].set(yticks=range(len(pairs)), yticklabels=names, ylim=(len(pairs) - 0.5, -0.5))
    label = "Difference in score, first minus second, with 95 % interval over patients"
    fig.supxlabel("\n".join([label, *textwrap.wrap(note, 129)]), fontsize=6.5)
    return finish(fig, "")


def paired_differences_caption(gaps: pd.DataFrame, cohort: Cohort) -> str:
    """gaps : as from `summary.differences`."""
    f1 = [
        f"{model_name(row.first)} - {model_name(row.second)} {interval_text(row.difference, row.low, row.high)}"
        for row in gaps[gaps["metric"] == "f1"].itertuples()
    ]
    units = "patients and seeds" if seeds_of(cohort.cases) > 1 else "patients"
    return (
        f"Model against model on the same patients: differences in score {with_intervals(gaps, cohort, units)}. "
        f"F1: {'; '.join(f1)}. Data: {describe_data(cohort)}."
    )


def _draw_interval(ax: Axes, value: float, low: float, high: float, place: float, model: str) -> None:
    """A model's mark with its interval, in a row; an interval that is not known is not drawn."""
    colour, marker, _ = style_of(model)
    if not np.isnan(low):
        ax.plot([low, high], [place, place], color=colour, linewidth=1.2)
    ax.plot(value, place, marker, color=colour, markersize=3.8)


def groups(table: pd.DataFrame, note: str = "") -> Figure:
    """F1 in parts of the test set, one panel a kind of part, with 95 % intervals over patients.

    table : kind, group, model, value, low, high, n.
    """
    kinds, models = list(dict.fromkeys(table["kind"])), list(dict.fromkeys(table["model"]))
    counts = [table.loc[table["kind"] == kind, "group"].nunique() for kind in kinds]
    height = 0.5 + sum(0.29 * count + 0.35 for count in counts)
    fig, axes = panels(len(kinds), 1, (PAGE, height), sharex=True, height_ratios=counts)
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
    axes[-1, 0].set_xlabel("F1, mean with 95 % interval; n: patients")
    for model in models:
        colour, marker, _ = style_of(model)
        axes[0, 0].plot([], [], marker=marker, color=colour, markersize=3.8, label=model_name(model))
    add_legend(fig, axes[0, 0])
    return finish(fig, note)


def groups_caption(table: pd.DataFrame, cohort: Cohort) -> str:
    """table : kind, group, model, value, low, high, n; of F1."""
    lowest = table.loc[table["value"].idxmin()]
    none = "None: vertebrae without a finding; a patient may have both. " if "none" in set(table["group"]) else ""
    return (
        f"F1 in parts of the test set by {', '.join(dict.fromkeys(table['kind']))}, {with_intervals(table, cohort)}. "
        f"The lowest is {interval_text(lowest['value'], lowest['low'], lowest['high'])}, of "
        f"{model_name(lowest['model'])} for {lowest['group']} (n = {lowest['n']}). {none}Data: {describe_data(cohort)}."
    )


def multiverse(universe: pd.DataFrame, printed: pd.DataFrame, note: str = "") -> Figure:
    """Every definition of a metric as one column of dots, sorted by their mean; below, who leads under it.

    universe : definition, metric (of DEFINED_METRICS), model, value. printed : the paper's, without definition.
    """
    fig, axes = panels(2, 4, (PAGE, 2.8), height_ratios=(12, 1))
    models = list(dict.fromkeys(universe["model"]))
    for above, below, metric in zip(*axes, DEFINED_METRICS, strict=True):
        wide = universe[universe["metric"] == metric].pivot(index="definition", columns="model", values="value")[models]
        wide = wide.loc[wide.mean(axis=1).sort_values().index].reset_index(drop=True)
        for model in models:
            colour, marker, _ = style_of(model)
            above.plot(wide.index, wide[model], marker, color=colour, markersize=2)
        for row in printed[printed["metric"] == metric].itertuples():  # to the right of the definitions
            colour, marker, _ = style_of(row.model)
            above.plot(1.08 * len(wide), row.value, marker, color=colour, markersize=4.5, clip_on=False, **OUTLINED)
        _draw_leaders(below, wide)
        below.set(yticks=[], xticks=[], xlabel=f"{len(wide)} definitions", ylim=(0, 1), xlim=above.get_xlim())
        above.set_xticks([])
    label_panels(axes[0], DEFINED_METRICS.values())
    axes[0, 0].set_ylabel("Score")
    axes[1, 0].set_ylabel("leads", rotation=0, ha="right", va="center")
    for model in models:
        colour, marker, _ = style_of(model)
        axes[0, 0].plot([], [], marker, color=colour, markersize=4, label=model_name(model))
    axes[0, 0].plot([], [], "o", color="white", markersize=4.5, label="printed in the paper, of its images", **OUTLINED)
    add_legend(fig, axes[0, 0])
    return finish(fig, note)


def _draw_leaders(ax: Axes, wide: pd.DataFrame) -> None:
    """A stripe for each definition in the colour of the model that leads. wide : definitions x models."""
    rounded = wide.round(12)
    leads = rounded.eq(rounded.max(axis=1), axis=0)
    colours = leads.idxmax(axis=1).map(lambda model: style_of(model).colour).where(leads.sum(axis=1) == 1, SHARED_LEAD)
    ax.bar(wide.index, 1, width=1, color=colours)
    ax.spines[:].set_visible(False)


def multiverse_caption(universe: pd.DataFrame, cohort: Cohort) -> str:
    """universe : definition, metric, model, value."""
    (f1,) = spread_over_definitions(universe).query("metric == 'f1'").to_dict("records")
    models = dict.fromkeys(universe["model"])
    counts = ", ".join(f"{model_name(model)} leads under {f1[f'{model}_leads']}" for model in models)
    return (
        "The same label maps under every definition of each metric, sorted by the mean; rimmed marks are the paper's "
        f"numbers, of its own images. Of {f1['definitions']} definitions of F1, {counts}. "
        f"Data: {describe_data(cohort)}."
    )


def runs(table: pd.DataFrame, parts: pd.DataFrame, note: str = "") -> Figure:
    """F1 of each network in each run, the mean over runs as a line; beside it where its variance comes from.

    table : model, seed, fold, value, n. parts : what, part, variance, share; empty with a single run.
    """
    fig, ((left, right),) = panels(1, 2, (PAGE, 2.7), width_ratios=(1.5, 1))
    wide = table.pivot(index=["seed", "fold"], columns="model", values="value")
    models = list(dict.fromkeys(table["model"]))
    for number, model in enumerate(models):
        style = style_of(model)
        x = np.arange(len(wide)) + 0.12 * (number - (len(models) - 1) / 2)
        left.plot(x, wide[model], style.marker, color=style.colour, markersize=4, label=model_name(model))
        left.axhline(wide[model].mean(), color=style.colour, linestyle=style.line, linewidth=0.7)
    seeds = wide.index.get_level_values("seed")
    for place in np.flatnonzero(seeds[1:] != seeds[:-1]):  # another seed
        left.axvline(place + 0.5, color="#CCCCCC", linewidth=0.7)
    left.set_xticks(range(len(wide)), [f"{seed} / {fold}" for seed, fold in wide.index], fontsize=SMALLEST)
    left.tick_params(axis="x", rotation=90 if len(wide) > MOST_FLAT else 0)
    left.set(xlabel="Seed / fold of the run", ylabel="F1", xlim=(-0.6, len(wide) - 0.4))
    count = "1 run" if len(wide) == 1 else f"{len(wide)} runs, line: mean"
    label_panels((left, right), (count, "where the spread comes from"))
    _variance_bars(right, parts)
    add_legend(fig, left)
    return finish(fig, note)


def _variance_bars(ax: Axes, parts: pd.DataFrame) -> None:
    """One bar a model or difference of two: shares of the variance, which add up, and its root behind them."""
    if parts.empty:
        ax.text(0.5, 0.5, "a single run has no variance\nover seeds and splits", ha="center", va="center", fontsize=7)
        ax.axis("off")
        return
    total = parts.groupby("what", sort=False)["variance"].sum() ** 0.5
    shares = 100 * parts.pivot(index="what", columns="part", values="share")
    shares = shares.reindex(index=total.index, columns=list(PART_COLOURS)).fillna(0).rename(difference_name)
    stacked_bars(ax, shares, PART_COLOURS, edgecolor="#666666", linewidth=0.4)
    for place, deviation in enumerate(total):
        ax.text(101, place, f"{deviation:.3f}", fontsize=SMALLEST, va="center")
    ax.text(101, -0.75, "SD", fontsize=SMALLEST, va="center")
    ax.set(xlabel="Variance of a patient's F1 in a run (%)", xlim=(0, 113), ylim=(len(total) - 0.5, -1))
    ax.set_xticks([0, 50, 100])
    ax.tick_params(labelsize=SMALLEST)
    ax.legend(
        loc="upper center", bbox_to_anchor=(0.45, -0.28), ncols=4, fontsize=SMALLEST, handlelength=1, columnspacing=0.8
    )


def runs_caption(table: pd.DataFrame, parts: pd.DataFrame, cohort: Cohort) -> str:
    """table, parts : as from `summary.by_run` and `summary.variance_of_runs`."""
    counts = ", ".join(f"{model_name(model)} in {count}" for model, count in leads(table).items())
    variance = "A single run has no variance over runs."
    if len(parts):
        shares = parts[(parts["part"] == "patient") & parts["what"].isin(table["model"])].set_index("what")["share"]
        patients = ", ".join(f"{percent(share)} for {model_name(model)}" for model, share in shares.dropna().items())
        of_patients = f" Of the variance of a patient's F1, patients make up {patients}." if patients else ""
        variance = (
            f"The variance divided among patients, folds and seeds; SD: its root.{of_patients} Runs of one seed share "
            "patients to train on, so they are no independent repetitions."
        )
    return (
        f"(a) F1 of each network in each run, a seed on a fold, lines: means; {describe_runs(cohort.cases)}. Highest: "
        f"{counts}. (b) {variance} Data: {describe_data(cohort)}."
    )


def grid_overview(jobs: pd.DataFrame, note: str = "") -> Figure:
    """One square a job: a network in a run, coloured by its state, with its best validation F1 yet in it.

    jobs : as from `pipeline.table_of`.
    """
    jobs = jobs[jobs["model"] != ""]
    models = list(dict.fromkeys(jobs["model"]))
    order = list(dict.fromkeys(zip(jobs["seed"], jobs["fold"], strict=True)))
    fig, ((ax,),) = panels(1, 1, (PAGE, 0.9 + 0.3 * len(models)))
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


def grid_overview_caption(jobs: pd.DataFrame) -> str:
    """jobs : as from `pipeline.table_of`."""
    counts = jobs.loc[jobs["model"] != "", "state"].value_counts()
    states = ", ".join(f"{count} {state}" for state, count in counts.items())
    return (
        f"Jobs of the grid, one a network, seed and fold, by state ({states}), with the best F1 on the validation "
        "patients of that run, on which the epoch is chosen: it says nothing of test patients."
    )


def robustness_curves(table: pd.DataFrame, note: str = "") -> Figure:
    """Mean F1 over patients as images get worse: one panel a kind, one curve a model, from the untouched image on.

    table : as from `summary.by_strength`; its intervals are drawn as bands.
    """
    kinds = list(dict.fromkeys(table["kind"]))
    across = -(-len(kinds) // 2)
    fig, axes = panels(2, across, (PAGE, 3.9), sharey=True)
    for ax, kind in zip(axes.flat, kinds, strict=False):
        rows = table[table["kind"] == kind]
        _draw_kind(ax, rows)
        unit = rows["unit"].iloc[0]
        label = textwrap.fill(unit[:1].upper() + unit[1:], round(16 * PAGE / across))
        ax.set(xlabel=label, ylim=(0, 1))
        ax.tick_params(labelleft=True)
    label_panels(axes.flat, kinds)
    for ax in axes[:, 0]:
        ax.set_ylabel("F1, mean over patients")
    title = f"n = {table['n'].max()} test patients\nband: bootstrap 95 %\nfirst point: untouched"
    options = {"title": title, "title_fontsize": 7, "alignment": "left"}
    handles = axes.flat[0].get_legend_handles_labels()
    axes.flat[-1].axis("off")  # of the five kinds none is there
    axes.flat[-1].legend(*handles, loc="center left", bbox_to_anchor=(0.1, 0.5), **options)
    return finish(fig, note)


def _draw_kind(ax: Axes, rows: pd.DataFrame) -> None:
    """The curves of one kind of degradation, on a logarithmic axis where its strength is a factor."""
    for model, own in rows.groupby("model", sort=False):
        style = style_of(model)
        ax.fill_between(own["strength"], own["low"], own["high"], color=style.colour, alpha=0.15, linewidth=0)
        ax.plot(own["strength"], own["value"], markersize=3.5, label=model_name(model), **style.curve())
    strengths = rows["strength"].unique()
    if strengths.min() > 0:
        ax.set_xscale("log")
        ax.set_xticks(strengths, [f"{strength:g}" for strength in strengths])
        ax.minorticks_off()


def robustness_curves_caption(table: pd.DataFrame, cohort: Cohort) -> str:
    """table : as from `summary.by_strength`."""
    scores = []
    for model, rows in table.groupby("model", sort=False):
        untouched, lowest = rows.iloc[0], rows.loc[rows["value"].idxmin()]
        scores.append(f"{model_name(model)} {untouched['value']:.3f}, lowest {lowest['value']:.3f} ({lowest['kind']})")
    return (
        f"F1 on images that get worse, with {intervals_text(cohort)} (n = {table['n'].max()}, {table['images'].max()} "
        f"images). From untouched images on: {'; '.join(scores)}. Data: of the {describe_data(cohort)}."
    )


def cost_against_accuracy(costs: pd.DataFrame, summary: pd.DataFrame, note: str = "") -> Figure:
    """F1 against parameters, multiply-adds of an image, its latency and the training of each model; logarithmic axes.

    costs : one row a model, as from `cost.cost`; the quartiles of the latency are drawn as a bar. summary : model,
        metric, value, low, high.
    """
    f1 = summary[summary["metric"] == "f1"].set_index("model")
    fig, axes = panels(1, 4, (PAGE, 2.3), sharey=True)
    for ax, (column, (label, unit)) in zip(axes.flat, COSTS.items(), strict=True):
        for row in costs.to_dict("records"):
            x, score, (colour, marker, _) = row[column] / unit, f1.loc[row["model"]], style_of(row["model"])
            ax.vlines(x, score["low"], score["high"], color=colour, linewidth=1)
            if column == "latency_ms":
                ax.hlines(score["value"], row["latency_low_ms"], row["latency_high_ms"], color=colour, linewidth=1)
            ax.plot(x, score["value"], marker, color=colour, markersize=5, label=model_name(row["model"]))
        least, most = costs[column].min() / unit, costs[column].max() / unit
        ax.set(xscale="log", xlim=(least / 2, 2 * most), xlabel=label)  # wide, or a narrow axis gets odd ticks
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
    label_panels(axes.flat, ("size", "operations", "latency", "training"))
    axes[0, 0].yaxis.set_major_locator(MaxNLocator(4))
    axes[0, 0].set_ylabel("F1, 95 % interval")
    add_legend(fig, axes[0, 0])
    return finish(fig, note)


def cost_against_accuracy_caption(costs: pd.DataFrame, summary: pd.DataFrame, cohort: Cohort) -> str:
    """costs : as from `cost.cost`; summary : model, metric, value, low, high."""
    prices = [
        f"{model_name(row.model)} {row.parameters / 1e6:.2f} million parameters, {row.latency_ms:.1f} ms"
        for row in costs.itertuples()
    ]
    f1 = summary[summary["metric"] == "f1"]
    return (
        f"F1 {with_intervals(summary, cohort)} against what a network costs, times as measured on this machine. "
        f"{'; '.join(prices)}. F1: {scores_text(f1)}. Data: {describe_data(cohort)}."
    )
