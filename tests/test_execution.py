"""Notebooks run in kernels of this interpreter, on machines that are set up in other ways than ours."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import pytest

from lumbar_utils import Failure, execution
from lumbar_utils.execution import execute, kill_kernels


def notebook(folder: Path, code: str) -> Path:
    path = folder / "notebook.ipynb"
    parameters = nbformat.v4.new_code_cell("given = 0", metadata={"tags": ["parameters"]})
    cells, python = [parameters, nbformat.v4.new_code_cell(code)], {"language_info": {"name": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=python), path)
    return path


def printed(folder: Path, code: str, **how) -> str:
    """What a notebook of one cell prints."""
    executed = folder / "executed" / "notebook.ipynb"
    execute(notebook(folder, code), executed, {"given": 1}, **how)
    outputs = nbformat.read(executed, 4).cells[-1].outputs
    return "".join(output["text"] for output in outputs if output["output_type"] == "stream").strip()


def test_a_kernel_is_of_this_interpreter_whatever_the_user_has_set_up(tmp_path, monkeypatch):
    spec = {"argv": ["/no/such/python", "{connection_file}"], "display_name": "mine", "language": "python"}
    (tmp_path / "jupyter" / "kernels" / "python3").mkdir(parents=True)
    (tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json").write_text(json.dumps(spec))
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00.py").write_text("given = 'of the profile'")
    (tmp_path / "startup.py").write_text("raise SystemExit")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "startup.py"))
    monkeypatch.setenv("MPLBACKEND", "TkAgg")
    code = "import os, sys\nprint(sys.executable, given, os.environ['MPLBACKEND'], 'PYTHONSTARTUP' in os.environ)"
    inline = "module://matplotlib_inline.backend_inline"
    assert printed(tmp_path, code) == f"{sys.executable} 1 {inline} False"


@pytest.mark.parametrize("name", ["a b", "Wirbelsäule", "50%", "#1", "{given}", "[x]"])
def test_a_notebook_runs_where_it_lies_under_any_name(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    assert printed(folder, "import os\nprint(os.getcwd())") == str(folder)


@pytest.mark.skipif(os.name != "posix", reason="kernels have socket files on POSIX systems alone")
def test_a_long_temporary_folder_and_a_home_that_cannot_be_written_do_no_harm(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr(execution.tempfile, "tempdir", str(long))
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setenv("HOME", "/dev/null/home")
    assert printed(tmp_path, "import tempfile\nprint(tempfile.gettempdir())") == "/tmp"


@pytest.mark.skipif(os.name != "posix", reason="kernels have socket files on POSIX systems alone")
def test_only_this_user_can_open_a_kernel_s_sockets(tmp_path):
    code = "import os\nfolder = os.environ['IPYTHONDIR']\n"
    code += "print(oct(os.stat(folder).st_mode), sum(name.startswith('socket-') for name in os.listdir(folder)))"
    assert printed(tmp_path, code) == "0o40700 5"


def test_a_cell_s_own_variables_reach_its_kernel_and_no_other(tmp_path):
    assert printed(tmp_path, "import os\nprint(os.environ['OWN'])", environment={"OWN": "3"}) == "3"
    assert "OWN" not in os.environ


AT_ONCE = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from test_execution import printed
folders = [Path(sys.argv[1]) / name for name in "abc"]
for folder in folders:
    folder.mkdir()
with ThreadPoolExecutor(3) as threads:
    print(*threads.map(lambda folder: Path(printed(folder, "import os; print(os.getcwd())")).name, folders))
print(os.getcwd())
"""


def test_notebooks_at_once_in_threads_of_one_process_each_run_in_their_folder(tmp_path):
    command = [sys.executable, "-c", AT_ONCE, tmp_path]  # a process whose event loops end with it
    here = Path(__file__).parent
    lines = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines == ["a b c", str(here)]


def kill_once_there(file):
    while not file.exists():
        time.sleep(0.1)
    kill_kernels()


def test_kernels_that_are_killed_end_their_notebooks_with_one_line(tmp_path):
    started = tmp_path / "started"
    threading.Thread(target=kill_once_there, args=[started], daemon=True).start()
    code = f"import time\nopen({str(started)!r}, 'w').close()\nwhile True: time.sleep(1)"
    with pytest.raises(Failure, match="failed as its kernel died"):
        execute(notebook(tmp_path, code), tmp_path / "executed.ipynb", {})
