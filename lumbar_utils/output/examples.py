"""Cases to look at: the best, the median, the worst, and what is wrong with them in words."""

import dataclasses
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd

from lumbar_utils import MODELS
from lumbar_utils.data.folder import Cohort
from lumbar_utils.scores import metrics
from lumbar_utils.scores.evaluation import Evaluation, annotated_levels, read_label_map


@dataclasses.dataclass(frozen=True)
class Example:
    """One case to look at: image (height, width) uint8, label maps of that shape, F1 as the mean over its levels."""

    case: str
    image: np.ndarray
    reference: np.ndarray
    spacing_mm: float
    prediction: np.ndarray | None = None
    f1: float | None = None


def examples(cohort: Cohort, cases: list[str], folder: Path | None = None) -> list[Example]:
    """Cases to look at, in the order named; with the label maps of a folder where one is given."""
    table, levels = cohort.cases.set_index("case", drop=False), annotated_levels(cohort)
    found = []
    for _, case in table.loc[cases].iterrows():
        example = Example(case["case"], cohort.image(case), cohort.mask(case), case["spacing_mm"])
        if folder:
            pred = read_label_map(folder, case, example.image.shape)
            f1 = metrics.f1_by_level(pred, example.reference, levels)
            example = dataclasses.replace(example, prediction=pred, f1=float(np.mean(list(f1.values()))))
        found.append(example)
    return found


def mean_f1(scores: pd.DataFrame, model: str) -> pd.Series:
    """Case -> mean F1 of its levels, of a model's test cases, the worst first."""
    rows = scores[(scores["model"] == model) & (scores["metric"] == "f1")]
    return rows.groupby("case")["value"].mean().sort_values(kind="stable")


def telling_cases(scores: pd.DataFrame, model: str) -> list[str]:
    """The best, the median and the worst test case of a model, by the mean F1 of its levels; none without scores."""
    ranked = mean_f1(scores, model).sort_values(ascending=False, kind="stable").index
    if ranked.empty:
        return []
    return list(dict.fromkeys([ranked[0], ranked[len(ranked) // 2], ranked[-1]]))


def worst_cases(found: Evaluation, model: str, count: int = 2) -> list[tuple[str, str]]:
    """The worst test cases of a model by the mean F1 of their levels, the worst first: case, and words on it.

    "F1 0.412: L1 missing; L2 named L3; 1 extra S1".
    """
    rows, told = found.bodies[found.bodies["model"] == model], []
    for case, value in mean_f1(found.scores, model).head(count).items():
        wrong = rows[(rows["case"] == case) & (rows["outcome"] != "right")]
        real, extra = wrong[wrong["outcome"] != "extra"], wrong.loc[wrong["outcome"] == "extra", "named"]
        words = [f"{row.level} {f'named {row.named}' if row.named else 'missing'}" for row in real.itertuples()]
        words += [f"{times} extra {name}" for name, times in extra.value_counts(sort=False).items()]
        told.append((case, f"F1 {value:.3f}: {'; '.join(words) or 'all found and named; outlines'}"))
    return told


def worst_of_each(
    cohort: Cohort, found: Evaluation, folders: dict[str, Path], count: int = 2
) -> tuple[list[Example], list[str]]:
    """The worst cases of each model with captions, in rows: the worst of every model, then the second worst, ..."""
    told = {model: worst_cases(found, model, count) for model in folders}
    places = [(model, *told[model][place]) for place in range(count) for model in folders if place < len(told[model])]
    shown = [examples(cohort, [case], folders[model])[0] for model, case, _ in places]
    captions = [
        "\n".join([f"{MODELS.get(model, model)}, {case}", *textwrap.wrap(words, 46)[:3]])
        for model, case, words in places
    ]
    return shown, captions
