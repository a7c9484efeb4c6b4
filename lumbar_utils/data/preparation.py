"""From a study's settings to the cases it uses: load, split by patient, decode, put on record."""

import dataclasses

import numpy as np
import pandas as pd

from lumbar_utils import LEVELS, StudyError, records
from lumbar_utils.data import audit, sources, split
from lumbar_utils.data.decoding import decode
from lumbar_utils.data.folder import Cohort, read_description
from lumbar_utils.study import Study


def first_look(study: Study) -> Cohort:
    """One image of each of the first four patients, before all of the data are drawn and checked, which takes longer.

    Raises StudyError on a data set whose tables cannot be used; writes nothing into the study's folder.
    """
    few = min(4, study.phantom_patients)  # who are the same in a phantom of any number of patients
    cohort = _load(Study(**study.settings | {"phantom_patients": few}))
    return dataclasses.replace(cohort, cases=cohort.cases.drop_duplicates("patient").head(4))


def prepare(study: Study) -> Cohort:
    """The study's cohort with a column `split`, everything that training needs checked beforehand.

    Writes cases.csv, split.csv and study.json into the study's folder.
    Raises StudyError on unusable data before anything is written, and if a folder of the study cannot be written.
    """
    cohort = _load(study)
    findings = audit.check(cohort, study.accept, study.cache)
    _, masks = decode(cohort, study.height, study.width, study.cache)
    present = np.array([np.bincount(mask.ravel(), minlength=len(LEVELS) + 1)[1:] > 0 for mask in masks])
    sides, how = _split(study, cohort, cohort.cases.assign(levels=present.sum(axis=1)))
    cohort = dataclasses.replace(cohort, cases=cohort.cases.drop(columns="split", errors="ignore").merge(sides))
    cohort, untaught = _without_untaught(study, cohort, present)
    records.refuse_unwritable(study.folder, *(path for path in study.folder.rglob("*") if path.is_dir()))
    records.write_csv(study.folder / "cases.csv", cohort.cases)
    records.write_csv(study.folder / "split.csv", sides)
    records.write_json(
        study.folder / "study.json",
        {
            "fingerprint": study.fingerprint,
            "settings": study.settings,
            "data": {
                "name": cohort.name, "licence": cohort.licence, "synthetic": cohort.synthetic,
                "annotated": cohort.annotated, "cases": len(cohort.cases), "patients": len(sides),
                "fingerprint": cohort.fingerprint, "split": how,
                "taught": taught(study, cohort), "untaught": untaught, "about": _about(cohort),
                "findings": dict(zip(findings["finding"], findings["severity"] + ": " + findings["what"], strict=True)),
            },
        },
    )  # fmt: skip
    return cohort


def _without_untaught(study: Study, cohort: Cohort, present: np.ndarray) -> tuple[Cohort, list[str]]:
    """The cohort, and the levels in its test images that no network can know; a level with no chance is not scored.

    present : (cases, levels) bool, which level is in which image.
    Raises StudyError if networks that are taken as they are know none of the levels.
    """
    if study.epochs:
        sides = {side: present[(cohort.cases["split"] == side).to_numpy()].any(axis=0) for side in ("train", "test")}
        untaught = [level for level, lost in zip(LEVELS, sides["test"] & ~sides["train"], strict=True) if lost]
        why = "is in no training image"
    else:
        untaught = [level for level in cohort.annotated if level not in taught_before(study)]
        why = f"was not taught to the networks of {study.start.name}"
    kept = tuple(level for level in cohort.annotated if level not in untaught)
    if not kept:
        raise StudyError(f"none of the levels of {cohort.name} {why}; test them on images with the levels they know")
    for level in untaught:
        print(f"{level} {why}; it is left out of training and scores")
    return dataclasses.replace(cohort, annotated=kept), untaught


def taught(study: Study, cohort: Cohort) -> list[str]:
    """Levels that the study's networks know once they are trained: by its images, or by what they start from."""
    return [level for level in LEVELS if level in taught_before(study) + (cohort.annotated if study.epochs else ())]


def taught_before(study: Study) -> tuple[str, ...]:
    """Levels that the networks know which a study starts from; none where they start at random."""
    if study.start_from == "phantoms":
        return LEVELS
    data = records.read_json(study.start / "study.json")["data"] if study.start else {"taught": ()}
    return tuple(data.get("taught", data.get("annotated")))


def _load(study: Study) -> Cohort:
    cohort = sources.load(study)
    if cohort.for_prediction_only:
        raise StudyError(
            f"{cohort.name} is for prediction only: it annotates no level, so there is nothing to learn or score; "
            "apply a trained network with `python -m lumbar_utils predict`, or name annotated_levels in dataset.json"
        )
    return cohort


def _about(cohort: Cohort) -> dict:
    """What dataset.json tells beyond the fields that the study itself needs: labels, citation, notes, and more."""
    told = {"name", "licence", "synthetic", "annotated_levels"}
    return {name: value for name, value in read_description(cohort.folder).items() if name not in told}


def _split(study: Study, cohort: Cohort, cases: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Patient and split, and how it came about: given with the data, by fold, or drawn."""
    if study.epochs == 0:
        return pd.DataFrame({"patient": sorted(cases["patient"].astype(str).unique())}).assign(split="test"), "all test"
    given, strata = cohort.folder / "split.csv", split.strata_of(cases)
    if study.folds:
        validation = 1 - study.train_fraction - study.test_fraction
        sides = split.split_by_fold(strata, study.seed, study.folds, study.fold, validation)
        return sides, f"fold {study.fold} of {study.folds}"
    if given.exists():
        return split.read_split(given, cases["patient"]), "given"
    return split.split_patients(strata, study.seed, study.train_fraction, study.test_fraction), "drawn"
