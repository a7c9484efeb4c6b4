"""Files are whole or absent."""

import json

import pytest

from lumbar_utils import StudyError, records


def test_a_write_that_fails_half_way_leaves_the_file_before(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("before")
    with pytest.raises(RuntimeError), records.atomic_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_named_with_its_remedy(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match=r"could not write .*history.csv: .*; make room or grant access and run again"):
        records.write_text(tmp_path / "file" / "history.csv", "x")


def test_a_file_that_says_the_same_is_not_written_again(tmp_path):
    path = tmp_path / "split.csv"
    records.write_text(path, "patient\n")
    written = path.stat().st_mtime_ns
    records.write_text(path, "patient\n")
    assert path.stat().st_mtime_ns == written


def test_work_is_finished_while_its_origin_and_all_of_its_files_are_there(tmp_path):
    record, figure = tmp_path / "fit.json", tmp_path / "figures" / "fig1.png"
    figure.parent.mkdir()
    figure.write_text("")
    assert not records.is_finished(record, "a")
    records.mark_finished(record, "a", [figure], seconds=1)
    assert records.is_finished(record, "a")
    assert not records.is_finished(record, "b")
    figure.unlink()
    assert not records.is_finished(record, "a")


def test_fingerprints_follow_values_and_not_their_order_in_a_dictionary():
    assert records.fingerprint({"a": 1, "b": 2}) == records.fingerprint({"b": 2, "a": 1})
    assert records.fingerprint({"a": 1}) != records.fingerprint({"a": 2})


def test_the_environment_has_the_rows_of_table_1():
    environment = records.environment()
    assert list(environment) == ["CPU", "Memory", "GPU", "Operating system", "Software environment"]
    assert "torch 2." in environment["Software environment"]


def test_provenance_names_the_commit_and_does_without_git(monkeypatch):
    assert records.provenance()["packages"]["torch"].startswith("2.")
    monkeypatch.setenv("PATH", "")
    assert records.provenance()["commit"] == "unknown"


def test_what_takes_long_to_find_out_is_found_out_again_only_for_something_new(tmp_path):
    path, asked = tmp_path / "study.json", []
    for settings in ({"a": 1}, {"a": 1}, {"a": 2}):
        records.update_json(path, settings, lambda: asked.append(1) or {"slow": len(asked)})
    assert len(asked) == 2
    assert json.loads(path.read_text()) == {"a": 2, "slow": 2}
