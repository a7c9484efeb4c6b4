"""What a grid gains by running cells at once, and what it costs to run them: ratios of one machine, in one run.

    python tests/benchmarks/grid_speed.py FOLDER workers [--rounds 2] [--epochs 40]
    python tests/benchmarks/grid_speed.py FOLDER overhead [--cells 100 300 1000]
    python tests/benchmarks/grid_speed.py FOLDER many [--cells 64] [--workers 16]

`workers`: 12 cells (2 seeds x 2 folds x 3 networks of the profile smoke, for so many epochs), seconds of one worker of
one thread, one of two threads, and two of one thread, rounds in turn. `overhead`: cells that only sleep; of a worker's
time beyond sleeping, by cell, and the driver's memory. `many`: smoke cells of one network on 4 folds under as many
seeds as they need; how many failed. FOLDER gets grid_workers.csv, grid_overhead.csv, grid_many.csv.
"""

import argparse
import contextlib
import io
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import psutil

from lumbar_utils import MODELS


def run_cells(folder: Path, workers: int, threads: int, grid, models: tuple[str, ...]) -> tuple[float, list[str]]:
    """Seconds that a grid's training takes from nothing, and words on cells that failed."""
    from lumbar_utils import cluster
    from lumbar_utils.data.preparation import prepare
    from lumbar_utils.pipeline import jobs_of

    shutil.rmtree(folder / "runs", ignore_errors=True)
    jobs = [job for job in jobs_of(grid, models) if job.model]
    for job in jobs:
        prepare(job.study)
    started = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()):
        failed = cluster.run_jobs(jobs, workers, threads)
    return time.perf_counter() - started, failed


def a_grid(folder: Path, seeds: int, folds: int, epochs: int):
    from lumbar_utils.study import Grid, Study

    settings = {"runs": folder / "runs", "cache": folder / "cache", "device": "cpu", "epochs": epochs}
    return Grid(Study("smoke", folds=folds, **settings), tuple(range(seeds)))


def workers(folder: Path, rounds: int, epochs: int) -> pd.DataFrame:
    """round, workers, threads, seconds."""
    rows, grid = [], a_grid(folder, 2, 2, epochs)
    for number in range(rounds):
        for at_once, threads in ((1, 1), (1, 2), (2, 1)):
            seconds, failed = run_cells(folder, at_once, threads, grid, tuple(MODELS))
            assert not failed, failed
            rows.append((number, at_once, threads, round(seconds, 1)))
            print(*rows[-1], flush=True)
    return pd.DataFrame(rows, columns=["round", "workers", "threads", "seconds"])


def _sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def overhead(cells: list[int], at_once: int, seconds: float = 0.5) -> pd.DataFrame:
    """cells, seconds, overhead_ms a cell, driver_mb, share of the work in per cent were a cell to take two minutes."""
    from lumbar_utils.cluster import run_all

    rows = []
    for count in cells:
        with ThreadPoolExecutor(at_once) as pool, contextlib.redirect_stderr(io.StringIO()):
            started = time.perf_counter()
            assert run_all([None] * count, pool, lambda: at_once, lambda job, pause_s: _sleep(seconds)) == []
            took = time.perf_counter() - started
        beyond = (took - seconds * count / at_once) / count * at_once  # of a worker's time, by cell
        memory = psutil.Process().memory_info().rss / 1e6
        rows.append((count, round(took, 1), round(1000 * beyond), round(memory), round(100 * beyond / 120, 3)))
        print(*rows[-1], flush=True)
    return pd.DataFrame(rows, columns=["cells", "seconds", "overhead_ms", "driver_mb", "of_two_minutes_percent"])


def many(folder: Path, cells: int, at_once: int) -> pd.DataFrame:
    """cells, workers, seconds, failed."""
    grid = a_grid(folder, cells // 4, 4, 2)
    seconds, failed = run_cells(folder, at_once, 1, grid, ("unet",))
    return pd.DataFrame(
        [(cells, at_once, round(seconds, 1), len(failed))], columns=["cells", "workers", "seconds", "failed"]
    )


def main(asked: argparse.Namespace) -> None:
    table = {
        "workers": lambda: workers(asked.folder, asked.rounds, asked.epochs),
        "overhead": lambda: overhead(asked.cells or [100, 300, 1000], asked.workers),
        "many": lambda: many(asked.folder, (asked.cells or [64])[0], asked.workers),
    }[asked.what]()
    from lumbar_utils import records

    records.write_csv(asked.folder / f"grid_{asked.what}.csv", table)
    print(table.to_string(index=False))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=lambda path: Path(path).resolve())
    parser.add_argument("what", choices=("workers", "overhead", "many"))
    parser.add_argument("--cells", nargs="+", type=int)
    for option, default in (("rounds", 2), ("epochs", 40), ("workers", 16)):
        parser.add_argument(f"--{option}", type=int, default=default)
    main(parser.parse_args())
