"""Time and memory of notebook 05's scoring: label maps to every table, interval, test and definition.

    python tests/benchmarks/scoring_speed.py FOLDER [--cases 77 154 308] [--models 3] [--size 320]

For each number of cases a process of its own scores that many phantoms by so many models, whose label maps are the
references, moved and blurred, with probabilities. FOLDER gets `scoring_speed.csv`: cases, models, seconds of scoring
(evaluate) and of all that follows (intervals, tests, claims, multiverse, groups), and peak_mb of the process and of
those that it started. Files are written once and linked, so many cases cost little disk.
"""

import argparse
import dataclasses
import multiprocessing
import os
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import psutil

from lumbar_utils import records
from lumbar_utils.appendix import definitions
from lumbar_utils.data.folder import Cohort
from lumbar_utils.data.sources import load
from lumbar_utils.scores import paper, statistics, summary
from lumbar_utils.scores.evaluation import evaluate
from lumbar_utils.study import Study

DRAWN = 77  # phantoms that are different; more cases are the same files under other names


def write_maps(cohort: Cohort, folder: Path, seed: int) -> Path:
    """Label maps and probabilities of another "model" for the cohort's cases: the references, moved and blurred."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for _, case in cohort.cases.iterrows():
        true = np.roll(cohort.mask(case), rng.integers(-4, 5, 2), axis=(0, 1))
        maps = [cv2.GaussianBlur((true == value).astype(np.float32), (0, 0), 2) for value in range(7)]
        shares = np.stack(maps) / np.sum(maps, axis=0)
        cv2.imwrite(str(folder / f"{case['case']}.png"), shares.argmax(axis=0).astype(np.uint8))
        np.savez_compressed(folder / f"{case['case']}.npz", probabilities=(shares[1:] * 255).astype(np.uint8))
    return folder


def repeated(cohort: Cohort, cases: int, folders: dict[str, Path], into: Path) -> tuple[Cohort, dict[str, Path]]:
    """So many test cases, each of a patient of its own, and links to the label maps of those they repeat."""
    rows = [cohort.cases.iloc[number % len(cohort.cases)] for number in range(cases)]
    table = pd.DataFrame(rows).assign(case=[f"case{n:06d}" for n in range(cases)], split="test").reset_index(drop=True)
    links = {}
    for model, folder in folders.items():
        links[model] = into / model
        links[model].mkdir(parents=True)
        for row, name in zip(rows, table["case"], strict=True):
            for ending in (".png", ".npz"):
                os.link(folder / f"{row['case']}{ending}", links[model] / f"{name}{ending}")
    return dataclasses.replace(cohort, cases=table.assign(patient=table["case"])), links


def watched(most: list[float], over: threading.Event) -> None:
    """Keep the largest resident memory, in 10^6 bytes, of this process and those that it started."""
    me = psutil.Process()
    while not over.wait(0.2):
        alive = [me, *me.children(recursive=True)]
        most[0] = max(most[0], sum(process.memory_info().rss for process in alive if process.is_running()) / 1e6)


def score(cohort: Cohort, folders: dict[str, Path]) -> dict:
    most, over = [0.0], threading.Event()
    threading.Thread(target=watched, args=(most, over), daemon=True).start()
    started = time.perf_counter()
    found = evaluate(cohort, folders)
    scored = time.perf_counter()
    table, gaps = summary.summarise(found), summary.differences(found)
    summary.summarise(found, dict.fromkeys(found.scores["metric"]))
    statistics.compare(summary.per_patient(found))
    paper.judge(table, gaps, "drawn images", seeds=1, synthetic=True)
    universe = definitions.score_definitions(found)
    (
        definitions.spread_over_definitions(universe),
        definitions.nearest_to_paper(universe),
        summary.by_group(found, cohort.cases),
    )
    done = time.perf_counter()
    over.set()
    return {"scoring_s": round(scored - started, 1), "rest_s": round(done - scored, 1), "peak_mb": round(most[0])}


def tell(end, cohort: Cohort, folders: dict[str, Path]) -> None:
    end.send(score(cohort, folders))


def main(asked: argparse.Namespace) -> None:
    study = Study("smoke", phantom_patients=DRAWN, phantom_size=asked.size, cache=asked.folder / "cache")
    cohort = load(study)
    models = (["unet", "hrnet", "efficientnet"] + [f"other{n}" for n in range(asked.models)])[: asked.models]
    folders = {model: write_maps(cohort, asked.folder / model, seed) for seed, model in enumerate(models)}
    rows = []
    for cases in asked.cases:
        many, links = repeated(cohort, cases, folders, asked.folder / f"links{cases}-{os.getpid()}")
        process, ends = multiprocessing.get_context("spawn").Process, multiprocessing.Pipe()
        alone = process(target=tell, args=(ends[1], many, links))
        alone.start()
        rows.append({"cases": cases, "models": len(models)} | ends[0].recv())
        alone.kill()  # else it waits for joblib's idle processes
        alone.join()
        records.write_csv(asked.folder / "scoring_speed.csv", pd.DataFrame(rows))
        print(rows[-1], flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=lambda path: Path(path).resolve())
    parser.add_argument("--cases", nargs="+", type=int, default=[77, 154, 308])
    parser.add_argument("--models", type=int, default=3)
    parser.add_argument("--size", type=int, default=320)
    main(parser.parse_args())
