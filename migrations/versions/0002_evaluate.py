"""What other policies would have brought: a view of outcomes, a function and a view of values.

The SQL beside this file is frozen.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op
from sqlalchemy import text

from metallm_stream.postgres.migrate import run_script

revision = "0002"
down_revision = "0001"

SQL = Path(__file__).parent.parent / "sql"
ROLES = text(
    "SELECT count(*) FROM pg_roles WHERE rolname IN ('metallm_service', 'metallm_analyst')"
)


def upgrade() -> None:
    connection = op.get_bind()
    run_script(connection, (SQL / "0002_evaluate.sql").read_text(encoding="utf-8"))
    # Without the roles an administrator makes them later, rights included: `metallm db roles`.
    if connection.execute(ROLES).scalar_one() == 2:
        run_script(connection, (SQL / "0002_roles.sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    raise NotImplementedError("views are not taken back; restore a backup of the former release")
