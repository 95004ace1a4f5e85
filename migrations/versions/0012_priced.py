"""Whether a result's cost is known is stored with it, and one view tells it to the others.

No row is rewritten: in those of older releases it follows from the result, as before. The SQL
beside this file is frozen.
"""

from __future__ import annotations

from alembic import op

from metallm_stream.postgres.migrate import run_files

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    run_files(op.get_bind(), revision, "tables", "views", "roles")


def downgrade() -> None:
    raise NotImplementedError("views are not taken back; restore a backup of the former release")
