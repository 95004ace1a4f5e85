"""All migrations together make exactly the tables, functions and views of this release."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, NullPool, create_engine, make_url, text

from metallm_stream.embedded import EmbeddedStack, remove_state
from metallm_stream.errors import ConfigurationError
from metallm_stream.postgres import (
    check_revision,
    current_revision,
    head_revision,
    roles_exist,
    roles_sql,
)
from metallm_stream.postgres.installed import VERSION_TABLE
from metallm_stream.postgres.migrate import migrate, run_script
from metallm_stream.postgres.revision import is_ours
from metallm_stream.postgres.tables import SCHEMA, metadata

# Everything in our schema as PostgreSQL itself describes it, one line an object or property.
DESCRIPTION = """
    WITH ours AS (
        SELECT c.oid, c.relname, c.relkind, c.reloptions, c.relacl, c.reltoastrelid
        FROM pg_class AS c
        WHERE c.relnamespace = 'metallm'::regnamespace AND c.relname NOT LIKE 'alembic_version%'
    )
    SELECT concat_ws(' ', 'relation', relkind, relname, reloptions::text, relacl::text,
        (SELECT t.reloptions::text FROM pg_class AS t WHERE t.oid = reltoastrelid),
        pg_get_partkeydef(oid), obj_description(oid, 'pg_class')) FROM ours
    UNION ALL
    SELECT concat_ws(' ', 'column', relname, a.attnum, a.attname,
        format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attstorage, a.attcompression,
        a.attidentity, pg_get_expr(d.adbin, d.adrelid), col_description(ours.oid, a.attnum))
    FROM ours JOIN pg_attribute AS a ON a.attrelid = ours.oid
    LEFT JOIN pg_attrdef AS d ON d.adrelid = ours.oid AND d.adnum = a.attnum
    WHERE a.attnum > 0 AND NOT a.attisdropped AND relkind <> 'i'
    UNION ALL
    SELECT concat_ws(' ', 'constraint', relname, k.conname, pg_get_constraintdef(k.oid))
    FROM ours JOIN pg_constraint AS k ON k.conrelid = ours.oid
    UNION ALL
    SELECT pg_get_indexdef(oid) FROM ours WHERE relkind IN ('i', 'I')
    UNION ALL
    SELECT concat_ws(' ', 'view', relname, pg_get_viewdef(oid)) FROM ours WHERE relkind = 'v'
    UNION ALL
    SELECT concat_ws(' ', pg_get_functiondef(p.oid), p.proacl::text,
        obj_description(p.oid, 'pg_proc'))
    FROM pg_proc AS p WHERE p.pronamespace = 'metallm'::regnamespace
    UNION ALL
    SELECT concat_ws(' ', 'sequence', sequencename, data_type, start_value, increment_by, cycle)
    FROM pg_sequences WHERE schemaname = 'metallm'
    UNION ALL
    SELECT 'schema ' || coalesce(nspacl::text, '') FROM pg_namespace WHERE nspname = 'metallm'
    ORDER BY 1
"""


def _described(conn: Connection) -> list[str]:
    return list(conn.execute(text(DESCRIPTION)).scalars())


@pytest.fixture
def connection(empty_database: str) -> Iterator[Connection]:
    """A connection to the empty database."""
    engine = create_engine(empty_database, poolclass=NullPool)
    with engine.connect() as conn:
        yield conn


def test_migrations_and_tables_show_no_difference(database: str) -> None:
    """Alembic would generate an empty revision."""
    engine = create_engine(database, poolclass=NullPool)
    with engine.connect() as conn:
        options = {
            "include_schemas": True,
            "include_name": is_ours,
            "version_table": VERSION_TABLE,
            "version_table_schema": SCHEMA,
            "compare_type": True,
            "compare_server_default": True,
        }
        context = MigrationContext.configure(conn, opts=options)
        assert compare_metadata(context, metadata) == []


def test_migrations_make_what_the_current_files_make(
    database: str, empty_database: str, connection: Connection
) -> None:
    """PostgreSQL describes both databases alike: columns, storage, views, functions, rights."""
    connection.commit()
    assert database == empty_database
    migrated = _described(connection)
    connection.execute(text("DROP SCHEMA metallm CASCADE"))
    connection.execute(text("CREATE SCHEMA metallm"))
    metadata.create_all(connection)
    # What Alembic keeps for itself, so that the rights on it can be given.
    connection.execute(text("CREATE TABLE metallm.alembic_version (version_num text)"))
    for name in ("functions", "views", "evaluate"):
        run_script(
            connection, (files("metallm_stream.postgres") / "sql" / f"{name}.sql").read_text()
        )
    run_script(connection, roles_sql())
    assert _described(connection) == migrated
    assert len(migrated) > 100


def test_migrating_again_changes_nothing(database: str) -> None:
    """An upgrade that is not needed is harmless."""
    assert migrate(database) == current_revision(database) == head_revision()
    check_revision(database)


def test_many_may_migrate_at_once(empty_database: str) -> None:
    """Replicas that start together do not disturb each other."""
    with ThreadPoolExecutor(4) as pool:
        revisions = set(pool.map(migrate, [empty_database] * 4))
    assert revisions == {head_revision()}


def test_an_empty_database_is_refused_with_the_command_to_run(empty_database: str) -> None:
    """A service does not start on it."""
    assert current_revision(empty_database) is None
    with pytest.raises(ConfigurationError, match="metallm db upgrade"):
        check_revision(empty_database)


def test_a_database_that_lacks_migrations_is_refused_with_the_command_to_run(
    database: str, connection: Connection
) -> None:
    """An older release's tables will not do."""
    connection.execute(text("UPDATE metallm.alembic_version SET version_num = '0001'"))
    connection.commit()
    with pytest.raises(ConfigurationError, match=r"0001.*metallm db upgrade"):
        check_revision(database)


def test_a_wrong_password_is_told_and_not_repeated(database: str) -> None:
    """In one line, as for a server that is not there."""
    wrong = (
        make_url(database).set(password=secrets.token_hex(8)).render_as_string(hide_password=False)
    )
    absent = make_url(database).set(port=1).render_as_string(hide_password=False)
    for url, said in ((wrong, "password authentication failed"), (absent, "refused")):
        with pytest.raises(ConfigurationError, match=f"{said}.*is DATABASE_URL right") as told:
            check_revision(url)
        assert "\n" not in str(told.value)
        assert str(make_url(url).password) not in str(told.value)


def test_a_newer_database_is_refused_and_left_alone(database: str, connection: Connection) -> None:
    """Neither served nor migrated by an older release."""
    connection.execute(text("UPDATE metallm.alembic_version SET version_num = '9999'"))
    connection.commit()
    for attempt in (check_revision, migrate):
        with pytest.raises(ConfigurationError, match=r"9999.*upgrade the service"):
            attempt(database)
    assert current_revision(database) == "9999"


def test_views_are_found_without_their_schema(database: str) -> None:
    """New connections to the database look into the schema, after everything else."""
    engine = create_engine(database, poolclass=NullPool)
    with engine.connect() as conn:
        assert conn.execute(text("SELECT count(*) FROM arms")).scalar_one() == 0
        assert conn.execute(text("SELECT * FROM explain('unknown')")).all() == []


def test_every_view_and_table_says_what_it_is(database: str, connection: Connection) -> None:
    """COMMENT ON is the documentation that psql shows."""
    assert database
    silent = connection.execute(
        text(
            "SELECT relname FROM pg_class WHERE relnamespace = 'metallm'::regnamespace "
            "AND relkind IN ('r', 'p', 'v') AND relname <> 'alembic_version' "
            "AND obj_description(oid, 'pg_class') IS NULL"
        )
    )
    assert silent.scalars().all() == []


def test_who_may_not_make_roles_gets_the_tables_and_adds_the_roles_later(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """On a cluster without our roles, a database owner migrates; an administrator adds them."""
    password = secrets.token_hex(8)
    state = Path(tmp_path_factory.mktemp("cluster"))
    with EmbeddedStack(state, bootstrap_servers="127.0.0.1:1") as stack:
        admin_url = stack.database_url
        engine = create_engine(admin_url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        with engine.connect() as conn:
            conn.execute(text(f"CREATE ROLE plain LOGIN PASSWORD '{password}'"))
            conn.execute(text("CREATE DATABASE plain OWNER plain"))
        target = engine.url.set(database="plain")
        owner = target.set(username="plain", password=password)
        plain = owner.render_as_string(hide_password=False)
        assert migrate(plain) == head_revision()
        assert not roles_exist(plain)
        administrator = create_engine(target, poolclass=NullPool)
        with administrator.begin() as conn:
            run_script(conn, roles_sql())
            run_script(conn, roles_sql())
        assert roles_exist(plain)
    remove_state(state)
