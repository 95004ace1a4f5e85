"""Only headers that this package or its settings chose leave for a host.

Invariant: what an SDK picks up from the environment by itself (an organization, further headers)
reaches no host, since it was meant for one vendor and there may be several.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import httpx2

_HTTP = {"host", "connection", "accept", "accept-encoding", "user-agent"}
_BODY = {"content-type", "content-length"}


def only_known_headers(
    names: Iterable[str], prefixes: tuple[str, ...] = ()
) -> Callable[[httpx2.Request], Awaitable[None]]:
    """A request hook for `httpx2.AsyncClient` that drops all headers but HTTP's and these."""
    known = _HTTP | _BODY | {name.lower() for name in names}

    async def hook(request: httpx2.Request) -> None:
        for name in list(request.headers.keys()):
            if name not in known and not name.startswith(prefixes):
                del request.headers[name]

    return hook
