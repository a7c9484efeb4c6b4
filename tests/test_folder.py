"""A data set of one's own: what is read, and what is refused."""

import json
import shutil
import struct
import unicodedata
import warnings
import zlib

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import REAL
from PIL import ExifTags, Image

from lumbar_utils import StudyError
from lumbar_utils.data.folder import read
from lumbar_utils.data.images import read_image, read_mask
from lumbar_utils.data.preparation import prepare
from lumbar_utils.study import Study


def test_values_become_the_study_s_levels_and_other_names_background(dataset):
    cohort = read(dataset)
    mask = cohort.mask(cohort.cases.iloc[0])
    assert (mask[25, 20], mask[45, 20], mask[8, 20], mask[0, 0]) == (1, 2, 0, 0)  # L1, L2, T12, air


def test_labels_may_have_any_values(dataset):
    path = dataset / "masks" / "other.png"
    cv2.imwrite(str(path), np.array([[0, 7], [20, 26]], np.uint8))
    assert read_mask(path, {7: "S1", 20: "L5", 26: "T12"}).tolist() == [[0, 6], [5, 0]]


def test_a_grey_image_saved_in_colour_is_read_as_grey(tmp_path):
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    cv2.imwrite(str(tmp_path / "grey.png"), np.dstack([grey] * 3))
    assert np.array_equal(read_image(tmp_path / "grey.png"), grey)


def test_the_fingerprint_follows_content_and_not_place(dataset, tmp_path):
    copy = shutil.copytree(dataset, tmp_path / "elsewhere")
    assert read(copy).fingerprint == read(dataset).fingerprint
    cv2.imwrite(str(copy / "images" / "case0.png"), np.full((64, 48), 9, np.uint8))
    assert read(copy).fingerprint != read(dataset).fingerprint


LABELS = dict(enumerate(("L1", "L2", "L3", "L4", "L5", "S1"), 1))
INDICES = np.array([[0, 1, 2], [3, 4, 5]], np.uint8)


def with_palette(colours):
    """INDICES shown in `colours`, one an index."""
    image = Image.new("P", (3, 2))
    image.putdata(INDICES.ravel().tolist())
    image.putpalette(np.array(colours, np.uint8).ravel().tolist())
    return image


def in_colours():
    return with_palette([(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128)])


def in_greys(greys):
    return with_palette([(grey, grey, grey) for grey in greys])


def with_alpha(*channels):
    return Image.fromarray(np.dstack([*channels, np.full_like(INDICES, 255)]))


def turned():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return exif


@pytest.mark.parametrize(
    "image, options",
    [
        pytest.param(in_colours(), {}, id="palette"),
        pytest.param(in_colours(), {"bits": 4}, id="palette of 16 colours"),
        pytest.param(in_colours(), {"transparency": 0}, id="palette with a transparent background"),
        pytest.param(in_greys(range(6)), {}, id="palette of the indices themselves"),
        pytest.param(Image.fromarray(np.dstack([INDICES] * 3)), {}, id="three equal channels"),
        pytest.param(with_alpha(INDICES), {}, id="grey and alpha"),
        pytest.param(with_alpha(INDICES, INDICES, INDICES), {}, id="three equal channels and alpha"),
        pytest.param(Image.fromarray(INDICES.astype(np.uint16)), {}, id="16 bits"),
    ],
)
def test_a_mask_is_the_same_however_its_values_are_stored(tmp_path, image, options):
    image.save(tmp_path / "mask.png", **options)
    assert read_mask(tmp_path / "mask.png", LABELS).tolist() == INDICES.tolist()


def png(**chunks):
    """The bytes of a PNG of these chunks."""
    parts = [(kind.encode() + data) for kind, data in chunks.items()]
    framed = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def test_an_interlaced_mask_of_four_bits_is_read(tmp_path):
    header = struct.pack(">IIBBBBB", 1, 1, 4, 3, 0, 0, 1)  # one pixel of 4 bits, with a palette, interlaced
    pixels = zlib.compress(b"\0\x10")
    (tmp_path / "mask.png").write_bytes(png(IHDR=header, PLTE=bytes([0, 0, 0, 255, 0, 0]), IDAT=pixels, IEND=b""))
    assert read_mask(tmp_path / "mask.png", LABELS).tolist() == [[1]]


@pytest.mark.parametrize(
    "image, name, options, message",
    [
        pytest.param(in_colours().convert("RGB"), "m.png", {}, "is in colour; export it as 8-bit index", id="RGB"),
        pytest.param(in_greys([0, 2, 4, 6, 8, 10]), "m.png", {}, "a palette of greys that are not its", id="greys"),
        pytest.param(Image.fromarray(INDICES), "m.jpg", {}, "compressed as JPEG, which changes the values", id="JPEG"),
        pytest.param(
            Image.fromarray(np.kron(INDICES, np.ones((8, 8), np.uint8))), "m.tif", {"compression": "jpeg"},
            "compressed as JPEG", id="JPEG in TIFF",
        ),
        pytest.param(
            Image.fromarray(INDICES), "m.tif", {"save_all": True, "append_images": [Image.fromarray(INDICES)]},
            "m.tif holds 2 pictures; export one a file", id="two pages",
        ),
        pytest.param(Image.fromarray(INDICES.astype(np.uint16) * 256), "m.png", {}, "has label 256, which", id="256"),
        pytest.param(Image.fromarray(INDICES > 0), "m.png", {}, "has label 255, which", id="1 bit"),
        pytest.param(Image.fromarray(INDICES * np.float32(0.5)), "m.tif", {}, "has label 0.5, which", id="fractions"),
        pytest.param(Image.fromarray(INDICES), "m.png", {"exif": turned()}, "turned .EXIF orientation 6", id="EXIF"),
    ],
)  # fmt: skip
def test_a_mask_whose_values_are_in_doubt_is_refused(tmp_path, image, name, options, message):
    image.save(tmp_path / name, **options)
    with pytest.raises(StudyError, match=message):
        read_mask(tmp_path / name, LABELS)


def test_sixteen_bits_a_channel_are_refused_and_not_halved(tmp_path):
    cv2.imwrite(str(tmp_path / "deep.png"), np.dstack([INDICES.astype(np.uint16)] * 3))
    with pytest.raises(StudyError, match=r"deep\.png has 16 bits a channel; export it with 8 bits"):
        read_mask(tmp_path / "deep.png", LABELS)


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "tif"])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_an_image_that_is_cut_off_is_refused(tmp_path, ending, share):
    path = tmp_path / f"cut.{ending}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 48), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with warnings.catch_warnings(), pytest.raises(StudyError, match=f"cut.{ending} cannot be read as an image; is the"):
        warnings.simplefilter("ignore")  # of Pillow, on the TIFF
        read_image(path)


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path):
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    (tmp_path / "vast.png").write_bytes(png(IHDR=header, IDAT=zlib.compress(b""), IEND=b""))
    with pytest.raises(StudyError, match=r"vast\.png has more than 178956970 pixels; export it smaller"):
        read_image(tmp_path / "vast.png")


def rewrite(change, name="cases.csv"):
    """Give the text of a table another form."""

    def plant(folder):
        path = folder / name
        path.write_bytes(change(path.read_text().replace("p0", "Müller")))

    return plant


def with_decimal_commas(text):
    """As a spreadsheet writes a table where numbers have a decimal comma."""
    return text.replace(",", ";").replace(";1.0", ";1,0").encode("cp1252")


SPELLINGS = {
    "UTF-8 with a mark": lambda text: text.encode("utf-8-sig"),
    "UTF-16 with tabs": lambda text: text.replace(",", "\t").encode("utf-16"),
    "Windows-1252": lambda text: text.encode("cp1252"),
    "decimal commas": with_decimal_commas,
    "a quoted decimal comma": lambda text: text.replace("1.0", '"1,0"').encode(),
    "Windows paths": lambda text: text.replace("/", "\\").replace("\n", "\r\n").encode(),
    "a header in capitals": lambda text: text.replace("case,patient,image", "Case,PATIENT,Image", 1).encode(),
    "blanks and empty lines": lambda text: text.replace(",", " , ").replace("\n", "\n\n").encode() + b",,,,\n\n",
    "an index without a name": lambda text: "".join(
        f"{'' if n == 0 else n},{line}" for n, line in enumerate(text.splitlines(True))
    ).encode(),
    "letters in two characters": lambda text: unicodedata.normalize("NFD", text).encode(),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_table_is_the_same_in_any_spelling(dataset, tmp_path, spelling):
    plain = shutil.copytree(dataset, tmp_path / "plain")
    rewrite(str.encode)(plain)
    rewrite(SPELLINGS[spelling])(dataset)
    pd.testing.assert_frame_equal(read(dataset).cases, read(plain).cases)
    assert read(dataset).cases["patient"][0] == "Müller"


def test_names_that_look_like_numbers_or_nothing_are_names(dataset):
    names = ["NA", "null", "001", "1e5", "nan", "True"]
    change_cases(dataset, slice(None), "patient", names)
    change_cases(dataset, slice(None), "case", names)
    cases = read(dataset).cases
    assert cases["patient"].tolist() == cases["case"].tolist() == names


def test_names_may_be_in_any_script(dataset):
    names = ["Пётр", "患者", "مريض", "रोगी", "ผู้ป่วย", "Ασθενής"]
    change_cases(dataset, slice(None), "case", names)
    change_cases(dataset, slice(None), "patient", names)
    change_description(dataset, name="數據 Ö")
    cohort = read(dataset)
    assert (cohort.name, cohort.cases["case"].tolist()) == ("數據 Ö", names)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("0.46875", 0.46875),
        ("0,46875", 0.46875),
        ("4.6875e-1", 0.46875),
        (".5", 0.5),
        ("1.", 1.0),
        ("", None),
        ("NaN", None),
        ("n/a", None),
    ],
)
def test_the_side_of_a_pixel_is_a_number_or_unknown(dataset, text, expected):
    change_cases(dataset, 1, "spacing_mm", text)
    assert read(dataset).cases["spacing_mm"].iloc[1] == pytest.approx(expected or np.nan, nan_ok=True)


@pytest.mark.parametrize("text", ["0", "-1", "inf", "46.875", "0.01", "0.47 mm", "0.47x0.47", "1_0e-1", "unknown"])
def test_a_side_of_a_pixel_that_cannot_be_is_refused(dataset, text):
    change_cases(dataset, 1, "spacing_mm", text)
    with pytest.raises(
        StudyError, match=f"cases.csv line 3 has spacing_mm '{text}': allowed are 0.05 to 10 .*leave it"
    ):
        read(dataset)


def change_description(folder, **changes):
    path = folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_cases(folder, row, column, value):
    table = pd.read_csv(folder / "cases.csv", dtype=object, keep_default_na=False)
    table.loc[row, column] = value
    table.to_csv(folder / "cases.csv", index=False)


def keep_two_patients(folder):
    pd.read_csv(folder / "cases.csv").head(2).to_csv(folder / "cases.csv", index=False)


def put_a_patient_on_two_sides(folder):
    rows = [("p0", "train"), ("p0", "test"), *((f"p{patient}", "validation") for patient in range(1, 6))]
    pd.DataFrame(rows, columns=["patient", "split"]).to_csv(folder / "split.csv", index=False)


def replace(name, old, new):
    """A fault of one word in a file."""
    return lambda folder: (folder / name).write_text((folder / name).read_text().replace(old, new, 1))


def labels(**more):
    """A fault of dataset.json: labels beside L1 and L2."""
    return lambda folder: change_description(folder, labels={"1": "L1", "2": "L2", "12": "T12"} | more)


FAULTS = {
    "a table cut off": (
        replace("cases.csv", "p3,images", 'p3,"images'),
        "cases.csv line 7 cannot be read: .*file whole",
    ),
    "a short line": (replace("cases.csv", ",1.0", ""), "cases.csv line 2 has 4 values and the header 5; is the file"),
    "a long line": (replace("cases.csv", "1.0", "1,0"), 'line 2 has 6 values and the header 5; .*between "quotes"'),
    "an empty table": (
        lambda folder: (folder / "cases.csv").write_text("\n"),
        "has the columns none; case, patient, im",
    ),
    "no case": (lambda folder: (folder / "cases.csv").write_text("case,patient,image,mask\n"), "csv names no case"),
    "no text": (lambda folder: (folder / "cases.csv").write_bytes(b"case\0,\xff"), "is no text in UTF-8, UTF-16 or"),
    "another header": (
        replace("cases.csv", "patient", "patient_id"),
        "has the columns case, patient_id, .*; case, patient, image, mask are needed, each once",
    ),
    "a column twice": (replace("cases.csv", "spacing_mm", "Patient"), "mask, patient; case, patient, .*, each once"),
    "a path from the root": (
        replace("cases.csv", "images/case1", "/images/case1"),
        "line 3 has image '/images/case1.png': pa",
    ),
    "a drive": (
        replace("cases.csv", "images/case1", "C:\\case1"),
        "line 3 has image .*paths begin in the data set's folder and",
    ),
    "a mask of two patients": (
        replace("cases.csv", "masks/case1", "masks/case2"),
        "gives mask masks/case2.png to 2 patients; name each image's own",
    ),
    "a split that is not read": (
        replace("cases.csv", "spacing_mm", "Split"),
        "has a column 'split', which is not read; write .*split.csv, or rename it",
    ),
    "a path that climbs": (
        replace("cases.csv", "images/case1", "images/../../case1"),
        "line 3 has image .* stay within it",
    ),
    "a path too long": (replace("cases.csv", "images/case1", "x" * 300), "names 1 files that are not there"),
    "cases alike": (replace("cases.csv", "case1", "CASE0"), "line 3: there is a case 'CASE0' already"),
    "a case too long": (replace("cases.csv", "case1,", "ж" * 101 + ","), "line 3 has case .* up to 200 bytes"),
    "a list of labels": (
        lambda f: change_description(f, labels=["L1"]),
        "has labels = .'L1'.: Input should be a valid dict",
    ),
    "levels as text": (
        lambda f: change_description(f, annotated_levels="L1"),
        "annotated_levels = 'L1': Input should be a valid list",
    ),
    "a level of no text": (
        lambda f: change_description(f, annotated_levels=[1]),
        "annotated_levels.0 = 1: Input should be 'L1', 'L2'",
    ),
    "synthetic as text": (
        lambda f: change_description(f, synthetic="false"),
        "synthetic = 'false': Input should be a valid bool",
    ),
    "notes as text": (lambda f: change_description(f, notes="none"), "notes = 'none': Input should be a valid list"),
    "no object": (lambda folder: (folder / "dataset.json").write_text("[]"), "dataset.json holds list where an object"),
    "deep JSON": (
        lambda folder: (folder / "dataset.json").write_text("[" * 10**5),
        "dataset.json is not JSON: maximum",
    ),
    "half a letter": (replace("dataset.json", "drawn by", "drawn \\ud800"), "dataset.json is not JSON: .*surrogates"),
    "a name twice": (replace("dataset.json", '"12"', '"2"'), "dataset.json is not JSON: '2' stands in it twice"),
    "names for values": (labels(L3="3"), "has labels = .*: give names to values from 0 to 255, as in"),
    "a label beyond a byte": (labels(**{"256": "L3"}), "has labels = .*: give names to values from 0 to 255"),
    "a label below zero": (labels(**{"-1": "L3"}), "has labels = .*: give names to values from 0 to 255"),
    "a label of no text": (labels(**{"3": None}), "has labels.3 = None: Input should be a valid string"),
    "a label without name": (labels(**{"3": " "}), "has labels = .*: give names to values from 0 to 255"),
    "a level twice": (labels(**{"3": "L2"}), "has labels = .*: .* a level has one value, and not 0"),
    "a level for background": (labels(**{"0": "L3"}), "has labels = .*: .* a level has one value, and not 0"),
    "no folder": (shutil.rmtree, "there is no data set at"),
    "no masks": (lambda folder: shutil.rmtree(folder / "masks"), "has no masks; see data/README.md"),
    "a mask less": (lambda folder: (folder / "masks" / "case3.png").unlink(), "1 files that are not there.*case3.png"),
    "a smaller mask": (
        lambda folder: cv2.imwrite(str(folder / "masks" / "case2.png"), np.zeros((64, 47), np.uint8)),
        r"mask masks/case2.png has the shape \(64, 47\) but its image \(64, 48\)",
    ),
    "an unnamed label": (
        lambda folder: cv2.imwrite(str(folder / "masks" / "case2.png"), np.full((64, 48), 99, np.uint8)),
        "case2.png has label 99, which dataset.json does not name",
    ),
    "an unreadable image": (
        lambda folder: (folder / "images" / "case1.png").write_bytes(b"\x89PNG, or so"),
        "case1.png cannot be read as an image",
    ),
    "an empty image": (lambda folder: (folder / "images" / "case1.png").write_bytes(b""), "case1.png cannot be read"),
    "a colourful image": (
        lambda folder: cv2.imwrite(str(folder / "images" / "case1.png"), np.eye(3, dtype=np.uint8)[None] * 255),
        "case1.png is in colour; export it as grey",
    ),
    "16 bits": (
        lambda folder: cv2.imwrite(str(folder / "images" / "case1.png"), np.full((64, 48), 999, np.uint16)),
        "case1.png has uint16 pixels; export it with 8 bits",
    ),
    "two patients": (keep_two_patients, "has 2 patients; a split needs three or more"),
    "a patient on two sides": (put_a_patient_on_two_sides, "patient p0 on two sides: train, test"),
    "a case twice": (
        lambda folder: change_cases(folder, 1, "case", "case0"),
        "line 3: there is a case 'case0' already",
    ),
    "a case that climbs": (
        lambda folder: change_cases(folder, 1, "case", "../../x"),
        "line 3 has case '../../x': letters, digits",
    ),
    "an unknown level": (
        lambda folder: change_description(folder, annotated_levels=["L1", "S2"]),
        "annotated_levels.1 = 'S2': Input",
    ),
    "a level without label": (
        lambda folder: change_description(folder, annotated_levels=["L5"]),
        "= .'L5'.: add each of these to l",
    ),
    "no JSON": (lambda folder: (folder / "dataset.json").write_text("{"), "dataset.json is not JSON"),
    "no labels": (lambda folder: (folder / "dataset.json").write_text("{}"), "has name = .*: Field required"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_input_ends_with_one_clear_error_before_anything_is_written(dataset, tmp_path, cache, fault):
    plant, message = FAULTS[fault]
    plant(dataset)
    with pytest.raises(StudyError, match=message):
        prepare(Study("smoke", dataset=str(dataset), runs=tmp_path / "runs", cache=cache))
    assert not (tmp_path / "runs").exists()


def test_preparing_puts_cases_and_split_on_record(dataset, tmp_path, cache):
    study = Study("smoke", dataset=str(dataset), runs=tmp_path / "runs", cache=cache)
    cohort = prepare(study)
    sides = pd.read_csv(study.folder / "split.csv")
    assert sides["patient"].tolist() == [f"p{patient}" for patient in range(6)]
    assert cohort.cases.merge(sides, on="patient").eval("split_x == split_y").all()
    record = json.loads((study.folder / "study.json").read_text())
    assert record["settings"] == study.settings
    assert record["data"]["fingerprint"] == cohort.fingerprint


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real slices are no part of the repository: {REAL.name} is absent")
def test_the_real_slices_are_read_with_their_five_levels():
    cohort = read(REAL)
    assert (len(cohort.cases), cohort.cases["patient"].nunique()) == (263, 30)
    assert cohort.annotated == ("L1", "L2", "L3", "L4", "L5")
    assert not cohort.synthetic
    middle = cohort.cases[cohort.cases["mid_sagittal"]].iloc[0]
    assert set(np.unique(cohort.mask(middle))) == {0, 1, 2, 3, 4, 5}


def test_without_levels_and_masks_a_folder_is_for_prediction_only(dataset, tmp_path, cache):
    shutil.rmtree(dataset / "masks")
    change_description(dataset, annotated_levels=[])
    change_cases(dataset, slice(None), "mask", None)
    cohort = read(dataset)
    assert cohort.annotated == ()
    assert not cohort.mask(cohort.cases.iloc[0]).any()
    with pytest.raises(StudyError, match=r"drawn by hand is for prediction only: .*lumbar_utils predict"):
        prepare(Study("smoke", dataset=str(dataset), runs=tmp_path / "runs", cache=cache))
    assert not (tmp_path / "runs").exists()


def test_a_byte_order_mark_changes_nothing(dataset):
    for name in ("cases.csv", "dataset.json"):
        (dataset / name).write_bytes(b"\xef\xbb\xbf" + (dataset / name).read_bytes())
    assert read(dataset).name == "drawn by hand"


def test_a_folder_that_annotates_levels_needs_every_mask(dataset):
    change_cases(dataset, 2, "mask", None)
    with pytest.raises(StudyError, match="line 4 has mask '': fill it in"):
        read(dataset)
