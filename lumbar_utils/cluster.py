"""The cells of grids, several at once: each one network of one study, as a notebook in a process of its own.

On one machine threads wait for them; with `--scheduler`, workers of Dask do. What is finished is read off the disk, by
fingerprints, before and after; no queue remembers anything that counts.
"""

import contextlib
import dataclasses
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING

import joblib
import pandas as pd
import psutil
from tqdm.auto import tqdm

from lumbar_utils import MODELS, Failure, StudyError, execution, pipeline, progress, records
from lumbar_utils.data.folder import Cohort
from lumbar_utils.data.preparation import prepare
from lumbar_utils.grid import Grid, describe, threads_of
from lumbar_utils.networks.devices import device_of
from lumbar_utils.output import captions, figures, report
from lumbar_utils.pipeline import Step, cells_of

if TYPE_CHECKING:
    from distributed import Client

CELL = {"cell": 1}  # the resource that a worker offers, and a cell takes
KEPT = {"last": (), "best": ("last.ckpt",), "none": ("last.ckpt", "best.ckpt")}  # of checkpoints -> what is deleted
TRIES = 2  # of a cell that fails
PATIENCE = 10.0  # seconds for a scheduler to answer, and for workers that are there to take cells
PAUSE = 5.0  # seconds before a cell that another driver runs is asked after again


@dataclasses.dataclass(frozen=True)
class Engine:
    """Where cells run: `workers` at once on this machine, or on the workers of a scheduler.

    scheduler : its address, or a file that it wrote; "" for this machine. threads : of each cell; results depend on
    them in late decimals. keep : of KEPT, which checkpoints stay once a cell is finished.
    """

    workers: int
    threads: int
    scheduler: str = ""
    keep: str = "best"

    @classmethod
    def of(cls, cells: int, workers: int = 0, threads: int = 0, scheduler: str = "", keep: str = "best") -> "Engine":
        """With what is not given sized to this machine: a cell a GPU, else a cell a core as far as memory goes.

        Of a scheduler's workers nothing is known: a thread a cell.
        """
        import torch

        if keep not in KEPT:
            raise StudyError(f"keep={keep!r} is unknown; use {', '.join(KEPT)}")
        if scheduler:
            return cls(workers or 1, threads or 1, scheduler, keep)
        cores, gpus = joblib.cpu_count(), torch.cuda.device_count()
        room = int(psutil.virtual_memory().available / 1e6 / pipeline.MEMORY_MB)
        workers = workers or max(1, min(gpus or cores, cells, room))
        return cls(workers, threads or max(1, cores // min(workers, cores)), scheduler, keep)


@contextlib.contextmanager
def _found(scheduler: str) -> Iterator["Client"]:
    """A connection to a scheduler's workers. Raises StudyError if it does not answer, or none of them takes cells.

    Where it has no worker yet, it waits for the first.
    """
    from distributed import Client  # takes a second

    named = {"scheduler_file": scheduler} if Path(scheduler).is_file() else {"address": scheduler}
    try:
        client = Client(timeout=PATIENCE, **named)
    except (OSError, ValueError, TimeoutError) as error:
        raise StudyError(
            f"no Dask scheduler answers at {scheduler} ({error}); start one with `dask scheduler`, or "
            "leave --scheduler out"
        ) from None
    with client:
        until = time.monotonic() + PATIENCE
        while not slots(client):  # where there is none at all, jobs may be in a queue
            if time.monotonic() > until and client.scheduler_info(n_workers=-1)["workers"]:
                raise StudyError(
                    f"the scheduler at {scheduler} has no worker that takes cells; start some with "
                    "`dask worker ADDRESS --nthreads 1 --resources cell=1`"
                )
            time.sleep(0.5)
        yield client


def slots(client: "Client") -> int:
    """How many cells the workers that are there take at once."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return int(sum(worker["resources"].get("cell", 0) for worker in workers))


def run(
    grids: list[Grid],
    engine: Engine | None = None,
    models: tuple[str, ...] = tuple(MODELS),
    say: Callable[[str], None] = print,
) -> list[str]:
    """Run the cells that are not finished, then notebook 05 and the report of each grid; returns words on each failure.

    engine : None for this machine, as many cells at once as it bears. Shows how far it is, in a notebook too. Raises
    StudyError before any training where data, folders or workers do not fit.
    """
    steps = [step for grid in grids for step in cells_of(grid, models)]
    engine = engine or Engine.of(len(steps), threads=threads_of(grids))
    if not engine.scheduler:
        device_of(grids[0].study)  # or is refused
    cohorts = {step.study.folder: prepare(step.study) for step in steps}
    for grid in grids:
        describe(grid, threads=engine.threads, models=list(models))
    todo = [step for step in steps if not step.is_finished(cohorts[step.study.folder].fingerprint)]
    say(f"{len(steps)} cells, {len(steps) - len(todo)} finished; {len(todo)} to run")
    failed = _work(todo, cohorts, engine, say) if todo else []
    for grid in grids:
        failed += _conclude(grid, cohorts[grid.study.folder], models, say)
    return failed


def _work(todo: list[Step], cohorts: dict[Path, Cohort], engine: Engine, say: Callable[[str], None]) -> list[str]:
    code, each = records.source_fingerprint(), f"at once, {engine.threads} threads each"

    def task(step: Step, pause: float) -> tuple:
        return run_cell, step, engine, code, pause

    if not engine.scheduler:  # threads that wait for kernels: no port is open, that others could reach
        say(f"{engine.workers} {each}")
        with futures.ThreadPoolExecutor(engine.workers, thread_name_prefix="worker") as threads:
            return see_to_the_end(todo, threads, lambda: engine.workers, task)
    with _found(engine.scheduler) as client:
        refuse_misfits(client, todo, cohorts)
        say(f"{slots(client)} {each}; dashboard: {client.dashboard_link}")
        return see_to_the_end(todo, client.get_executor(resources=CELL, pure=False), lambda: slots(client), task)


def see_to_the_end(
    todo: list[Step], pool: futures.Executor, at_once: Callable[[], int], task: Callable[[Step, float], tuple]
) -> list[str]:
    """Have a pool do a task for each cell, in order, as many at once as it takes; words on each that failed.

    at_once : how many that are, which may change. task : cell, seconds to wait before -> function and its arguments.

    No more than these are with the pool at any time, so that workers may come and go. A cell that another driver runs
    goes back to the end of the queue; one that fails is tried again.
    """
    waiting, open_, failed = [(step, 0.0, TRIES) for step in todo], {}, []
    with tqdm(total=len(todo), desc="cells", unit="cell", smoothing=0) as bar, execution.ended(open_):
        while waiting or open_:
            while waiting and len(open_) < at_once():
                step, pause, tries = waiting.pop(0)
                open_[pool.submit(*task(step, pause))] = step, tries
            bar.set_postfix(running=len(open_), failed=len(failed))
            if not open_:  # no worker is there: one may come, from a queue say
                time.sleep(1)
            for future in futures.wait(open_, timeout=1, return_when="FIRST_COMPLETED").done:
                step, tries = open_.pop(future)
                error = futures.CancelledError("it was cancelled") if future.cancelled() else future.exception()
                if not error and future.result() == "elsewhere":
                    waiting.append((step, PAUSE, tries))
                    continue
                if error and tries > 1:
                    waiting.insert(0, (step, 0.0, tries - 1))
                    continue
                if error:
                    failed.append(_recorded(step, error))
                    tqdm.write(f"failed: {failed[-1]}")
                bar.update()
        bar.set_postfix(running=0, failed=len(failed))
    return failed


def run_cell(step: Step, engine: Engine, code: str, pause: float = 0) -> str:
    """Execute a cell's notebook; returns `finished`, or `elsewhere` where another process is at it just now.

    code : the driver's fingerprint of the package. pause : seconds before it begins.
    """
    time.sleep(pause)
    _refuse_other_code(code)
    with records.alone(step.file(".lock")) as held:
        if held is None:
            return "elsewhere"
        cohort = prepare(step.study)
        if not step.is_finished(cohort.fingerprint):
            _attempt(step, cohort, held, _surroundings(engine))
        for name in KEPT[engine.keep]:
            (step.study.folder / step.model / "checkpoints" / name).unlink(missing_ok=True)
    return "finished"


def _attempt(step: Step, cohort: Cohort, held: int, environment: dict[str, str]) -> None:
    """Execute once, with a log beside the executed copy."""
    step.file(".error.json").unlink(missing_ok=True)
    with step.file(".log").open("a", encoding="utf-8") as log:

        def say(line: str) -> None:
            print(time.strftime("%H:%M:%S"), line, file=log, flush=True)

        say(f"begins in process {os.getpid()}")
        try:
            say(f"done in {pipeline.do(step, cohort, say, held, environment):.0f} s")
        except Failure as failure:
            say(str(failure))
            raise RuntimeError(str(failure)) from None  # a Failure cannot be pickled


def _surroundings(engine: Engine) -> dict[str, str]:
    """Environment of a cell's kernel: its threads, and of several GPUs the one that is this thread's."""
    there = execution.with_threads(engine.threads)
    import torch

    gpus = torch.cuda.device_count()
    if engine.scheduler or gpus < 2:
        return there
    seen = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(gpus)))
    return there | {"CUDA_VISIBLE_DEVICES": seen.split(",")[_thread() % gpus]}


def _thread() -> int:
    """Number of this thread of a pool, from 0 on."""
    return int(threading.current_thread().name.rpartition("_")[2])


def _recorded(step: Step, error: BaseException) -> str:
    """Words on a cell that failed, kept beside its executed copy."""
    records.write_json(step.file(".error.json"), {"error": str(error), "executed": str(step.file(".ipynb"))})
    return f"{step.study.folder.name}: {error}"


def _refuse_other_code(code: str) -> None:
    if records.source_fingerprint() != code:
        raise StudyError("the worker has another version of lumbar_utils; give it the driver's and start it again")


def _misfit(code: str, files: list[str], probes: list[str]) -> str:
    """In a worker: what keeps it from working on cells; "" where nothing does."""
    try:
        _refuse_other_code(code)
        records.refuse_unwritable(*(Path(probe).parent for probe in probes))
    except StudyError as error:
        return str(error)
    absent = [file for file in [*files, *probes] if not Path(file).exists()]
    return f"it does not see {absent[0]}; share that folder, under the same path" if absent else ""


def refuse_misfits(client: "Client", todo: list[Step], cohorts: dict[Path, Cohort]) -> None:
    """Raise StudyError if a worker lacks the package, has another version, or does not see data and folders."""
    folders = {step.study.folder for step in todo}
    probes = [folder / f".probe-{uuid.uuid4().hex}" for folder in sorted({folder.parent for folder in folders})]
    data = sorted({str(cohorts[folder].folder / "cases.csv") for folder in folders})
    for probe in probes:
        probe.touch()
    try:
        found = client.run(_misfit, records.source_fingerprint(), data, list(map(str, probes)), on_error="return")
    finally:
        for probe in probes:
            probe.unlink(missing_ok=True)
    for worker, problem in found.items():
        if isinstance(problem, Exception):
            problem = f"it cannot load lumbar_utils ({type(problem).__name__}: {problem}); install it there"
        if problem:
            raise StudyError(f"worker {worker} cannot take cells: {problem}")


def _conclude(grid: Grid, cohort: Cohort, models: tuple[str, ...], say: Callable[[str], None]) -> list[str]:
    """Notebook 05 over all that is finished, and the report: by one driver at a time; words on a failure."""
    step = Step(grid, pipeline.notebooks(["05"])[0])
    while True:
        with records.alone(step.file(".lock")) as held:
            if held is not None:
                failed = _compare(step, cohort, progress.cells(cells_of(grid, models)), held, say)
                report.write(grid.folder)
                return failed
        say(f"{step.name}: another driver runs it; waiting")
        time.sleep(PAUSE)


def _compare(step: Step, cohort: Cohort, cells: pd.DataFrame, held: int, say: Callable[[str], None]) -> list[str]:
    folder = step.study.folder
    records.write_csv(folder / "cells.csv", cells)
    figures.save(figures.grid_overview(cells, cohort.note), folder / "figures", "grid", captions.grid(cells))
    if cells.loc[(cells["state"] == "finished") & (cells["model"] != ""), "model"].nunique() < 2:
        say(f"{step.name}: left out, as a comparison takes two networks that are finished")
    elif step.is_finished(cohort.fingerprint):
        say(f"{step.name}: up to date")
    else:
        say(f"{step.name}: running -> {folder}")
        try:
            pipeline.do(step, cohort, say, held)
        except Failure as failure:
            return [str(failure)]
    return []
