"""Where the images come from: each source becomes the same folder, and the folder a cohort of cases."""

from pathlib import Path

from lumbar_utils.datasets.folder import Cohort, read
from lumbar_utils.records import fingerprint, source_fingerprint
from lumbar_utils.study import Study


def load(study: Study) -> Cohort:
    """The cohort that a study names; the phantom is drawn on first use and kept in `study.cache`."""
    return read(_phantom(study) if study.dataset == "phantom" else Path(study.dataset))


def _phantom(study: Study) -> Path:
    from lumbar_utils.datasets import phantom

    made_from = fingerprint(
        study.phantom_patients, study.phantom_size, study.phantom_difficulty,
        source_fingerprint(*(f"datasets/{name}" for name in ("phantom", "anatomy", "surroundings", "mri"))),
    )  # fmt: skip
    folder = study.cache / f"phantom-{study.phantom_patients}x{study.phantom_size}-{made_from[:8]}"
    if not folder.exists():
        try:
            phantom.generate(
                folder, study.phantom_patients, size=study.phantom_size, difficulty=study.phantom_difficulty
            )
        except OSError:
            if not folder.exists():  # else another process drew the same one meanwhile
                raise
    return folder
