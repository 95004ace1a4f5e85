"""Tables, functions, views and roles of the first release.

The SQL beside this file is frozen: later releases change the database in revisions of their own.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op
from sqlalchemy import text

from metallm_stream.postgres.migrate import run_script

revision = "0001"
down_revision = None

SQL = Path(__file__).parent.parent / "sql"
MAY_MAKE_ROLES = text("SELECT rolcreaterole OR rolsuper FROM pg_roles WHERE rolname = current_user")
ROLES = text(
    "SELECT count(*) FROM pg_roles WHERE rolname IN ('metallm_service', 'metallm_analyst')"
)


def upgrade() -> None:
    connection = op.get_bind()
    for part in ("tables", "functions", "views", "search_path"):
        run_script(connection, (SQL / f"0001_{part}.sql").read_text(encoding="utf-8"))
    # Without the right to make roles the tables still are of use to their owner; `metallm db
    # upgrade` then says how an administrator makes the roles.
    if connection.execute(ROLES).scalar_one() == 2 or connection.execute(MAY_MAKE_ROLES).scalar():
        run_script(connection, (SQL / "0001_roles.sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    raise NotImplementedError("there is nothing before the first release; drop schema metallm")
