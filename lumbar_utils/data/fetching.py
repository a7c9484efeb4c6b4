"""Public data sets over HTTP into data/raw: resumed after a break, checked against a checksum, unpacked safely."""

import dataclasses
import hashlib
import http.client
import json
import re
import shutil
import ssl
import stat
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from lumbar_utils import StudyError, records
from lumbar_utils.data import composite

TRIES, WAIT_S, TIMEOUT_S = 5, 2.0, 60  # the wait doubles from one try to the next
BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)
PASSING = {408, 416, 429, 500, 502, 503, 504}  # HTTP errors worth another try


@dataclasses.dataclass(frozen=True)
class File:
    """A file to fetch.

    path : where it goes, below data/raw; a zip with `unpacks` goes into the folder of its name, and is then removed.
    sha256 : None where it is not known; the first download's is then recorded beside the file. unpacked : our estimate
    of the bytes it unpacks to, for a warning before the download; the exact ones are checked before unpacking.
    """

    path: str
    url: str
    sha256: str | None = None
    unpacks: bool = False
    unpacked: int = 0


@dataclasses.dataclass(frozen=True)
class Source:
    """A public data set: its page, on whose terms it may be used, and the files that make it."""

    name: str
    page: str
    licence: str
    citation: str
    files: tuple[File, ...]


ZENODO = "https://zenodo.org/records/10159290"
SOURCES = {
    "composite": Source(
        composite.NAME, composite.PAGE, composite.LICENCE, composite.CITATION,
        # the address follows the pattern of Mendeley Data; it could not be tried
        (File("composite.zip", "https://data.mendeley.com/public-api/zip/k3b363f3vz/download/2"),),
    ),
    "spider": Source(
        "SPIDER, lumbar spine MRI", ZENODO, "CC BY 4.0",
        "van der Graaf et al.: Lumbar spine segmentation in MR images: a dataset and a public benchmark, "
        "Scientific Data 11, 264, 2024, doi 10.1038/s41597-024-03090-w; data: doi 10.5281/zenodo.10159290",
        (
            File("spider/overview.csv", f"{ZENODO}/files/overview.csv?download=1"),
            File("spider/masks.zip", f"{ZENODO}/files/masks.zip?download=1",
                 "13a6e25a8c0d74f507e16ebb2edafc277ceeaf2598474f1fed24fdf59cb7f18f", True, 10**9),
            File("spider/images.zip", f"{ZENODO}/files/images.zip?download=1",
                 "a54cba2905284ff6cc9999f1dd0e4d871c8487187db7cd4b068484eac2f50f17", True, 6 * 10**9),
        ),
    ),
}  # fmt: skip


def fetch(source: Source, raw: Path, say: Callable[[str], None] = print) -> None:
    """Put the files of a source into `raw`; what is there already is checked and not fetched again.

    Raises StudyError where a download fails for good (with the way by hand), the disk is too small, a checksum is
    wrong, or an archive is damaged or unsafe.
    """
    say(f"{source.name}\nlicence: {source.licence}\nplease cite: {source.citation}")
    for file in source.files:
        path = raw / file.path
        if file.unpacks and path.with_suffix("").is_dir():
            say(f"{path.with_suffix('')} is there already")
            continue
        by_hand = f"download {path.name} from {source.page} in a browser, put it at {path} and run this again"
        download(file, path, by_hand, say)
        if file.unpacks:
            unpack(path, path.with_suffix(""))
            path.unlink()
        say(f"{path.with_suffix('') if file.unpacks else path} is complete")


def download(file: File, path: Path, by_hand: str, say: Callable[[str], None]) -> None:
    """Fetch `file` to `path`, which appears when it is whole and checked; until then a .part keeps what came."""
    if path.exists():
        return _check(file, path, path, say)
    part = path.with_name(f"{path.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(TRIES):
        try:
            _receive(file, part)
            break
        except BROKEN as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            if attempt + 1 == TRIES or getattr(error, "code", 503) not in PASSING:
                raise StudyError(f"{file.url} could not be downloaded ({error}); {by_hand}") from None
            say(f"{path.name}: {error}; trying again")
            time.sleep(WAIT_S * 2**attempt)
    try:
        _check(file, part, path, say)
    except StudyError as error:
        _forget(part)  # going on from wrong bytes would never end well
        raise StudyError(f"{error}; the download is removed: run this again, or {by_hand}") from None
    part.replace(path)
    _forget(part)


def _receive(file: File, part: Path) -> None:
    """Add to `part` what is missing, or write it anew where the server does not go on or has another version by now."""
    record = _record(part)
    known = json.loads(record.read_text(encoding="utf-8")) if record.exists() and part.exists() else {}
    have = part.stat().st_size if known else 0
    if known and have == known["length"]:
        return
    headers = {"User-Agent": "lumbar_utils", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with _open(file.url, headers, part) as response:
        version, start = _version(response)
        if start and (version, start) != (known, have):
            _forget(part)
            raise ConnectionError("the file has changed since the download began")
        needed, free = (version["length"] or 0) - start + file.unpacked, shutil.disk_usage(part.parent).free
        if needed > free:
            raise StudyError(
                f"{part.stem} needs {needed / 1e9:.1f} GB on disk, {free / 1e9:.1f} GB are free; make room"
            )
        records.write_json(record, version)
        bar = tqdm(total=version["length"], initial=start, unit="B", unit_scale=True, desc=part.stem)
        with bar, part.open("ab" if start else "wb") as out:
            while chunk := response.read1(2**20):
                out.write(chunk)
                bar.update(len(chunk))
    size = part.stat().st_size
    if version["length"] not in (None, size):
        raise ConnectionError(f"broke off at {size} of {version['length']} bytes")


def _open(url: str, headers: dict, part: Path) -> http.client.HTTPResponse:
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # there is no such range: the file is shorter by now
            _forget(part)
        raise


def _version(response: http.client.HTTPResponse) -> tuple[dict, int]:
    """What tells one version of a file from another, and at which of its bytes the response starts."""
    start, length = 0, response.headers.get("Content-Length")
    if response.status == 206:
        whole = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        if not whole:
            raise ConnectionError(f"Content-Range {response.headers.get('Content-Range')!r} cannot be understood")
        start, length = int(whole[1]), whole[2]
    return {"etag": response.headers.get("ETag"), "length": int(length) if length else None}, start


def _record(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _record(part).unlink(missing_ok=True)


def _check(file: File, found: Path, path: Path, say: Callable[[str], None]) -> None:
    """Hold `found` against the known checksum, else against the one on record beside `path`, else put it on record."""
    if path.suffix == ".zip" and not zipfile.is_zipfile(found):
        raise StudyError(f"{found} is no zip archive: the server sent something else, a web page perhaps")
    with found.open("rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    record = path.with_name(f"{path.name}.sha256")
    recorded = record.read_text(encoding="utf-8").split()[0] if record.exists() else None
    expected = file.sha256 or recorded
    if expected is None:
        records.write_text(record, f"{sha256}  {path.name}\n")
        say(f"no checksum of {path.name} is known to us; that of this first copy is recorded in {record}: {sha256}")
    elif sha256 != expected:
        source = "the known one" if file.sha256 else f"that of the first copy, in {record}: remove both for a new one"
        raise StudyError(f"{found} has sha256 {sha256}, expected {expected} ({source})")


def unpack(archive: Path, folder: Path) -> None:
    """Put the files of a zip straight into `folder`, which appears when it is complete; hidden files are left out.

    Archives differ in whether they hold an outer folder, so folders within are ignored. Raises StudyError on a name
    that leads elsewhere, a link, two files of one name, more bytes than the disk has room for, or damage.
    """
    try:
        with records.atomic_folder(folder) as unfinished, zipfile.ZipFile(archive) as opened:
            members = _safe(archive, opened.infolist(), shutil.disk_usage(folder.parent).free)
            for name, member in tqdm(members.items(), desc=f"unpacking {archive.name}", unit="file"):
                with opened.open(member) as packed, (unfinished / name).open("wb") as out:
                    shutil.copyfileobj(packed, out)  # zipfile gives no more than the declared bytes
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # the last: encrypted, or unknown method
        raise StudyError(f"{archive} cannot be unpacked ({error}); remove it and fetch it again") from None


def _safe(archive: Path, members: list[zipfile.ZipInfo], free: int) -> dict[str, zipfile.ZipInfo]:
    """File name -> member of an archive, none of which can do harm."""
    files = {}
    for member in members:
        parts = re.split(r"[/\\]", member.filename)
        if ".." in parts or not parts[0] or ":" in parts[0] or stat.S_ISLNK(member.external_attr >> 16):
            raise StudyError(f"{archive} holds {member.filename!r}, which leads out of its folder; do not use it")
        if member.is_dir() or parts[-1].startswith("."):
            continue
        if parts[-1] in files:
            raise StudyError(f"{archive} holds {parts[-1]} twice; do not use this archive")
        files[parts[-1]] = member
    needed = sum(member.file_size for member in files.values())
    if needed > free:
        raise StudyError(f"{archive} unpacks to {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; make room")
    return files
