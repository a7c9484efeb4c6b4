"""SPIDER's layout, built by hand: 3 slices of a spine whose canal is known pixel by pixel."""

import json

import cv2
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from conftest import REAL

from lumbar_utils import StudyError
from lumbar_utils.data import spider
from lumbar_utils.data.folder import read
from lumbar_utils.data.sources import convert
from lumbar_utils.study import Study

# one slice: vertebrae 5 (L1) to 1 (L5) and 6 (T12) in columns 1-2, canal in 4-6, an arch of each in columns 7-8
SPINE = np.zeros((14, 10), np.uint8)
SPINE[:, 4:7] = 100
for value, row in zip((6, 5, 4, 3, 2, 1), range(1, 13, 2), strict=True):
    SPINE[row, 1:3] = SPINE[row, 7:9] = value
SPINE[13, 1] = 201  # a disc
BODIES = np.where(SPINE < 26, SPINE, 0) * (np.arange(10) < 5)


def write_volume(path, slices, orientation="LPS", spacing=(1.0, 1.0, 4.0)):
    """Slices from right to left, head up and front left, stored in another order of axes."""
    image = sitk.GetImageFromArray(np.asarray(slices))
    image.SetSpacing(spacing)
    image.SetDirection(sitk.DICOMOrientImageFilter.GetDirectionCosinesFromOrientation("PIL"))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.DICOMOrient(image, orientation), path)


def write_spider(folder, masks, name="7_t2"):
    """A volume whose image shows its mask; slices from right to left."""
    masks = np.asarray(masks, np.uint8)
    write_volume(folder / "masks" / f"{name}.mha", masks)
    write_volume(folder / "images" / f"{name}.mha", masks.astype(np.int16) * 3)
    return folder


@pytest.fixture
def source(tmp_path):
    beside = np.where(SPINE == 100, 0, SPINE)
    folder = write_spider(tmp_path / "spider", [beside, beside, SPINE, SPINE, SPINE])
    pd.DataFrame({"new_file_name": ["7_t2"], "subset": ["validation"], "birth_date": ["1950"]}).to_csv(
        folder / "overview.csv", index=False
    )
    return folder


def test_a_volume_becomes_its_mid_sagittal_slice_with_bodies_named_upwards(source, tmp_path):
    cohort = read(convert("spider", source, tmp_path / "out"))
    case = cohort.cases.iloc[0]
    assert case[["case", "patient", "contrast", "subset"]].tolist() == ["7_t2_slice3", "spider_7", "T2", "validation"]
    assert case["mid_sagittal"]  # of the canal in slices 2 to 4
    assert cohort.annotated == ("L1", "L2", "L3", "L4", "L5")
    assert cohort.licence == "CC BY 4.0"
    expected = np.select([value == BODIES for value in (1, 2, 3, 4, 5)], [5, 4, 3, 2, 1])  # T12 is background
    assert np.array_equal(cohort.mask(case), expected)
    assert "birth_date" not in cohort.cases


def test_thoracic_vertebrae_keep_labels_of_their_own(source, tmp_path):
    folder = convert("spider", source, tmp_path / "out")
    assert np.array_equal(cv2.imread(str(folder / "masks" / "7_t2_slice3.png"), cv2.IMREAD_UNCHANGED), BODIES)
    labels = json.loads((folder / "dataset.json").read_text())["labels"]
    assert [labels[str(value)] for value in (1, 5, 6, 17, 18, 24)] == ["L5", "L1", "T12", "T1", "C7", "C1"]


def test_more_slices_are_neighbours_of_the_middle_one(source, tmp_path):
    cohort = read(convert("spider", source, tmp_path / "out", slices=3))
    assert cohort.cases["slice"].tolist() == [2, 3, 4]
    assert cohort.cases["mid_sagittal"].tolist() == [False, True, False]
    assert cohort.cases["patient"].tolist() == ["spider_7"] * 3


def test_a_pedicle_is_cut_at_the_midline_of_the_canal_beside_it():
    beside = np.zeros_like(SPINE)
    beside[3, 1:9] = 5  # body, pedicle and arch in one piece, in a slice without canal
    front = spider.in_front_of_the_canal(np.stack([SPINE, beside]) == 100)
    assert np.flatnonzero(spider.bodies(beside, front)[3]).tolist() == [1, 2, 3, 4]  # the midline is column 5


def test_the_midline_follows_the_canal_row_by_row_and_goes_on_straight():
    canal = np.zeros((1, 4, 6), bool)
    canal[0, 1, 1:4] = canal[0, 2, 3:6] = True
    assert spider.in_front_of_the_canal(canal).sum(axis=1).tolist() == [2, 2, 4, 4]


def test_smaller_pieces_in_front_of_the_canal_are_dropped():
    labels = np.array([[3, 3, 0, 3], [3, 3, 0, 0]])
    assert spider.bodies(labels, np.ones((2, 4), bool)).tolist() == [[3, 3, 0, 0], [3, 3, 0, 0]]


def test_a_partly_visible_vertebra_is_background_and_noted(tmp_path):
    cut_off = np.where(SPINE == 5, 105, SPINE)
    cohort = read(convert("spider", write_spider(tmp_path / "spider", [cut_off] * 3), tmp_path / "out"))
    case = cohort.cases.iloc[0]
    assert case["partly_visible"] == "L1"
    assert 1 not in cohort.mask(case)


def test_volumes_that_cannot_be_used_are_left_out_with_a_reason(source, tmp_path):
    write_spider(source, [np.where(SPINE == 100, 0, SPINE)] * 3, "8_t1")  # no canal
    write_spider(source, [SPINE] * 3, "9_t1")
    (source / "masks" / "9_t1.mha").unlink()
    folder = convert("spider", source, tmp_path / "out")
    assert json.loads((folder / "dataset.json").read_text())["left_out"] == [
        "8_t1 has no canal (100) beside lumbar vertebrae (1 to 5) in its mask",
        "9_t1 has no mask",
    ]
    assert read(folder).cases["patient"].unique().tolist() == ["spider_7"]


def test_a_folder_of_another_layout_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(StudyError, match=r"has no images/\*\.mha or no masks; unpack images.zip and masks.zip"):
        convert("spider", tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    "text",
    ["New_File_Name,subset\n7_t2.mha,training\n", "subset;new_file_name\ntraining;7_t2\n"],
    ids=["suffix and case", "semicolons"],
)
def test_the_overview_may_be_written_in_several_ways(source, tmp_path, text):
    (source / "overview.csv").write_text(text)
    assert read(convert("spider", source, tmp_path / "out")).cases["subset"].tolist() == ["training"]


def test_an_overview_without_its_columns_is_refused(source, tmp_path):
    (source / "overview.csv").write_text("file,side\n7_t2,training\n")
    with pytest.raises(StudyError, match="has the columns file, side; new_file_name, subset are needed, each once"):
        convert("spider", source, tmp_path / "out")


def test_a_study_names_spider_and_converts_it_once(source, tmp_path):
    from lumbar_utils.data import sources

    study = Study("smoke", dataset=f"spider:{source}", slices=3, cache=tmp_path / "cache")
    first = sources.load(study)
    assert (len(first.cases), sources.load(study).folder) == (3, first.folder)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real slices are no part of the repository: {REAL.name} is absent")
def test_real_bodies_pass_the_cut_unchanged(tmp_path):
    """The canal is drawn behind bodies that were cut from their arches before: little is left to be cut."""
    cases = pd.read_csv(REAL / "cases.csv").query("patient == 'spider_5'").sort_values("slice")
    images, masks = (
        np.stack([cv2.imread(str(REAL / name), cv2.IMREAD_UNCHANGED) for name in cases[part]])
        for part in ("image", "mask")
    )
    numbers = np.select([masks == level for level in (1, 2, 3, 4, 5, 12, 11, 10, 9)], [5, 4, 3, 2, 1, 6, 7, 8, 9])
    behind = np.flatnonzero(masks.any(axis=(0, 1))).max() + 2
    numbers[:, :, behind : behind + 20] = 100
    write_volume(tmp_path / "spider" / "images" / "5_t2_SPACE.mha", images, "LPS", (0.46875, 0.46875, 1.8))
    write_volume(
        tmp_path / "spider" / "masks" / "5_t2_SPACE.mha", numbers.astype(np.uint8), "LPS", (0.46875, 0.46875, 1.8)
    )
    cohort = read(convert("spider", tmp_path / "spider", tmp_path / "out", slices=9))
    assert len(cohort.cases) == len(masks)
    for index, (_, case) in enumerate(cohort.cases.iterrows()):
        cut, whole = cohort.mask(case), np.where(masks[index] <= 5, masks[index], 0)
        assert ((cut == whole) | (cut == 0)).all()
        assert (cut > 0).sum() >= 0.99 * (whole > 0).sum()  # but for specks apart from their body
