"""A pytest plugin: one Kafka and one PostgreSQL for a whole test session, with pytest-xdist too.

The fixtures are `kafka_bootstrap` (an address) and `database_url` (SQLAlchemy's URL of a
superuser). Where KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL are both set, those servers are used.

Otherwise the session's main process starts a holder (this file as a program) and tells its
workers where it listens. The holder starts the servers when a test first asks for them, so that a
run of unit tests alone starts none, and ends with them when the main process is gone: at the end
of its standard input.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

_SOCKET = "TEST_SERVERS_SOCKET"
_ANSWER_WITHIN_S = 170
_HOLDER = pytest.StashKey[ExitStack]()


def pytest_configure(config: pytest.Config) -> None:
    """Start the holder, in the main process only."""
    config.stash[_HOLDER] = ExitStack()
    if _given() is None and not hasattr(config, "workerinput"):
        os.environ[_SOCKET] = config.stash[_HOLDER].enter_context(_holder())


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the holder and wait until its servers are gone."""
    config.stash[_HOLDER].close()


@pytest.fixture(scope="session")
def kafka_bootstrap(_servers: dict[str, str]) -> str:
    """Address of a Kafka that the whole session shares: use a topic prefix of your own."""
    return _servers["kafka"]


@pytest.fixture(scope="session")
def database_url(_servers: dict[str, str]) -> str:
    """URL of a superuser of a PostgreSQL that the whole session shares: make your own database."""
    return _servers["database"]


@pytest.fixture(scope="session")
def _servers() -> dict[str, str]:
    return _given() or _ask_holder()


def _given() -> dict[str, str] | None:
    kafka, database = (os.environ.get(k) for k in ("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL"))
    return {"kafka": kafka, "database": database} if kafka and database else None


def _ask_holder() -> dict[str, str]:
    with socket.socket(socket.AF_UNIX) as connection, connection.makefile() as answer:
        connection.settimeout(_ANSWER_WITHIN_S)
        connection.connect(os.environ[_SOCKET])
        servers: dict[str, str] = json.loads(answer.readline())
    if "error" in servers:
        pytest.fail(f"the servers for the tests did not start: {servers['error']}", pytrace=False)
    return servers


@contextmanager
def _holder() -> Iterator[str]:
    """The holder process, until the end of the block; gives the path of its socket."""
    with tempfile.TemporaryDirectory(prefix="metallm-test-") as directory:
        Path(directory).chmod(0o711)  # PostgreSQL's account passes through, if we are root
        with subprocess.Popen(
            [sys.executable, __file__, directory],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            yield process.stdout.readline().decode().strip()
            process.stdin.close()


def hold(directory: Path) -> None:
    """Serve the addresses on a socket in the directory until standard input ends."""
    with ExitStack() as stack, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(directory / "socket"))
        listening.listen(64)
        sys.stdout.write(f"{directory / 'socket'}\n")
        sys.stdout.flush()
        answer: dict[str, str] = {}
        while sys.stdin not in (ready := select.select([sys.stdin, listening], [], [])[0]):
            assert ready
            connection, _ = listening.accept()
            answer = answer or _start(directory / "state", stack)
            with connection:
                connection.sendall(json.dumps(answer).encode() + b"\n")


def _start(state_dir: Path, stack: ExitStack) -> dict[str, str]:
    from metallm_stream.embedded import EmbeddedStack, remove_state  # noqa: PLC0415 - only if asked
    from metallm_stream.errors import MetallmError  # noqa: PLC0415

    stack.callback(remove_state, state_dir)
    try:
        if os.environ.get("METALLM_TEST_STACK") == "containers":
            from containers import containers  # noqa: PLC0415 - beside this file

            kafka, database = stack.enter_context(containers())
            return {"kafka": kafka, "database": database}
        servers = stack.enter_context(EmbeddedStack(state_dir))
    except MetallmError as exc:
        return {"error": str(exc)}
    return {"kafka": servers.bootstrap_servers, "database": servers.database_url}


if __name__ == "__main__":
    hold(Path(sys.argv[1]))
