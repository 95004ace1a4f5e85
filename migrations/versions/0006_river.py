"""What a policy of River's has learned, and the lessons that it was taught.

A database without rows in these tables has no such policy, as before.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op
from sqlalchemy import text

from metallm_stream.postgres.migrate import run_script

revision = "0006"
down_revision = "0005"

SQL = Path(__file__).parent.parent / "sql"
ROLES = text(
    "SELECT count(*) FROM pg_roles WHERE rolname IN ('metallm_service', 'metallm_analyst')"
)


def upgrade() -> None:
    connection = op.get_bind()
    for part in ("tables", "views"):
        run_script(connection, (SQL / f"0006_{part}.sql").read_text(encoding="utf-8"))
    if connection.execute(ROLES).scalar_one() == 2:
        run_script(connection, (SQL / "0006_roles.sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    raise NotImplementedError("lessons would be lost; restore a backup")
