"""Clients of one host, each with a small connection pool of its own.

Invariant: never more than `max_connections` connections, and no client before it is needed.

Several small pools instead of a large one, since the HTTP library of the SDKs looks at every
connection of a pool twice a request: with hundreds in one pool that is most of what a request
costs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

ClientT = TypeVar("ClientT")

_POOL_CONNECTIONS = 32


@dataclass(slots=True)
class _Pool(Generic[ClientT]):
    client: ClientT
    size: int
    busy: int = 0


class Pools(Generic[ClientT]):
    """Clients for up to `max_connections` calls at a time.

    Parameters
    ----------
    max_connections
        Connections over all clients.
    open_client
        A client with as many connections as its argument says.
    close_client
        What closes one.
    """

    def __init__(
        self,
        max_connections: int,
        open_client: Callable[[int], ClientT],
        close_client: Callable[[ClientT], Awaitable[None]],
    ) -> None:
        self._max_connections = max_connections
        self._open_client = open_client
        self._close_client = close_client
        self._pools: list[_Pool[ClientT]] = []

    @contextmanager
    def client(self) -> Iterator[ClientT]:
        """A client with a free connection, or the least busy one if there is none."""
        pool = self._pool()
        pool.busy += 1
        try:
            yield pool.client
        finally:
            pool.busy -= 1

    async def close(self) -> None:
        """Close all connections."""
        for pool in self._pools:
            await self._close_client(pool.client)
        self._pools.clear()

    def _pool(self) -> _Pool[ClientT]:
        for pool in self._pools:
            if pool.busy < pool.size:
                return pool
        left = self._max_connections - sum(pool.size for pool in self._pools)
        if left <= 0:
            return min(self._pools, key=lambda pool: pool.busy)
        size = min(left, _POOL_CONNECTIONS)
        self._pools.append(_Pool(self._open_client(size), size))
        return self._pools[-1]
