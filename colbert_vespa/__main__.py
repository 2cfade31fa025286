"""Entry point of the command. Ctrl-C while modules are imported ends the process at once, without a traceback."""

from __future__ import annotations

import os
import signal
from types import FrameType

INTERRUPTED = 130


def main() -> None:
    """Run the command line; Ctrl-C quits without a traceback already while modules are imported."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _quit)
    from colbert_vespa.cli.commands import main as run

    signal.signal(signal.SIGINT, before)
    run()


def _quit(_signal: int, _frame: FrameType | None) -> None:
    os.write(2, b"error: interrupted\n")
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
