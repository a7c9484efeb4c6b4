"""What worse images do to F1, and what F1 costs."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from lumbar_utils import MODELS
from lumbar_utils.output.figures.drawing import PAGE, keyed, lettered, look_of, noted, of_two_widths
from lumbar_utils.scores.statistics import interval

COSTS = {  # column -> name of the axis, and what its numbers are divided by
    "parameters": ("Parameters (million)", 1e6),
    "multiply_adds": ("Multiply-adds (10⁹)", 1e9),
    "latency_ms": ("Latency: median, quartiles (ms)", 1),
    "training_seconds": ("Training (minutes)", 60),
}


@of_two_widths
def robustness_curves(table: pd.DataFrame, note: str = "", width: float = PAGE) -> Figure:
    """Mean F1 over patients as images get worse: one panel a kind, one curve a model, from the untouched image on.

    table : model, kind, unit, strength, patient, f1 in [0, 1]; the cases of a patient are averaged. The band is a
        bootstrap 95 % interval over patients; the models see the same ones, so that bands which touch may differ.
    """
    kinds = list(dict.fromkeys(table["kind"]))
    half = -(-len(kinds) // 2)
    down, across = (2, half) if width == PAGE else (half, 2)
    fig, axes = plt.subplots(
        down, across, figsize=(width, 1.95 * down), layout="constrained", sharey=True, squeeze=False
    )
    for ax in axes.flat[len(kinds) :]:
        ax.axis("off")
    for ax, kind in zip(axes.flat, kinds, strict=False):
        rows = table[table["kind"] == kind]
        for model, own in rows.groupby("model", sort=False):
            _curve(ax, own, model)
        if rows["strength"].min() > 0:  # a factor
            ax.set_xscale("log")
            ax.set_xticks(rows["strength"].unique(), [f"{strength:g}" for strength in rows["strength"].unique()])
            ax.minorticks_off()
        ax.set(xlabel=textwrap.fill(_capital(rows["unit"].iloc[0]), round(16 * width / across)), ylim=(0, 1))
        ax.tick_params(labelleft=True)
    lettered(axes.flat[: len(kinds)], kinds)
    for ax in axes[:, 0]:
        ax.set_ylabel("F1, mean over patients")
    patients = table.groupby("model")["patient"].nunique().max()
    title = f"n = {patients} test patients\nband: bootstrap 95 %\nfirst point: untouched"
    place = {"loc": "center left", "bbox_to_anchor": (0.1, 0.5)} if len(kinds) % 2 else {"loc": "lower left"}
    host = axes.flat[-1] if len(kinds) % 2 else axes.flat[0]
    host.legend(*axes.flat[0].get_legend_handles_labels(), title=title, title_fontsize=7, alignment="left", **place)
    return noted(fig, note)


def _curve(ax: Axes, rows: pd.DataFrame, model: str) -> None:
    name, of_patients = MODELS.get(model, model), rows.groupby(["strength", "patient"])["f1"].mean().unstack("patient")
    bounds = np.array([_interval(row.dropna().to_numpy()) for _, row in of_patients.iterrows()])
    colour, marker, line = look_of(model)
    ax.fill_between(of_patients.index, *bounds.T, color=colour, alpha=0.15, linewidth=0)
    ax.plot(of_patients.index, of_patients.mean(axis=1), color=colour, marker=marker, linestyle=line, markersize=3.5,
            label=name)  # fmt: skip


def _interval(values: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean over patients, as in the tables; nan where there are too few."""
    return interval(lambda rows: values[rows].mean(axis=-1), len(values))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


@of_two_widths
def cost_against_accuracy(costs: pd.DataFrame, summary: pd.DataFrame, note: str = "", width: float = PAGE) -> Figure:
    """F1 against parameters, multiply-adds of an image, its latency and the training of each model; logarithmic axes.

    costs : model and the columns of COSTS, one row a model, as from `cost.cost`; latency_low_ms and latency_high_ms,
        its quartiles, are drawn as a bar. summary : model, metric, value, and low and high where there is an interval.
    """
    f1 = summary[summary["metric"] == "f1"].set_index("model")
    form = {"ncols": 4, "figsize": (width, 2.3)} if width == PAGE else {"nrows": 2, "ncols": 2, "figsize": (width, 3.9)}
    fig, axes = plt.subplots(**form, layout="constrained", sharey=True, squeeze=False)
    for ax, (column, (name, unit)) in zip(axes.flat, COSTS.items(), strict=True):
        for row in costs.to_dict("records"):
            _point(ax, row, f1.loc[row["model"]], column, unit)
        least, most = costs[column].min() / unit, costs[column].max() / unit
        ax.set(xscale="log", xlim=(least / 2, 2 * most), xlabel=name)  # wide, or a small range bears odd numbers
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
    lettered(axes.flat, ("size", "operations", "latency", "training"))
    axes[0, 0].yaxis.set_major_locator(MaxNLocator(4))
    for ax in axes[:, 0]:
        ax.set_ylabel("F1" + (", 95 % interval" if "low" in f1 else ""))
    keyed(fig, axes[0, 0])
    return noted(fig, note)


def _point(ax: Axes, row: dict, f1: pd.Series, column: str, unit: float) -> None:
    name, x, y = MODELS.get(row["model"], row["model"]), row[column] / unit, f1["value"]
    colour, marker, _ = look_of(row["model"])
    if "low" in f1:
        ax.vlines(x, f1["low"], f1["high"], color=colour, linewidth=1)
    if column == "latency_ms" and "latency_low_ms" in row:
        ax.hlines(y, row["latency_low_ms"] / unit, row["latency_high_ms"] / unit, color=colour, linewidth=1)
    ax.plot(x, y, marker, color=colour, markersize=5, label=name)
