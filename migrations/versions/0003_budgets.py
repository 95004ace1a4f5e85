"""Accounts of budgets, and their view.

The SQL beside this file is frozen: later releases change the database in revisions of their own.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op
from sqlalchemy import text

from metallm_stream.postgres.migrate import run_script

revision = "0003"
down_revision = "0002"

SQL = Path(__file__).parent.parent / "sql"
ROLES = text(
    "SELECT count(*) FROM pg_roles WHERE rolname IN ('metallm_service', 'metallm_analyst')"
)


def upgrade() -> None:
    connection = op.get_bind()
    run_script(connection, (SQL / "0003_budgets.sql").read_text(encoding="utf-8"))
    # Where the roles are missing, an administrator makes them, and `metallm db roles` gives rights.
    if connection.execute(ROLES).scalar_one() == 2:
        run_script(connection, (SQL / "0003_roles.sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    raise NotImplementedError("budgets cannot be taken out again; restore a backup")
