"""The report and the record say what lies in a study's folder, and what does not."""

import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml

from lumbar_utils import StudyError, pipeline
from lumbar_utils.data.preparation import prepare
from lumbar_utils.output.record import STATUSES, TEMPLATES, checklist
from lumbar_utils.output.registry import FIGURES, PARTS, TABLES, print_table
from lumbar_utils.output.report import write
from lumbar_utils.output.results import FILES, expected_files, read
from lumbar_utils.study import ROOT, Study

NOTE = "Synthetic images: this says nothing about patients."
VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """A page's elements as (tag, attributes), its headings as (level, text), and all its text."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.headings, self.open, self.words = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append([int(tag[1]), ""])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        self.words.append(data)
        if self.open and re.fullmatch("h[1-6]", self.open[-1]):
            self.headings[-1][1] += data

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def make_study(folder, synthetic=True, name="six slices"):
    """A study of which U-Net alone is trained: 4 patients, two of them tested on, an error in its second notebook."""
    data = {
        "name": name, "licence": "CC0 1.0", "synthetic": synthetic, "annotated": ["L1", "L2"], "cases": 5,
        "patients": 4, "fingerprint": "d" * 64, "split": "drawn",
        "findings": {"holes:a1": "warning: holes in L1 (3 px)"},
    }  # fmt: skip
    settings = Study("smoke", runs="/somebody/at/home").settings
    environment = {"CPU": "a processor, 2 cores", "GPU": "none"}
    made = {"lumbar_utils": "0.1.0", "commit": "c" * 40, "packages": {"torch": "2.0"}, "environment": environment}
    study = {"fingerprint": "f" * 64, "settings": settings, "data": data} | made
    for part in ("unet", "tables", "figures", "notebooks"):
        (folder / part).mkdir(parents=True)
    (folder / "study.json").write_text(json.dumps(study))
    cases = [("a1", "a", "train"), ("a2", "a", "train"), ("b1", "b", "validation"), ("c1", "c", "test"),
             ("d1", "d", "test")]  # fmt: skip
    pd.DataFrame(cases, columns=["case", "patient", "split"]).to_csv(folder / "cases.csv", index=False)
    history = {"model": "unet", "epoch": [1, 2], "val_f1": [0.25, 0.125], "seconds": [1.5, 2.0]}
    pd.DataFrame(history).to_csv(folder / "unet" / "history.csv", index=False)
    (folder / "unet" / "fit.json").write_text(json.dumps({"parameters": 1234567, "provenance": made}))
    table2 = [("unet", "f1", 0.97414, 0.96, 0.99, 12, 0.9742)]
    columns = ["model", "metric", "value", "low", "high", "n", "paper"]
    pd.DataFrame(table2, columns=columns).to_csv(folder / "tables" / "table2.csv", index=False)
    (folder / "tables" / "table2.md").write_text("| | U-Net |\n|:--|:--|\n| F1 | 0.9741 |\n\nScores on two images.\n")
    verdicts = [("U-Net is first", "table", "supported", "0.9 against 0.8. Data: two images."),
                ("HRNet is last", "table", "undecided", "0.8 against 0.8. Data: two images.")]  # fmt: skip
    columns = ["claim", "place", "verdict", "evidence"]
    pd.DataFrame(verdicts, columns=columns).to_csv(folder / "tables" / "claims.csv", index=False)
    for figure in ("table2", "fig1", "mine"):
        cv2.imwrite(str(folder / "figures" / f"{figure}.png"), np.zeros((6, 8), np.uint8))
    (folder / "figures" / "table2.pdf").touch()
    (folder / "notebooks" / "02_train_unet.ipynb").write_text(json.dumps(executed()))
    return folder


def executed():
    """A copy as papermill leaves it: the first code cell took 2.25 s, the second raised, the third did not run."""
    times = [{"duration": 2.25, "status": "completed"}, {"duration": 0.5, "status": "failed"},
             {"duration": None, "status": "pending"}]  # fmt: skip
    outputs = [[], [{"output_type": "error", "ename": "StudyError", "evalue": "the disk is full"}], []]
    cells = [{"cell_type": "markdown", "source": ["# 02"], "metadata": {}}]
    for number, (time, output) in enumerate(zip(times, outputs, strict=True)):
        code = {"source": [f"x = {number}\n", "x"], "metadata": {"papermill": time}, "outputs": output}
        cells.append({"cell_type": "code", **code})
    run = {"exception": True, "start_time": "2026-01-02T03:04:05.6+00:00", "end_time": "later", "duration": 3.5}
    return {"metadata": {"papermill": run}, "cells": cells}


@pytest.fixture
def folder(tmp_path):
    return make_study(tmp_path / "study")


def page_of(folder):
    return Page(write(folder).read_text())


def test_headings_follow_one_another_and_the_results_come_first(folder):
    headings = page_of(folder).headings
    assert [level for level, _ in headings].count(1) == 1 and headings[0][0] == 1
    assert headings[1] == [2, "Results"]
    assert all(after <= before + 1 for (before, _), (after, _) in pairwise(headings))


def test_the_page_can_be_read_without_eyes_or_mouse(folder):
    page = page_of(folder)
    assert page.all("html") == [{"lang": "en"}] and not page.open
    assert all(image["alt"] for image in page.all("img")) and len(page.all("img")) == 3
    assert {attrs["scope"] for attrs in page.all("th")} == {"col", "row"}
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(attrs["tabindex"] == "0" for attrs in page.all("div") if attrs["class"] == "scroll")
    assert page.all("a")[0] == {"class": "skip", "href": "#results"}


def test_the_page_is_light_and_dark(folder):
    text = write(folder).read_text()
    assert "@media (prefers-color-scheme: dark)" in text and "color-scheme: light dark" in text


def test_the_page_loads_nothing_and_its_links_lead_somewhere(folder):
    text = write(folder).read_text()
    page = Page(text)
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.all("img"))
    assert [link["href"] for link in page.all("link")] == ["data:,"]
    assert not page.all("script") and not page.all("iframe") and "url(" not in text and "@import" not in text
    names = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(names) == len(set(names))
    for link in page.all("a"):
        assert link["href"][1:] in names if link["href"][0] == "#" else (folder / link["href"]).exists()
    files = [link["href"] for link in page.all("a") if "table2." in link["href"] and "figures" in link["href"]]
    assert set(files) == {"figures/table2.png", "figures/table2.pdf"}


def test_numbers_are_carried_to_the_page_as_they_are(folder):
    words = page_of(folder).words
    for cell in ("0.9741 [0.960, 0.990]", "0.9742", "1,234,567", "2 of 2", "0.2500", "3.5"):
        assert cell in words
    text = "".join(words)
    assert "Of 2 of the paper's claims, 1 supported, 1 undecided" in text
    assert "Scores on two images." in text and "2 patients are in the test set: fewer than 10" in text
    assert "0.9 against 0.8." in words and "Data: two images" not in text


def test_every_result_on_synthetic_images_says_so(folder):
    text = write(folder).read_text()
    captions = dict(re.findall(r'<caption id="t-([\w-]+)">(.*?)</caption>', text, re.DOTALL))
    assert [name for name in ("table2", "claims", "training") if NOTE not in captions[name]] == []
    figures = dict(re.findall(r'<figure id="f-(\w+)">(.*?)</figure>', text, re.DOTALL))
    assert {name: figure.count(NOTE) for name, figure in figures.items()} == {"table2": 2, "mine": 2, "fig1": 0}
    for document in (folder / "record").glob("*"):
        assert NOTE in document.read_text()


def test_measured_images_are_not_called_synthetic(tmp_path):
    folder = make_study(tmp_path / "study", synthetic=False)
    texts = [write(folder).read_text(), *(file.read_text() for file in (folder / "record").glob("*"))]
    assert not any("ynthetic images" in text or "images are synthetic" in text for text in texts)


def test_what_is_missing_is_listed_under_the_notebook_that_makes_it(folder):
    missing = read(folder).missing
    assert missing["01_data_exploration"] == [
        "split.csv", "figures/fig4.png", "figures/data_overview.png", "figures/audit.png",
    ]  # fmt: skip
    assert missing["02_train_unet"] == ["unet/predict.json", "unet/robustness.csv", "unet/cost.csv"]
    assert len(missing["03_train_hrnet"]) == 5
    text = "".join(page_of(folder).words)
    assert "This study is not complete" in text and "02_train_unet: unet/predict.json, unet/robustness.csv" in text
    assert "the networks have not been scored" in text


def test_a_study_that_was_only_begun_has_a_report_too(folder, tmp_path):
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "study.json").write_text((folder / "study.json").read_text())
    text = "".join(page_of(begun).words)
    assert "No network has been trained yet." in text
    assert sorted(file.name for file in (begun / "record").iterdir()) == [
        "CITATION.cff", "claim_2024.md", "datasheet.md",
    ]  # fmt: skip


def test_times_of_cells_and_the_error_come_from_the_executed_copy(folder):
    notebook = read(folder).notebooks[1]
    assert (notebook.state, notebook.seconds, notebook.started) == ("failed", 3.5, "2026-01-02 03:04:05")
    assert notebook.error == "StudyError: the disk is full"
    assert notebook.cells["cell"].tolist() == [1, 2, 3] and notebook.cells["line"].tolist() == [
        "x = 0",
        "x = 1",
        "x = 2",
    ]
    assert notebook.cells["seconds"].fillna(-1).tolist() == [2.25, 0.5, -1]
    words = page_of(folder).words
    assert "2.25" in words and "StudyError: the disk is full" in words
    assert read(folder).notebooks[0].state == "not run"


def test_words_of_the_data_are_no_markup(tmp_path):
    folder = make_study(tmp_path / "study", name="<script>alert(1)</script>")
    page = page_of(folder)
    assert not page.all("script") and "<script>alert(1)</script>" in page.words


def test_no_folder_of_this_machine_is_told(folder):
    texts = [write(folder).read_text(), *(file.read_text() for file in (folder / "record").glob("*"))]
    assert not any("/somebody" in text or str(ROOT) in text for text in texts)


def test_the_same_folder_gives_the_same_bytes_and_is_left_alone(folder):
    page = write(folder)
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in [page, *(folder / "record").iterdir()]}
    write(folder)
    assert {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in before} == before


def test_a_folder_of_no_study_is_refused(tmp_path):
    with pytest.raises(StudyError, match=r"has no study.json; name the folder of a study"):
        write(tmp_path)


def test_the_notebooks_are_expected_to_make_every_figure_and_table():
    files = [file for notebook in FILES for file in expected_files(notebook)]
    assert {file[8:-4] for file in files if file.startswith("figures/")} == set(FIGURES) - {"grid"}  # a grid's own
    assert {file[7:-4] for file in files if file.startswith("tables/")} == set(TABLES)


def test_every_figure_and_table_has_its_place_on_the_page():
    sections = {*PARTS, "results", "training", "data", "environment"}
    assert {row.part for row in [*FIGURES.values(), *TABLES.values()]} == sections - {"more"}


def test_the_report_is_no_file_of_a_notebook(study):
    for name in ("report.html", "record/claim_2024.md", "notebooks/01.ipynb", "scores.csv"):
        (study.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (study.folder / name).touch()
    job = pipeline.Job(study, pipeline.notebooks(["05"])[0])
    assert job.outputs() == [study.folder / "scores.csv"]


def test_claim_has_its_44_items_in_order_and_each_has_an_answer(folder):
    items = checklist(read(folder))
    assert items["item"].tolist() == list(range(1, 45))
    assert set(items["status"]) <= set(STATUSES) and items["answer"].str.len().gt(0).all()
    listed = pd.read_csv(TEMPLATES / "claim_2024.csv")
    assert {*listed["status"], *listed["status_if_synthetic"].dropna()} <= set(STATUSES)


def test_what_cannot_be_known_of_measured_images_stays_open(tmp_path):
    items = checklist(read(make_study(tmp_path / "study", synthetic=False)))
    unknown = items[items["status"] == "open"]
    assert unknown["item"].tolist() == [11, 13, 15, 16, 17, 34, 36, 41, 44]
    assert unknown["answer"].str.contains("OPEN").all()


def test_an_item_whose_files_are_missing_is_not_yet_answered(folder):
    items = checklist(read(folder)).set_index("item")
    assert items.index[items["status"] == "not yet"].tolist() == [22, 26, 30, 39]
    assert items["answer"][39] == "The study is not finished: tables/errors.csv is missing."


def test_what_was_scored_on_other_data_is_said_to_be_stale_wherever_it_is_told(folder):
    (folder / "scores.json").write_text(json.dumps({"origin": {"data": "corrected since"}}))
    words = "scores, tables and figures were made from other data than are there today; run notebook 05 again"
    page = write(folder).read_text()
    assert f"<li>Stale: {words}.</li>" in page and words in page[page.index('id="missing"') :]
    assert f"The results are stale: {words}." in checklist(read(folder))["answer"].tolist()
    assert "Not scored yet: run notebook 05." in (folder / "record" / "model_card_unet.md").read_text()


def test_a_network_of_other_data_is_not_told_of_as_finished(folder):
    record = folder / "unet" / "fit.json"
    before = read(folder).training.set_index("model")["finished"]["unet"]
    record.write_text(json.dumps(json.loads(record.read_text()) | {"data": "corrected since"}))
    assert (before, read(folder).training.set_index("model")["finished"]["unet"]) == (True, False)


def test_a_grid_of_one_network_is_whole_without_the_others(folder):
    study = json.loads((folder / "study.json").read_text())
    study["grid"] = {"seeds": [0, 1], "models": ["unet"]}
    (folder / "study.json").write_text(json.dumps(study))
    assert list(read(folder).missing) == ["05_evaluate_and_compare", "06_appendix"]
    items = checklist(read(folder)).set_index("item")
    assert items["status"][[22, 26]].tolist() == ["answered", "answered"]
    assert items["answer"][22].startswith("U-Net of 1,234,567 parameters;")
    assert items["answer"][4].startswith("To find which of U-Net segments")


def test_only_the_key_of_a_model_is_printed_as_its_name():
    models = ["unet", "nnunet", "efficientnet", "tu-efficientnet_b0"]
    rows = {"metric": "f1", "definition": "paper", "model": models, "value": [0.5, 0.6, 0.7, 0.8]}
    columns = print_table("multiverse", pd.DataFrame(rows)).columns
    assert [name for name in columns if name.endswith(", low")] == [
        "EfficientNet, low", "nnunet, low", "tu-efficientnet_b0, low", "U-Net, low",
    ]  # fmt: skip


def test_answers_are_filled_from_the_run(folder):
    answers = checklist(read(folder)).set_index("item")["answer"]
    assert answers[19] == (
        "patients drawn at random, stratified by contrast and levels: train 1 patient (2 images), validation 1 patient "
        "(1 image), test 2 patients (2 images). Seed 0. See split.csv and lumbar_utils/data/split.py."
    )
    assert "Not annotated: L3, L4, L5, S1." in answers[12]


def test_what_the_data_say_of_themselves_is_on_record(dataset, tmp_path, cache):
    description = json.loads((dataset / "dataset.json").read_text())
    told = {"citation": "Somebody 2020", "left_out": ["p9 has no canal"]}
    (dataset / "dataset.json").write_text(json.dumps(description | told))
    study = Study("smoke", dataset=str(dataset), runs=tmp_path / "runs", cache=cache)
    prepare(study)
    answers = checklist(read(study.folder)).set_index("item")["answer"]
    assert "Citation: Somebody 2020." in answers[7]
    assert "Left out when slices were taken from volumes: p9 has no canal." in answers[8]
    write(study.folder)
    assert "12 T12" in (study.folder / "record" / "datasheet.md").read_text()


def test_networks_that_began_elsewhere_may_have_seen_the_test_images(folder):
    study = json.loads((folder / "study.json").read_text())
    study["settings"]["start_from"] = "/somebody/runs/earlier"
    (folder / "study.json").write_text(json.dumps(study))
    write(folder)
    card = (folder / "record" / "model_card_unet.md").read_text()
    assert "whether the study earlier, which it starts from, trained on them: OPEN" in card and "/somebody" not in card


def test_a_model_has_its_card_once_it_is_trained(folder):
    write(folder)
    assert [file.name for file in (folder / "record").glob("model_card_*")] == ["model_card_unet.md"]
    card = (folder / "record" / "model_card_unet.md").read_text()
    assert "1,234,567 parameters" in card and "weights of epoch 1, which has the highest validation F1 (0.2500)" in card
    assert "| F1 | 0.9741 [0.960, 0.990] | 12 |" in card and "CPU: a processor, 2 cores; GPU: none" in card


def test_the_citation_is_valid_and_names_nobody(tmp_path):
    folder = make_study(tmp_path / "study", synthetic=False, name='Slices: "mine"')
    write(folder)
    citation = yaml.safe_load((folder / "record" / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["authors"] == [{"name": "OPEN: the authors of this study"}] and citation["version"] == "study"
    assert citation["references"][2]["title"] == 'Slices: "mine"'


def test_what_the_record_refers_to_exists(folder):
    """Sections of the report and source files that the checklist and the templates name."""
    texts = {file.name: file.read_text() for file in TEMPLATES.iterdir()}
    sections = {text for _, text in page_of(folder).headings} | {part.heading for part in PARTS.values()}
    named = re.findall(r"`([A-Z].+?)`", texts["claim_2024.csv"])
    assert len(named) == 6 and set(named) <= sections
    modules = re.findall(r"lumbar_utils/[\w/]+\.py", "".join(texts.values()))
    assert modules and [module for module in modules if not (ROOT / module).exists()] == []
