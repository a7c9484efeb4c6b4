"""A study beside a reference: what moved, by how much, and whether that is more than another machine explains."""

import json
import os
import re

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from lumbar_utils import METRICS, StudyError
from lumbar_utils.__main__ import app
from lumbar_utils.output import verify

QUICK = {"profile": "quick", "dataset": "phantom", "seed": 0, "epochs": 9}


def table(**changed):
    """Two cells of Table II: U-Net's F1 and its COCO mAP; changed : column -> their two numbers."""
    rows = {"model": "unet", "metric": ["f1", "map_coco"], "value": [0.9, 0.8], "low": [0.85, 0.7], "high": [0.95, 0.9]}
    return pd.DataFrame(rows | {"n": 77, "paper": [0.9742, 0.7084]} | changed)


def put(folder, cells, finished=True, **settings):
    """A study's folder that holds a Table II."""
    (folder / "tables").mkdir(parents=True)
    (folder / "notebooks").mkdir()
    made = {"unet/fit": {"commit": "abcdef123", "environment": {"CPU": "a CPU"}}}
    record = {"settings": QUICK | settings, "provenance": made}
    (folder / "study.json").write_text(json.dumps(record))
    cells.to_csv(folder / "tables" / "table2.csv", index=False)
    if finished:
        (folder / verify.LAST).write_text(json.dumps({"made_from": "", "files": ["../tables/table2.csv"]}))
    return folder


def cell_of(cells, metric, column):
    return cells.set_index(["metric", "column"]).loc[(metric, column)]


def test_each_score_has_a_tolerance_and_an_interval_s_ends_have_twice_as_much():
    cells = verify.compare(table(), table())
    assert cells["holds"].all() and (cells["moved"] == 0).all()
    assert len(cells) == 2 * 4
    tolerances = [cell_of(cells, "f1", column)["tolerance"] for column in ("value", "low", "high", "n")]
    assert tolerances == [0.02, 0.04, 0.04, 0]
    assert cell_of(cells, "map_coco", "value")["tolerance"] == 0.05
    assert set(verify.TOLERANCES) < set(METRICS)


@pytest.mark.parametrize("value, holds", [([0.9, 0.8], True), ([0.919, 0.8], True), ([0.921, 0.8], False)])
def test_a_metric_without_a_tolerance_of_its_own_has_the_usual_one(value, holds):
    before, after = (table(metric=["kappa", "map_coco"], value=numbers) for numbers in ([0.9, 0.8], value))
    assert verify.compare(before, after)["holds"].all() == holds


@pytest.mark.parametrize(
    "changed, holds",
    [
        pytest.param({"value": [0.919, 0.8]}, True, id="a score within"),
        pytest.param({"value": [0.921, 0.8]}, False, id="a score beyond"),
        pytest.param({"value": [0.9, 0.849]}, True, id="COCO's mAP within"),
        pytest.param({"low": [0.811, 0.7]}, True, id="an interval within"),
        pytest.param({"high": [0.991, 0.9]}, False, id="an interval beyond"),
        pytest.param({"n": 76}, False, id="other patients"),
        pytest.param({"low": np.nan}, False, id="an interval lost"),
        pytest.param({"metric": ["f1", "precision"]}, False, id="a cell lost"),
        pytest.param({"paper": 0.5}, True, id="the paper's numbers are not of the run"),
    ],
)
def test_a_cell_holds_within_its_tolerance_alone(changed, holds):
    assert verify.compare(table(), table(**changed))["holds"].all() == holds


def test_what_only_one_of_the_tables_can_have_is_not_compared():
    further = pd.concat([table(), table(model="nnunet")])
    assert verify.compare(table(), further)["holds"].all()
    unknown = table(low=np.nan, high=np.nan)
    assert verify.compare(unknown, unknown)["holds"].all()


def test_the_report_names_the_cells_that_moved_and_gives_a_verdict(tmp_path):
    reference = verify.read(put(tmp_path / "reference", table()))
    study = verify.read(put(tmp_path / "study", table(value=[0.91, 0.7]), epochs=3))
    text = verify.report(verify.compare(reference.table, study.table), reference, study)
    assert "reference: profile quick, dataset phantom, seed 0; commit abcdef1; a CPU" in text
    assert "the study has another setting: epochs=3, not 9" in text
    rows = [re.sub(r" +", " ", line) for line in text.splitlines() if line.startswith("| U-Net")]
    assert rows == [
        "| U-Net | F1 | value | 0.9000 | 0.9100 | 0.0100 | 0.0200 | |",
        "| U-Net | mAP (COCO) | value | 0.8000 | 0.7000 | -0.1000 | 0.0500 | BEYOND |",
    ]
    assert text.endswith("2 of 8 cells moved, 1 beyond their tolerance\nthis is not the reference's result")


@pytest.mark.parametrize(
    "value, verdict",
    [
        ([0.91, 0.8], "1 of 8 cells moved, 0 beyond their tolerance\nthe reference is confirmed"),
        ([0.90001, 0.8], "0 of 8 cells moved, 0 beyond their tolerance\nthe reference is confirmed"),
    ],
)
def test_a_verdict_within_tolerance(tmp_path, value, verdict):
    same = verify.read(put(tmp_path / "reference", table()))
    assert verify.report(verify.compare(table(), table(value=value)), same, same).endswith(verdict)


def test_the_study_to_compare_is_the_newest_of_the_same_profile_data_and_seed(tmp_path):
    reference = verify.read(put(tmp_path / "reference", table()))
    runs = tmp_path / "runs"
    for age, (name, settings) in enumerate({"seed1": {"seed": 1}, "new": {}, "old": {}}.items()):
        folder = put(runs / name, table(), **settings)
        os.utime(folder / verify.LAST, (1000 - age, 1000 - age))
    put(runs / "half", table(), finished=False)
    assert verify.newest(runs, reference) == runs / "new"


def test_without_a_finished_study_the_command_that_makes_one_is_named(tmp_path):
    reference = verify.read(put(tmp_path / "reference", table()))
    put(tmp_path / "runs" / "half", table(), finished=False)
    message = "run it with `python -m lumbar_utils run --profile quick --dataset phantom --seed 0`"
    with pytest.raises(StudyError, match=re.escape(message)):
        verify.newest(tmp_path / "runs", reference)


@pytest.mark.parametrize("lost", ["study.json", "tables/table2.csv"])
def test_a_folder_with_nothing_to_compare_is_refused(tmp_path, lost):
    (put(tmp_path / "study", table()) / lost).unlink()
    with pytest.raises(StudyError, match=r"has no study.json and table2.csv to compare; name the folder of a finished"):
        verify.read(tmp_path / "study")


def test_the_command_ends_with_1_where_a_cell_moved_too_far(tmp_path):
    reference = put(tmp_path / "reference", table())
    near, far = put(tmp_path / "near", table(value=[0.91, 0.8])), put(tmp_path / "far", table(value=[0.5, 0.8]))

    def command(*arguments):
        return CliRunner().invoke(app, ["verify", *map(str, arguments), "--reference", str(reference)])

    assert command(near).exit_code == 0
    assert command(far).exit_code == 1
    assert "BEYOND" in command(far).output
    assert command("--runs", tmp_path / "nothing").exit_code == 2
    assert command(near, "--run").exit_code == 2


def test_the_committed_reference_can_be_compared_with():
    reference = verify.read(verify.REFERENCE)
    assert verify.compare(reference.table, reference.table)["holds"].all()
    assert {"profile", "dataset", "seed"} <= set(reference.record["settings"])


def test_verdicts_that_changed_are_listed_and_counted():
    reference = pd.DataFrame(
        {"claim": ["A", "B", "C"], "place": "table", "verdict": ["supported", "undecided", "undecided"]}
    )
    study = pd.DataFrame(
        {"claim": ["A", "B", "D"], "place": "table", "verdict": ["contradicted", "undecided", "supported"]}
    )
    assert verify.changed_verdicts(reference, study) == [
        "A (table): supported -> contradicted", "1 of 2 verdicts on the paper's claims changed", "",
    ]  # fmt: skip
    assert verify.changed_verdicts(reference.head(0), study) == []
