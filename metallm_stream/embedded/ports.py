"""Free TCP ports of the loopback address.

Invariant: every port lies below 32768, outside the ephemeral range. A client that keeps trying a
closed port inside that range can be given the same number as its own source port and so connect
to itself; the server then finds its address in use.
"""

from __future__ import annotations

import secrets
import socket

HOST = "127.0.0.1"
_LOWEST, _BEYOND = 15_000, 32_768


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def is_open(port: int) -> bool:
    """Whether something listens on the port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((HOST, port)) == 0


def free_port(*, avoid: frozenset[int] = frozenset()) -> int:
    """A port, drawn at random, on which a server could listen now."""
    while True:
        port = _LOWEST + secrets.randbelow(_BEYOND - _LOWEST)
        if port not in avoid and is_free(port):
            return port
