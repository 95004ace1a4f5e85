"""A limit on what a host may send us in one HTTP body.

Invariant: no more than `max_bytes` of one response are ever held in memory, compressed bodies
included: we ask for plain ones and refuse others, so a small body cannot unfold into a large one.
Its text is UTF-8, whatever the host says.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import httpx2

from metallm_stream.providers.base import ProviderFailure


class _BoundedStream(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, max_bytes: int) -> None:
        self._inner = inner
        self._max_bytes = max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        received = 0
        async for chunk in self._inner:
            received += len(chunk)
            if received > self._max_bytes:
                raise _too_long(self._max_bytes)
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()


def bound_body(max_bytes: int) -> Callable[[httpx2.Response], Awaitable[None]]:
    """A response hook for `httpx2.AsyncClient` that raises `ProviderFailure` past `max_bytes`."""

    async def hook(response: httpx2.Response) -> None:
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise ProviderFailure(
                "malformed_answer",
                "the host sent a compressed body although a plain one was asked for",
                retriable=False,
            )
        declared = response.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > max_bytes:
            raise _too_long(max_bytes)
        # Texts are read as JSON has it: some codecs a host may name raise, or take hours.
        response.encoding = "utf-8"
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _BoundedStream(response.stream, max_bytes)

    return hook


def _too_long(max_bytes: int) -> ProviderFailure:
    return ProviderFailure(
        "malformed_answer",
        f"the body is longer than {max_bytes} bytes; raise max_answer_bytes if that is meant",
        retriable=False,
    )
