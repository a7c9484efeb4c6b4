"""The notebooks keep the house rules, run under papermill, and refuse what they do not know."""

import ast
import builtins
import json
import re
import shutil
import subprocess
import sys

import nbformat
import pandas as pd
import pytest
from conftest import command_line

from lumbar_utils import StudyError, pipeline
from lumbar_utils.notebook import refuse_undeclared
from lumbar_utils.report.results import read
from lumbar_utils.study import ROOT, Study

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TRAINING = [path for path in NOTEBOOKS if "_train_" in path.name]


def code_of(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_there_are_five_notebooks_in_the_study_s_order():
    assert [path.stem for path in NOTEBOOKS] == [
        "01_data_exploration", "02_train_unet", "03_train_hrnet", "04_train_efficientnet", "05_evaluate_and_compare",
    ]  # fmt: skip


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_calls_the_package_and_holds_no_program_of_its_own(path):
    banned = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.For, ast.While, ast.Try, ast.Lambda)
    for cell in code_of(path):
        assert len(cell.source.splitlines()) <= 12
        assert not [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, banned)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_first_cell_leaves_heavy_libraries_to_their_first_use(path):
    heavy = ("lightning", "seaborn", "albumentations", "timm", "segmentation_models_pytorch", "torchvision")
    script = f"{code_of(path)[0].source}\nimport sys\nprint([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_outputs(path):
    assert all(not cell.outputs and cell.execution_count is None for cell in code_of(path))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_one_cell_of_plain_parameters(path):
    tagged = [cell for cell in code_of(path) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    values = {node.target.id: ast.literal_eval(node.value) for node in ast.parse(tagged[0].source).body}
    expected = {"profile": "auto", "dataset": "phantom", "seed": 0, "runs": "data/runs", "overrides": {}}
    own = {"model": values.get("model"), "add": {}, "seeds": []}  # of the training notebooks, and of the comparison
    assert values == expected | {name: own[name] for name in values if name in own}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_number_in_the_text_comes_from_a_cell(path):
    texts = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    assert not [text for text in texts if re.search(r"\b0\.\d", text)]


def test_the_training_notebooks_differ_in_parameters_and_text_alone():
    def cells(path):
        return [cell.source for cell in code_of(path) if "parameters" not in cell.metadata.get("tags", [])]

    assert cells(TRAINING[0]) == cells(TRAINING[1]) == cells(TRAINING[2])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_papermill_tells_every_parameter_with_its_default_and_meaning(path):
    told = subprocess.run(
        [sys.executable, "-m", "papermill", "--help-notebook", path], capture_output=True, text=True, check=True
    ).stdout
    (cell,) = [cell for cell in code_of(path) if "parameters" in cell.metadata.get("tags", [])]
    for line in cell.source.splitlines():
        name, kind, default, meaning = re.fullmatch(r"(\w+): (\w+) = (.*?)  # (.+)", line).groups()
        assert isinstance(ast.literal_eval(default), getattr(builtins, kind))
        assert re.search(rf"  {name}: {kind} \(default {re.escape(default)}\)\s+{re.escape(meaning)}\n", told)


def test_the_copies_that_a_run_leaves_show_a_case_without_a_kernel(trained):
    for number in ("01", "05"):
        (path,) = (folder_of(trained) / "notebooks").glob(f"{number}_*.ipynb")
        (viewed,) = [cell for cell in code_of(path) if cell.id == "viewer"]
        (output,) = viewed.outputs
        assert set(output.data) == {"image/png", "text/plain"}
        assert "phantom_00" in output.metadata["image/png"]["alt"]


@pytest.mark.parametrize(
    "injected, message",
    [
        ('profle = "smoke"', "unknown parameter 'profle'; did you mean 'profile'"),
        ("x = 1", "unknown parameter 'x'; known are: profile, seed"),
    ],
)
def test_a_parameter_that_papermill_would_only_log_is_refused(injected, message):
    with pytest.raises(StudyError, match=message):
        refuse_undeclared(["", "%matplotlib inline", 'profile: str = "auto"\nseed = 0', f"# Parameters\n{injected}"])


def test_declared_parameters_pass():
    assert refuse_undeclared(["profile: str = 'auto'\nseed: int = 0", "# Parameters\nseed = 3\n", "other = 1"]) is None


def test_an_unknown_notebook_is_refused_with_the_known_ones():
    assert [path.stem for path in pipeline.notebooks(["05", "02_train"])] == [
        "02_train_unet",
        "05_evaluate_and_compare",
    ]
    with pytest.raises(StudyError, match="no notebook begins with '06'; there are 01_data_exploration, "):
        pipeline.notebooks(["06"])


def test_a_study_survives_the_way_through_a_notebook_s_parameters(tmp_path):
    study = Study("smoke", seed=3, epochs=1, runs=tmp_path, cache=tmp_path / "cache", device="cpu")
    given = json.loads(json.dumps(pipeline.parameters(study)))
    assert set(given) == {"profile", "dataset", "seed", "runs", "overrides"}
    overrides = given.pop("overrides")
    assert Study(**given, **overrides) == study


@pytest.fixture(scope="module")
def whole_run(trained, tmp_path_factory):
    """A copy of the run for this file, whose tests delete some of it."""
    arguments, result = trained
    copy = tmp_path_factory.mktemp("study") / "runs"
    shutil.copytree(arguments[4], copy)
    return [*arguments[:4], copy, *arguments[5:]], result


def folder_of(run):
    return next((run[0][4]).glob("phantom-smoke-seed0-*"))


def test_the_five_notebooks_run_and_say_where_everything_is(trained):
    _, result = trained
    assert result.returncode == 0, result.stderr
    folder = folder_of(trained)
    for line in (
        f"report     {folder / 'report.html'}",
        f"tables     {folder / 'tables'}",
        f"figures    {folder / 'figures'}",
        f"notebooks  {folder / 'notebooks'}",
    ):
        assert line in result.stdout
    assert (folder / "tables" / "table2.md").read_text() in result.stdout
    assert "unet epoch 2: validation F1" in result.stdout


def test_a_run_leaves_every_file_that_it_promises(whole_run):
    folder = folder_of(whole_run)
    promised = ["cases.csv", "split.csv", "scores.csv", "study.json"]
    promised += [f"tables/table{number}.{kind}" for number in (1, 2) for kind in ("csv", "tex", "md", "html")]
    promised += [f"figures/fig{number}.{kind}" for number in range(1, 8) for kind in ("pdf", "svg", "png", "txt")]
    kept = ("history.csv", "robustness.csv", "cost.csv")
    promised += [f"{model}/{name}" for model in ("unet", "hrnet", "efficientnet") for name in kept]
    promised += [
        f"tables/{name}.csv" for name in ("claims", "forensics", "comparisons", "multiverse", "metrics", "errors")
    ]
    promised += [f"notebooks/{path.name}" for path in NOTEBOOKS]
    promised += ["report.html", "record/claim_2024.md", "record/model_card_hrnet.md", "record/datasheet.md"]
    assert [name for name in promised if not (folder / name).is_file()] == []
    for model in ("unet", "hrnet", "efficientnet"):
        assert len(list((folder / model / "label_maps").glob("*.png"))) == 2
    assert read(folder).missing == {}
    table = pd.read_csv(folder / "tables" / "table2.csv")
    assert list(table.columns) == ["model", "metric", "value", "low", "high", "n", "paper"]
    assert len(table) == 3 * 5
    assert list(pd.read_csv(folder / "scores.csv").columns) == ["case", "patient", "level", "model", "metric", "value"]


def test_executed_notebooks_hold_figures_and_no_error(whole_run):
    for path in sorted((folder_of(whole_run) / "notebooks").glob("*.ipynb")):
        outputs = [output for cell in code_of(path) for output in cell.outputs]
        assert not [output for output in outputs if output.output_type == "error"]
        assert [output for output in outputs if "image/png" in output.get("data", {})]


def test_a_second_run_does_nothing_and_says_so(whole_run):
    arguments, _ = whole_run
    result = command_line(*arguments)
    assert result.returncode == 0
    assert [f"{path.stem}: up to date" in result.stdout for path in NOTEBOOKS] == [True] * 5


def test_a_deleted_figure_is_made_again_without_training(whole_run):
    arguments, _ = whole_run
    folder = folder_of(whole_run)
    written = (folder / "unet" / "checkpoints" / "best.ckpt").stat().st_mtime_ns
    figure = folder / "figures" / "fig7.pdf"
    before = figure.read_bytes()
    figure.unlink()
    result = command_line(*arguments)
    assert "04_train_efficientnet: up to date" in result.stdout
    assert "05_evaluate_and_compare: done" in result.stdout
    assert figure.read_bytes() == before
    assert (folder / "unet" / "checkpoints" / "best.ckpt").stat().st_mtime_ns == written


def test_a_notebook_runs_by_papermill_alone_and_refuses_an_unknown_parameter(whole_run, tmp_path):
    arguments, _ = whole_run
    overrides = {"cache": str(arguments[6].removeprefix("cache=")), "device": "cpu"}
    papermill = [sys.executable, "-m", "papermill", ROOT / "notebooks" / "02_train_unet.ipynb", tmp_path / "out.ipynb"]
    papermill += ["-p", "profile", "smoke", "-p", "runs", arguments[4], "-y", json.dumps({"overrides": overrides})]
    good = subprocess.run(papermill, capture_output=True, text=True, cwd=tmp_path)
    assert good.returncode == 0, good.stderr
    assert "unet is trained already" in (tmp_path / "out.ipynb").read_text()
    bad = subprocess.run([*papermill, "-p", "sed", "3"], capture_output=True, text=True, cwd=tmp_path)
    assert bad.returncode == 1
    assert "unknown parameter 'sed'; did you mean 'seed'" in bad.stderr


def test_a_notebook_that_fails_stops_the_run_with_its_name_cell_and_error(whole_run):
    arguments, _ = whole_run
    folder = folder_of(whole_run)
    removed = folder / "hrnet" / "predict.json"
    kept = removed.rename(folder / "hrnet" / "elsewhere.json")
    result = command_line(*arguments, "--only", "05")
    kept.rename(removed)
    assert result.returncode == 1
    lines = result.stderr.strip().splitlines()
    assert lines[-3] == "05_evaluate_and_compare failed in cell 6:"
    assert "StudyError: hrnet has no label maps" in lines[-2]
    assert lines[-1].strip() == f"executed so far: {folder / 'notebooks' / '05_evaluate_and_compare.ipynb'}"
    assert "hrnet has no label maps" in (folder / "notebooks" / "05_evaluate_and_compare.ipynb").read_text()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--set", "epoch=3"], "StudyError: unknown setting 'epoch'; did you mean 'epochs'"),
        (["--set", "epochs"], "StudyError: --set epochs needs FIELD=VALUE"),
        (["--profile", "quik"], "StudyError: setting profile='quik' is refused"),
        (["--dataset", "no/such/folder"], "StudyError: there is no data set at"),
        (["--only", "09"], "StudyError: no notebook begins with '09'"),
    ],
)
def test_bad_input_on_the_command_line_ends_with_one_clear_line(tmp_path, arguments, message):
    result = command_line("run", "--profile", "smoke", "--runs", tmp_path / "runs", *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith(message)
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()
