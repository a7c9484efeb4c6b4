"""Files that are complete or absent, locks, completion records of finished work, fingerprints, and provenance."""

import contextlib
import errno
import functools
import hashlib
import importlib.metadata
import io
import json
import os
import secrets
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import filelock

from lumbar_utils import StudyError
from lumbar_utils.machine import environment

if TYPE_CHECKING:
    import pandas as pd  # takes a second to load, so it is loaded where a table is read or made

PACKAGE = Path(__file__).parent
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)
LOCK_TRIES = 20  # at intervals of 0.05 s, since `is_locked` holds a lock for an instant
REPORTED = (  # packages whose versions are part of every provenance
    "torch", "torchvision", "timm", "segmentation-models-pytorch", "lightning", "albumentations", "numpy", "scipy",
    "opencv-python-headless", "pandas", "statsmodels", "matplotlib", "seaborn", "pillow", "papermill",
)  # fmt: skip


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which replaces `path` once it is completely written and on the disk.

    The file gets the permissions that the umask allows. Raises StudyError when the disk is full or read-only; the file
    that was at `path` before is then unchanged.
    """
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise StudyError(
            f"could not write {path}: {error.strerror or error}; make room or grant access and run again: "
            "what was finished before is kept"
        ) from error


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder to write into, which is renamed to `path` once it is complete.

    If another process has made `path` meanwhile, that one is kept. Permissions are what the umask allows.
    """
    temporary = _temporary(path)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        try:
            temporary.rename(path)
        except OSError:
            if not path.exists():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _temporary(path: Path) -> Path:
    """A hidden name beside `path` that no other writer has."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{path.suffix}")


def refuse_unwritable(*folders: Path) -> None:
    """Make the folders that do not exist. Raises StudyError if a file cannot be made in one of them."""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise StudyError(
                f"cannot write into {folder}: {error.strerror or error}; grant access, or name another folder as `runs`"
            ) from error


def remove_temporary_files(folder: Path, older_s: float = 0) -> None:
    """Remove the temporary files that killed writers left; nobody may be writing into `folder`, or not lately.

    older_s : seconds since their last change.
    """
    for file in folder.rglob(".*.*"):
        with contextlib.suppress(FileNotFoundError):
            if file.is_file() and time.time() - file.stat().st_mtime >= older_s:
                file.unlink()


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[int | None]:
    """Hold a lock; yields the descriptor of its file, or None if another process holds it for longer than a second.

    A process that inherits the descriptor holds the lock too, until all of them have ended, killed or not. On a disk
    without locks, some network disks, there is a warning, and the work goes on without.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for _ in range(LOCK_TRIES):
            if locked := _try_to_lock(file):
                break
            time.sleep(0.05)
        yield file.fileno() if locked else None


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock."""
    if not path.exists():
        return False
    with path.open("a", encoding="utf-8") as file:
        return not _try_to_lock(file)


def _try_to_lock(file: IO) -> bool:
    """Lock an open file, until it is closed; False if another process has locked it. True where there are no locks."""
    try:
        return filelock.lock_descriptor(file.fileno(), blocking=False)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        text = f"the disk of {Path(file.name).parent} has no locks ({error.strerror}); start one run at a time there"
        warnings.warn(text, stacklevel=2)
        return True


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, completely or not at all; a file that holds the same text already is not touched."""
    if path.exists() and path.read_bytes() == text.encode():
        return
    with atomic_file(path) as temporary:
        temporary.write_bytes(text.encode())


def write_json(path: Path, value: dict) -> None:
    """Write a dictionary as indented JSON, completely or not at all."""
    write_text(path, json.dumps(value, indent=2, default=str) + "\n")


def write_csv(path: Path, table: "pd.DataFrame") -> None:
    """Write a table without its index, completely or not at all."""
    buffer = io.StringIO()
    table.to_csv(buffer, index=False, lineterminator="\n")
    write_text(path, buffer.getvalue())


def read_csv(path: Path) -> "pd.DataFrame":
    """A table that `write_csv` wrote; names of cases and patients are text, whatever they look like (`001`, `NA`)."""
    import pandas as pd

    names = dict.fromkeys(("case", "case_there", "patient", "model", "claim"), str)
    text = _complete_text(path)
    try:
        return pd.read_csv(io.StringIO(text), dtype=names, keep_default_na=False, na_values=[""])
    except pd.errors.ParserError:
        raise _damaged(path) from None


def _complete_text(path: Path) -> str:
    """Text that this package wrote. Raises StudyError if it is empty, or not all of it is text."""
    text = path.read_bytes().decode(errors="replace")
    if not text.strip() or "\0" in text or "\ufffd" in text:
        raise _damaged(path)
    return text


def _damaged(path: Path) -> StudyError:
    return StudyError(f"{path} is cut off or damaged; copy it again, or run the study again")


def read_json(path: Path) -> dict:
    """The content of a JSON file; empty if there is no file. Raises StudyError if it is cut off or damaged."""
    try:
        return json.loads(_complete_text(path)) if path.exists() else {}
    except json.JSONDecodeError:
        raise _damaged(path) from None


def fingerprint(*parts) -> str:
    """sha256 of JSON values, in hexadecimal."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def fingerprint_files(paths: Iterable[Path]) -> str:
    """sha256 over the contents of files, in the order given."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


@functools.cache  # imported code stays as it is, even if its files change
def source_fingerprint(*modules: str) -> str:
    """sha256 of the package's own source: of the named modules, or of all files, styles and templates included."""
    if modules:
        return fingerprint_files(PACKAGE / f"{name}.py" for name in modules)
    files = sorted(PACKAGE.rglob("[!.]*"))
    return fingerprint_files(file for file in files if file.is_file() and file.parent.name != "__pycache__")


def is_complete(record: Path) -> bool:
    """Whether `record` is of finished work whose files are all there, and none of them truncated."""
    files = _read_record(record).get("files")
    return files is not None and all((record.parent / name).exists() for name in files) and not truncated_files(record)


def truncated_files(record: Path) -> list[Path]:
    """The files of finished work that hold fewer bytes than were written, as after an interrupted copy."""
    truncated = []
    for name, size in _read_record(record).get("bytes", {}).items():
        file = Path(os.path.normpath(record.parent / name))
        if file.exists() and file.stat().st_size < size:
            truncated.append(file)
    return truncated


def _read_record(record: Path) -> dict:
    """A record of finished work; empty if it is damaged, so that the work is done again."""
    with contextlib.suppress(StudyError):
        return read_json(record)
    return {}


def is_finished(record: Path, made_from: str) -> bool:
    """Whether `record` is of complete work that was made from this fingerprint."""
    return is_complete(record) and read_json(record)["made_from"] == made_from


def mark_finished(record: Path, made_from: str, files: Iterable[Path], **facts) -> None:
    """Record that `files` are complete, with their sizes and the provenance; to be called once all are written."""
    sizes = {Path(os.path.relpath(file, record.parent)).as_posix(): file.stat().st_size for file in files}
    content = {"made_from": made_from, "files": list(sizes), "bytes": sizes, "provenance": provenance()} | facts
    write_json(record, content)


def times_of(folder: Path) -> "pd.DataFrame":
    """The time of each finished notebook in a study's folder: step, seconds."""
    import pandas as pd

    rows = []
    for file in sorted((folder / "notebooks").glob("[0-9]*.json")):
        record = read_json(file)
        if "seconds" in record:
            rows.append((file.stem, record["seconds"]))
    return pd.DataFrame(rows, columns=["step", "seconds"])


def provenance() -> dict:
    """The code, packages, hardware and system of this process, for the results that it makes."""
    return {
        "lumbar_utils": importlib.metadata.version("lumbar_utils"),
        "commit": _commit(),
        "packages": {name: importlib.metadata.version(name) for name in REPORTED},
        "environment": environment(),
    }


def recorded_provenance(folder: Path) -> dict[str, dict]:
    """Result -> its provenance, as recorded in a study's folder by the run that made it.

    Results are `<model>/fit` (the trained network), `<model>/predict` (its label maps) and `scores`.
    """
    recorded = {}
    for file in [*sorted(folder.glob("*/fit.json")), *sorted(folder.glob("*/predict.json")), folder / "scores.json"]:
        record = read_json(file)
        if "provenance" in record:
            recorded[file.relative_to(folder).with_suffix("").as_posix()] = record["provenance"]
    return recorded


def one_or_each(values: dict[str, str]) -> str:
    """The value that all results share, or each value after the names of the results that have it; "" without any."""
    names: dict[str, list[str]] = {}
    for result, value in values.items():
        names.setdefault(value, []).append(result)
    if len(names) < 2:
        return next(iter(names), "")
    return "; ".join(f"{', '.join(results)}: {value}" for value, results in names.items())


@functools.cache  # as with the source
def _commit() -> str:
    """The commit of the code, with `-dirty` if files differ from it; `unknown` outside the project's own repository.

    A copy that lies inside another repository does not take that one's commit.
    """
    project = PACKAGE.parent
    command = ["git", "--git-dir", project / ".git", "--work-tree", project, "describe", "--always", "--dirty"]
    with contextlib.suppress(FileNotFoundError):  # no git
        done = subprocess.run([*command, "--abbrev=40"], cwd=project, capture_output=True, text=True)
        return done.stdout.strip() or "unknown"
    return "unknown"
