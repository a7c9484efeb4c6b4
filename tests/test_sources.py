"""A source is written into the canonical form once, whoever asks for it and wherever it lies."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from test_nifti import source  # noqa: F401

from lumbar_utils.data import sources
from lumbar_utils.study import Study


@pytest.fixture
def written(source, tmp_path):  # noqa: F811
    """Where the set lies in the canonical form, for a source at a path."""

    def locate(path=source):
        return sources.locate(Study("smoke", dataset=f"nifti:{path}", cache=tmp_path / "cache"))

    return locate


def test_a_source_that_was_moved_copied_or_linked_is_the_same(source, tmp_path, written):  # noqa: F811
    first = written()
    shutil.copytree(source, tmp_path / "elsewhere")
    (tmp_path / "link").symlink_to(source)
    assert written(tmp_path / "elsewhere") == written(tmp_path / "link") == first


@pytest.mark.parametrize("linked", [False, True])
def test_a_file_of_other_content_is_another_source_at_any_depth_and_behind_a_link(source, tmp_path, written, linked):  # noqa: F811
    if linked:
        (source / "masks").rename(tmp_path / "real")
        (source / "masks").symlink_to(tmp_path / "real")
    first = written()
    shutil.copy(source / "masks" / "bert.nii.gz", source / "masks" / "anna_t1.nii.gz")
    with (source / "masks" / "bert.nii.gz").open("ab") as file:
        file.write(bytes(8))
    assert written() != first


def test_two_first_users_at_once_get_one_folder(written):
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: written(), range(2))
    assert first == second
    assert [path.name for path in first.parent.iterdir()] == [first.name]
