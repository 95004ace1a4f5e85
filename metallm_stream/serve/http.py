"""Health and metrics of one service over HTTP.

Invariant: whoever asks, however often or slowly, holds up neither the service nor others for long:
one thread serves at most `MOST` requests at a time, each for a few seconds at most, and reads no
more than `MAX_HEAD_BYTES` of it. Where there are more, who has taken longest goes.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Self

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from metallm_stream.errors import ConfigurationError, Unreachable
from metallm_stream.serve.metrics import LoopMetrics
from metallm_stream.settings import HttpSettings

MOST = 16
WITHIN_S = 5.0
MAX_HEAD_BYTES = 16 * 1024
TEXT, JSON = "text/plain; charset=utf-8", "application/json"

Page = Callable[[], tuple[HTTPStatus, str, bytes]]
log = logging.getLogger(__name__)


@contextmanager
def exposed(
    settings: HttpSettings, metrics: LoopMetrics, stop: threading.Event
) -> Iterator[str | None]:
    """Serve a service's health and metrics until the end of the block, if a port is set.

    Gives the address. Raises `Unreachable` if nothing can listen there now, and
    `ConfigurationError` if we may not.
    """
    if settings.port is None:
        yield None
        return
    served = pages(metrics, stop, stuck_after_s=settings.stuck_after_s)
    with HttpServer(settings.host, settings.port, served) as server:
        log.info("health and metrics at %s", server.address)
        yield server.address


def pages(metrics: LoopMetrics, stop: threading.Event, *, stuck_after_s: float) -> dict[str, Page]:
    """`/livez`, `/readyz` and `/metrics` of a service that ends when `stop` is set."""

    def live() -> tuple[HTTPStatus, str, bytes]:
        stuck_s = metrics.stuck_s()
        if stuck_s < stuck_after_s:
            return HTTPStatus.OK, TEXT, b"alive\n"
        said = f"the loop is stuck for {stuck_s:.0f} s\n"
        return HTTPStatus.SERVICE_UNAVAILABLE, TEXT, said.encode()

    def ready() -> tuple[HTTPStatus, str, bytes]:
        reason = "it is stopping" if stop.is_set() else metrics.unready()
        said = {"ready": reason is None, "reason": reason}
        status = HTTPStatus.OK if reason is None else HTTPStatus.SERVICE_UNAVAILABLE
        return status, JSON, json.dumps(said).encode() + b"\n"

    def shown() -> tuple[HTTPStatus, str, bytes]:
        return HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(metrics.registry)

    return {"/livez": live, "/readyz": ready, "/metrics": shown}


class HttpServer:
    """Serves pages by GET and HEAD from a thread of its own.

    Parameters
    ----------
    host, port
        Where to listen; port 0 takes a free one.
    served
        Page by path.
    within_s
        How long a request may take, from the connection to the last byte of the answer.
    """

    def __init__(
        self, host: str, port: int, served: Mapping[str, Page], *, within_s: float = WITHIN_S
    ) -> None:
        self._host = host
        self._within_s = within_s
        self._pages = served
        self._open: dict[asyncio.StreamWriter, None] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="http", daemon=True)
        try:
            self._server = self._loop.run_until_complete(
                asyncio.start_server(self._serve, host, port, limit=MAX_HEAD_BYTES, backlog=MOST)
            )
        except OSError as exc:
            self._loop.close()
            # At boot the address may not be there yet, and who has the port may leave.
            kind = ConfigurationError if isinstance(exc, PermissionError) else Unreachable
            way_out = (
                "PORT to another port, or to 0 for a free one"
                if exc.errno in (errno.EADDRINUSE, errno.EACCES)
                else "HOST to an address of this machine"
            )
            raise kind(
                f"http: cannot listen on {host}:{port}: {exc.strerror}; set METALLM_HTTP__{way_out}"
            ) from exc

    @property
    def address(self) -> str:
        """Where it listens, as a URL."""
        port = self._server.sockets[0].getsockname()[1]
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _shut(self) -> None:
        self._server.close()
        answering = asyncio.all_tasks() - {asyncio.current_task()}
        for task in answering:
            task.cancel()
        await asyncio.gather(*answering, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= MOST:
            slowest = next(iter(self._open))
            del self._open[slowest]
            slowest.transport.abort()
        self._open[writer] = None
        writer.transport.set_write_buffer_limits(0)  # `drain` waits until all is sent
        try:
            async with asyncio.timeout(self._within_s):
                writer.write(self._answer(await reader.readuntil(b"\r\n\r\n")))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.transport.abort()  # nobody who would read an answer
        finally:
            self._open.pop(writer, None)
            writer.close()

    def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.split(b"\r\n", 1)[0].partition(b" ")
        page = self._pages.get(rest.partition(b" ")[0].partition(b"?")[0].decode("latin-1"))
        if method not in (b"GET", b"HEAD"):
            status, kind, body = HTTPStatus.METHOD_NOT_ALLOWED, TEXT, b"GET or HEAD\n"
        elif page is None:
            status, kind, body = HTTPStatus.NOT_FOUND, TEXT, " ".join(self._pages).encode() + b"\n"
        else:
            status, kind, body = page()
        lines = (
            f"HTTP/1.1 {status.value} {status.phrase}",
            f"Content-Type: {kind}",
            f"Content-Length: {len(body)}",
            "Allow: GET, HEAD",
            "Cache-Control: no-store",
            "Connection: close",
        )
        sent = "\r\n".join(lines).encode() + b"\r\n\r\n"
        return sent if method == b"HEAD" else sent + body
