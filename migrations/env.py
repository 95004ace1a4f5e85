"""How Alembic reaches the database: by the connection that `metallm db upgrade` hands over.

Invariant: everything runs in that connection's transaction. `alembic revision --autogenerate`,
which developers run by hand, has none and takes DATABASE_URL.
"""

from __future__ import annotations

import os

from alembic import context
from sqlalchemy import Connection, create_engine, text

from metallm_stream.errors import ConfigurationError
from metallm_stream.postgres.engine import database_url
from metallm_stream.postgres.installed import VERSION_TABLE
from metallm_stream.postgres.revision import is_ours
from metallm_stream.postgres.tables import SCHEMA, metadata


def run(connection: Connection) -> None:
    exists = connection.execute(
        text("SELECT to_regnamespace(:schema) IS NOT NULL"), {"schema": SCHEMA}
    )
    if not exists.scalar_one():
        connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
    context.configure(
        connection=connection,
        target_metadata=metadata,
        include_schemas=True,
        include_name=is_ours,
        version_table=VERSION_TABLE,
        version_table_schema=SCHEMA,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    raise ConfigurationError("migrations need a database: run `metallm db upgrade`")

handed_over = context.config.attributes.get("connection")
if handed_over is not None:
    run(handed_over)
else:
    engine = create_engine(database_url(os.environ["DATABASE_URL"]))
    with engine.begin() as opened:
        run(opened)
    engine.dispose()
