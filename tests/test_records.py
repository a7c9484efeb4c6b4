"""Files are complete or absent, locks exclude, and records say what is finished."""

import errno
import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from lumbar_utils import StudyError, machine, records


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


def test_names_that_look_like_numbers_or_nothing_are_read_back_as_they_were_written(tmp_path):
    table = pd.DataFrame({"case": ["001", "NA"], "patient": ["1e5", "None"], "value": [0.5, float("nan")]})
    records.write_csv(tmp_path / "a.csv", table)
    pd.testing.assert_frame_equal(records.read_csv(tmp_path / "a.csv"), table)


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


def test_work_whose_file_or_record_was_cut_off_is_not_finished(tmp_path):
    record, table = tmp_path / "fit.json", tmp_path / "history.csv"
    table.write_text("epoch,val_f1\n1,0.5\n")
    records.mark_finished(record, "a", [table])
    assert records.truncated_files(record) == []
    table.write_text("epoch,val_f1\n")  # a whole line less
    assert records.truncated_files(record) == [table] and not records.is_finished(record, "a")
    table.write_text("epoch,val_f1\n1,0.5\n")
    record.write_text(record.read_text()[:40])
    assert not records.is_complete(record) and not records.is_finished(record, "a")


@pytest.mark.parametrize(
    "content", [b"", b'{"a\n"b', b"\0" * 9, b"\xff\xfe{}"], ids=["empty", "cut", "zeros", "no text"]
)
@pytest.mark.parametrize("read", [records.read_json, records.read_csv])
def test_what_is_left_of_a_file_is_refused_by_name(tmp_path, read, content):
    (tmp_path / "it").write_bytes(content)
    with pytest.raises(StudyError, match="it is cut off or damaged; copy it again, or run the study again"):
        read(tmp_path / "it")


def test_fingerprints_follow_values_and_not_their_order_in_a_dictionary():
    assert records.fingerprint({"a": 1, "b": 2}) == records.fingerprint({"b": 2, "a": 1})
    assert records.fingerprint({"a": 1}) != records.fingerprint({"a": 2})


def test_the_environment_has_the_rows_of_table_1():
    environment = machine.environment()
    assert list(environment) == ["CPU", "Memory", "GPU", "Operating system", "Software environment"]
    assert "torch 2." in environment["Software environment"]


@pytest.fixture
def commit():
    """The commit as asked for anew: a process asks once."""
    records._commit.cache_clear()
    yield records._commit
    records._commit.cache_clear()


def test_provenance_does_without_git(commit, monkeypatch):
    assert records.provenance()["packages"]["torch"].startswith("2.")
    monkeypatch.setenv("PATH", "")
    commit.cache_clear()
    assert commit() == "unknown"


def git(folder, *arguments):
    named = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    done = subprocess.run(["git", *named, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_commit_counts_only_if_the_repository_is_the_project_s_own(commit, tmp_path, monkeypatch):
    (tmp_path / "project" / "lumbar_utils").mkdir(parents=True)
    monkeypatch.setattr(records, "PACKAGE", tmp_path / "project" / "lumbar_utils")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "of somebody else")
    assert commit() == "unknown"
    git(tmp_path / "project", "init", "--quiet")
    git(tmp_path / "project", "commit", "--quiet", "--allow-empty", "--message", "ours")
    commit.cache_clear()
    assert commit() == git(tmp_path / "project", "rev-parse", "HEAD")


@pytest.mark.skipif(os.name != "posix", reason="a umask is of POSIX systems")
@pytest.mark.parametrize("umask, file_mode, folder_mode", [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)])
def test_files_and_folders_have_the_permissions_that_the_umask_allows(tmp_path, umask, file_mode, folder_mode):
    before = os.umask(umask)
    try:
        records.write_text(tmp_path / "a.csv", "x")
        with records.atomic_folder(tmp_path / "cache") as folder:
            (folder / "b.npy").touch()
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {"a.csv": file_mode, "cache": folder_mode, "b.npy": file_mode}


def test_the_umask_is_never_set_as_other_threads_may_be_writing():
    source = "".join(path.read_text() for path in records.PACKAGE.rglob("*.py"))
    assert "os.umask(" not in source


def test_of_two_that_make_one_folder_at_once_the_first_is_kept(tmp_path):
    with records.atomic_folder(tmp_path / "cache") as second:
        (second / "by").write_text("the second")
        with records.atomic_folder(tmp_path / "cache") as first:
            (first / "by").write_text("the first")
    assert (tmp_path / "cache" / "by").read_text() == "the first"
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_a_record_says_by_what_the_work_was_made(tmp_path):
    records.mark_finished(tmp_path / "unet" / "fit.json", "a", [])
    recorded = records.recorded_provenance(tmp_path)
    assert recorded == {"unet/fit": records.provenance()}


def test_asking_whether_a_lock_is_held_keeps_nobody_from_taking_it(tmp_path):
    lock = tmp_path / "02.lock"
    script = "import sys; from pathlib import Path; from lumbar_utils import records\n"
    script += "print('asks', flush=True)\nfor _ in range(100_000): records.is_locked(Path(sys.argv[1]))"
    lock.touch()
    with subprocess.Popen([sys.executable, "-c", script, lock], stdout=subprocess.PIPE, text=True) as asking:
        assert asking.stdout.readline() == "asks\n"
        for _ in range(300):
            with records.file_lock(lock) as held:
                assert held is not None
        assert asking.poll() in (None, 0)
        asking.terminate()


def test_a_lock_is_held_by_one_and_seen_by_all(tmp_path):
    lock = tmp_path / "02.lock"
    assert not records.is_locked(lock)
    with records.file_lock(lock) as held, records.file_lock(lock) as again:
        assert held is not None and again is None and records.is_locked(lock)
    assert not records.is_locked(lock)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_named_and_the_run_goes_on(tmp_path, monkeypatch, code):
    def flock(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", flock)
    words = f"the disk of {tmp_path} has no locks .*; start one run at a time there"
    with pytest.warns(UserWarning, match=words), records.file_lock(tmp_path / "02.lock") as held:
        assert held is not None
    with pytest.warns(UserWarning, match="has no locks"):
        assert not records.is_locked(tmp_path / "02.lock")
