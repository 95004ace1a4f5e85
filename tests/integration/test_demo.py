"""The demo as a user runs it: a command with an exit code, files, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from sqlalchemy import create_engine, text

from metallm_stream.cli.demo.recording import Recording
from metallm_stream.cli.demo.schedule import schedule
from metallm_stream.cli.demo.users import Users
from metallm_stream.embedded import remove_state
from metallm_stream.evaluate import read_outcomes
from metallm_stream.kafka import Record, write
from tests.pipeline import Pipeline
from tests.processes import eventually, is_running
from tests.records import result

COMMAND = (sys.executable, "-c", "from metallm_stream.cli import main; main()", "demo")
ENDS_WITHIN_S = 120


@contextmanager
def demo(out: Path, *options: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A running demo whose output goes to a file beside `out`."""
    with (
        out.with_suffix(".log").open("wb") as log,
        subprocess.Popen(
            [*COMMAND, "--out", str(out), "--rate", "100", *options],
            env={**os.environ, **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            process.wait(ENDS_WITHIN_S)
            remove_state(out / "state")


def said(out: Path) -> str:
    """What the demo has printed so far."""
    return out.with_suffix(".log").read_text(errors="replace")


def children(pid: int) -> set[int]:
    """Every process below this one."""
    parents: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(") ")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        parents.setdefault(int(fields[1]), []).append(int(status.parent.name))
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        below = parents.get(waiting.pop(), [])
        found.update(below)
        waiting += below
    return found


def left_behind(bootstrap: str, database_url: str) -> list[str]:
    """Topics and databases of demos."""
    topics = AdminClient({"bootstrap.servers": bootstrap}).list_topics(timeout=15).topics
    engine = create_engine(database_url)
    with engine.connect() as conn:
        databases = conn.execute(text("SELECT datname FROM pg_database")).scalars().all()
    engine.dispose()
    named = [*topics, *databases]
    return [name for name in named if name.startswith(("demo-", "metallm_demo_"))]


def test_users_wait_while_much_is_under_way(pipeline: Pipeline, tmp_path: Path) -> None:
    """For answers, and for what was learned of them; then they go on at their rate."""
    path, now_s = tmp_path / "recording.jsonl", 0.0
    asked = tuple(f"q{number}" for number in range(100))
    rest = {"text": "Why?", "outcomes": {"small": {"quality": 1.0, "cost": 0.001}}}
    path.write_text("".join(f"{json.dumps({'query_id': one, **rest})}\n" for one in asked))
    recording = Recording(path, asked, ("qa",) * 100, read_outcomes(path))
    plan = schedule(100, label_fraction=1.0, seed=0)
    users = Users(pipeline.kafka, pipeline.names, recording, plan, 10.0, lambda: now_s)
    with closing(users):
        users.step(0)
        assert users.asked == 1
        now_s = 2.05
        users.step(0)
        assert users.asked == 21
        now_s = 60.0
        users.step(0)
        assert users.asked == 30  # what they ask in 3 s
        answers = [result(query_id, "small") for query_id in asked[:30]]
        write(
            pipeline.producer, [Record.of(pipeline.names.results, a.query_id, a) for a in answers]
        )

        def are_read() -> bool:
            users.step(0)
            return users.answered == 30

        eventually(are_read)
        assert users.asked == 30
        users.step(25)
        assert users.asked == 31
        now_s = 61.05
        users.step(25)
        assert users.asked == 41


@pytest.mark.timeout(ENDS_WITHIN_S + 30)
def test_a_demo_on_given_servers_proves_the_stream_and_leaves_nothing(
    tmp_path: Path, kafka_bootstrap: str, database_url: str
) -> None:
    """Every query is decided, answered and learned from exactly once, and the report has it."""
    out = tmp_path / "demo"
    given = {"KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap, "DATABASE_URL": database_url}
    with demo(out, "--queries", "300", **given) as process:
        assert process.wait(ENDS_WITHIN_S) == 0, said(out)
    report = json.loads((out / "report.json").read_bytes())
    assert (report["queries"], report["decisions"], report["results"]) == (300, 300, 300)
    assert (report["lost"], report["doubled"], report["unread"]) == (0, 0, 0)
    assert report["asked_again"] > 0
    assert report["feedback_records"] > report["labels_given"] > 100
    assert report["labels_counted"] == report["labels_given"]
    assert report["rebuild_max_relative_difference"] <= 1e-9
    assert report["violations"] == []
    assert report["spend_usd"] == pytest.approx(report["ledger"]["first_usd"], rel=1e-9)
    for part in ("whole", "second_half"):
        service = report[part]["service"]
        assert service["utility"] <= report[part]["baselines"]["oracle"]["utility"]
        assert 0 < service["quality"] <= 1
    assert {path.name for path in out.glob("*.png")} == {"regret.png", "shares.png", "spend.png"}
    assert "SELECT" in said(out)
    assert left_behind(kafka_bootstrap, database_url) == []


@pytest.mark.timeout(ENDS_WITHIN_S + 30)
def test_a_demo_that_is_told_to_stop_stops_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SIGTERM in mid-stream, servers and services of its own end before the command does."""
    for given in ("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL"):
        monkeypatch.delenv(given, raising=False)
    out = tmp_path / "demo"
    with demo(out) as process:
        eventually(
            lambda: "results, " in said(out) or process.poll() is not None, ENDS_WITHIN_S / 2
        )
        running = children(process.pid)
        assert len(running) >= 12, said(out)  # six programs, each with a guard
        process.send_signal(signal.SIGTERM)
        assert process.wait(ENDS_WITHIN_S / 2) != 0
    assert [pid for pid in running if is_running(pid)] == []
    assert not (out / "report.json").exists()
