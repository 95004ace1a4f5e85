"""Children are restarted, stopped and never orphaned: real processes, no servers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from metallm_stream.embedded import Child, ChildFailed, Command, Supervisor
from tests.processes import eventually, is_running

_SLEEPS = "import time; time.sleep(600)"


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    """A supervisor whose children end with the test."""
    with Supervisor() as running:
        yield running


def python(code: str, log: Path, **command: object) -> Command:
    """A command that runs the code."""
    return Command((sys.executable, "-c", code), {}, log, **command)  # type: ignore[arg-type]


def test_a_killed_child_comes_back(supervisor: Supervisor, tmp_path: Path) -> None:
    """SIGKILL of the command is seen, booked as 137, and followed by a new instance."""
    child = supervisor.run("sleeper", python(_SLEEPS, tmp_path / "log"))
    child.wait_ready(10)
    first = child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    eventually(lambda: child.exit_codes)
    child.wait_ready(10)
    assert child.exit_codes == (137,)
    assert child.pid not in {None, first}


def test_a_child_without_restart_stays_ended(supervisor: Supervisor, tmp_path: Path) -> None:
    """Its exit code is reported, and its name and log are in the complaint of who waits."""
    child = supervisor.run(
        "once", python("print('all said'); raise SystemExit(3)", tmp_path / "log"), restart=False
    )
    assert child.wait_over(10) == 3
    with pytest.raises(ChildFailed, match=r"(?s)once ended with exit code 3.*log.*all said"):
        child.wait_ready(10)


def test_a_child_that_a_restart_does_not_help_stays_ended(
    supervisor: Supervisor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Exit code 78 ends the tries: told once with the log's last line, before or after it ran."""
    log, go = tmp_path / "log", tmp_path / "go"
    code = (
        "import pathlib, time\n"
        f"while not pathlib.Path({str(go)!r}).exists(): time.sleep(0.01)\n"
        "print('topic gone is missing'); raise SystemExit(78)"
    )
    child = supervisor.run("misled", python(code, log))
    child.wait_ready(10)
    go.touch()
    assert child.wait_over(30) == 78
    assert child.exit_codes == (78,)
    (told,) = caplog.messages
    assert told.startswith("misled ended with exit code 78")
    assert told.endswith("\n    topic gone is missing")
    never = supervisor.run("never", python(code, tmp_path / "other"), ready=lambda: False)
    with pytest.raises(ChildFailed, match=r"(?s)never ended with exit code 78.*topic gone"):
        never.wait_ready(60)
    assert never.wait_over(10) == 78
    assert len(caplog.messages) == 1


def test_a_child_that_never_becomes_ready_is_complained_about(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    """Three ends before the first readiness are enough: nobody waits for the whole time."""
    child = supervisor.run(
        "broken", python("raise SystemExit('no such disk')", tmp_path / "log"), ready=lambda: False
    )
    began = time.monotonic()
    with pytest.raises(ChildFailed, match="no such disk"):
        child.wait_ready(60)
    assert time.monotonic() - began < 30
    assert len(child.exit_codes) >= 3


def test_a_missing_program_is_told(supervisor: Supervisor, tmp_path: Path) -> None:
    """The guard's own error is in the child's log."""
    command = Command(("/no/such/program",), {}, tmp_path / "log")
    child = supervisor.run("missing", command, restart=False)
    with pytest.raises(ChildFailed, match="No such file or directory: '/no/such/program'"):
        child.wait_ready(10)


def test_stop_ends_a_child_that_does_not_listen(supervisor: Supervisor, tmp_path: Path) -> None:
    """A child that ignores the stop signal is killed when its grace is over, its children too."""
    code = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"child = subprocess.Popen([sys.executable, '-c', {_SLEEPS!r}]);"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(f'{{child.pid}}\\n'); time.sleep(600)"
    )
    pid_file = tmp_path / "pid"
    child = supervisor.run(
        "deaf",
        python(code, tmp_path / "log", grace_s=0.3),
        ready=lambda: pid_file.exists() and pid_file.read_text().endswith("\n"),
    )
    child.wait_ready(10)
    pid, grandchild = child.pid, int(pid_file.read_text())
    assert pid is not None
    child.stop()
    assert not is_running(pid)
    eventually(lambda: not is_running(grandchild))
    assert child.exit_codes == (137,)
    assert child.is_over


def test_stop_lets_a_child_end_well(supervisor: Supervisor, tmp_path: Path) -> None:
    """The stop signal is the command's own, and its handler runs to the end."""
    code = (
        "import signal, sys, time;"
        "signal.signal(signal.SIGINT, lambda *_: (print('good night', flush=True), sys.exit(0)));"
        "print('up', flush=True); time.sleep(600)"
    )
    log = tmp_path / "log"
    child = supervisor.run(
        "polite",
        python(code, log, stop_signal=signal.SIGINT),
        ready=lambda: log.exists() and "up" in log.read_text(),
    )
    child.wait_ready(10)
    child.stop()
    assert child.exit_codes == (0,)
    assert log.read_text().splitlines() == ["up", "good night"]


def test_a_child_has_only_its_own_environment(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is inherited, and nothing of it is in the guard's or the command's arguments."""
    monkeypatch.setenv("NOT_FOR_CHILDREN", "1")
    log = tmp_path / "log"
    code = f"import os; print(sorted(set(os.environ) - {{'LC_CTYPE'}}), flush=True); {_SLEEPS}"
    child = supervisor.add("bare", [sys.executable, "-c", code], {"SECRET": "s3cret"}, log)
    eventually(lambda: log.exists() and log.read_text().endswith("\n"))
    assert log.read_text() == "['SECRET']\n"
    assert all("s3cret" not in part for part in child.command.argv)


def test_an_unhealthy_start_is_not_ready(supervisor: Supervisor, tmp_path: Path) -> None:
    """A child is ready when its own question says so, not when its process runs."""
    flag = tmp_path / "flag"
    child = supervisor.run("slow", python(_SLEEPS, tmp_path / "log"), ready=flag.exists)
    with pytest.raises(ChildFailed, match=r"was not ready within 0\.2 s"):
        child.wait_ready(0.2)
    flag.touch()
    child.wait_ready(10)
    assert child.is_ready


def test_names_are_unique_and_end_with_the_supervisor(tmp_path: Path) -> None:
    """A name is given once; a stopped supervisor starts nothing."""
    with Supervisor() as supervisor:
        child = supervisor.run("one", python(_SLEEPS, tmp_path / "log"))
        with pytest.raises(ValueError, match="'one' was added before"):
            supervisor.run("one", python(_SLEEPS, tmp_path / "log"))
    assert child.is_over
    with pytest.raises(ChildFailed, match="being stopped"):
        supervisor.run("two", python(_SLEEPS, tmp_path / "log"))


def test_a_large_log_begins_anew(supervisor: Supervisor, tmp_path: Path) -> None:
    """A log above its limit is kept beside the new one when a child starts."""
    log = tmp_path / "log"
    with log.open("wb") as file:
        file.truncate(17 * 1024 * 1024)
    supervisor.run("fresh", python("print('new')", log), restart=False).wait_over(10)
    assert log.read_text() == "new\n"
    assert (tmp_path / "log.1").stat().st_size == 17 * 1024 * 1024


@pytest.mark.parametrize("victim", ["supervisor", "guard", "supervisor and guards"])
def test_no_child_is_left_behind(victim: str, tmp_path: Path) -> None:
    """Whoever of the chain is killed with SIGKILL: the command's process goes, too."""
    code = (
        "import sys, time; from pathlib import Path\n"
        "from metallm_stream.embedded import Supervisor\n"
        "supervisor = Supervisor()\n"
        f"argv = [sys.executable, '-c', {_SLEEPS!r}]\n"
        "child = supervisor.add('sleeper', argv, {}, Path(sys.argv[1]))\n"
        "child.wait_ready(10); print(child.pid, child.guard_pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True
    ) as parent:
        try:
            assert parent.stdout is not None
            pid, guard_pid = map(int, parent.stdout.readline().split())
            if "guard" in victim:
                os.kill(guard_pid, signal.SIGKILL)
            if "supervisor" in victim:
                parent.kill()
            eventually(lambda: not is_running(pid))
        finally:
            parent.kill()
    eventually(lambda: not is_running(guard_pid))


def test_a_guard_that_is_killed_is_replaced(supervisor: Supervisor, tmp_path: Path) -> None:
    """The child comes back with a new guard, and the old instance does not stay beside it."""
    child: Child = supervisor.run("guarded", python(_SLEEPS, tmp_path / "log"))
    child.wait_ready(10)
    pid, guard_pid = child.pid, child.guard_pid
    assert pid is not None
    assert guard_pid is not None
    os.kill(guard_pid, signal.SIGKILL)
    eventually(lambda: child.exit_codes)
    child.wait_ready(10)
    assert child.exit_codes == (137,)
    assert child.pid != pid
    eventually(lambda: not is_running(pid))
