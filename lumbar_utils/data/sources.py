"""Sources of images: each becomes a canonical folder, and the folder a cohort of cases."""

import contextlib
from pathlib import Path

from lumbar_utils import StudyError, freshness
from lumbar_utils.data import folder as canonical
from lumbar_utils.data.files import files_in, split_suffix
from lumbar_utils.data.folder import Cohort
from lumbar_utils.records import fingerprint_files
from lumbar_utils.study import DATA, Study, kind_and_path


def load(study: Study) -> Cohort:
    """The cohort of a study. Raises StudyError as `locate` does, or if its tables are invalid."""
    folder = locate(study)
    try:
        return canonical.read(folder)
    except StudyError as error:
        if folder.parent != study.cache:
            raise
        raise StudyError(f"{error}; or delete {folder}, which is then made again") from None


def locate(study: Study) -> Path:
    """The canonical folder of a study's data set.

    On first use the phantom is drawn, and a source of another form is converted; both are kept in `study.cache`.
    Raises StudyError if there is no such source, or it cannot be read.
    """
    kind, path = kind_and_path(study.dataset)
    if kind == "phantom":
        return _phantom(study)
    return path if kind == "folder" else _converted(study, kind, path or find_raw(kind))


def is_scan(source: str) -> bool:
    """Whether a source is no data set but a volume, or a file or folder of DICOM images, named without `KIND:`."""
    kind, path = kind_and_path(source)
    if kind != "folder":
        return False
    if path.is_dir():
        return not any((path / name).exists() for name in ("cases.csv", "dataset.json"))
    return path.is_file() or split_suffix(path)[1] != ""


def convert(kind: str, source: Path, folder: Path, slices: int = 1) -> Path:
    """Write a source into `folder` in the canonical form.

    kind : one of `study.CONVERTED`.
    slices : of a volume, about its mid-sagittal one. Raises StudyError if the source cannot be read.
    """
    from lumbar_utils.data import composite, dicom, nifti, spider  # SimpleITK and pydicom are needed here alone

    readers = {"composite": composite, "spider": spider, "dicom": dicom, "nifti": nifti}
    if not source.exists():
        raise StudyError(f"there is no {kind} source at {source}; name it as {kind}:PATH; see data/README.md")
    description, images = readers[kind].read_source(source, slices)
    return canonical.write(folder, images, description)


def find_raw(kind: str) -> Path:
    """Where a source named by its kind alone lies: data/raw/<kind>, or data/raw/<kind>.zip."""
    raw = DATA / "raw"
    for path in (raw / kind, raw / f"{kind}.zip"):
        if path.exists():
            return path
    raise StudyError(
        f"there is no {kind} in {raw}; put it there as {kind} or {kind}.zip, by hand or, where it is known, by "
        f"`python -m lumbar_utils fetch {kind}`; or name its path as {kind}:PATH"
    )


def _converted(study: Study, kind: str, source: Path) -> Path:
    files = [source] if source.is_file() else files_in(source)
    names = [path.relative_to(source).as_posix() for path in files]  # a source that was moved is the same
    made_from = freshness.made_from(kind, names, fingerprint_files(files), study.slices)
    folder = study.cache / f"{kind}-{made_from[:16]}"
    return folder if folder.exists() else convert(kind, source, folder, study.slices)


def _phantom(study: Study) -> Path:
    from lumbar_utils.phantom import phantom

    made_from = freshness.made_from(
        "phantom", study.phantom_patients, study.phantom_size, study.phantom_difficulty, study.phantom_contrast
    )
    folder = study.cache / f"phantom-{study.phantom_patients}x{study.phantom_size}-{made_from[:8]}"
    if not folder.exists():
        with contextlib.suppress(FileExistsError):  # another process drew the same one meanwhile
            phantom.generate(
                folder, study.phantom_patients, size=study.phantom_size, difficulty=study.phantom_difficulty,
                contrast=study.phantom_contrast,
            )  # fmt: skip
    return folder
