"""From a study's settings to its cases: load, audit, decode, split by patient, and record."""

import dataclasses

import numpy as np
import pandas as pd

from lumbar_utils import LEVELS, StudyError, records
from lumbar_utils.data import audit, sources, split
from lumbar_utils.data.decoding import decode
from lumbar_utils.data.folder import Cohort, read_description
from lumbar_utils.study import Study


def first_look(study: Study) -> Cohort:
    """One image of each of the first four patients, before all images are drawn and checked, which takes longer.

    Raises StudyError on a data set with invalid tables; writes nothing into the study's folder.
    """
    few = min(4, study.phantom_patients)  # a phantom's first patients are the same whatever their number
    cohort = _load(Study(**study.settings | {"phantom_patients": few}))
    return dataclasses.replace(cohort, cases=cohort.cases.drop_duplicates("patient").head(4))


def prepare(study: Study) -> Cohort:
    """The study's cohort with a column `split`, after all checks that training relies on.

    Writes cases.csv, split.csv and study.json into the study's folder.
    Raises StudyError on unusable data before anything is written, and if a folder of the study cannot be written.
    """
    cohort = _load(study)
    findings = audit.check(cohort, study.accept, study.cache)
    _, masks = decode(cohort, study.height, study.width, study.cache)
    present = np.array([np.bincount(mask.ravel(), minlength=len(LEVELS) + 1)[1:] > 0 for mask in masks])
    splits, origin = _split(study, cohort, cohort.cases.assign(levels=present.sum(axis=1)))
    cohort = dataclasses.replace(cohort, cases=cohort.cases.drop(columns="split", errors="ignore").merge(splits))
    cohort, untaught = _without_untaught(study, cohort, present)
    records.refuse_unwritable(study.folder, *(path for path in study.folder.rglob("*") if path.is_dir()))
    records.write_csv(study.folder / "cases.csv", cohort.cases)
    records.write_csv(study.folder / "split.csv", splits)
    about = read_description(cohort.folder)
    for name in ("name", "licence", "synthetic", "annotated_levels"):  # recorded apart
        about.pop(name, None)
    record = {
        "name": cohort.name, "licence": cohort.licence, "synthetic": cohort.synthetic, "annotated": cohort.annotated,
        "cases": len(cohort.cases), "patients": len(splits), "fingerprint": cohort.fingerprint, "split": origin,
        "taught": taught(study, cohort), "untaught": untaught,
        "about": about,
        "findings": dict(zip(findings["finding"], findings["severity"] + ": " + findings["what"], strict=True)),
    }  # fmt: skip
    content = {"fingerprint": study.fingerprint, "settings": study.settings, "data": record}
    records.write_json(study.folder / "study.json", content)
    return cohort


def _load(study: Study) -> Cohort:
    cohort = sources.load(study)
    if not cohort.annotated:
        raise StudyError(
            f"{cohort.name} is for prediction only: it annotates no level, so there is nothing to learn or score; "
            "apply a trained network with `python -m lumbar_utils predict`, or name annotated_levels in dataset.json"
        )
    return cohort


def _split(study: Study, cohort: Cohort, cases: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Patient and split, and the split's origin: given with the data, by fold, or drawn."""
    if study.epochs == 0:
        return pd.DataFrame({"patient": sorted(cases["patient"].astype(str).unique())}).assign(split="test"), "all test"
    given, strata = cohort.folder / "split.csv", split.strata_of(cases)
    if study.folds:
        if given.exists():
            print(f"{given} is not used: patients are dealt into {study.folds} folds")
        validation = 1 - study.train_fraction - study.test_fraction
        splits = split.split_by_fold(strata, study.seed, study.folds, study.fold, validation)
        return splits, f"fold {study.fold} of {study.folds}"
    if given.exists():
        return split.read_split(given, cases["patient"]), "given"
    return split.split_patients(strata, study.seed, study.train_fraction, study.test_fraction), "drawn"


def _without_untaught(study: Study, cohort: Cohort, present: np.ndarray) -> tuple[Cohort, list[str]]:
    """The cohort without levels that the networks cannot know, and these levels: it would be unfair to score them.

    present : (cases, levels) bool, which level is in which image.
    Raises StudyError if the networks know none of the levels.
    """
    if study.epochs:
        train, test = (present[(cohort.cases["split"] == name).to_numpy()].any(axis=0) for name in ("train", "test"))
        untaught = [level for level, is_lost in zip(LEVELS, test & ~train, strict=True) if is_lost]
        why = "is in no training image"
    else:
        untaught = [level for level in cohort.annotated if level not in taught_before(study)]
        why = f"was not taught to the networks of {study.start.name}"
    scored = tuple(level for level in cohort.annotated if level not in untaught)
    if not scored:
        raise StudyError(f"none of the levels of {cohort.name} {why}; test them on images with the levels they know")
    for level in untaught:
        print(f"{level} {why}; it is left out of training and scores")
    return dataclasses.replace(cohort, annotated=scored), untaught


def taught(study: Study, cohort: Cohort) -> list[str]:
    """Levels that the study's trained networks know: by its images, or by the networks that they start from."""
    levels = taught_before(study) + (cohort.annotated if study.epochs else ())
    return [level for level in LEVELS if level in levels]


def taught_before(study: Study) -> tuple[str, ...]:
    """Levels known to the networks that a study starts from; none if they start at random."""
    if study.start_from == "phantoms":
        return LEVELS
    data = records.read_json(study.start / "study.json")["data"] if study.start else {"taught": ()}
    return tuple(data.get("taught", data.get("annotated")))
