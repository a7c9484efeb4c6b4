"""Files that are whole or absent, completion records of finished work, and where a result came from (provenance)."""

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

from lumbar_utils import StudyError
from lumbar_utils.machine import environment

if TYPE_CHECKING:
    import pandas as pd  # which takes longer to load than all else here; so only where a table is read or made

PACKAGE = Path(__file__).parent
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)
COSTS = ("seconds", "memory_mb", "disk_mb")  # of a finished notebook: memory of its kernel, files and best.ckpt
REPORTED = (  # packages whose versions stand in every provenance
    "torch", "torchvision", "timm", "segmentation-models-pytorch", "lightning", "albumentations", "numpy", "scipy",
    "opencv-python-headless", "pandas", "statsmodels", "matplotlib", "seaborn", "pillow", "papermill",
)  # fmt: skip


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which takes the place of `path` only once it is whole and on the disk.

    The file gets the permissions that the umask allows. Raises StudyError when the disk is full or read-only; what
    was at `path` before is then untouched.
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
    """A temporary folder to write into, which becomes `path` only once it is complete.

    If another process has made `path` meanwhile, that one stays. Permissions are what the umask allows.
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
    """Make folders that are not there. Raises StudyError if a file cannot be made in one of them."""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise StudyError(
                f"cannot write into {folder}: {error.strerror or error}; grant access, or name another folder as `runs`"
            ) from error


def remove_remains(folder: Path, older_s: float = 0) -> None:
    """Remove the temporary files of writers that were killed; nobody may be writing into `folder`, lately at least.

    older_s : seconds since their last change.
    """
    for remains in folder.rglob(".*.*"):
        with contextlib.suppress(FileNotFoundError):
            if remains.is_file() and time.time() - remains.stat().st_mtime >= older_s:
                remains.unlink()


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[int | None]:
    """Hold a file while no other process does: its descriptor, or None where another holds it for longer than a second.

    It is let go when every process that has the descriptor has ended, killed or not. Windows and some network disks
    have no such locks: nothing is held there, and the descriptor is -1.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a", encoding="utf-8") as file:
        for _ in range(20):  # `is_held` has it for an instant
            taken = _lock(file)
            if taken is not False:
                break
            time.sleep(0.05)
        yield {True: file.fileno(), False: None, None: -1}[taken]


def is_held(lock: Path) -> bool:
    """Whether a process holds the file with `alone`; asking keeps nobody from taking it."""
    if not lock.exists():
        return False
    with lock.open("a", encoding="utf-8") as file:
        return _lock(file, shared=True) is False


def _lock(file: IO, shared: bool = False) -> bool | None:
    """Lock an open file if no other process has: whether that worked, or None where there are no locks."""
    if os.name != "posix":
        return None
    import fcntl

    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        text = f"the disk of {Path(file.name).parent} has no locks ({error.strerror}); start one run at a time there"
        warnings.warn(text, stacklevel=2)
        return None
    return True


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, whole or not at all; a file that already says so is left alone."""
    if path.exists() and path.read_bytes() == text.encode():
        return
    with atomic_file(path) as temporary:
        temporary.write_bytes(text.encode())


def write_json(path: Path, value: dict) -> None:
    """Write a dictionary as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, default=str) + "\n")


def write_csv(path: Path, table: "pd.DataFrame") -> None:
    """Write a table without its index, whole or not at all."""
    buffer = io.StringIO()
    table.to_csv(buffer, index=False, lineterminator="\n")
    write_text(path, buffer.getvalue())


def read_csv(path: Path) -> "pd.DataFrame":
    """A table as `write_csv` wrote it: names of cases and patients are text, whatever they look like (`001`, `NA`)."""
    import pandas as pd

    names = dict.fromkeys(("case", "case_there", "patient", "model", "claim"), str)
    text = _whole_text(path)
    try:
        return pd.read_csv(io.StringIO(text), dtype=names, keep_default_na=False, na_values=[""])
    except pd.errors.ParserError:
        raise _damaged(path) from None


def _whole_text(path: Path) -> str:
    """Text that this package wrote; StudyError if it is empty, or not all of it is text."""
    text = path.read_bytes().decode(errors="replace")
    if not text.strip() or "\0" in text or "\ufffd" in text:
        raise _damaged(path)
    return text


def _damaged(path: Path) -> StudyError:
    return StudyError(f"{path} is cut off or damaged; copy it again, or run the study again")


def read_json(path: Path) -> dict:
    """What a JSON file holds; empty where there is none. Raises StudyError if it is cut off or damaged."""
    try:
        return json.loads(_whole_text(path)) if path.exists() else {}
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


@functools.cache  # what is imported stays as it is, whatever becomes of the files
def source_fingerprint(*modules: str) -> str:
    """sha256 of the package's own source: of the modules named, or of all of it, styles and templates included."""
    files = [PACKAGE / f"{name}.py" for name in modules]
    every = (path for path in sorted(PACKAGE.rglob("[!.]*")) if path.is_file() and path.parent.name != "__pycache__")
    return fingerprint_files(files or every)


def is_whole(record: Path) -> bool:
    """Whether `record` tells of finished work, all of whose files are still there, and none of them cut off."""
    told = _told(record)
    return bool(told) and all((record.parent / name).exists() for name in told["files"]) and not cut_off(record)


def cut_off(record: Path) -> list[Path]:
    """The files of finished work that hold fewer bytes than were written, as after a copy that was interrupted."""
    sizes = {
        Path(os.path.normpath(record.parent / name)): size for name, size in _told(record).get("bytes", {}).items()
    }
    return [file for file, size in sizes.items() if file.exists() and file.stat().st_size < size]


def _told(record: Path) -> dict:
    """What a record of finished work tells; nothing if it is cut off: the work is done again then."""
    with contextlib.suppress(StudyError):
        return read_json(record)
    return {}


def is_finished(record: Path, made_from: str) -> bool:
    """Whether `record` tells of whole work made from just this fingerprint."""
    return is_whole(record) and read_json(record)["made_from"] == made_from


def mark_finished(record: Path, made_from: str, files: Iterable[Path], **facts) -> None:
    """Record that `files` are complete, and by what code, packages and machine they were made.

    Written last, so that it never speaks of half a result.
    """
    sizes = {Path(os.path.relpath(file, record.parent)).as_posix(): file.stat().st_size for file in files}
    content = {"made_from": made_from, "files": list(sizes), "bytes": sizes, "provenance": provenance()} | facts
    write_json(record, content)


def costs_of(folder: Path) -> "pd.DataFrame":
    """What the finished notebooks of a study's folder have cost: step, and the columns of COSTS."""
    import pandas as pd

    told = [(file.stem, read_json(file)) for file in sorted((folder / "notebooks").glob("[0-9]*.json"))]
    rows = [(name, *(record[cost] for cost in COSTS)) for name, record in told if set(COSTS) <= set(record)]
    return pd.DataFrame(rows, columns=["step", *COSTS])


def provenance() -> dict:
    """What a result is made with, by the process that makes it: code, packages, hardware and system."""
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
    files = [*sorted(folder.glob("*/fit.json")), *sorted(folder.glob("*/predict.json")), folder / "scores.json"]
    recorded = {file.relative_to(folder).with_suffix("").as_posix(): read_json(file) for file in files}
    return {result: record["provenance"] for result, record in recorded.items() if "provenance" in record}


def one_or_each(values: dict[str, str]) -> str:
    """The value that all results share, or each value after the names of the results that have it; "" without any."""
    having: dict[str, list[str]] = {}
    for result, value in values.items():
        having.setdefault(value, []).append(result)
    if len(having) < 2:
        return next(iter(having), "")
    return "; ".join(f"{', '.join(results)}: {value}" for value, results in having.items())


@functools.cache  # as the source is
def _commit() -> str:
    """The commit of the code, `-dirty` behind it if files differ; `unknown` where the package is not in its own clone.

    A clone that merely lies inside of another repository has no commit there.
    """
    try:
        top = _git("rev-parse", "--show-toplevel")
        ours = top and Path(top).resolve() == PACKAGE.parent.resolve()
        return (ours and _git("describe", "--always", "--dirty", "--abbrev=40")) or "unknown"
    except FileNotFoundError:  # no git
        return "unknown"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=PACKAGE, capture_output=True, text=True).stdout.strip()
