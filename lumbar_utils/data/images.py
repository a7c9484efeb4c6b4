"""Image files as arrays: 8-bit grey images, and masks as label maps in the study's values."""

import io
import zipfile
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image

from lumbar_utils import LEVELS, StudyError

FORMATS = ("PNG", "BMP", "TIFF", "JPEG")
LOSSY = ("jpeg", "webp")  # formats, and compressions within TIFF, that change the values of labels
GREY, COLOUR = ("1", "L", "P", "F", "I"), ("LA", "RGB", "RGBA")  # Pillow's modes; I may be followed by ;16 and more


def open_image(path: Path | zipfile.Path, lossless: bool = False) -> Image.Image:
    """The picture in a PNG, BMP, TIFF or JPEG file, without its alpha channel; a palette's indices stay indices.

    lossless : whether JPEG is refused. Raises StudyError if the file is damaged, cut off or too large, or if its
        pixels are ambiguous.
    """
    data = path.read_bytes()
    try:
        Image.open(io.BytesIO(data), formats=FORMATS).verify()  # the checksums of a PNG, which decoding ignores
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        problem = _problem(image, lossless)
        image.load()
    except Image.DecompressionBombError:
        raise StudyError(f"{path} has more than {2 * Image.MAX_IMAGE_PIXELS} pixels; export it smaller") from None
    except Exception:  # damaged files raise errors of many kinds in Pillow
        raise StudyError(f"{path} cannot be read as an image; is the file whole? export it again as PNG") from None
    if problem:
        raise StudyError(f"{path} {problem}")
    image.info.pop("transparency", None)
    return image.convert(image.mode.removesuffix("A")) if image.mode in COLOUR else image


def _problem(image: Image.Image, lossless: bool) -> str:
    """Why the pixels of an opened image cannot be used, and the remedy; empty if they can."""
    kind, stored, compression = image.mode.partition(";")[0], str(image.tile), str(image.info.get("compression"))
    orientation, frames = image.getexif().get(ExifTags.Base.Orientation, 1), getattr(image, "n_frames", 1)
    if kind not in GREY + COLOUR:
        return f"has {image.mode} pixels; export it as 8-bit PNG"
    if kind in COLOUR and ";16" in stored:  # of which Pillow keeps the upper 8 bits
        return "has 16 bits a channel; export it with 8 bits"
    if lossless and any(lossy in f"{image.format} {compression}".lower() for lossy in LOSSY):
        return "is compressed as JPEG, which changes the values of labels; export it as PNG"
    if frames > 1:
        return f"holds {frames} pictures; export one a file"
    if orientation not in (0, 1):
        return f"is to be shown turned (EXIF orientation {orientation}); turn its pixels, and export it as PNG"
    return ""


def _single_channel(image: Image.Image) -> np.ndarray | None:
    """(height, width) of an image that is grey or has equal channels; None for one in colour."""
    pixels = np.asarray(image.convert("L") if image.mode == "1" else image)
    if pixels.ndim == 2:
        return pixels
    return np.ascontiguousarray(pixels[..., 0]) if (pixels == pixels[..., :1]).all() else None


def read_image(path: Path | zipfile.Path) -> np.ndarray:
    """(height, width) uint8 of a grey image, or of a colour image with equal channels."""
    image = open_image(path)
    pixels = _single_channel(image.convert("RGB") if image.mode == "P" else image)
    if pixels is None:
        raise StudyError(f"image {path} is in colour; export it as grey; or is it a mask?")
    if pixels.dtype != np.uint8:
        raise StudyError(f"image {path} has {pixels.dtype} pixels; export it with 8 bits")
    return pixels


def read_mask(path: Path, labels: dict[int, str]) -> np.ndarray:
    """(height, width) uint8 label map in the study's values: 0 background, 1..6 for L1..S1.

    The value of a pixel is its grey value or, in an image with a palette, its index; of grey images with fewer than 8
    bits it is scaled to 0..255, as PNG defines it.
    labels : mask value -> name, as in dataset.json; a name outside the study's levels becomes background.
    """
    image = open_image(path, lossless=True)
    pixels = _single_channel(image)
    if pixels is None:
        raise StudyError(f"mask {path} is in colour; export it as 8-bit index PNG, one value a label")
    if image.mode == "P" and _shows_other_greys(image, pixels):
        raise StudyError(f"mask {path} has a palette of greys that are not its indices; export it as 8-bit grey PNG")
    with np.errstate(invalid="ignore"):
        mask = pixels.astype(np.uint8)
    known = np.isin(mask, [0, *labels]) & (mask == pixels)
    if not known.all():
        named = ", ".join(f"{value} = {name}" for value, name in sorted(labels.items()))
        unknown = pixels[~known].min()
        raise StudyError(f"mask {path} has label {unknown:g}, which dataset.json does not name; it names {named}")
    values = np.zeros(256, np.uint8)
    for value, name in labels.items():
        values[value] = LEVELS.index(name) + 1 if name in LEVELS else 0
    return values[mask]


def _shows_other_greys(image: Image.Image, indices: np.ndarray) -> bool:
    """Whether the palette is all grey with other greys than its indices: so programs that shrink files store greys."""
    palette = np.reshape(image.getpalette("RGB"), (-1, 3))
    used = np.unique(indices[indices < len(palette)])
    return bool((palette == palette[:, :1]).all() and (palette[used, 0] != used).any())


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write a PNG; OSError where the disk is full, of which OpenCV's own writing of a small file says nothing."""
    path.write_bytes(cv2.imencode(".png", pixels)[1])
