"""A grid disturbed while it trains, started again with the same command, and compared with an undisturbed one.

    python tests/grid_faults.py FOLDER [--faults kernel driver interrupt disk] [--folds 2]

Each fault strikes once a network has trained for three epochs. FOLDER gets faults.csv: the fault, the exit code of
the disturbed run, jobs that were begun more than once, files that differ from the undisturbed grid (every label map,
weight, history and figure, times aside). Exit code 1 if one differs. POSIX only; `disk` needs the right to mount.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
from kills import bits

from lumbar_utils import records
from lumbar_utils.phantom.phantom import generate

FAULTS = ("kernel", "driver", "interrupt", "disk")
TIMES = ("cells.csv", "table1", "cost.", "fit.json")  # files that hold times or say on what machine
DISK_MB = 3


def start(folder: Path, folds: int) -> subprocess.Popen:
    """The grid's driver, in a process group of its own; its words go to driver.log. folds : 0 for a single training."""
    settings = ["height=64", "width=64", "epochs=12", "device=cpu", f"cache={folder.parent / 'cache'}"]
    command = [sys.executable, "-m", "lumbar_utils", "run", "--profile", "smoke", "--dataset", folder.parent / "data"]
    command += ["--runs", folder / "runs", "--seeds", 0, "--folds", folds, "--models", "unet", "--workers", 2]
    command += ["--threads", 1, *(part for setting in settings for part in ("--set", setting))]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "driver.log").open("a") as log:
        return subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, process_group=0)


def wait_for_training(driver: subprocess.Popen, folder: Path, epochs: int = 3) -> None:
    """Until a network has trained for so many epochs."""
    while driver.poll() is None:
        histories = folder.glob("runs/*/unet/history.csv")
        if any(len(pd.read_csv(file)) >= epochs for file in histories if file.stat().st_size):
            return
        time.sleep(0.05)
    raise SystemExit(f"the grid ended before it was interrupted; see {folder / 'driver.log'}")


def strike(fault: str, driver: subprocess.Popen) -> None:
    """Kill, interrupt, or let the disk be full as it is."""
    below = psutil.Process(driver.pid).children(recursive=True)
    kernels = [process for process in below if "ipykernel_launcher" in process.cmdline()]
    if fault == "kernel":
        kernels[0].kill()
    elif fault == "driver":
        driver.kill()
    elif fault == "interrupt":
        os.killpg(driver.pid, signal.SIGINT)


def disturbed(fault: str, folder: Path, folds: int) -> int:
    """Run the grid with a fault, then again until it is complete; returns the exit code of the first run."""
    if fault == "disk":
        (folder / "runs").mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", folder / "runs"]
        subprocess.run(mount, check=True)
    driver = start(folder, folds)
    if fault != "disk":
        wait_for_training(driver, folder)
        strike(fault, driver)
    code = driver.wait()
    if fault == "disk":
        subprocess.run(["mount", "-o", "remount,size=500m", folder / "runs"], check=True)
    if start(folder, folds).wait():
        raise SystemExit(f"the grid did not go on; see {folder / 'driver.log'}")
    return code


def begun_again(folder: Path) -> int:
    """Jobs that were begun more than once."""
    return sum(log.read_text().count("begins") > 1 for log in folder.glob("runs/*/notebooks/*.log"))


def different(folder: Path, undisturbed: Path) -> list[str]:
    """Results that are not the same bits in both grids."""
    here, there = ({name: bit for name, bit in bits(at / "runs").items() if not any(t in name for t in TIMES)}
                   for at in (folder, undisturbed))  # fmt: skip
    return sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))


def main(folder: Path, faults: list[str], folds: int) -> pd.DataFrame:
    """One row a fault."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and their children
    if not (folder / "data").exists():
        generate(folder / "data", 14, size=96)
    undisturbed = folder / "undisturbed"
    if start(undisturbed, folds).wait():
        raise SystemExit(f"the undisturbed grid failed; see {undisturbed / 'driver.log'}")
    rows = []
    for fault in faults:
        code = disturbed(fault, folder / fault, folds)
        unlike = different(folder / fault, undisturbed)
        rows.append((fault, code, begun_again(folder / fault), len(bits(folder / fault / "runs")), len(unlike)))
        print(*rows[-1], *unlike[:3], flush=True)
        if fault == "disk":
            subprocess.run(["umount", folder / fault / "runs"], check=True)
        else:
            shutil.rmtree(folder / fault / "runs")
    table = pd.DataFrame(rows, columns=["fault", "exit_code", "begun_again", "files", "different"])
    records.write_csv(folder / "faults.csv", table)
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=lambda path: Path(path).resolve())
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=FAULTS)
    parser.add_argument("--folds", type=int, default=2)
    asked = parser.parse_args()
    sys.exit(bool(main(asked.folder, asked.faults, asked.folds)["different"].any()))
