"""Tables, functions, views and roles of the first release.

The SQL beside this file is frozen: later releases change the database in revisions of their own.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op
from sqlalchemy import text

from metallm_stream.postgres.installed import have_roles
from metallm_stream.postgres.migrate import run_files, run_script

revision = "0001"
down_revision = None

SQL = Path(__file__).parent.parent / "sql"
MAY_MAKE_ROLES = text("SELECT rolcreaterole OR rolsuper FROM pg_roles WHERE rolname = current_user")


def upgrade() -> None:
    connection = op.get_bind()
    run_files(connection, revision, "tables", "functions", "views", "search_path")
    # Without the right to make roles the tables still are of use to their owner; `metallm db
    # upgrade` then says how an administrator makes the roles.
    if have_roles(connection) or connection.execute(MAY_MAKE_ROLES).scalar():
        run_script(connection, (SQL / "0001_roles.sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    raise NotImplementedError("there is nothing before the first release; drop schema metallm")
