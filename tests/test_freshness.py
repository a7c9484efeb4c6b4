"""Change one thing, and exactly what depends on it is made again."""

import ast
import json
import shutil

import cv2
import numpy as np
import pytest
from conftest import write_dataset

from lumbar_utils import StudyError, freshness, records
from lumbar_utils.appendix.cost import cost
from lumbar_utils.appendix.robustness import robustness
from lumbar_utils.data.decoding import decode
from lumbar_utils.data.preparation import prepare
from lumbar_utils.networks.prediction import predict
from lumbar_utils.networks.training import fit
from lumbar_utils.output.export import remove_stale_comparison
from lumbar_utils.pipeline import Job, notebooks
from lumbar_utils.scores.evaluation import evaluate, label_maps
from lumbar_utils.study import Study, read_study

SMALL = {"epochs": 1, "unet_channels": 1, "device": "cpu"}
NETWORK = {"training", "label maps", "robustness", "cost"}
TRAINING, COMPARING = "02_train_unet", "05_evaluate_and_compare"


def make(study):
    """Make every kind of result of a study of which U-Net alone is trained, as far as it is stale."""
    cohort = prepare(study)
    fit(study, cohort, "unet")
    predict(study, cohort, "unet")
    robustness(study, cohort, "unet")
    cost(study, cohort, "unet")
    folders = label_maps(study, cohort, ["unet"])
    evaluate(cohort, folders).write(study, cohort, folders)
    for job in (Job(study, notebooks(["02"])[0], "unet"), Job(study, notebooks(["05"])[0])):
        if not job.is_finished(cohort.fingerprint):
            records.mark_finished(job.file(".json"), job.made_from(cohort.fingerprint), [])


def state(study):
    """Kind of result -> what tells that it was made again."""
    records_of = {"training": "fit", "label maps": "predict", "robustness": "robustness", "cost": "cost"}
    files = {kind: study.folder / "unet" / f"{name}.json" for kind, name in records_of.items()}
    files |= {name: study.folder / "notebooks" / f"{name}.json" for name in (TRAINING, COMPARING)}
    return {
        "audit": sorted(path.name for path in study.cache.glob("audit-*")),
        "decoded": sorted(path.name for path in study.cache.glob("decoded-*")),
        "scores": records.read_json(study.folder / "scores.json")["made_from"],
        **{kind: file.stat().st_mtime_ns for kind, file in files.items()},
    }


def remade(study):
    """Kinds of results that another run makes again."""
    before = state(study)
    make(study)
    after = state(study)
    return {kind for kind in after if after[kind] != before[kind]}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study with every kind of result."""
    root = tmp_path_factory.mktemp("made")
    study = Study("smoke", dataset=str(write_dataset(root / "data")), runs=root / "runs", cache=root / "cache", **SMALL)
    make(study)
    return root


@pytest.fixture
def study(made, tmp_path):
    """A copy of that study, its data and its cache, in another place."""
    for name in ("data", "runs", "cache"):
        shutil.copytree(made / name, tmp_path / name)
    places = {"dataset": str(tmp_path / "data"), "runs": tmp_path / "runs", "cache": tmp_path / "cache"}
    return Study("smoke", **places, **SMALL)


def test_nothing_is_made_again_in_a_project_that_was_moved(study):
    assert remade(study) == set()


def test_a_corrected_mask_makes_all_of_it_again(study):
    path = study.runs.parent / "data" / "masks" / "case0.png"
    mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    mask[20, 10] = 0
    cv2.imwrite(str(path), mask)
    assert remade(study) == {*NETWORK, "audit", "decoded", "scores", TRAINING, COMPARING}


# module -> what its code makes, and what is made from that
CODE = {
    "data/decoding": {*NETWORK, "decoded", "scores"},
    "data/folder": {*NETWORK, "audit", "decoded", "scores"},
    "data/checks": {"audit"},
    "networks/losses": NETWORK,
    "data/preparation": NETWORK,
    "networks/prediction": {"label maps", "robustness"},
    "scores/metrics": {"robustness", "scores"},
    "appendix/cost": {"cost"},
    "scores/instances": {"scores"},
    "output/tables": set(),
}


@pytest.mark.parametrize("module", CODE)
def test_changed_code_makes_again_what_it_makes_and_every_notebook(study, monkeypatch, module):
    known = records.source_fingerprint
    changed = lambda *modules: "changed" if not modules or module in modules else known(*modules)  # noqa: E731
    monkeypatch.setattr(records, "source_fingerprint", changed)
    expected = CODE[module] - ({"scores"} if module == "data/decoding" else set())  # label maps come out the same
    assert remade(study) == {*expected, TRAINING, COMPARING}


PACKAGES = {
    "torch": NETWORK,
    "albumentations": NETWORK,
    "opencv-python-headless": {*NETWORK, "audit", "decoded", "scores"},
    "scipy": {"audit", "scores"},
    "matplotlib": set(),
}


@pytest.mark.parametrize("package", PACKAGES)
def test_another_version_of_a_package_makes_again_what_it_computes_and_every_notebook(study, monkeypatch, package):
    known = freshness.versions
    changed = lambda names: known(names) | ({package: "99"} if package in names else {})  # noqa: E731
    monkeypatch.setattr(freshness, "versions", changed)
    assert remade(study) == {*PACKAGES[package], TRAINING, COMPARING}


@pytest.mark.parametrize("setting", ["workers", "accept"])
def test_settings_without_effect_on_results_make_nothing_again(study, setting):
    changed = Study(**study.settings | {setting: {"workers": 1, "accept": ()}[setting]})
    assert changed.folder == study.folder
    assert changed.fingerprint == study.fingerprint


def test_a_changed_label_map_makes_scores_and_comparison_again(study):
    (path, *_) = sorted((study.folder / "unet" / "label_maps").glob("*.png"))
    shape = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).shape
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 7, shape, np.uint8))  # a larger file: none cut off
    assert remade(study) == {"scores", COMPARING}


def test_a_label_map_that_is_cut_off_is_predicted_again(study):
    (path, *_) = sorted((study.folder / "unet" / "label_maps").glob("*.png"))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert remade(study) == {"label maps"}
    assert path.read_bytes() == whole


def test_a_style_and_a_template_are_part_of_the_code(tmp_path, monkeypatch):
    for name in ("figures.py", "style.mplstyle", "report.html"):
        (tmp_path / name).write_text("")
    monkeypatch.setattr(records, "PACKAGE", tmp_path)
    whole = records.source_fingerprint.__wrapped__()
    (tmp_path / "style.mplstyle").write_text("font.size: 99")
    assert records.source_fingerprint.__wrapped__() != whole


def imports_of(module):
    """Modules of the package that a module imports, anywhere in it."""
    path = records.PACKAGE / f"{module}.py"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lumbar_utils"):
            base = node.module.removeprefix("lumbar_utils").strip(".").replace(".", "/")
            for name in [base, *(f"{base}/{alias.name}".strip("/") for alias in node.names)]:
                if (records.PACKAGE / f"{name}.py").is_file():
                    yield name


# what training imports and what changes no weight: where files lie, how they are written, which of them are stale, and
# what makes the data, which count by their content
NOT_OF_THE_RESULT = {
    "records", "freshness", "machine", "study", "networks/checkpoints", "data/sources", "data/audit",
    "data/checks",
}  # fmt: skip


def reached_from(*modules):
    """Modules that some modules import, and those import in turn, but for NOT_OF_THE_RESULT."""
    found, waiting = set(), list(modules)
    while waiting:
        module = waiting.pop()
        if module not in found | NOT_OF_THE_RESULT:
            found.add(module)
            waiting += imports_of(module)
    return found


def test_all_code_that_training_and_prediction_reach_counts_for_them():
    counted = {*freshness.MAKERS["training"].code, *freshness.MAKERS["label maps"].code}
    assert reached_from("networks/training", "networks/prediction") - counted == set()


def test_every_module_that_counts_is_there():
    named = {module for maker in freshness.MAKERS.values() for module in maker.code}
    assert [module for module in named if not (records.PACKAGE / f"{module}.py").is_file()] == []


def test_training_that_starts_from_another_study_follows_it(study):
    later = Study(**study.settings | {"start_from": str(study.folder), "seed": 1})
    job = Job(later, notebooks(["02"])[0], "unet")
    before = freshness.trained(later, "data", "unet"), job.made_from("data")
    record = study.folder / "unet" / "fit.json"
    records.write_json(record, records.read_json(record) | {"made_from": "trained anew"})
    after = freshness.trained(later, "data", "unet"), job.made_from("data")
    assert before[0] != after[0] and before[1] != after[1]


def test_label_maps_of_other_data_are_refused_by_name(study):
    path = study.runs.parent / "data" / "masks" / "case0.png"
    cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_UNCHANGED) * 0)
    cohort = prepare(Study(**study.settings | {"accept": ("empty-mask:case0",)}))
    with pytest.raises(StudyError, match=r"the label maps of unet in .* are stale: data, settings, code or packages"):
        label_maps(study, cohort, ["unet"])


def test_a_prediction_that_was_killed_leaves_nothing_that_counts_as_whole(study, monkeypatch):
    cohort = prepare(study)
    monkeypatch.setattr(freshness, "versions", lambda names: {"torch": "99"})
    fit(study, cohort, "unet")
    written = records.atomic_file
    monkeypatch.setattr(records, "atomic_file", lambda path: interrupt() if path.suffix == ".npz" else written(path))
    with pytest.raises(KeyboardInterrupt):
        predict(study, cohort, "unet")
    with pytest.raises(StudyError, match="unet has no label maps"):
        label_maps(study, cohort, ["unet"])


def interrupt():
    raise KeyboardInterrupt


def test_a_decoded_image_follows_the_code_that_decodes(study, monkeypatch):
    cohort = prepare(study)
    decode(cohort, 64, 64, study.cache)
    folders = set(study.cache.glob("decoded-*"))
    known = records.source_fingerprint
    changed = lambda *names: "new" if "data/decoding" in names else known(*names)  # noqa: E731
    monkeypatch.setattr(records, "source_fingerprint", changed)
    decode(cohort, 64, 64, study.cache)
    assert len(set(study.cache.glob("decoded-*")) - folders) == 1


def test_a_study_whose_tables_changed_is_not_taken_for_another_one(study):
    folder = study.folder
    prepare(study)
    assert read_study(folder).folder == folder
    table = study.runs.parent / "data" / "cases.csv"
    table.write_text(table.read_text().replace("p5", "p7"))
    with pytest.raises(StudyError, match=r"was made from other settings or data than its study.json leads to today"):
        read_study(folder)


def test_versions_are_those_of_the_run_that_trained_whatever_is_prepared_later(study, monkeypatch):
    before = records.recorded_provenance(study.folder)
    monkeypatch.setattr(records, "provenance", lambda: {"packages": {"torch": "99"}})
    prepare(study)
    assert records.recorded_provenance(study.folder) == before
    assert set(before) == {"unet/fit", "unet/predict", "scores"}
    assert "torch" not in json.dumps(records.read_json(study.folder / "study.json"))


def test_scores_of_other_data_or_label_maps_are_said_to_be_stale(study):
    assert freshness.stale_scores(study.folder) == ""
    path = study.runs.parent / "data" / "images" / "case0.png"
    cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_UNCHANGED) + np.uint8(1))
    cohort = prepare(study)
    assert "were made from other data than are there today" in freshness.stale_scores(study.folder)
    fit(study, cohort, "unet")
    predict(study, cohort, "unet")
    assert "were made from other data and label maps than are there" in freshness.stale_scores(study.folder)
    folders = label_maps(study, cohort, ["unet"])
    evaluate(cohort, folders).write(study, cohort, folders)
    assert freshness.stale_scores(study.folder) == ""


def test_a_network_that_is_trained_again_takes_what_was_made_with_it_along(study):
    (study.folder / "unet" / "checkpoints" / "final.ckpt").unlink()  # another processor would train another network
    assert remade(study) >= NETWORK


def test_scores_of_other_label_maps_of_the_same_recipe_are_stale(study):
    record = study.folder / "unet" / "predict.json"
    records.write_json(record, records.read_json(record) | {"content": "predicted on another processor"})
    assert "were made from other label maps than are there today" in freshness.stale_scores(study.folder)


def test_accepted_findings_are_shown_by_the_first_notebook_alone(study):
    accepting = Study(**study.settings | {"accept": ("holes:*",)})
    first, second = ([Job(each, notebooks([number])[0]) for each in (study, accepting)] for number in ("01", "02"))
    assert first[0].made_from("data") != first[1].made_from("data")
    assert second[0].made_from("data") == second[1].made_from("data")


def test_tables_and_figures_of_other_scores_are_gone_once_there_are_new_scores(study):
    cohort = prepare(study)
    files = {name: study.folder / name for name in ("tables/groups.csv", "figures/worst.pdf", "figures/fig4.png")}
    for file in files.values():
        records.write_text(file, "made before")
    folders = label_maps(study, cohort, ["unet"])
    remove_stale_comparison(study.folder, cohort, folders)
    assert all(file.exists() for file in files.values())  # of the same scores
    remove_stale_comparison(study.folder, cohort, {"other": folders["unet"]})
    assert [name for name, file in files.items() if file.exists()] == ["figures/fig4.png"]  # of the data


def test_files_that_python_makes_while_it_starts_are_no_code(tmp_path, monkeypatch):
    (tmp_path / "figures.py").write_text("")
    monkeypatch.setattr(records, "PACKAGE", tmp_path)
    whole = records.source_fingerprint.__wrapped__()
    (tmp_path / "__pycache__").mkdir()
    for name in (".figures.py.swp", "__pycache__/figures.cpython-313.pyc.1234"):
        (tmp_path / name).write_text("half")
    assert records.source_fingerprint.__wrapped__() == whole
