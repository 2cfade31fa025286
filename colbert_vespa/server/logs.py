"""The server's log: one line per event, with names and numbers, never with texts of requests, vectors or keys."""

from __future__ import annotations

import logging
import sys
from datetime import datetime, timezone

import orjson

from colbert_vespa.server.guard import LOG

__all__ = ["log_to_stderr"]

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class _LogLine(logging.Formatter):
    """A line of the log: one JSON object with `as_json`, else a line for people."""

    def __init__(self, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        more = {name: value for name, value in vars(record).items() if name not in _OWN}
        if self._as_json:
            data = {"time": moment, "level": record.levelname.lower(), "event": record.getMessage(), **more}
            return orjson.dumps(data, default=str).decode()
        said = " ".join(f"{name}={value!r}" if isinstance(value, str) else f"{name}={value}" for name, value in more.items())
        return f"{moment} {record.levelname.lower():7} {record.getMessage()} {said}".rstrip()


def log_to_stderr(*, as_json: bool, level: int = logging.INFO) -> None:
    """Send this process's log to stderr; messages of uvicorn are events of the same log."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LogLine(as_json))
    for logger, least in ((LOG, level), (logging.getLogger("uvicorn"), logging.WARNING)):
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(least)
