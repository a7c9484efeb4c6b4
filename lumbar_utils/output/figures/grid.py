"""Several runs side by side: how far a grid is, what each run scores, and where the spread comes from."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lumbar_utils import METRICS, MODELS
from lumbar_utils.output.figures.drawing import (
    PAGE,
    SMALLEST,
    keyed,
    letter_on,
    lettered,
    look_of,
    noted,
    of_two_widths,
    two_panels,
)

STATE_COLOURS = {"finished": "#D9E8D9", "running": "#56B4E9", "failed": "#882255", "waiting": "#F0F0F0"}
# from what is nobody's doing to what is left; none of them is a model's colour
PART_COLOURS = {"patient": "#BBBBBB", "fold": "#88CCEE", "seed": "#332288", "residual": "#EEEEEE"}
MOST_FLAT = 10  # runs, beyond which their names stand upright
MOST_NAMED = 24  # runs, beyond which cells are too narrow for text


def grid_overview(cells: pd.DataFrame, note: str = "") -> Figure:
    """One square a cell: a network in a run, coloured by its state, with its best validation F1 yet in it.

    cells : as from `progress.table_of`.
    """
    cells = cells[cells["model"] != ""]
    models, runs = (
        list(dict.fromkeys(cells["model"])),
        list(dict.fromkeys(zip(cells["seed"], cells["fold"], strict=True))),
    )
    fig, ax = plt.subplots(figsize=(PAGE, 0.9 + 0.3 * len(models)), layout="constrained")
    for cell in cells.itertuples():
        x, y = runs.index((cell.seed, cell.fold)), models.index(cell.model)
        ax.add_patch(plt.Rectangle((x - 0.47, y - 0.45), 0.94, 0.9, color=STATE_COLOURS[cell.state]))
        if len(runs) <= MOST_NAMED and not np.isnan(cell.val_f1):
            colour = letter_on(STATE_COLOURS[cell.state])
            ax.text(x, y, f"{cell.val_f1:.2f}", ha="center", va="center", fontsize=SMALLEST, color=colour)
    for state, colour in STATE_COLOURS.items():
        ax.plot([], [], "s", color=colour, markersize=7, label=f"{state} ({(cells['state'] == state).sum()})")
    ax.set(xlim=(-0.5, len(runs) - 0.5), ylim=(len(models) - 0.5, -0.5), xlabel="Seed / fold of the run")
    step = -(-len(runs) // MOST_NAMED)
    ax.set_xticks(range(0, len(runs), step), [f"{seed} / {fold}" for seed, fold in runs[::step]], fontsize=SMALLEST)
    ax.set_yticks(range(len(models)), [MODELS.get(model, model) for model in models])
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    keyed(fig, ax)
    return noted(fig, note)


@of_two_widths
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
        look = look_of(model)
        left.plot(x, rows, look.marker, color=look.colour, markersize=4, label=MODELS.get(model, model))
        left.axhline(rows.mean(), color=look.colour, linestyle=look.line, linewidth=0.7)
    for place in [place for place in range(1, len(order)) if order[place][0] != order[place - 1][0]]:
        left.axvline(place - 0.5, color="#CCCCCC", linewidth=0.7)
    left.set_xticks(range(len(order)), [f"{seed} / {fold}" for seed, fold in order], fontsize=SMALLEST)
    left.tick_params(axis="x", rotation=90 if len(order) > MOST_FLAT else 0)
    left.set(xlabel="Seed / fold of the run", ylabel=METRICS.get(metric, metric))
    left.set_xlim(-0.6, len(order) - 0.4)
    lettered((left, right), (f"{len(order)} run{'s, line: mean' * (len(order) > 1)}", "where the spread comes from"))
    _parts(right, parts)
    keyed(fig, left)
    return noted(fig, note)


def _parts(ax: Axes, parts: pd.DataFrame) -> None:
    """One bar a model or gap between two: shares of the variance, which add up, and its root behind them."""
    if parts.empty:
        ax.text(0.5, 0.5, "one run: seeds and splits\ncannot be told from it", ha="center", va="center", fontsize=7)
        ax.axis("off")
        return
    what = list(dict.fromkeys(parts["what"]))
    names = [" - ".join(MODELS.get(model, model) for model in name.split(" - ")) for name in what]
    start = np.zeros(len(what))
    for part, colour in PART_COLOURS.items():
        rows = parts[parts["part"] == part].set_index("what").reindex(what)
        ax.barh(
            names,
            100 * rows["share"].fillna(0),
            left=start,
            color=colour,
            edgecolor="#666666",
            linewidth=0.4,
            label=part,
        )
        start += 100 * rows["share"].fillna(0).to_numpy()
    total = parts.groupby("what", sort=False)["variance"].sum() ** 0.5
    for place, name in enumerate(what):
        ax.text(101, place, f"{total[name]:.3f}", fontsize=SMALLEST, va="center")
    ax.text(101, -0.75, "SD", fontsize=SMALLEST, va="center")
    ax.set(xlabel="Variance of a patient's F1 in a run (%)", xlim=(0, 113), ylim=(len(what) - 0.5, -1))
    ax.set_xticks([0, 50, 100])
    ax.tick_params(labelsize=SMALLEST)
    ax.legend(
        loc="upper center", bbox_to_anchor=(0.45, -0.28), ncols=4, fontsize=SMALLEST, handlelength=1, columnspacing=0.8
    )
