"""What utilities are made of: one scale of cost, and what budgets add to the weight of costs.

A decision's own scale knew less of the arms' costs than later ones, and nothing of them before the
first policy: an evaluation and the learning curve go by the median. The SQL beside this file is
frozen.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op
from sqlalchemy import text

from metallm_stream.postgres.migrate import run_script

revision = "0008"
down_revision = "0007"

SQL = Path(__file__).parent.parent / "sql"
ROLES = text(
    "SELECT count(*) FROM pg_roles WHERE rolname IN ('metallm_service', 'metallm_analyst')"
)


def upgrade() -> None:
    connection = op.get_bind()
    run_script(connection, (SQL / "0008_utilities.sql").read_text(encoding="utf-8"))
    if connection.execute(ROLES).scalar_one() == 2:
        run_script(connection, (SQL / "0008_roles.sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    raise NotImplementedError("functions are not taken back; restore a backup")
