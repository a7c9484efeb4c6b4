"""One notebook in a kernel of its own, watched while it runs, and a short word on what fails."""

import contextlib
import os
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import papermill
import psutil
from jupyter_client import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from lumbar_utils import Failure


class PrivateKernel(AsyncKernelManager):
    """A kernel spoken to through socket files of its own: no port that another kernel takes or another user hears.

    held : descriptor of a lock that it holds until it ends; -1 for none.
    """

    held = -1

    def __init__(self, **settings):
        super().__init__(**settings)
        if os.name == "posix":  # elsewhere Jupyter's own choice
            self._sockets = tempfile.TemporaryDirectory(prefix="kernel-", ignore_cleanup_errors=True)
            self.transport, self.ip = "ipc", f"{self._sockets.name}/socket"

    async def start_kernel(self, **settings):
        """Start it deaf to the terminal: what a cell writes comes through a socket; the rest is of the kernel's end."""
        held = {"pass_fds": (self.held,)} if self.held >= 0 else {}
        await super().start_kernel(stderr=subprocess.DEVNULL, **held, **settings)


def execute(notebook: Path, executed: Path, parameters: dict, held: int = -1) -> None:
    """Execute a notebook where it lies, into the file `executed`.

    held : descriptor of a lock that the kernel is to hold too. Raises Failure; what the notebook had finished stays,
    and the next run goes on from there.
    """
    executed.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            notebook, executed, parameters, cwd=notebook.parent, kernel_name="python3",
            progress_bar=False, kernel_manager_class=type("Kernel", (PrivateKernel,), {"held": held}),
        )  # fmt: skip
    except PapermillExecutionError as error:
        where, why = f"in cell {error.exec_count}", f"{error.ename}: {error.evalue}"
        raise Failure(executed.stem, where, why, executed) from None
    except DeadKernelError:
        why = "out of memory, perhaps; run again"
        raise Failure(executed.stem, "as its kernel died", why, executed) from None


class Watch:
    """Looks on each second while a notebook runs: says each epoch that is new, and keeps the peak of memory.

    history : file that grows by a line an epoch, if it is there. memory_mb : of the processes that this one has
    started, in 10^6 bytes.
    """

    def __init__(self, history: Path, say: Callable[[str], None]):
        self.history, self.say = history, say
        self.memory_mb, self.over = 0.0, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def _rows(self) -> list:
        return list(pd.read_csv(self.history).itertuples()) if self.history.exists() else []

    def _watch(self) -> None:
        seen = {(row.model, row.epoch) for row in self._rows()}
        while not self.over.wait(1):
            self.memory_mb = max(self.memory_mb, _memory_of_children() / 1e6)
            for row in self._rows():
                if (row.model, row.epoch) not in seen:
                    seen.add((row.model, row.epoch))
                    self.say(f"    {row.model} epoch {row.epoch}: validation F1 {row.val_f1:.3f}, {row.seconds:.0f} s")


def _memory_of_children() -> int:
    """Bytes in memory of all processes below this one."""
    total = 0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has just ended
            total += process.memory_info().rss
    return total
