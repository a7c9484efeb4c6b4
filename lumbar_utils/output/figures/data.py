"""What a data set looks like."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lumbar_utils.output.figures.drawing import LEVEL_COLOURS, PAGE, lettered, noted, of_two_widths


@of_two_widths
def data_overview(
    intensities: pd.DataFrame, areas: pd.DataFrame, split: pd.DataFrame, note: str = "", width: float = PAGE
) -> Figure:
    """Four panels: grey values of each tissue, area and position of each level, patients on each side of the split.

    intensities : tissue, grey (0..255), share. areas : case, level, area, unit, x, y (shares of width and height).
    split : patient, split.
    """
    import seaborn as sns  # takes seconds

    down, across = (2, 2) if width == PAGE else (4, 1)
    fig, axes = plt.subplots(down, across, figsize=(width, 4.6 if width == PAGE else 7.6), layout="constrained")
    grey, area, place, sides = axes.flat
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
    units = ", ".join(unit[name] for name in areas["unit"].unique())
    area.set(xlabel=f"Vertebra (n = {len(areas)})", ylabel=f"Area ({units})")
    for level in levels:
        rows = areas[areas["level"] == level]
        place.plot(100 * rows["x"], 100 * rows["y"], ".", color=LEVEL_COLOURS[level], markersize=2, label=level)
    place.set(xlabel="Centre, % of the width", ylabel="Centre, % of the height", xlim=(0, 100), ylim=(100, 0))
    place.legend(markerscale=4, loc="lower left")
    counts = split["split"].value_counts().reindex(["train", "validation", "test"])
    bars = sides.bar(counts.index, counts, color="#888888", width=0.6)
    sides.bar_label(bars)
    sides.set(ylabel="Patients")
    lettered((grey, area, place, sides), ("grey values", "areas", "centres", "split"))
    return noted(fig, note)
