"""The pixels of an image file: whole, as they are stored, or refused."""

import io
from pathlib import PurePath

import numpy as np
from PIL import ExifTags, Image

from lumbar_utils import StudyError

FORMATS = ("PNG", "BMP", "TIFF", "JPEG")
LOSSY = ("jpeg", "webp")  # formats, and compressions within TIFF, that change the values of labels
GREY, COLOUR = ("1", "L", "P", "F", "I"), ("LA", "RGB", "RGBA")  # Pillow's modes; I may be followed by ;16 and more


def decode(data: bytes, name: PurePath, lossless: bool = False) -> Image.Image:
    """The picture in a PNG, BMP, TIFF or JPEG file, without its alpha channel; a palette's indices stay indices.

    lossless : whether JPEG is refused. Raises StudyError naming the file where it is damaged, cut off or too large, or
        leaves open which pixels are meant.
    """
    try:
        Image.open(io.BytesIO(data), formats=FORMATS).verify()  # the checksums of a PNG, which decoding passes over
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        problem = _problem(image, lossless)
        image.load()
    except Image.DecompressionBombError:
        raise StudyError(f"{name} has more than {2 * Image.MAX_IMAGE_PIXELS} pixels; export it smaller") from None
    except Exception:  # damaged files raise errors of many kinds in Pillow
        raise StudyError(f"{name} cannot be read as an image; is the file whole? export it again as PNG") from None
    if problem:
        raise StudyError(f"{name} {problem}")
    image.info.pop("transparency", None)
    return image.convert(image.mode.removesuffix("A")) if image.mode in COLOUR else image


def _problem(image: Image.Image, lossless: bool) -> str:
    """Why the pixels of an opened image cannot be taken as they are, and the remedy; else nothing."""
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


def single_channel(image: Image.Image) -> np.ndarray | None:
    """(height, width) of an image that is grey, or whose channels are equal; None of one in colour."""
    pixels = np.asarray(image.convert("L") if image.mode == "1" else image)
    if pixels.ndim == 2:
        return pixels
    return np.ascontiguousarray(pixels[..., 0]) if (pixels == pixels[..., :1]).all() else None


def greys_of(image: Image.Image) -> np.ndarray:
    """(256,) what each index of an image stands for if its palette is all grey; the index itself if it has colours.

    Programs that shrink files store a grey image of few values with a palette of greys.
    """
    indices, palette = np.arange(256), np.reshape(image.getpalette("RGB"), (-1, 3))
    if (palette == palette[:, :1]).all():
        indices[: len(palette)] = palette[:, 0]
    return indices
