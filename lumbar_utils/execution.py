"""One notebook executed in a kernel of its own, its epochs and memory watched, and a short message if it fails."""

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path

import papermill
import psutil
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from lumbar_utils import Failure, StudyError, records

INTERPRETER = KernelSpec(
    argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], display_name="Python 3",
    language="python",
)  # fmt: skip
LONGEST_TEMP = 70  # bytes of a temporary folder's path: a socket's path has 103 on macOS, 107 on Linux
KERNELS: set[psutil.Process] = set()  # started by this process, and perhaps still running


class PrivateKernel(AsyncKernelManager):
    """A kernel of this interpreter, connected through socket files that only this user can open.

    It does not depend on the user's kernelspecs, IPython profile and start-up files.

    folder : for its sockets and its profile. lock : descriptor of a lock that it inherits; -1 for none.
    environment : further variables. started : called with its process.
    """

    folder = ""
    lock = -1
    environment: dict[str, str] = {}  # noqa: RUF012
    started: Callable[[psutil.Process], None] = staticmethod(lambda process: None)
    kernel_spec = INTERPRETER

    def __init__(self, **settings):
        super().__init__(**settings)
        if os.name == "posix":  # elsewhere Jupyter's own choice
            self.transport, self.ip = "ipc", f"{self.folder}/socket"

    async def start_kernel(self, **settings):
        """Start it without the terminal's stderr: the output of cells comes through a socket."""
        env = dict(os.environ)
        env.pop("PYTHONSTARTUP", None)
        env["IPYTHONDIR"] = self.folder
        env["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # figures inline, whatever the user's backend
        if _short_temp():
            env["TMPDIR"] = _short_temp()  # for sockets of the processes that it starts
        settings["env"] = env | self.environment
        if self.lock >= 0 and os.name == "posix":
            settings["pass_fds"] = (self.lock,)
        await super().start_kernel(stderr=subprocess.DEVNULL, **settings)
        process = psutil.Process(self.provisioner.pid)
        KERNELS.add(process)
        self.started(process)


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
    """Environment variables that give a process this number of threads."""
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "LOKY_MAX_CPU_COUNT"), str(number))


def execute(
    notebook: Path, executed: Path, parameters: dict, lock: int = -1, environment: dict[str, str] | None = None,
    started: Callable[[psutil.Process], None] = lambda process: None,
) -> None:  # fmt: skip
    """Execute a notebook in its own folder, and write the copy `executed`; several may run in threads of one process.

    lock, environment, started : see PrivateKernel. Raises Failure; the next run resumes from what was finished.
    """
    executed.parent.mkdir(parents=True, exist_ok=True)
    own = {"lock": lock, "environment": environment or {}, "started": staticmethod(started)}
    private = tempfile.TemporaryDirectory(prefix="kernel-", dir=_short_temp(), ignore_cleanup_errors=True)
    try:
        with private as folder:
            papermill.execute_notebook(
                _without_braces(notebook), _without_braces(executed), parameters, kernel_name="python3",
                progress_bar=False, kernel_manager_class=type("Kernel", (PrivateKernel,), own | {"folder": folder}),
                resources={"metadata": {"path": str(notebook.parent)}},  # papermill's cwd would be that of all threads
            )  # fmt: skip
    except PapermillExecutionError as error:
        where, why = f"in cell {error.exec_count}", f"{error.ename}: {error.evalue}"
        raise Failure(executed.stem, where, why, executed) from None
    except DeadKernelError:
        why = "out of memory, perhaps; run again"
        raise Failure(executed.stem, "as its kernel died", why, executed) from None


def _without_braces(path: Path) -> str:
    """A path for papermill, which replaces {name} in it by a parameter."""
    return str(path).replace("{", "{{").replace("}", "}}")


class Watch:
    """Looks once a second at a running notebook: reports each new epoch, and keeps the peak of memory.

    history : file that grows by a line an epoch, if there is one. memory_mb : peak of the kernel and its subprocesses,
    in 10^6 bytes.
    """

    def __init__(self, history: Path, say: Callable[[str], None]):
        self.history, self.say = history, say
        self.kernel: psutil.Process | None = None
        self.memory_mb, self.stop = 0.0, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()

    def started(self, kernel: psutil.Process) -> None:
        """Watch the memory of this process from now on."""
        self.kernel = kernel

    def _epochs(self) -> list:
        with contextlib.suppress(StudyError):  # half a copy, which training replaces
            return list(records.read_csv(self.history).itertuples()) if self.history.exists() else []
        return []

    def _watch(self) -> None:
        reported = {(row.model, row.epoch) for row in self._epochs()}
        while not self.stop.wait(1):
            self.memory_mb = max(self.memory_mb, memory_of(self.kernel) / 1e6)
            for row in self._epochs():
                if (row.model, row.epoch) not in reported:
                    reported.add((row.model, row.epoch))
                    self.say(f"    {row.model} epoch {row.epoch}: validation F1 {row.val_f1:.3f}, {row.seconds:.0f} s")


def memory_of(process: psutil.Process | None) -> int:
    """Bytes in memory of a process and all its subprocesses; 0 without a process."""
    if process is None:
        return 0
    total = 0
    with contextlib.suppress(psutil.Error):  # it has just ended
        for one in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += one.memory_info().rss
    return total
