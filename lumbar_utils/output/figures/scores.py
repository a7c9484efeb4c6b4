"""Figures of the scores, with their captions: metrics, F1 by level, curves, errors, confusion, calibration."""

from itertools import product

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from lumbar_utils import LEVELS, METRICS, model_name
from lumbar_utils.data.folder import Cohort
from lumbar_utils.output.figures.style import (
    HALO,
    PAGE,
    SMALLEST,
    add_legend,
    add_text,
    contrast_colour,
    finish,
    label_panels,
    panels,
    stacked_bars,
    style_of,
)
from lumbar_utils.output.tables import describe_data, percent, range_text, scores_text, with_intervals
from lumbar_utils.scores.evaluation import ANY_LEVEL
from lumbar_utils.scores.metrics import average_precision, calibration_error

# from harmless to grave and from light to dark (Tol's "muted"); none is a model's or a level's colour
OUTCOME_COLOURS = {
    "right": "#DDDDDD", "one up": "#88CCEE", "one down": "#44AA99", "other": "#117733", "missing": "#882255",
    "extra": "#332288",
}  # fmt: skip
HALF = 128  # steps of 1/255: a probability of 0.5
BOXES = {"linewidth": 0.7, "saturation": 1, "medianprops": HALO}


def comparison(table: pd.DataFrame, note: str = "") -> Figure:
    """Table II as a picture: this run as bars with 95 % intervals, the paper as marks.

    table : model, metric, value, low, high, n, paper.
    """
    fig, ((ax,),) = panels(1, 1, (PAGE, 2.6))
    metrics = [metric for metric in METRICS if metric in set(table["metric"])]
    models = list(dict.fromkeys(table["model"]))
    share = 0.8 / len(models)
    for place, model in enumerate(models):
        rows, colour = table[table["model"] == model].set_index("metric").reindex(metrics), style_of(model).colour
        x = np.arange(len(metrics)) + (place - (len(models) - 1) / 2) * share
        ax.bar(x, rows["value"], share * 0.92, color=colour, label=model_name(model))
        ax.vlines(x, rows["low"], rows["high"], linewidth=0.9, **HALO)
        for middle, value in rows["value"].set_axis(x).dropna().items():  # at the foot, where no mark of the paper lies
            text_colour = contrast_colour(colour)
            add_text(ax, middle, 0.03, f"{value:.3f}", text_colour, colour, width=2, ha="center", va="baseline")
        ax.plot(x, rows["paper"], "D", color="white", markeredgecolor="black", markersize=4, markeredgewidth=0.8)
    ax.plot([], [], "D", color="white", markeredgecolor="black", markersize=4, label="paper, of its own images")
    ax.plot([], [], color="black", linewidth=0.9, label="95 % interval over patients")
    ax.set(ylabel=f"Score (n = {table['n'].max()} patients)", ylim=(0, 1.02))
    ax.set_xticks(np.arange(len(metrics)), [METRICS[metric] for metric in metrics])
    add_legend(fig, ax)
    return finish(fig, note)


def comparison_caption(table: pd.DataFrame, cohort: Cohort) -> str:
    """table : Table II, tidy."""
    f1 = table[table["metric"] == "f1"]
    return (
        f"Scores {with_intervals(table, cohort)}, and the paper's as marks, which are of its own images. "
        f"F1: {scores_text(f1)}; n = {range_text(f1['n'])}. Data: {describe_data(cohort)}."
    )


def scores_by_level(scores: pd.DataFrame, note: str = "") -> Figure:
    """Spread of F1 over test patients, per level and model: over the whole range, and enlarged above the worst.

    scores : case, patient, level, model, metric, value in [0, 1]; the cases of a patient are averaged.
    """
    import seaborn as sns  # takes seconds

    rows = scores[scores["metric"] == "f1"].groupby(["model", "level", "patient"], sort=False)["value"].mean()
    rows = rows.reset_index().assign(model=lambda table: table["model"].map(model_name))
    low = 0.05 * np.floor(rows["value"].quantile(0.05) / 0.05)
    ranges = {"whole range": (-0.02, 1.02)}
    if low:
        ranges[f"enlarged, without what lies below {low:.2f}"] = (low, 1)
    fig, axes = panels(len(ranges), 1, (PAGE, 0.4 + 1.8 * len(ranges)), sharex=True)
    palette = {name: style_of(name).colour for name in rows["model"].unique()}
    patients = rows["patient"].nunique()
    for ax, limits in zip(axes.flat, ranges.values(), strict=True):
        sns.boxplot(
            rows, x="level", y="value", hue="model", order=sorted(rows["level"].unique()), palette=palette, ax=ax,
            fliersize=2, legend=ax is axes[0, 0], **BOXES,
        )  # fmt: skip
        ax.set(ylabel="F1", ylim=limits, xlabel=f"Vertebra (n = {patients} test patients)")
    add_legend(fig, axes[0, 0])
    axes[0, 0].get_legend().remove()
    if low:
        label_panels(axes.flat, ranges)
    return finish(fig, note)


def scores_by_level_caption(scores: pd.DataFrame, cohort: Cohort) -> str:
    """scores : of an Evaluation."""
    rows = scores[scores["metric"] == "f1"].groupby(["model", "level", "patient"], sort=False)["value"].mean()
    means = rows.groupby(["model", "level"], sort=False).mean()
    lowest = means[means.groupby("model", sort=False).idxmin()]
    numbers = ", ".join(f"{model_name(model)} {value:.3f} at {level}" for (model, level), value in lowest.items())
    return (
        f"F1 of each patient (n = {scores['patient'].nunique()}) by level. Lowest mean over patients: "
        f"{numbers}. Data: {describe_data(cohort)}."
    )


def confusion(own: pd.DataFrame, in_order: pd.DataFrame, note: str = "") -> Figure:
    """Which name each level is given, one column a model: by the network alone, and once names are put in order.

    own, in_order : one row a vertebra: model, level, named (empty: not found), as `bodies` of an Evaluation.
    """
    models = list(dict.fromkeys(own["model"]))
    fig, axes = panels(2, len(models), (PAGE, 2.45 * 2), sharex=True, sharey=True)
    levels = [level for level in LEVELS if level in set(own["level"])]
    for row, bodies in zip(axes, (own, in_order), strict=True):
        for ax, model in zip(row, models, strict=True):
            _name_matrix(ax, bodies[bodies["model"] == model], levels)
    panel_names = product(("network alone", "names in order"), models)
    label_panels(axes.flat, [f"{model_name(model)}, {naming}" for naming, model in panel_names])
    counts = own[own["model"] == models[0]]["level"].value_counts()
    for ax in axes[:, 0]:
        ax.set_ylabel("Reference level (n vertebrae)")
        ax.set_yticklabels([f"{level} ({counts[level]})" for level in levels])
    for ax in axes[-1]:
        ax.set_xlabel("Name given (% of the level)")
    return finish(fig, note)


def _name_matrix(ax: Axes, bodies: pd.DataFrame, levels: list[str]) -> None:
    """Shares of each reference level under each name. bodies : of one model."""
    import seaborn as sns  # takes seconds

    rows = bodies[bodies["level"] != ""].replace({"named": {"": "missing"}})
    shares = pd.crosstab(rows["level"], rows["named"], normalize="index")
    shares = shares.reindex(index=levels, columns=[*levels, "missing"]).fillna(0)
    texts = shares.map(lambda share: f"{100 * share:.0f}" if share >= 0.005 else "")
    sns.heatmap(
        shares, ax=ax, vmin=0, vmax=1, cmap="Blues", cbar=False, linewidths=0.5, square=True, annot=texts, fmt=""
    )
    ax.set(xlabel="", ylabel="")
    ax.tick_params(axis="y", rotation=0)


def confusion_caption(own: pd.DataFrame, in_order: pd.DataFrame, cohort: Cohort) -> str:
    """own, in_order : bodies of an Evaluation before and after names are put in order."""
    before, after = (_rightly_named(bodies) for bodies in (own, in_order))
    shares = [f"{model_name(model)} {percent(before[model])}, then {percent(after[model])}" for model in before.index]
    return (
        "Names given to the vertebrae of each level, in per cent, by the network alone (above) and once names are put "
        f"in order (below). Under their own name: {'; '.join(shares)}. Data: {describe_data(cohort)}."
    )


def _rightly_named(bodies: pd.DataFrame) -> pd.Series:
    """Model -> share of the reference's vertebrae that got their own name."""
    real = bodies[bodies["level"] != ""]
    return (real["named"] == real["level"]).groupby(real["model"], sort=False).mean()


def precision_recall(curves: pd.DataFrame, note: str = "") -> Figure:
    """Precision against recall of pixels as the threshold falls: one panel a level, then any level, all enlarged alike.

    curves : model, level, probability (0..255), hits, pixels, summed over images; as of an Evaluation. The area under a
        curve is its average precision. A model that gave no probabilities has no curve.
    """
    levels, given = list(dict.fromkeys(curves["level"])), curves[curves["pixels"] > 0]
    across = min(4, len(levels) + 1)
    rows = -(-(len(levels) + 1) // across)
    fig, axes = panels(rows, across, (PAGE, 0.3 + 1.7 * rows))
    level_axes, key = axes.flat[: len(levels)], axes.flat[len(levels)]
    marks = [1.0]
    for (level, model), counts in given.groupby(["level", "model"], sort=False):
        marks += _precision_recall_curve(level_axes[levels.index(level)], counts, model)
    low = max(0, np.floor(10 * (2 * min(marks) - 1)) / 10)  # the mark that is farthest from 1 lies half way
    for number, ax in enumerate(level_axes):
        ax.set(xlim=(low, 1.01), ylim=(low, 1.01), xlabel="Recall", ylabel="" if number % across else "Precision")
        ax.set_aspect("equal")
        _equal_f1_lines(ax, low)
        if ax.get_legend_handles_labels()[1]:
            ax.legend(
                loc="lower left", fontsize=SMALLEST, handlelength=3, borderpad=0.1, frameon=True, edgecolor="none"
            )
    label_panels(level_axes, ["any level" if level == ANY_LEVEL else level for level in levels])
    for ax in axes.flat[len(levels) :]:
        ax.axis("off")
    for model in dict.fromkeys(given["model"]):
        key.plot([], [], **style_of(model).curve(), linewidth=1, markersize=3.8, label=model_name(model))
    title = "AP: area under the curve\nmark: probability of 0.5\ngrey: equal F1, as noted"
    key.legend(title=title, title_fontsize=7, loc="center left", alignment="left", handlelength=3)
    return finish(fig, note)


def _precision_recall_curve(ax: Axes, counts: pd.DataFrame, model: str) -> list[float]:
    """Draw a curve with its mark at a probability of 0.5; returns precision and recall at the mark.

    counts : probability 0..255, rows with pixels. Without a pixel that reaches 0.5 there is no mark.
    """
    rising = counts.sort_values("probability")
    area, falling = average_precision(rising[["hits", "pixels"]].to_numpy().T), rising[::-1]
    hits, pixels = falling["hits"].cumsum().to_numpy(), falling["pixels"].cumsum().to_numpy()
    recall, precision = hits / max(hits[-1], 1), hits / pixels
    half = int((falling["probability"] >= HALF).sum())  # points of the curve at 0.5 or above
    mark = slice(half - 1, half) if half else slice(0)
    ax.plot(
        [0, *recall], [precision[0], *precision], **style_of(model).curve(), linewidth=1, drawstyle="steps-pre",
        markersize=3.8, markevery=[half] if half else [], label=f"AP {area:.3f}",
    )  # fmt: skip
    return [*recall[mark], *precision[mark]]


def _equal_f1_lines(ax: Axes, low: float) -> None:
    """Lines of equal F1, with their values at the right edge, as many of three as end there."""
    values = low + (1 - low) * np.array([0.25, 0.5, 0.75])
    for f1 in values[values / (2 - values) > low]:
        recall = np.linspace(max(low, f1 / (2 - f1)), 1, 50)
        ax.plot(recall, f1 * recall / (2 * recall - f1), color="#CCCCCC", linewidth=0.6, zorder=0)
        ax.text(1.02, f1 / (2 - f1), f"{f1:.3g}", color="#888888", fontsize=SMALLEST, va="center")


def precision_recall_caption(curves: pd.DataFrame, cohort: Cohort) -> str:
    """curves : of an Evaluation."""
    of_any = curves[(curves["level"] == ANY_LEVEL) & (curves["pixels"] > 0)].sort_values("probability")
    areas = [
        f"{model_name(model)} {average_precision(counts[['hits', 'pixels']].to_numpy().T):.3f}"
        for model, counts in of_any.groupby("model", sort=False)
    ]
    result = f"Average precision (AP) of any level: {', '.join(areas)}" if areas else "No network gave probabilities"
    return (
        "Precision against recall of a level's pixels as the threshold falls, marks at a probability of 0.5, lines of "
        f"equal F1 in grey; the pixels of all images are taken together, so there is no interval. {result}. "
        f"Data: {describe_data(cohort)}."
    )


def errors(bodies: pd.DataFrame, note: str = "") -> Figure:
    """Outcomes of the vertebrae, in per cent of the reference's; beside it F1 of the outlines found, whatever the name.

    bodies : model, level, outcome, f1, merged, split; as of an Evaluation.
    """
    import seaborn as sns  # takes seconds

    fig, ((left, right),) = panels(1, 2, (PAGE, 2.4), width_ratios=(2, 1))
    models = list(dict.fromkeys(bodies["model"]))
    _outcome_bars(left, bodies, models)
    outlined = bodies[bodies["f1"].notna()].assign(name=lambda table: table["model"].map(model_name))
    palette = {model_name(model): style_of(model).colour for model in models}
    sns.boxplot(outlined, x="f1", y="name", hue="name", palette=palette, ax=right, fliersize=1.5, legend=False, **BOXES)
    right.set(xlabel="F1 of the outline, name aside", ylabel="", xlim=(min(0.7, outlined["f1"].min() - 0.01), 1))
    right.set_yticks([])
    label_panels((left, right), ("found and named", "outlined, of those found"))
    add_legend(fig, left)
    return finish(fig, note)


def _outcome_bars(ax: Axes, bodies: pd.DataFrame, models: list[str]) -> None:
    """Stacked bars, one a model."""
    counts = pd.crosstab(bodies["model"], bodies["outcome"]).reindex(index=models, columns=list(OUTCOME_COLOURS))
    total = bodies[bodies["level"] != ""].groupby("model").size().reindex(models)
    shares = (100 * counts.fillna(0)).div(total, axis=0)
    names = [f"{model_name(model)} (n = {total[model]})" for model in models]
    stacked_bars(ax, shares.set_axis(names), OUTCOME_COLOURS, height=0.6, edgecolor="white")
    for place, share in enumerate(shares["right"]):
        ax.text(1, place, f"{100 - share:.1f} % not right", fontsize=SMALLEST, va="center", **HALO)
    ax.set(xlabel="Vertebrae of the reference (%); extra ones beyond 100", ylim=(len(models) - 0.5, -0.5))


def errors_caption(table: pd.DataFrame, cohort: Cohort) -> str:
    """table : as from `instances.summarise_instances`."""
    sentences = []
    for model, rows in table.groupby("model", sort=False):
        values, counts = (rows.set_index("metric")[name] for name in ("value", "count"))
        of_all = f"{counts['found'] + counts['missing']:.0f}"
        if "rightly named" in values:
            sentences.append(
                f"{model_name(model)} found {percent(values['found'])} of {of_all}, of these "
                f"{percent(values['rightly named'])} rightly named, with outlines of F1 "
                f"{values['outline F1']:.3f} whatever the name"
            )
        else:
            sentences.append(f"{model_name(model)} found none of {of_all}")
    return f"What became of each vertebra of the reference. {'; '.join(sentences)}. Data: {describe_data(cohort)}."


def reliability(table: pd.DataFrame, note: str = "") -> Figure:
    """Accuracy of pixels against the confidence of the network in them; the diagonal is perfect calibration.

    table : model, bin, pixels, confidence, right (sums over the pixels of a bin).
    """
    fig, ((left, right),) = panels(1, 2, (PAGE, 2.5), width_ratios=(1, 2))
    left.plot([0, 100], [0, 100], color="#888888", linewidth=0.7)
    calibration_errors = _calibration_errors(table)
    for model, bins in table[table["pixels"] > 0].groupby("model", sort=False):
        total = bins["pixels"].sum()
        filled = bins[bins["pixels"] >= 1e-3 * total]  # a bin of a few pixels shows nothing
        curve = style_of(model).curve() | {"markersize": 3.5}
        label = f"{model_name(model)}, calibration error {percent(calibration_errors[model])}"
        x = 100 * filled["confidence"] / filled["pixels"]
        left.plot(x, 100 * filled["right"] / filled["pixels"], **curve)
        right.plot(x, 100 * filled["pixels"] / total, label=label, **curve)
    left.set(xlabel="Probability given (%)", ylabel="Pixels that are right (%)", xlim=(0, 100), ylim=(0, 100))
    left.set_aspect("equal")
    right.set(xlabel="Probability given (%)", ylabel="Pixels of a vertebra (%)", yscale="log")
    right.yaxis.set_major_formatter("{x:g}")
    right.yaxis.set_minor_formatter(NullFormatter())
    label_panels((left, right), ("reliability", "how often it is given"))
    add_legend(fig, right)
    return finish(fig, note)


def _calibration_errors(table: pd.DataFrame) -> dict[str, float]:
    bins = table.set_index("model")[["pixels", "confidence", "right"]]
    return {model: calibration_error(bins.loc[[model]].to_numpy().T) for model in dict.fromkeys(table["model"])}


def reliability_caption(table: pd.DataFrame, cohort: Cohort) -> str:
    """table : model, bin, pixels, confidence, right."""
    shares = [f"{model_name(model)} {percent(error)}" for model, error in _calibration_errors(table).items()]
    return (
        "(a) Share of right pixels against the probability they were given, (b) how often it is given: pixels that are "
        "a vertebra in either map, of all images together, so there is no interval. "
        f"Expected calibration error: {', '.join(shares)}. Data: {describe_data(cohort)}."
    )
