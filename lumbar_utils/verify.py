"""A study beside a reference: Table II cell by cell, each within a stated tolerance, and which cells moved.

On the same machine a study gives the same bits. Another processor or library sums in another order; late decimals then
differ, training amplifies them over thousands of steps, and the networks that come out are different draws of the same
recipe. The tolerances are for that, and for nothing else: what lies beyond has another cause.
"""

import dataclasses
import json
from pathlib import Path

import pandas as pd

from lumbar_utils import METRICS, MODELS, StudyError, records
from lumbar_utils.export import published

REFERENCE = Path(__file__).resolve().parents[1] / "figures" / "reference"
LAST = "notebooks/05_evaluate_and_compare.json"  # of a study, whole once it is finished
SAME = ("profile", "dataset", "seed")  # settings that name what is compared with what

# of a score in [0, 1]; COCO's mAP counts whole vertebrae that pass an overlap, and so moves in steps
TOLERANCES = {"precision": 0.02, "recall": 0.02, "f1": 0.02, "map_pixel": 0.02, "map_coco": 0.05}
ENDS = 2  # an interval's ends hang on the worst patients, and may move this many times as far as the score
COLUMNS = ("value", "low", "high", "n")
SEEN = 0.00005  # what Table II, in four decimals, shows


@dataclasses.dataclass(frozen=True)
class Kept:
    """What there is to compare of a study or reference: its Table II, and its study.json without its machine's own."""

    folder: Path
    record: dict
    table: pd.DataFrame


def read(folder: Path) -> Kept:
    """A study's folder, or one that `export` wrote. Raises StudyError if it lacks study.json or table2.csv."""
    tables = [path for path in (folder / "tables" / "table2.csv", folder / "table2.csv") if path.exists()]
    if not (folder / "study.json").exists() or not tables:
        raise StudyError(
            f"{folder} has no study.json and table2.csv to compare; name the folder of a finished study, or one that "
            "`python -m lumbar_utils export` wrote"
        )
    return Kept(
        folder, published(json.loads((folder / "study.json").read_text(encoding="utf-8"))), pd.read_csv(tables[0])
    )


def newest(runs: Path, reference: Kept) -> Path:
    """The finished study of the reference's profile, data set and seed: the nearest in its settings, then the newest.

    Raises StudyError where there is none, with the command that makes it.
    """
    wanted, found = {name: reference.record["settings"][name] for name in SAME}, []
    for record in runs.glob(f"*/{LAST}"):
        folder = record.parents[1]
        settings = published(json.loads((folder / "study.json").read_text(encoding="utf-8")))["settings"]
        if records.is_whole(record) and all(settings[name] == wanted[name] for name in SAME):
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
    cells["tolerance"] = cells["metric"].map(TOLERANCES).where(cells["column"] != "n", 0)
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
    return "\n".join([*about, "", *_lines(moved), _verdict(cells, len(moved), beyond)])


def _describe(what: str, kept: Kept) -> str:
    settings, environment = kept.record["settings"], kept.record.get("environment", {})
    named = ", ".join(f"{name} {settings[name]}" for name in SAME)
    return (
        f"{what}: {named}; commit {kept.record.get('commit', 'unknown')[:7]}; {environment.get('CPU', 'unknown CPU')}"
    )


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
