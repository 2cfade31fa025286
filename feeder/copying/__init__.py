"""Copy stored documents from one place to another with their vectors; nothing is encoded again.

    source.py     what a place with stored documents offers, and what it keeps of a vector
    local.py, vespa.py, backup.py     the three places: a local index, a Vespa application, a backup folder
    journal.py    the progress of a copy, on disk
    run.py        one copy: read, put, count

Documents go to a target of the feeder, or to a backup folder that behaves like one.
"""

from feeder.copying.opening import CopyOptions, backup_index, copy_index, restore_index
from feeder.copying.run import CopySummary

__all__ = ["CopyOptions", "CopySummary", "backup_index", "copy_index", "restore_index"]
