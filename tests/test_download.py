"""Downloads from a real server on this machine's loopback, which breaks off, changes its mind and sends nonsense."""

import hashlib
import http.server
import io
import re
import stat
import threading
import zipfile

import pytest
from typer.testing import CliRunner

from lumbar_utils import StudyError
from lumbar_utils.__main__ import app
from lumbar_utils.data import download
from lumbar_utils.data.download import CHUNK, SOURCES, File, Source, fetch, unpack

CONTENT = bytes(range(256)) * (CHUNK // 64)  # four chunks


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`; `faults` says, a request after the other, what goes wrong with it: bytes to send, or a status."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.faults, self.ranges, self.etag, self.requests = {"/data": CONTENT}, [], True, '"1"', []

    def url(self, path="/data"):
        return f"http://127.0.0.1:{self.server_address[1]}{path}"

    @property
    def sent(self):
        """(first byte asked for, bytes sent) of every request."""
        return [(asked, sent) for _, asked, sent in self.requests]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, content = self.server, self.server.files.get(self.path)
        fault = server.faults.pop(0) if server.faults else None
        asked = int(re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])
        asked = asked if self.headers.get("If-Range") == server.etag else 0  # RFC 9110, 13.1.5
        if content is None or fault in (403, 503):
            server.requests.append((self.path, asked, 0))
            return self.send_error(fault or 404)
        start = asked if server.ranges else 0
        if start >= len(content):
            server.requests.append((self.path, asked, 0))
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if server.etag:
            self.send_header("ETag", server.etag)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:][:fault]
        server.requests.append((self.path, asked, len(body)))
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "WAIT_S", 0)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def source_of(server, path="data.bin", **settings):
    return Source("test set", "https://example.org/set", "CC0", "Nobody", (File(path, server.url(), **settings),))


def zip_of(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_a_download_arrives_whole_with_licence_citation_and_checksum(server, tmp_path, capsys):
    fetch(source_of(server), tmp_path)
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert (tmp_path / "data.bin.sha256").read_text() == f"{sha256}  data.bin\n"
    printed = capsys.readouterr().out
    assert printed.startswith("test set\nlicence: CC0\nplease cite: Nobody\nno checksum of data.bin is published; ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.bin", "data.bin.sha256"]


def test_after_a_break_only_the_rest_is_fetched(server, tmp_path):
    server.faults = [2 * CHUNK]
    fetch(source_of(server), tmp_path)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert server.sent == [(0, 2 * CHUNK), (2 * CHUNK, 2 * CHUNK)]


def test_a_later_call_goes_on_from_the_part_of_an_earlier_one(server, tmp_path):
    server.faults = [3 * CHUNK, 503, 503, 503, 503]
    with pytest.raises(StudyError, match="could not be downloaded"):
        fetch(source_of(server), tmp_path)
    assert not (tmp_path / "data.bin").exists()
    fetch(source_of(server), tmp_path)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert server.sent == [(0, 3 * CHUNK), *[(3 * CHUNK, 0)] * 4, (3 * CHUNK, CHUNK)]


def test_a_server_that_ignores_ranges_starts_anew(server, tmp_path):
    server.ranges, server.faults = False, [2 * CHUNK]
    fetch(source_of(server), tmp_path)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert server.sent == [(0, 2 * CHUNK), (2 * CHUNK, 4 * CHUNK)]


def change_etag(server):
    server.files["/data"], server.etag = CONTENT[::-1], '"2"'


def lengthen(server):
    server.files["/data"], server.etag = CONTENT + b"more", None


def shorten(server):
    server.files["/data"] = b"short"


@pytest.mark.parametrize("change", [change_etag, lengthen, shorten])
def test_a_file_that_has_changed_meanwhile_starts_anew(server, tmp_path, change):
    server.etag = None if change is lengthen else server.etag
    server.faults = [2 * CHUNK, 503, 503, 503, 503]
    with pytest.raises(StudyError):
        fetch(source_of(server), tmp_path)
    change(server)
    fetch(source_of(server), tmp_path)
    assert (tmp_path / "data.bin").read_bytes() == server.files["/data"]
    assert server.sent[-1] == (0, len(server.files["/data"]))


def test_wrong_bytes_are_refused_and_removed(server, tmp_path):
    with pytest.raises(StudyError, match=r"does not match .* expected sha256 is the published one"):
        fetch(source_of(server, sha256="0" * 64), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_second_copy_is_held_against_the_checksum_of_the_first(server, tmp_path):
    fetch(source_of(server), tmp_path)
    fetch(source_of(server), tmp_path)
    assert len(server.requests) == 1  # what is there is checked, not fetched
    (tmp_path / "data.bin").unlink()
    server.files["/data"] = CONTENT[::-1]
    with pytest.raises(StudyError, match=r"that of the first copy; remove .*data\.bin\.sha256 to accept"):
        fetch(source_of(server), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["data.bin.sha256"]


@pytest.mark.parametrize("fault, requests", [(403, 1), (503, 5)], ids=["for good", "five tries"])
def test_a_failed_download_tells_the_way_by_hand(server, tmp_path, fault, requests):
    server.faults = [fault] * 9
    steps = f"download data.bin from https://example.org/set in a browser, put it at {tmp_path}/data.bin"
    with pytest.raises(StudyError, match=re.escape(steps)):
        fetch(source_of(server), tmp_path)
    assert len(server.requests) == requests


def test_a_server_that_is_not_there_is_told_too(server, tmp_path):
    server.server_close()
    with pytest.raises(StudyError, match=r"could not be downloaded .* in a browser"):
        fetch(source_of(server), tmp_path)


def test_a_disk_too_small_is_told_before_the_first_byte(server, tmp_path):
    with pytest.raises(StudyError, match=r"data\.zip needs 1000000000\.0 GB on disk, .* GB are free; make room"):
        fetch(source_of(server, "data.zip", unpacked=10**18), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_page_in_place_of_an_archive_is_refused_and_its_checksum_not_recorded(server, tmp_path):
    server.files["/data"] = b"<html>please prove that you are human"
    with pytest.raises(StudyError, match=r"sent no zip archive but a web page, perhaps"):
        fetch(source_of(server, "composite.zip"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_archive_is_unpacked_once_and_removed(server, tmp_path):
    server.files["/data"] = zip_of(**{"masks/1_t1.mha": b"one", "masks/2_t2.mha": b"two", "__MACOSX/._1_t1.mha": b"?"})
    source = source_of(server, "spider/masks.zip", unpacked=1)
    fetch(source, tmp_path)
    fetch(source, tmp_path)
    assert {path.name: path.read_bytes() for path in (tmp_path / "spider" / "masks").iterdir()} == {
        "1_t1.mha": b"one", "2_t2.mha": b"two",
    }  # fmt: skip
    assert not (tmp_path / "spider" / "masks.zip").exists()
    assert len(server.requests) == 1


def link(name):
    member = zipfile.ZipInfo(name)
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


@pytest.mark.parametrize(
    "member",
    [
        pytest.param("../outside.mha", id="climbs"),
        pytest.param("a/..\\..\\outside.mha", id="climbs by backslashes"),
        pytest.param("/outside.mha", id="absolute"),
        pytest.param("C:/outside.mha", id="on a drive"),
        pytest.param("C:outside.mha", id="relative to a drive"),
        pytest.param(link("outside.mha"), id="link"),
    ],
)
def test_no_member_of_an_archive_is_written_outside_of_its_folder(tmp_path, member):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("1_t1.mha", b"one")
        archive.writestr(member, b"../elsewhere")
    before = set(tmp_path.parent.rglob("*"))
    unpack(tmp_path / "images.zip", tmp_path / "images")
    assert set(tmp_path.parent.rglob("*")) - before == {
        tmp_path / "images", tmp_path / "images" / "1_t1.mha", tmp_path / "images" / "outside.mha",
    }  # fmt: skip
    assert not (tmp_path / "images" / "outside.mha").is_symlink()


def test_an_archive_with_two_files_of_one_name_leaves_nothing_behind(tmp_path):
    (tmp_path / "images.zip").write_bytes(zip_of(**{"1_t1.mha": b"one", "other/1_t1.mha": b"two"}))
    with pytest.raises(StudyError, match=r"images\.zip has two files named 1_t1\.mha; unpack it by hand"):
        unpack(tmp_path / "images.zip", tmp_path / "images")
    assert [path.name for path in tmp_path.iterdir()] == ["images.zip"]


def test_an_archive_larger_than_the_disk_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("1_t1.mha", b"one")
        archive.filelist[0].file_size = 10**18
    with pytest.raises(StudyError, match=r"images\.zip needs 1000000000\.0 GB on disk, .* GB are free; make room"):
        unpack(tmp_path / "images.zip", tmp_path / "images")


def test_a_damaged_archive_is_refused_whole(tmp_path):
    (tmp_path / "images.zip").write_bytes(zip_of(**{"1_t1.mha": b"one"}).replace(b"one", b"two"))
    with pytest.raises(StudyError, match=r"images\.zip cannot be unpacked \(Bad CRC-32"):
        unpack(tmp_path / "images.zip", tmp_path / "images")
    assert [path.name for path in tmp_path.iterdir()] == ["images.zip"]


def test_the_command_fetches_into_a_folder_of_choice(server, tmp_path, monkeypatch):
    monkeypatch.setitem(SOURCES, "composite", source_of(server))
    result = CliRunner().invoke(app, ["fetch", "composite", "--to", str(tmp_path)])
    assert result.exit_code == 0
    assert "licence: CC0" in result.output
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_an_unknown_source_is_told_what_there_is():
    result = CliRunner().invoke(app, ["fetch", "compost"])
    assert result.exit_code == 2
    assert "'compost' cannot be fetched; known are composite, spider" in result.output


@pytest.mark.parametrize("kind", SOURCES)
def test_what_is_known_of_a_source_has_its_form(kind):
    for file in SOURCES[kind].files:
        assert file.url.startswith("https://")
        assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)
        assert file.path == f"{kind}.zip" or file.path.startswith(f"{kind}/")  # where datasets.find_raw looks
