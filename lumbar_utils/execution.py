"""A notebook's parameters, and its execution in a kernel of its own, with a short message if it fails."""

import ast
import contextlib
import difflib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path

import psutil
import yaml
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec

from lumbar_utils import Failure, StudyError
from lumbar_utils.study import DEPENDENT, Grid, Study

EXAMPLES = {dict: "{name: value}", list: "[0, 1]"}  # of a parameter's type, in papermill's YAML
INTERPRETER = KernelSpec(
    argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], display_name="Python 3",
    language="python",
)  # fmt: skip
LONGEST_TEMP = 70  # bytes of a temporary folder's path: a socket's path has 103 on macOS, 107 on Linux
KERNELS: set[psutil.Process] = set()  # started by this process, and perhaps still running


def parameters(study: Study | Grid) -> dict:
    """The study as the plain values of a notebook's parameters cell; of a grid the seeds too."""
    settings = study.settings
    usual = Study(profile=settings["profile"]).settings
    values = {name: settings[name] for name in ("profile", "dataset", "seed", "runs")}
    values["overrides"] = {
        name: value
        for name, value in settings.items()
        if name not in values and (value != usual[name] or name in DEPENDENT)
    }
    if isinstance(study, Grid):
        values["seeds"] = list(study.seeds)
    return values


def start(
    profile: str, dataset: str, seed: int, runs: str, overrides: dict | str, seeds: list | int | str = "[]"
) -> Study | Grid:
    """The study of a notebook's parameters; with seeds, the grid of that study under each of them.

    Raises StudyError for a value that cannot be used, and for a parameter that papermill was given under a name the
    notebook does not declare: papermill itself only logs it, and the run would go on with the default.
    """
    refuse_undeclared(_executed_cells())
    named = {"profile": profile, "dataset": dataset, "seed": seed, "runs": runs}
    other = as_given("overrides", overrides, dict)
    if twice := sorted(named.keys() & other.keys()):
        raise StudyError(f"overrides name {', '.join(twice)}, which the notebook has a parameter for; set that one")
    study = Study(**named, **other)
    seeds = as_given("seeds", seeds, list)
    if not seeds:
        return study
    return Grid(study, tuple(Study(**study.settings | {"seed": seed}).seed for seed in seeds))


def as_given(name: str, value: object, kind: type) -> dict | list:
    """A parameter that is a dict or a list, also as the text that papermill's `-p` makes of it; one number is a list.

    Raises StudyError for any other value.
    """
    if isinstance(value, str):
        with contextlib.suppress(yaml.YAMLError):
            value = yaml.safe_load(value)
    if kind is list and isinstance(value, int):
        return [value]
    if not isinstance(value, kind):
        raise StudyError(
            f"{name}={value!r} is no {kind.__name__}; with papermill, give it as -y '{name}: {EXAMPLES[kind]}'"
        )
    return value


def refuse_undeclared(cells: list[str]) -> None:
    """Raise StudyError if a cell that papermill injected assigns a name that no cell before it assigns.

    cells : sources of the cells executed so far, in order; papermill's own begin with `# Parameters`.
    """
    declared: set[str] = set()
    for source in cells:
        names = _assigned_names(source)
        for name in sorted(names - declared) if source.startswith("# Parameters") else ():
            near = difflib.get_close_matches(name, declared, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(sorted(declared))}"
            raise StudyError(f"unknown parameter {name!r}; {hint}")
        declared |= names


def _assigned_names(source: str) -> set[str]:
    """Names that a cell assigns; empty if it is not plain Python, a magic for instance."""
    try:
        nodes = ast.walk(ast.parse(source))
    except SyntaxError:
        return set()
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def _executed_cells() -> list[str]:
    from IPython import get_ipython

    shell = get_ipython()
    return shell.user_ns["In"] if shell else []


class PrivateKernel(AsyncKernelManager):
    """A kernel of this interpreter, connected through socket files that only this user can open.

    It does not depend on the user's kernelspecs, IPython profile and start-up files.

    folder : for its sockets and its profile. lock : descriptor of a lock that it inherits; -1 for none.
    environment : further variables.
    """

    folder = ""
    lock = -1
    environment: dict[str, str] = {}  # noqa: RUF012
    kernel_spec = INTERPRETER

    def __init__(self, **settings):
        super().__init__(**settings)
        if os.name == "posix":  # elsewhere Jupyter's own choice
            self.transport, self.ip = "ipc", f"{self.folder}/socket"

    async def start_kernel(self, **settings):
        """Start it without the terminal's stderr: the output of cells comes through a socket."""
        backend = "module://matplotlib_inline.backend_inline"  # figures inline, whatever the user's backend
        env = os.environ | {"IPYTHONDIR": self.folder, "MPLBACKEND": backend} | self.environment
        env.pop("PYTHONSTARTUP", None)
        if _short_temp():
            env["TMPDIR"] = _short_temp()  # for sockets of the processes that it starts
        settings["env"] = env
        if self.lock >= 0 and os.name == "posix":
            settings["pass_fds"] = (self.lock,)
        await super().start_kernel(stderr=subprocess.DEVNULL, **settings)
        KERNELS.add(psutil.Process(self.provisioner.pid))


def _short_temp() -> str | None:
    """The folder for socket files: None for the usual temporary folder, /tmp if that one's path is too long."""
    too_long = os.name == "posix" and len(os.fsencode(tempfile.gettempdir())) > LONGEST_TEMP
    return "/tmp" if too_long else None


def kill_kernels() -> None:
    """Kill all kernels of this process; `execute` then raises in the threads that wait for them."""
    while KERNELS:
        with contextlib.suppress(psutil.NoSuchProcess):
            KERNELS.pop().kill()


@contextlib.contextmanager
def end_kernels_after(running: Iterable[Future]) -> Iterator[None]:
    """After an error or Ctrl-C, end the notebooks that still run; the next run resumes them, as they have no record.

    running : calls of `execute` in threads; the caller may add some meanwhile.
    """
    try:
        yield
    finally:
        for future in running:
            future.cancel()
        while not all(future.done() for future in running):
            kill_kernels()
            time.sleep(0.1)


def with_threads(number: int) -> dict[str, str]:
    """Environment variables that give a process this number of threads; none for 0."""
    if not number:
        return {}
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "LOKY_MAX_CPU_COUNT"), str(number))


def execute(
    notebook: Path, executed: Path, parameters: dict, lock: int = -1, environment: dict[str, str] | None = None
) -> None:
    """Execute a notebook in its own folder, and write the copy `executed`; several may run in threads of one process.

    lock, environment : see PrivateKernel. Raises Failure; the next run resumes from what was finished.
    """
    import papermill  # takes a second, which a notebook's own kernel need not spend
    from papermill.exceptions import PapermillExecutionError

    executed.parent.mkdir(parents=True, exist_ok=True)
    own = {"lock": lock, "environment": environment or {}}
    private = tempfile.TemporaryDirectory(prefix="kernel-", dir=_short_temp(), ignore_cleanup_errors=True)
    try:
        with private as folder:
            papermill.execute_notebook(
                _without_braces(notebook), _without_braces(executed), parameters, kernel_name="python3",
                progress_bar=False, kernel_manager_class=type("Kernel", (PrivateKernel,), own | {"folder": folder}),
                resources={"metadata": {"path": str(notebook.parent)}},  # papermill's cwd would be that of all threads
            )  # fmt: skip
    except PapermillExecutionError as error:
        reason = f"in cell {error.exec_count}:\n  {error.ename}: {error.evalue}"
    except RuntimeError as error:  # DeadKernelError, which is one, or of a kernel that did not start
        reason = f"as its kernel died:\n  {error}; out of memory, perhaps; run again"
    else:
        return
    raise Failure(f"{executed.stem} failed {reason}\n  executed so far: {executed}")


def _without_braces(path: Path) -> str:
    """A path for papermill, which replaces {name} in it by a parameter."""
    return str(path).replace("{", "{{").replace("}", "}}")
