"""URLs and revisions that PostgreSQL's edge accepts, without a server."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from metallm_stream.errors import ConfigurationError
from metallm_stream.postgres import database_url, head_revision, open_engine, roles_sql
from metallm_stream.postgres.installed import require_revision


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_the_usual_schemes_are_understood(scheme: str) -> None:
    """Whatever the platform puts into DATABASE_URL."""
    url = database_url(SecretStr(f"{scheme}://me:secret@db.example:5433/metallm?sslmode=require"))
    assert url.drivername == "postgresql+psycopg"
    assert (url.host, url.port, url.query["sslmode"]) == ("db.example", 5433, "require")


@pytest.mark.parametrize("url", ["", "db.example", "mysql://me:secret@db/x", "sqlite:///x", "://"])
def test_other_urls_are_refused_without_being_repeated(url: str) -> None:
    """The message says what to write and holds no password."""
    with pytest.raises(ConfigurationError, match="postgresql://") as caught:
        database_url(url)
    assert "secret" not in str(caught.value)


def test_an_at_sign_in_a_password_is_refused_without_being_repeated() -> None:
    """What follows it would be taken, and told, for a part of the host."""
    with pytest.raises(ConfigurationError, match="%40") as caught:
        database_url("postgresql://me:p@secret@db.example/metallm")
    assert "secret" not in str(caught.value)


def test_an_engine_connects_to_nothing_and_shows_no_password() -> None:
    """A service can be built while PostgreSQL is down."""
    engine = open_engine("postgresql://me:secret@db.example/metallm", application_name="learner")
    assert "secret" not in repr(engine)
    engine.dispose()


def test_a_database_at_the_head_is_accepted() -> None:
    """Found and expected revision are the same."""
    require_revision("0002", {"0001", "0002"})


@pytest.mark.parametrize(
    ("found", "way_out"),
    [(None, "metallm db upgrade"), ("0001", "metallm db upgrade"), ("0003", "upgrade the service")],
)
def test_any_other_database_is_refused_with_the_way_out(found: str | None, way_out: str) -> None:
    """Not migrated, migrated too little, migrated too far."""
    with pytest.raises(ConfigurationError, match=way_out):
        require_revision(found, {"0001", "0002"})


def test_the_migrations_are_found_in_a_checkout() -> None:
    """Their head is known without a database."""
    assert head_revision() == "0013"


def test_the_roles_script_names_both_roles() -> None:
    """It is what `metallm db roles` prints."""
    assert {"metallm_service", "metallm_analyst"} <= set(roles_sql().replace(",", " ").split())
