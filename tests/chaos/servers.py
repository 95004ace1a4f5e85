"""The Kafka and PostgreSQL of a run, which can be killed, and the proxies before them.

Invariant: whatever was done to the servers, `settle` returns only when they answer again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import make_url

from metallm_stream.embedded import EmbeddedStack, Supervisor
from metallm_stream.embedded.ports import HOST, free_port
from tests.chaos.proxy import Proxy
from tests.processes import kill_and_wait

_READY_WITHIN_S = 60.0
_LISTENERS = """\
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller},PROXIED://{host}:{behind}
advertised.listeners=PLAINTEXT://{host}:{port},PROXIED://{host}:{proxy}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT
"""


@dataclass(frozen=True)
class Servers:
    """Where the servers are; what is killable has a supervisor, what is proxied proxies.

    Attributes
    ----------
    bootstrap, database_url
        The servers themselves.
    """

    bootstrap: str
    database_url: str
    supervisor: Supervisor | None = None
    kafka_proxy: Proxy | None = None
    postgres_proxy: Proxy | None = None

    def proxied_url(self, url: str) -> str:
        """The URL of a database of ours by way of the proxy."""
        assert self.postgres_proxy is not None
        made = make_url(url).set(port=self.postgres_proxy.port)
        return made.render_as_string(hide_password=False)

    def pids(self, server: str) -> list[int]:
        """The processes of a server, its main one first."""
        assert self.supervisor is not None
        pid = self.supervisor.children[server].pid
        return [] if pid is None else [pid, *_children(pid)]

    def settle(self) -> None:
        """Return when both answer."""
        for proxy in (self.kafka_proxy, self.postgres_proxy):
            if proxy is not None:
                proxy.heal()
        for child in self.supervisor.children.values() if self.supervisor else ():
            child.wait_ready(_READY_WITHIN_S)


@contextmanager
def open_servers(directory: Path) -> Iterator[Servers]:
    """Servers of our own with a proxy before each; gone at the end."""
    with ExitStack() as opened:
        stack = opened.enter_context(EmbeddedStack(directory))
        kafka, postgres = Proxy(free_port()), Proxy(free_port())
        port = int(stack.bootstrap_servers.rpartition(":")[2])
        behind = _add_listener(stack, port, kafka.port)
        opened.enter_context(kafka.serving(behind))
        opened.enter_context(postgres.serving(make_url(stack.database_url).port or 5432))
        yield Servers(
            stack.bootstrap_servers, stack.database_url, stack.supervisor, kafka, postgres
        )


def _add_listener(stack: EmbeddedStack, port: int, proxy: int) -> int:
    """Have the broker tell clients that come through the proxy to stay there."""
    file = stack.state.path / "kafka" / "server.properties"
    known, behind = file.read_text(), free_port()
    controller = known.partition("CONTROLLER://")[2].partition("\n")[0].rpartition(":")[2]
    added = _LISTENERS.format(
        host=HOST, port=port, controller=controller, behind=behind, proxy=proxy
    )
    file.write_text(known + added)  # the later of two lines counts
    kill_and_wait(stack.supervisor.children["kafka"], _READY_WITHIN_S)
    return behind


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in tasks.read_text().split()]
