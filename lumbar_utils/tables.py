"""From tidy tables to the tables of a publication: csv to compute with, tex and md to paste."""

import html
from pathlib import Path

import numpy as np
import pandas as pd

from lumbar_utils import METRICS, MODELS, paper, records
from lumbar_utils.datasets.folder import Cohort

CAPTION_1 = "The environment of the paper and of this run."
LATEX = str.maketrans({
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}",
})  # fmt: skip


def table1(environment: dict[str, str]) -> pd.DataFrame:
    """Table I, the environment: item, paper, value (of this run)."""
    rows = [(item, paper.ENVIRONMENT.get(item, ""), value) for item, value in environment.items()]
    return pd.DataFrame(rows, columns=["item", "paper", "value"])


def table2(summary: pd.DataFrame) -> pd.DataFrame:
    """Table II, tidy: model, metric, value, low, high, n, paper; in the paper's order of models and metrics.

    summary : model, metric, value, low, high, n, as from `summary.summarise`.
    """
    table = summary.assign(paper=[paper.result(row.model, row.metric) for row in summary.itertuples()])
    known = {name: place for place, name in enumerate([*MODELS, *METRICS])}
    return table.sort_values(["model", "metric"], key=lambda names: names.map(known), ignore_index=True)


def print_table1(table: pd.DataFrame) -> pd.DataFrame:
    """Table I as printed."""
    return table.rename(columns={"item": "", "paper": "Paper", "value": "This run"})


def print_table2(table: pd.DataFrame) -> pd.DataFrame:
    """Table II as printed: one row a metric, this run with its interval and the paper side by side for each model."""
    rows = {}
    for metric in [name for name in METRICS if name in set(table["metric"])]:
        row = rows[METRICS[metric]] = {}
        for cell in table[table["metric"] == metric].itertuples():
            name = MODELS.get(cell.model, cell.model)
            row[name] = with_interval(cell.value, cell.low, cell.high)
            row[f"{name}, paper"] = "" if pd.isna(cell.paper) else f"{cell.paper:.4f}"
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("").reset_index()


def with_interval(value: float, low: float, high: float) -> str:
    """A number as it stands in a table: 0.9629 [0.958, 0.967]; the number alone where no interval is known."""
    return f"{value:.4f}" if pd.isna(low) else f"{value:.4f} [{low:.3f}, {high:.3f}]"


def print_metrics(summary: pd.DataFrame) -> pd.DataFrame:
    """Every metric of every model with its interval: one row a metric, as defined in `metrics.DEFINITIONS`."""
    cells = summary.assign(text=[with_interval(row.value, row.low, row.high) for row in summary.itertuples()])
    order = list(dict.fromkeys(summary["metric"]))
    wide = cells.pivot(index="metric", columns="model", values="text").loc[order, list(dict.fromkeys(cells["model"]))]
    patients = summary.groupby("metric")["n"].agg(lambda n: "-".join(map(str, sorted({min(n), max(n)}))))
    return wide.rename(columns=MODELS).assign(patients=patients).fillna("").rename_axis("", axis=1).reset_index()


def print_comparisons(pairs: pd.DataFrame) -> pd.DataFrame:
    """Model against model as printed; pairs : as from `statistics.compare`."""
    rows = []
    for pair in pairs.itertuples():
        needed = "never" if np.isinf(pair.patients_needed) else f"{pair.patients_needed:,.0f}"
        rows.append({
            "": f"{MODELS.get(pair.first, pair.first)} over {MODELS.get(pair.second, pair.second)}",
            "Difference in F1": with_interval(pair.difference, pair.low, pair.high),
            "p, Wilcoxon (Holm)": f"{pair.p_wilcoxon_holm:.4f}",
            "p, permutation (Holm)": f"{pair.p_permutation_holm:.4f}",
            "Effect, rank-biserial": f"{pair.effect:.2f}",
            "Patients": str(pair.n),
            "Patients needed": needed,
        })  # fmt: skip
    return pd.DataFrame(rows)


def data_words(cohort: Cohort, side: str = "test") -> str:
    """On what data a result was obtained, for a sentence; side : of the split, or `all` images."""
    cases = cohort.cases if side == "all" else cohort.cases[cohort.cases["split"] == side]
    kind = "images" if side == "all" else f"{side} images"
    kind = f"synthetic {kind}, which say nothing about patients," if cohort.synthetic else kind
    return f"{len(cases)} {kind} of {cases['patient'].nunique()} patients ({cohort.name})"


def caption2(cohort: Cohort) -> str:
    """What Table II was measured on."""
    return (
        f"Scores on {data_words(cohort)}, levels {', '.join(cohort.annotated)}, one split and one seed, with 95 % "
        "bootstrap intervals over patients in brackets, beside the paper's, which are of other images."
    )


def reading(pairs: pd.DataFrame, doubt: float, cohort: Cohort) -> str:
    """One honest paragraph on Table II, made from the numbers: who leads by F1, by how much, and what that is worth.

    pairs : as from `statistics.compare` on the F1 of patients. doubt : probability that the leader is not the best. A
    lead is called one where its interval and its corrected tests leave 0 out.
    """
    best = pairs["first"].value_counts().idxmax()  # it leads every pair that it is in
    lead = pairs[pairs["first"] == best].sort_values("difference").iloc[0]
    ranked = [best, *pairs[pairs["first"] == best].sort_values("difference")["second"]]
    names = [MODELS.get(model, model) for model in ranked]
    sure = lead["low"] > 0 and lead["p_wilcoxon_holm"] < 0.05 and lead["p_permutation_holm"] < 0.05
    verdict = f"{names[0]} leads on these images" if sure else f"this run cannot tell {names[0]} and {names[1]} apart"
    printed = sorted(paper.RESULTS, key=lambda model: -paper.result(model, "f1"))
    order = "the paper's order" if [m for m in ranked if m in MODELS] == printed else "not the paper's order"
    return (
        f"By F1: {' > '.join(names)}, {order} ({' > '.join(MODELS[model] for model in printed)}). {names[0]} is "
        f"{with_interval(lead['difference'], lead['low'], lead['high'])} above {names[1]} over {lead['n']} patients "
        f"(Wilcoxon p = {lead['p_wilcoxon_holm']:.3f}, permutation p = {lead['p_permutation_holm']:.3f}, corrected "
        f"after Holm): {verdict}. Drawing the patients again, {names[0]} is not the best in {100 * doubt:.0f} % of the "
        f"draws. "
        f"One split and one seed stand behind it; another seed may turn it round. Data: {data_words(cohort)}."
    )


def write(folder: Path, name: str, tidy: pd.DataFrame, printed: pd.DataFrame, caption: str) -> list[Path]:
    """Write <name>.csv (tidy), and as printed, with the caption: <name>.tex (booktabs), .md and .html (for Word)."""
    paths = [folder / f"{name}.{kind}" for kind in ("csv", "tex", "md", "html")]
    records.write_csv(paths[0], tidy)
    prose = printed.iloc[:, -1].astype(str).str.contains(r"[a-z]{3}").any()
    share = 0.8 / (printed.shape[1] - 1)
    columns = "l" + (f"p{{{share:.2f}\\linewidth}}" if prose else "r") * (printed.shape[1] - 1)
    styled = printed.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis=1)
    latex = styled.to_latex(
        hrules=True,
        caption=caption.translate(LATEX),
        label=f"tab:{name}",
        position_float="centering",
        column_format=columns,
    )
    records.write_text(paths[1], latex)
    records.write_text(paths[2], f"{printed.to_markdown(index=False, disable_numparse=True)}\n\n{caption}\n")
    with pd.option_context("display.max_colwidth", None):  # or pandas cuts long text off
        body = printed.to_html(index=False, na_rep="")
    records.write_text(paths[3], f'<meta charset="utf-8">\n<p>{html.escape(caption)}</p>\n{body}\n')
    return paths
