"""The cells of grids on Dask: each one network of one study, as a notebook in a process of its own.

What is finished is read off the disk, by fingerprints, before and after; the scheduler remembers nothing that counts.
"""

import contextlib
import dataclasses
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import joblib
import pandas as pd
import psutil
from distributed import Client, Future, LocalCluster, get_worker, wait
from tqdm.auto import tqdm

from lumbar_utils import (
    MODELS,
    Failure,
    StudyError,
    captions,
    figures,
    pipeline,
    progress,
    records,
    report,
)
from lumbar_utils.datasets.folder import Cohort
from lumbar_utils.grid import Grid, describe, threads_of
from lumbar_utils.pipeline import Step, cells_of
from lumbar_utils.preparation import prepare

CELL = {"cell": 1}  # the resource that a worker offers, and a cell takes
KEPT = {"last": (), "best": ("last.ckpt",), "none": ("last.ckpt", "best.ckpt")}  # of checkpoints -> what is deleted
PATIENCE = 10.0  # seconds for a scheduler to answer, and for workers that are there to take cells
MEMORY_MB = 2500  # of a cell, before one was measured
PAUSE = 5.0  # seconds before a cell that another driver runs is asked after again


@dataclasses.dataclass(frozen=True)
class Engine:
    """Where cells run: on `workers` processes of this machine, or on those of a scheduler.

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
        room = int(psutil.virtual_memory().available / 1e6 / MEMORY_MB)
        workers = workers or max(1, min(gpus or cores, cells, room))
        return cls(workers, threads or max(1, cores // min(workers, cores)), scheduler, keep)

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        """A connection to the workers. Raises StudyError if no scheduler answers, or none of its workers takes cells.

        Where a scheduler has no worker yet, it waits for the first.
        """
        if self.scheduler:
            with _found(self.scheduler) as client:
                yield client
            return
        with (
            LocalCluster(
                n_workers=self.workers,
                threads_per_worker=1,
                resources=CELL,
                memory_limit=0,
                dashboard_address=":0",
                silence_logs="CRITICAL",
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client


@contextlib.contextmanager
def _found(scheduler: str) -> Iterator[Client]:
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


def slots(client: Client) -> int:
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
    with engine.client() as client:
        refuse_misfits(client, todo, cohorts)
        say(f"{slots(client)} at once, {engine.threads} threads each; dashboard: {client.dashboard_link}")
        code = records.source_fingerprint()
        return see_to_the_end(todo, client, lambda step, pause: (run_cell, step, engine, code, pause))


def see_to_the_end(todo: list[Step], client: Client, task: Callable[[Step, float], tuple]) -> list[str]:
    """Have workers do a task for each cell, in order, as many at once as they take; words on each that failed.

    task : cell, seconds to wait before -> function and its arguments.

    Few are with the scheduler at any time, so that workers which come or go change nothing but the pace. A cell that
    another driver runs goes back to the end of the queue.
    """
    waiting, open_, failed = [(step, 0.0) for step in todo], {}, []
    with tqdm(total=len(todo), desc="cells", unit="cell", smoothing=0) as bar:
        while waiting or open_:
            while waiting and len(open_) < slots(client):
                step, pause = waiting.pop(0)
                open_[client.submit(*task(step, pause), resources=CELL, retries=1, pure=False)] = step
            bar.set_postfix(running=len(open_), failed=len(failed))
            if not open_:  # no worker is there: one may come, from a queue say
                time.sleep(1)
            for future in _done(open_):
                step = open_.pop(future)
                if future.status == "finished" and future.result() == "elsewhere":
                    waiting.append((step, PAUSE))
                    continue
                if future.status != "finished":
                    failed.append(_recorded(step, future.exception()))
                    tqdm.write(f"failed: {failed[-1]}")
                bar.update()
        bar.set_postfix(running=0, failed=len(failed))
    return failed


def _done(open_: dict[Future, Step]) -> list[Future]:
    """Those that have ended, after a second at most."""
    with contextlib.suppress(TimeoutError):
        wait(list(open_), timeout=1, return_when="FIRST_COMPLETED")
    return [future for future in open_ if future.done()]


def run_cell(step: Step, engine: Engine, code: str, pause: float = 0) -> str:
    """In a worker: execute a cell's notebook; `finished`, or `elsewhere` where another process is at it just now.

    code : the driver's fingerprint of the package. pause : seconds before it begins.
    """
    time.sleep(pause)
    _refuse_other_code(code)
    with records.alone(step.file(".lock")) as held:
        if held is None:
            return "elsewhere"
        cohort = prepare(step.study)
        if not step.is_finished(cohort.fingerprint):
            os.environ.update(_surroundings(engine))
            _attempt(step, cohort, held)
        for name in KEPT[engine.keep]:
            (step.study.folder / step.model / "checkpoints" / name).unlink(missing_ok=True)
    return "finished"


def _attempt(step: Step, cohort: Cohort, held: int) -> None:
    """Execute once, with a log beside the executed copy; what goes wrong is put on record there."""
    step.file(".error.json").unlink(missing_ok=True)
    with step.file(".log").open("a") as log:

        def say(line: str) -> None:
            print(time.strftime("%H:%M:%S"), line, file=log, flush=True)

        say(f"begins in process {os.getpid()}")
        try:
            say(f"done in {pipeline.do(step, cohort, say, held):.0f} s")
        except Failure as failure:
            say(str(failure))
            raise RuntimeError(_recorded(step, failure)) from None


def _surroundings(engine: Engine) -> dict[str, str]:
    """Environment of a cell's kernel: its threads, and of several GPUs the one that is this worker's."""
    there = {"OMP_NUM_THREADS": str(engine.threads), "MKL_NUM_THREADS": str(engine.threads)}
    import torch

    gpus = torch.cuda.device_count()
    if engine.scheduler or gpus < 2:
        return there
    seen = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(gpus)))
    return there | {"CUDA_VISIBLE_DEVICES": seen.split(",")[get_worker().name % gpus]}


def _recorded(step: Step, error: Exception) -> str:
    """Words on a cell that failed; kept beside its executed copy, if they are not there already."""
    file, words = step.file(".error.json"), f"{step.study.folder.name}: {error}"
    if not file.exists():
        records.write_json(file, {"error": str(error), "executed": str(step.file(".ipynb"))})
    return words


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


def refuse_misfits(client: Client, todo: list[Step], cohorts: dict[Path, Cohort]) -> None:
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
