"""The audit of a data set before any training: a table of findings, one a row, and a report on them.

Errors stop a study, warnings are recorded; a finding that was looked at and found right is accepted by its name.
"""

import dataclasses
import difflib
import fnmatch
import itertools
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import joblib
import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from lumbar_utils import StudyError, freshness, records
from lumbar_utils.data.checks import Case, Fault, check_case, read_tolerantly
from lumbar_utils.data.folder import Cohort, read_cases, read_description
from lumbar_utils.data.images import read_image
from lumbar_utils.data.split import read_rows

COLUMNS = ["finding", "severity", "kind", "case", "what", "meaning", "remedy"]
SEVERITIES = ("error", "warning", "accepted")
MIN_CASES, MAX_Z = 10, 5.0  # to compare grey values; robust z-score of an outlier (4.1 at most in clean sets)
MIN_SPREAD = 0.3  # of the logarithm of grey values: a few cases that are alike by chance make no outlier of the next
# Different bits of two hashes. Measured: different patients differ in 38 bits or more (400 000 pairs of phantoms; 64
# among 30 real patients). A copy with noise, other contrast, JPEG at quality 30, half the size or moved by 2 of 320
# pixels differs in 32 or fewer; one turned by 5 degrees or enlarged by 10 % in 50 to 100: it is not found.
NEAR = 32
LINES = 20  # of the report


class Kind(NamedTuple):
    severity: str
    meaning: str
    remedy: str


COMPARE = "look at both; keep one, or give both the name of their one patient, or accept"
NAMES = "correct the mask's labels"
KINDS = {
    # the files
    "table": Kind("error", "the data set cannot be read by its own tables", "correct the table; see data/README.md"),
    "unreadable": Kind("error", "the case has no usable pixels", "export the file again"),
    "size": Kind("error", "image and mask are of two slices, or were resampled apart", "export both again"),
    "label": Kind("error", "some pixels have no meaning", "name the label in dataset.json, or correct the mask"),
    # the label maps
    "empty-mask": Kind("error", "there is nothing to learn or to score", "outline it, or leave it out"),
    "gap": Kind("error", "a level between two others was forgotten, or the levels are misnamed", NAMES),
    "missing-end": Kind("warning", "it lies outside of the image, or was forgotten", "outline it if it is there"),
    "repeated-level": Kind("error", "two bodies have one name", NAMES),
    "order": Kind("error", "levels do not follow one another from head to feet: they are misnamed", NAMES),
    "upside-down": Kind("error", "the feet are up", "turn image and mask head up"),
    "on-its-side": Kind("error", "the spine lies across the image", "turn image and mask head up"),
    "mirrored": Kind("error", "the spine bends the wrong way: its front is right", "mirror image and mask, front left"),
    "fragments": Kind("warning", "specks of a label beside its body", "remove them from the mask"),
    "holes": Kind("warning", "pixels inside of a body that are not labelled as it", "fill them in"),
    "border": Kind("warning", "a body is cut off by the image's edge", "check the field of view"),
    # image and label map together
    "over-air": Kind("error", "the mask does not lie on the body: shifted, or of another image", "pair them again"),
    # the images
    "flat": Kind("error", "the image shows nothing", "export it again with its window"),
    "saturated": Kind("warning", "bright tissue was cut off by the window", "export it with a wider window"),
    "outlier": Kind("warning", "another window or sequence than the rest", "look at it; export it like the rest"),
    # several cases
    "duplicate": Kind("error", "one image under two patients: it may be trained and tested on", COMPARE),
    "near-duplicate": Kind("error", "one patient under two names, perhaps on both sides of the split", COMPARE),
    "repeated-slice": Kind("warning", "one slice twice: it counts double", "remove one"),
    "alike-names": Kind("error", "one patient under two spellings would be split like two", "spell it in one way"),
    "two-sides": Kind("error", "a patient both trained and tested on: scores would flatter", "keep one side"),
}


def audit(folder: Path, accepted: Collection[str] = ()) -> pd.DataFrame:
    """Findings on a folder in the canonical form, errors first: finding, severity, kind, case, what, meaning, remedy.

    accepted : names of findings, or patterns of them (`holes:*`), whose severity becomes `accepted`.
    Broken files are findings and raise nothing. Raises StudyError if there is no folder, or an accepted name matches
    no finding.
    """
    if not folder.is_dir():
        raise StudyError(f"there is no data set at {folder}; name 'phantom' or a folder; see data/README.md")
    try:
        description = read_description(folder)
        rows = read_cases(folder, masked=bool(description["annotated_levels"]))
        split = folder / "split.csv"
        splits = read_rows(split) if split.exists() else pd.DataFrame(columns=["patient", "split"])
    except (StudyError, OSError) as error:
        return accept(_table([(folder.name, Fault("table", str(error)))]), accepted)
    labels, annotated = description["labels"], description["annotated_levels"]
    checks = (delayed(check_case)(folder, row, labels, annotated) for _, row in rows.iterrows())
    cases = Parallel(n_jobs=joblib.cpu_count(), prefer="threads")(checks)
    faults = [(case.case, fault) for case in cases for fault in case.faults]
    faults += [*_outliers(cases), *_duplicates(cases), *_near_duplicates(cases)]
    faults += [*_alike_names(rows["patient"]), *_in_two_splits(splits)]
    return accept(_table(faults), accepted)


def accept(findings: pd.DataFrame, accepted: Collection[str]) -> pd.DataFrame:
    """The findings with those accepted marked as such, errors first. Raises StudyError for a name that matches none."""
    severity = findings["severity"].copy()
    for name in accepted:
        matches = _matches(findings, name)
        if not matches.any():
            near = difflib.get_close_matches(name, findings["finding"], n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else "drop it, or take a name from the audit's table"
            raise StudyError(f"accepted finding {name!r} fits none of the {len(findings)} findings; {hint}")
        severity[matches] = "accepted"
    by_severity = np.argsort(severity.map(SEVERITIES.index), kind="stable")
    return findings.assign(severity=severity).iloc[by_severity].reset_index(drop=True)


def check(cohort: Cohort, accepted: Collection[str], cache: Path) -> pd.DataFrame:
    """The findings on a cohort, kept in `cache`. Raises StudyError if there are errors that are not accepted."""
    findings = accept(_cached(cohort, cache), accepted)
    errors = findings[findings["severity"] == "error"]
    if len(errors):
        first = " | ".join(f"{row.finding}: {row.what}; {row.remedy}" for row in errors.head(3).itertuples())
        raise StudyError(
            f"{cohort.folder} does not pass its audit, errors: {len(errors)}: {first} | all of them: "
            f"`python -m lumbar_utils audit {cohort.folder}`; correct them, or --accept what is right as it is"
        )
    return findings


def accepted_of_each(cohorts: list[Cohort], accepted: Collection[str], cache: Path) -> list[tuple[str, ...]]:
    """For each cohort the accepted names that match one of its findings. Raises StudyError for a name without any."""
    tables = [_cached(cohort, cache) for cohort in cohorts]
    accept(pd.concat(tables, ignore_index=True), accepted)
    return [tuple(name for name in accepted if _matches(table, name).any()) for table in tables]


def _cached(cohort: Cohort, cache: Path) -> pd.DataFrame:
    """The findings on a cohort, none accepted, from `cache` if they are there."""
    key = freshness.made_from("audit", cohort.fingerprint, cohort.cases["case"].tolist())
    file = cache / f"audit-{key[:16]}.csv"
    if not file.exists():
        records.write_csv(file, audit(cohort.folder))
    return pd.read_csv(file, dtype=str, keep_default_na=False)


def _matches(findings: pd.DataFrame, name: str) -> pd.Series:
    """Which findings have this name, or match it as a pattern."""
    return findings["finding"].map(lambda finding: finding == name or fnmatch.fnmatch(finding, name)).astype(bool)


def _table(faults: list[tuple[str, Fault]]) -> pd.DataFrame:
    rows = []
    for case, (kind, what) in faults:
        severity, meaning, remedy = KINDS[kind]
        rows.append((f"{kind}:{case}", severity, kind, case, what, meaning, remedy))
    return pd.DataFrame(rows, columns=COLUMNS, dtype=str)


def _outliers(cases: list[Case]) -> Iterator[tuple[str, Fault]]:
    """Cases whose brightness or contrast lies far from the set's, on a logarithmic scale."""
    usable = [case for case in cases if case.waves is not None]
    if len(usable) < MIN_CASES:
        return
    logs = np.log1p([(case.mean, case.deviation) for case in usable])
    median = np.median(logs, axis=0)
    spread = np.maximum(1.4826 * np.median(np.abs(logs - median), axis=0), MIN_SPREAD)
    typical = np.expm1(median)
    for case, scores in zip(usable, (logs - median) / spread, strict=True):
        if np.abs(scores).max() > MAX_Z:
            what = (
                f"mean {case.mean:.0f}, standard deviation {case.deviation:.0f} of the grey values; of the set "
                f"{typical[0]:.0f} and {typical[1]:.0f} (robust z {scores[0]:.1f} and {scores[1]:.1f})"
            )
            yield case.case, Fault("outlier", what)


def _duplicates(cases: list[Case]) -> Iterator[tuple[str, Fault]]:
    """Images of the same pixels: each copy with the first."""
    first: dict[str, Case] = {}
    for case in cases:
        original = first.setdefault(case.pixels, case)
        if case.pixels and original is not case:
            kind, whose = "duplicate", f"of patients {original.patient} and {case.patient}"
            if original.patient == case.patient:
                kind, whose = "repeated-slice", f"both of patient {case.patient}"
            yield f"{original.case}+{case.case}", Fault(kind, f"the same pixels, {whose}")


def _near_duplicates(cases: list[Case]) -> Iterator[tuple[str, Fault]]:
    """Of every two patients without a common image the two images most alike, if these are nearly the same."""
    usable = [case for case in cases if case.waves is not None]
    hashes, patients = np.array([case.waves for case in usable]), np.array([case.patient for case in usable])
    nearest = {}
    for i, j, bits in near_pairs(hashes, patients):
        pair = frozenset((usable[i].patient, usable[j].patient))
        if pair not in nearest or bits < nearest[pair][0]:
            nearest[pair] = bits, usable[i], usable[j]
    for bits, one, other in nearest.values():
        if one.pixels != other.pixels:
            whose = f"of patients {one.patient} and {other.patient}"
            what = f"{bits} of {hashes.shape[1]} bits of their hashes differ, {whose}"
            yield f"{one.case}+{other.case}", Fault("near-duplicate", what)


def near_pairs(hashes: np.ndarray, patients: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Rows i < j of different patients whose hashes differ in at most NEAR bits, and in how many.

    hashes : (images, bits) of 1 and -1. One row at a time, so that memory does not grow with the pairs.
    """
    for i in range(len(hashes) - 1):
        differing = ((hashes.shape[1] - hashes[i + 1 :] @ hashes[i]) / 2).astype(int)
        for j in np.flatnonzero((differing <= NEAR) & (patients[i + 1 :] != patients[i])):
            yield i, i + 1 + int(j), int(differing[j])


def _alike_names(patients: pd.Series) -> Iterator[tuple[str, Fault]]:
    names = pd.Series(patients.unique())
    for plain, alike in names.groupby(names.map(plain_name)):
        for one, other in itertools.combinations(alike, 2):
            what = f"patients {one!r} and {other!r} are both {plain!r} but for case, blanks, dashes and leading zeros"
            yield f"{one}+{other}", Fault("alike-names", what)


def plain_name(patient: str) -> str:
    """A patient's name without differences of typing: case, blanks, dashes, leading zeros."""
    return re.sub(r"(?<!\d)0+(?=\d)", "", re.sub(r"[\s_\-]+", "", patient.casefold()))


def _in_two_splits(splits: pd.DataFrame) -> Iterator[tuple[str, Fault]]:
    for patient, names in splits.groupby("patient")["split"].unique().items():
        if len(names) > 1:
            what = f"the split puts patient {patient} on two sides: {', '.join(names)}"
            yield patient, Fault("two-sides", what)


def overview(findings: pd.DataFrame) -> pd.DataFrame:
    """One row a severity and kind: severity, kind, findings (how many), first, what (of the first)."""
    kinds = findings.groupby(["severity", "kind"], sort=False)
    return kinds.agg(findings=("finding", "count"), first=("finding", "first"), what=("what", "first")).reset_index()


def report(findings: pd.DataFrame, file: Path) -> str:
    """The findings in LINES lines at most, errors first; file : where all of them are written."""
    if findings.empty:
        return f"nothing found\n{file}"
    table = findings[["severity", "finding", "what"]]
    if len(table) > LINES:  # then one line a kind
        table = overview(findings)[["severity", "findings", "first", "what"]]
    text = table.head(LINES).to_string(index=False, justify="left", max_colwidth=90)
    counts = ", ".join(f"{number} {severity}" for severity, number in findings["severity"].value_counts().items())
    return f"{text}\n\n{counts}; what each means, and the remedy:\n{file}"


@dataclasses.dataclass(frozen=True)
class Picture:
    """One finding's image, (height, width) uint8, and its label map if it has one; a pair's images side by side.

    spacing_mm : side of a pixel; nan if unknown, and for a pair, whose images may differ in it.
    """

    finding: str
    severity: str
    image: np.ndarray
    label_map: np.ndarray | None = None
    spacing_mm: float = float("nan")


def pictures(folder: Path, findings: pd.DataFrame) -> list[Picture]:
    """Up to six pictures, of the first finding of each kind, the gravest first; none where images cannot be read."""
    if (findings["kind"] == "table").any():
        return []
    cases = read_cases(folder, masked=False).set_index("case")
    labels = read_description(folder)["labels"]
    made = [_picture(row, folder, cases, labels) for row in findings.drop_duplicates("kind").itertuples()]
    return list(filter(None, made))[:6]


def _picture(finding, folder: Path, cases: pd.DataFrame, labels: dict[int, str]) -> Picture | None:
    """A finding's picture; None if it is about no case, or an image cannot be read."""
    try:
        rows = [cases.loc[name] for name in finding.case.split("+")]
        images = [read_image(folder / row["image"]) for row in rows]
    except (KeyError, StudyError, OSError):
        return None
    if len(images) > 1:
        return Picture(finding.finding, finding.severity, _side_by_side(*images))
    mask = read_tolerantly(folder / rows[0]["mask"], labels)
    fits = mask is not None and mask.shape == images[0].shape
    return Picture(finding.finding, finding.severity, images[0], mask if fits else None, float(rows[0]["spacing_mm"]))


def _side_by_side(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Two images in one row, at the height of the first, with a white gap."""
    height = len(one)
    gap = np.full((height, height // 40), 255, np.uint8)
    return np.hstack([one, gap, cv2.resize(other, (round(other.shape[1] * height / len(other)), height))])
