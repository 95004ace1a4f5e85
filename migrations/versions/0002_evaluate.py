"""What other policies would have brought: a view of outcomes, a function and a view of values.

The SQL beside this file is frozen.
"""

from __future__ import annotations

from alembic import op

from metallm_stream.postgres.migrate import run_files

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    run_files(op.get_bind(), revision, "evaluate", "roles")


def downgrade() -> None:
    raise NotImplementedError("views are not taken back; restore a backup of the former release")
