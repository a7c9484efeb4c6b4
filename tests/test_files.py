"""Folders, tables, JSON and names of labels, as people, spreadsheets and other tools write them."""

from pathlib import Path

import pytest

from lumbar_utils import StudyError
from lumbar_utils.data import files
from lumbar_utils.data.files import level_of, named_values


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbffile,patient\na,NA\n",
        b"File;Patient \r\na; NA\r\n",
        b"\nfile\tpatient\n\na\tNA",
        b'file,patient\n"a","NA"\n',
        b"sep=;\r\nfile;patient\r\na;NA\r\n",
        b'"sep=,"\nfile,patient\na,NA\n',
    ],
)
def test_a_table_may_be_written_in_several_ways(tmp_path, text):
    (tmp_path / "t.csv").write_bytes(text.lstrip(b"\n"))
    assert files.read_table(tmp_path / "t.csv", ("file", "patient")).values.tolist() == [["a", "NA"]]


@pytest.mark.parametrize(
    "text, message",
    [
        (b"", "has the columns none; file, patient are needed, each once"),
        (b"file,patient\n\x00,1", "is no text in UTF-8, UTF-16 or Windows-1252"),
        (b"file,patient\na,1,2", "line 2 has 3 values and the header 2; is the file whole"),
        (b"file,patient,file\na,1,b", "has the columns file, patient, file; file, patient are needed, each once"),
        (b'file,patient\n"a,1', "line 2 cannot be read: .*; is the file whole"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path, text, message):
    (tmp_path / "t.csv").write_bytes(text)
    with pytest.raises(StudyError, match=message):
        files.read_table(tmp_path / "t.csv", ("file", "patient"))


@pytest.mark.parametrize("text", [b"", b"[1]", b"{", b"\xff", b'{"1": "L1", "1": "L2"}', b"[" * 9999])
def test_what_is_no_json_object_is_refused(tmp_path, text):
    (tmp_path / "labels.json").write_bytes(text)
    with pytest.raises(StudyError, match=r"labels.json (is not JSON|holds list where an object is expected)"):
        files.read_json(tmp_path / "labels.json")


def test_a_byte_order_mark_is_no_part_of_json(tmp_path):
    (tmp_path / "labels.json").write_bytes(b"\xef\xbb\xbf{}")
    assert files.read_json(tmp_path / "labels.json") == {}


def test_links_are_followed_once_and_hidden_files_passed_over(tmp_path):
    (tmp_path / "real" / "deep").mkdir(parents=True)
    for name in ("real/b", "real/deep/a", "real/.hidden", "real/._a"):
        (tmp_path / name).write_text(name)
    (tmp_path / "in").mkdir()
    for link, target in {"one": "real", "two": "real", "file": "real/b"}.items():
        (tmp_path / "in" / link).symlink_to(tmp_path / target)
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "in")
    found = [path.relative_to(tmp_path / "in").as_posix() for path in files.files_in(tmp_path / "in")]
    assert found == ["file", "one/b", "one/deep/a"]


def test_a_link_that_leads_nowhere_is_an_error(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "gone")
    with pytest.raises(StudyError, match="a is a link to a file that is not there; put it there or remove the link"):
        files.files_in(tmp_path)


@pytest.mark.parametrize(
    "name, level",
    [
        ("L1", "L1"), ("l1", "L1"), ("vertebrae_L1", "L1"), ("L1 vertebra", "L1"), ("Vertebra-S1", "S1"),
        ("lumbar vertebra 2 (L2)", "L2"), ("20_L1", "L1"), ("disc_L1", "disc_L1"), ("L5-S1", "L5-S1"),
        ("L1_L2", "L1_L2"), ("sacrum", "sacrum"), ("L12", "L12"), ("T12", "T12"), ("left facet L3", "left facet L3"),
        ("L 1", "L1"), ("L-02", "L2"), ("l_3", "L3"), ("LWK4", "L4"), ("Lumbar 5", "L5"), ("lumbar_vertebra_4", "L4"),
        ("L4/5", "L4/5"), ("L4-5", "L4-5"), ("disc L5-1", "disc L5-1"), ("rib_L_1", "rib_L_1"), ("L 12", "L 12"),
    ],
)  # fmt: skip
def test_a_name_with_one_level_in_it_is_that_vertebra_and_nothing_else_is(name, level):
    assert level_of(name) == level


@pytest.mark.parametrize(
    "labels, values",
    [
        pytest.param({"1": "L1", "7": "T12"}, {1: "L1", 7: "T12"}, id="value to name"),
        pytest.param({"background": 0, "vertebrae_L1": 1}, {0: "background", 1: "L1"}, id="name to value"),
        pytest.param({"L1": "3"}, {3: "L1"}, id="value as text"),
        pytest.param({"spine": [1, 2], "L1": 1, "L2": [2]}, {1: "L1", 2: "L2"}, id="regions, the whole first"),
        pytest.param({"L1": 1, "spine": [1, 2]}, {1: "L1", 2: "spine"}, id="regions, the whole last"),
    ],
)
def test_labels_are_read_either_way_round(labels, values):
    assert named_values(labels, Path("f")) == values


@pytest.mark.parametrize(
    "labels, message",
    [
        (None, "f has no labels but None"),
        ([1], r"f has no labels but \[1\]"),
        ({}, "f names nothing; one of L1"),
        ({"disc": 1, "sacrum": 2}, "f names 'disc', 'sacrum'; one of L1"),
        ({"L1": 1.5}, "f gives 'L1' the value 1.5; write a whole number from 0 to 255"),
        ({"L1": 256}, "the value 256"),
        ({"L1": True}, "the value True"),
        ({"L1": -1}, "the value -1"),
        ({"L1": None}, "the value None"),
        ({"L1": {"a": 1}}, "the value {'a': 1}"),
        ({"L1": [[1]]}, r"the value \[1\]"),
        ({"L1": 0}, "f gives L1 the value 0, which is background"),
        ({"L1": 1, "L2": [1, 2]}, "f gives L2 the value 1, which is L1"),
    ],
)
def test_labels_that_mean_nothing_or_two_things_are_refused(labels, message):
    with pytest.raises(StudyError, match=message):
        named_values(labels, Path("f"))
