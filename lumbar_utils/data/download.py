"""Download of public data sets into data/raw: resumed after an interruption, checked by sha256, unpacked safely."""

import dataclasses
import re
import shutil
import time
import zipfile
import zlib
from pathlib import Path

import pooch
import requests
from tqdm import tqdm

from lumbar_utils import StudyError, records
from lumbar_utils.data import composite

TRIES, WAIT_S, TIMEOUT_S = 5, 2.0, 60  # the wait doubles from one try to the next
CHUNK = 2**15  # bytes written at a time
TEMPORARY = (408, 416, 429, 500, 502, 503, 504)  # HTTP errors worth another try


@dataclasses.dataclass(frozen=True)
class File:
    """A file to download.

    path : where it goes, below data/raw.
    sha256 : None if it is not published; that of the first download is then recorded beside the file.
    unpacked : estimate of the bytes that a zip unpacks to, into the folder of its name; 0 if it stays packed.
    """

    path: str
    url: str
    sha256: str | None = None
    unpacked: int = 0


@dataclasses.dataclass(frozen=True)
class Source:
    """A public data set: its page, its terms of use, and its files."""

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
                 "13a6e25a8c0d74f507e16ebb2edafc277ceeaf2598474f1fed24fdf59cb7f18f", 10**9),
            File("spider/images.zip", f"{ZENODO}/files/images.zip?download=1",
                 "a54cba2905284ff6cc9999f1dd0e4d871c8487187db7cd4b068484eac2f50f17", 6 * 10**9),
        ),
    ),
}  # fmt: skip


def fetch(source: Source, raw: Path) -> None:
    """Put the files of a source into `raw`; what is there already is checked and not downloaded again.

    Raises StudyError if a download fails (with the way by hand), the disk is too small, a checksum is wrong, or an
    archive is damaged.
    """
    print(f"{source.name}\nlicence: {source.licence}\nplease cite: {source.citation}")
    for file in source.files:
        path = raw / file.path
        target = path.with_suffix("") if file.unpacked else path
        if file.unpacked and target.is_dir():
            print(f"{target} is there already")
            continue
        by_hand = f"download {path.name} from {source.page} in a browser, put it at {path} and run this again"
        download(file, path, by_hand)
        if file.unpacked:
            unpack(path, target)
            path.unlink()
        print(f"{target} is complete")


def download(file: File, path: Path, by_hand: str) -> None:
    """Download `file` to `path`, which appears once it is complete and checked; until then there is a .part file.

    by_hand : what to do if the download fails, for the error.
    """
    record = path.with_name(f"{path.name}.sha256")
    recorded = record.read_text(encoding="utf-8").split()[0] if record.exists() else None

    def receive(url: str, output_file: str, _: object) -> None:
        part = path.with_name(f"{path.name}.part")
        _receive_in_tries(file, part, by_hand)
        part.replace(output_file)
        if path.suffix == ".zip" and not zipfile.is_zipfile(output_file):
            raise StudyError(f"{url} sent no zip archive but a web page, perhaps; run this again, or {by_hand}")

    pooch.get_logger().setLevel("WARNING")
    try:
        pooch.retrieve(file.url, file.sha256 or recorded, path.name, path.parent, downloader=receive)
    except StudyError:
        raise
    except ValueError as error:  # the checksum differs
        expected = (
            "the published one" if file.sha256 else f"that of the first copy; remove {record} to accept a new one"
        )
        raise StudyError(f"{error} The expected sha256 is {expected}; run this again, or {by_hand}") from None
    if not file.sha256 and not recorded:
        sha256 = pooch.file_hash(path)
        records.write_text(record, f"{sha256}  {path.name}\n")
        print(f"no checksum of {path.name} is published; that of this first copy is recorded in {record}: {sha256}")


def _receive_in_tries(file: File, part: Path, by_hand: str) -> None:
    """Complete `part`, with several tries where the connection breaks or the server is busy."""
    for attempt in range(TRIES):
        try:
            _receive(file, part)
            return
        except requests.RequestException as error:
            is_temporary = error.response is None or error.response.status_code in TEMPORARY
            if attempt + 1 == TRIES or not is_temporary:
                raise StudyError(f"{file.url} could not be downloaded ({error}); {by_hand}") from None
            print(f"{part.stem}: {error}; trying again")
            time.sleep(WAIT_S * 2**attempt)


def _receive(file: File, part: Path) -> None:
    """Append what is missing to `part`; a file that has changed on the server, or has no ETag, starts anew."""
    record = part.with_name(f"{part.name}.etag")
    headers = {"User-Agent": "lumbar_utils", "Accept-Encoding": "identity"}
    received = 0
    if part.exists() and record.exists():
        received = part.stat().st_size
        headers |= {"Range": f"bytes={received}-", "If-Range": record.read_text(encoding="utf-8")}
    with requests.get(file.url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
        if response.status_code == 416:  # the file on the server ends before the part
            part.unlink()
        response.raise_for_status()
        start = received if response.status_code == 206 else 0
        missing = int(response.headers.get("Content-Length", 0))
        _check_space(part.parent, part.stem, missing + file.unpacked)
        record.unlink(missing_ok=True)
        if "ETag" in response.headers:
            record.write_text(response.headers["ETag"], encoding="utf-8")
        bar = tqdm(total=start + missing, initial=start, unit="B", unit_scale=True, desc=part.stem)
        with bar, part.open("ab" if start else "wb") as out:
            for chunk in response.iter_content(CHUNK):
                out.write(chunk)
                bar.update(len(chunk))
    record.unlink(missing_ok=True)


def unpack(archive: Path, folder: Path) -> None:
    """Put the files of a zip straight into `folder`, which appears once it is complete; hidden files are left out.

    Archives differ in whether they have an outer folder, so only the last part of a file's path is used; that is also
    why no file can be written elsewhere. Raises StudyError on two files of one name, too little disk space, or damage.
    """
    try:
        with records.atomic_folder(folder) as unfinished, zipfile.ZipFile(archive) as opened:
            _check_space(folder.parent, archive.name, sum(member.file_size for member in opened.infolist()))
            for member in tqdm(opened.infolist(), desc=f"unpacking {archive.name}", unit="file"):
                name = re.split(r"[/\\:]", member.filename)[-1]
                if member.is_dir() or name.startswith("."):
                    continue
                with opened.open(member) as packed, (unfinished / name).open("xb") as out:
                    shutil.copyfileobj(packed, out)
    except FileExistsError:
        raise StudyError(f"{archive} has two files named {name}; unpack it by hand into {folder}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # the last: encrypted, or unknown method
        raise StudyError(f"{archive} cannot be unpacked ({error}); remove it and fetch it again") from None


def _check_space(folder: Path, name: str, needed: int) -> None:
    """Raise StudyError unless the disk of a folder has so many bytes free."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StudyError(f"{name} needs {needed / 1e9:.1f} GB on disk, {free / 1e9:.1f} GB are free; make room")
