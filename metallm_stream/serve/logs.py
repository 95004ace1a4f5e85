"""A service's log on standard error: lines for people, or JSON lines for programs.

Invariant: a record is one line of JSON, whatever is in it.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

Format = Literal["text", "json"]
FOR_PEOPLE = "%(asctime)s %(levelname)s %(name)s: %(message)s"
ABOUT = ("query_id",)  # what lines say beside their message, by `extra`


class JsonLines(logging.Formatter):
    """Log records as JSON, `always` in each."""

    def __init__(self, **always: str) -> None:
        super().__init__()
        self._always = always

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **self._always,
            **{name: said for name in ABOUT if (said := getattr(record, name, None)) is not None},
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


def begin_log() -> None:
    """Log for people, until the settings say otherwise."""
    logging.basicConfig(level=logging.WARNING, format=FOR_PEOPLE)
    logging.getLogger("metallm_stream").setLevel(logging.INFO)


def set_format(form: Format, slot: str) -> None:
    """Go on in the format of the settings."""
    if form == "json":
        formatter = JsonLines(service=Path(sys.argv[0]).stem, slot=slot)
        for handler in logging.getLogger().handlers:
            handler.setFormatter(formatter)
