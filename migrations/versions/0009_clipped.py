"""Evaluation takes expected qualities as no less than 0 and no more than 1.

Early predictions go far beyond, and doubly robust intervals grew with them. The SQL beside this
file is frozen; the function keeps its rights.
"""

from __future__ import annotations

from alembic import op

from metallm_stream.postgres.migrate import run_files

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    run_files(op.get_bind(), revision, "clipped")


def downgrade() -> None:
    raise NotImplementedError("functions are not taken back; restore a backup")
