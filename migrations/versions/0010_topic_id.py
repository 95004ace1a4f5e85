"""Positions belong to one life of a topic: beside each stands the id of the topic that was read.

It is filled in when a learner next claims the partition.
"""

from __future__ import annotations

from alembic import op

from metallm_stream.postgres.migrate import run_files

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    run_files(op.get_bind(), revision, "tables")


def downgrade() -> None:
    raise NotImplementedError("positions would be taken for those of any topic; restore a backup")
