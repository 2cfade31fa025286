"""Document sources: one file, and one line of the table in `opening.py`, for each kind."""

from feeder.sources.opening import open_id_lists, open_sources
from feeder.sources.records import ROW, ColumnMapping, SourceLimits, SourceSettings
from feeder.sources.report import Note, SourceReport
from feeder.sources.source import FileSource, check_columns
from feeder.sources.spool import Spool, spooled

__all__ = [
    "ROW",
    "ColumnMapping",
    "FileSource",
    "Note",
    "SourceLimits",
    "SourceReport",
    "SourceSettings",
    "Spool",
    "check_columns",
    "open_id_lists",
    "open_sources",
    "spooled",
]
