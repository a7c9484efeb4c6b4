"""Tables of a publication from tidy tables: CSV to compute with, LaTeX, Markdown and HTML to paste.

Functions `print_...` turn a tidy table into one of text, as printed. Others put into words what a table was measured on
and what it shows.
"""

import html
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from lumbar_utils import METRICS, MODELS, model_name, records
from lumbar_utils.data.folder import Cohort
from lumbar_utils.scores import paper
from lumbar_utils.scores.statistics import MIN_PATIENTS, MIN_SEEDS, complete_seeds

TABLE1_CAPTION = "The environment of the paper, and that in which the networks of this study were trained."
UNTRAINED = 0.2  # validation F1 below which a network has learned next to nothing; one that guesses has 0 to 0.1
MOST_COLUMNS = 8  # of a printed table; a wider one is transposed
ROOM = {"table": 58, "table*": 120}  # characters of \footnotesize in a line of IEEE's column and page
PAGE_LINES = 50  # of a table on a page, with room for its caption
LATEX = str.maketrans({
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}",
})  # fmt: skip


def table1(folder: Path) -> pd.DataFrame:
    """Table I, the environment in which a study's networks were trained: item, paper, value (of this study).

    folder : of the study. Where networks were trained on different machines, a value names each network.
    """
    environments = {}
    for result, made in records.recorded_provenance(folder).items():
        model, _, step = result.rpartition("/")
        if step == "fit":
            environments[model_name(model)] = made["environment"]
    rows = []
    for item, printed in paper.ENVIRONMENT.items():
        values = {name: environment[item] for name, environment in environments.items()}
        rows.append((item, printed, records.one_or_each(values)))
    return pd.DataFrame(rows, columns=["item", "paper", "value"])


def table2(summary: pd.DataFrame) -> pd.DataFrame:
    """Table II, tidy: model, metric, value, low, high, n, paper; in the paper's order of models and metrics.

    summary : model, metric, value, low, high, n, as from `summary.summarise`.
    """
    table = summary.assign(paper=[paper.result(row.model, row.metric) for row in summary.itertuples()])
    known = {name: place for place, name in enumerate([*MODELS, *METRICS])}
    return table.sort_values(["model", "metric"], key=lambda names: names.map(known), ignore_index=True)


def print_table1(table: pd.DataFrame) -> pd.DataFrame:
    """Table I, one row an item: the paper's and this study's."""
    return table.rename(columns={"item": "", "paper": "Paper", "value": "This study"})


def print_table2(table: pd.DataFrame) -> pd.DataFrame:
    """Table II, one row a metric; for each model a column with this study's score and interval, and the paper's."""
    rows = {}
    for metric in [name for name in METRICS if name in set(table["metric"])]:
        row = rows[METRICS[metric]] = {}
        for score in table[table["metric"] == metric].itertuples():
            name = model_name(score.model)
            row[name] = interval_text(score.value, score.low, score.high)
            row[f"{name}, paper"] = "" if pd.isna(score.paper) else f"{score.paper:.4f}"
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("").reset_index()


def print_metrics(summary: pd.DataFrame) -> pd.DataFrame:
    """Scores with intervals, one row a metric, one column a model. summary : as for `table2`, of any metrics."""
    texts = [interval_text(row.value, row.low, row.high) for row in summary.itertuples()]
    wide = _wide(summary, "metric", "model", texts)
    return wide.assign(patients=wide["metric"].map(summary.groupby("metric")["n"].agg(range_text)))


def print_errors(errors: pd.DataFrame) -> pd.DataFrame:
    """Errors, one row a kind, one column a model: count and share in percent, or a mean where there is no count.

    errors : model, metric, value, low, high, count (nan: none), as from `instances.summarise_instances`.
    """
    columns = errors[["count", "value", "low", "high"]]
    texts = [_share_text(*row) for row in columns.itertuples(index=False)]
    return _wide(errors, "metric", "model", texts)


def print_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """F1, one row a run, one column a network. runs : seed, fold, n, model, value, as from `summary.by_run`."""
    texts = runs["value"].map("{:.4f}".format)
    return _wide(runs, ["seed", "fold", "n"], "model", texts).rename(columns={"n": "patients"})


def print_variance(parts: pd.DataFrame) -> pd.DataFrame:
    """Standard deviation of F1 with its share of the variance, one column a source.

    parts : what (a model, or `unet - hrnet`), part, variance (nan: not estimable), share; as from
    `summary.variance_of_runs`.
    """
    if parts.empty:
        return pd.DataFrame({"what": ["a single run has no variance over runs"]})
    texts = [_deviation_text(row.variance, row.share) for row in parts.itertuples()]
    wide = _wide(parts, "what", "part", texts)
    return wide.assign(what=wide["what"].map(difference_name)).rename(columns={"what": "F1 of"})


def print_comparisons(pairs: pd.DataFrame) -> pd.DataFrame:
    """Model against model, one row a pair. pairs : as from `statistics.compare`."""
    rows = []
    for pair in pairs.itertuples():
        needed = "never" if np.isinf(pair.patients_needed) else f"{pair.patients_needed:,.0f}"
        rows.append({
            "": f"{model_name(pair.first)} over {model_name(pair.second)}",
            "Difference in F1": interval_text(pair.difference, pair.low, pair.high),
            "p, Wilcoxon (Holm)": p_text(pair.p_wilcoxon_holm, 4).removeprefix("= "),
            "p, permutation (Holm)": p_text(pair.p_permutation_holm, 4).removeprefix("= "),
            "Effect, rank-biserial": f"{pair.effect:.2f}",
            "Patients": str(pair.n),
            "Patients needed": needed,
        })  # fmt: skip
    return pd.DataFrame(rows)


def print_forensics(examined: pd.DataFrame) -> pd.DataFrame:
    """What the paper's own numbers rule out. examined : as from `forensics.examine`."""
    return examined.rename(columns={"check": "reading"}).replace({"model": MODELS})


def print_cost(costs: pd.DataFrame) -> pd.DataFrame:
    """Costs, one row a kind, one column a network. costs : one row a network, as from `cost.cost`."""
    conditions = {
        "memory_of": "Memory is of", "device": "Device", "threads": "Threads", "measured_on": "Measured on",
        "trained_on": "Trained on", "runs": "Mean of so many trainings",
    }  # fmt: skip
    columns = {}
    for cost in costs.itertuples():
        columns[model_name(cost.model)] = {
            "Parameters (million)": f"{cost.parameters / 1e6:.2f}",
            "Multiply-adds of an image (billion)": f"{cost.multiply_adds / 1e9:.2f}",
            "Epochs": str(cost.epochs),
            "Training (s)": f"{cost.training_seconds:.0f}",
            "Latency of an image (ms), quartiles": f"{cost.latency_ms:.1f} "
            f"[{cost.latency_low_ms:.1f}, {cost.latency_high_ms:.1f}]",
            "Memory of an image (MB)": f"{cost.memory_mb:.1f}",
            **{label: str(getattr(cost, name)) for name, label in conditions.items() if name in costs},
        }
    return pd.DataFrame(columns).rename_axis("").reset_index()


def _wide(table: pd.DataFrame, rows: str | list[str], columns: str, texts: list[str] | pd.Series) -> pd.DataFrame:
    """A tidy table with texts as its cells, rows and columns in the table's order; "" where there is none."""
    cells = table.assign(text=texts)
    wide = cells.pivot_table(index=rows, columns=columns, values="text", aggfunc="first", sort=False)
    return wide.fillna("").rename(columns=MODELS).rename_axis(columns=None).reset_index()


def interval_text(value: float, low: float, high: float) -> str:
    """A number as it stands in a table: 0.9629 [0.958, 0.967]; only the number where no interval is known."""
    return f"{value:.4f}" if pd.isna(low) else f"{value:.4f} [{low:.3f}, {high:.3f}]"


def percent(share: float) -> str:
    """A share in [0, 1] with one decimal: 90.0 %."""
    return f"{100 * share:.1f} %"


def scores_text(rows: pd.DataFrame) -> str:
    """Each model with its score and interval. rows : model, value, low, high."""
    scores = [f"{model_name(row.model)} {interval_text(row.value, row.low, row.high)}" for row in rows.itertuples()]
    return ", ".join(scores)


def intervals_text(cohort: Cohort, units: str = "patients") -> str:
    """Over what intervals are, and whether they can be trusted. units : that are drawn again."""
    patients = cohort.cases.loc[cohort.cases["split"] == "test", "patient"].nunique()
    doubt = f" (below {MIN_PATIENTS} patients they do not hold)" if patients < MIN_PATIENTS else ""
    return f"95 % bootstrap intervals over {units}{doubt}"


def with_intervals(rows: pd.DataFrame, cohort: Cohort, units: str = "patients") -> str:
    """As `intervals_text`. rows : low, not known where patients are too few."""
    if rows["low"].isna().all():
        return "without intervals, for which patients are too few"
    return f"with {intervals_text(cohort, units)}"


def p_text(p: float, decimals: int = 3) -> str:
    """`= 0.006`, or `< 0.001` for what would be rounded to 0."""
    least = 10**-decimals
    return f"< {least:.{decimals}f}" if p < least else f"= {p:.{decimals}f}"


def _share_text(count: float, share: float, low: float, high: float) -> str:
    if np.isnan(count):
        return interval_text(share, low, high)
    interval = "" if np.isnan(low) else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{count:.0f}: {100 * share:.1f} %{interval}"


def _deviation_text(variance: float, share: float) -> str:
    return "not estimable" if pd.isna(variance) else f"{variance**0.5:.4f} ({100 * share:.0f} %)"


def range_text(counts: pd.Series) -> str:
    """77, or 70-77 where models differ."""
    low, high = counts.min(), counts.max()
    return f"{low}-{high}" if low < high else str(low)


def difference_name(models: str) -> str:
    """`unet - hrnet` -> `U-Net - HRNet`."""
    return " - ".join(model_name(model) for model in models.split(" - "))


def left_aligned(table: pd.DataFrame) -> Styler:
    """A table of text for a notebook, without its index."""
    style = {"selector": "th, td", "props": "text-align: left; vertical-align: top"}
    return table.style.hide(axis="index").set_table_styles([style])


def describe_data(cohort: Cohort, side: str = "test") -> str:
    """The data that a result was measured on, for a sentence; side : of the split, or `all` images."""
    if side == "all":
        cases, kind = cohort.cases, "images"
    else:
        cases, kind = cohort.cases[cohort.cases["split"] == side], f"{side} images"
    if cohort.synthetic:
        kind = f"synthetic {kind}, which say nothing about patients,"
    return f"{images_of(cases)} {kind} of {cases['patient'].nunique()} patients ({cohort.name})"


def images_of(cases: pd.DataFrame) -> int:
    """Number of images; in a grid, an image that is a case under several seeds counts once."""
    return cases["case_there"].nunique() if "case_there" in cases else len(cases)


def seeds_of(cases: pd.DataFrame) -> int:
    """Number of seeds, each with all its folds, behind the cases of a study or grid."""
    return len(complete_seeds(cases)) if "seed" in cases else 1


def describe_runs(cases: pd.DataFrame) -> str:
    """`one split and one seed`; of a grid `3 seeds on 5 folds (15 runs)`. cases : with seed and fold, of a grid."""
    runs = cases[["seed", "fold"]].drop_duplicates() if {"seed", "fold"} <= set(cases) else cases.head(1)
    if len(runs) < 2:
        return "one split and one seed"
    seeds, folds = runs["seed"].nunique(), runs["fold"].nunique()
    text = f"{seeds} seeds" if seeds > 1 else "1 seed"
    if folds > 1:
        text += f" on {folds} folds"
    return f"{text} ({len(runs)} runs)"


def table2_caption(cohort: Cohort, settings: dict) -> str:
    """What Table II was measured on, and what networks were trained on before. settings : of the study or grid."""
    return (
        f"Scores on {describe_data(cohort)}, levels {', '.join(cohort.annotated)}, {describe_runs(cohort.cases)}, "
        f"with 95 % bootstrap intervals over patients in brackets, beside the paper's, which are of its own images."
        f"{_start_sentence(settings)}"
    )


def claims_caption(cohort: Cohort, settings: dict) -> str:
    """The caption of the claims; where all seeds start from the same trained weights, what that leaves open."""
    caption = "The paper's claims, each with its numbers."
    if seeds_of(cohort.cases) < 2 or settings["start_from"] == "none":
        return caption
    return (
        f"{caption} All trainings of a network start from the same trained weights, so that the verdicts hold for "
        "networks with these weights: others, trained anew from the beginning, may differ more than these seeds do."
    )


def _start_sentence(settings: dict) -> str:
    """What networks were trained on before; "" where they started at random."""
    earlier = settings["start_from"]
    if earlier == "none":
        return ""
    phantoms = "phantoms, which are synthetic images"
    known = {"phantoms": phantoms, "pretrained": f"{phantoms}, and on patients of SPIDER"}
    data = known.get(earlier, f"the data of {Path(earlier).name}")
    if settings["epochs"]:
        text = f" The networks were trained on {data}, then on patients of this data set"
        if share := settings.get("start_share"):  # records of earlier versions lack it
            text += f"; the weights before and after that are averaged, those before with a share of {share:g}"
        return f"{text}."
    return f" The networks were trained on {data}; they saw no image of this data set before."


def training_warnings(folder: Path) -> str:
    """Sentences on levels that no network was trained on, and on networks that learned next to nothing; "" if none.

    folder : of a study, with study.json and <model>/history.csv. The limit of a network's best validation F1 is
    UNTRAINED.
    """
    levels = records.read_json(folder / "study.json").get("data", {}).get("untaught", [])
    text = f" Not scored, as it is in no training image: {', '.join(levels)}." if levels else ""
    poor = []
    for file in sorted(folder.glob("*/history.csv")):
        model, f1 = file.parent.name, records.read_csv(file)["val_f1"].max()
        if f1 < UNTRAINED:
            poor.append(f"{model_name(model)} (best validation F1 {f1:.2f})")
    if poor:
        text += (
            f" LEARNT NEXT TO NOTHING: {', '.join(poor)}; such a row says nothing of the network. Train longer "
            "(epochs), start from phantoms (start_from), and look at the masks in notebook 01."
        )
    return text


def by_f1(summary: pd.DataFrame) -> list[str]:
    """Models by their F1 in Table II, the best first."""
    return summary[summary["metric"] == "f1"].sort_values("value", ascending=False, kind="stable")["model"].tolist()


def reading(summary: pd.DataFrame, gaps: pd.DataFrame, pairs: pd.DataFrame, not_best: float, cohort: Cohort) -> str:
    """One paragraph on Table II from its numbers: which network leads by F1, by how much, how certain that is.

    summary, gaps : as from `summary.summarise` and `summary.differences`.
    pairs : as from `statistics.compare`, on the mean F1 of each patient.
    not_best : probability in [0, 1] that the leader is not the best, as from `statistics.probability_not_best`.

    A lead counts if its interval and both corrected tests exclude 0, on MIN_PATIENTS patients or more.
    """
    order = by_f1(summary)
    names = [model_name(model) for model in order]
    printed = sorted(paper.RESULTS, key=lambda model: -paper.result(model, "f1"))
    agreement = "the paper's order" if [m for m in order if m in MODELS] == printed else "not the paper's order"
    gap, pair = _of_pair(gaps[gaps["metric"] == "f1"], *order[:2]), _of_pair(pairs, *order[:2])
    difference, low, high = gap[["difference", "low", "high"]]
    if gap["first"] != order[0]:
        difference, low, high = -difference, -high, -low
    significant = max(pair["p_wilcoxon_holm"], pair["p_permutation_holm"]) < 0.05 and pair["first"] == order[0]
    leads = low > 0 and significant and pair["n"] >= MIN_PATIENTS
    redrawn = f"Drawing the patients again, {names[0]} is not the best in {100 * not_best:.0f} % of the draws. "
    return (
        f"By F1: {' > '.join(names)}, {agreement} ({' > '.join(MODELS[model] for model in printed)}). {names[0]} is "
        f"{interval_text(difference, low, high)} above {names[1]} over {pair['n']} patients (Wilcoxon "
        f"p {p_text(pair['p_wilcoxon_holm'])}, permutation p {p_text(pair['p_permutation_holm'])} on patients' means, "
        f"corrected after Holm): {describe_lead(names, leads, seeds_of(cohort.cases))}. "
        f"{redrawn if pair['n'] > 2 else ''}Behind it: {describe_runs(cohort.cases)}; others may turn it round. "
        f"Data: {describe_data(cohort)}."
    )


def describe_lead(names: list[str], leads: bool, seeds: int) -> str:
    """What the lead of the first of `names` over the second means."""
    if not leads:
        return f"{names[0]} and {names[1]} do not differ significantly here"
    if seeds >= MIN_SEEDS:
        return f"{names[0]} leads on these images"
    return (
        f"the trained {names[0]} scored higher than the trained {names[1]} on these images; of fewer than "
        f"{MIN_SEEDS} seeds, this says nothing of architectures"
    )


def _of_pair(table: pd.DataFrame, one: str, other: str) -> pd.Series:
    """The row of two models, in either order."""
    return table[table["first"].isin([one, other]) & table["second"].isin([one, other])].iloc[0]


def write(folder: Path, name: str, tidy: pd.DataFrame, printed: pd.DataFrame, caption: str) -> None:
    """Write <name>.csv (tidy), and as printed, with the caption: <name>.tex (booktabs), .md and .html (for Word)."""
    if printed.shape[1] > MOST_COLUMNS:
        printed = printed.set_index(printed.columns[0]).T.rename_axis("", axis=1).reset_index(names="")
    with pd.option_context("display.max_colwidth", None):  # or pandas cuts long text off
        body = printed.to_html(index=False, na_rep="")
    markdown = printed.to_markdown(index=False, disable_numparse=True)
    records.write_csv(folder / f"{name}.csv", tidy)
    records.write_text(folder / f"{name}.tex", latex(name, printed, caption))
    records.write_text(folder / f"{name}.md", f"{markdown}\n\n{caption}\n")
    records.write_text(folder / f"{name}.html", f'<meta charset="utf-8">\n<p>{html.escape(caption)}</p>\n{body}\n')


def latex(name: str, printed: pd.DataFrame, caption: str) -> str:
    """A table in LaTeX, with booktabs and array; one that is longer than a page is continued under the same number."""
    environment, columns, lines = layout(printed)
    tables = []
    for number, (_, rows) in enumerate(printed.groupby(np.cumsum(lines) // PAGE_LINES)):
        escaped = rows.map(_escape).rename(columns=_escape)
        table = escaped.style.hide(axis="index").to_latex(
            hrules=True, caption="(continued)" if number else _escape(caption), label=f"tab:{name}{number or ''}",
            position_float="centering", column_format=columns, environment=environment,
        )  # fmt: skip
        size = "\\centering\\footnotesize\\setlength{\\tabcolsep}{3pt}"
        same_number = "\\addtocounter{table}{-1}" if number else ""
        tables.append(table.replace("\\centering\n", f"{size}{same_number}\n", 1))
    return "\n".join(tables)


def _escape(value) -> str:
    """Text that LaTeX prints as it is, in any of its font encodings: the usual one has other signs for < and >."""
    return unicodedata.normalize("NFC", str(value)).translate(LATEX)


def layout(printed: pd.DataFrame) -> tuple[str, str, list[int]]:
    """How a table fits IEEE's column (table) or page (table*): environment, column format, and about how many lines
    each row takes.

    A heading may be broken between words; cells are broken only where a page is too narrow, those of the widest columns
    first. Words and the first column are flush left, numbers flush right.
    """
    cells = printed.map(str)
    longest = cells.map(len).max().tolist()
    headings = [str(heading) for heading in printed.columns]
    widths = [max([width, *map(len, heading.split())]) for width, heading in zip(longest, headings, strict=True)]
    gaps = 1.5 * len(widths)
    environment = "table" if sum(widths) + gaps <= ROOM["table"] else "table*"
    limit = max(widths)
    while np.minimum(widths, limit).sum() + gaps > ROOM[environment]:
        limit -= 1
    formats = []
    for number, (heading, width) in enumerate(zip(headings, widths, strict=True)):
        words = cells.iloc[:, number].str.contains(r"[a-z]{3}").any()
        side, turn = ("l", "raggedright") if number == 0 or words else ("r", "raggedleft")
        share = min(width, limit) / ROOM[environment]
        broken = width > limit or len(heading) > width
        formats.append(rf">{{\{turn}\arraybackslash}}p{{{share:.3f}\linewidth}}" if broken else side)
    lines = np.ceil(cells.map(len) / limit).max(axis=1)
    return environment, "".join(formats), lines.tolist()
