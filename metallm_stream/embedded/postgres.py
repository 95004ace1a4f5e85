"""A real PostgreSQL, run from the binaries of a wheel.

Invariant: the cluster's password exists only in files that nobody else can read, and the account
that runs the server owns its data and nothing more.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql

from metallm_stream.embedded.account import hand_over
from metallm_stream.embedded.child import Account, ChildFailed, Command
from metallm_stream.embedded.ports import HOST, is_open

OWNER = "metallm_owner"
DATABASE = "metallm"
_CONNECT_WITHIN_S = 2
_ENVIRONMENT: Mapping[str, str] = {"LC_ALL": "C", "TZ": "UTC"}
_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    "jit": "off",
}


@dataclass(frozen=True)
class Cluster:
    """One PostgreSQL cluster: whose it is, where it lies and listens.

    Attributes
    ----------
    home
        The installation, with ``bin`` in it.
    data
        The data directory.
    """

    home: Path
    data: Path
    port: int
    account: Account | None
    password: str = field(repr=False)

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{HOST}:{self.port}"

    @property
    def url(self) -> str:
        """SQLAlchemy's URL of the owner, who is superuser; holds the password."""
        return f"postgresql+psycopg://{OWNER}:{self.password}@{self.address}/{DATABASE}"

    def create(self) -> None:
        """Make the cluster's files where there are none.

        Raises
        ------
        ChildFailed
            When ``initdb`` refuses, with what it said.
        """
        if self.data.exists():
            return
        draft = self.data.with_name(self.data.name + ".new")
        shutil.rmtree(draft, ignore_errors=True)  # what an interrupted call has left
        draft.mkdir(mode=0o700)
        hand_over(draft, self.account)
        with tempfile.NamedTemporaryFile("w", dir=draft.parent) as password_file:
            password_file.write(self.password)
            password_file.flush()
            hand_over(Path(password_file.name), self.account)
            self._initdb(draft, password_file.name)
        draft.rename(self.data)

    def serve(self, log_path: Path) -> Command:
        """The command that runs the server in the foreground."""
        settings = [f"--{name}={value}" for name, value in _SETTINGS.items()]
        return Command(
            (
                str(self.home / "bin" / "postgres"),
                "-D",
                str(self.data),
                "-p",
                str(self.port),
                *settings,
            ),
            _ENVIRONMENT,
            log_path,
            account=self.account,
            stop_signal=signal.SIGINT,  # fast shutdown: sessions are ended, nothing is lost
            grace_s=20.0,
        )

    def answers(self) -> bool:
        """Whether the server lets the owner in."""
        if not is_open(self.port):
            return False
        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def create_database(self) -> None:
        """Make the database where there is none."""
        with self._connect() as connection:
            known = connection.execute(
                "SELECT FROM pg_database WHERE datname = %s", [DATABASE]
            ).fetchone()
            if known is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host=HOST,
            port=self.port,
            user=OWNER,
            password=self.password,
            dbname="postgres",
            connect_timeout=_CONNECT_WITHIN_S,
            autocommit=True,
        )

    def _initdb(self, data: Path, password_file: str) -> None:
        argv = [
            str(self.home / "bin" / "initdb"), "-D", str(data), "-U", OWNER,
            "--auth=scram-sha-256", f"--pwfile={password_file}", "--encoding=UTF8",
            "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8",
            "--no-instructions", "--no-sync",
        ]  # fmt: skip
        done = subprocess.run(  # noqa: S603 - absolute paths of ours
            argv, env=_ENVIRONMENT, cwd="/", capture_output=True, text=True, check=False,
            user=self.account.uid if self.account else None,
            group=self.account.gid if self.account else None,
            extra_groups=() if self.account else None,
        )  # fmt: skip
        if done.returncode:
            raise ChildFailed(f"initdb could not make {self.data}: {done.stderr.strip()[-2_000:]}")
