"""The verdicts of a judge model beside users' feedback.

Interactions without a verdict are what they were; `judged_by` is filled in for those with quality.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op
from sqlalchemy import text

from metallm_stream.postgres.migrate import run_script

revision = "0007"
down_revision = "0006"

SQL = Path(__file__).parent.parent / "sql"
ROLES = text(
    "SELECT count(*) FROM pg_roles WHERE rolname IN ('metallm_service', 'metallm_analyst')"
)


def upgrade() -> None:
    connection = op.get_bind()
    for part in ("tables", "views"):
        run_script(connection, (SQL / f"0007_{part}.sql").read_text(encoding="utf-8"))
    if connection.execute(ROLES).scalar_one() == 2:
        run_script(connection, (SQL / "0007_roles.sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    raise NotImplementedError("verdicts would be lost; restore a backup")
