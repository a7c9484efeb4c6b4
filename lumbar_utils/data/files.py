"""Files that other tools wrote: found at any depth, and read whole or refused by name."""

import errno
import gzip
import math
import os
import re
import shutil
import struct
import tempfile
import zlib
from pathlib import Path

import SimpleITK as sitk

from lumbar_utils import StudyError

VOLUMES = (".nii.gz", ".nii", ".mha", ".nrrd")
NOT_READ = (
    ".hdr", ".img", ".img.gz", ".hdr.gz", ".mhd", ".nhdr", ".mgz", ".mgh", ".mnc", ".gipl", ".vtk", ".nii.bz2",
    ".nii.xz", ".nii.zst", ".nii.zip", ".part", ".partial", ".filepart", ".crdownload",
)  # formats, and copies that were not finished  # fmt: skip
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DEFLATE = 1032  # bytes that one compressed byte can hold at most
AUTO = zlib.MAX_WBITS | 32  # zlib or gzip, as the data begin

# what a MetaImage's header says of its voxels -> the form that it must have; ITK crashes on others
NUMBER = rb"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
METAIMAGE = {
    rb"ObjectType": rb"Image",
    rb"NDims": rb"[234]",
    rb"BinaryData|BinaryDataByteOrderMSB|ElementByteOrderMSB|CompressedData": rb"(?i:true|false)",
    rb"CompressedDataSize": rb"\d{1,15}",
    rb"ElementNumberOfChannels": rb"\d{1,3}",
    rb"DimSize": rb"\d{1,9}(?: +\d{1,9}){1,3}",
    rb"TransformMatrix|Rotation|Orientation|Offset|Position|Origin|CenterOfRotation|ElementSpacing|ElementSize": (
        rb"%b(?: +%b)*" % (NUMBER, NUMBER)
    ),
    rb"AnatomicalOrientation": rb"[A-Z?]{2,4}",
    rb"ElementType": rb"MET_[A-Z_]{1,20}",
}
NEEDED = (b"NDims", b"DimSize", b"ElementType", b"ElementSpacing", b"TransformMatrix", b"Offset")

# size of the header -> where it has its dim, bitpix, pixdim and vox_offset
NIFTI = {348: ((40, "8h"), (72, "h"), (76, "8f"), (108, "f")), 540: ((16, "8q"), (14, "h"), (104, "8d"), (168, "q"))}


class Unsuitable(StudyError):
    """A volume that cannot be used; the message goes on after the volume's name and says why."""


def files_in(folder: Path) -> list[Path]:
    """All files of a folder, at any depth, by path; links are followed, each folder once, hidden files passed over.

    Raises StudyError for a link that leads nowhere and for a folder that cannot be listed.
    """

    def refuse(error: OSError):
        raise StudyError(f"{error.filename} cannot be listed: {error.strerror}; grant access or move it elsewhere")

    found, entered = [], set()
    for root, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        real = os.path.realpath(root)
        folders[:] = [] if real in entered else sorted(name for name in folders if not name.startswith("."))
        if real not in entered:
            found += [Path(root, name) for name in names if not name.startswith(".")]
        entered.add(real)
    dangling = [path for path in found if not path.exists()]
    if dangling:
        raise StudyError(f"{dangling[0]} is a link to a file that is not there; put it there or remove the link")
    return sorted(path for path in found if path.is_file())


def split_suffix(path: Path) -> tuple[str, str]:
    """Name without suffix, and the suffix of a volume in small letters; empty where the file is none."""
    suffix = next((suffix for suffix in VOLUMES if path.name.lower().endswith(suffix)), "")
    return path.name[: len(path.name) - len(suffix)], suffix


def load(path: Path) -> sitk.Image:
    """A volume or an image, with every voxel that its header promises.

    Raises Unsuitable if it is cut off, damaged, or cannot be read: ITK fills what is missing with zeros.
    """
    _, suffix = split_suffix(path)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    with tempfile.TemporaryDirectory() as folder:
        # under a name of its own: ITK takes the voxels of X.nii.gz from an X.nii beside it, and refuses X.Nii
        copy = Path(folder) / f"volume{'.nii' if suffix == '.nii.gz' else suffix}"
        try:
            _copy(path, copy)
            if suffix == ".mha":
                _rewrite_metaimage(copy)
            reader = sitk.ImageFileReader()
            reader.SetFileName(str(copy))
            reader.ReadImageInformation()
            _check_whole(reader, copy)
            volume = reader.Execute()
        except Unsuitable:
            raise
        except (RuntimeError, ValueError, struct.error, EOFError, zlib.error, gzip.BadGzipFile) as error:
            if "orthonormal" in str(error):
                raise Unsuitable("has axes that are not at right angles by its header; resample it") from None
            raise Unsuitable("cannot be read as an image; is the file whole?") from None  # ITK says a page of C++
        except OSError as error:
            if error.errno in NO_ROOM:  # no fault of this file: those after it would be left out too
                raise StudyError(f"cannot unpack {path} in {folder}: {error.strerror}; make room there") from None
            raise Unsuitable(f"cannot be read: {error.strerror or error}; grant access or make room") from None
    if "complex" in volume.GetPixelIDTypeAsString():
        raise Unsuitable("has complex values; export their magnitude")
    return volume[..., 0] if volume.GetDimension() == 4 and volume.GetSize()[3] == 1 else volume


def header_of(volume: sitk.Image) -> dict[str, str]:
    """What the file told of itself; names that are no plain text are left out, which SimpleITK cannot look up."""
    return {key: volume.GetMetaData(key) for key in volume.GetMetaDataKeys() if key.isascii()}


def _copy(path: Path, copy: Path) -> None:
    """Copy a file, unpacked where it is a packed NIfTI; gzip raises at an end or a checksum that does not fit."""
    with path.open("rb") as file:
        packed = copy.suffix == ".nii" and file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if packed else path.open("rb") as source, copy.open("wb") as target:
        shutil.copyfileobj(source, target, 2**20)


def _rewrite_metaimage(file: Path) -> None:
    """Leave in a MetaImage's header what tells of its voxels alone. Raises Unsuitable if any of that is damaged."""
    header, line, voxels = re.split(rb"(^ElementDataFile *= *LOCAL\r?\n)", file.read_bytes(), maxsplit=1, flags=re.M)
    fields = {}
    for name, value in re.findall(rb"^(\w+) *= *(.*?) *\r?$", header, re.M):
        form = next((form for names, form in METAIMAGE.items() if re.fullmatch(names, name)), None)
        if form is not None:
            if not re.fullmatch(form, value):
                shown = value[:40].decode("ascii", "replace")
                raise Unsuitable(f"has {name.decode()} = {shown!r} in its header; copy or export it again")
            fields[name] = value
    axes = int(fields.get(b"NDims", 3))
    for name in NEEDED:
        count = {b"NDims": 1, b"ElementType": 1, b"TransformMatrix": axes**2}.get(name, axes)
        if len(fields.get(name, b"").split()) != count:
            raise Unsuitable(f"does not say its {name.decode()} in its header; copy or export it again")
    kept = b"".join(b"%b = %b\n" % field for field in fields.items())
    file.write_bytes(kept + line + voxels)


def _check_whole(reader: sitk.ImageFileReader, file: Path) -> None:
    """Raise Unsuitable unless a file holds as many bytes as its header promises."""
    there, voxels = file.stat().st_size, math.prod(reader.GetSize())
    promised = voxels / DEFLATE  # at least; ITK itself counts the bytes of a .nrrd and of a plain .mha
    if file.suffix == ".nii":
        promised = max(_bytes_of_nifti(file), voxels)  # no voxel takes less than a byte
    elif file.suffix == ".mha":
        header, _, data = re.split(rb"(ElementDataFile\s*=\s*LOCAL\r?\n)", file.read_bytes(), maxsplit=1)
        if re.search(rb"CompressedData\s*=\s*True", header, re.IGNORECASE):
            one = sitk.Image([1, 1], reader.GetPixelID(), reader.GetNumberOfComponents())
            promised = voxels * sitk.GetArrayViewFromImage(one).nbytes
            there = len(zlib.decompressobj(AUTO).decompress(data, promised + 1)) if voxels / DEFLATE < there else 0
    if not promised <= there:
        raise Unsuitable(f"holds {there} of the {promised:.0f} bytes that its header promises; is the file whole?")


def _bytes_of_nifti(file: Path) -> float:
    """How many bytes a NIfTI's header promises. Raises Unsuitable if a voxel has no size: ITK makes it 1 mm."""
    with file.open("rb") as opened:
        head = opened.read(540)
    order = "<" if struct.unpack("<i", head[:4])[0] in NIFTI else ">"
    fields = NIFTI.get(struct.unpack(f"{order}i", head[:4])[0], {})
    dim, bits, sides, offset = (struct.unpack_from(order + form, head, at) for at, form in fields)
    axes = dim[1 : dim[0] + 1]
    if not all(0 < abs(side) < math.inf for side in sides[1 : dim[0] + 1][:3]):
        shown = " x ".join(f"{side:g}" for side in sides[1 : dim[0] + 1][:3])
        raise Unsuitable(f"has voxels of {shown} mm by its header; mend its pixdim")
    return offset[0] + math.prod(max(size, 1) for size in axes) * bits[0] / 8
