"""What is wrong on the command line is refused in one line, at once; relative paths begin where one stands."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import in_process, write_dataset

from lumbar_utils import StudyError
from lumbar_utils.__main__ import _parse, _study
from lumbar_utils.study import ROOT, Study, with_absolute_paths

REFUSED = [
    (["run", "--set", "epoch=3"], "unknown setting 'epoch'; did you mean 'epochs'?"),
    (["run", "--profile", "quik"], "'quik' is refused: Input should be 'smoke', 'quick', 'patients' or 'paper'"),
    (["run", "--seeds", "0", "--keep", "all"], "'all' is not one of 'final', 'last', 'none'"),
    (["run", "--bogus"], "No such option: --bogus"),
    (["--bogus"], "No such option: --bogus"),
    (["bogus"], "No such command 'bogus'; see `"),
    (["run", "--seed", "abc"], "Invalid value for '--seed'"),
    (["run", "--seed", "-1"], "setting seed=-1 is refused: Input should be greater than or equal to 0"),
    (["run", "--folds", "1"], "folds=1 leaves nobody to train on"),
    (["run", "--set", "phantom_patients=100000000000"], "should be less than or equal to 100000"),
    (["run", "--only", ""], "--only is given an empty text; give a value, or leave it out"),
    (["run", "--runs", " "], "--runs is given an empty text"),
    (["run", "--runs="], "--runs is given an empty text"),
    (["report", ""], "report is given an empty text"),
    (["run", "--set", "epochs"], "--set epochs needs the form NAME=VALUE"),
    (["run", "--set", "epochs="], "--set epochs= needs the form NAME=VALUE"),
    (["run", "--set", "=3"], "--set =3 needs the form NAME=VALUE"),
    (["run", "--set", "epochs=1e3"], "setting epochs='1e3' is refused: Input should be a valid integer"),
    (["run", "--set", "learning_rate=inf"], "setting learning_rate='inf' is refused: Input should be a finite number"),
    (["run", "--set", "epochs=1", "epochs=2"], "--set epochs is given twice, as 1 and as 2; give it once"),
    (["run", "--set", "folds=3", "--folds", "4"], "--set folds is given twice, as 3 and as 4"),
    (["run", "--seed", "1", "--set", "seed=2"], "--seed and --set seed are both given; give one of them"),
    (["run", "--seed", "3", "--seeds", "1", "2"], "--seed cannot be used here: it is of a single study"),
    (["run", "--seeds", "1", "--set", "fold=2"], "--set fold cannot be used here: it is of a single study"),
    (["run", "--add", "x="], "--add x= needs the form NAME=VALUE"),
    (["train", "--set", "epoch=3"], "unknown setting 'epoch'"),
    (["import", "x", "y"], "x is no source to import"),
    (["predict", "/nowhere", "unet", "phantom", "new"], "/nowhere has no study.json"),
    (["export", "/nowhere", "--to", "new", "--format", "xyz"], "/nowhere has no study.json"),
    (["report", "/nowhere"], "/nowhere has no study.json; name the folder of a study or grid"),
    (["status", "/nowhere"], "/nowhere has no study.json"),
    (["verify", "/nowhere"], "/nowhere has no study.json"),
]
COMMAND = """
import json, sys
from typer.testing import CliRunner
from lumbar_utils.__main__ import app
for command in json.loads(sys.argv[1]):
    result = CliRunner().invoke(app, command)
    print(result.exit_code, [name for name in json.loads(sys.argv[2]) if name in sys.modules])
"""


@pytest.mark.parametrize("arguments, message", REFUSED, ids=lambda it: " ".join(it) if isinstance(it, list) else "")
def test_what_is_wrong_is_refused_in_one_line(arguments, message):
    result = in_process(*arguments)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1 and message in result.stderr


def modules_after(commands, modules):
    """A line a command, all of one process: its exit code, and which of these modules are loaded after it."""
    arguments = [json.dumps([list(map(str, command)) for command in commands]), json.dumps(modules)]
    done = subprocess.run([sys.executable, "-c", COMMAND, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_refusal_and_the_help_load_no_library_that_takes_seconds():
    slow = ["torch", "pandas", "scipy", "matplotlib", "papermill", "distributed"]
    commands = [*(command for command, _ in REFUSED), ["--help"], ["run", "--help"]]
    assert modules_after(commands, slow) == ["2 []"] * len(REFUSED) + ["0 []"] * 2


def test_a_wrong_notebook_network_or_data_set_is_refused_without_torch():
    named = ["run", "--profile", "smoke"]
    commands = [[*named, "--only", "09"], [*named, "--models", "segnet"], [*named, "--dataset", "/nowhere"],
                [*named, "--seeds", "0", "0"], ["audit", "/nowhere"]]  # fmt: skip
    assert modules_after(commands, ["torch"]) == ["2 []"] * 5


def test_a_finished_study_is_looked_at_without_torch(trained, tmp_path):
    (folder,) = trained[0][4].glob("phantom-smoke-*")
    commands = [["status", folder], ["export", folder, "--to", tmp_path / "out"], ["verify", folder]]
    assert [line[1:] for line in modules_after(commands, ["torch"])] == [" []"] * 3


def test_output_may_be_closed_and_the_backend_unknown(trained):
    (folder,) = trained[0][4].glob("phantom-smoke-*")
    command = [sys.executable, "-m", "lumbar_utils", "status", str(folder)]
    closed = lambda: os.close(1)  # noqa: E731
    ended = subprocess.run(
        command, stderr=subprocess.PIPE, text=True, preexec_fn=closed, env=os.environ | {"MPLBACKEND": "nonsense"}
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_record_that_is_cut_off_is_named(tmp_path):
    (tmp_path / "study.json").write_text('{"settings": {"profi')
    for command in ("status", "report", "verify"):
        result = in_process(command, tmp_path)
        assert result.returncode == 2 and "study.json is cut off or damaged" in result.stderr


@pytest.mark.parametrize("keep", [0, 0.5], ids=["nothing", "half"])
@pytest.mark.parametrize(
    "name, commands",
    [
        ("unet/fit.json", ["report", "export", "verify", "predict"]),
        ("unet/predict.json", ["report"]),  # else "made from other label maps than are there today"
        ("scores.json", ["report", "export", "verify"]),
        ("tables/claims.csv", ["report", "verify"]),
        ("figures/fig5.png", ["report"]),
        ("figures/fig5.pdf", ["export"]),
    ],
)
def test_half_a_copy_of_a_study_is_refused_by_the_file_that_is_cut_off(trained, tmp_path, name, commands, keep):
    (folder,) = trained[0][4].glob("phantom-smoke-*")
    study = shutil.copytree(folder, tmp_path / folder.name)
    whole = (study / name).read_bytes()
    (study / name).write_bytes(whole[: int(keep * len(whole))])
    more = {
        "export": ["--to", tmp_path / "out", "--format", "png600"],
        "predict": ["unet", "phantom", tmp_path / "new"],
    }
    for command in commands:
        result = in_process(command, study, *more.get(command, []))
        assert result.returncode == 2 and len(result.stderr.splitlines()) == 1
        assert name in result.stderr or "unet is not trained in" in result.stderr


def test_a_table_that_lost_its_last_lines_is_said_and_made_again(trained, tmp_path):
    (folder,) = trained[0][4].glob("phantom-smoke-*")
    study = shutil.copytree(folder, tmp_path / folder.name)
    table = study / "tables" / "table2.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    assert "table2.csv is cut off" in in_process("verify", study).stderr
    assert "table2.csv is cut off" in in_process("export", study, "--to", tmp_path / "out", "--only", "table2").stderr
    assert "1 waiting" in in_process("status", study).stdout


def test_relative_paths_begin_where_the_command_is_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("w.pth").touch()
    paths = ["encoder_weights=w.pth", "runs=r", "cache=c"]
    study = _study(paths, profile="smoke", dataset="images")
    assert study.dataset == str(tmp_path / "images") and study.encoder_weights == str(tmp_path / "w.pth")
    assert (study.runs, study.cache) == (tmp_path / "r", tmp_path / "c")
    assert _study(["start_from=a/../b"], runs=Path("r")).start_from == tmp_path / "b"
    assert _study(["dataset=nifti:scans"]).dataset == f"nifti:{tmp_path / 'scans'}"
    nobody = _study([], profile="smoke", dataset="~nobody-of-that-name/x").dataset
    assert nobody == str(tmp_path / "~nobody-of-that-name" / "x")
    kept = {"dataset": "phantom", "encoder_weights": "imagenet", "epochs": "3"}
    assert with_absolute_paths(kept, tmp_path) == kept
    assert Study("smoke", runs="r").runs == ROOT / "r"  # of a notebook


def test_a_tool_s_label_maps_are_found_from_where_one_stands(tmp_path, cache, monkeypatch):
    write_dataset(tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    given = ["run", "--profile", "smoke", "--dataset", "images", "--runs", "runs", "--set", f"cache={cache}"]
    result = in_process(*given, "--add", "tool=maps")
    assert result.returncode == 2 and f"there is no folder {tmp_path / 'maps'}" in result.stderr


def test_pairs_are_read_up_to_their_first_equals_sign():
    assert _parse(["dataset=a=b", "epochs=3"]) == {"dataset": "a=b", "epochs": "3"}
    with pytest.raises(StudyError, match="--add tool is given twice, as a and as b; give it once"):
        _parse(["tool=a", "tool=b"], "--add")


def test_notebook_5_is_notebook_05():
    from lumbar_utils.pipeline import notebooks

    assert [path.stem for path in notebooks(["5", "02"])] == ["02_train_unet", "05_evaluate_and_compare"]
    with pytest.raises(StudyError, match="no notebook begins with '00'"):
        notebooks(["0"])
