"""How far a grid is, and what is still to come, from records written by hand."""

import pandas as pd
import pytest

from lumbar_utils import pipeline, progress, records
from lumbar_utils.pipeline import Job
from lumbar_utils.study import Grid, Study

UNET, HRNET = (pipeline.notebooks([number])[0] for number in ("02", "03"))


def finished(study, name, seconds, images=100):
    """A study's folder with the record of one job, done in so many seconds."""
    (study.folder / "notebooks").mkdir(parents=True, exist_ok=True)
    data = {"cases": images, "fingerprint": "of the data"}
    records.write_json(study.folder / "study.json", {"settings": study.settings, "data": data})
    facts = {"seconds": seconds, "memory_mb": 500.0, "disk_mb": 20.0}
    records.mark_finished(study.folder / "notebooks" / f"{name}.json", "it", [study.folder / "study.json"], **facts)


def test_seconds_of_training_go_with_epochs_pixels_and_images(tmp_path):
    finished(Study("smoke", epochs=2, runs=tmp_path), "02_train_unet", seconds=10.0)
    twice = Job(Study("smoke", epochs=4, height=128, runs=tmp_path), UNET, "unet")
    other = Job(Study("smoke", epochs=4, runs=tmp_path), HRNET, "hrnet")
    table = progress.estimate([twice, other], images=300)
    assert table["seconds"].tolist()[0] == pytest.approx(10 * 2 * 2 * 3)
    assert table["memory_mb"].tolist()[0] == 500 and table["disk_mb"].tolist()[0] == 20
    assert table["source"].tolist() == ["1 finished here", "not measured yet"]
    assert pd.isna(table["seconds"][1])


def test_what_was_measured_here_comes_before_the_reference(tmp_path, monkeypatch):
    reference = Study("quick", epochs=2, runs=tmp_path / "reference")
    finished(reference, "02_train_unet", seconds=9.0)
    export_of_it = tmp_path / "exported"
    records.write_csv(export_of_it / "cells.csv", records.costs_of(reference.folder))
    records.write_json(export_of_it / "study.json", records.read_json(reference.folder / "study.json"))
    monkeypatch.setattr(progress, "REFERENCE", export_of_it)
    job = Job(Study("quick", runs=tmp_path), UNET, "unet")
    assert progress.estimate([job], 514)["source"].tolist() == ["the reference study"]
    finished(Study("quick", epochs=3, runs=tmp_path), "02_train_unet", seconds=7.0)
    assert progress.estimate([job], 514)["source"].tolist() == ["1 finished here"]


def test_folds_leave_more_or_fewer_patients_to_train_on(tmp_path):
    whole, halves = Study("smoke", runs=tmp_path), Study("smoke", folds=2, runs=tmp_path)
    assert progress.work(whole.settings, 100) == pytest.approx(2 * 70 * 64 * 64)
    assert progress.work(halves.settings, 100) == pytest.approx(2 * 35 * 64 * 64)


def test_a_study_that_tests_networks_as_they_are_is_no_measure_of_a_training(tmp_path):
    study = Study("smoke", runs=tmp_path)
    finished(study.tested_on(str(tmp_path / "elsewhere")), "02_train_unet", seconds=1.0)
    assert progress.estimate([Job(study, UNET, "unet")], 100)["source"].tolist() == ["not measured yet"]


def test_time_left_counts_what_runs_as_half_and_shares_it_over_the_workers():
    table = pd.DataFrame({"state": ["finished", "running", "failed", "waiting"]})
    costs = pd.DataFrame({"seconds": [100.0, 100.0, 100.0, 100.0]})
    assert progress.time_left(table, costs, 1) == 250
    assert progress.time_left(table, costs, 2) == 125


@pytest.mark.parametrize(
    "seconds, words", [(40, "40 s"), (720, "12 min"), (7500, "2 h 05 min"), (float("nan"), "unknown")]
)
def test_durations_are_said_as_people_say_them(seconds, words):
    assert progress.duration(seconds) == words


def test_what_was_finished_before_a_change_waits_and_says_so(tmp_path):
    study = Study("smoke", runs=tmp_path)
    finished(study, "02_train_unet", seconds=10.0)  # by code, and on data, of other fingerprints
    table = progress.table_of([Job(study, UNET, "unet"), Job(study, HRNET, "hrnet")])
    assert table["state"].tolist() == ["waiting", "waiting"]
    assert table["error"].tolist() == ["finished before code, data or settings changed", ""]


def test_a_plan_of_a_study_has_its_notebooks_and_of_a_grid_the_comparison_too(tmp_path):
    study = Study("smoke", phantom_patients=6, phantom_size=64, runs=tmp_path / "runs", cache=tmp_path / "cache")
    told = progress.plan(study, 1, 2)
    assert told.startswith(study.folder.name) and "6 jobs: 6 waiting; 1 at once, 2 threads each" in told
    assert [line.split()[2] for line in told.splitlines()[2:8]] == [job.name for job in pipeline.jobs_of(study)]
    assert "; then notebooks 05 and 06, which took unknown" in progress.plan(Grid(study, (0, 1)), 1, 2)
    assert not (tmp_path / "runs").exists()


def test_a_job_is_running_while_its_lock_is_held_and_failed_once_it_left_an_error(study):
    job = Job(study, UNET, "unet")
    assert progress.state_of(job) == "waiting"
    with records.file_lock(job.file(".lock")) as held:
        assert held is not None
        assert progress.state_of(job) == "running"
        with records.file_lock(job.file(".lock")) as again:
            assert again is None
    records.write_json(job.file(".error.json"), {"error": "StudyError: no room"})
    assert progress.state_of(job) == "failed"
    table = progress.table_of([job])
    assert table["error"].tolist() == ["StudyError: no room"]
    assert progress.count_states(table) == "1 job: 1 failed"
