"""The server of health and metrics: what it answers, and what it bears."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http import HTTPStatus
from urllib.parse import urlsplit

import pytest

from metallm_stream.errors import Unreachable
from metallm_stream.serve.http import MAX_HEAD_BYTES, MOST, HttpServer, Page, exposed
from metallm_stream.serve.metrics import LoopMetrics
from metallm_stream.settings import HttpSettings

HELLO = b"hello\n"


def hello() -> tuple[HTTPStatus, str, bytes]:
    """A page."""
    return HTTPStatus.OK, "text/plain", HELLO


def fails() -> tuple[HTTPStatus, str, bytes]:
    """A page that says no."""
    return HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", b"no\n"


PAGES: dict[str, Page] = {"/hello": hello, "/no": fails}


@pytest.fixture
def server() -> Iterator[HttpServer]:
    """A server on a free port."""
    with HttpServer("127.0.0.1", 0, PAGES) as started:
        yield started


def place(server: HttpServer) -> tuple[str, int]:
    """Host and port."""
    url = urlsplit(server.address)
    assert url.hostname is not None
    assert url.port is not None
    return url.hostname, url.port


def ask(server: HttpServer, path: str, method: str = "GET") -> tuple[int, bytes]:
    """Status and body."""
    connection = http.client.HTTPConnection(*place(server), timeout=20)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def raw(server: HttpServer, sent: bytes) -> bytes:
    """All that comes back for some bytes, nothing if the connection is reset."""
    with socket.create_connection(place(server), timeout=20) as connection:
        try:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65_536), b""))
        except ConnectionError:
            return b""


def test_pages_are_served_with_their_status(server: HttpServer) -> None:
    """With or without a question mark; HEAD has no body."""
    assert ask(server, "/hello") == (200, HELLO)
    assert ask(server, "/hello?x=1") == (200, HELLO)
    assert ask(server, "/no") == (503, b"no\n")
    assert ask(server, "/hello", "HEAD") == (200, b"")


def test_what_there_is_not_is_told(server: HttpServer) -> None:
    """The paths that there are, and the methods."""
    assert ask(server, "/") == (404, b"/hello /no\n")
    assert ask(server, "/hello", "DELETE")[0] == 405


@pytest.mark.parametrize(
    "sent",
    [b"", b"\r\n\r\n", b"\xff\xfe\r\n\r\n", b"GET", b"GET /hello", b"x" * (MAX_HEAD_BYTES + 9)],
)
def test_nonsense_is_refused_or_dropped_and_does_no_harm(server: HttpServer, sent: bytes) -> None:
    """The next request is answered as ever."""
    answer = raw(server, sent)
    assert answer == b"" or answer.startswith((b"HTTP/1.1 405", b"HTTP/1.1 404"))
    assert ask(server, "/hello") == (200, HELLO)


def test_those_who_say_nothing_hold_up_no_others_for_long() -> None:
    """So many silent connections as there are places are dropped after the limit of time."""
    with HttpServer("127.0.0.1", 0, PAGES, within_s=0.2) as server, ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(place(server), timeout=20))
            for _ in range(MOST)
        ]
        assert all(map(is_dropped, silent))
        assert ask(server, "/hello") == (200, HELLO)


def test_more_who_say_nothing_than_there_are_places_give_way() -> None:
    """Each newcomer takes the place of the one who has held it longest."""
    with HttpServer("127.0.0.1", 0, PAGES, within_s=3_600) as server, ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(place(server), timeout=20))
            for _ in range(MOST)
        ]
        assert ask(server, "/hello") == (200, HELLO)
        assert is_dropped(silent[0])


def test_an_open_connection_does_not_hold_up_the_end() -> None:
    """It is dropped, without waiting for its limit of time."""
    with HttpServer("127.0.0.1", 0, PAGES, within_s=3_600) as server:
        silent = socket.create_connection(place(server), timeout=20)
        assert ask(server, "/hello") == (200, HELLO)
    with silent:
        assert is_dropped(silent)


def is_dropped(connection: socket.socket) -> bool:
    """Whether the other side ends a connection without a word."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def test_a_port_that_is_taken_is_named_with_the_setting() -> None:
    """And another one is asked for; who has it may leave, so that a restart may help."""
    with HttpServer("127.0.0.1", 0, PAGES) as first:
        port = place(first)[1]
        with pytest.raises(Unreachable, match=rf"127\.0\.0\.1:{port}.*METALLM_HTTP__PORT"):
            HttpServer("127.0.0.1", port, PAGES)


@pytest.mark.parametrize("host", ["192.0.2.1", "nowhere.invalid", "[::1]"])
def test_an_address_that_is_not_ours_is_named_with_the_setting(host: str) -> None:
    """Another port would not help."""
    with pytest.raises(Unreachable, match=r"set METALLM_HTTP__HOST to an address of this machine"):
        HttpServer(host, 0, PAGES)


def test_nothing_listens_unless_a_port_is_set() -> None:
    """0 takes a free one, on the loopback interface."""
    metrics = LoopMetrics("router", "0")
    with exposed(HttpSettings(), metrics, threading.Event()) as address:
        assert address is None
    with exposed(HttpSettings(port=0), metrics, threading.Event()) as address:
        assert str(address).startswith("http://127.0.0.1:")
