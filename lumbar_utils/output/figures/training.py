"""How a network was trained."""

import pandas as pd
from matplotlib.figure import Figure

from lumbar_utils import MODELS
from lumbar_utils.output.figures.drawing import PAGE, RIM, keyed, lettered, look_of, noted, of_two_widths, two_panels


@of_two_widths
def learning_curves(history: pd.DataFrame, note: str = "", width: float = PAGE) -> Figure:
    """Loss and validation F1 over epochs, the best epoch of each model marked.

    history : model, epoch, train_loss, val_loss, val_f1 in [0, 1].
    """
    fig, (left, right) = two_panels(width, 2.5, 4.2)
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
    keyed(fig, right)
    return noted(fig, note)
