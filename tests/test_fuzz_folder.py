"""Files of a data set, damaged at random: one is read rightly, or refused in one line.

FUZZ_EXAMPLES in the environment sets how many damaged files each test draws; 150 are drawn without it.
"""

import io
import json
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import given as for_all
from hypothesis import strategies as some
from PIL import Image

from lumbar_utils import LEVELS, StudyError
from lumbar_utils.data.folder import read_cases, read_description
from lumbar_utils.data.images import read_image, read_mask
from lumbar_utils.data.split import SPLITS, read_split

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
many = settings(
    max_examples=EXAMPLES, deadline=None, derandomize="FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
LABELS = dict(enumerate(LEVELS, 1))
MASK = np.random.default_rng(0).integers(0, 7, (24, 20)).astype(np.uint8)
CASES = (
    "case,patient,image,mask,spacing_mm,findings\n"
    "ä1,p1,images/a.png,masks/a.png,0.5,\n"
    "b,NA,images/b.png,masks/b.png,,wedge L2\n"
)
SPLIT = "patient,split\np1,train\nNA,test\nc,validation\n"
DESCRIPTION = json.dumps({
    "name": "ä", "licence": "x", "synthetic": False, "labels": {"0": "air", "1": "L1"}, "annotated_levels": ["L1"],
    "notes": ["n"],
})  # fmt: skip


def stored(image, ending, **options):
    file = io.BytesIO()
    image.save(file, ending, **options)
    return file.getvalue()


def with_palette():
    image = Image.fromarray(MASK).convert("P")
    image.putpalette(list(range(21)))
    return image


PNGS = [
    stored(Image.fromarray(MASK), "PNG"),
    stored(with_palette(), "PNG", bits=4),
    stored(with_palette(), "PNG", transparency=0),
]
OTHERS = [stored(Image.fromarray(MASK), ending) for ending in ("TIFF", "BMP", "JPEG")]
OTHERS += [stored(Image.fromarray(MASK), "TIFF", compression=name) for name in ("tiff_lzw", "tiff_adobe_deflate")]


@some.composite
def damaged(draw, originals):
    """A file of which bytes were changed, left out or put in, or of which the end is missing."""
    data = bytearray(draw(some.sampled_from(originals)))
    for _ in range(draw(some.integers(1, 4))):
        start = draw(some.integers(0, len(data)))
        length = draw(some.sampled_from([0, 1, 1, 2, 4, 16, len(data)]))
        data[start : start + length] = draw(
            some.binary(max_size=4) | some.sampled_from([b'"', b"\n", b",", b";", b"\0\0\xff\xff"])
        )
    return bytes(data)


@some.composite
def rearranged(draw):
    """A PNG whose chunks are whole but left out, repeated, exchanged, or of other content and its checksum."""
    data, start, chunks = draw(some.sampled_from(PNGS)), 8, []
    while start < len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4])
        chunks.append(data[start + 4 : end - 4])
        start = end
    chosen = draw(
        some.lists(some.integers(0, len(chunks) - 1), max_size=len(chunks) + 2) | some.just(range(len(chunks)))
    )
    parts = [chunks[number] for number in chosen]
    if parts and draw(some.booleans()):
        place = draw(some.integers(0, len(parts) - 1))
        parts[place] = parts[place][:4] + draw(damaged([parts[place][4:]]))
    return data[:8] + b"".join(
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts
    )


def outcome(reader, *arguments):
    """What a reader gives, or None where it refuses in one line; any other error is a failure."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd TIFF tags
            return reader(*arguments)
    except StudyError as error:
        assert len(str(error).splitlines()) == 1
        return None


def checksums_hold(data):
    """Whether every chunk of a PNG up to the last, and its pixels, have the checksum that stands behind them."""
    start, pixels, kind = 8, b"", b""
    while kind != b"IEND":
        end = start + 8 + int.from_bytes(data[start : start + 4])
        kind, content = data[start + 4 : start + 8], data[start + 8 : end]
        if kind != b"IEND" and zlib.crc32(kind + content) != int.from_bytes(data[end : end + 4]):
            return False
        pixels += content if kind == b"IDAT" else b""
        start = end + 4
    return len(pixels) > 0


@many
@for_all(data=damaged(PNGS))
def test_a_damaged_png_that_is_read_has_its_checksums_and_its_pixels(tmp_path, data):
    path = tmp_path / "mask.png"
    path.write_bytes(data)
    mask = outcome(read_mask, path, LABELS)
    outcome(read_image, path)
    if mask is not None:
        assert checksums_hold(data)
        assert np.array_equal(mask, MASK)


@many
@for_all(data=rearranged() | damaged(OTHERS))
def test_any_damaged_image_is_read_or_refused(tmp_path, data):
    path = tmp_path / "image.png"
    path.write_bytes(data)
    mask, image = outcome(read_mask, path, LABELS), outcome(read_image, path)
    assert mask is None or (mask.dtype == np.uint8 and mask.ndim == 2 and mask.max() <= len(LEVELS))
    assert image is None or (image.dtype == np.uint8 and image.ndim == 2)


tables = some.sampled_from(["utf-8", "utf-16", "cp1252"]).flatmap(lambda coding: damaged([CASES.encode(coding)]))


@many
@for_all(data=tables | some.text().map(lambda text: (CASES + text).encode("utf-8", "ignore")))
def test_a_damaged_table_of_cases_is_read_or_refused(tmp_path, data):
    (tmp_path / "cases.csv").write_bytes(data)
    cases = outcome(read_cases, tmp_path, True)
    if cases is not None:
        assert len(cases) and cases["case"].is_unique
        assert all(
            isinstance(name, str) and name for name in cases[["case", "patient", "image", "mask"]].to_numpy().ravel()
        )
        assert cases["spacing_mm"].dropna().between(0.05, 10).all()
        assert not any(".." in Path(name).parts or Path(name).is_absolute() for name in cases["image"])


@many
@for_all(data=damaged([SPLIT.encode(), SPLIT.replace(",", ";").encode("utf-16")]))
def test_a_damaged_split_is_read_or_refused(tmp_path, data):
    path = tmp_path / "split.csv"
    path.write_bytes(data)
    table = outcome(read_split, path, pd.Series(["p1", "NA", "c"]))
    if table is not None:
        assert sorted(table["patient"]) == ["NA", "c", "p1"]
        assert set(table["split"]) == set(SPLITS)


json_values = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=5),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
described = some.tuples(some.sampled_from([*json.loads(DESCRIPTION), "citation", "left_out"]), json_values).map(
    lambda pair: json.dumps(json.loads(DESCRIPTION) | dict([pair])).encode()
)


@many
@for_all(data=damaged([DESCRIPTION.encode()]) | described)
def test_a_damaged_description_is_read_or_refused(tmp_path, data):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir(exist_ok=True)
    (tmp_path / "cases.csv").touch()
    (tmp_path / "dataset.json").write_bytes(data)
    description = outcome(read_description, tmp_path)
    if description is not None:
        assert set(description["annotated_levels"]) <= set(description["labels"].values())
        assert all(0 <= int(value) <= 255 and isinstance(name, str) for value, name in description["labels"].items())
        json.dumps(description, indent=2, ensure_ascii=False).encode()


@pytest.mark.parametrize("data", PNGS)
def test_an_undamaged_mask_is_read(tmp_path, data):
    (tmp_path / "mask.png").write_bytes(data)
    assert np.array_equal(read_mask(tmp_path / "mask.png", LABELS), MASK)
