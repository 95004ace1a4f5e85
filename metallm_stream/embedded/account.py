"""The account under which PostgreSQL runs, which refuses to run as root.

Invariant: a server started by root runs under an account without privileges; one started by
anybody else runs under their own.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

from metallm_stream.embedded.child import Account
from metallm_stream.errors import ConfigurationError

_UNPRIVILEGED = "nobody"


def account_for(owned_directory: Path) -> Account | None:
    """Whom to run a server as that owns ``owned_directory``; ``None``: as ourselves.

    A directory that exists already keeps its owner.

    Raises
    ------
    ConfigurationError
        When we are root and there is no account to change to.
    """
    if os.geteuid() != 0:
        return None
    if owned_directory.exists():
        status = owned_directory.stat()
        if status.st_uid != 0:
            return Account(status.st_uid, status.st_gid)
    try:
        entry = pwd.getpwnam(_UNPRIVILEGED)
    except KeyError as exc:
        raise ConfigurationError(
            f"PostgreSQL does not run as root and there is no account {_UNPRIVILEGED!r} to run it"
            " under: add one, or start as another user"
        ) from exc
    return Account(entry.pw_uid, entry.pw_gid)


def hand_over(path: Path, account: Account | None) -> None:
    """Make the account the owner of a file or an empty directory."""
    if account is not None:
        os.chown(path, account.uid, account.gid)


def can_enter(directory: Path, account: Account | None) -> bool:
    """Whether the account can reach and enter the directory: tried, not deduced from its modes."""
    return _runs(["/bin/sh", "-c", 'cd -- "$1"', "sh", str(directory)], account)


def can_run(program: Path, account: Account | None) -> bool:
    """Whether the account can run the program: tried with ``--version``."""
    return _runs([str(program), "--version"], account)


def _runs(argv: list[str], account: Account | None) -> bool:
    switch = (
        {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": ()}
    )
    try:
        done = subprocess.run(  # noqa: S603 - absolute paths of ours
            argv,
            env={},
            cwd="/",
            check=False,
            capture_output=True,
            **switch,  # type: ignore[call-overload]
        )
    except PermissionError:
        return False
    return bool(done.returncode == 0)
