"""The command line, in a process that kills itself before its n-th operation that changes a file.

python tests/killed_feed.py N ARGUMENT...      N 0: it is not killed, and its last line of stderr says how many there were
"""

from __future__ import annotations

import os
import signal
import sys

from colbert_vespa.cli.commands import main
from late_interaction.plaid.store.storage import ArrayWriter

done = 0


def deadly(real, at):
    def call(*args, **kwargs):
        global done  # noqa: PLW0603
        done += 1
        if done == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    return call


if __name__ == "__main__":
    number, *arguments = sys.argv[1:]
    for name in ("fsync", "replace", "unlink", "pwrite", "mkdir", "ftruncate"):
        setattr(os, name, deadly(getattr(os, name), int(number)))
    ArrayWriter.append = deadly(ArrayWriter.append, int(number))
    try:
        main(arguments)
    finally:
        print(done, file=sys.stderr)
