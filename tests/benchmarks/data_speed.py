"""Speed and size of the data's way: drawing phantoms, opening a set again, 20,000 slices, the audit.

    python tests/benchmarks/data_speed.py FOLDER

FOLDER is made, and holds up to 4 GB. Each step runs in a process of its own, whose peak memory is shown.
"""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

from lumbar_utils.data.decoding import decode
from lumbar_utils.data.folder import read
from lumbar_utils.phantom import phantom

PHANTOMS, MANY = 514, 20_000


def draw(folder: Path) -> None:
    phantom.generate(folder / "phantom", PHANTOMS)


def decode_first(folder: Path) -> None:
    decode(read(folder / "phantom"), 320, 320, folder / "cache")


def open_again(folder: Path) -> None:
    decode(read(folder / "phantom"), 320, 320, folder / "cache")


def many(folder: Path) -> None:
    """The phantoms under 20,000 names, each a hard link, read and decoded."""
    source, target = folder / "phantom", folder / "many"
    cases = pd.read_csv(source / "cases.csv", dtype={"patient": str})
    for part in ("images", "masks"):
        (target / part).mkdir(parents=True)
    rows = []
    for number in range(MANY):
        row = cases.iloc[number % PHANTOMS].to_dict()
        copy = {part: f"{part}s/{number:05d}.png" for part in ("image", "mask")}
        for part, name in copy.items():
            os.link(source / row[part], target / name)
        rows.append(row | copy | {"case": f"{number:05d}", "patient": f"{number:05d}"})
    pd.DataFrame(rows).to_csv(target / "cases.csv", index=False)
    (target / "dataset.json").write_text((source / "dataset.json").read_text())
    decode(read(target), 192, 192, folder / "cache")


def audit(folder: Path) -> None:
    from lumbar_utils.data.audit import audit

    audit(folder / "phantom")


STEPS = {step.__name__: step for step in (draw, decode_first, open_again, many, audit)}


def main(folder: Path) -> None:
    for name in STEPS:
        subprocess.run([sys.executable, __file__, str(folder), name], check=True)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        main(Path(sys.argv[1]))
    else:
        started = time.perf_counter()
        STEPS[sys.argv[2]](Path(sys.argv[1]))
        peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        print(f"{sys.argv[2]:13} {time.perf_counter() - started:6.1f} s  {peak / 2**20:.2f} GB", flush=True)
