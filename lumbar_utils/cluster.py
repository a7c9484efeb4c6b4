"""Jobs run until they are finished: in threads that wait for kernels of this machine, or on workers of Dask.

What is finished is read from the jobs' records, by fingerprints, before and after; no queue remembers it.
"""

import collections
import contextlib
import functools
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING

import joblib
import psutil
from tqdm.auto import tqdm

from lumbar_utils import MODELS, Failure, StudyError, execution, pipeline, records
from lumbar_utils.data.preparation import prepare
from lumbar_utils.grid import describe, networks_of, threads_of
from lumbar_utils.machine import device_of
from lumbar_utils.output import figures, report
from lumbar_utils.pipeline import Job, jobs_of, table_of
from lumbar_utils.study import Grid, Study

if TYPE_CHECKING:
    from distributed import Client

SLOT = {"cell": 1}  # the resource that a worker of Dask offers for each job that it takes at once
DELETED = {"last": (), "final": ("last.ckpt",), "none": ("last.ckpt", "final.ckpt")}  # checkpoints, by what is kept
MEMORY_MB = 2500  # of a training
THREAD = "worker"  # begins the names of the threads that wait for kernels of this machine
TRIES = 2  # of a grid's job that fails
PATIENCE_S = 10.0  # for a scheduler to answer, and for its workers to take jobs
PAUSE_S = 5.0  # before a job that failed, or that another process runs, is looked at again


def run_study(study: Study, only: Sequence[str] = (), others: dict[str, Path] | None = None) -> None:
    """Run the notebooks in order, the trainings side by side, then write the report; what is up to date is skipped.

    only : see `pipeline.notebooks`. others : name -> folder of another tool's label maps, one more column of the
        comparison: see `external.add`.
    Raises Failure after the first stage in which a notebook fails, and StudyError on input that cannot be used.
    """
    from lumbar_utils.scores.external import add_all  # loads scipy

    chosen = pipeline.notebooks(only)
    if study.device in ("cuda", "mps"):
        device_of(study)  # refuses a device that is not here before any training
    cohort = prepare(study)
    records.remove_temporary_files(study.folder, older_s=3600)
    add_all(study, cohort, others or {})
    patients = cohort.cases["patient"].nunique()
    print(f"{cohort.name}: {len(cohort.cases)} images of {patients} patients -> {study.folder}")
    jobs = [job for job in jobs_of(study) if job.notebook in chosen]
    # jobs of one stage do not read each other's files: the trainings are one stage, every other notebook its own
    stages = itertools.groupby(jobs, key=lambda job: "training" if job.model else job.number)
    failures = _run_stages(list(stage) for _, stage in stages)
    report.write(study.folder)  # also after a failure, which the report of an earlier run would hide
    if failures:
        raise Failure("\n".join(failures))


def run(
    grids: list[Grid], models: Sequence[str] = tuple(MODELS), workers: int = 0, threads: int = 0, scheduler: str = "",
    keep: str = "final",
) -> list[str]:  # fmt: skip
    """Run the jobs that are not finished, then notebooks 05 and 06 and the report; a message per failure.

    workers : jobs at once. threads : of each job; results depend on them in late decimals, and a grid keeps those that
        it was started with. 0 for what fits this machine.
    scheduler : address of one of Dask, or a file that it wrote; its workers take the jobs. keep : see `run_jobs`.
    Shows its progress, in a notebook too.
    Raises StudyError before any training if data, folders or workers cannot be used.
    """
    jobs = [job for grid in grids for job in jobs_of(grid, models)]
    threads = threads or threads_of(grids)
    if not scheduler:
        workers, threads = _fitting(grids[0].study, len(jobs), workers, threads)
    threads = threads or 1  # nothing is known about a scheduler's workers
    cohorts = {study.folder: prepare(study) for grid in grids for study in grid.studies}
    for grid in grids:
        describe(grid, threads=threads, models=networks_of(grid, models))
    todo = [job for job in jobs if not job.is_finished(job.data)]
    print(f"{len(jobs)} jobs, {len(jobs) - len(todo)} finished; {len(todo)} to run")
    failures = run_jobs(todo, workers, threads, scheduler, keep)
    for grid in grids:
        failures += _compare_networks(grid, cohorts[grid.study.folder].note, models)
    return failures


def _fitting(study: Study, jobs: int, workers: int = 0, threads: int = 0) -> tuple[int, int]:
    """Jobs at once and threads of each, with 0 replaced: a job per GPU, else a job per core as far as memory goes."""
    cores = devices = joblib.cpu_count()
    if device_of(study) != "cpu":
        import torch

        devices = max(1, torch.cuda.device_count())
    in_memory = max(1, int(psutil.virtual_memory().available / 1e6 / MEMORY_MB))
    workers = workers or min(devices, jobs, in_memory)
    return workers, threads or max(1, cores // workers)


def _compare_networks(grid: Grid, note: str, models: Sequence[str]) -> list[str]:
    """Notebooks 05 and 06 on all that is finished, and the report; a message per failure. note : of the cohort."""
    table = table_of(jobs_of(grid, models))
    records.write_csv(grid.folder / "cells.csv", table)
    overview, caption = figures.grid_overview(table, note), figures.grid_overview_caption(table)
    figures.save(overview, grid.folder / "figures", "grid", caption)
    finished = table[(table["state"] == "finished") & (table["model"] != "")]
    stages, failures = [[Job(grid, notebook)] for notebook in pipeline.notebooks(["05", "06"])], []
    if finished["model"].nunique() < 2:
        print(f"{stages[0][0].name}: left out, as a comparison takes two networks that are finished")
    else:
        failures = _run_stages(stages)
    report.write(grid.folder)
    return failures


def _run_stages(stages: Iterable[list[Job]]) -> list[str]:
    """Run the jobs that are not finished, one stage after the other; returns the messages of the first that fails.

    Two trainings of one thread each take two cores a third less time than one after the other with two threads. The
    last network, EfficientNet, takes longest, and is therefore begun first.
    """
    for stage in stages:
        todo = []
        for job in reversed(stage):
            if job.is_finished(job.data):
                print(f"{job.name}: up to date")
            else:
                todo.append(job)
        if not todo:
            continue
        # of the whole stage, so that a training that was interrupted goes on with as many threads as it began with
        workers, threads = _fitting(stage[0].study, len(stage)) if len(stage) > 1 else (1, 0)
        if failures := run_jobs(todo, workers, threads, tries=1):
            return failures
    return []


def run_jobs(
    jobs: list[Job], workers: int, threads: int, scheduler: str = "", keep: str = "last", tries: int = TRIES
) -> list[str]:
    """Run jobs until each is finished or has failed `tries` times; a message per failure. Their data must be prepared.

    threads : of each job; 0 for as many as a process takes by itself. keep : which checkpoints stay when a job is
    finished, a key of DELETED. Where a job is tried again, a bar shows the progress of all; otherwise a line is printed
    when one starts, ends, or has trained for an epoch.
    """
    if not jobs:
        return []
    task = functools.partial(run_job, threads=threads, keep=keep, code=records.source_fingerprint())
    if not scheduler:  # no port is opened that others could reach
        with futures.ThreadPoolExecutor(workers, thread_name_prefix=THREAD) as pool:
            return run_all(jobs, pool, lambda: workers, task, tries)
    with _connection(scheduler) as client:
        print(f"{slots(client)} at once; dashboard: {client.dashboard_link}")
        return run_all(jobs, client.get_executor(resources=SLOT, pure=False), lambda: slots(client), task, tries)


def run_all(
    jobs: list[Job], pool: futures.Executor, at_once: Callable[[], int],
    task: Callable[[Job, float], float | None], tries: int = TRIES,
) -> list[str]:  # fmt: skip
    """Give jobs to a pool in their order until each is finished or has failed `tries` times; a message per failure.

    at_once : how many the pool runs, which may change; it is never given more, so that workers may come and go.
    task, tries : see `run_job` and `run_jobs`.
    """
    waiting, failures, failed = [(job, 0.0) for job in jobs], [], collections.Counter()
    show_bar = tries > 1
    running: dict[futures.Future, Job] = {}
    epochs: dict[Job, int] = {}  # see `_print_epochs`
    bar = tqdm(total=len(jobs), desc="jobs", unit="job", smoothing=0, disable=not show_bar)
    with bar, execution.end_kernels_after(running):
        while waiting or running:
            while waiting and len(running) < at_once():
                job, pause_s = waiting.pop(0)
                running[pool.submit(task, job, pause_s)] = job
                if not show_bar:
                    print(f"{job.name}: running")
                    epochs.setdefault(job, len(_epochs(job)))
            bar.set_postfix(running=len(running), failed=len(failures))
            if not running:  # until a worker comes, from a cluster's queue for instance
                time.sleep(1)
            done = futures.wait(running, timeout=1, return_when="FIRST_COMPLETED").done
            _print_epochs(epochs)
            for future in done:
                job = running.pop(future)
                seconds, error = _outcome(future)
                failed[job] += error != ""
                if seconds is None and failed[job] < tries:
                    waiting.append((job, PAUSE_S))
                    continue
                bar.update()
                if error:
                    failures.append(error)
                    records.write_json(job.file(".error.json"), {"error": error})
                    tqdm.write(f"failed: {error}")
                elif not show_bar:
                    print(f"{job.name}: done in {seconds:.0f} s")
        bar.set_postfix(running=0, failed=len(failures))
    return failures


def _outcome(future: futures.Future) -> tuple[float | None, str]:
    """What `run_job` returned, and the message of the error that it raised, "" for none."""
    try:
        return future.result(), ""
    except Exception as error:  # of any kind: the other jobs go on
        return None, str(error) or "it was cancelled"


def _print_epochs(printed: dict[Job, int]) -> None:
    """Print what is new in the histories of jobs. printed : how many epochs of each are known."""
    for job, number in printed.items():
        lines = _epochs(job)
        for line in lines[number:]:
            print(line)
        printed[job] = len(lines)


def _epochs(job: Job) -> list[str]:
    """A line for each epoch of a training; none where its history is absent, or half a copy, which will be replaced."""
    lines = []
    with contextlib.suppress(FileNotFoundError, StudyError):
        for row in records.read_csv(job.study.folder / job.model / "history.csv").itertuples():
            lines.append(f"    {row.model} epoch {row.epoch}: validation F1 {row.val_f1:.3f}, {row.seconds:.0f} s")
    return lines


# In a thread of this machine, or in a worker of Dask


def run_job(job: Job, pause_s: float, threads: int, keep: str, code: str) -> float | None:
    """Execute a job's notebook if need be; returns seconds, or None if another process executes it just now.

    pause_s : before it starts. threads, keep : see `run_jobs`. code : the driver's fingerprint of the package.
    Raises Failure.
    """
    time.sleep(pause_s)
    if records.source_fingerprint() != code:
        raise StudyError("the worker has another version of lumbar_utils; give it the driver's and start it again")
    started = time.monotonic()
    with records.file_lock(job.file(".lock")) as lock:
        if lock is None:
            return None
        if not job.is_finished(job.data):
            _execute(job, lock, _environment(job.study, threads))
        for name in DELETED[keep]:
            (job.study.folder / job.model / "checkpoints" / name).unlink(missing_ok=True)
    return time.monotonic() - started


def _execute(job: Job, lock: int, environment: dict[str, str]) -> None:
    """Execute a job's notebook, log it beside the executed copy, and record that it is finished. Raises Failure.

    lock : descriptor of the job's lock, which the kernel inherits: if this process is killed, nobody else starts the
    job before the kernel has ended too.
    """
    for outdated in (".json", ".error.json"):
        job.file(outdated).unlink(missing_ok=True)
    data, started = job.data, time.monotonic()  # if the data change meanwhile, the record does not count
    _log(job, "begins")
    try:
        execution.execute(job.notebook, job.file(".ipynb"), job.parameters, lock, environment)
    except Failure as failure:
        _log(job, str(failure))
        raise
    seconds = round(time.monotonic() - started, 1)
    files = [job.file(".ipynb"), *job.outputs()]
    records.mark_finished(job.file(".json"), job.made_from(data), files, seconds=seconds)
    _log(job, f"done in {seconds:.0f} s")


def _log(job: Job, text: str) -> None:
    with job.file(".log").open("a", encoding="utf-8") as log:
        print(time.strftime("%H:%M:%S"), text, file=log)


def _environment(study: Study | Grid, threads: int) -> dict[str, str]:
    """Variables of a job's kernel: its threads, and on a machine of several GPUs the one of this thread of ours."""
    variables = execution.with_threads(threads)
    if study.settings["device"] == "cpu":  # loading torch takes seconds
        return variables
    import torch

    gpus = torch.cuda.device_count()
    pool, _, number = threading.current_thread().name.rpartition("_")
    if pool == THREAD and gpus > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(gpus)))
        variables["CUDA_VISIBLE_DEVICES"] = visible.split(",")[int(number) % gpus]
    return variables


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
