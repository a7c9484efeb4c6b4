"""How a network was trained."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lumbar_utils import MODELS
from lumbar_utils.figures.drawing import PAGE, colour_of, noted


def learning_curves(history: pd.DataFrame, note: str = "") -> Figure:
    """Loss and validation F1 over epochs, the best epoch of each model marked.

    history : model, epoch, train_loss, val_loss, val_f1 in [0, 1].
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(PAGE, 2.5), layout="constrained")
    for model, rows in history.groupby("model", sort=False):
        name = MODELS.get(model, model)
        colour, best = colour_of(model), rows.loc[rows["val_f1"].idxmax()]
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
