"""A TCP proxy on the loopback whose network can break: reset, delayed, frozen, or cut in a commit.

Invariant: bytes pass unchanged and in order, or the connection ends; nothing is made up.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from metallm_stream.embedded.ports import HOST

_CHUNK = 65_536
_RESET = struct.pack("ii", 1, 0)  # linger for 0 s: closing sends RST instead of FIN
_COMMIT = b"COMMIT"
_END_TRANSACTION = (26).to_bytes(2, "big")  # Kafka's EndTxn, after four bytes of length


class Proxy:
    """One listening port, in a thread of its own.

    Parameters
    ----------
    port
        Where it listens.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.cuts = 0
        self._target = 0
        self._loop = asyncio.new_event_loop()
        self._flows = asyncio.Event()
        self._delay_s = 0.0
        self._is_cutting = False
        self._writers: set[asyncio.StreamWriter] = set()

    @contextmanager
    def serving(self, target: int) -> Iterator[None]:
        """Pass connections on to a port of this machine until the end of the block."""
        self._target = target
        self._flows.set()
        thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        thread.start()
        server = self._run(self._listen())
        try:
            yield
        finally:
            self._run(self._close(server))
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()

    def heal(self) -> None:
        """Let everything pass as it comes."""
        self._run(self._set(0.0, cutting=False, frozen=False))

    def reset(self) -> None:
        """End every connection with RST."""
        self._run(self._reset())

    def delay(self, seconds: float) -> None:
        """Hold every chunk of bytes for so long."""
        self._run(self._set(seconds, cutting=False, frozen=False))

    def freeze(self) -> None:
        """Keep connections open and let nothing pass: the other side has vanished."""
        self._run(self._set(0.0, cutting=False, frozen=True))

    def cut(self) -> None:
        """Pass each commit on and end its connection before the answer comes back."""
        self._run(self._set(0.0, cutting=True, frozen=False))

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._accept, HOST, self.port)

    async def _close(self, server: asyncio.Server) -> None:
        server.close()
        await self._reset()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _set(self, delay_s: float, *, cutting: bool, frozen: bool) -> None:
        self._delay_s, self._is_cutting = delay_s, cutting
        (self._flows.clear if frozen else self._flows.set)()

    async def _reset(self) -> None:
        for writer in tuple(self._writers):
            _abort(writer)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._flows.wait()
        try:
            there, back = await asyncio.open_connection(HOST, self._target)
        except OSError:
            _abort(writer)
            return
        self._writers |= {writer, back}
        try:
            await asyncio.gather(
                self._pass(reader, back, writer, from_client=True),
                self._pass(there, writer, back, from_client=False),
            )
        finally:
            self._writers -= {writer, back}

    async def _pass(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        other: asyncio.StreamWriter,
        *,
        from_client: bool,
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := await source.read(_CHUNK):
                await self._flows.wait()
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                sink.write(chunk)
                await sink.drain()
                if from_client and self._is_cutting and _commits(chunk):
                    self.cuts += 1
                    _abort(other)
        sink.close()


def _commits(chunk: bytes) -> bool:
    return _COMMIT in chunk or chunk[4:6] == _END_TRANSACTION


def _abort(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST."""
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
