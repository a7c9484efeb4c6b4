"""Files are whole or absent."""

import errno
import json
import os
import subprocess
import sys

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


def test_asking_whether_a_lock_is_held_keeps_nobody_from_taking_it(tmp_path):
    lock = tmp_path / "02.lock"
    script = "import sys; from pathlib import Path; from lumbar_utils import records\n"
    script += "print('asks', flush=True)\nfor _ in range(100_000): records.is_held(Path(sys.argv[1]))"
    lock.touch()
    with subprocess.Popen([sys.executable, "-c", script, lock], stdout=subprocess.PIPE, text=True) as asking:
        assert asking.stdout.readline() == "asks\n"
        for _ in range(2000):
            with records.alone(lock) as held:
                assert held is not None
        assert asking.poll() in (None, 0)
        asking.terminate()


def test_a_lock_is_held_by_one_and_seen_by_all(tmp_path):
    lock = tmp_path / "02.lock"
    assert not records.is_held(lock)
    with records.alone(lock) as held, records.alone(lock) as again:
        assert held is not None and again is None and records.is_held(lock)
    assert not records.is_held(lock)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_named_and_the_run_goes_on(tmp_path, monkeypatch, code):
    def flock(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", flock)
    words = f"the disk of {tmp_path} has no locks .*; start one run at a time there"
    with pytest.warns(UserWarning, match=words), records.alone(tmp_path / "02.lock") as held:
        assert held == -1
    with pytest.warns(UserWarning, match="has no locks"):
        assert not records.is_held(tmp_path / "02.lock")


@pytest.mark.parametrize("umask, file_mode, folder_mode", [(0o027, 0o640, 0o750), (0o077, 0o600, 0o700)])
def test_files_and_folders_are_as_open_as_the_umask_allows(tmp_path, umask, file_mode, folder_mode):
    script = f"import os, sys; os.umask({umask}); from pathlib import Path; from lumbar_utils import records\n"
    script += "root = Path(sys.argv[1]); records.write_text(root / 'runs' / 'a.csv', 'a')\n"
    script += "with records.atomic_folder(root / 'cache') as folder: (folder / 'images.npy').touch()"
    subprocess.run([sys.executable, "-c", script, tmp_path], check=True)
    modes = {path.relative_to(tmp_path).as_posix(): path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {"runs": folder_mode, "runs/a.csv": file_mode, "cache": folder_mode, "cache/images.npy": file_mode}
