"""From tidy tables to the tables of a publication: csv to compute with, tex and md to paste."""

import re
from pathlib import Path

import pandas as pd

from lumbar_utils import METRICS, MODELS, paper, records
from lumbar_utils.datasets.folder import Cohort

CAPTION_1 = "The environment of the paper and of this run."


def table1(environment: dict[str, str]) -> pd.DataFrame:
    """Table I, the environment: item, paper, value (of this run)."""
    rows = [(item, paper.ENVIRONMENT.get(item, ""), value) for item, value in environment.items()]
    return pd.DataFrame(rows, columns=["item", "paper", "value"])


def table2(summary: pd.DataFrame) -> pd.DataFrame:
    """Table II, tidy: model, metric, value, paper; in the paper's order of models and metrics.

    summary : model, metric, value, as from `evaluation.summarise`.
    """
    table = summary.assign(paper=[paper.result(row.model, row.metric) for row in summary.itertuples()])
    known = {name: place for place, name in enumerate([*MODELS, *METRICS])}
    return table.sort_values(["model", "metric"], key=lambda names: names.map(known), ignore_index=True)


def print_table1(table: pd.DataFrame) -> pd.DataFrame:
    """Table I as printed."""
    return table.rename(columns={"item": "", "paper": "Paper", "value": "This run"})


def print_table2(table: pd.DataFrame) -> pd.DataFrame:
    """Table II as printed: one row a metric, this run and the paper side by side for each model."""
    rows = {}
    for metric in [name for name in METRICS if name in set(table["metric"])]:
        row = rows[METRICS[metric]] = {}
        for cell in table[table["metric"] == metric].itertuples():
            name = MODELS.get(cell.model, cell.model)
            row[name] = f"{cell.value:.4f}"
            row[f"{name}, paper"] = "" if pd.isna(cell.paper) else f"{cell.paper:.4f}"
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("").reset_index()


def caption2(cohort: Cohort) -> str:
    """What Table II was measured on."""
    test = cohort.cases[cohort.cases["split"] == "test"]
    kind = "synthetic images, which say nothing about patients" if cohort.synthetic else "real images"
    return (
        f"Scores on {len(test)} test images of {test['patient'].nunique()} patients ({cohort.name}; {kind}), "
        f"levels {', '.join(cohort.annotated)}, one split and one seed, beside the paper's, which are of other images."
    )


def reading(scores: pd.DataFrame, cohort: Cohort) -> str:
    """One honest paragraph on Table II, made from the numbers: who leads by F1, by how much, and what that is worth.

    scores : case, patient, level, model, metric, value. The lead is the mean difference over the same patients; below
        two standard errors it is called undecided.
    """
    f1 = scores[scores["metric"] == "f1"].groupby(["model", "patient"])["value"].mean().unstack("model")
    ranked = f1.mean().sort_values(ascending=False).index
    lead = (f1[ranked[0]] - f1[ranked[1]]).dropna()
    mean, error = lead.mean(), lead.sem()
    names = [MODELS.get(model, model) for model in ranked]
    if mean > 2 * error:
        verdict = f"{names[0]} leads on these images"
    else:
        verdict = f"this run cannot tell {names[0]} and {names[1]} apart"
    printed = sorted(paper.RESULTS, key=lambda model: -paper.result(model, "f1"))
    order = "the paper's order" if list(ranked) == printed else "not the paper's order"
    data = "synthetic images: no number here says anything about patients" if cohort.synthetic else cohort.name
    return (
        f"By F1: {' > '.join(names)}, {order} ({' > '.join(MODELS[model] for model in printed)}). "
        f"{names[0]} is {mean:.4f} above {names[1]}, with a standard error of {error:.4f} over {len(lead)} patients: "
        f"{verdict}. One split and one seed stand behind it; another seed may turn it round. Data: {data}."
    )


def write(folder: Path, name: str, tidy: pd.DataFrame, printed: pd.DataFrame, caption: str) -> list[Path]:
    """Write <name>.csv (tidy), <name>.tex (booktabs) and <name>.md (both as printed, with the caption)."""
    paths = [folder / f"{name}.{kind}" for kind in ("csv", "tex", "md")]
    records.write_csv(paths[0], tidy)
    prose = printed.iloc[:, 1].str.contains(r"[a-z]{3}").any()
    columns = r"lp{0.35\linewidth}p{0.4\linewidth}" if prose else "l" + "r" * (printed.shape[1] - 1)
    styled = printed.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis=1)
    latex = styled.to_latex(
        hrules=True,
        caption=re.sub(r"([&%$#_{}])", r"\\\1", caption),
        label=f"tab:{name}",
        position_float="centering",
        column_format=columns,
    )
    records.write_text(paths[1], latex)
    records.write_text(paths[2], f"{printed.to_markdown(index=False, disable_numparse=True)}\n\n{caption}\n")
    return paths
