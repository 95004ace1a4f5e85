"""`metallm db`: the tables in PostgreSQL, and who may use them."""

from __future__ import annotations

import click

from metallm_stream.cli.groups import Group
from metallm_stream.postgres import (
    check_revision,
    current_revision,
    head_revision,
    roles_exist,
    roles_sql,
)
from metallm_stream.postgres.migrate import migrate
from metallm_stream.settings import load


@click.group(cls=Group)
def db() -> None:
    """Bring PostgreSQL's tables up to date, and tell how far they are."""


@db.command("upgrade")
def upgrade() -> None:
    """Run the migrations that the database lacks; safe to run again."""
    url = load().database()
    before = current_revision(url)
    after = migrate(url)
    click.echo(f"already at revision {after}" if before == after else f"now at revision {after}")
    if not roles_exist(url):
        click.echo(
            "the roles metallm_service and metallm_analyst were not made, since this user may "
            "not make roles; where they are wanted, run as an administrator: "
            "metallm db roles | psql ..."
        )


@db.command("current")
def current() -> None:
    """Print the database's revision; fails unless it is the one that this release needs."""
    url = load().database()
    check_revision(url)
    click.echo(f"{current_revision(url)} (this release needs {head_revision()})")


@db.command("roles")
def roles() -> None:
    """Print the SQL that makes the group roles and gives them their rights.

    metallm_service may read and write rows and make partitions through functions, nothing else;
    metallm_analyst may read interactions and views. Both are groups without login: grant them to
    your users. The tables' owner runs it with CREATEROLE, or an administrator does; it is safe to
    run again, and needed after an upgrade only where the upgrade could not do it.
    """
    click.echo(roles_sql(), nl=False)
