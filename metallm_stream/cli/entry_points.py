"""Where the services' entry points are, in a checkout and in an installed wheel."""

from __future__ import annotations

import re
from pathlib import Path

from metallm_stream.errors import ConfigurationError

PACKAGE = Path(__file__).parents[1]
PLACES = (PACKAGE / "_installed" / "services", PACKAGE.parent / "services")


def entry_point(service: str) -> Path:
    """The file that runs a service: `router`, `worker`, `learner` or `judge`."""
    for place in PLACES:
        if (place / f"{service}.py").is_file():
            return place / f"{service}.py"
    raise ConfigurationError(
        "the entry points of the services are missing from this installation: reinstall "
        "metallm-stream"
    )


def address(log: Path) -> str | None:
    """Where a service has said in its log that it tells its health and metrics."""
    found = re.findall(rb"health and metrics at (http://[^\s\"]+)", log.read_bytes())
    return found[-1].decode() if found else None


def is_ready(log: Path) -> bool:
    """Whether a service has said in its log that it is ready."""
    return log.exists() and b" is ready" in log.read_bytes()
