"""Evaluation reads each stored decision and result once.

The view says the same as before and keeps its rights. The SQL beside this file is frozen.
"""

from __future__ import annotations

from alembic import op

from metallm_stream.postgres.migrate import run_files

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    run_files(op.get_bind(), revision, "outcomes")


def downgrade() -> None:
    raise NotImplementedError("views are not taken back; restore a backup of the former release")
