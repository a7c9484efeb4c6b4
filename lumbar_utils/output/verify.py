"""A study compared with a reference: Table II cell by cell, each within a tolerance, and the verdicts that changed.

On the same machine a study gives the same bits. Another processor or library sums in another order; late decimals then
differ, and training amplifies them into other networks. The tolerances allow for that alone.
"""

import dataclasses
from pathlib import Path

import pandas as pd

from lumbar_utils import METRICS, MODELS, StudyError, freshness, records
from lumbar_utils.output.export import described, published
from lumbar_utils.study import ROOT, record_of

REFERENCE = ROOT / "figures" / "reference"
LAST = "notebooks/05_evaluate_and_compare.json"  # completion record of a study's last notebook
IDENTITY = ("profile", "dataset", "seed")  # settings that a study shares with the reference it is compared with

TOLERANCE = 0.02  # of a score in [0, 1], as every metric of Table II is
TOLERANCES = {"map_coco": 0.05}  # it counts whole vertebrae that pass an overlap, and so moves in steps
INTERVAL_FACTOR = 2  # an interval's ends depend on the worst patients, and may move this many times as far
COLUMNS = ["value", "low", "high", "n"]
PRINTED = 0.00005  # a smaller difference is not visible in four decimals


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The results of a study that are compared.

    record : study.json as published. table : Table II. claims : claim, place, verdict; empty where there are none.
    """

    folder: Path
    record: dict
    table: pd.DataFrame
    claims: pd.DataFrame


def read(folder: Path) -> Outcome:
    """A study's folder, or one that `export` wrote. Raises StudyError if it lacks study.json or table2.csv."""
    tables = [path for path in (folder / "tables" / "table2.csv", folder / "table2.csv") if path.exists()]
    if not (folder / "study.json").exists() or not tables:
        raise StudyError(
            f"{folder} has no study.json and table2.csv to compare; name the folder of a finished study, or one that "
            "`python -m lumbar_utils export` wrote"
        )
    freshness.refuse_stale_scores(folder)
    verdicts = tables[0].with_name("claims.csv")
    claims = records.read_csv(verdicts) if verdicts.exists() else pd.DataFrame(columns=["claim", "place", "verdict"])
    return Outcome(folder, described(folder), records.read_csv(tables[0]), claims)


def newest(runs: Path, reference: Outcome) -> Path:
    """The newest finished study with the reference's profile, data set and seed. Raises StudyError if there is none."""
    wanted = {name: reference.record["settings"][name] for name in IDENTITY}
    for record in sorted(runs.glob(f"*/{LAST}"), key=lambda file: -file.stat().st_mtime_ns):
        folder = record.parents[1]
        settings = published(record_of(folder))["settings"]
        if records.is_complete(record) and wanted.items() <= settings.items():
            return folder
    options = " ".join(f"--{name} {value}" for name, value in wanted.items())
    raise StudyError(
        f"no finished study in {runs} to compare with {reference.folder}; "
        f"run it with `python -m lumbar_utils run {options}`, or name a study's folder"
    )


def compare(reference: pd.DataFrame, study: pd.DataFrame) -> pd.DataFrame:
    """One row a cell of the reference's Table II: model, metric, column, reference, study, moved, tolerance, holds.

    A model that the reference lacks is not compared. A cell that is empty in only one of them does not hold.
    """
    keys = ["model", "metric"]
    cells = reference.melt(keys, COLUMNS, "column", "reference")
    cells = cells.merge(study.melt(keys, COLUMNS, "column", "study"), how="left", on=[*keys, "column"])
    cells["moved"] = cells["study"] - cells["reference"]
    cells["tolerance"] = cells["metric"].map(TOLERANCES).fillna(TOLERANCE)
    cells.loc[cells["column"].isin(["low", "high"]), "tolerance"] *= INTERVAL_FACTOR
    cells.loc[cells["column"] == "n", "tolerance"] = 0
    empty = cells["study"].isna() & cells["reference"].isna()
    return cells.assign(holds=empty | (cells["moved"].abs() <= cells["tolerance"]))


def report(cells: pd.DataFrame, reference: Outcome, study: Outcome) -> str:
    """What is compared, the cells that moved visibly, the verdicts that changed, and a conclusion, as text."""
    lines = [_description("reference", reference), _description("study", study)]
    before, after = reference.record["settings"], study.record["settings"]
    for name in sorted(before.keys() & after.keys()):
        if before[name] != after[name]:
            lines.append(f"the study has another setting: {name}={after[name]!r}, not {before[name]!r}")
    moved = cells[(cells["moved"].abs() >= PRINTED) | ~cells["holds"]]
    lines += ["", _print_cells(moved), "", *changed_verdicts(reference.claims, study.claims)]
    beyond = (~cells["holds"]).sum()
    lines.append(f"{len(moved)} of {len(cells)} cells moved, {beyond} beyond their tolerance")
    lines.append("this is not the reference's result" if beyond else "the reference is confirmed")
    return "\n".join(lines)


def changed_verdicts(reference: pd.DataFrame, study: pd.DataFrame) -> list[str]:
    """A line for each claim whose verdict changed, and one that counts them; only claims of both tables count.

    reference, study : claim, place, verdict.
    """
    both = reference.merge(study, on=["claim", "place"], suffixes=("", "_of_study"))
    if both.empty:
        return []
    changed = both[both["verdict"] != both["verdict_of_study"]]
    lines = [f"{row.claim} ({row.place}): {row.verdict} -> {row.verdict_of_study}" for row in changed.itertuples()]
    return [*lines, f"{len(changed)} of {len(both)} verdicts on the paper's claims changed", ""]


def _description(name: str, outcome: Outcome) -> str:
    settings = outcome.record["settings"]
    provenance = outcome.record.get("provenance", {}).values()
    identity = ", ".join(f"{name} {settings[name]}" for name in IDENTITY)
    commits = ", ".join(dict.fromkeys(made["commit"][:7] for made in provenance)) or "unknown"
    processors = ", ".join(dict.fromkeys(made["environment"]["CPU"] for made in provenance)) or "unknown CPU"
    return f"{name}: {identity}; commit {commits}; {processors}"


def _print_cells(cells: pd.DataFrame) -> str:
    """Cells as a table in Markdown; empty without any."""
    if cells.empty:
        return ""
    printed = cells.replace({"model": MODELS, "metric": METRICS}).rename(columns={"column": "cell"})
    printed["holds"] = printed["holds"].map({True: "", False: "BEYOND"})
    return printed.to_markdown(index=False, floatfmt=".4f", missingval="-")
