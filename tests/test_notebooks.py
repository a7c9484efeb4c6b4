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
from click.testing import CliRunner
from conftest import command_line, in_process
from papermill.cli import papermill

from lumbar_utils import StudyError, pipeline
from lumbar_utils.execution import execute, refuse_undeclared, start
from lumbar_utils.output.results import read
from lumbar_utils.study import ROOT, Grid, Study

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TRAINING = [path for path in NOTEBOOKS if "_train_" in path.name]
DIFFERENT = [path for path in NOTEBOOKS if path not in TRAINING[1:]]  # the training notebooks have the same code


def code_of(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_there_are_six_notebooks_in_the_study_s_order():
    assert [path.stem for path in NOTEBOOKS] == [
        "01_data_exploration", "02_train_unet", "03_train_hrnet", "04_train_efficientnet", "05_evaluate_and_compare",
        "06_appendix",
    ]  # fmt: skip


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_calls_the_package_and_holds_no_program_of_its_own(path):
    banned = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.For, ast.While, ast.Try, ast.Lambda)
    for cell in code_of(path):
        assert len(cell.source.splitlines()) <= 12
        assert not [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, banned)]


def test_the_first_cells_leave_heavy_libraries_to_their_first_use():
    heavy = ("lightning", "seaborn", "albumentations", "timm", "segmentation_models_pytorch", "torchvision")
    script = "import sys\n"
    for path in DIFFERENT:  # one after the other: what one of them loads is loaded after all that follow
        script += (
            f"{code_of(path)[0].source}\nprint({path.stem!r}, [name for name in {heavy} if name in sys.modules])\n"
        )
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout
    assert printed.splitlines() == [f"{path.stem} []" for path in DIFFERENT]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_outputs(path):
    assert all(not cell.outputs and cell.execution_count is None for cell in code_of(path))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_one_cell_of_plain_parameters(path):
    tagged = [cell for cell in code_of(path) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    values = {node.target.id: ast.literal_eval(node.value) for node in ast.parse(tagged[0].source).body}
    expected = {"profile": "auto", "dataset": "phantom", "seed": 0, "runs": "data/runs", "overrides": {}}
    own = {
        "model": values.get("model"),
        "add": {},
        "seeds": [],
        "scan": "",
    }  # of the training notebooks, and of the comparison
    assert values == expected | {name: own[name] for name in values if name in own}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_number_in_the_text_comes_from_a_cell(path):
    texts = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    assert not [text for text in texts if re.search(r"\b0\.\d", text)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_cell_reads_is_set_by_one_cell_alone_and_that_before_it(path):
    cells = [names_of(cell.source) for cell in code_of(path)]
    for number, (reads, _) in enumerate(cells):
        for name in reads:
            setters = [place for place, (_, sets) in enumerate(cells) if name in sets]
            assert len(setters) == 1 and setters[0] < number, f"cell {number} reads {name}, set by cells {setters}"


def names_of(source):
    """Names that a cell reads from outside itself, and those it sets."""
    reads, sets = set(), set()
    for statement in ast.parse(source).body:
        nodes = list(ast.walk(statement))
        names = [node for node in nodes if isinstance(node, ast.Name)]
        reads |= {node.id for node in names if isinstance(node.ctx, ast.Load)} - sets - set(dir(builtins))
        sets |= {node.id for node in names if isinstance(node.ctx, ast.Store)}
        sets |= {node.asname or node.name.partition(".")[0] for node in nodes if isinstance(node, ast.alias)}
    return reads, sets


def test_a_name_that_two_cells_set_is_seen():
    assert names_of("import a.b, c as d\nx = y\nz = [len(x), z]") == ({"y", "z"}, {"a", "d", "x", "z"})


@pytest.mark.parametrize(
    "given, expected",
    [
        ({"overrides": '{"epochs": 1}'}, {"epochs": 1}),
        ({"overrides": "{'epochs': 1}"}, {"epochs": 1}),
        ({"overrides": '{"shift": 0.1, "start_from": null}'}, {"shift": 0.1}),
        ({"seed": "3"}, {"seed": 3}),
    ],
)
def test_what_papermill_passes_as_text_is_read(given, expected):
    assert started(**given) == Study("smoke", **expected)


@pytest.mark.parametrize("seeds", [[0, 1], "[0, 1]", ["0", "1"]])
def test_seeds_come_as_a_list_or_as_text(seeds):
    assert started(seeds=seeds) == Grid(Study("smoke"), (0, 1))


def test_one_seed_is_a_list_of_one():
    assert started(seeds=3) == started(seeds="3") == Grid(Study("smoke", seed=3), (3,))


def started(**given):
    usual = {"profile": "smoke", "dataset": "phantom", "seed": 0, "runs": "data/runs", "overrides": {}}
    return start(**usual | given)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"overrides": "epochs=1"}, "overrides='epochs=1' is no dict; with papermill, give it as -y 'overrides: {name"),
        ({"overrides": "[1]"}, "overrides=[1] is no dict"),
        ({"overrides": '{"epoch": 1}'}, "unknown setting 'epoch'; did you mean 'epochs'?"),
        ({"overrides": {"seed": 1}}, "overrides name seed, which the notebook has a parameter for"),
        ({"seeds": "first"}, "seeds='first' is no list; with papermill, give it as -y 'seeds: [0, 1]'"),
        ({"seeds": ["a"]}, "setting seed='a' is refused"),
        ({"seeds": [0, "0"]}, "the seeds of a grid are 0, 0; give one or more, each once"),
        ({"dataset": ""}, "setting dataset='' is refused: it names no data set"),
        ({"dataset": None}, "setting dataset=None is refused: it names no data set"),
        ({"profile": None}, "setting profile=None is refused"),
        ({"profile": ["smoke"]}, "setting profile=['smoke'] is refused"),
        ({"runs": ""}, "setting runs='' is refused: '' is no path"),
        ({"runs": 5}, "setting runs=5 is refused: 5 is no path"),
    ],
)
def test_a_parameter_that_cannot_be_used_is_refused_by_name(given, message):
    with pytest.raises(StudyError, match=re.escape(message)):
        started(**given)


def test_the_training_notebooks_differ_in_parameters_and_text_alone():
    def cells(path):
        return [cell.source for cell in code_of(path) if "parameters" not in cell.metadata.get("tags", [])]

    assert cells(TRAINING[0]) == cells(TRAINING[1]) == cells(TRAINING[2])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_papermill_tells_every_parameter_with_its_default_and_meaning(path):
    told = CliRunner().invoke(papermill, ["--help-notebook", str(path)], catch_exceptions=False).stdout
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
    with pytest.raises(StudyError, match="no notebook begins with '07'; there are 01_data_exploration, "):
        pipeline.notebooks(["07"])


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


def test_the_notebooks_run_and_say_where_everything_is(trained):
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
    warning = "LEARNT NEXT TO NOTHING: EfficientNet (best validation F1 0.0"  # two epochs of ten images
    assert warning in result.stdout and warning in (folder / "tables" / "reading.txt").read_text()


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
    result = in_process(*arguments)
    assert result.returncode == 0
    assert [f"{path.stem}: up to date" in result.stdout for path in NOTEBOOKS] == [True] * 6


def test_a_deleted_figure_is_made_again_without_training(whole_run):
    arguments, _ = whole_run
    folder = folder_of(whole_run)
    written = (folder / "unet" / "checkpoints" / "final.ckpt").stat().st_mtime_ns
    figure = folder / "figures" / "fig4.pdf"
    before = figure.read_bytes()
    figure.unlink()
    result = command_line(*arguments)
    assert "01_data_exploration: done" in result.stdout
    assert [f"{path.stem}: up to date" in result.stdout for path in NOTEBOOKS] == [False] + [True] * 5
    assert figure.read_bytes() == before
    assert (folder / "unet" / "checkpoints" / "final.ckpt").stat().st_mtime_ns == written


def test_a_notebook_runs_by_papermill_alone_with_its_parameters_as_text(whole_run, tmp_path):
    arguments, _ = whole_run
    overrides = {"cache": arguments[6].removeprefix("cache="), "device": "cpu"}
    given = {"profile": "smoke", "runs": arguments[4], "overrides": json.dumps(overrides)}
    good = papermill_alone("02_train_unet", tmp_path, given)
    assert good.returncode == 0, good.stderr
    assert "unet is trained already" in (tmp_path / "02_train_unet.ipynb").read_text()


def test_a_notebook_refuses_an_unknown_parameter_of_papermill_s(tmp_path):
    bad = papermill_alone("01_data_exploration", tmp_path, {"profile": "smoke", "sed": 3})
    assert bad.returncode == 1
    assert "unknown parameter 'sed'; did you mean 'seed'" in bad.stderr


def papermill_alone(name, folder, parameters):
    """What papermill's own command says of a notebook."""
    command = [sys.executable, "-m", "papermill", ROOT / "notebooks" / f"{name}.ipynb", folder / f"{name}.ipynb"]
    for parameter, value in parameters.items():
        command += ["-p", parameter, str(value)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


@pytest.mark.parametrize("path", DIFFERENT, ids=lambda path: path.stem)
def test_every_cell_gives_the_same_once_more_in_reverse_order(trained, tmp_path, path):
    arguments, _ = trained
    runs = shutil.copytree(arguments[4], tmp_path / "runs")
    overrides = {"cache": arguments[6].removeprefix("cache="), "device": "cpu"}
    notebook = nbformat.read(path, as_version=4)
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    cell.source += f"\nprofile, runs, overrides = 'smoke', {str(runs)!r}, {overrides!r}"
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    again = [nbformat.v4.new_code_cell(cell.source) for cell in reversed(cells)]
    notebook.cells = [*cells, *again]
    nbformat.write(notebook, tmp_path / path.name)
    execute(tmp_path / path.name, tmp_path / "out" / path.name, {})
    outputs = [told_by(cell) for cell in code_of(tmp_path / "out" / path.name)]
    assert outputs[: len(cells)] == outputs[len(cells) :][::-1]
    assert "trained already" in str(outputs) or "_train_" not in path.name


def told_by(cell):
    """Text and tables that a cell shows, without what names an object anew each time."""
    shown = [output.get("data", {}) | {"stream": output.get("text")} for output in cell.outputs]
    texts = [str(data.get("text/html") or data.get("text/plain") or data["stream"]) for data in shown]
    return [re.sub(r"T_[0-9a-f]{5}|0x[0-9a-f]+", "", text) for text in texts]


def test_a_notebook_that_fails_stops_the_run_with_its_name_cell_and_error(whole_run):
    arguments, _ = whole_run
    folder = folder_of(whole_run)
    removed = folder / "hrnet" / "predict.json"
    kept = removed.rename(folder / "hrnet" / "elsewhere.json")
    result = command_line(*arguments, "--only", "05")
    kept.rename(removed)
    assert result.returncode == 1
    lines = result.stderr.strip().splitlines()
    assert lines[-3] == "05_evaluate_and_compare failed in cell 5:"
    assert "StudyError: hrnet has no label maps" in lines[-2]
    assert lines[-1].strip() == f"executed so far: {folder / 'notebooks' / '05_evaluate_and_compare.ipynb'}"
    assert "hrnet has no label maps" in (folder / "notebooks" / "05_evaluate_and_compare.ipynb").read_text()
    recorded = json.loads((folder / "notebooks" / "05_evaluate_and_compare.error.json").read_text())
    assert recorded["error"].splitlines() == lines[-3:]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--set", "epoch=3"], "StudyError: unknown setting 'epoch'; did you mean 'epochs'"),
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
