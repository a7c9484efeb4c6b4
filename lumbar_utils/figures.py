"""Tidy tables and images to figures of print width: nothing is read, saved or shown here, `save` aside.

Tables hold the models' keys (`unet`); figures show their names. `note` says on what data a result was obtained.
"""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.patheffects import withStroke

from lumbar_utils import LEVELS, METRICS, MODELS

COLUMN, PAGE = 3.5, 7.16  # widths of a column and of a page in IEEE's journals, inches
STYLE = Path(__file__).with_name("style.mplstyle")
# Okabe and Ito 2008: told apart by colour-blind readers
MODEL_COLOURS = {"U-Net": "#0072B2", "HRNet": "#D55E00", "EfficientNet": "#009E73"}
LEVEL_COLOURS = {
    "L1": "#56B4E9", "L2": "#E69F00", "L3": "#009E73", "L4": "#CC79A7", "L5": "#F0E442", "S1": "#D55E00",
}  # fmt: skip
NUMBERS = {"unet": ("fig1", "fig5"), "hrnet": ("fig2", "fig6"), "efficientnet": ("fig3", "fig7")}  # as in the paper

plt.style.use(STYLE)


def save(fig: Figure, folder: Path, name: str) -> list[Path]:
    """Write <name>.pdf, .svg and .png (300 dpi): whole or not at all, and the same bytes every time."""
    folder.mkdir(parents=True, exist_ok=True)
    undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {"Software": None}}
    paths = []
    for kind, metadata in undated.items():
        path = folder / f"{name}.{kind}"
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".", suffix=f".{kind}", delete=False) as file:
            fig.savefig(file, format=kind, metadata=metadata)
        os.replace(file.name, path)
        os.chmod(path, 0o644)
        paths.append(path)
    return paths


def samples(examples: Sequence, note: str = "") -> Figure:
    """Images with the contours and names of their levels, four in a row.

    examples : each with case, image (height, width) uint8, reference (height, width) label map, spacing_mm.
    """
    rows = -(-len(examples) // 4)
    fig, axes = plt.subplots(rows, 4, figsize=(PAGE, 1.95 * rows), layout="constrained", squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for number, (ax, example) in enumerate(zip(axes.flat, examples, strict=False)):
        draw_image(ax, example)
        draw_contours(ax, example.reference, named=True)
        ax.set_title(f"{chr(97 + number)}  {example.case}", loc="left", fontsize=7)
    _scale_bar(axes.flat[0], examples[0])
    return noted(fig, note)


def predictions(examples: Sequence, model: str, note: str = "") -> Figure:
    """One row a case: image, reference, prediction, and where the two differ.

    examples : as for `samples`, and prediction (height, width) label map and f1 (mean over levels).
    """
    height = 1.95 * len(examples) + 0.3
    fig, axes = plt.subplots(len(examples), 4, figsize=(PAGE, height), layout="constrained", squeeze=False)
    for ax, title in zip(axes[0, 1:], ("Reference", MODELS.get(model, model), "Differences"), strict=True):
        ax.set_title(title)
    for row, example in zip(axes, examples, strict=True):
        for ax in row:
            draw_image(ax, example)
        row[0].set_title(f"{example.case}, F1 {example.f1:.3f}", loc="left", fontsize=7)
        draw_contours(row[1], example.reference, named=True)
        draw_contours(row[2], example.prediction, named=True)
        _differences(row[3], example)
    _scale_bar(axes[0, 0], examples[0])
    legend = {"missed": "#56B4E9", "invented": "#E69F00", "wrong level": "#CC79A7"}
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in legend.values()]
    fig.legend(handles, legend, loc="outside lower right", ncols=3)
    return noted(fig, note)


def learning_curves(history: pd.DataFrame, note: str = "") -> Figure:
    """Loss and validation F1 over epochs, the best epoch of each model marked.

    history : model, epoch, train_loss, val_loss, val_f1 in [0, 1].
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(PAGE, 2.5), layout="constrained")
    for model, rows in history.groupby("model", sort=False):
        name = MODELS.get(model, model)
        colour, best = MODEL_COLOURS.get(name, "#666666"), rows.loc[rows["val_f1"].idxmax()]
        left.plot(rows["epoch"], rows["train_loss"], ":", color=colour)
        left.plot(rows["epoch"], rows["val_loss"], color=colour, label=name)
        right.plot(rows["epoch"], rows["val_f1"], color=colour, label=f"{name}, best {best['val_f1']:.3f}")
        right.plot(best["epoch"], best["val_f1"], "o", color=colour, markersize=4)
    left.set(xlabel="Epoch", ylabel="Loss", title="a  Training (dotted) and validation (solid)")
    right.set(xlabel="Epoch", ylabel="Macro F1 of pixels", ylim=(0, 1), title="b  Validation; dots: epoch that is kept")
    for ax in (left, right):
        ax.title.set_ha("left")
        ax.title.set_position((0, 1))
        ax.xaxis.get_major_locator().set_params(integer=True)
    right.legend(loc="lower right")
    left.legend(loc="upper right")
    return noted(fig, note)


def comparison(table: pd.DataFrame, note: str = "") -> Figure:
    """Table II as a picture: this run as bars, the paper as marks. table : model, metric, value, paper."""
    fig, ax = plt.subplots(figsize=(PAGE, 2.6), layout="constrained")
    metrics = [metric for metric in METRICS if metric in set(table["metric"])]
    models = list(dict.fromkeys(table["model"]))
    width = 0.8 / len(models)
    for place, model in enumerate(models):
        rows = table[table["model"] == model].set_index("metric").loc[metrics]
        name, x = MODELS.get(model, model), np.arange(len(metrics)) + (place - (len(models) - 1) / 2) * width
        bars = ax.bar(x, rows["value"], width * 0.92, color=MODEL_COLOURS.get(name, "#666666"), label=name)
        for bar, value in zip(bars, rows["value"], strict=True):  # at the foot, where no mark of the paper lies
            ax.text(bar.get_x() + bar.get_width() / 2, 0.03, f"{value:.3f}", fontsize=6, color="white", ha="center")
        ax.plot(x, rows["paper"], "D", color="white", markeredgecolor="black", markersize=4, markeredgewidth=0.8)
    ax.plot([], [], "D", color="white", markeredgecolor="black", markersize=4, label="paper")
    ax.set(ylabel="Score", ylim=(0, 1.02), xticks=np.arange(len(metrics)), xticklabels=[METRICS[m] for m in metrics])
    fig.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=len(models) + 1)
    return noted(fig, note)


def scores_by_level(scores: pd.DataFrame, metric: str = "f1", note: str = "") -> Figure:
    """Spread of a metric over test patients, per level and model: over the whole range, and enlarged above the worst.

    scores : case, patient, level, model, metric, value in [0, 1]; the cases of a patient are averaged.
    """
    import seaborn as sns  # takes seconds

    rows = scores[scores["metric"] == metric].groupby(["model", "level", "patient"], sort=False)["value"].mean()
    rows = rows.reset_index().assign(model=lambda table: table["model"].map(lambda key: MODELS.get(key, key)))
    fig, (whole, enlarged) = plt.subplots(2, 1, figsize=(PAGE, 4), layout="constrained", sharex=True)
    palette = {name: MODEL_COLOURS.get(name, "#666666") for name in rows["model"].unique()}
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

    own, in_order : one row a vertebra: model, level, named (a level, `missed` or `other`).
    """
    import seaborn as sns  # takes seconds

    models = list(dict.fromkeys(own["model"]))
    fig, axes = plt.subplots(
        2, len(models), figsize=(PAGE, 4.9), layout="constrained", sharex=True, sharey=True, squeeze=False
    )
    levels = [level for level in LEVELS if level in set(own["level"])]
    given = [*levels, *(name for name in ("other", "missed") if name in {*own["named"], *in_order["named"]})]
    for row, (table, how) in zip(axes, ((own, "network alone"), (in_order, "names in order")), strict=True):
        for ax, model in zip(row, models, strict=True):
            rows = table[table["model"] == model]
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


def data_overview(intensities: pd.DataFrame, areas: pd.DataFrame, split: pd.DataFrame, note: str = "") -> Figure:
    """Four panels: grey values of each tissue, area and position of each level, patients on each side of the split.

    intensities : tissue, grey (0..255), share. areas : case, level, area, unit, x, y (shares of width and height).
    split : patient, split.
    """
    import seaborn as sns  # takes seconds

    fig, ((grey, area), (place, sides)) = plt.subplots(2, 2, figsize=(PAGE, 4.6), layout="constrained")
    for tissue, rows in intensities.groupby("tissue", sort=False):
        colour = LEVEL_COLOURS.get(tissue, "#888888")
        grey.plot(rows["grey"], 100 * rows["share"], color=colour, label=tissue, lw=1)
    grey.set(xlabel="Grey value", ylabel="Pixels of the tissue (%)", xlim=(0, 255))
    grey.set_ylim(0, 1.15 * 100 * intensities.loc[intensities["tissue"] != "background", "share"].max())
    grey.legend(ncols=2)
    levels = [level for level in LEVEL_COLOURS if level in set(areas["level"])]
    sns.boxplot(
        areas, x="level", y="area", hue="level", order=levels, hue_order=levels, palette=LEVEL_COLOURS, ax=area,
        linewidth=0.7, fliersize=1.5, saturation=1, legend=False,
    )  # fmt: skip
    unit = {"mm2": "mm²", "px": "pixels"}
    area.set(xlabel="Vertebra", ylabel=f"Area ({', '.join(unit[name] for name in areas['unit'].unique())})")
    for level in levels:
        rows = areas[areas["level"] == level]
        place.plot(100 * rows["x"], 100 * rows["y"], ".", color=LEVEL_COLOURS[level], markersize=2, label=level)
    place.set(xlabel="Centre, % of the width", ylabel="Centre, % of the height", xlim=(0, 100), ylim=(100, 0))
    place.legend(markerscale=4, loc="lower left")
    counts = split["split"].value_counts().reindex(["train", "validation", "test"])
    bars = sides.bar(counts.index, counts, color="#888888", width=0.6)
    sides.bar_label(bars)
    sides.set(ylabel="Patients")
    for letter, ax in zip("abcd", (grey, area, place, sides), strict=True):
        ax.set_title(letter, loc="left", fontweight="bold")
    return noted(fig, note)


def draw_image(ax: Axes, example) -> None:
    """The image, its brightest and darkest half per cent cut off so that anatomy shows."""
    low, high = np.percentile(example.image, (0.5, 99.5))
    ax.imshow(example.image, vmin=low, vmax=max(high, low + 1))
    ax.axis("off")


def draw_contours(ax: Axes, label_map: np.ndarray, named: bool) -> None:
    """The outline of each level in its colour; named: with its name before it. label_map : (height, width)."""
    for value, (level, colour) in enumerate(LEVEL_COLOURS.items(), 1):
        inside = label_map == value
        if inside.any():
            ax.contour(inside, levels=[0.5], colors=colour, linewidths=0.9)
            if named:  # in front of the body, where it hides nothing
                ys, xs = np.nonzero(inside)
                name = ax.text(xs.min() - 0.02 * inside.shape[1], ys.mean(), level, color=colour, fontsize=6)
                name.set(ha="right", va="center", path_effects=[withStroke(linewidth=1.2, foreground="black")])


def _differences(ax: Axes, example) -> None:
    true, pred = example.reference, example.prediction
    wrong = {"#56B4E9": (true > 0) & (pred == 0), "#E69F00": (true == 0) & (pred > 0)}
    wrong["#CC79A7"] = (true > 0) & (pred > 0) & (true != pred)
    for colour, where in wrong.items():
        layer = np.zeros((*true.shape, 4))
        layer[where] = (*(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)), 0.9)
        ax.imshow(layer)


def _scale_bar(ax: Axes, example, length_mm: float = 50) -> None:
    """A bar of 50 mm in the lower left corner, where the size of a pixel is known."""
    if not np.isnan(example.spacing_mm):
        height, width = example.image.shape
        start, end = 0.05 * width, 0.05 * width + length_mm / example.spacing_mm
        ax.plot([start, end], [0.95 * height] * 2, color="white", lw=2, solid_capstyle="butt")
        ax.text((start + end) / 2, 0.93 * height, f"{length_mm:.0f} mm", color="white", fontsize=6, ha="center")


def noted(fig: Figure, note: str) -> Figure:
    """The figure with a line below it on what its data are."""
    if note:
        fig.supxlabel(note, x=0.005, ha="left", fontsize=6, style="italic", color="#555555")
    plt.close(fig)  # the notebook shows it once, where its cell returns it
    return fig


BOX_COLOURS = {"encoder": "#DCE9F5", "decoder": "#DDF0E4", "branch": "#FBE7D8", "head": "#EEEEEE"}
ARROWS = {
    "forward": dict(color="#222222", linewidth=0.9),
    "skip": dict(color="#0072B2", linewidth=0.9, linestyle="--"),
    "exchange": dict(color="#D55E00", linewidth=0.5, alpha=0.7),
}


def architecture(
    stages: pd.DataFrame, connections: pd.DataFrame, title: str, unused: int = 0, note: str = ""
) -> Figure:
    """A network from left to right, its resolution from top to bottom; one box a stage.

    stages, connections : as from `architecture.describe`; unused : parameters that take no part.
    """
    depth, last = np.log2(stages["stride"].to_numpy(float)), stages["column"].max()
    fig, ax = plt.subplots(figsize=(PAGE, 0.75 + 0.72 * (1 + depth.max())), layout="constrained")
    places = list(zip(stages["column"], -depth, strict=True))
    for connection in connections.itertuples():
        _arrow(ax, places[connection.source], places[connection.target], connection.kind)
    for place, stage in zip(places, stages.itertuples(), strict=True):
        _box(ax, place, stage, scale=min(1, 10 / (last + 1)))
    ax.set(xlim=(-0.55, last + 0.55), ylim=(-depth.max() - 0.5, 0.5), ylabel="Resolution: part of the input's side")
    ax.set_yticks(-np.unique(depth), ["1" if level == 0 else f"1/{2**level:.0f}" for level in np.unique(depth)])
    ax.set_xticks([])
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    total = f"{(stages['parameters'].sum() + unused) / 1e6:.2f} million parameters"
    spare = f", {unused / 1e6:.2f} million of them unused" if unused else ""
    ax.set_title(f"{title}: {total}{spare}", loc="left")
    for kind in dict.fromkeys(connections["kind"]):
        ax.plot([], [], label=kind, **ARROWS[kind])
    ax.legend(loc="lower left")
    return noted(fig, note)


def _box(ax: Axes, place: tuple[float, float], stage, scale: float) -> None:
    x, y = place
    patch = FancyBboxPatch(
        (x - 0.41, y - 0.31), 0.82, 0.62, boxstyle="round,pad=0,rounding_size=0.05", zorder=2,
        facecolor=BOX_COLOURS[stage.kind], edgecolor="#555555", linewidth=0.6,
    )  # fmt: skip
    ax.add_patch(patch)
    size = f"{stage.height}²" if stage.height == stage.width else f"{stage.height}×{stage.width}"
    lines = [*stage.operation.split(", "), f"{stage.channels} × {size}", _count(stage.parameters)]
    ax.text(x, y + 0.21, stage.name, fontsize=6 * scale, fontweight="bold", ha="center", va="center", zorder=3)
    ax.text(x, y - 0.06, "\n".join(filter(None, lines)), fontsize=5.4 * scale, ha="center", va="center", zorder=3)


def _count(parameters: int) -> str:
    if not parameters:
        return ""
    return f"{parameters / 1e6:.2f} M" if parameters >= 1e5 else f"{parameters / 1e3:.1f} k"


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], kind: str) -> None:
    (x0, y0), (x1, y1) = start, end
    if kind == "skip":  # above the forward arrows, so that it shows between boxes of one row
        y0, y1 = y0 + 0.2, y1 + 0.2
    ax.annotate(
        "", (x1 - 0.41, y1), (x0 + 0.41, y0), zorder=1,
        arrowprops=dict(arrowstyle="-|>", mutation_scale=6, shrinkA=0, shrinkB=0, **ARROWS[kind]),
    )  # fmt: skip
