"""A study killed at random moments, started again each time, and compared bit by bit with an undisturbed one.

    python tests/kills.py FOLDER [--kills 20] [--seed 0] [--model efficientnet]    training and predicting
    python tests/kills.py FOLDER --notebooks [--kills 3]    the whole study, through its notebooks

Each kill is a SIGKILL to the whole process group, at a moment drawn from the length of the undisturbed run; each third
one then waits for a moment that is rarely hit: a checkpoint being written, or the end of a notebook. A run that comes
to its end is compared and a new one begun, until there were enough kills. FOLDER gets kills.csv, or notebooks.csv;
exit code 1 if a bit differs. POSIX only.
"""

import argparse
import contextlib
import hashlib
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import torch

from lumbar_utils import records
from lumbar_utils.networks.checkpoints import read_checkpoint
from lumbar_utils.study import Study

# children are forked off a process that has imported already, so that a kill's moment falls into work
CHILDREN = multiprocessing.get_context("forkserver")
CHILDREN.set_forkserver_preload(
    ["lumbar_utils.data.preparation", "lumbar_utils.networks.prediction", "lumbar_utils.networks.training"]
)
# of a checkpoint, what can change a result
STATE = (
    "epoch",
    "state_dict",
    "history",
    "optimizer_states",
    "lr_schedulers",
    "current_model_state",
    "averaging_state",
)
WITHOUT_TIMES = ("*.ckpt", "*.csv", "*.png", "*.npz", "*.pdf", "*.svg", "*.tex", "*.md")


def bits(folder: Path) -> dict[str, str]:
    """File -> digest, for every result in a study's folder; seconds are left out of histories."""
    files = sorted(path for kind in WITHOUT_TIMES for path in folder.rglob(kind) if not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): digest(path) for path in files}


def digest(path: Path) -> str:
    """Of a checkpoint the tensors and numbers that can change a result, of a history all but its seconds."""
    if path.suffix == ".ckpt":
        checkpoint = read_checkpoint(path)
        return _digest({name: checkpoint[name] for name in STATE if name in checkpoint})
    if path.name == "history.csv":
        return _digest(pd.read_csv(path).to_dict())
    return records.fingerprint_files([path])


def _digest(value) -> str:
    if isinstance(value, torch.Tensor):
        return hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()
    if isinstance(value, dict):
        return records.fingerprint({str(name): _digest(part) for name, part in value.items() if name != "seconds"})
    return records.fingerprint([_digest(part) for part in value] if isinstance(value, list | tuple) else value)


def start(work: Callable, *arguments) -> multiprocessing.Process:
    """Begin work(*arguments) in a process, and a process group, of its own; `work` is a function of a module."""
    process = CHILDREN.Process(target=_in_a_group, args=(work, *arguments))
    process.start()
    return process


def _in_a_group(work: Callable, log: Path, *arguments) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and their children
    multiprocessing.set_start_method("fork", force=True)  # what loaders start begins as it would in any other process
    log.parent.mkdir(parents=True, exist_ok=True)
    for stream in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    work(*arguments)


def prepare_alone(study: Study) -> None:
    from lumbar_utils.data.preparation import prepare

    prepare(study)


def train_and_predict(study: Study, model: str) -> None:
    from lumbar_utils.data.preparation import prepare
    from lumbar_utils.networks.prediction import predict
    from lumbar_utils.networks.training import fit

    cohort = prepare(study)
    fit(study, cohort, model)
    predict(study, cohort, model)


def run_notebooks(study: Study) -> None:
    settings = (
        "--profile",
        study.profile,
        "--runs",
        study.runs,
        "--set",
        f"cache={study.cache}",
        "--set",
        "device=cpu",
    )
    os.execv(sys.executable, [sys.executable, "-m", "lumbar_utils", "run", *map(str, settings)])


def signalled(
    process: multiprocessing.Process, when: Callable[[], bool], number: int = signal.SIGKILL
) -> list[psutil.Process] | None:
    """Send a signal to the process's whole group as soon as `when()`; None if the process came to its end before.

    Returns the processes that it had started, in its group or not.
    """
    while not when():
        process.join(0.005)
        if not process.is_alive():
            if process.exitcode:
                raise RuntimeError(f"a run ended by itself with exit code {process.exitcode}; see its log")
            return None
    started = []
    with contextlib.suppress(
        psutil.NoSuchProcess, ProcessLookupError
    ):  # over already, or so young that it has no group
        started = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, number)
    if number == signal.SIGKILL:
        process.kill()
    process.join()
    return started


def never() -> bool:
    return False


def after(seconds: float, then: Callable[[], bool] = lambda: True) -> Callable[[], bool]:
    """A moment: so many seconds from now, and `then()`."""
    moment = time.monotonic() + seconds
    return lambda: time.monotonic() >= moment and then()


def remains(folder: Path) -> set[str]:
    """Names of files that are being written, or were when their writer was killed."""
    return {path.name for path in folder.rglob(".*.*")}


def of_checkpoints(names: set[str]) -> bool:
    return any(name.endswith(".ckpt") for name in names)


class Training:
    """Training and predicting with one model, begun in a folder, and seen from outside by the files it makes."""

    def __init__(self, folder: Path, cache: Path, model: str = "efficientnet", **settings):
        self.study = Study("smoke", runs=folder / "runs", cache=cache, device="cpu", **settings)
        self.model, self.log, self.folder = model, folder / "log.txt", self.study.folder / model
        self.last = self.folder / "checkpoints" / "last.ckpt"

    def start(self) -> multiprocessing.Process:
        self.before = remains(self.study.folder)
        return start(train_and_predict, self.log, self.study, self.model)

    def epochs(self) -> int:
        """Rows of the history."""
        history = self.folder / "history.csv"
        return len(pd.read_csv(history)) if history.exists() else 0

    def rare(self) -> bool:
        return of_checkpoints(remains(self.folder) - self.before)

    def doing(self) -> str:
        """What was going on when it was killed."""
        half_written = sorted(remains(self.study.folder) - self.before)
        if half_written:
            return f"writing {half_written[0][1:].rsplit('.', 2)[0]}"
        if (self.folder / "predict.json").exists():
            return "ending"
        if (self.folder / "fit.json").exists():
            return "predicting"
        if self.epochs() == self.study.epochs:
            return "ending the training"
        return f"epoch {self.epochs() + 1}" if self.folder.exists() else "preparing"

    def kept(self) -> dict[str, str]:
        """What a restart resumes from -> its digest."""
        if not self.last.exists():
            return {}
        return {f"epoch {read_checkpoint(self.last)['epoch'] + 1}": digest(self.last)}


class Notebooks(Training):
    """The five notebooks, as `python -m lumbar_utils run` runs them."""

    def start(self) -> multiprocessing.Process:
        self.printed = len(self.lines())
        return start(run_notebooks, self.log, self.study)

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def rare(self) -> bool:
        """Whether the newest line says that a notebook is done."""
        lines = self.lines()[self.printed :]
        return bool(lines) and ": done in" in lines[-1]

    def doing(self) -> str:
        lines = self.lines()[self.printed :]
        return lines[-1].strip().split(", ")[0] if lines else "starting"

    def kept(self) -> dict[str, str]:
        return {path.parts[-3]: digest(path) for path in sorted(self.study.folder.glob("*/checkpoints/last.ckpt"))}


def undisturbed(run: Training) -> tuple[float, dict[str, set[str]], dict[str, str]]:
    """Seconds that a run takes, the digests of all it kept on its way (a model or an epoch each), and its bits."""
    states = run.study.runs.parent / "states"
    states.mkdir(parents=True)
    signalled(start(prepare_alone, run.log, run.study), never)  # imports and phantoms, which later runs find there
    shutil.rmtree(run.study.runs)

    def collect() -> bool:
        for last in run.study.folder.glob("*/checkpoints/last.ckpt"):
            with contextlib.suppress(FileExistsError):
                os.link(last, states / f"{last.parts[-3]}-{last.stat().st_ino}.ckpt")
        return False

    started = time.monotonic()
    signalled(run.start(), collect)
    seconds = time.monotonic() - started
    return seconds, {digest(path) for path in states.iterdir()}, bits(run.study.folder)


def kill_again_and_again(begin: Callable[[Path], Training], folder: Path, kills: int, seed: int) -> pd.DataFrame:
    """One row a kill: run, moment_s, doing, kept, kept_equal, orphans_s, and end_equal of the run it was in."""
    draw = np.random.default_rng(seed)
    seconds, states, expected = undisturbed(begin(folder / "undisturbed"))
    print(f"undisturbed: {seconds:.0f} s, {len(expected)} files, {len(states)} states", flush=True)
    rows, number = [], 0
    while len(rows) < kills:
        number += 1
        run, first = begin(folder / f"run{number}"), len(rows)
        while len(rows) < kills:
            process, began, moment = run.start(), time.monotonic(), draw.uniform(0, seconds)
            orphans = signalled(process, after(moment, run.rare if len(rows) % 3 == 2 else lambda: True))
            if orphans is None:
                break
            kept, moment = run.kept(), time.monotonic() - began
            rows.append({
                "kill": len(rows) + 1, "run": number, "moment_s": round(moment, 2), "doing": run.doing(),
                "kept": ", ".join(kept) or "nothing", "kept_equal": set(kept.values()) <= states,
                "orphans_s": outlived(orphans),
            })  # fmt: skip
            print(rows[-1], flush=True)
        signalled(run.start(), never)
        found = bits(run.study.folder)
        differ = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        print(f"run {number}: {len(expected) - len(differ)} files equal, differing: {differ or 'none'}", flush=True)
        for row in rows[first:]:
            row["end_equal"] = not differ
        shutil.rmtree(run.study.runs.parent)
    return pd.DataFrame(rows)


def outlived(processes: list[psutil.Process]) -> float:
    """Seconds that processes go on after those that started them were killed, at most 60."""
    began = time.monotonic()
    psutil.wait_procs(processes, timeout=60)
    return round(time.monotonic() - began, 1) if processes else 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="efficientnet")
    parser.add_argument("--notebooks", action="store_true")
    given = parser.parse_args()
    folder = given.folder.resolve()

    def begin(place: Path) -> Training:
        shutil.rmtree(place, ignore_errors=True)
        if given.notebooks:
            return Notebooks(place, folder / "cache")
        return Training(place, folder / "cache", given.model, epochs=6)

    table = kill_again_and_again(begin, folder, given.kills or (3 if given.notebooks else 20), given.seed)
    table.to_csv(folder / ("notebooks.csv" if given.notebooks else "kills.csv"), index=False)
    print(table.to_string(index=False))
    return 0 if table[["kept_equal", "end_equal"]].all(axis=None) else 1


if __name__ == "__main__":
    sys.exit(main())
