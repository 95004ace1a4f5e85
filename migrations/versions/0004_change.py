"""What forgets, warms up and watches for drift: the clocks by which evidence is weighed.

A database without rows in these tables forgets nothing, as before.
"""

from __future__ import annotations

from alembic import op

from metallm_stream.postgres.migrate import run_files

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    run_files(op.get_bind(), revision, "tables", "views", "roles")


def downgrade() -> None:
    raise NotImplementedError("sums that were weighed cannot be unweighed; restore a backup")
