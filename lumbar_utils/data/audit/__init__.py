"""What is wrong with a data set, before any training: a table of findings, one a row.

Errors stop a study, warnings go on its record; a finding that was looked at and found right is accepted by its name.
"""

import difflib
import fnmatch
from collections.abc import Collection, Iterator
from itertools import combinations
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from lumbar_utils import StudyError, freshness, records
from lumbar_utils.data.audit import likeness
from lumbar_utils.data.audit.cases import Seen, inspect
from lumbar_utils.data.audit.kinds import KINDS, Fault
from lumbar_utils.data.folder import Cohort, read_cases, read_description
from lumbar_utils.data.split import read_sides

COLUMNS = ["finding", "severity", "kind", "case", "what", "meaning", "remedy"]
SEVERITIES = ("error", "warning", "accepted")
ENOUGH, FAR = 10, 5.0  # cases to compare grey values in; robust z-score of an outlier (4.1 at most in clean sets)
LEAST_SPREAD = 0.3  # of the logarithm of grey values: a few cases, by chance alike, make no outlier of the next


def audit(data: Path | Cohort, split: pd.DataFrame | None = None, accepted: Collection[str] = ()) -> pd.DataFrame:
    """Findings on a folder in the canonical form, errors first: finding, severity, kind, case, what, meaning, remedy.

    split : patient, split; None for the folder's own split.csv, if it has one.
    accepted : names of findings, or patterns of them (`holes:*`), whose severity becomes `accepted`.
    Broken files are findings and stop nothing. Raises StudyError where there is no folder, or an accepted name fits
    no finding.
    """
    folder = Path(getattr(data, "folder", data))
    if not folder.is_dir():
        raise StudyError(f"there is no data set at {folder}; name 'phantom' or a folder; see data/README.md")
    try:
        description = read_description(folder)
        cases = read_cases(folder, masked=bool(description["annotated_levels"]))
        if split is None and (folder / "split.csv").exists():
            split = read_sides(folder / "split.csv")
    except (StudyError, OSError) as error:
        what, _, remedy = str(error).partition("; ")
        return accept(_table([(folder.name, Fault("table", what, remedy))]), accepted)
    labels = {int(value): name for value, name in description["labels"].items()}
    looks = (delayed(inspect)(folder, row, labels, description["annotated_levels"]) for _, row in cases.iterrows())
    seen = Parallel(n_jobs=joblib.cpu_count(), prefer="threads")(looks)
    sides = {} if split is None else _sides(split)
    found = [(one.case, fault) for one in seen for fault in one.faults]
    found += [*_outliers(seen), *_alike(seen, sides), *_names(cases["patient"]), *_torn(sides)]
    return accept(_table(found), accepted)


def accept(findings: pd.DataFrame, accepted: Collection[str]) -> pd.DataFrame:
    """The findings with those accepted marked as such, errors first. Raises StudyError for a name that fits none."""
    severity = findings["severity"].copy()
    for name in accepted:
        fits = _fitting(findings, name)
        if not fits.any():
            near = difflib.get_close_matches(name, findings["finding"], n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else "drop it, or take a name from the audit's table"
            raise StudyError(f"accepted finding {name!r} fits none of the {len(findings)} findings; {hint}")
        severity[fits] = "accepted"
    order = severity.map(SEVERITIES.index)
    return findings.assign(severity=severity).iloc[np.argsort(order, kind="stable")].reset_index(drop=True)


def check(cohort: Cohort, accepted: Collection[str], cache: Path) -> pd.DataFrame:
    """The findings on a cohort, looked for once and kept in `cache`. Raises StudyError at errors not accepted."""
    findings = accept(_look(cohort, cache), accepted)
    errors = findings[findings["severity"] == "error"]
    if len(errors):
        first = " | ".join(f"{row.finding}: {row.what}; {row.remedy}" for row in errors.head(3).itertuples())
        raise StudyError(
            f"{cohort.folder} does not pass its audit, errors: {len(errors)}: {first} | all of them: "
            f"`python -m lumbar_utils audit {cohort.folder}`; correct them, or --accept what is right as it is"
        )
    return findings


def accepted_of_each(cohorts: list[Cohort], accepted: Collection[str], cache: Path) -> list[tuple[str, ...]]:
    """The accepted names that fit a finding of each cohort. Raises StudyError for a name that fits none of any."""
    tables = [_look(cohort, cache) for cohort in cohorts]
    accept(pd.concat(tables, ignore_index=True), accepted)
    return [tuple(name for name in accepted if _fitting(table, name).any()) for table in tables]


def _look(cohort: Cohort, cache: Path) -> pd.DataFrame:
    """The findings on a cohort, none accepted, from `cache` if they are there."""
    key = freshness.made_from("audit", cohort.fingerprint, cohort.cases["case"].tolist())
    kept = cache / f"audit-{key[:16]}.csv"
    if not kept.exists():
        records.write_csv(kept, audit(cohort))
    return pd.read_csv(kept, dtype=str, keep_default_na=False)


def _fitting(findings: pd.DataFrame, name: str) -> pd.Series:
    """Which findings have this name, or one that fits it as a pattern."""
    return findings["finding"].map(lambda finding: finding == name or fnmatch.fnmatch(finding, name)).astype(bool)


def _table(found: list[tuple[str, Fault]]) -> pd.DataFrame:
    rows = []
    for case, fault in found:
        kind = KINDS[fault.kind]
        name = f"{fault.kind}:{case}"
        rows.append((name, kind.severity, fault.kind, case, fault.what, kind.meaning, fault.remedy or kind.remedy))
    return pd.DataFrame(rows, columns=COLUMNS, dtype=str)


def _outliers(seen: list[Seen]) -> Iterator[tuple[str, Fault]]:
    """Cases whose brightness or contrast lies far from the set's, on a logarithmic scale."""
    usable = [one for one in seen if one.waves is not None]
    if len(usable) < ENOUGH:
        return
    logs = np.log1p([(one.mean, one.deviation) for one in usable])
    middle = np.median(logs, axis=0)
    spread = np.maximum(1.4826 * np.median(np.abs(logs - middle), axis=0), LEAST_SPREAD)
    typical = np.expm1(middle)
    for one, scores in zip(usable, (logs - middle) / spread, strict=True):
        if np.abs(scores).max() > FAR:
            what = (
                f"mean {one.mean:.0f}, standard deviation {one.deviation:.0f} of the grey values; of the set "
                f"{typical[0]:.0f} and {typical[1]:.0f} (robust z {scores[0]:.1f} and {scores[1]:.1f})"
            )
            yield one.case, Fault("outlier", what)


def _alike(seen: list[Seen], sides: dict[str, list[str]]) -> Iterator[tuple[str, Fault]]:
    """Pairs of one image, each copy with the first; and of every two patients the two images most alike."""
    first, same = {}, set()
    for one in seen:
        if one.pixels is None:
            continue
        other = first.setdefault(one.pixels, one)
        if other is not one:
            same.add(frozenset((other.patient, one.patient)))
            kind = "repeated-slice" if other.patient == one.patient else "duplicate"
            yield f"{other.case}+{one.case}", Fault(kind, f"the same pixels{_of_whom(other, one, sides)}")
    usable = [one for one in seen if one.waves is not None]
    if not usable:
        return
    pairs = likeness.near_pairs(np.stack([one.waves for one in usable]), np.array([one.patient for one in usable]))
    nearest = {}
    for i, j, bits in pairs:
        one, other = usable[i], usable[j]
        patients = frozenset((one.patient, other.patient))
        if patients not in same and bits < nearest.get(patients, (likeness.BITS,))[0]:
            nearest[patients] = bits, one, other
    for bits, one, other in nearest.values():
        what = f"{bits} of {likeness.BITS} bits of their hashes differ{_of_whom(one, other, sides)}"
        yield f"{one.case}+{other.case}", Fault("near-duplicate", what)


def _of_whom(one: Seen, other: Seen, sides: dict[str, list[str]]) -> str:
    """Whose images two are, and on which sides of the split, where it is given."""
    if one.patient == other.patient:
        return f", both of patient {one.patient}"
    places = [sides.get(patient, [""])[0] for patient in (one.patient, other.patient)]
    on = f", in {places[0]} and {places[1]}" if all(places) else ""
    return f", of patients {one.patient} and {other.patient}{on}"


def _names(patients: pd.Series) -> Iterator[tuple[str, Fault]]:
    names = pd.Series(patients.unique())
    for plain, alike in names.groupby(names.map(likeness.plain_name)):
        for one, other in combinations(alike, 2):
            what = f"patients {one!r} and {other!r} are both {plain!r} but for case, blanks, dashes and leading zeros"
            yield f"{one}+{other}", Fault("alike-names", what)


def _sides(split: pd.DataFrame) -> dict[str, list[str]]:
    return {str(patient): sides.unique().tolist() for patient, sides in split.groupby("patient")["split"]}


def _torn(sides: dict[str, list[str]]) -> Iterator[tuple[str, Fault]]:
    for patient, places in sides.items():
        if len(places) > 1:
            what = f"the split puts patient {patient} on two sides: {', '.join(map(str, places))}"
            yield patient, Fault("two-sides", what, "keep one")
