"""One notebook in a kernel of its own, watched while it runs, and a short message on what fails."""

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
KERNELS: set[psutil.Process] = set()  # those that this process has started, and that may run


class PrivateKernel(AsyncKernelManager):
    """A kernel of this interpreter, spoken to through socket files that only this user can open.

    No kernelspec, IPython profile or start-up file of the user's has a say in it.

    folder : for its sockets and its profile. lock_fd : descriptor of a lock that it holds until it ends; -1 for none.
    environment : variables of its own. started : called with its process.
    """

    folder = ""
    lock_fd = -1
    environment: dict[str, str] = {}  # noqa: RUF012
    started: Callable[[psutil.Process], None] = staticmethod(lambda process: None)
    kernel_spec = INTERPRETER

    def __init__(self, **settings):
        super().__init__(**settings)
        if os.name == "posix":  # elsewhere Jupyter's own choice
            self.transport, self.ip = "ipc", f"{self.folder}/socket"

    async def start_kernel(self, **settings):
        """Start it without the terminal's stderr: what a cell writes comes through a socket."""
        # figures inline, whatever the user's backend; a short folder for sockets of processes that it starts
        own = {"IPYTHONDIR": self.folder, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
        own |= {"TMPDIR": _short_temp()} if _short_temp() else {}
        settings["env"] = {name: value for name, value in os.environ.items() if name != "PYTHONSTARTUP"}
        settings["env"] |= own | self.environment
        if self.lock_fd >= 0:
            settings["pass_fds"] = (self.lock_fd,)
        await super().start_kernel(stderr=subprocess.DEVNULL, **settings)
        process = psutil.Process(self.provisioner.pid)
        KERNELS.add(process)
        self.started(process)


def _short_temp() -> str | None:
    """Where socket files lie: None for the usual temporary folder, /tmp if its path is too long for them."""
    too_long = os.name == "posix" and len(os.fsencode(tempfile.gettempdir())) > LONGEST_TEMP
    return "/tmp" if too_long else None


def kill_kernels() -> None:
    """End all kernels of this process; `execute` then raises in the threads that wait for them."""
    while KERNELS:
        with contextlib.suppress(psutil.NoSuchProcess):
            KERNELS.pop().kill()


@contextlib.contextmanager
def ended(running: Iterable[Future]) -> Iterator[None]:
    """After an error or Ctrl-C, end what still runs in threads; it leaves no record, and the next run goes on with it.

    running : jobs that wait for `execute`; more may come while it lasts.
    """
    try:
        yield
    finally:
        for job in running:
            job.cancel()
        while not all(job.done() for job in running):
            kill_kernels()
            time.sleep(0.1)


def with_threads(number: int) -> dict[str, str]:
    """The variables that give a process so many threads."""
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "LOKY_MAX_CPU_COUNT"), str(number))


def execute(
    notebook: Path, executed: Path, parameters: dict, lock_fd: int = -1, environment: dict[str, str] | None = None,
    started: Callable[[psutil.Process], None] = lambda process: None,
) -> None:  # fmt: skip
    """Execute a notebook where it lies, into the file `executed`; several may run in threads of one process.

    lock_fd, environment, started : of its PrivateKernel. Raises Failure; what the notebook had finished stays, and the
    next run goes on from there.
    """
    executed.parent.mkdir(parents=True, exist_ok=True)
    own = {"lock_fd": lock_fd, "environment": environment or {}, "started": staticmethod(started)}
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
    """A path for papermill, which would put parameters in its {}."""
    return str(path).replace("{", "{{").replace("}", "}}")


class Watch:
    """Looks each second while a notebook runs: reports each new epoch, and keeps the peak of memory.

    history : file that grows by a line an epoch, if it is there. kernel : the notebook's process, once it has started.
    memory_mb : of the kernel and the processes below it, in 10^6 bytes.
    """

    def __init__(self, history: Path, say: Callable[[str], None]):
        self.history, self.say = history, say
        self.kernel: psutil.Process | None = None
        self.memory_mb, self.over = 0.0, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def started(self, kernel: psutil.Process) -> None:
        """Take note of the kernel."""
        self.kernel = kernel

    def _rows(self) -> list:
        with contextlib.suppress(StudyError):  # half a copy, which training replaces
            return list(records.read_csv(self.history).itertuples()) if self.history.exists() else []
        return []

    def _watch(self) -> None:
        seen = {(row.model, row.epoch) for row in self._rows()}
        while not self.over.wait(1):
            self.memory_mb = max(self.memory_mb, memory_of(self.kernel) / 1e6)
            for row in self._rows():
                if (row.model, row.epoch) not in seen:
                    seen.add((row.model, row.epoch))
                    self.say(f"    {row.model} epoch {row.epoch}: validation F1 {row.val_f1:.3f}, {row.seconds:.0f} s")


def memory_of(process: psutil.Process | None) -> int:
    """Bytes in memory of a process and of all below it; 0 where there is none."""
    total = 0
    with contextlib.suppress(psutil.Error):  # it has just ended
        for one in [process, *process.children(recursive=True)] if process else []:
            with contextlib.suppress(psutil.Error):
                total += one.memory_info().rss
    return total
