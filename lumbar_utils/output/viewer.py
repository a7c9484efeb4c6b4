"""Single cases: which to look at, one drawn for a screen, and a viewer for notebooks.

Where nobody can move the viewer's sliders, it shows a picture of its first case.
"""

import base64
import dataclasses
import html
import io
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from lumbar_utils import LEVELS, StudyError, model_name
from lumbar_utils.data.folder import Cohort
from lumbar_utils.output.figures.style import LEVEL_COLOURS, draw_image, luminance, name_level, style_of
from lumbar_utils.scores import metrics
from lumbar_utils.scores.evaluation import Evaluation, annotated_levels, read_label_map

ALL_LEVELS = "all"
DATA_ORDER = "as they come"
WORST = 2  # cases of each model
CAPTION_WIDTH = 46  # characters of a line above a picture


@dataclasses.dataclass(frozen=True)
class Example:
    """One case: image (height, width) uint8, label maps of that shape, F1 as the mean over its levels.

    annotated : label values of the levels that the reference annotates; others may be predicted and are no error.
    """

    case: str
    image: np.ndarray
    reference: np.ndarray
    spacing_mm: float
    prediction: np.ndarray | None = None
    f1: float | None = None
    annotated: tuple[int, ...] = tuple(range(1, len(LEVELS) + 1))


def examples(cohort: Cohort, cases: list[str], folder: Path | None = None) -> list[Example]:
    """The named cases in their order, with the label maps of a folder if one is given."""
    table, levels = cohort.cases.set_index("case", drop=False), annotated_levels(cohort)
    found = []
    for _, case in table.loc[cases].iterrows():
        image, reference = cohort.image(case), cohort.mask(case)
        pred, f1 = None, None
        if folder:
            pred = read_label_map(folder, case, image.shape)
            f1 = float(np.mean(list(metrics.f1_by_level(pred, reference, levels).values())))
        found.append(Example(case["case"], image, reference, case["spacing_mm"], pred, f1, tuple(levels)))
    return found


def mean_f1(scores: pd.DataFrame, model: str) -> pd.Series:
    """Case -> mean F1 over the levels of each test case of a model, the worst first.

    scores : case, model, metric, value; as of an Evaluation.
    """
    rows = scores[(scores["model"] == model) & (scores["metric"] == "f1")]
    return rows.groupby("case")["value"].mean().sort_values(kind="stable")


def best_median_worst(scores: pd.DataFrame, model: str) -> list[str]:
    """The best, the median and the worst test case of a model by mean F1; none without scores (see `mean_f1`)."""
    ranked = mean_f1(scores, model).sort_values(ascending=False, kind="stable").index
    if ranked.empty:
        return []
    return list(dict.fromkeys([ranked[0], ranked[len(ranked) // 2], ranked[-1]]))


def worst_cases(found: Evaluation, model: str) -> list[tuple[str, str]]:
    """The WORST test cases of lowest mean F1 of a model, the worst first, each with a description of its errors.

    "F1 0.412: L1 missing; L2 named L3; 1 extra S1".
    """
    bodies, described = found.bodies[found.bodies["model"] == model], []
    for case, value in mean_f1(found.scores, model).head(WORST).items():
        wrong = bodies[(bodies["case"] == case) & (bodies["outcome"] != "right")]
        description = "; ".join(_errors_of_case(wrong)) or "all found and named; outlines"
        described.append((case, f"F1 {value:.3f}: {description}"))
    return described


def _errors_of_case(wrong: pd.DataFrame) -> list[str]:
    """`L1 missing`, `L2 named L3`, `1 extra S1`. wrong : level, named, outcome."""
    errors = []
    for row in wrong[wrong["outcome"] != "extra"].itertuples():
        errors.append(f"{row.level} named {row.named}" if row.named else f"{row.level} missing")
    extra = wrong.loc[wrong["outcome"] == "extra", "named"]
    return errors + [f"{times} extra {name}" for name, times in extra.value_counts(sort=False).items()]


def worst_of_each(cohort: Cohort, found: Evaluation, folders: dict[str, Path]) -> tuple[list[Example], list[str]]:
    """The worst cases of each model with captions: the worst of every model, then the second worst.

    folders : model -> folder of its label maps.
    """
    shown, captions = [], []
    for of_models in zip(*(worst_cases(found, model) for model in folders), strict=True):
        for (model, folder), (case, description) in zip(folders.items(), of_models, strict=True):
            shown += examples(cohort, [case], folder)
            lines = [f"{model_name(model)}, {case}", *textwrap.wrap(description, CAPTION_WIDTH)[:3]]
            captions.append("\n".join(lines))
    return shown, captions


def draw_case(
    example: Example,
    predictions: dict[str, tuple[np.ndarray, str]],
    levels: dict[int, str],
    title: str,
    note: str = "",
    opacity: float = 1,
) -> Figure:
    """One case for a screen: its reference dashed in white upon one colour a model, or alone, in one colour a level.

    predictions : model -> (height, width) label map, and its text in the legend. levels : value -> name, to be drawn.
    opacity : of the contours, in [0, 1].
    """
    fig = plt.figure(figsize=(5.2, 5.7), facecolor="black")
    ax = fig.add_axes((0, 0.035, 1, 0.875 if predictions else 0.915))
    draw_image(ax, example)
    for value, level in levels.items():
        for number, (model, (label_map, _)) in enumerate(predictions.items()):
            width = max(2 - 0.5 * number, 1)  # where contours lie on one another, each can be seen
            _draw_outline(ax, label_map == value, style_of(model).colour, width, opacity)
        inside = example.reference == value
        colour, line = ("white", "--") if predictions else (LEVEL_COLOURS[level], "-")
        _draw_outline(ax, inside, colour, 1.2, opacity, line)
        if inside.any():
            name_level(ax, inside, level, colour, 8)
    fig.text(0.02, 0.985, title, color="white", fontsize=9, va="top")
    fig.text(0.02, 0.01, note, color="#BBBBBB", fontsize=7, style="italic")
    if predictions:
        _add_legend(ax, {model: text for model, (_, text) in predictions.items()})
    plt.close(fig)
    return fig


def _add_legend(ax: Axes, texts: dict[str, str]) -> None:
    """texts : model -> its text in the legend."""
    for model, text in texts.items():
        colour = style_of(model).colour
        ax.plot([], [], color=colour, lw=2, path_effects=_pale_rim(colour, 2), label=text)
    ax.plot([], [], color="white", ls="--", label="reference")
    ax.figure.legend(
        loc="upper left", bbox_to_anchor=(0.003, 0.965), ncols=4, labelcolor="white", fontsize=8.5,
        handlelength=1.6, columnspacing=1.3,
    )  # fmt: skip


def _draw_outline(ax: Axes, inside: np.ndarray, colour: str, width: float, opacity: float, line: str = "-") -> None:
    """The contour of one level, if there is any. inside : (height, width) boolean."""
    if inside.any():
        contour = ax.contour(inside, [0.5], colors=colour, linewidths=width, linestyles=line)
        contour.set(alpha=opacity, path_effects=_pale_rim(colour, width))


def _pale_rim(colour: str, width: float) -> list:
    """A rim for a line of a dark colour, which a dark image would swallow; none for other colours."""
    return [withStroke(linewidth=width + 1, foreground="#CCCCCC")] if luminance(colour) < 0.1 else []


class Viewer:
    """One case at a time in the output of a cell: with sliders, or as a picture where nobody can move them.

    folders : model -> folder of its label maps. scores : of these, as of an Evaluation; the cases with a score are
    shown. Without both, every case with its reference. Only the files of the case in view are read.
    """

    def __init__(self, cohort: Cohort, folders: dict | None = None, scores: pd.DataFrame | None = None):
        self.cohort, self.folders, self.levels = cohort, folders or {}, annotated_levels(cohort)
        self.cases = cohort.cases.set_index("case", drop=False)
        self.orders, shown = {}, self.cases.index  # name of an order -> cases
        if self.folders:
            self.f1, shown = scores[scores["metric"] == "f1"], scores["case"]
            for model in self.folders:
                self.orders[f"worst of {model_name(model)}"] = mean_f1(scores, model).index.tolist()
        self.orders[DATA_ORDER] = self.cases.index[self.cases.index.isin(shown)].tolist()

    def draw(self, place: int = 1, order: str = "", level: str = ALL_LEVELS, opacity: float = 1) -> tuple[bytes, str]:
        """A case as a PNG and as a text.

        place : in the order, from 1. order : one of `orders`, by default the first. level : one annotated, or `all`.
        """
        cases = self.orders[order or next(iter(self.orders))]
        (example,) = examples(self.cohort, [cases[place - 1]])
        maps = {model: self._prediction(model, example, level) for model in self.folders}
        levels = {value: name for value, name in self.levels.items() if level in (ALL_LEVELS, name)}
        title = f"{example.case}, {place} of {len(cases)}"
        if maps:
            title += f"; F1, {'mean of its levels' if level == ALL_LEVELS else level}"
        fig, stream = draw_case(example, maps, levels, title, self.cohort.note, opacity), io.BytesIO()
        fig.savefig(stream, format="png", dpi="figure", pil_kwargs={"compress_level": 3})  # faster than small
        return stream.getvalue(), f"{title}: {', '.join(['reference', *(text for _, text in maps.values())])}"

    def _prediction(self, model: str, example: Example, level: str) -> tuple[np.ndarray, str]:
        """A model's label map, and its name with its F1 of a level or of the mean over all, if there is one."""
        label_map = read_label_map(self.folders[model], self.cases.loc[example.case], example.image.shape)
        rows = self.f1[(self.f1["case"] == example.case) & (self.f1["model"] == model)]
        value = rows["value"][rows["level"].eq(level) | (level == ALL_LEVELS)].mean()
        return label_map, model_name(model) if pd.isna(value) else f"{model_name(model)} {value:.3f}"

    def widget(self):
        """The controls above the picture, which follows each of them."""
        from ipywidgets import HTML, Dropdown, FloatSlider, IntSlider, VBox

        controls = {
            "place": IntSlider(1, 1, len(self.orders[DATA_ORDER]), description="case", layout={"width": "480px"}),
            "order": Dropdown(options=[*self.orders], description="order"),
            "level": Dropdown(options=[ALL_LEVELS, *self.levels.values()], description="level"),
            "opacity": FloatSlider(1, min=0, max=1, step=0.05, description="opacity"),
        }
        picture = HTML()

        def follow(change=None):
            if change and change["owner"] is controls["order"]:
                controls["place"].value = 1  # the worst, where there is one
            picture.value = self._html({name: control.value for name, control in controls.items()})

        for control in controls.values():
            control.observe(follow, "value")
        follow()
        return VBox([*controls.values(), picture])

    def _html(self, values: dict) -> str:
        """A case as HTML, or why it cannot be drawn. values : of the arguments of `draw`."""
        try:
            png, text = self.draw(**values)
        except StudyError as error:
            return f"<pre>{html.escape(str(error))}</pre>"
        source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        return f'<img alt="{html.escape(text)}" src="{source}" style="max-width: 100%">'

    def _repr_mimebundle_(self, **_) -> tuple[dict, dict]:
        """PNG and text, which every reader of notebooks shows; the widget too while somebody can move its sliders."""
        png, text = self.draw()
        data = {"text/plain": text, "image/png": base64.b64encode(png).decode()}
        widget = self.widget()._repr_mimebundle_() if _is_interactive() else {}
        return widget | data, {"image/png": {"alt": text}}


def _is_interactive() -> bool:
    """Whether a person ran this cell: papermill and nbconvert tell the kernel that nobody can be asked for input.

    A widget of theirs would outlive its kernel, and be an error in the copy that they leave.
    """
    from IPython import get_ipython

    shell = get_ipython()
    parent = shell.get_parent() if hasattr(shell, "get_parent") else {}
    return bool(parent.get("content", {}).get("allow_stdin"))
