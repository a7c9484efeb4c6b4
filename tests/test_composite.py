"""The composite set, in miniature: 18 x 6 pixels, three rows a vertebra."""

import shutil
import warnings
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from lumbar_utils import LEVELS, StudyError
from lumbar_utils.data.composite import labels_of_colours, order_of_levels, read_source
from lumbar_utils.data.folder import read
from lumbar_utils.data.sources import convert

RED, YELLOW, GREEN, CYAN, BLUE, MAGENTA = (
    (255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255), (255, 0, 255),
)  # fmt: skip
DOWNWARDS = (RED, YELLOW, GREEN, CYAN, BLUE, MAGENTA)
SPELLINGS = {
    "numbered": ("1. Images", "2. Ground_Truth/Pseudo_Colored_Ground_Truth_Images"),
    "plain": ("Images", "Pseudo_Colored_Ground_Truth_Images"),
    "in an outer folder": ("Composite Dataset/Images", "Composite Dataset/Pseudo_Colored_Ground_Truth_Images"),
}


def drawn(colours=DOWNWARDS):
    """(18, 6, 3) RGB: in every three rows from the top, two rows of the next colour on columns 1 to 4."""
    rgb = np.zeros((18, 6, 3), np.uint8)
    for place, colour in enumerate(colours):
        rgb[3 * place : 3 * place + 2, 1:5] = colour
    return rgb


def put(folder, name, rgb=None):
    """Write an RGB mask, or the grey image of three equal channels whose pixels are 0, 1, ... 107."""
    folder.mkdir(parents=True, exist_ok=True)
    rgb = np.dstack([np.arange(108, dtype=np.uint8).reshape(18, 6)] * 3) if rgb is None else rgb
    cv2.imwrite(str(folder / name), rgb[..., ::-1])


def composite(
    folder, spelling="plain", names=("T1_0001_S8.png", "T1_0002_S7.png", "T1_0575_S9 .png"), colours=DOWNWARDS
):
    images, masks = SPELLINGS[spelling]
    for name in names:
        put(folder / images, name)
        put(folder / masks, name, drawn(colours))
    return folder


def zipped(folder):
    return Path(shutil.make_archive(str(folder), "zip", folder))


def read_all(source):
    """Description and slices; the notes are looked at in the description, not as warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        description, slices = read_source(source, 1)
        return description, list(slices)


@pytest.mark.parametrize("form", [lambda folder: folder, zipped], ids=["folder", "zip"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_form_and_spelling_is_read_alike(tmp_path, spelling, form):
    _, slices = read_all(form(composite(tmp_path / "set", spelling)))
    assert [(item.case, item.patient) for item in slices] == [
        ("T1_0001_S8", "0001"), ("T1_0002_S7", "0002"), ("T1_0575_S9", "0575"),
    ]  # fmt: skip
    assert [item.columns for item in slices] == [{"slice": number, "recoloured_pixels": 0} for number in (8, 7, 9)]
    for item in slices:
        assert np.array_equal(item.image, np.arange(108).reshape(18, 6))
        assert item.mask[:, 2].tolist() == [1, 1, 0, 2, 2, 0, 3, 3, 0, 4, 4, 0, 5, 5, 0, 6, 6, 0]
        assert np.isnan(item.spacing_mm)


def test_the_set_becomes_the_canonical_folder(tmp_path):
    source = zipped(composite(tmp_path / "set"))
    with pytest.warns(UserWarning, match="3 cases of 3 patients; 514 of 514 are expected"):
        cohort = read(convert("composite", source, tmp_path / "canonical"))
    assert cohort.annotated == LEVELS
    assert cohort.licence.startswith("not known to us")
    assert not cohort.synthetic
    assert set(np.unique(cohort.mask(cohort.cases.iloc[0]))) == set(range(7))


def test_edge_pixels_take_the_nearest_colour_and_are_counted():
    rgb = drawn()
    rgb[0, 0] = (100, 0, 0)  # red's edge, more black than red
    rgb[0, 5] = (200, 0, 0)  # more red than black
    rgb[2, 2] = (255, 100, 0)  # between red and yellow, nearer to red
    rgb[8, 2] = (0, 255, 200)  # between green and cyan, nearer to cyan
    expected, none = labels_of_colours(drawn())
    expected[0, 5], expected[2, 2], expected[8, 2] = 1, 1, 4
    mask, recoloured = labels_of_colours(rgb)
    assert none == 0
    assert recoloured == 4
    assert np.array_equal(mask, expected)


@pytest.mark.parametrize(
    "column, expected",
    [
        pytest.param([1, 0, 2, 0, 6], "down", id="downwards, some absent"),
        pytest.param([6, 5, 4, 3, 2, 1], "up", id="upwards"),
        pytest.param([1, 3, 2, 4], "mixed", id="two exchanged"),
        pytest.param([0, 4, 0], "down", id="one alone"),
    ],
)
def test_the_order_of_levels_is_that_of_their_centroids(column, expected):
    assert order_of_levels(np.array(column, np.uint8)[:, None]) == expected


def test_colours_that_run_the_other_way_are_refused_and_nothing_is_written(tmp_path):
    source = composite(tmp_path / "set", colours=DOWNWARDS[::-1])
    with pytest.raises(StudyError, match="in 3 of 3 masks, first T1_0001_S8, the colours run from S1 at the top to L1"):
        convert("composite", source, tmp_path / "canonical")
    assert not (tmp_path / "canonical").exists()


def test_what_deviates_is_noted(tmp_path):
    source = composite(tmp_path / "set")
    images, masks = source / "Images", source / "Pseudo_Colored_Ground_Truth_Images"
    put(masks, "T1_0002_S7.png", drawn(DOWNWARDS[::-1]))
    put(masks, "T1_0575_S9 .png", drawn(DOWNWARDS[:5]))
    put(images, "T1_0003_S7.png")
    put(masks, "T1_0004_S7.png", drawn())
    put(images, "thumbnail.png")
    put(source / "Reports", "chart.png")
    shaded = drawn()
    shaded[2, 2] = (255, 100, 0)
    put(masks, "T1_0001_S8.png", shaded)
    description, slices = read_all(source)
    assert len(slices) == 3
    assert description["notes"] == [
        "3 cases of 3 patients; 514 of 514 are expected.",
        "images without a mask, left out: 1 (T1_0003_S7).",
        "masks without an image, left out: 1 (T1_0004_S7).",
        "files not named T1_<patient>_S<slice>.png, left out: 1 (Images/thumbnail.png).",
        "masks with levels out of order: 1 (T1_0002_S7).",
        "masks that lack a level: 1 (T1_0575_S9).",
        "1 pixels of the masks had a colour of no level and took the nearest.",
    ]


def write_a_pair_of_another_size(folder):
    put(folder / "Pseudo_Colored_Ground_Truth_Images", "T1_0002_S7.png", drawn()[:, :5])


FAULTS = {
    "another size": (
        write_a_pair_of_another_size,
        "mask .*Ground_Truth_Images/T1_0002_S7.png is 5x18 but its image .*Images/T1_0002_S7.png is 6x18",
    ),
    "no masks": (
        lambda folder: shutil.rmtree(folder / "Pseudo_Colored_Ground_Truth_Images"),
        "has 3 images and 0 masks of the composite set, but no pair; .*, found Images; unpack archives within",
    ),
    "the same case twice": (
        lambda folder: put(folder / "Images", "T1_0001_S8 .png"), "has two files of case T1_0001_S8, .*; remove one"
    ),
    "a damaged image": (
        lambda folder: (folder / "Images" / "T1_0001_S8.png").write_bytes(b"\x89PNG, or so"),
        "T1_0001_S8.png cannot be read as an image",
    ),
    "a mask for an image": (
        lambda folder: put(folder / "Images", "T1_0001_S8.png", drawn()), "T1_0001_S8.png is in colour.*a mask",
    ),
    "a mask of no colour": (
        lambda folder: put(folder / "Pseudo_Colored_Ground_Truth_Images", "T1_0001_S8.png", drawn() * 0),
        "T1_0001_S8.png shows none of the six colours",
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", [lambda folder: folder, zipped], ids=["folder", "zip"])
@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_used_ends_with_one_clear_error(tmp_path, fault, form):
    plant, message = FAULTS[fault]
    folder = composite(tmp_path / "set")
    plant(folder)
    with pytest.raises(StudyError, match=message):
        read_all(form(folder))


def test_a_zip_that_is_none_or_that_lies_is_refused(tmp_path):
    (tmp_path / "page.zip").write_text("<html>")
    with pytest.raises(StudyError, match=r"page\.zip is neither a zip archive nor a folder; download it again from"):
        read_source(tmp_path / "page.zip", 1)
    with zipfile.ZipFile(tmp_path / "vast.zip", "w") as archive:
        for folder in SPELLINGS["plain"]:
            archive.writestr(f"{folder}/T1_0001_S8.png", b"small")
            archive.filelist[-1].file_size = 2**40
    with pytest.raises(StudyError, match="would have 1099511627776 bytes"):
        read_source(tmp_path / "vast.zip", 1)


def test_a_member_that_climbs_out_is_read_without_touching_the_disk(tmp_path):
    source = zipped(composite(tmp_path / "set"))
    with zipfile.ZipFile(source, "a") as archive:
        archive.writestr("../../Images/T1_0009_S1.png", b"not an image, and without a mask")
    before = sorted(tmp_path.parent.rglob("*"))
    description, slices = read_all(source)
    assert len(slices) == 3
    assert "images without a mask, left out: 1 (T1_0009_S1)." in description["notes"]
    assert sorted(tmp_path.parent.rglob("*")) == before
