"""Download of public data sets into data/raw: resumed after an interruption, checked by sha256, unpacked safely."""

import dataclasses
import re
import shutil
import zipfile
import zlib
from pathlib import Path

import pooch
import requests
from tqdm import tqdm

from lumbar_utils import StudyError, records
from lumbar_utils.data import composite

TIMEOUT_S = 60
CHUNK = 2**15  # bytes written at a time


@dataclasses.dataclass(frozen=True)
class File:
    """A file to download.

    path : where it goes, below data/raw; a zip with `unpacks` is unpacked into the folder of its name, then removed.
    sha256 : None if it is not published; that of the first download is then recorded beside the file.
    """

    path: str
    url: str
    sha256: str | None = None
    unpacks: bool = False


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
                 "13a6e25a8c0d74f507e16ebb2edafc277ceeaf2598474f1fed24fdf59cb7f18f", True),
            File("spider/images.zip", f"{ZENODO}/files/images.zip?download=1",
                 "a54cba2905284ff6cc9999f1dd0e4d871c8487187db7cd4b068484eac2f50f17", True),
        ),
    ),
}  # fmt: skip


def fetch(source: Source, raw: Path) -> None:
    """Put the files of a source into `raw`; what is there already is checked and not downloaded again.

    Raises StudyError, with the way by hand, if a download fails, a checksum is wrong, or an archive is damaged.
    """
    print(f"{source.name}\nlicence: {source.licence}\nplease cite: {source.citation}")
    for file in source.files:
        path = raw / file.path
        target = path.with_suffix("") if file.unpacks else path
        try:
            if not file.unpacks:
                download(file, path)
            elif not target.is_dir():
                download(file, path)
                unpack(path, target)
                path.unlink()
        except (requests.RequestException, zipfile.BadZipFile, zlib.error, ValueError, FileExistsError) as error:
            remove = "" if file.sha256 else f", remove {_record(path)} if it has changed since the first copy"
            raise StudyError(
                f"{file.url}: {error}; run this again, which goes on where it was; or download {path.name} from "
                f"{source.page} in a browser, put it at {path}{remove}, and run this again"
            ) from None
        print(f"{target} is complete")


def _record(path: Path) -> Path:
    """Where the checksum of a first copy is kept."""
    return path.with_name(f"{path.name}.sha256")


def download(file: File, path: Path) -> None:
    """Download `file` to `path`, which appears once it is complete and checked; until then there is a .part file."""
    record = _record(path)
    recorded = record.read_text(encoding="utf-8").split()[0] if record.exists() else None

    def receive(_: str, output_file: str, __: object) -> None:
        part = path.with_name(f"{path.name}.part")
        _receive(file.url, part)
        part.replace(output_file)
        if path.suffix == ".zip" and not zipfile.is_zipfile(output_file):
            raise zipfile.BadZipFile("it is no zip archive but a web page, perhaps")

    pooch.get_logger().setLevel("WARNING")
    pooch.retrieve(file.url, file.sha256 or recorded, path.name, path.parent, downloader=receive)
    if not file.sha256 and not recorded:
        sha256 = pooch.file_hash(path)
        records.write_text(record, f"{sha256}  {path.name}\n")
        print(f"no checksum of {path.name} is published; that of this first copy is recorded in {record}: {sha256}")


def _receive(url: str, part: Path) -> None:
    """Append what is missing to `part`; a file that has changed on the server, or has no ETag, starts anew."""
    record = part.with_name(f"{part.name}.etag")
    headers = {"User-Agent": "lumbar_utils", "Accept-Encoding": "identity"}
    received = 0
    if part.exists() and record.exists():
        received = part.stat().st_size
        headers |= {"Range": f"bytes={received}-", "If-Range": record.read_text(encoding="utf-8")}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
        if response.status_code == 416:  # the file on the server ends before the part
            part.unlink()
        response.raise_for_status()
        start = received if response.status_code == 206 else 0
        record.unlink(missing_ok=True)
        if "ETag" in response.headers:
            record.write_text(response.headers["ETag"], encoding="utf-8")
        total = start + int(response.headers.get("Content-Length", 0))
        bar = tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=part.stem)
        with bar, part.open("ab" if start else "wb") as out:
            for chunk in response.iter_content(CHUNK):
                out.write(chunk)
                bar.update(len(chunk))
    record.unlink(missing_ok=True)


def unpack(archive: Path, folder: Path) -> None:
    """Put the files of a zip straight into `folder`, which appears once it is complete; hidden files are left out.

    Archives differ in whether they have an outer folder, so only the last part of a file's path is used; that is also
    why no file can be written elsewhere. Raises FileExistsError for two files of one name.
    """
    with records.atomic_folder(folder) as unfinished, zipfile.ZipFile(archive) as opened:
        for member in tqdm(opened.infolist(), desc=f"unpacking {archive.name}", unit="file"):
            name = re.split(r"[/\\:]", member.filename)[-1]
            if name and not name.startswith("."):
                with opened.open(member) as packed, (unfinished / name).open("xb") as out:
                    shutil.copyfileobj(packed, out)
