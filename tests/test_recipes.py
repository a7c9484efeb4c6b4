"""The recipes for clusters in docs/grids.md run as they stand: SLURM with a stand-in for its queue, Kubernetes here."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import yaml
from conftest import command_line
from nbclient import NotebookClient

from lumbar_utils.study import ROOT

# what SLURM's client would do with a job, at once and on this machine; the script it is given is gone soon after
SBATCH = '#!/bin/sh\ncp "$1" "$0.$$"\nsh "$0.$$" > "$0.$$.out" 2>&1 &\necho "Submitted batch job $!"\n'
SCANCEL = '#!/bin/sh\nkill "$1" 2> /dev/null\nexit 0\n'


def block(language, word):
    """The page's code block of a language that holds a word."""
    blocks = re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / "grids.md").read_text(), re.DOTALL)
    return next(text for text in blocks if word in text)


def assert_run(stdout, runs):
    """Whether a grid had one job to run, and a worker ran it."""
    assert "2 jobs, 1 finished; 1 to run" in stdout and "2 jobs: 2 finished" in stdout
    (log,) = runs.glob("*/notebooks/01_data_exploration.log")
    assert log.read_text().count("begins") == 1


def test_the_recipe_for_slurm_submits_workers_that_run_the_grid(tmp_path, one_job_left):
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name, text in {"sbatch": SBATCH, "scancel": SCANCEL}.items():
        (bin_ / name).write_text(text)
        (bin_ / name).chmod(0o755)
    (tmp_path / "slurm.py").write_text(block("python", "SLURMCluster").replace("jobs=9", "jobs=1"))
    result = subprocess.run(
        [sys.executable, tmp_path / "slurm.py", *one_job_left[1:]], capture_output=True, text=True, cwd=tmp_path,
        env=os.environ | {"PATH": f"{bin_}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert_run(result.stdout, tmp_path / "runs")


def test_the_recipe_for_kubernetes_starts_a_scheduler_workers_and_a_driver(tmp_path, one_job_left):
    parts = {
        (part["kind"], part["metadata"]["name"]): part["spec"] for part in yaml.safe_load_all(block("yaml", "kind"))
    }
    assert [port["port"] for port in parts["Service", "scheduler"]["ports"]] == [8786, 8787]

    def command(kind, name):
        (container,) = parts[kind, name]["template"]["spec"]["containers"]
        program, *rest = container["command"]
        there = [ROOT / program.removeprefix("/study/"), *rest]
        file = ["--scheduler-file", str(tmp_path / "scheduler.json")]
        told = [str(part) for part in there if part not in ("--port", "8786", "tcp://scheduler:8786")]
        return told + (file if name != "grid" else [file[1]])  # a port of its own, told by a file

    env = os.environ | {"OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": env, "cwd": tmp_path}
    scheduler = subprocess.Popen(
        [*command("Deployment", "scheduler"), "--port", "0", "--dashboard-address", ":0"], **quiet
    )
    worker = subprocess.Popen(command("Deployment", "workers"), **quiet)
    try:
        while not (tmp_path / "scheduler.json").exists():
            assert scheduler.poll() is None
        driver = [*command("Job", "grid"), *one_job_left[1:]]
        result = subprocess.run(driver, capture_output=True, text=True, env=env)
    finally:
        for process in (worker, scheduler):
            process.terminate()
            process.wait()
    assert result.returncode == 0, result.stderr
    assert_run(result.stdout, tmp_path / "runs")


def test_workers_without_the_resource_are_refused_with_the_remedy(tmp_path, one_job_left):
    file, dask = tmp_path / "scheduler.json", Path(sys.executable).with_name("dask")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    told = ["--scheduler-file", file, "--dashboard-address", ":0"]
    started = [subprocess.Popen([dask, "scheduler", "--port", "0", *told], **quiet)]
    started += [subprocess.Popen([dask, "worker", *told, "--nthreads", "1"], **quiet)]
    try:
        while not file.exists():
            assert started[0].poll() is None
        result = command_line(*one_job_left, "--scheduler", file)
    finally:
        for process in started:
            process.terminate()
            process.wait()
    assert result.returncode == 2
    assert "has no worker that takes jobs; start some with" in result.stderr and "--resources cell=1" in result.stderr


def test_a_grid_run_from_a_notebook_shows_its_progress_and_its_overview(tmp_path, one_job_left, monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)  # which the command line sets, in this process too
    cache = one_job_left[6].removeprefix("cache=")
    settings = {"runs": str(tmp_path / "runs"), "cache": cache, "device": "cpu"}
    code = block("python", "cluster.run").replace('Study("quick", folds=5)', f'Study("smoke", **{settings})')
    code = code.replace("seeds=(0, 1, 2)", "seeds=(0,)").replace("run([grid])", 'run([grid], models=("unet",))')
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    (cell,) = NotebookClient(notebook, kernel_name="python3").execute().cells
    printed = "".join(output["text"] for output in cell.outputs if output["output_type"] == "stream")
    assert "2 jobs, 1 finished; 1 to run" in printed
    states = notebook.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"].values()
    shown = " ".join(str(state["state"].get("value")) for state in states).replace("\u2007", " ")
    assert "jobs: 100%" in shown and "1/1" in shown and "failed=0, running=0" in shown
    assert any("image/png" in output.get("data", {}) for output in cell.outputs)
