"""The jobs of grids, several at once: in threads that wait for kernels of this machine, or on workers of Dask.

What is finished is read from the jobs' records, by fingerprints, before and after; no queue remembers it.
"""

import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING

import joblib
from tqdm.auto import tqdm

from lumbar_utils import MODELS, Failure, StudyError, execution, pipeline, records
from lumbar_utils.data.folder import Cohort
from lumbar_utils.data.preparation import prepare
from lumbar_utils.grid import describe, threads_of
from lumbar_utils.machine import device_of
from lumbar_utils.output import figures, report
from lumbar_utils.pipeline import Job, jobs_of, table_of
from lumbar_utils.study import Grid

if TYPE_CHECKING:
    from distributed import Client

SLOT = {"cell": 1}  # the resource that a worker of Dask offers for each job that it takes at once
DELETED = {"last": (), "best": ("last.ckpt",), "none": ("last.ckpt", "best.ckpt")}  # checkpoints, by what is kept
TRIES = 2  # of a job that fails
PATIENCE_S = 10.0  # for a scheduler to answer, and for its workers to take jobs
PAUSE_S = 5.0  # before a job that another driver runs is looked at again
ELSEWHERE = "elsewhere"


@dataclasses.dataclass(frozen=True)
class Resources:
    """Where jobs run: `workers` at once on this machine, or as many as the workers of a scheduler take.

    scheduler : its address, or a file that it wrote; "" for this machine. threads : of each job; results depend on
    them in late decimals. keep : which checkpoints stay when a job is finished, a key of DELETED.
    """

    workers: int
    threads: int
    scheduler: str = ""
    keep: str = "best"

    @classmethod
    def of(cls, jobs: int, workers: int = 0, threads: int = 0, scheduler: str = "", keep: str = "best") -> "Resources":
        """With 0 replaced by what fits this machine: a job per GPU, else a job per core as far as memory goes.

        Nothing is known about a scheduler's workers: there it is a thread per job.
        """
        if scheduler:
            return cls(workers or 1, threads or 1, scheduler, keep)
        import torch

        cores, gpus = joblib.cpu_count(), torch.cuda.device_count()
        workers = workers or min(gpus or cores, jobs, pipeline.trainings_in_memory())
        return cls(workers, threads or max(1, cores // workers), scheduler, keep)


def run(
    grids: list[Grid],
    resources: Resources | None = None,
    models: Sequence[str] = tuple(MODELS),
    say: Callable[[str], None] = print,
) -> list[str]:
    """Run the jobs that are not finished, then notebooks 05 and 06 and the report; a message per failure.

    resources : None for as many jobs at once on this machine as it has room for. Shows its progress, in a notebook too.
    Raises StudyError before any training if data, folders or workers cannot be used.
    """
    jobs = [job for grid in grids for job in jobs_of(grid, models)]
    resources = resources or Resources.of(len(jobs), threads=threads_of(grids))
    if not resources.scheduler:
        device_of(grids[0].study)  # refuses a device that is not here
    cohorts = {job.study.folder: prepare(job.study) for job in jobs}
    for grid in grids:
        describe(grid, threads=resources.threads, models=list(models))
    todo = [job for job in jobs if not job.is_finished(cohorts[job.study.folder].fingerprint)]
    say(f"{len(jobs)} jobs, {len(jobs) - len(todo)} finished; {len(todo)} to run")
    failures = train(todo, resources, say) if todo else []
    for grid in grids:
        failures += _compare_networks(grid, cohorts[grid.study.folder], models, say)
    return failures


def train(todo: list[Job], resources: Resources, say: Callable[[str], None]) -> list[str]:
    """Run jobs until each is finished or has failed; returns a message per failure. Their data must be prepared."""
    code, how = records.source_fingerprint(), f"at once, {resources.threads} threads each"

    def task(job: Job, pause_s: float) -> tuple:
        return run_in_worker, job, resources, code, pause_s

    if not resources.scheduler:  # no port is opened that others could reach
        say(f"{resources.workers} {how}")
        with futures.ThreadPoolExecutor(resources.workers, thread_name_prefix="worker") as pool:
            return run_all(todo, pool, lambda: resources.workers, task)
    with _connection(resources.scheduler) as client:
        say(f"{slots(client)} {how}; dashboard: {client.dashboard_link}")
        return run_all(todo, client.get_executor(resources=SLOT, pure=False), lambda: slots(client), task)


def run_all(
    todo: list[Job], pool: futures.Executor, at_once: Callable[[], int], task: Callable[[Job, float], tuple]
) -> list[str]:
    """Give jobs to a pool in their order until each is finished or has failed; returns a message per failure.

    at_once : how many the pool runs, which may change; it is never given more, so that workers may come and go.
    task : job, seconds to wait before it starts -> function and its arguments.
    """
    waiting, failures = [(job, 0.0) for job in todo], []
    running: dict[futures.Future, Job] = {}
    with tqdm(total=len(todo), desc="jobs", unit="job", smoothing=0) as bar, execution.end_kernels_after(running):
        while waiting or running:
            while waiting and len(running) < at_once():
                job, pause_s = waiting.pop(0)
                running[pool.submit(*task(job, pause_s))] = job
            bar.set_postfix(running=len(running), failed=len(failures))
            if not running:  # until a worker comes, from a cluster's queue for instance
                time.sleep(1)
            for future in futures.wait(running, timeout=1, return_when="FIRST_COMPLETED").done:
                job = running.pop(future)
                error = futures.CancelledError("it was cancelled") if future.cancelled() else future.exception()
                if error is None and future.result() == ELSEWHERE:
                    waiting.append((job, PAUSE_S))
                    continue
                if error is not None:
                    failures.append(_record_failure(job, error))
                    tqdm.write(f"failed: {failures[-1]}")
                bar.update()
        bar.set_postfix(running=0, failed=len(failures))
    return failures


def _record_failure(job: Job, error: BaseException) -> str:
    """A message on a job that failed; it is also written beside the executed copy."""
    records.write_json(job.file(".error.json"), {"error": str(error), "executed": str(job.file(".ipynb"))})
    return f"{job.study.folder.name}: {error}"


# In a thread of this machine, or in a worker of Dask


def run_in_worker(job: Job, resources: Resources, code: str, pause_s: float = 0) -> str:
    """Execute a job's notebook if need be; returns `finished`, or ELSEWHERE if another process executes it just now.

    code : the driver's fingerprint of the package. pause_s : before it starts.
    """
    time.sleep(pause_s)
    if records.source_fingerprint() != code:
        raise StudyError("the worker has another version of lumbar_utils; give it the driver's and start it again")
    with records.file_lock(job.file(".lock")) as lock:
        if lock is None:
            return ELSEWHERE
        cohort = prepare(job.study)
        if not job.is_finished(cohort.fingerprint):
            _run_with_log(job, cohort, lock, _environment(resources))
        for name in DELETED[resources.keep]:
            (job.study.folder / job.model / "checkpoints" / name).unlink(missing_ok=True)
    return "finished"


def _run_with_log(job: Job, cohort: Cohort, lock: int, environment: dict[str, str]) -> None:
    """Execute a job's notebook, a second time if it fails, and log it beside the executed copy."""
    job.file(".error.json").unlink(missing_ok=True)
    with job.file(".log").open("a", encoding="utf-8") as log:

        def say(line: str) -> None:
            print(time.strftime("%H:%M:%S"), line, file=log, flush=True)

        for tries_left in reversed(range(TRIES)):
            say(f"begins in process {os.getpid()}")
            try:
                say(f"done in {pipeline.run_job(job, cohort, lock, say, environment):.0f} s")
                return
            except Failure as failure:
                say(str(failure))
                if not tries_left:
                    raise RuntimeError(str(failure)) from None  # a Failure cannot be pickled


def _environment(resources: Resources) -> dict[str, str]:
    """Variables of a job's kernel: its threads, and on a machine of several GPUs the one of this thread."""
    import torch

    variables = execution.with_threads(resources.threads)
    gpus = torch.cuda.device_count()
    if resources.scheduler or gpus < 2:
        return variables
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(gpus)))
    thread = int(threading.current_thread().name.rpartition("_")[2])  # its number in the pool, from 0
    return variables | {"CUDA_VISIBLE_DEVICES": visible.split(",")[thread % gpus]}


# Workers of Dask


@contextlib.contextmanager
def _connection(scheduler: str) -> Iterator["Client"]:
    """A client of the scheduler. Raises StudyError if it does not answer, or has workers and none of them takes jobs.

    If it has no workers yet, it waits for the first.
    """
    from distributed import Client  # takes a second

    named = {"scheduler_file": scheduler} if Path(scheduler).is_file() else {"address": scheduler}
    try:
        client = Client(timeout=PATIENCE_S, **named)
    except (OSError, ValueError, TimeoutError) as error:
        raise StudyError(
            f"no Dask scheduler answers at {scheduler} ({error}); start one with `dask scheduler`, or "
            "leave --scheduler out"
        ) from None
    with client:
        until = time.monotonic() + PATIENCE_S
        while not slots(client):  # workers may still wait in a cluster's queue
            if time.monotonic() > until and client.scheduler_info(n_workers=-1)["workers"]:
                raise StudyError(
                    f"the scheduler at {scheduler} has no worker that takes jobs; start some with "
                    "`dask worker ADDRESS --nthreads 1 --resources cell=1`"
                )
            time.sleep(0.5)
        yield client


def slots(client: "Client") -> int:
    """How many jobs the present workers take at once."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return int(sum(worker["resources"].get("cell", 0) for worker in workers))


# Once the networks are trained


def _compare_networks(grid: Grid, cohort: Cohort, models: Sequence[str], say: Callable[[str], None]) -> list[str]:
    """Notebooks 05 and 06 on all that is finished, and the report, by one driver; returns a message on a failure."""
    comparing, appendix = (Job(grid, notebook) for notebook in pipeline.notebooks(["05", "06"]))
    while True:
        with records.file_lock(comparing.file(".lock")) as lock:
            if lock is not None:
                failures = _compare(grid, [comparing, appendix], cohort, models, lock, say)
                report.write(grid.folder)
                return failures
        say(f"{comparing.name}: another driver runs it; waiting")
        time.sleep(PAUSE_S)


def _compare(
    grid: Grid, notebooks: list[Job], cohort: Cohort, models: Sequence[str], lock: int, say: Callable[[str], None]
) -> list[str]:
    folder, table = grid.folder, table_of(jobs_of(grid, models))
    records.write_csv(folder / "cells.csv", table)
    overview, caption = figures.grid_overview(table, cohort.note), figures.grid_overview_caption(table)
    figures.save(overview, folder / "figures", "grid", caption)
    finished = table[(table["state"] == "finished") & (table["model"] != "")]
    if finished["model"].nunique() < 2:
        say(f"{notebooks[0].name}: left out, as a comparison takes two networks that are finished")
        return []
    for job in notebooks:
        if job.is_finished(cohort.fingerprint):
            say(f"{job.name}: up to date")
            continue
        say(f"{job.name}: running -> {folder}")
        try:
            pipeline.run_job(job, cohort, lock, say)
        except Failure as failure:
            return [str(failure)]
    return []
