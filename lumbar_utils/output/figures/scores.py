"""How good the networks are: Table II as a picture, by level, by name."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from lumbar_utils import LEVELS, METRICS, MODELS
from lumbar_utils.output.figures.drawing import (
    HALO,
    PAGE,
    SMALLEST,
    keyed,
    letter_on,
    lettered,
    look_of,
    noted,
    of_two_widths,
)


@of_two_widths
def comparison(table: pd.DataFrame, note: str = "", width: float = PAGE) -> Figure:
    """Table II as a picture: this run as bars with 95 % intervals, the paper as marks.

    table : model, metric, value, low, high, n, paper.
    """
    fig, ax = plt.subplots(figsize=(width, 2.6), layout="constrained")
    metrics = [metric for metric in METRICS if metric in set(table["metric"])]
    models = list(dict.fromkeys(table["model"]))
    share = 0.8 / len(models)
    turn, between = (0, " ") if width == PAGE else (90, "\n")
    for place, model in enumerate(models):
        rows = table[table["model"] == model].set_index("metric").reindex(metrics)
        name, x = MODELS.get(model, model), np.arange(len(metrics)) + (place - (len(models) - 1) / 2) * share
        colour = look_of(model).colour
        bars = ax.bar(x, rows["value"], share * 0.92, color=colour, label=name)
        ax.vlines(x, rows["low"], rows["high"], linewidth=0.9, **HALO)
        for bar, value in zip(bars, rows["value"], strict=True):  # at the foot, where no mark of the paper lies
            if not np.isnan(value):
                told = ax.text(bar.get_x() + bar.get_width() / 2, 0.03, f"{value:.3f}", fontsize=SMALLEST, ha="center")
                told.set(
                    rotation=turn, color=letter_on(colour), path_effects=[withStroke(linewidth=2, foreground=colour)]
                )
        ax.plot(x, rows["paper"], "D", color="white", markeredgecolor="black", markersize=4, markeredgewidth=0.8)
    ax.plot([], [], "D", color="white", markeredgecolor="black", markersize=4, label="paper, of its own images")
    ax.plot([], [], color="black", linewidth=0.9, label="95 % interval over patients")
    ax.set(ylabel=f"Score (n = {table['n'].max()} patients)", ylim=(0, 1.02))
    ax.set_xticks(np.arange(len(metrics)), [METRICS[metric].replace(" ", between) for metric in metrics])
    keyed(fig, ax)
    return noted(fig, note)


@of_two_widths
def scores_by_level(scores: pd.DataFrame, metric: str = "f1", note: str = "", width: float = PAGE) -> Figure:
    """Spread of a metric over test patients, per level and model: over the whole range, and enlarged above the worst.

    scores : case, patient, level, model, metric, value in [0, 1]; the cases of a patient are averaged.
    """
    import seaborn as sns  # takes seconds

    rows = scores[scores["metric"] == metric].groupby(["model", "level", "patient"], sort=False)["value"].mean()
    rows = rows.reset_index().assign(model=lambda table: table["model"].map(lambda key: MODELS.get(key, key)))
    name, patients = METRICS.get(metric, metric), rows["patient"].nunique()
    low = 0.05 * np.floor(rows["value"].quantile(0.05) / 0.05)
    parts = {"whole range": (-0.02, 1.02)} | ({f"enlarged, without what lies below {low:.2f}": (low, 1)} if low else {})
    fig, axes = plt.subplots(
        len(parts), 1, figsize=(width, 0.4 + 1.8 * len(parts)), layout="constrained", sharex=True, squeeze=False
    )
    palette = {name: look_of(name).colour for name in rows["model"].unique()}
    for ax, limits in zip(axes.flat, parts.values(), strict=True):
        sns.boxplot(
            rows, x="level", y="value", hue="model", order=sorted(rows["level"].unique()), palette=palette, ax=ax,
            linewidth=0.7, fliersize=2, saturation=1, legend=ax is axes[0, 0], medianprops=HALO,
        )  # fmt: skip
        ax.set(ylabel=name, ylim=limits, xlabel=f"Vertebra (n = {patients} test patients)")
    keyed(fig, axes[0, 0])
    axes[0, 0].get_legend().remove()
    if low:
        lettered(axes.flat, parts)
    return noted(fig, note)


@of_two_widths
def confusion(own: pd.DataFrame, in_order: pd.DataFrame, note: str = "", width: float = PAGE) -> Figure:
    """Which name each level is given, one column a model: by the network alone, and once names are put in order.

    own, in_order : one row a vertebra: model, level, named (empty: not found), as `bodies` of an Evaluation.
    """
    import seaborn as sns  # takes seconds

    models, hows = list(dict.fromkeys(own["model"])), {"network alone": own, "names in order": in_order}
    panels = [(model, how) for how in hows for model in models]
    down, across, high, between = 2, len(models), 2.45, ", "
    if width < PAGE:
        panels.sort(key=lambda panel: models.index(panel[0]))
        down, across, high, between = len(models), 2, 2.05, "\n"
    fig, axes = plt.subplots(
        down, across, figsize=(width, high * down), layout="constrained", sharex=True, sharey=True, squeeze=False
    )
    levels = [level for level in LEVELS if level in set(own["level"])]
    given = [*levels, "missing"]
    for ax, (model, how) in zip(axes.flat, panels, strict=True):
        table = hows[how]
        rows = table[(table["model"] == model) & (table["level"] != "")].replace({"named": {"": "missing"}})
        shares = pd.crosstab(rows["level"], rows["named"], normalize="index").reindex(index=levels, columns=given)
        sns.heatmap(
            shares.fillna(0), ax=ax, vmin=0, vmax=1, cmap="Blues", cbar=False, linewidths=0.5, square=True,
            annot=shares.fillna(0).map(lambda share: f"{100 * share:.0f}" if share >= 0.005 else ""), fmt="",
        )  # fmt: skip
        ax.set(xlabel="", ylabel="")
        ax.tick_params(axis="y", rotation=0)
    lettered(axes.flat, [f"{MODELS.get(model, model)}{between}{how}" for model, how in panels])
    counts = own[(own["model"] == models[0]) & (own["level"] != "")]["level"].value_counts()
    for ax in axes[:, 0]:
        ax.set_ylabel("Reference level (n vertebrae)")
        ax.set_yticklabels([f"{level} ({counts[level]})" for level in levels])
    for ax in axes[-1]:
        ax.set_xlabel("Name given (% of the level)" if width == PAGE else "Name given (%)")
    return noted(fig, note)


@of_two_widths
def precision_recall(curves: pd.DataFrame, note: str = "", width: float = PAGE) -> Figure:
    """Precision against recall of pixels as the threshold falls: one panel a level, then any level, all enlarged alike.

    curves : model, level, probability (0..255), hits, pixels, summed over images; as of an Evaluation. The area under a
        curve is its average precision. A model that gave no probabilities has no curve.
    """
    levels, given = list(dict.fromkeys(curves["level"])), curves[curves["pixels"] > 0]
    models, across = list(dict.fromkeys(given["model"])), min(4 if width == PAGE else 2, len(levels) + 1)
    rows = -(-(len(levels) + 1) // across)
    fig, axes = plt.subplots(rows, across, figsize=(width, 0.3 + 1.7 * rows), layout="constrained", squeeze=False)
    panels, least = axes.flat[: len(levels)], 1.0
    for ax, level in zip(panels, levels, strict=True):
        for model, own in given[given["level"] == level].groupby("model", sort=False):
            least = min(least, _precision_recall(ax, own, model))
    low = max(0, np.floor(10 * (2 * least - 1)) / 10)  # the mark that is farthest from 1 lies half way
    for number, ax in enumerate(panels):
        ax.set(xlim=(low, 1.01), ylim=(low, 1.01), xlabel="Recall", ylabel="" if number % across else "Precision")
        ax.set_aspect("equal")
        _equal_f1(ax, low)
        if ax.lines:
            ax.legend(
                loc="lower left", fontsize=SMALLEST, handlelength=3, borderpad=0.1, frameon=True, edgecolor="none"
            )
    lettered(panels, ["any level" if level == "vertebra" else level for level in levels])
    for ax in axes.flat[len(levels) :]:
        ax.axis("off")
    told = "AP: area under the curve\nmark: probability of 0.5\ngrey: equal F1, as noted"
    axes.flat[len(levels)].legend(
        handles=[_key(model) for model in models], title=told, title_fontsize=7, loc="center left", alignment="left",
        handlelength=3,
    )  # fmt: skip
    return noted(fig, note)


def _precision_recall(ax: Axes, counts: pd.DataFrame, model: str) -> float:
    """Draw one curve, marked at a probability of 0.5; returns the lower of precision and recall there, 1 if no pixel
    has that. counts : probability 0..255, rows with pixels.
    """
    falling = counts.sort_values("probability", ascending=False)
    hits, pixels = falling["hits"].cumsum().to_numpy(), falling["pixels"].cumsum().to_numpy()
    recall, precision = hits / max(hits[-1], 1), hits / np.maximum(pixels, 1)
    colour, marker, line = look_of(model)
    area = float((precision * np.diff(recall, prepend=0)).sum())
    half = int((falling["probability"] >= 128).sum())  # points of the curve from there up; none if no pixel reaches it
    ax.plot([0, *recall], [precision[0], *precision], color=colour, linestyle=line, linewidth=1, drawstyle="steps-pre",
            marker=marker, markersize=3.8, markevery=[half] if half else [], label=f"AP {area:.3f}")  # fmt: skip
    return float(min(recall[half - 1], precision[half - 1])) if half else 1.0


def _equal_f1(ax: Axes, low: float) -> None:
    """Lines of equal F1, with their values at the right edge, as many of three as end there."""
    of_three = low + (1 - low) * np.array([0.25, 0.5, 0.75])
    for f1 in of_three[of_three / (2 - of_three) > low]:
        recall = np.linspace(max(low, f1 / (2 - f1)), 1, 50)
        ax.plot(recall, f1 * recall / (2 * recall - f1), color="#CCCCCC", linewidth=0.6, zorder=0)
        ax.text(1.02, f1 / (2 - f1), f"{f1:.3g}", color="#888888", fontsize=SMALLEST, va="center")


def _key(model: str) -> Line2D:
    colour, marker, line = look_of(model)
    return Line2D([], [], color=colour, linestyle=line, linewidth=1, marker=marker, markersize=3.8,
                  label=MODELS.get(model, model))  # fmt: skip
