"""Evidence about an arm that has shifted ages: the time scale is kept with the shift.

Shifts that are there already have none, and go on as before.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

from metallm_stream.postgres.migrate import run_script

revision = "0005"
down_revision = "0004"

SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    run_script(op.get_bind(), (SQL / "0005_ageing.sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    raise NotImplementedError("sums that were weighed cannot be unweighed; restore a backup")
