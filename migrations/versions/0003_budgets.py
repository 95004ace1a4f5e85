"""Accounts of budgets, and their view.

The SQL beside this file is frozen: later releases change the database in revisions of their own.
"""

from __future__ import annotations

from alembic import op

from metallm_stream.postgres.migrate import run_files

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    run_files(op.get_bind(), revision, "budgets", "roles")


def downgrade() -> None:
    raise NotImplementedError("budgets cannot be taken out again; restore a backup")
