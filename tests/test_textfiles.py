"""Tables and JSON as people and spreadsheets write them."""

import pytest

from lumbar_utils import StudyError
from lumbar_utils.data import textfiles


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
    assert textfiles.read_table(tmp_path / "t.csv", ("file", "patient")).values.tolist() == [["a", "NA"]]


@pytest.mark.parametrize(
    "text, message",
    [
        (b"", "is empty; it needs the columns file, patient"),
        (b"file,patient\n\x00,1", "is no text in UTF-8, UTF-16 or Windows-1252"),
        (b"file,patient\na,1,2", "line 2 has 3 values and the header 2; is the file whole"),
        (b"file,patient,file\na,1,b", "has the column 'file' twice"),
        (b'file,patient\n"a,1', "line 2 cannot be read: .*; is the file whole"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path, text, message):
    (tmp_path / "t.csv").write_bytes(text)
    with pytest.raises(StudyError, match=message):
        textfiles.read_table(tmp_path / "t.csv", ("file", "patient"))


@pytest.mark.parametrize("text", [b"", b"[1]", b"{", b"\xff", b'{"1": "L1", "1": "L2"}', b"[" * 9999])
def test_what_is_no_json_object_is_refused(tmp_path, text):
    (tmp_path / "labels.json").write_bytes(text)
    with pytest.raises(StudyError, match=r"labels.json (is not JSON|holds list where an object is expected)"):
        textfiles.read_json(tmp_path / "labels.json")


def test_a_byte_order_mark_is_no_part_of_json(tmp_path):
    (tmp_path / "labels.json").write_bytes(b"\xef\xbb\xbf{}")
    assert textfiles.read_json(tmp_path / "labels.json") == {}
