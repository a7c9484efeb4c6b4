"""Cases to leaf through in a notebook; where nobody can move a slider, a picture of the first one."""

import base64
import html
import io

import pandas as pd

from lumbar_utils import MODELS, StudyError
from lumbar_utils.data.folder import Cohort
from lumbar_utils.output import figures
from lumbar_utils.output.examples import examples, mean_f1
from lumbar_utils.scores.evaluation import annotated_levels, read_label_map

ALL = "all"
AS_THEY_COME = "as they come"


class Viewer:
    """One case at a time, shown by the cell that returns it: with sliders, or as a picture where nobody is there.

    folders : model -> folder of its label maps. scores : as of an `Evaluation`; the cases with a score are shown.
    Without scores, the cases that every folder has a label map of; without both, every case with its reference alone.
    Only the files of the case in view are read.
    """

    def __init__(self, cohort: Cohort, folders: dict | None = None, scores: pd.DataFrame | None = None):
        self.cohort, self.folders, self.levels = cohort, folders or {}, annotated_levels(cohort)
        self.cases = cohort.cases.set_index("case", drop=False)
        self.f1 = None if scores is None else scores[scores["metric"] == "f1"]
        scored = {} if scores is None else {name: mean_f1(scores, name).index.tolist() for name in self.folders}
        self.orders = {f"worst of {MODELS.get(name, name)}": cases for name, cases in scored.items() if cases}
        shown = self._with_maps() if scores is None else set(scores["case"])
        self.orders[AS_THEY_COME] = [case for case in self.cases.index if case in shown]
        if not self.orders[AS_THEY_COME]:
            raise StudyError(f"no case has a label map of each of {', '.join(self.folders)}; predict the test cases")

    def _with_maps(self) -> set[str]:
        """The cases that every folder has a label map of."""
        there = [{file.stem for file in folder.glob("*.png")} for folder in self.folders.values()]
        return set(self.cases.index).intersection(*there)

    def draw(self, place=1, order=None, level=ALL, opacity=1.0, filled=False) -> tuple[bytes, str]:
        """A case as PNG and in words.

        place : in the order, from 1. order : one of `orders`, by default the first. level : one annotated, or `all`.
        """
        cases = self.orders[order or next(iter(self.orders))]
        (example,) = examples(self.cohort, [cases[place - 1]])
        maps = {model: self._map(model, example, level) for model in self.folders}
        levels = {value: name for value, name in self.levels.items() if level in (ALL, name)}
        title = f"{example.case}, {place} of {len(cases)}"
        if maps and self.f1 is not None:
            title += f"; F1, {'mean of its levels' if level == ALL else level}"
        fig, stream = figures.view(example, maps, levels, title, self.cohort.note, opacity, filled), io.BytesIO()
        fig.savefig(stream, format="png", dpi="figure", pil_kwargs={"compress_level": 3})  # faster than small
        words = ["reference", *(words for _, words in maps.values())]
        return stream.getvalue(), f"{title}: {', '.join(words)}"

    def _map(self, model: str, example, level: str) -> tuple:
        """Label map of a model, and its name with the F1 of a level or of the mean over all; without, where none is."""
        words = MODELS.get(model, model)
        if self.f1 is not None:
            rows = self.f1[(self.f1["case"] == example.case) & (self.f1["model"] == model)]
            value = rows["value"][rows["level"].eq(level) | (level == ALL)].mean()
            words += "" if pd.isna(value) else f" {value:.3f}"
        return read_label_map(self.folders[model], self.cases.loc[example.case], example.image.shape), words

    def widget(self):
        """The controls above the picture, which follows each of them."""
        from ipywidgets import HTML, Checkbox, Dropdown, FloatSlider, HBox, IntSlider, Layout, VBox

        count, short = len(self.orders[AS_THEY_COME]), Layout(width="240px")
        controls = {
            "place": IntSlider(1, 1, count, description="case", layout=Layout(width="480px")),
            "order": Dropdown(options=[*self.orders], description="order", layout=short),
            "level": Dropdown(options=[ALL, *self.levels.values()], description="level", layout=Layout(width="170px")),
            "opacity": FloatSlider(1, min=0, max=1, step=0.05, description="opacity", layout=short),
            "filled": Checkbox(False, description="filled", indent=False, layout=Layout(width="80px")),
        }
        picture = HTML()

        def follow(change=None):
            if change and change["owner"] is controls["order"]:
                controls["place"].value = 1  # the worst, where there is one
            try:
                png, words = self.draw(**{name: control.value for name, control in controls.items()})
                source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
                picture.value = f'<img alt="{html.escape(words)}" src="{source}" style="max-width: 100%">'
            except StudyError as error:
                picture.value = f"<pre>{html.escape(str(error))}</pre>"

        for control in controls.values():
            control.observe(follow, "value")
        follow()
        place, *others = controls.values()
        others = others if len(self.orders) > 1 else others[1:]
        return VBox([place, HBox(others, layout=Layout(flex_flow="row wrap")), picture])

    def _repr_mimebundle_(self, **_) -> tuple[dict, dict]:
        """PNG and words, which every reader of notebooks shows; the widget too while somebody can move its sliders."""
        png, words = self.draw()
        data = {"text/plain": words, "image/png": base64.b64encode(png).decode()}
        widget = self.widget()._repr_mimebundle_() if _somebody_is_there() else {}
        return widget | data, {"image/png": {"alt": words}}


def _somebody_is_there() -> bool:
    """Whether a person ran this cell: papermill and nbconvert tell the kernel that nobody can be asked for input.

    A widget of theirs would outlive its kernel, and be an error in the copy that they leave.
    """
    from IPython import get_ipython

    shell = get_ipython()
    asked = shell.get_parent() if hasattr(shell, "get_parent") else {}
    return bool(asked.get("content", {}).get("allow_stdin"))
