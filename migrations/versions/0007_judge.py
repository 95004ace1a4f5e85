"""The verdicts of a judge model beside users' feedback.

Interactions without a verdict are what they were; `judged_by` is filled in for those with quality.
"""

from __future__ import annotations

from alembic import op

from metallm_stream.postgres.migrate import run_files

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    run_files(op.get_bind(), revision, "tables", "views", "roles")


def downgrade() -> None:
    raise NotImplementedError("verdicts would be lost; restore a backup")
