"""Figures of images and label maps, with their captions: the data set, its audit, and what networks predict for it."""

import textwrap
from collections.abc import Sequence
from itertools import pairwise
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from lumbar_utils import LEVELS, model_name
from lumbar_utils.data.folder import Cohort
from lumbar_utils.output.figures.style import (
    COLUMN,
    LEVEL_COLOURS,
    PAGE,
    SMALLEST,
    add_text,
    draw_contours,
    draw_image,
    finish,
    label_panels,
    panels,
    stacked_bars,
)
from lumbar_utils.output.tables import describe_data
from lumbar_utils.scores.measurements import Body, find_bodies, measure

SEVERITY_COLOURS = {"error": "#D55E00", "warning": "#E69F00", "accepted": "#D5D5D5"}
DIFFERENCE_COLOURS = {"missed": "#56B4E9", "invented": "#E69F00", "wrong level": "#CC79A7"}
WARNING_COLOUR = "#A33B00"
PICTURES_ACROSS = 3  # of an audit
SAMPLES_ACROSS = 4


def data_overview(intensities: pd.DataFrame, areas: pd.DataFrame, split: pd.DataFrame, note: str = "") -> Figure:
    """Four panels: grey values of each tissue, area and position of each level, patients on each side of the split.

    intensities : tissue, grey (0..255), share. areas : case, level, area, unit, x, y (shares of width and height).
    split : patient, split.
    """
    fig, axes = panels(2, 2, (PAGE, 4.6))
    greys, sizes, places, sides = axes.flat
    levels = [level for level in LEVEL_COLOURS if level in set(areas["level"])]
    _grey_values(greys, intensities)
    _areas(sizes, areas, levels)
    _centres(places, areas, levels)
    counts = split["split"].value_counts().reindex(["train", "validation", "test"])
    sides.bar_label(sides.bar(counts.index, counts, color="#888888", width=0.6))
    sides.set(ylabel="Patients")
    label_panels(axes.flat, ("grey values", "areas", "centres", "split"))
    return finish(fig, note)


def _grey_values(ax: Axes, intensities: pd.DataFrame) -> None:
    for tissue, rows in intensities.groupby("tissue", sort=False):
        colour = LEVEL_COLOURS.get(tissue, "#888888")
        ax.plot(rows["grey"], 100 * rows["share"], color=colour, label=tissue, lw=1)
    highest = intensities.loc[intensities["tissue"] != "background", "share"].max()
    ax.set(xlabel="Grey value", ylabel="Pixels of the tissue (%)", xlim=(0, 255), ylim=(0, 1.15 * 100 * highest))
    ax.legend(ncols=2)


def _areas(ax: Axes, areas: pd.DataFrame, levels: list[str]) -> None:
    import seaborn as sns  # takes seconds

    sns.boxplot(
        areas, x="level", y="area", hue="level", order=levels, hue_order=levels, palette=LEVEL_COLOURS, ax=ax,
        linewidth=0.7, fliersize=1.5, saturation=1, legend=False,
    )  # fmt: skip
    units = areas["unit"].map({"mm2": "mm²", "px": "pixels"}).unique()
    ax.set(xlabel=f"Vertebra (n = {len(areas)})", ylabel=f"Area ({', '.join(units)})")


def _centres(ax: Axes, areas: pd.DataFrame, levels: list[str]) -> None:
    for level in levels:
        rows = areas[areas["level"] == level]
        ax.plot(100 * rows["x"], 100 * rows["y"], ".", color=LEVEL_COLOURS[level], markersize=2, label=level)
    ax.set(xlabel="Centre, % of the width", ylabel="Centre, % of the height", xlim=(0, 100), ylim=(100, 0))
    ax.legend(markerscale=4, loc="lower left")


def data_overview_caption(areas: pd.DataFrame, cohort: Cohort) -> str:
    """areas : one row a vertebra."""
    patients = cohort.cases.drop_duplicates("patient")["split"].value_counts()
    train, validation, test = patients.reindex(["train", "validation", "test"], fill_value=0)
    return (
        f"(a) Grey values of each tissue, (b) areas and (c) centres of {len(areas)} vertebrae, (d) patients to train "
        f"on ({train}), to validate on ({validation}) and to test on ({test}). Data: {describe_data(cohort, 'all')}."
    )


def audit_page(findings: pd.DataFrame, pictures: Sequence = (), note: str = "") -> Figure:
    """Findings by kind as bars, coloured by severity; below, images with the contours of their masks.

    findings : finding, severity (error, warning or accepted), kind. pictures : each with finding, severity, image
        (height, width) uint8, spacing_mm and label_map of that shape or None.
    """
    counts = pd.crosstab(findings["kind"], findings["severity"]).reindex(columns=list(SEVERITY_COLOURS), fill_value=0)
    counts = counts.sort_values(list(SEVERITY_COLOURS))  # bars grow upwards: the most errors come out on top
    titles = [picture.finding.replace(":", f" ({picture.severity})\n", 1) for picture in pictures]
    rows = -(-len(pictures) // PICTURES_ACROSS)
    heights = [0.8 + 0.18 * max(len(counts), 1), *[2.4] * rows]
    fig = plt.figure(figsize=(PAGE, sum(heights)), layout="constrained")
    grid = fig.add_gridspec(1 + rows, PICTURES_ACROSS, height_ratios=heights)
    _finding_bars(fig.add_subplot(grid[0, :]), counts)
    for number, picture in enumerate(pictures):
        ax = fig.add_subplot(grid[1 + number // PICTURES_ACROSS, number % PICTURES_ACROSS])
        draw_image(ax, picture)
        if picture.label_map is not None:
            draw_contours(ax, picture.label_map)
    if pictures:
        label_panels(fig.axes, ["findings by kind", *titles])
    return finish(fig, note)


def _finding_bars(ax: Axes, counts: pd.DataFrame) -> None:
    """Stacked bars, one a kind. counts : kind x severity."""
    if counts.empty:
        ax.text(0.5, 0.5, "nothing found", transform=ax.transAxes, ha="center", va="center")
        ax.set(xlim=(0, 1), yticks=[], xticks=[])
        return
    stacked_bars(ax, counts, SEVERITY_COLOURS, height=0.7)
    totals = counts.sum(axis=1)
    ax.bar_label(ax.containers[-1], totals.astype(str), padding=2, fontsize=SMALLEST)
    ax.set(xlabel="Findings", xlim=(0, 1.08 * totals.max()))
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside upper right", ncols=len(SEVERITY_COLOURS))


def audit_caption(findings: pd.DataFrame, data: str) -> str:
    """findings : severity, one row a finding. data : description of the data, which may be too broken for a cohort."""
    counts = findings["severity"].value_counts()
    numbers = ", ".join(f"{severity} {counts.get(severity, 0)}" for severity in SEVERITY_COLOURS)
    return f"Findings of the audit by kind and severity ({numbers}), with pictures. Data: {data}."


def samples(examples: Sequence, note: str = "") -> Figure:
    """Images with the contours and names of their levels, four in a row.

    examples : each with case, image (height, width) uint8, reference (height, width) label map, spacing_mm.
    """
    fig, axes = _image_grid(len(examples), SAMPLES_ACROSS, 1.95)
    _draw_labelled(axes, examples)
    return finish(fig, note)


def _draw_labelled(axes: Sequence[Axes], examples: Sequence) -> None:
    """Each example on axes of its own, under its name."""
    for ax, example in zip(axes, examples, strict=True):
        draw_image(ax, example)
        draw_contours(ax, example.reference)
    label_panels(axes, [example.case for example in examples])


def samples_caption(examples: Sequence, cohort: Cohort) -> str:
    """examples : those drawn."""
    return (
        f"The first image of {len(examples)} patients with the reference contours of {', '.join(cohort.annotated)}. "
        f"Data: {describe_data(cohort, 'all')}."
    )


def overlay_caption(model: str, count: int, cohort: Cohort) -> str:
    """count : how many images are drawn."""
    data = describe_data(cohort, "all")
    return f"Label maps of {model_name(model)} over {count} of {data}. There is no reference to score by."


def labelled_scan(examples: Sequence, warnings: Sequence[str] = (), note: str = "") -> Figure:
    """Slices of one scan side by side, with the contours and names of their levels, below the warnings of the scan.

    examples : as for `samples`.
    """
    lines = [line for warning in warnings for line in textwrap.wrap(warning, 125)]
    height = min(PAGE / len(examples) * _tallest(examples), 5) + 0.5 + 0.13 * len(lines)
    fig, axes = panels(1, len(examples), (PAGE, height))
    _draw_labelled(axes[0], examples)
    if lines:
        fig.suptitle("\n".join(lines), x=0.005, ha="left", fontsize=7, color=WARNING_COLOUR)
    return finish(fig, note)


def _tallest(examples: Sequence) -> float:
    """The highest ratio of height to width of the images."""
    return max(example.image.shape[0] / example.image.shape[1] for example in examples)


def labelled_scan_caption(name: str, model: str, slices: Sequence[str], warnings: Sequence[str], note: str) -> str:
    """slices : names of those drawn. note : what has to be said of every result."""
    text = f"Label map of {model_name(model)} over {name}: {', '.join(slices)}. There is no reference to score by."
    return " ".join([text, *warnings, note])


def predictions(examples: Sequence, model: str, note: str = "") -> Figure:
    """One row a case: image, reference, prediction, and where the two differ.

    examples : as for `samples`, and prediction (height, width) label map, f1 (mean over levels), and annotated (values
        of the levels that the reference annotates; a prediction of another level is drawn, and is no difference).
    """
    name = model_name(model)
    if not examples:
        fig, axes = panels(1, 1, (PAGE, 0.8))
        axes[0, 0].text(0.5, 0.5, f"{name} has no label maps of the test images", ha="center", va="center")
        axes[0, 0].axis("off")
        return finish(fig, note)
    row_height = min(1.7 * _tallest(examples), 2.5) + 0.25  # as large as the width allows, three rows on a page
    fig, axes = panels(len(examples), 4, (PAGE, row_height * len(examples) + 0.3))
    for ax, title in zip(axes[0, 1:], ("Reference", name, "Differences"), strict=True):
        ax.set_title(title)
    for row, example in zip(axes, examples, strict=True):
        for ax in row:
            draw_image(ax, example)
        draw_contours(row[1], example.reference)
        draw_contours(row[2], example.prediction)
        _draw_differences(row[3], example)
    label_panels(axes[:, 0], [f"{example.case}, F1 {example.f1:.3f}" for example in examples])
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in DIFFERENCE_COLOURS.values()]
    fig.legend(handles, DIFFERENCE_COLOURS, loc="outside lower right", ncols=3)
    return finish(fig, note)


def _draw_differences(ax: Axes, example) -> None:
    true = example.reference
    pred = np.where(np.isin(example.prediction, example.annotated), example.prediction, 0)
    differences = {
        "missed": (true > 0) & (pred == 0),
        "invented": (true == 0) & (pred > 0),
        "wrong level": (true > 0) & (pred > 0) & (true != pred),
    }
    for kind, pixels in differences.items():
        ax.imshow(pixels[..., None] * to_rgba(DIFFERENCE_COLOURS[kind], 0.9))


def predictions_caption(examples: Sequence, model: str, cohort: Cohort) -> str:
    """examples : those drawn, each with case and f1."""
    if not examples:
        return f"{model_name(model)} has no label maps of the test images."
    cases = ", ".join(f"{example.case} ({example.f1:.3f})" for example in examples)
    text = (
        f"Test images of {model_name(model)} from the best through the median to the worst by F1: {cases}. From left "
        "to right: image, reference, prediction, differences."
    )
    missing = [level for level in LEVELS if level not in cohort.annotated]
    if missing:
        text += f" The reference does not annotate {', '.join(missing)}: drawn where predicted, and no difference."
    return f"{text} Chosen from {describe_data(cohort)}."


def worst(examples: Sequence, titles: Sequence[str], across: int, note: str = "") -> Figure:
    """Predictions that went wrong, each with its reference in white and a text on what is wrong, `across` in a row.

    examples : as for `predictions`.
    """
    fig, axes = _image_grid(len(examples), across, 2.6)
    for ax, example in zip(axes, examples, strict=True):
        draw_image(ax, example)
        ax.set_anchor("W")  # so that the text has the width of the panel, not of the image
        for value in np.unique(example.reference[example.reference > 0]):
            ax.contour(example.reference == value, levels=[0.5], colors="white", linewidths=0.6, linestyles="--")
        draw_contours(ax, example.prediction)
    label_panels(axes, titles, SMALLEST)
    return finish(fig, note)


def worst_caption(titles: Sequence[str], cohort: Cohort) -> str:
    """titles : above each picture; the first line names network and case, the second begins with the F1."""
    cases = []
    for title in titles:
        network_and_case, errors_of_case = title.split("\n")[:2]
        cases.append(f"{network_and_case} ({errors_of_case.split(':')[0]})")
    return (
        f"The worst test images of each network, the reference dashed: {'; '.join(cases)}. "
        f"Chosen from {describe_data(cohort)}."
    )


def _image_grid(count: int, across: int, row_height: float) -> tuple[Figure, np.ndarray]:
    """A page of `count` panels without axes, `across` in a row."""
    rows = -(-count // across)
    fig, axes = panels(rows, across, (PAGE, row_height * rows))
    for ax in axes.flat:
        ax.axis("off")
    return fig, axes.ravel()[:count]


def measurements(image: np.ndarray, label_map: np.ndarray, spacing_mm: float, note: str = "") -> Figure:
    """A slice around its spine with what is measured on it (see `scores.measurements`).

    Lines are end plates, and heights between corners. Numbers are the anterior, middle and posterior height of a body,
    and in white the middle height of a disc. The end plates of the lordosis go on behind the bodies, dashed.
    image : (height, width) uint8. label_map : of that shape. spacing_mm : nan if unknown, then lengths are in px.
    """
    window = _around(label_map)
    image, label_map = image[window], label_map[window]
    bodies, table = find_bodies(label_map), measure(label_map, spacing_mm)
    values = {(row.level, row.measure): row.value for row in table.itertuples()}
    height, across = image.shape
    fig, axes = panels(1, 1, (COLUMN, COLUMN * height / across + 0.3))
    ax = axes[0, 0]
    draw_image(ax, SimpleNamespace(image=image, spacing_mm=spacing_mm))
    for level, body in bodies.items():
        _draw_body(ax, level, body, values)
    for above, below in pairwise(LEVEL_COLOURS):
        disc = values.get((f"{above}-{below}", "middle disc height"))
        if disc is not None:
            place = (bodies[above].back_bottom + bodies[below].back_top) / 2
            add_text(ax, *place, f" {disc:.1f}", "white", ha="left")
    title = f"Heights in {'px' if np.isnan(spacing_mm) else 'mm'}"
    ends = "L1-S1" if "S1" in bodies else "L1-L5"
    if not np.isnan(values[ends, "lordosis"]):
        title += f", lordosis {ends} {values[ends, 'lordosis']:.0f}°"
        _draw_lordosis(ax, bodies, ends)
    ax.set(title=title, xlim=(-0.5, across - 0.5), ylim=(height - 0.5, -0.5))
    return finish(fig, note)


def measurements_caption(what: str) -> str:
    """what : which slice, and who or what outlined it."""
    return (
        "End plates, corners and heights of the vertebral bodies as measured on the label map, the middle heights of "
        "the discs in white, and the end plates of the lordosis dashed. All values, with definitions and sources in "
        f"lumbar_utils/scores/measurements.py, are in the table of measurements. {what}"
    )


def _around(label_map: np.ndarray) -> tuple[slice, slice]:
    """The part of an image around its labels; all of it where it has none."""
    rows, columns = np.nonzero(label_map)
    if not len(rows):
        return slice(None), slice(None)
    tall = np.ptp(rows)
    top, left = max(rows.min() - tall // 12, 0), max(columns.min() - tall // 5, 0)
    return slice(top, rows.max() + tall // 8), slice(left, columns.max() + tall // 4)


def _draw_body(ax: Axes, level: str, body: Body, values: dict) -> None:
    colour = LEVEL_COLOURS[level]
    _draw_line(ax, body.front_top, body.back_top, "o-", color=colour, lw=1.2, ms=2)
    centre = np.mean(body[:4], axis=0)
    add_text(ax, *(centre + 0.2 * (body.front_top - body.back_top)), level, colour, ha="center")
    if (level, "middle height") not in values:  # S1
        return
    _draw_line(ax, body.front_bottom, body.back_bottom, "o-", color=colour, lw=1.2, ms=2)
    heights = {
        "anterior": (body.front_top, body.front_bottom, "right"),
        "middle": (body.middle_top, body.middle_bottom, "left"),
        "posterior": (body.back_top, body.back_bottom, "left"),
    }
    for name, (top, bottom, side) in heights.items():
        _draw_line(ax, top, bottom, color=colour, lw=0.7)
        add_text(ax, *((top + bottom) / 2), f" {values[level, f'{name} height']:.1f} ", colour, ha=side)


def _draw_lordosis(ax: Axes, bodies: dict[str, Body], ends: str) -> None:
    """The two end plates of an angle, drawn on by their own length behind the bodies."""
    first, last = bodies["L1"], bodies[ends[-2:]]
    lower = (last.front_top, last.back_top) if ends == "L1-S1" else (last.front_bottom, last.back_bottom)
    for front, back in ((first.front_top, first.back_top), lower):
        _draw_line(ax, back, 2 * back - front, "--", color="white", lw=0.7)


def _draw_line(ax: Axes, start: np.ndarray, end: np.ndarray, *style, **options) -> None:
    """A line between two points (x, y). style, options : of `Axes.plot`."""
    ax.plot(*np.transpose([start, end]), *style, **options)
