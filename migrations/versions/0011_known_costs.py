"""Views average over known costs and tell how many there are; odd small numbers stop no view.

What others have built on the views stays: columns come at their ends. The SQL beside this file is
frozen; views and functions keep their rights.
"""

from __future__ import annotations

from alembic import op

from metallm_stream.postgres.migrate import run_files

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    run_files(op.get_bind(), revision, "views", "evaluate")


def downgrade() -> None:
    raise NotImplementedError("views are not taken back; restore a backup of the former release")
