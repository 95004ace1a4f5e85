"""What a policy of River's has learned, and the lessons that it was taught.

A database without rows in these tables has no such policy, as before.
"""

from __future__ import annotations

from alembic import op

from metallm_stream.postgres.migrate import run_files

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    run_files(op.get_bind(), revision, "tables", "views", "roles")


def downgrade() -> None:
    raise NotImplementedError("lessons would be lost; restore a backup")
