"""How far a grid is, from records written by hand."""

import pandas as pd

from lumbar_utils import pipeline, records
from lumbar_utils.pipeline import Job
from lumbar_utils.study import Grid, Study

UNET, HRNET = (pipeline.notebooks([number])[0] for number in ("02", "03"))


def finished(study, name, seconds):
    """A study's folder with the record of one job, done in so many seconds."""
    (study.folder / "notebooks").mkdir(parents=True, exist_ok=True)
    data = {"cases": 100, "fingerprint": "of the data"}
    records.write_json(study.folder / "study.json", {"settings": study.settings, "data": data})
    record = study.folder / "notebooks" / f"{name}.json"
    records.mark_finished(record, "it", [study.folder / "study.json"], seconds=seconds)


def test_time_left_is_that_of_finished_jobs_of_the_same_network_shared_by_those_that_run():
    table = pd.DataFrame({"model": ["unet"] * 4, "state": ["finished", "running", "running", "waiting"]})
    table["seconds"] = [600, None, None, None]
    assert pipeline.time_left(table) == "; 15 min left"
    assert pipeline.time_left(table.head(1)) == ""  # nothing is left
    assert pipeline.time_left(table.replace({"model": {"unet": "hrnet"}}).tail(3)) == ""  # nothing to go by


def test_what_was_finished_before_a_change_waits_and_says_so(tmp_path):
    study = Study("smoke", runs=tmp_path)
    finished(study, "02_train_unet", seconds=10.0)  # by code, and on data, of other fingerprints
    table = pipeline.table_of([Job(study, UNET, "unet"), Job(study, HRNET, "hrnet")])
    assert table["state"].tolist() == ["waiting", "waiting"]
    assert table["error"].tolist() == ["finished before code, data or settings changed", ""]


def test_every_job_of_a_study_and_of_a_grid_is_listed(tmp_path):
    study = Study("smoke", phantom_patients=6, phantom_size=64, runs=tmp_path / "runs", cache=tmp_path / "cache")
    lines = pipeline.describe_jobs(study).splitlines()
    assert lines[0] == study.folder.name and lines[-1] == "6 jobs: 6 waiting"
    assert [line.split()[2] for line in lines[2:8]] == [job.name for job in pipeline.jobs_of(study)]
    assert pipeline.describe_jobs(Grid(study, (0, 1))).endswith("7 jobs: 7 waiting")
    assert not (tmp_path / "runs").exists()


def test_a_job_is_running_while_its_lock_is_held_and_failed_once_it_left_an_error(study):
    job = Job(study, UNET, "unet")
    assert pipeline.state_of(job, job.data) == "waiting"
    with records.file_lock(job.file(".lock")) as held:
        assert held is not None
        assert pipeline.state_of(job, job.data) == "running"
        with records.file_lock(job.file(".lock")) as again:
            assert again is None
    records.write_json(job.file(".error.json"), {"error": "StudyError: no room"})
    assert pipeline.state_of(job, job.data) == "failed"
    table = pipeline.table_of([job])
    assert table["error"].tolist() == ["StudyError: no room"]
    assert pipeline.count_states(table) == "1 job: 1 failed"
