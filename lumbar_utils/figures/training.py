"""How a network was trained."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lumbar_utils import MODELS
from lumbar_utils.figures.drawing import PAGE, RIM, lettered, look_of, noted


def learning_curves(history: pd.DataFrame, note: str = "") -> Figure:
    """Loss and validation F1 over epochs, the best epoch of each model marked.

    history : model, epoch, train_loss, val_loss, val_f1 in [0, 1].
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(PAGE, 2.5), layout="constrained")
    for model, rows in history.groupby("model", sort=False):
        name, (colour, marker, _) = MODELS.get(model, model), look_of(model)
        best = rows.loc[rows["val_f1"].idxmax()]
        look = dict(color=colour, marker=marker, markersize=3, markevery=1 + len(rows) // 12)
        left.plot(rows["epoch"], rows["train_loss"], ":", color=colour)
        left.plot(rows["epoch"], rows["val_loss"], **look)
        right.plot(rows["epoch"], rows["val_f1"], label=f"{name}, best {best['val_f1']:.3f}", **look)
        right.plot(best["epoch"], best["val_f1"], marker, color=colour, markersize=5.5, **RIM)
    left.set(xlabel="Epoch", ylabel="Loss", ylim=(0, None))
    right.set(xlabel="Epoch", ylabel="Macro F1 of pixels", ylim=(0, 1))
    lettered((left, right), ("training (dotted) and validation (marks)", "validation; rimmed: the epoch that is kept"))
    for ax in (left, right):
        ax.xaxis.get_major_locator().set_params(integer=True)
    handles = right.get_legend_handles_labels()
    fig.legend(*handles, loc="outside upper center", ncols=4)
    return noted(fig, note)
