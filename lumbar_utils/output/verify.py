"""A study beside a reference: Table II cell by cell, each within a stated tolerance, and which cells moved.

On the same machine a study gives the same bits. Another processor or library sums in another order; late decimals then
differ, training amplifies them over thousands of steps, and the networks that come out are different draws of the same
recipe. The tolerances are for that, and for nothing else: what lies beyond has another cause.
"""

import dataclasses
from pathlib import Path

import pandas as pd

from lumbar_utils import METRICS, MODELS, StudyError, freshness, records
from lumbar_utils.output.export import described, published
from lumbar_utils.study import ROOT, record_of

REFERENCE = ROOT / "figures" / "reference"
LAST = "notebooks/05_evaluate_and_compare.json"  # of a study, whole once it is finished
SAME = ("profile", "dataset", "seed")  # settings that name what is compared with what

TOLERANCE = 0.02  # of a score in [0, 1], as every metric of Table II is
TOLERANCES = {"map_coco": 0.05}  # it counts whole vertebrae that pass an overlap, and so moves in steps
ENDS = 2  # an interval's ends hang on the worst patients, and may move this many times as far as the score
COLUMNS = ("value", "low", "high", "n")
SEEN = 0.00005  # what Table II, in four decimals, shows


@dataclasses.dataclass(frozen=True)
class Kept:
    """What there is to compare of a study or reference: Table II, verdicts, and study.json without its machine's own.

    claims : claim, place, verdict; empty where there are none.
    """

    folder: Path
    record: dict
    table: pd.DataFrame
    claims: pd.DataFrame


def read(folder: Path) -> Kept:
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
    return Kept(folder, described(folder), records.read_csv(tables[0]), claims)


def newest(runs: Path, reference: Kept) -> Path:
    """The finished study of the reference's profile, data set and seed: the nearest in its settings, then the newest.

    Raises StudyError where there is none, with the command that makes it.
    """
    wanted, found = {name: reference.record["settings"][name] for name in SAME}, []
    for record in runs.glob(f"*/{LAST}"):
        folder = record.parents[1]
        settings = published(record_of(folder))["settings"]
        if records.is_complete(record) and all(settings[name] == wanted[name] for name in SAME):
            different = len(other_settings(reference.record["settings"], settings))
            found.append((different, -record.stat().st_mtime_ns, folder))
    if not found:
        asked = " ".join(f"--{name} {value}" for name, value in wanted.items())
        raise StudyError(
            f"no finished study in {runs} to compare with {reference.folder}; "
            f"run it with `python -m lumbar_utils run {asked}`, or name a study's folder"
        )
    return min(found)[2]


def other_settings(reference: dict, settings: dict) -> list[str]:
    """Settings of both that differ, as words; those that only one of them knows are of another version."""
    shared = [name for name in reference if name in settings and settings[name] != reference[name]]
    return [f"{name}={settings[name]!r}, not {reference[name]!r}" for name in shared]


def compare(reference: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """One row a cell of the reference's Table II: model, metric, column, reference, found, moved, tolerance, holds.

    A column that only one of the two tables has (the intervals, of an older one) is not compared, nor is a model that
    the reference has not. A cell that is empty in one of them only does not hold.
    """
    columns = [name for name in COLUMNS if name in reference and name in found]
    keys = ["model", "metric"]
    cells = reference.melt(keys, columns, "column", "reference").merge(
        found.melt(keys, columns, "column", "found"), how="left", on=[*keys, "column"]
    )
    cells["moved"] = cells["found"] - cells["reference"]
    cells["tolerance"] = cells["metric"].map(TOLERANCES).fillna(TOLERANCE).where(cells["column"] != "n", 0)
    cells.loc[cells["column"].isin(["low", "high"]), "tolerance"] *= ENDS
    empty = cells["found"].isna() & cells["reference"].isna()
    return cells.assign(holds=empty | (cells["moved"].abs() <= cells["tolerance"]))


def report(cells: pd.DataFrame, reference: Kept, study: Kept) -> str:
    """What is compared, the cells that moved in the decimals that are printed, and a verdict, as text."""
    moved = cells[(cells["moved"].abs() >= SEEN) | ~cells["holds"]]
    beyond = (~cells["holds"]).sum()
    about = [_describe("reference", reference), _describe("study", study)]
    different = other_settings(reference.record["settings"], study.record["settings"])
    about += [f"the study has other settings: {'; '.join(different)}"] if different else []
    verdicts = changed_verdicts(reference.claims, study.claims)
    return "\n".join([*about, "", *_lines(moved), *verdicts, _verdict(cells, len(moved), beyond)])


def changed_verdicts(reference: pd.DataFrame, study: pd.DataFrame) -> list[str]:
    """Which verdicts on the paper's claims changed, a line each, and a line that counts them; of claims in both only.

    reference, study : claim, place, verdict.
    """
    both = reference.merge(study, on=["claim", "place"], suffixes=("", "_of_study"))
    changed = both[both["verdict"] != both["verdict_of_study"]]
    lines = [f"{row.claim} ({row.place}): {row.verdict} -> {row.verdict_of_study}" for row in changed.itertuples()]
    return [*lines, f"{len(changed)} of {len(both)} verdicts on the paper's claims changed", ""] if len(both) else []


def _describe(what: str, kept: Kept) -> str:
    settings, made = kept.record["settings"], kept.record.get("provenance", {}).values()
    named = ", ".join(f"{name} {settings[name]}" for name in SAME)
    commits = ", ".join(dict.fromkeys(one["commit"][:7] for one in made)) or "unknown"
    processors = ", ".join(dict.fromkeys(one["environment"]["CPU"] for one in made)) or "unknown CPU"
    return f"{what}: {named}; commit {commits}; {processors}"


def _lines(moved: pd.DataFrame) -> list[str]:
    """The moved cells as a table, the farthest beyond or within its tolerance first."""
    if moved.empty:
        return []
    far = (moved["moved"].abs() / moved["tolerance"].clip(lower=1e-9)).fillna(float("inf"))
    rows = moved.loc[far.sort_values(ascending=False, kind="stable").index]
    shown = pd.DataFrame({
        "model": rows["model"].map(lambda key: MODELS.get(key, key)),
        "metric": rows["metric"].map(lambda key: METRICS.get(key, key)),
        "cell": rows["column"],
        "reference": rows["reference"].map("{:.4f}".format), "study": rows["found"].map("{:.4f}".format),
        "moved": rows["moved"].map("{:+.4f}".format), "tolerance": rows["tolerance"].map("{:.2f}".format),
        "": rows["holds"].map({True: "", False: "BEYOND"}),
    })  # fmt: skip
    return [shown.replace({"nan": "-", "+nan": "-"}).to_markdown(index=False, disable_numparse=True), ""]


def _verdict(cells: pd.DataFrame, moved: int, beyond: int) -> str:
    if beyond:
        return f"{beyond} of {len(cells)} cells moved beyond their tolerance: this is not the reference's result"
    if moved:
        return f"{moved} of {len(cells)} cells moved, none beyond its tolerance: the reference is confirmed"
    return f"all {len(cells)} cells are the reference's in every decimal printed: the reference is confirmed"
