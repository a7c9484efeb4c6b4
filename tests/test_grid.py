"""Studies under several seeds and folds: run at once, gathered, resumed, and what becomes of jobs that fail."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import command_line, in_process, write_dataset

from lumbar_utils import LEVELS, StudyError, pipeline, records
from lumbar_utils.data.preparation import prepare
from lumbar_utils.grid import gather, threads_of
from lumbar_utils.scores.evaluation import evaluate
from lumbar_utils.study import ROOT, Grid, Study, read_study

MODELS = ("unet", "hrnet")
SMALL = ("height=64", "width=64", "epochs=1", "device=cpu")


def asked(root, *more):
    """The command of a grid of two seeds and two folds on six patients."""
    settings = [part for setting in (*SMALL, f"cache={root / 'cache'}") for part in ("--set", setting)]
    return ["run", "--profile", "smoke", "--dataset", root / "data", "--runs", root / "runs", *settings, *more]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("grid")
    description = write_dataset(root / "data") / "dataset.json"
    told = json.loads(description.read_text())
    told["labels"] |= {str(value): level for value, level in enumerate(LEVELS, 1)}
    told["annotated_levels"] = list(LEVELS)  # all channels compete, so that scores differ
    description.write_text(json.dumps(told))
    return root


@pytest.fixture(scope="module")
def command(root):
    return asked(root, "--seeds", 0, 1, "--folds", 2, "--models", *MODELS, "--workers", 2)


@pytest.fixture(scope="module")
def first_run(command):
    return command_line(*command)


@pytest.fixture(scope="module")
def grid(root, first_run):
    return read_study(next((root / "runs").glob("data-smoke-2seeds-2folds-*")))


def begun(grid):
    """Log -> how often a job was begun."""
    logs = [file for run in grid.studies for file in (run.folder / "notebooks").glob("*.log")]
    return {log: log.read_text().count("begins") for log in logs}


def test_members_differ_in_seed_and_fold_alone_and_larger_grids_share_them(tmp_path):
    study = Study("smoke", folds=2, runs=tmp_path)
    small, large = Grid(study, (0, 1)), Grid(study, (0, 1, 2))
    assert [(run.seed, run.fold) for run in small.studies] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [run.folder for run in large.studies][:4] == [run.folder for run in small.studies]
    assert large.folder != small.folder
    assert Grid(study, (1, 0)).fingerprint != Grid(study, (1, 2)).fingerprint


def test_a_grid_without_folds_has_one_member_a_seed():
    assert [(run.seed, run.fold) for run in Grid(Study("smoke"), (3, 5)).studies] == [(3, 0), (5, 0)]


@pytest.mark.parametrize("seeds, message", [((0, 1, 0), "seeds of a grid are 0, 1, 0; give"), ((), "each once")])
def test_seeds_that_are_no_grid_are_refused(seeds, message):
    with pytest.raises(StudyError, match=message):
        Grid(Study("smoke"), seeds)


def test_a_grid_runs_by_one_command_and_says_where_everything_is(first_run, grid):
    assert first_run.returncode == 0, first_run.stderr
    assert "9 jobs, 0 finished; 9 to run" in first_run.stdout
    assert f"report     {grid.folder / 'report.html'}" in first_run.stdout
    assert "9 jobs: 9 finished" in first_run.stdout
    assert set(begun(grid).values()) == {1} and len(begun(grid)) == 9


def test_every_patient_is_tested_once_a_seed_by_networks_that_never_saw_them(grid):
    cohort, folders = gather(grid, {})
    assert list(folders) == list(MODELS)
    assert cohort.cases["patient"].value_counts().to_dict() == {f"p{number}": 2 for number in range(6)}
    for case in cohort.cases.itertuples():
        run = next(m for m in grid.studies if (m.seed, m.fold) == (case.seed, case.fold))
        sides = pd.read_csv(run.folder / "split.csv").set_index("patient")["split"]
        assert sides[case.patient] == "test" and case.case == f"{case.case_there}.seed{case.seed}"
        for model, folder in folders.items():
            there = run.folder / model / "label_maps" / f"{case.case_there}.png"
            assert (folder / f"{case.case}.png").read_bytes() == there.read_bytes()


def test_table_2_is_the_mean_over_seeds_of_what_every_member_scores_apart(grid):
    scores = []
    for run in grid.studies:
        folders = {model: run.folder / model / "label_maps" for model in MODELS}
        scores.append(evaluate(prepare(run), folders).scores)
    f1 = pd.concat(scores).query("metric == 'f1'")
    by_hand = f1.groupby(["model", "level", "patient"])["value"].mean().groupby(["model", "level"]).mean()
    table = pd.read_csv(grid.folder / "tables" / "table2.csv").set_index(["model", "metric"])["value"]
    for model in MODELS:
        assert table[model, "f1"] == pytest.approx(by_hand[model].mean(), abs=1e-12)


def test_each_run_s_score_and_the_parts_of_the_spread_are_tables(grid):
    runs = pd.read_csv(grid.folder / "tables" / "runs.csv")
    assert len(runs) == 4 * len(MODELS) and set(runs["n"]) == {3}
    variance = pd.read_csv(grid.folder / "tables" / "variance.csv")
    assert variance["what"].unique().tolist() == ["unet", "hrnet", "unet - hrnet"]
    whole = variance.groupby("what")[["variance", "share"]].sum()
    differing = whole[whole["variance"] > 0]  # a network that has learnt nothing may score the same everywhere
    assert len(differing) and differing["share"].to_numpy() == pytest.approx(1)


def test_the_report_has_the_overview_and_says_how_many_runs_stand_behind_it(grid):
    page = (grid.folder / "report.html").read_text()
    assert "2 seeds on 2 folds (4 runs)" in page and 'id="f-grid"' in page
    assert "2 seeds on 2 folds (4 runs)" in (grid.folder / "tables" / "table2.md").read_text()


def test_the_report_counts_every_job_and_misses_nothing(grid):
    page = (grid.folder / "report.html").read_text()
    assert "9 jobs of the grid" in page and "seeds 0, 1, 2 folds" in page
    assert "no executed copy" not in page and 'id="missing"' not in page


def test_a_second_run_does_nothing_and_says_so(command, grid):
    before = begun(grid)
    result = in_process(*command)
    assert "9 jobs, 9 finished; 0 to run" in result.stdout and "05_evaluate_and_compare: up to date" in result.stdout
    assert result.returncode == 0 and begun(grid) == before


def test_only_a_job_that_lost_a_file_runs_again_and_to_the_same_bits(command, grid):
    run = grid.studies[3]
    lost = run.folder / "unet" / "label_maps" / "case0.npz"
    lost = lost if lost.exists() else next(lost.parent.glob("*.npz"))
    bits, before = np.load(lost)["probabilities"], begun(grid)
    lost.unlink()
    assert "9 jobs, 8 finished; 1 to run" in command_line(*command).stdout
    after = begun(grid)
    assert [log for log in after if after[log] != before[log]] == [run.folder / "notebooks" / "02_train_unet.log"]
    assert np.array_equal(np.load(lost)["probabilities"], bits)


def test_status_tells_of_every_job_from_another_shell(grid):
    result = in_process("status", grid.folder)
    assert "9 jobs: 9 finished" in result.stdout
    assert len(re.findall(r"03_train_hrnet +finished +1 +1 ", result.stdout)) == 4
    assert "StudyError" in in_process("status", grid.folder / "figures").stderr


def test_a_dry_run_lists_what_is_finished_and_runs_nothing(root, command, grid):
    more = [part if part != 1 else 2 for part in command]  # seeds 0 and 2
    result = in_process(*more, "--dry-run")
    assert "9 jobs: 5 finished, 4 waiting" in result.stdout, result.stderr
    assert len(re.findall(r"02_train_unet +waiting", result.stdout)) == 2 and "min left" in result.stdout
    assert not list((root / "runs").glob("*seed2-*/notebooks/*.ipynb"))


def test_one_checkpoint_is_kept_of_a_finished_job_unless_more_are_asked_for(grid):
    for run in grid.studies:
        for model in MODELS:
            (file,) = (run.folder / model / "checkpoints").iterdir()
            assert file.name == "final.ckpt"


def test_a_run_that_lacks_a_network_is_left_out_and_named(grid, capsys):
    record = grid.studies[1].folder / "hrnet" / "predict.json"
    kept = record.rename(record.with_suffix(".elsewhere"))
    cohort, _ = gather(grid, {})
    kept.rename(record)
    assert "left out: seed 0, fold 1, where hrnet is not finished" in capsys.readouterr().out
    assert cohort.cases[["seed", "fold"]].drop_duplicates().to_numpy().tolist() == [[0, 0], [1, 0], [1, 1]]
    gather(grid, {})


def test_a_network_that_the_grid_was_not_asked_for_leaves_no_run_out(grid, capsys):
    folder = grid.studies[0].folder
    shutil.copytree(folder / "hrnet", folder / "tu-resnet18")
    _, folders = gather(grid, {})
    shutil.rmtree(folder / "tu-resnet18")
    assert list(folders) == list(MODELS) and "left out" not in capsys.readouterr().out


def test_no_scheduler_is_loaded_that_others_could_reach_unless_one_is_named():
    loaded = "import sys, lumbar_utils.cluster; print('distributed' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", loaded], text=True) == "False\n"


@pytest.fixture
def copied(root, grid, tmp_path):
    """A copy of the grid and its runs."""
    shutil.copytree(root / "runs", tmp_path / "runs")
    return Grid(Study(**grid.study.settings | {"runs": tmp_path / "runs"}), grid.seeds)


def test_a_network_that_is_no_longer_finished_leaves_the_grid(copied):
    shutil.copytree(copied.folder / "unet", copied.folder / "tu-former")
    _, folders = gather(copied, {})
    assert list(folders) == list(MODELS) and not (copied.folder / "tu-former").exists()


def test_figures_of_a_member_s_own_comparison_are_not_taken_for_the_grid_s(copied):
    for name in ("fig5.png", "fig1.png"):
        records.write_text(copied.study.folder / "figures" / name, "of the run")
    gather(copied, {})
    texts = [(copied.folder / "figures" / name).read_bytes() == b"of the run" for name in ("fig5.png", "fig1.png")]
    assert texts == [False, True]


def test_label_maps_of_a_grid_come_from_the_machines_that_predicted_them(copied):
    record = copied.studies[1].folder / "unet" / "predict.json"
    told = records.read_json(record)
    told["provenance"]["environment"]["CPU"] = "another processor"
    records.write_json(record, told)
    gather(copied, {})
    made = records.recorded_provenance(copied.folder)["unet/predict"]
    assert made["environment"]["CPU"].endswith(" / another processor")


def test_a_job_that_fails_is_tried_twice_and_recorded_and_the_others_go_on(root, grid):
    result = command_line(*asked(root, "--seeds", 0, "--folds", 2, "--models", "unet", "tu-nothing", "--workers", 2))
    assert result.returncode == 1
    assert "5 jobs: 3 finished, 2 failed" in result.stdout
    assert "04_train_tu-nothing failed in cell" in result.stderr and "executed so far" in result.stderr
    run = grid.studies[0]
    assert (run.folder / "notebooks" / "04_train_tu-nothing.log").read_text().count("begins") == 2
    job = pipeline.Job(run, pipeline.notebooks(["04"])[0], "tu-nothing")
    assert pipeline.state_of(job, job.data) == "failed" and job.file(".ipynb").exists()


def test_two_drivers_at_once_run_no_job_twice(tmp_path):
    write_dataset(tmp_path / "data")
    command = [sys.executable, "-m", "lumbar_utils"]
    command += map(str, asked(tmp_path, "--seeds", 0, "--models", "unet", "--workers", 1))
    drivers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for driver in drivers:
        driver.communicate()
    logs = list((tmp_path / "runs").glob("*/notebooks/*.log"))
    assert len(logs) == 2 and [log.read_text().count("begins") for log in logs] == [1, 1]
    assert [driver.returncode for driver in drivers] == [0, 0]


@pytest.mark.parametrize(
    "more, message",
    [
        (["--seeds", 0, 0], "the seeds of a grid are 0, 0; give one or more, each once"),
        (["--seeds", 0, "--folds", 7], "6 patients cannot be split into 7 folds"),
        (["--seeds", 0, "--scheduler", "tcp://127.0.0.1:9"], "no Dask scheduler answers at tcp://127.0.0.1:9"),
        (["--seeds", 0, "--only", "05"], "--only cannot be used here: it is of a single study"),
        (["--seeds", 0, "--models", "unet", "resnet"], "unknown network 'resnet'"),
    ],
)
def test_bad_input_ends_with_one_clear_line_before_any_training(tmp_path, more, message):
    write_dataset(tmp_path / "data")
    result = in_process(*asked(tmp_path, *more))
    assert result.returncode == 2
    assert result.stderr.strip().splitlines()[-1].startswith("StudyError: ") and message in result.stderr
    assert not list((tmp_path / "runs").glob("*/notebooks/*.ipynb"))


def test_results_hang_on_threads_so_a_grid_keeps_those_it_was_begun_with(grid):
    assert threads_of([grid]) == 1


def test_lists_on_the_command_line_end_where_the_next_option_begins():
    app = in_process("run", "--seeds", 0, 1, "--profile", "smoke", "7", "--dry-run")
    assert app.returncode == 2 and "unexpected extra argument(s) (7)" in app.stderr


def test_the_page_on_grids_names_every_option_of_them():
    text = (ROOT / "docs" / "grids.md").read_text()
    for option in ("--seeds", "--folds", "--models", "--datasets", "--workers", "--threads", "--scheduler", "--keep",
                   "--dry-run"):  # fmt: skip
        assert option in text
