"""A service's log as JSON lines."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from typing import Any

from metallm_stream.serve.logs import JsonLines
from tests.readme import REPOSITORY


def line(**fields: Any) -> dict[str, Any]:
    """What a record becomes."""
    text = JsonLines(service="router", slot="0").format(logging.makeLogRecord(fields))
    assert "\n" not in text
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def test_a_record_is_one_line_with_time_level_and_message() -> None:
    """Whatever is in it: new lines, surrogates, quotation marks."""
    nasty = 'a\nb"\x00\ud800'
    made = line(name="metallm_stream.x", levelname="INFO", created=0.25, msg="%s", args=(nasty,))
    assert made == {
        "at": "1970-01-01T00:00:00.250+00:00",
        "level": "INFO",
        "logger": "metallm_stream.x",
        "message": nasty,
        "service": "router",
        "slot": "0",
    }


def test_a_line_about_a_query_names_it() -> None:
    """None where the id is not known."""
    assert line(msg="refused", query_id="q-1")["query_id"] == "q-1"
    assert "query_id" not in line(msg="refused", query_id=None)


def test_a_traceback_is_in_the_line() -> None:
    """As one text."""
    error = ZeroDivisionError("by the test")
    made = line(msg="broken", exc_info=(type(error), error, None))
    assert made["error"] == "ZeroDivisionError: by the test"


def test_a_service_that_cannot_start_says_why_in_the_format_that_is_set() -> None:
    """With its name and slot; without the setting, for people."""
    ours = ("METALLM_", "KAFKA_", "DATABASE_")
    bare = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    argv = [sys.executable, str(REPOSITORY / "services" / "router.py")]
    said = {}
    for form in ("json", "text"):
        given = {"METALLM_LOG_FORMAT": form, "METALLM_SLOT": "7"}
        ended = subprocess.run(
            argv, env=bare | given, capture_output=True, text=True, check=False, timeout=60
        )
        assert ended.returncode == 78
        said[form] = ended.stderr.strip()
    made = json.loads(said["json"])
    assert (made["level"], made["service"], made["slot"]) == ("CRITICAL", "router", "7")
    assert "KAFKA_BOOTSTRAP_SERVERS is not set" in made["message"]
    assert said["text"].endswith(made["message"])
