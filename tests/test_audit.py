"""The audit: every planted fault is found by its kind and case, and clean data are passed over in silence."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import REAL, in_process
from typer.testing import CliRunner

from lumbar_utils import StudyError
from lumbar_utils.__main__ import _accepting, app
from lumbar_utils.data import checks
from lumbar_utils.data.audit import (
    accept,
    accepted_of_each,
    audit,
    near_pairs,
    overview,
    pictures,
    plain_name,
    report,
)
from lumbar_utils.data.folder import read
from lumbar_utils.data.preparation import prepare
from lumbar_utils.output import figures
from lumbar_utils.phantom import phantom
from lumbar_utils.study import Study

A, B, C = (f"phantom_{number:04d}" for number in (1, 2, 3))


@pytest.fixture(scope="session")
def clean(tmp_path_factory) -> Path:
    return phantom.generate(tmp_path_factory.mktemp("audit") / "clean", patients=14, size=128, workers=1)


@pytest.fixture
def folder(clean, tmp_path) -> Path:
    return shutil.copytree(clean, tmp_path / "planted")


def change(folder: Path, part: str, case: str, edit) -> None:
    """Overwrite images/<case>.png or masks/<case>.png by edit(pixels)."""
    path = str(folder / part / f"{case}.png")
    cv2.imwrite(path, edit(cv2.imread(path, cv2.IMREAD_UNCHANGED)))


def image(edit):
    return lambda folder: change(folder, "images", A, edit)


def mask(edit):
    return lambda folder: change(folder, "masks", A, edit)


def both(edit):
    return lambda folder: [change(folder, part, A, edit) for part in ("images", "masks")]


def paint(value, rows, columns):
    """An edit that fills a rectangle."""

    def edit(pixels):
        pixels[rows, columns] = value
        return pixels

    return edit


def swap(label_map, one=2, other=3):
    return np.choose((label_map == one) + 2 * (label_map == other), [label_map, other, one]).astype(np.uint8)


def pierce(label_map):
    """A hole of one pixel in the middle of L3."""
    y, x = (round(place.mean()) for place in np.nonzero(label_map == 3))
    return paint(0, y, x)(label_map)


def copy(edit=lambda pixels: pixels):
    """The first patient's image, edited, becomes the second's."""

    def plant(folder):
        source = cv2.imread(str(folder / "images" / f"{A}.png"), cv2.IMREAD_GRAYSCALE)
        change(folder, "images", B, lambda _: edit(source))

    return plant


def same_patient(folder):
    copy()(folder)
    rename(folder, B, A)


def rename(folder, case, patient):
    table = pd.read_csv(folder / "cases.csv", dtype=str)
    table.loc[table["case"] == case, "patient"] = patient
    table.to_csv(folder / "cases.csv", index=False)


def split_in_two(folder):
    rows = [(A, "train"), (A, "test"), *((f"phantom_{number:04d}", "validation") for number in range(2, 15))]
    pd.DataFrame(rows, columns=["patient", "split"]).to_csv(folder / "split.csv", index=False)


def noisy(pixels):
    noise = np.random.default_rng(0).normal(0, 6, pixels.shape)
    return np.clip(1.2 * pixels + 5 + noise, 0, 255).astype(np.uint8)


PLANTED = {  # fault -> how it is planted, finding, severity, words of what was found
    "broken image": (lambda f: (f / "images" / f"{A}.png").write_bytes(b"?"), f"unreadable:{A}", "error", "be read"),
    "truncated image": (
        lambda f: (f / "images" / f"{A}.png").write_bytes((f / "images" / f"{A}.png").read_bytes()[:2000]),
        f"unreadable:{A}", "error", "cannot be read as an image",
    ),
    "absent mask": (lambda f: (f / "masks" / f"{A}.png").unlink(), f"unreadable:{A}", "error", "No such file"),
    "colour image": (image(lambda i: np.dstack([i, i, 255 - i])), f"unreadable:{A}", "error", "is in colour"),
    "16 bits": (image(lambda i: i.astype(np.uint16) * 256), f"unreadable:{A}", "error", "uint16"),
    "broken table": (lambda f: (f / "cases.csv").write_text(""), "table:planted", "error", "has the columns none"),
    "a line cut off": (
        lambda f: (f / "cases.csv").write_text((f / "cases.csv").read_text().rpartition(",")[0]),
        "table:planted", "error", "cases.csv line 15 has",
    ),
    "split of another form": (
        lambda f: (f / "split.csv").write_text("patient;side\n"), "table:planted", "error", "the columns patient, side",
    ),
    "broken description": (lambda f: (f / "dataset.json").write_text("{"), "table:planted", "error", "is not JSON"),
    "smaller mask": (mask(lambda m: m[:, :-1]), f"size:{A}", "error", "shape (128, 127) but its image (128, 128)"),
    "unnamed label": (mask(paint(99, 0, 0)), f"label:{A}", "error", "has label 99"),
    "empty mask": (mask(np.zeros_like), f"empty-mask:{A}", "error", "none of L1, L2, L3, L4, L5, S1"),
    "L3 left out": (mask(lambda m: m * (m != 3)), f"gap:{A}", "error", "L3 is missing between L1 and S1"),
    "S1 left out": (mask(lambda m: m * (m != 6)), f"missing-end:{A}", "warning", "S1 is missing"),
    "L2 named L3": (mask(lambda m: m + (m == 2)), f"repeated-level:{A}", "error", "L3 in pieces of"),
    "L2 and L3 swapped": (mask(swap), f"order:{A}", "error", "the levels are L1, L3, L2, L4, L5, S1"),
    "speck": (mask(paint(4, 3, 3)), f"fragments:{A}", "warning", "1 of L4 (1 px)"),
    "hole": (mask(pierce), f"holes:{A}", "warning", "holes in L3 (1 px)"),
    "cut off by the edge": (mask(paint(1, slice(0, 60), 90)), f"border:{A}", "warning", "L1 touches"),
    "mask of air": (mask(lambda m: np.roll(m, -60, axis=1)), f"over-air:{A}", "error", "of the whole image"),
    "upside-down": (both(lambda p: p[::-1]), f"upside-down:{A}", "error", "S1, L5, L4, L3, L2, L1"),
    "turned by half": (both(lambda p: p[::-1, ::-1]), f"upside-down:{A}", "error", "S1, L5, L4, L3, L2, L1"),
    "turned by a quarter": (both(np.rot90), f"on-its-side:{A}", "error", "px across"),
    "mirrored": (both(lambda p: p[:, ::-1]), f"mirrored:{A}", "error", "degrees towards the left"),
    "flat image": (image(lambda i: np.full_like(i, 9)), f"flat:{A}", "error", "from 9 to 9"),
    "saturated image": (image(lambda i: cv2.convertScaleAbs(i, alpha=12)), f"saturated:{A}", "warning", "white are"),
    "dark image": (image(lambda i: i // 12), f"outlier:{A}", "warning", "of the set"),
    "the same image": (copy(), f"duplicate:{A}+{B}", "error", f"the same pixels, of patients {A} and {B}"),
    "nearly the same": (copy(noisy), f"near-duplicate:{A}+{B}", "error", "of 255 bits"),
    "a slice twice": (same_patient, f"repeated-slice:{A}+{B}", "warning", f"both of patient {A}"),
    "two spellings": (lambda f: rename(f, B, "Phantom 01"), f"alike-names:{A}+Phantom 01", "error", "leading zeros"),
    "two sides": (split_in_two, f"two-sides:{A}", "error", f"puts patient {A} on two sides: train, test"),
}  # fmt: skip


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found_by_its_kind_and_case(folder, fault):
    plant, finding, severity, words = PLANTED[fault]
    plant(folder)
    findings = audit(folder).set_index("finding")
    assert finding in findings.index
    assert findings.loc[finding, "severity"] == severity
    assert words in findings.loc[finding, "what"]
    assert findings.loc[finding, ["meaning", "remedy"]].str.len().gt(0).all()
    assert {part for case in findings["case"] for part in case.split("+")} <= {A, B, "Phantom 01", "planted"}


@pytest.mark.parametrize("difficulty", phantom.DIFFICULTIES)
def test_a_clean_set_is_passed_over_in_silence(tmp_path, difficulty):
    folder = phantom.generate(tmp_path / "clean", patients=14, size=96, difficulty=difficulty, workers=1)
    assert audit(folder).empty


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real slices are no part of the repository: {REAL.name} is absent")
def test_the_real_slices_have_no_errors():
    findings = audit(REAL)
    assert set(findings["severity"]) == {"warning"}
    assert set(findings["kind"]) == {"fragments", "holes"}


def test_images_without_masks_are_audited_too(folder):
    table = pd.read_csv(folder / "cases.csv", dtype=str).assign(mask="")
    table.to_csv(folder / "cases.csv", index=False)
    shutil.rmtree(folder / "masks")
    description = json.loads((folder / "dataset.json").read_text()) | {"annotated_levels": []}
    (folder / "dataset.json").write_text(json.dumps(description))
    assert audit(folder).empty
    copy(noisy)(folder)
    findings = audit(folder)
    assert findings["finding"].tolist() == [f"near-duplicate:{A}+{B}"]
    assert [picture.label_map for picture in pictures(folder, findings)] == [None]


def test_one_fault_hides_no_other(folder):
    for name in ("broken image", "L3 left out"):
        PLANTED[name][0](folder)
    change(folder, "masks", C, np.zeros_like)
    assert audit(folder)["finding"].tolist() == [f"unreadable:{A}", f"gap:{A}", f"empty-mask:{C}"]


def test_accepted_findings_stay_in_the_table_behind_the_others(folder):
    mask(lambda m: paint(4, 3, 3)(m) * (m != 3))(folder)
    findings = audit(folder, accepted=["gap:*"])
    assert findings[["finding", "severity"]].to_numpy().tolist() == [
        [f"fragments:{A}", "warning"],
        [f"gap:{A}", "accepted"],
    ]
    with pytest.raises(StudyError, match=f"'gap:phantom' fits none of the 2 findings; did you mean 'gap:{A}'"):
        audit(folder, accepted=["gap:phantom"])


def test_of_several_data_sets_each_accepts_what_is_found_in_it(clean, folder, tmp_path):
    PLANTED["L3 left out"][0](folder)
    cohorts = [read(clean), read(folder)]
    assert accepted_of_each(cohorts, [f"gap:{A}"], tmp_path) == [(), (f"gap:{A}",)]
    with pytest.raises(StudyError, match=r"accepted finding 'gap:phantom' fits none of the 1 findings; did you mean"):
        accepted_of_each(cohorts, [f"gap:{A}", "gap:phantom"], tmp_path)


def test_a_grid_of_two_data_sets_goes_on_with_what_one_of_them_needs_accepted(clean, folder, tmp_path):
    PLANTED["L3 left out"][0](folder)
    studies = [Study("smoke", dataset=str(path), runs=tmp_path / "runs", cache=tmp_path) for path in (clean, folder)]
    with pytest.raises(StudyError, match=f"'gap:{A}' fits none of the 0 findings"):
        prepare(Study(**studies[0].settings | {"accept": f"gap:{A}"}))
    accepting = _accepting(studies, [f"gap:{A}"])
    assert [study.accept for study in accepting] == [(), (f"gap:{A}",)]
    assert [study.folder for study in accepting] == [study.folder for study in studies]
    for study in accepting:
        prepare(study)


def test_a_name_that_fits_no_data_set_of_a_grid_is_refused_before_any_cell(clean, folder, tmp_path):
    settings = ["run", "--profile", "smoke", "--seeds", 0, "--runs", tmp_path / "runs", "--set", f"cache={tmp_path}"]
    result = in_process(*settings, "--datasets", clean, folder, "--accept", "gap:phantom")
    assert result.returncode == 2
    assert "accepted finding 'gap:phantom' fits none of the 0 findings" in result.stderr
    assert not (tmp_path / "runs").exists()


def test_errors_stop_a_study_until_they_are_corrected_or_accepted(folder, tmp_path):
    mask(lambda m: paint(4, 3, 3)(m) * (m != 3))(folder)
    settings = dict(dataset=str(folder), runs=tmp_path / "runs", cache=tmp_path / "cache", device="cpu")
    with pytest.raises(StudyError, match=rf"errors: 1: gap:{A}: L3 is missing .*python -m lumbar_utils audit {folder}"):
        prepare(Study("smoke", **settings))
    study = Study("smoke", **settings, accept=f"gap:{A}")
    prepare(study)
    findings = json.loads((study.folder / "study.json").read_text())["data"]["findings"]
    assert findings == {
        f"fragments:{A}": "warning: small pieces: 1 of L4 (1 px)",
        f"gap:{A}": "accepted: L3 is missing between L1 and S1",
    }
    assert len(list((tmp_path / "cache").glob("audit-*.csv"))) == 1


def test_what_is_accepted_may_come_from_the_command_line_and_names_no_other_study():
    assert Study("smoke", accept="a:1, b:2").accept == Study("smoke", accept=["a:1", "b:2"]).accept == ("a:1", "b:2")
    assert Study("smoke", accept="a:1").folder == Study("smoke").folder


def test_the_command_prints_writes_and_tells_by_its_exit_code(folder, tmp_path):
    def run(*more):
        return CliRunner().invoke(app, ["audit", str(folder), "--to", str(tmp_path / "to"), *more])

    assert (run().exit_code, run().stdout) == (0, f"nothing found\n{tmp_path}/to/findings.csv\n")
    PLANTED["mirrored"][0](folder)
    result = run()
    assert result.exit_code == 1
    assert f"mirrored:{A}" in result.stdout
    assert f"1 error; what each means, and the remedy:\n{tmp_path}/to/findings.csv" in result.stdout
    assert pd.read_csv(tmp_path / "to" / "findings.csv")["finding"].tolist() == [f"mirrored:{A}"]
    assert {path.name for path in (tmp_path / "to").iterdir()} == {
        "findings.csv", "findings.pdf", "findings.svg", "findings.png", "findings.txt",
    }  # fmt: skip
    assert run("--accept", f"mirrored:{A}").exit_code == 0
    assert run("--accept", "mirror").exit_code == 2


def many(number):
    rows = [(f"holes:{n}", "warning", "holes", str(n), "holes in L1 (1 px)", "m", "r") for n in range(number)]
    return pd.DataFrame(rows, columns=["finding", "severity", "kind", "case", "what", "meaning", "remedy"])


def test_many_findings_are_told_in_one_line_a_kind():
    assert overview(many(30)).to_numpy().tolist() == [["warning", "holes", 30, "holes:0", "holes in L1 (1 px)"]]
    assert len(report(many(30), Path("f.csv")).splitlines()) == 5
    assert len(report(many(20), Path("f.csv")).splitlines()) == 24


def test_the_page_counts_by_kind_and_shows_the_gravest(folder):
    for name in ("L3 left out", "speck", "nearly the same"):
        PLANTED[name][0](folder)
    findings = accept(audit(folder), ["fragments:*"])
    shown = pictures(folder, findings)
    assert [picture.finding for picture in shown] == findings["finding"].tolist()
    fig = figures.audit_page(findings, shown, "note")
    assert fig.get_figwidth() == figures.PAGE
    assert sum(bar.get_width() for bar in fig.axes[0].patches) == len(findings) == 3
    assert len(fig.axes) == 1 + 3
    assert len(figures.audit_page(many(0)).axes) == 1


@pytest.mark.parametrize(
    "x, expected",
    [
        pytest.param([5, 5, 5, 5], 0, id="straight"),
        pytest.param([1, 0, 0, 1], 90, id="front left"),
        pytest.param([0, 1, 1, 0], -90, id="mirrored"),
    ],
)
def test_the_bend_of_a_column_is_an_angle(x, expected):
    assert checks.bend_deg(np.column_stack([x, range(4)])) == pytest.approx(expected)


def test_hashes_ignore_brightness_and_tell_other_images():
    one, other = np.random.default_rng(0).integers(0, 120, (2, 64, 64), np.uint8)
    hashes = np.stack([checks.perceptual_hash(pixels) for pixels in (one, other, 2 * one + 5)])
    assert list(near_pairs(hashes, np.array(["a", "b", "c"]))) == [(0, 2, 0)]
    assert list(near_pairs(hashes, np.array(["a", "b", "a"]))) == []


@pytest.mark.parametrize("name", ["Patient 007", "patient7", "PATIENT_07", "patient-0007"])
def test_a_name_is_the_same_in_any_spelling(name):
    assert plain_name(name) == "patient7"
    assert plain_name("patient70") != "patient7" != plain_name("patient1007")
