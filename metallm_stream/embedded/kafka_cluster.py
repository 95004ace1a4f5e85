"""One broker, or three that keep a copy of every record each, in one state directory.

Invariant: the number of brokers is decided when a directory is first used. Voters of a quorum that
appear from nowhere could outvote the one that has the records.
"""

from __future__ import annotations

from pathlib import Path

from metallm_stream.embedded.kafka import Broker
from metallm_stream.embedded.state import StateDirectory
from metallm_stream.errors import ConfigurationError

NAMES = ("kafka", "kafka-2", "kafka-3")
_HEAP_MB = {1: 512, 3: 320}
_VOTERS = "controller.quorum.voters="


def place_brokers(state: StateDirectory, count: int | None) -> tuple[Broker, ...]:
    """The brokers of a state directory, with their settings written for the present ports.

    Parameters
    ----------
    count
        1 or 3; ``None`` for as many as the directory has, and one in a new directory.

    Raises
    ------
    ConfigurationError
        When the directory holds the records of another number of brokers.
    """
    there = _count_of(state.path)
    wanted = count or there or 1
    if wanted not in _HEAP_MB:
        raise ConfigurationError(f"{wanted} brokers: choose 1 or 3")
    if there not in (None, wanted):
        raise ConfigurationError(
            f"{state.path} holds the records of {there} broker(s), {wanted} were asked for: start"
            f" {there}, or choose another state directory"
        )
    names = NAMES[:wanted]
    ports = state.ports(*names)
    controller_ports = state.ports(*(name.replace("kafka", "controller") for name in names))
    brokers = tuple(
        Broker(state.path / name, port, controller_ports, node)
        for node, (name, port) in enumerate(zip(names, ports, strict=True), 1)
    )
    for broker in brokers:
        broker.write_properties()
    return brokers


def heap_mb(count: int) -> int:
    """How large the heap of each of so many brokers may grow."""
    return _HEAP_MB[count]


def _count_of(directory: Path) -> int | None:
    """How many brokers there were when records were last written; ``None`` if there are none."""
    for name in NAMES:
        if (directory / name / "log" / "__cluster_metadata-0").exists():
            lines = (directory / name / "server.properties").read_text().splitlines()
            (voters,) = (line for line in lines if line.startswith(_VOTERS))
            return voters.count("@")
    return None
