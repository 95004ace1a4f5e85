"""What utilities are made of: one scale of cost, and what budgets add to the weight of costs.

A decision's own scale knew less of the arms' costs than later ones, and nothing of them before the
first policy: an evaluation and the learning curve go by the median. The SQL beside this file is
frozen.
"""

from __future__ import annotations

from alembic import op

from metallm_stream.postgres.migrate import run_files

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    run_files(op.get_bind(), revision, "utilities", "roles")


def downgrade() -> None:
    raise NotImplementedError("functions are not taken back; restore a backup")
