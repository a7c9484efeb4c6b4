"""Runs the notebooks in order with papermill: only what is missing or stale, and a short word on what fails."""

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import papermill
from jupyter_client import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from lumbar_utils import Failure, StudyError, records, report
from lumbar_utils.datasets.folder import Cohort
from lumbar_utils.external import add_all
from lumbar_utils.preparation import prepare
from lumbar_utils.study import ROOT, Study

NOTEBOOKS = ROOT / "notebooks"
# files of earlier notebooks, in the study
MADE_HERE = ("notebooks", "record", "report.html")  # by this module, and by no notebook
READS = {"05_evaluate_and_compare": ("*/label_maps/*", "*/history.csv", "*/robustness.csv", "*/cost.csv")}


class PrivateKernel(AsyncKernelManager):
    """A kernel spoken to through socket files of its own: no port that another kernel takes or another user hears."""

    def __init__(self, **settings):
        super().__init__(**settings)
        if os.name == "posix":  # elsewhere Jupyter's own choice
            self._sockets = tempfile.TemporaryDirectory(prefix="kernel-", ignore_cleanup_errors=True)
            self.transport, self.ip = "ipc", f"{self._sockets.name}/socket"

    async def start_kernel(self, **settings):
        """Start it deaf to the terminal: what a cell writes comes through a socket; the rest is of the kernel's end."""
        await super().start_kernel(stderr=subprocess.DEVNULL, **settings)


def notebooks(only: Sequence[str] = ()) -> list[Path]:
    """The study's notebooks in order, or those whose names begin with one of `only` ("05", "02_train")."""
    every = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    for wanted in only:
        if not any(path.name.startswith(wanted) for path in every):
            raise StudyError(f"no notebook begins with {wanted!r}; there are {', '.join(path.stem for path in every)}")
    return [path for path in every if not only or path.name.startswith(tuple(only))]


def parameters(study: Study) -> dict:
    """The study as the plain values that a notebook's parameters cell holds."""
    given = study.settings
    named = {name: given[name] for name in ("profile", "dataset", "seed", "runs")}
    usual = Study(profile=study.profile).settings
    return named | {
        "overrides": {key: value for key, value in given.items() if key not in named and value != usual[key]}
    }


def run(
    study: Study, only: Sequence[str] = (), say: Callable[[str], None] = print, others: dict[str, Path] | None = None
) -> None:
    """Execute the notebooks in order, then write the report; a notebook that is up to date is left alone, and named.

    others : name -> folder of another tool's label maps, a further column of the comparison: see `external.add`.
    Raises Failure at the first notebook that fails, and StudyError on input that cannot be used.
    """
    chosen = notebooks(only)
    cohort = prepare(study)
    add_all(study, cohort, others or {})
    say(f"{cohort.name}: {len(cohort.cases)} images of {cohort.cases['patient'].nunique()} patients -> {study.folder}")
    for path in chosen:
        record = study.folder / "notebooks" / f"{path.stem}.json"
        if records.is_finished(record, _made_from(path, study, cohort)):
            say(f"{path.stem}: up to date")
            continue
        record.unlink(missing_ok=True)
        say(f"{path.stem}: running")
        started = time.monotonic()
        try:
            executed = execute(path, study, say)
        except Failure:
            report.write(study.folder)  # or an earlier one would go on telling of a study without a fault
            raise
        seconds = round(time.monotonic() - started, 1)
        records.mark_finished(record, _made_from(path, study, cohort), [executed, *_made(study)], seconds=seconds)
        say(f"{path.stem}: done in {seconds:.0f} s")
    report.write(study.folder)


def _made_from(path: Path, study: Study, cohort: Cohort) -> str:
    """What an executed notebook depends on: itself, the package, the study, the data, and what it reads."""
    read = sorted(file for pattern in READS.get(path.stem, ()) for file in study.folder.glob(pattern))
    return records.fingerprint(
        study.fingerprint, cohort.fingerprint, records.source_fingerprint(), records.fingerprint_files([path, *read])
    )


def _made(study: Study) -> list[Path]:
    """The study's files up to now; when one of them is deleted, the notebook that made it runs again."""
    files = (path.relative_to(study.folder) for path in sorted(study.folder.rglob("*")) if path.is_file())
    kept = [path for path in files if not path.name.startswith(".") and path.parts[0] not in MADE_HERE]
    return [study.folder / path for path in kept if path.name != "last.ckpt"]


def execute(path: Path, study: Study, say: Callable[[str], None] = print) -> Path:
    """Execute one notebook into the study's folder, telling of each epoch; returns the executed copy.

    Raises Failure; what the notebook had finished stays, and the next run goes on from there.
    """
    executed = study.folder / "notebooks" / path.name
    executed.parent.mkdir(parents=True, exist_ok=True)
    with _Epochs(study, say):
        try:
            papermill.execute_notebook(
                path, executed, parameters(study), cwd=path.parent, kernel_name="python3", progress_bar=False,
                kernel_manager_class=PrivateKernel,
            )  # fmt: skip
        except PapermillExecutionError as error:
            raise Failure(
                path.stem, f"in cell {error.exec_count}", f"{error.ename}: {error.evalue}", executed
            ) from None
        except DeadKernelError:
            raise Failure(path.stem, "as its kernel died", "out of memory, perhaps; run again", executed) from None
    return executed


class _Epochs:
    """Says each epoch that appears in the study's histories while a notebook runs."""

    def __init__(self, study: Study, say: Callable[[str], None]):
        self.folder, self.say, self.over = study.folder, say, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def _rows(self) -> list:
        return [row for file in self.folder.glob("*/history.csv") for row in pd.read_csv(file).itertuples()]

    def _watch(self) -> None:
        seen = {(row.model, row.epoch) for row in self._rows()}
        while not self.over.wait(1):
            for row in self._rows():
                if (row.model, row.epoch) not in seen:
                    seen.add((row.model, row.epoch))
                    self.say(f"    {row.model} epoch {row.epoch}: validation F1 {row.val_f1:.3f}, {row.seconds:.0f} s")
