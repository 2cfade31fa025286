"""Start and stop worker processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from late_interaction.errors import ColbertVespaError

__all__ = ["WorkerProcess"]

# isolated (-I): our path decides what is imported, not the working directory or the environment
_START = "import sys; root, *sys.path = sys.argv[1:]; from {module} import main; main([root])"
_THREAD_COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class WorkerProcess:
    """A worker and our end of its socket, which does not block."""

    def __init__(self, root: Path, threads: int, module: str) -> None:
        """Start the process.

        Args:
            root: its only argument.
            threads: threads of its matrix products.
            module: the module whose function `main` it runs.

        Raises:
            ColbertVespaError: if no process can be started.
        """
        environment = os.environ | dict.fromkeys(_THREAD_COUNTS, str(threads))
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _START.format(module=module), str(root.absolute()), *sys.path],
                stdin=theirs.fileno(), stdout=subprocess.DEVNULL, env=environment,
                start_new_session=True,  # only this process handles Ctrl-C
            )  # fmt: skip
        except OSError as error:
            ours.close()
            raise ColbertVespaError(f"cannot start a process for {root} ({error.strerror})") from None
        finally:
            theirs.close()
        ours.setblocking(False)
        self.socket = ours

    @property
    def pid(self) -> int:
        """Return the id of the process."""
        return self._process.pid

    def ended(self) -> bool:
        """Tell whether the process has ended."""
        return self._process.poll() is not None

    def stop(self) -> str:
        """Stop the process, which only reads, and return how it ended."""
        self.socket.close()
        self._process.kill()
        code = self._process.wait()
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
