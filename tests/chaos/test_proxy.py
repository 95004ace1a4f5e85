"""The proxy passes bytes on, and breaks in the ways that a network does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from metallm_stream.embedded.ports import HOST, free_port
from tests.chaos.proxy import Proxy
from tests.processes import eventually

COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"
END_TRANSACTION = b"\x00\x00\x00\x20\x00\x1a\x00\x04"


class Echo:
    """A server that notes what it gets and sends it back."""

    def __init__(self, port: int) -> None:
        self.got = b""
        self._listening = socket.create_server((HOST, port))
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while got := connection.recv(4_096):
                    self.got += got
                    connection.sendall(got)
            except OSError:
                return


@contextmanager
def through(proxy: Proxy) -> Iterator[socket.socket]:
    """A connection to the proxy."""
    with socket.create_connection((HOST, proxy.port), timeout=10) as connection:
        yield connection


@pytest.fixture
def stage() -> Iterator[tuple[Echo, Proxy]]:
    """A server and a proxy before it."""
    port = free_port()
    echo, proxy = Echo(port), Proxy(free_port())
    with ExitStack() as opened:
        opened.callback(echo.close)
        opened.enter_context(proxy.serving(port))
        yield echo, proxy


def test_bytes_pass_both_ways(stage: tuple[Echo, Proxy]) -> None:
    """What is sent arrives, and what is answered comes back, delayed or not."""
    _, proxy = stage
    with through(proxy) as connection:
        for delay_s in (0.0, 0.01):
            proxy.delay(delay_s)
            connection.sendall(b"hello")
            assert connection.recv(100) == b"hello"


def test_a_reset_ends_connections_and_takes_new_ones(stage: tuple[Echo, Proxy]) -> None:
    """Whoever was connected is told by RST, and may come again."""
    _, proxy = stage
    with through(proxy) as connection:
        connection.sendall(b"a")
        assert connection.recv(100) == b"a"
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            connection.recv(100)
    with through(proxy) as connection:
        connection.sendall(b"b")
        assert connection.recv(100) == b"b"


def test_what_is_frozen_comes_when_it_thaws(stage: tuple[Echo, Proxy]) -> None:
    """Nothing passes and no connection ends; afterwards all bytes come."""
    echo, proxy = stage
    with through(proxy) as connection:
        connection.sendall(b"a")
        assert connection.recv(100) == b"a"
        proxy.freeze()
        connection.sendall(b"b")
        connection.settimeout(0.1)
        with pytest.raises(TimeoutError):
            connection.recv(100)
        assert echo.got == b"a"
        proxy.heal()
        connection.settimeout(10)
        assert connection.recv(100) == b"b"


@pytest.mark.parametrize("commit", [COMMIT, END_TRANSACTION], ids=["PostgreSQL", "Kafka"])
def test_a_commit_is_cut_after_it_has_arrived(stage: tuple[Echo, Proxy], commit: bytes) -> None:
    """The server gets the commit; its client gets no answer and is cut off."""
    echo, proxy = stage
    with through(proxy) as connection:
        proxy.cut()
        connection.sendall(b"SELECT 1")
        assert connection.recv(100) == b"SELECT 1"
        connection.sendall(commit)
        with pytest.raises(ConnectionResetError):
            connection.recv(100)
        eventually(lambda: echo.got.endswith(commit))
        assert proxy.cuts == 1
