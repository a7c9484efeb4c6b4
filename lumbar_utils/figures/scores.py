"""How good the networks are: Table II as a picture, by level, by name."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lumbar_utils import LEVELS, METRICS, MODELS
from lumbar_utils.figures.drawing import PAGE, colour_of, noted


def comparison(table: pd.DataFrame, note: str = "") -> Figure:
    """Table II as a picture: this run as bars with 95 % intervals, the paper as marks.

    table : model, metric, value, low, high, n, paper.
    """
    fig, ax = plt.subplots(figsize=(PAGE, 2.6), layout="constrained")
    metrics = [metric for metric in METRICS if metric in set(table["metric"])]
    models = list(dict.fromkeys(table["model"]))
    width = 0.8 / len(models)
    for place, model in enumerate(models):
        rows = table[table["model"] == model].set_index("metric").reindex(metrics)
        name, x = MODELS.get(model, model), np.arange(len(metrics)) + (place - (len(models) - 1) / 2) * width
        bars = ax.bar(x, rows["value"], width * 0.92, color=colour_of(model), label=name)
        ax.vlines(x, rows["low"], rows["high"], color="black", linewidth=0.9)
        for bar, value in zip(bars, rows["value"], strict=True):  # at the foot, where no mark of the paper lies
            if not np.isnan(value):
                ax.text(bar.get_x() + bar.get_width() / 2, 0.03, f"{value:.3f}", fontsize=6, color="white", ha="center")
        ax.plot(x, rows["paper"], "D", color="white", markeredgecolor="black", markersize=4, markeredgewidth=0.8)
    ax.plot([], [], "D", color="white", markeredgecolor="black", markersize=4, label="paper, of its own images")
    ax.plot([], [], color="black", linewidth=0.9, label="95 % interval over patients")
    ax.set(ylabel="Score", ylim=(0, 1.02), xticks=np.arange(len(metrics)), xticklabels=[METRICS[m] for m in metrics])
    fig.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=len(models) + 2)
    return noted(fig, note)


def scores_by_level(scores: pd.DataFrame, metric: str = "f1", note: str = "") -> Figure:
    """Spread of a metric over test patients, per level and model: over the whole range, and enlarged above the worst.

    scores : case, patient, level, model, metric, value in [0, 1]; the cases of a patient are averaged.
    """
    import seaborn as sns  # takes seconds

    rows = scores[scores["metric"] == metric].groupby(["model", "level", "patient"], sort=False)["value"].mean()
    rows = rows.reset_index().assign(model=lambda table: table["model"].map(lambda key: MODELS.get(key, key)))
    fig, (whole, enlarged) = plt.subplots(2, 1, figsize=(PAGE, 4), layout="constrained", sharex=True)
    palette = {name: colour_of(name) for name in rows["model"].unique()}
    for ax in (whole, enlarged):
        sns.boxplot(
            rows, x="level", y="value", hue="model", order=sorted(rows["level"].unique()), palette=palette, ax=ax,
            linewidth=0.7, fliersize=2, saturation=1, legend=ax is whole,
        )  # fmt: skip
    fig.legend(*whole.get_legend_handles_labels(), loc="outside upper center", ncols=len(palette))
    whole.get_legend().remove()
    name, patients = METRICS.get(metric, metric), rows["patient"].nunique()
    low = 0.05 * np.floor(rows["value"].quantile(0.05) / 0.05)
    whole.set(ylabel=name, ylim=(-0.02, 1.02))
    enlarged.set(xlabel=f"Vertebra (n = {patients} test patients)", ylabel=name, ylim=(low, 1.0))
    whole.set_title("a  whole range", loc="left")
    enlarged.set_title(f"b  enlarged, without what lies below {low:.2f}", loc="left")
    return noted(fig, note)


def confusion(own: pd.DataFrame, in_order: pd.DataFrame, note: str = "") -> Figure:
    """Which name each level is given, one column a model: by the network alone, and once names are put in order.

    own, in_order : one row a vertebra: model, level, named (empty: not found), as `bodies` of an Evaluation.
    """
    import seaborn as sns  # takes seconds

    models = list(dict.fromkeys(own["model"]))
    fig, axes = plt.subplots(
        2, len(models), figsize=(PAGE, 4.9), layout="constrained", sharex=True, sharey=True, squeeze=False
    )
    levels = [level for level in LEVELS if level in set(own["level"])]
    given = [*levels, "missing"]
    for row, (table, how) in zip(axes, ((own, "network alone"), (in_order, "names in order")), strict=True):
        for ax, model in zip(row, models, strict=True):
            rows = table[(table["model"] == model) & (table["level"] != "")].replace({"named": {"": "missing"}})
            shares = pd.crosstab(rows["level"], rows["named"], normalize="index").reindex(index=levels, columns=given)
            sns.heatmap(
                shares.fillna(0), ax=ax, vmin=0, vmax=1, cmap="Blues", cbar=False, linewidths=0.5, square=True,
                annot=shares.fillna(0).map(lambda share: f"{100 * share:.0f}" if share >= 0.005 else ""), fmt="",
            )  # fmt: skip
            ax.set(xlabel="", ylabel="")
            ax.set_title(f"{MODELS.get(model, model)}, {how}", fontsize=7)
            ax.tick_params(axis="y", rotation=0)
    axes[0, 0].set_ylabel("Reference level")
    axes[1, 0].set_ylabel("Reference level")
    for ax in axes[1]:
        ax.set_xlabel("Name given (% of the level)")
    return noted(fig, note)
