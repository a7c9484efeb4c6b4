"""From a study's settings to the cases it uses: load, split by patient, decode, put on record."""

import dataclasses

from lumbar_utils import datasets, records, split
from lumbar_utils.datasets.folder import Cohort
from lumbar_utils.loading import decode
from lumbar_utils.study import Study


def prepare(study: Study) -> Cohort:
    """The study's cohort with a column `split`, everything that training needs checked beforehand.

    Writes cases.csv, split.csv and study.json into the study's folder.
    Raises StudyError on unusable data before anything is written.
    """
    cohort = datasets.load(study)
    given = cohort.folder / "split.csv"
    patients = cohort.cases["patient"]
    if given.exists():
        sides = split.read_split(given, patients)
    else:
        sides = split.split_patients(patients, study.seed, study.train_fraction, study.test_fraction)
    cohort = dataclasses.replace(cohort, cases=cohort.cases.drop(columns="split", errors="ignore").merge(sides))
    decode(cohort, study.height, study.width, study.cache)
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
                "fingerprint": cohort.fingerprint, "split": "given" if given.exists() else "drawn",
            },
            **records.provenance(),
        },
    )  # fmt: skip
    return cohort
