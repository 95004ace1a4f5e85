"""Evidence about an arm that has shifted ages: the time scale is kept with the shift.

Shifts that are there already have none, and go on as before.
"""

from __future__ import annotations

from alembic import op

from metallm_stream.postgres.migrate import run_files

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    run_files(op.get_bind(), revision, "ageing")


def downgrade() -> None:
    raise NotImplementedError("sums that were weighed cannot be unweighed; restore a backup")
