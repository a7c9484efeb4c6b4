"""From tidy tables to the tables of a publication: csv to compute with, tex and md to paste."""

import html
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from lumbar_utils import METRICS, MODELS, records
from lumbar_utils.data.folder import Cohort
from lumbar_utils.scores import paper
from lumbar_utils.scores.statistics import FEWEST, FEWEST_SEEDS, whole_seeds

CAPTION_1 = "The environment of the paper, and that in which the networks of this study were trained."
LEARNT = 0.2  # validation F1 below which a network has learnt next to nothing; one that guesses has 0 to 0.1
MOST = 8  # columns of a printed table
ROOM = {"table": 58, "table*": 120}  # characters of \footnotesize that stand side by side in IEEE's column and page
LINES = 50  # of a table on a page, with room for its caption
LATEX = str.maketrans({
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}",
})  # fmt: skip


def table1(folder: Path) -> pd.DataFrame:
    """Table I, the environment in which a study's networks were trained: item, paper, value (of this study).

    folder : of the study. Where networks were trained on different machines, a value names each network.
    """
    environments = {
        MODELS.get(result.removesuffix("/fit"), result.removesuffix("/fit")): made["environment"]
        for result, made in records.recorded_provenance(folder).items()
        if result.endswith("/fit")
    }
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
    """Table I as printed."""
    return table.rename(columns={"item": "", "paper": "Paper", "value": "This study"})


def print_table2(table: pd.DataFrame) -> pd.DataFrame:
    """Table II as printed: one row a metric, this run with its interval and the paper side by side for each model."""
    rows = {}
    for metric in [name for name in METRICS if name in set(table["metric"])]:
        row = rows[METRICS[metric]] = {}
        for cell in table[table["metric"] == metric].itertuples():
            name = MODELS.get(cell.model, cell.model)
            row[name] = interval_text(cell.value, cell.low, cell.high)
            row[f"{name}, paper"] = "" if pd.isna(cell.paper) else f"{cell.paper:.4f}"
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("").reset_index()


def interval_text(value: float, low: float, high: float) -> str:
    """A number as it stands in a table: 0.9629 [0.958, 0.967]; the number alone where no interval is known."""
    return f"{value:.4f}" if pd.isna(low) else f"{value:.4f} [{low:.3f}, {high:.3f}]"


def print_metrics(summary: pd.DataFrame) -> pd.DataFrame:
    """Every metric of every model with its interval: one row a metric, as defined in `metrics.DEFINITIONS`."""
    cells = summary.assign(text=[interval_text(row.value, row.low, row.high) for row in summary.itertuples()])
    order = list(dict.fromkeys(summary["metric"]))
    wide = cells.pivot(index="metric", columns="model", values="text").loc[order, list(dict.fromkeys(cells["model"]))]
    patients = summary.groupby("metric")["n"].agg(lambda n: "-".join(map(str, sorted({min(n), max(n)}))))
    return wide.rename(columns=MODELS).assign(patients=patients).fillna("").rename_axis("", axis=1).reset_index()


def print_errors(bodies: pd.DataFrame) -> pd.DataFrame:
    """Kinds of errors as printed, one row a kind: count, share in percent, interval; from `summarise_instances`."""
    columns = (bodies[name] for name in ("count", "value", "low", "high"))
    texts = [_share(*cell) for cell in zip(*columns, strict=True)]
    wide = bodies.assign(text=texts).pivot(index="metric", columns="model", values="text")
    order = [list(dict.fromkeys(bodies[name])) for name in ("metric", "model")]
    wide = wide.reindex(index=order[0], columns=order[1]).fillna("")
    return wide.rename(columns=MODELS).rename_axis("", axis=1).reset_index()


def _share(count: float, value: float, low: float, high: float) -> str:
    if np.isnan(count):
        return interval_text(value, low, high)
    interval = "" if np.isnan(low) else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{count:.0f}: {100 * value:.1f} %{interval}"


def shown(table: pd.DataFrame) -> Styler:
    """A table of words as a notebook shows it: without its index, set flush left."""
    left = {"selector": "th, td", "props": "text-align: left; vertical-align: top"}
    return table.style.hide(axis="index").set_table_styles([left])


def p_text(p: float, decimals: int = 3) -> str:
    """`= 0.006`, or `< 0.001` for what would be printed as none."""
    least = 10**-decimals
    return f"< {least:.{decimals}f}" if p < least else f"= {p:.{decimals}f}"


def print_comparisons(pairs: pd.DataFrame) -> pd.DataFrame:
    """Model against model as printed; pairs : as from `statistics.compare`."""
    rows = []
    for pair in pairs.itertuples():
        needed = "never" if np.isinf(pair.patients_needed) else f"{pair.patients_needed:,.0f}"
        rows.append({
            "": f"{MODELS.get(pair.first, pair.first)} over {MODELS.get(pair.second, pair.second)}",
            "Difference in F1": interval_text(pair.difference, pair.low, pair.high),
            "p, Wilcoxon (Holm)": p_text(pair.p_wilcoxon_holm, 4).removeprefix("= "),
            "p, permutation (Holm)": p_text(pair.p_permutation_holm, 4).removeprefix("= "),
            "Effect, rank-biserial": f"{pair.effect:.2f}",
            "Patients": str(pair.n),
            "Patients needed": needed,
        })  # fmt: skip
    return pd.DataFrame(rows)


def print_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a run, one column a network: F1. runs : as from `summary.by_run`."""
    wide = runs.pivot(index=["seed", "fold", "n"], columns="model", values="value")
    wide = wide[list(dict.fromkeys(runs["model"]))].map("{:.4f}".format).rename(columns=MODELS)
    return wide.rename_axis(columns=None).reset_index().rename(columns={"n": "patients"})


def print_variance(parts: pd.DataFrame) -> pd.DataFrame:
    """Standard deviation of F1 by where it comes from, with its share. parts : as from `summary.variance_of_runs`."""
    cells = [
        "not told apart" if pd.isna(row.variance) else f"{row.variance**0.5:.4f} ({100 * row.share:.0f} %)"
        for row in parts.itertuples()
    ]
    order = ["what", *dict.fromkeys(parts["part"])]
    if parts.empty:
        return pd.DataFrame({"what": ["one run, of which nothing can be taken apart"]})
    wide = (
        parts.assign(cell=cells)
        .pivot(index="what", columns="part", values="cell")
        .reset_index()
        .rename_axis(columns=None)
    )
    wide = wide.set_index("what").loc[list(dict.fromkeys(parts["what"]))].reset_index()[order]
    return wide.assign(what=[between(what) for what in wide["what"]]).rename(columns={"what": "F1 of"})


def print_forensics(examined: pd.DataFrame) -> pd.DataFrame:
    """What a table's own numbers rule out, as printed. examined : as from `forensics.examine`."""
    return examined.rename(columns={"check": "reading"}).replace({"model": MODELS})


def print_cost(costs: pd.DataFrame) -> pd.DataFrame:
    """One row a kind of cost, one column a network. costs : one row a network, as from `cost.cost`."""
    rows = {
        "Parameters (million)": costs["parameters"].map(lambda count: f"{count / 1e6:.2f}"),
        "Multiply-adds of an image (billion)": costs["multiply_adds"].map(lambda count: f"{count / 1e9:.2f}"),
        "Epochs": costs["epochs"].map(str),
        "Training (s)": costs["training_seconds"].map("{:.0f}".format),
        "Latency of an image (ms), quartiles": [
            f"{row.latency_ms:.1f} [{row.latency_low_ms:.1f}, {row.latency_high_ms:.1f}]" for row in costs.itertuples()
        ],
        "Memory of an image (MB)": costs["memory_mb"].map("{:.1f}".format),
    }
    words = {
        "memory_of": "Memory is of", "device": "Device", "threads": "Threads", "measured_on": "Measured on",
        "trained_on": "Trained on", "runs": "Mean of so many trainings",
    }  # fmt: skip
    rows |= {text: costs[name].map(str) for name, text in words.items() if name in costs}
    names = [MODELS.get(model, model) for model in costs["model"]]
    return (
        pd.DataFrame.from_dict({row: list(cells) for row, cells in rows.items()}, orient="index", columns=names)
        .rename_axis("")
        .reset_index()
    )


def between(what: str) -> str:
    """`unet - hrnet` -> `U-Net - HRNet`."""
    return " - ".join(MODELS.get(model, model) for model in what.split(" - "))


def data_words(cohort: Cohort, side: str = "test") -> str:
    """On what data a result was obtained, for a sentence; side : of the split, or `all` images."""
    cases = cohort.cases if side == "all" else cohort.cases[cohort.cases["split"] == side]
    kind = "images" if side == "all" else f"{side} images"
    kind = f"synthetic {kind}, which say nothing about patients," if cohort.synthetic else kind
    return f"{images_of(cases)} {kind} of {cases['patient'].nunique()} patients ({cohort.name})"


def images_of(cases: pd.DataFrame) -> int:
    """How many images cases are of: in a grid one under several seeds is several cases."""
    return cases["case_there"].nunique() if "case_there" in cases else len(cases)


def runs_words(cases: pd.DataFrame) -> str:
    """`one split and one seed`; of a grid `3 seeds on 5 folds (15 runs)`. cases : with seed and fold, of a grid."""
    runs = cases[["seed", "fold"]].drop_duplicates() if {"seed", "fold"} <= set(cases) else cases.head(1)
    if len(runs) < 2:
        return "one split and one seed"
    counts = [(runs[what].nunique(), what) for what in ("seed", "fold")]
    told = " on ".join(f"{count} {what}{'s' * (count > 1)}" for count, what in counts if count > 1 or what == "seed")
    return f"{told} ({len(runs)} runs)"


def caption2(cohort: Cohort, settings: dict) -> str:
    """What Table II was measured on, and what the networks knew before. settings : of the study or grid."""
    return (
        f"Scores on {data_words(cohort)}, levels {', '.join(cohort.annotated)}, {runs_words(cohort.cases)}, with 95 % "
        f"bootstrap intervals over patients in brackets, beside the paper's, which are of its own images."
        f"{_start_words(settings)}"
    )


def _start_words(settings: dict) -> str:
    """A sentence on the data that networks were trained on before; "" where they started at random."""
    earlier = settings["start_from"]
    if earlier == "none":
        return ""
    phantoms = earlier == "phantoms"
    if settings["epochs"]:
        data = "phantoms, which are synthetic images" if phantoms else f"the data of {Path(earlier).name}"
        return f" The networks were trained on {data}, then on patients of this data set."
    source = "trained on phantoms, synthetic images" if phantoms else f"those of {Path(earlier).name}"
    return f" The networks are {source}; they saw no image of this data set before."


def not_learnt(folder: Path) -> str:
    """Sentences on levels and networks that a table says nothing of, and what to change; "" where there are none.

    folder : of a study, with study.json and <model>/history.csv. A level is named that no network was taught; a network
    whose best validation F1 is below LEARNT.
    """
    levels = records.read_json(folder / "study.json").get("data", {}).get("untaught", [])
    sentences = [f" Not scored, as no network was taught it: {', '.join(levels)}."] if levels else []
    histories = {file.parent.name: records.read_csv(file) for file in sorted(folder.glob("*/history.csv"))}
    best = {model: history["val_f1"].max() for model, history in histories.items()}
    poor = [f"{MODELS.get(model, model)} (best validation F1 {f1:.2f})" for model, f1 in best.items() if f1 < LEARNT]
    if poor:
        sentences.append(
            f" LEARNT NEXT TO NOTHING: {', '.join(poor)}; such a row says nothing of the network. Train longer "
            "(epochs), start from phantoms (start_from), and look at the masks in notebook 01."
        )
    return "".join(sentences)


def ranked(summary: pd.DataFrame) -> list[str]:
    """Models by their F1 in Table II, the best first."""
    return summary[summary["metric"] == "f1"].sort_values("value", ascending=False, kind="stable")["model"].tolist()


def reading(summary: pd.DataFrame, gaps: pd.DataFrame, pairs: pd.DataFrame, doubt: float, cohort: Cohort) -> str:
    """One paragraph on Table II, made from the numbers: which network leads by F1, by how much, and what that is worth.

    summary, gaps : as from `summary.summarise` and `summary.differences`. pairs, doubt : as from `statistics.compare`
    and `statistics.doubt` of the leader, on the mean F1 of each patient. A lead is called one where its interval and
    both corrected tests leave 0 out, on FEWEST patients or more.
    """
    best, second = ranked(summary)[:2]
    gap, pair = _between(gaps[gaps["metric"] == "f1"], best, second), _between(pairs, best, second)
    difference, low, high = gap[["difference", "low", "high"]]
    if gap["first"] != best:
        difference, low, high = -difference, -high, -low
    tested = max(pair["p_wilcoxon_holm"], pair["p_permutation_holm"]) < 0.05 and pair["first"] == best
    names = [MODELS.get(model, model) for model in ranked(summary)]
    sure = low > 0 and tested and pair["n"] >= FEWEST
    verdict = _lead(names, sure, seeds_of(cohort.cases))
    printed = sorted(paper.RESULTS, key=lambda model: -paper.result(model, "f1"))
    order = "the paper's order" if [m for m in ranked(summary) if m in MODELS] == printed else "not the paper's order"
    again = f"Drawing the patients again, {names[0]} is not the best in {100 * doubt:.0f} % of the draws. "
    return (
        f"By F1: {' > '.join(names)}, {order} ({' > '.join(MODELS[model] for model in printed)}). {names[0]} is "
        f"{interval_text(difference, low, high)} above {names[1]} over {pair['n']} patients (Wilcoxon "
        f"p {p_text(pair['p_wilcoxon_holm'])}, permutation p {p_text(pair['p_permutation_holm'])} on patients' means, "
        f"corrected after Holm): {verdict}. {again if pair['n'] > 2 else ''}Behind it: {runs_words(cohort.cases)}; "
        f"others may turn it round. Data: {data_words(cohort)}."
    )


def seeds_of(cases: pd.DataFrame) -> int:
    """Number of seeds, each with all its folds, behind the cases of a study or grid."""
    return len(whole_seeds(cases)) if "seed" in cases else 1


def _lead(names: list[str], sure: bool, seeds: int) -> str:
    if not sure:
        return f"{names[0]} and {names[1]} cannot be told apart here"
    if seeds < FEWEST_SEEDS:
        return (
            f"the trained {names[0]} scored higher than the trained {names[1]} on these images; of fewer than "
            f"{FEWEST_SEEDS} seeds, this says nothing of architectures"
        )
    return f"{names[0]} leads on these images"


def _between(table: pd.DataFrame, one: str, other: str) -> pd.Series:
    """The row of two models, in either order."""
    return table[table["first"].isin([one, other]) & table["second"].isin([one, other])].iloc[0]


def write(folder: Path, name: str, tidy: pd.DataFrame, printed: pd.DataFrame, caption: str) -> list[Path]:
    """Write <name>.csv (tidy), and as printed, with the caption: <name>.tex (booktabs), .md and .html (for Word).

    A printed table of more than MOST columns is turned: its rows become columns.
    """
    paths = [folder / f"{name}.{kind}" for kind in ("csv", "tex", "md", "html")]
    records.write_csv(paths[0], tidy)
    if printed.shape[1] > MOST:
        printed = printed.set_index(printed.columns[0]).T.rename_axis("", axis=1).reset_index(names="")
    records.write_text(paths[1], _latex(name, printed, caption))
    records.write_text(paths[2], f"{printed.to_markdown(index=False, disable_numparse=True)}\n\n{caption}\n")
    with pd.option_context("display.max_colwidth", None):  # or pandas cuts long text off
        body = printed.to_html(index=False, na_rep="")
    records.write_text(paths[3], f'<meta charset="utf-8">\n<p>{html.escape(caption)}</p>\n{body}\n')
    return paths


def _latex(name: str, printed: pd.DataFrame, caption: str) -> str:
    """A table in LaTeX; one that is longer than a page goes on in further ones."""
    environment, columns, lines = layout(printed)
    parts, latex = printed.groupby(np.cumsum(lines) // LINES), []
    for number, (_, rows) in enumerate(parts):
        escaped = rows.map(_escaped).rename(columns=_escaped)
        part = escaped.style.hide(axis="index").to_latex(
            hrules=True, caption="(continued)" if number else _escaped(caption),
            label=f"tab:{name}{number or ''}", position_float="centering", column_format=columns,
            environment=environment,
        )  # fmt: skip
        small = "\\centering\\footnotesize\\setlength{\\tabcolsep}{3pt}"
        again = "\\addtocounter{table}{-1}" if number else ""  # it is one table
        latex.append(part.replace("\\centering\n", f"{small}{again}\n", 1))
    text = "\n".join(latex)
    other = " ".join(beyond_latin(text))
    return (f"% has letters beyond Latin, which take lualatex or xelatex: {other}\n" if other else "") + text


def _escaped(value) -> str:
    """As LaTeX shows it in any encoding of its fonts: the usual one has other signs for < and >."""
    return unicodedata.normalize("NFC", str(value)).translate(LATEX)


def beyond_latin(text: str) -> list[str]:
    """Letters that pdflatex does not know by itself, in their order in Unicode."""
    return sorted({sign for sign in text if ord(sign) >= 0x180 and sign not in "–—‘’“”‚„†‡•…‰‹›€™"})


def layout(printed: pd.DataFrame) -> tuple[str, str, list[int]]:
    """How a table fits IEEE's column (table) or page (table*), in small print: environment, column format, and lines.

    A heading may be broken between words, a cell only where the page is too narrow for it: then the longest are.
    Numbers stand to the right, words and the first column to the left. lines : that each row takes, about.
    """
    heads, cells = [str(head) for head in printed.columns], printed.map(str)
    texts = [cells.iloc[:, number].str for number in range(len(heads))]
    widths = [max([text.len().max(), *map(len, head.split())]) for head, text in zip(heads, texts, strict=True)]
    gaps, cap = 1.5 * len(widths), max(widths)
    environment = "table" if sum(widths) + gaps <= ROOM["table"] else "table*"
    while sum(min(width, cap) for width in widths) + gaps > ROOM[environment]:
        cap -= 1
    formats = []
    for head, text, width in zip(heads, texts, widths, strict=True):
        left = not formats or text.contains(r"[a-z]{3}").any()
        share, turn = min(width, cap) / ROOM[environment], "raggedright" if left else "raggedleft"
        broken = rf">{{\{turn}\arraybackslash}}p{{{share:.3f}\linewidth}}"
        formats.append(broken if width > cap or len(head) > width else "l" if left else "r")
    return environment, "".join(formats), np.ceil(cells.map(len) / cap).max(axis=1).tolist()
