"""What the README shows works as it is shown, block after block, on servers of its own."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from metallm_stream.embedded import remove_state
from metallm_stream.embedded.ports import free_port
from metallm_stream.postgres import open_engine
from tests.processes import eventually
from tests.readme import REPOSITORY, Block, blocks

SQL = REPOSITORY / "docs" / "sql.md"
SHOWN_PORT = "8390"
ENV_FILE = ".metallm/env"
EMPTY_HERE = "metallm.dead_letters"
REMEMBERED = ("export ", "source ")
READY_WITHIN_S = 90
BLOCK_WITHIN_S = 60


@contextmanager
def checkout() -> Iterator[Path]:
    """A directory that looks like a checkout, so that nothing is written into the real one."""
    with tempfile.TemporaryDirectory(prefix="metallm-readme-") as name:
        place = Path(name)
        place.chmod(0o711)  # PostgreSQL's account passes through, if we are root
        (place / "docs").symlink_to(REPOSITORY / "docs")
        (place / "services").symlink_to(REPOSITORY / "services")
        try:
            yield place
        finally:
            remove_state(place / ".metallm")


def shell(place: Path, port: int) -> dict[str, str]:
    """A newcomer's environment: the virtual environment, and no settings."""
    kept = ("HOME", "LANG", "TMPDIR", "XDG_CACHE_HOME", "SSL_CERT_FILE")
    return {name: os.environ[name] for name in kept if name in os.environ} | {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "PWD": str(place),
        # The shown port may be taken here.
        "METALLM_PROVIDERS__RECORDED__BASE_URL": f"http://127.0.0.1:{port}/v1",
        "OMP_NUM_THREADS": "1",
    }


def script(commands: Sequence[str], port: int) -> str:
    """Commands as a bash script that ends at the first failure."""
    lines = "\n".join(("set -euo pipefail", *commands, ""))
    return lines.replace(SHOWN_PORT, str(port))


@contextmanager
def staying(block: Block, place: Path, port: int) -> Iterator[None]:
    """A block whose last command stays, from when it is ready to the end of the test."""
    log = place / f"terminal-{block.number}.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            ["bash", "-c", script(block.commands, port)],
            cwd=place,
            env=shell(place, port),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as terminal,
    ):
        try:
            eventually(
                lambda: block.why in log.read_text() or terminal.poll() is not None, READY_WITHIN_S
            )
            assert block.why in log.read_text(), log.read_text()
            yield
        finally:
            os.killpg(terminal.pid, signal.SIGTERM)
            terminal.wait(READY_WITHIN_S)


def run_commands(block: Block, place: Path, port: int, before: Sequence[str]) -> None:
    """A block's commands, one after the other; what it shows of their output is what they print.

    `before` are the shell's earlier commands that it still remembers.
    """
    shown = [line for line in block.lines if not line.startswith("$ ")]
    argv = ["bash", "-c", script([*before, *block.commands], port)]
    ended = run(argv, place, shell(place, port), block)
    printed = ended.stdout.splitlines()
    assert [line for line in shown if line not in printed] == []


def run_python(block: Block, place: Path, port: int) -> None:
    """A block of Python in a process of its own, with the servers' addresses."""
    environment = shell(place, port) | addresses(place)
    run([sys.executable, "-W", "error", "-c", block.text], place, environment, block)


def run_sql(block: Block, place: Path, *, may_be_empty: bool) -> None:
    """Every statement of a block is run, and brings rows once the learner has come so far."""
    engine = open_engine(addresses(place)["DATABASE_URL"], application_name="readme")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        for statement in filter(str.strip, block.text.split(";")):
            query, is_enough = text(statement), may_be_empty or EMPTY_HERE in statement
            eventually(lambda q=query, enough=is_enough: conn.execute(q).all() or enough)
    engine.dispose()


def run(
    argv: list[str], place: Path, environment: Mapping[str, str], block: Block
) -> subprocess.CompletedProcess[str]:
    ended = subprocess.run(
        argv,
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=BLOCK_WITHIN_S,
    )
    assert ended.returncode == 0, f"README line {block.number}:\n{ended.stdout}{ended.stderr}"
    return ended


def addresses(place: Path) -> dict[str, str]:
    """What `metallm up` has written for other shells."""
    lines = (place / ENV_FILE).read_text().splitlines()
    pairs = [shlex.split(line)[1].partition("=") for line in lines]
    return {name: value for name, _, value in pairs}


@pytest.mark.timeout(240)
def test_the_readme_works_from_its_first_block_to_its_last() -> None:
    """Servers, services, a query, its feedback, Python, SQL and the rebuild, in the order shown.

    The statements of docs/sql.md are run after them.
    """
    port = free_port()
    remembered: list[str] = []
    with ExitStack() as terminals:
        place = terminals.enter_context(checkout())
        for block in blocks():
            if not block.is_run:
                continue
            if block.said == "stays":
                terminals.enter_context(staying(block, place, port))
            elif block.language == "console":
                run_commands(block, place, port, remembered)
                remembered += [line for line in block.commands if line.startswith(REMEMBERED)]
            elif block.language == "python":
                run_python(block, place, port)
            elif block.language == "sql":
                run_sql(block, place, may_be_empty=False)
            else:
                assert block.language == "", f"README line {block.number}: who runs this?"
        for block in blocks(SQL):
            if block.is_run:
                run_sql(block, place, may_be_empty=True)
