"""What the documents say of settings, fields, views, numbers and files is so."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from metallm_stream import events
from metallm_stream.cli.evaluate import evaluate
from metallm_stream.evaluate import LogEvaluation
from metallm_stream.evaluate.overlap import FEWEST, LARGEST_SHARE
from metallm_stream.events import Query
from metallm_stream.kafka import TopicNames, records
from metallm_stream.kafka.topics import DAY_MS
from metallm_stream.route.account import LARGEST_PRICE
from metallm_stream.settings import Settings
from tests.readme import README, REPOSITORY, tables

DOCUMENTS = [README, *sorted((REPOSITORY / "docs").rglob("*.md"))]
DOCUMENTS += [REPOSITORY / "CHANGELOG.md", REPOSITORY / "CONTRIBUTING.md"]
EVENTS = REPOSITORY / "docs" / "events.md"
SQL = REPOSITORY / "docs" / "sql.md"
EVALUATE = REPOSITORY / "docs" / "evaluate.md"
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)?(?:#([^)\s]+))?\)")
QUOTED = re.compile(r"`([^`]+)`")
SECTIONS = {
    "queries": (events.Query, events.Message, events.Generation),
    "decisions": (events.Decision, events.Candidate, events.Failure),
    "calls": (events.Call,),
    "results": (events.Result, events.Attempt, events.Skip),
    "feedback": (events.Feedback,),
    "cases": (events.Case,),
    "verdicts": (events.Verdict,),
    "models": (events.Model, events.Price),
    "policy": (
        events.PolicyManifest,
        events.PolicyArm,
        events.BudgetAccount,
        events.RiverState,
        events.RiverPart,
    ),
    "health": (events.ArmHealth, events.WorkerSpend),
}
document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(REPOSITORY)))


def section(path: Path, heading: str) -> str:
    """The text under a heading of the second level."""
    found = re.search(
        rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", path.read_text(), re.MULTILINE | re.DOTALL
    )
    assert found, heading
    return found[1]


def anchors(path: Path) -> set[str]:
    """The names under which a document's headings can be linked to."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text).lower().replace(" ", "-") for text in headings}


@document
def test_links_lead_somewhere(path: Path) -> None:
    """To a file of the repository, and to a heading that it has."""
    for target, anchor in LINK.findall(path.read_text()):
        if target.startswith("http"):
            continue
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), anchor


@document
def test_files_that_are_named_exist(path: Path) -> None:
    """A path in quotes is one of the repository's."""
    named = re.findall(
        r"`((?:metallm_stream|tests|docs|migrations|services|schemas)/[\w./-]*)", path.read_text()
    )
    shipped = "metallm_stream/_installed/"  # exists in the wheel alone
    assert [n for n in named if n != shipped and not (REPOSITORY / n).exists()] == []


@document
def test_variables_that_are_named_are_settings(path: Path) -> None:
    """METALLM_ROUTER__RECENT_IDS is one; others are refused at start."""
    known = {name for name, _ in settings()} | {"METALLM_CONFIG", "METALLM_TEST_STACK"}
    for name in re.findall(r"METALLM_[A-Z_<>]*[A-Z>]", path.read_text()):
        generic = re.sub(r"(PROVIDERS|BUDGETS)__[A-Z]+(?=__)", r"\1__<NAME>", name)
        assert generic in known, name


def settings() -> list[tuple[str, Any]]:
    """Every variable with its default, nested ones by their path."""
    return list(_leaves(Settings, "METALLM_"))


def _leaves(tree: type[BaseModel], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, field in tree.model_fields.items():
        kind, variable = field.annotation, prefix + name.upper()
        entry = get_args(kind)[-1] if name in ("budgets", "providers") else None
        if entry is not None:
            yield from _leaves(entry, f"{variable}__<NAME>__")
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _leaves(kind, f"{variable}__")
        else:
            required = field.is_required()
            yield variable, None if required else field.get_default(call_default_factory=True)


def test_the_readme_has_every_setting_with_its_default() -> None:
    """In the order of the tree; an empty cell is an unset or empty value."""
    rows = list(tables(README, "variable"))
    shown = [(cells[0].strip("`"), cells[1].strip("`")) for cells in rows]
    wanted = []
    for name, default in settings():
        wanted.append((name, "" if default in (None, {}, "") else str(default)))
    states = [name for name, _ in settings()].index("METALLM_STATE_DIR")
    wanted[states] = ("METALLM_STATE_DIR", "the user's")
    assert shown == wanted
    assert all(len(cells) == 3 and cells[2].endswith(".") for cells in rows)


@pytest.mark.parametrize("topic", SECTIONS)
def test_every_field_of_a_topics_records_is_described(topic: str) -> None:
    """And no field that there is not."""
    described = set(QUOTED.findall(section(EVENTS, topic)))
    fields = {name for record in SECTIONS[topic] for name in record.model_fields}
    assert fields - {"schema_version"} <= described
    rows = [line for line in section(EVENTS, topic).splitlines() if line.startswith("| `")]
    first_cells = {name for line in rows for name in QUOTED.findall(line.split("|")[1])}
    assert first_cells <= fields


def test_bounds_and_kinds_that_are_described_are_those_of_the_schema() -> None:
    """The numbers that users run into."""
    query = Query.model_json_schema()["properties"]
    text = section(EVENTS, "queries")
    for field in ("query_id", "text"):
        assert f"to {query[field]['maxLength']:,} characters, required" in text
    for kind in get_args(events.FailureKind):
        assert f"`{kind}`" in section(EVENTS, "results")


def test_dead_letter_headers_are_those_that_are_written() -> None:
    """All six, and the limits at which they are cut."""
    text = section(EVENTS, "Dead letters")
    names = (records.REASON, records.TOPIC, records.PARTITION, records.OFFSET)
    for name in (*names, records.SERVICE, records.BYTES):
        assert f"`{name}`" in text
    assert records.MAX_DEAD_VALUE_BYTES == 3 * 1024**2
    assert records.MAX_DEAD_KEY_BYTES == 64 * 1024
    assert "cut at 3 MiB, keys at 64 KiB" in text


def test_topics_are_all_described() -> None:
    """With a day as the unit of how long they are kept."""
    rows = {cells[0].strip("`"): cells for cells in tables(EVENTS, "topic")}
    named = {name for name in TopicNames().all(()) if not name.endswith(".dlq")}
    assert named | {"calls.<provider>", "<topic>.dlq"} == rows.keys()
    assert DAY_MS == 24 * 3_600 * 1_000


def test_views_and_roles_are_all_described() -> None:
    """Every view of the schema has a row, and every row is a view."""
    sql = REPOSITORY / "metallm_stream" / "postgres" / "sql"
    scripts = "".join(path.read_text() for path in sorted(sql.glob("*.sql")))
    views = re.findall(r"^CREATE VIEW metallm\.(\w+)", scripts, re.MULTILINE)
    assert sorted(views) == sorted(cells[0].strip("`") for cells in tables(SQL, "view"))
    for role in re.findall(r"'(metallm_\w+)'", (sql / "roles.sql").read_text()):
        assert f"`{role}`" in SQL.read_text()


def test_estimators_and_options_of_evaluation_are_all_described() -> None:
    """A row an estimator, in the order of the output; every option but that of JSON."""
    value = LogEvaluation("quality", "logged").values()[0]
    names = [cells[0].strip("`") for cells in tables(EVALUATE, "name")]
    assert names == [estimate.estimator for estimate in value.estimates]
    described = {name for cells in tables(EVALUATE, "option") for name in QUOTED.findall(cells[0])}
    options = {option for parameter in evaluate.params for option in parameter.opts}
    assert described == options - {"--json"}
    assert f"Below {FEWEST:.0f}, with one weight above {LARGEST_SHARE:.0%}".replace("%", " %") in (
        EVALUATE.read_text()
    )


def test_numbers_in_the_guarantees_are_the_defaults() -> None:
    """The window, the retention, how much feedback a query keeps, how dear budgets make cost."""
    defaults = dict(settings())
    guarantees = (REPOSITORY / "docs" / "guarantees.md").read_text()
    window = f"{defaults['METALLM_ROUTER__RECENT_IDS']:,}"
    days = defaults["METALLM_LEARNER__RETENTION_DAYS"]
    assert f"`METALLM_ROUTER__RECENT_IDS` ids of that partition ({window} by default)" in guarantees
    assert f"`METALLM_LEARNER__RETENTION_DAYS` ({days};" in guarantees
    assert f"({window} ids a partition)" in README.read_text()
    assert f"Interactions are kept for {days}\ndays" in README.read_text()
    assert f"each budget by {LARGEST_PRICE:,.0f} at most" in README.read_text()
    assert f"ends at\n  {LARGEST_PRICE:,.0f};" in guarantees


def test_the_changelog_is_of_this_version() -> None:
    """The newest entry is the package's version."""
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    newest = re.search(r"^## (\S+)", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == version


def test_decisions_are_numbered_without_gaps() -> None:
    """A page each, whose heading has the number of its file."""
    pages = sorted((REPOSITORY / "docs" / "decisions").glob("*.md"))
    assert [page.name[:4] for page in pages] == [f"{n:04d}" for n in range(1, len(pages) + 1)]
    for page in pages:
        assert page.read_text().startswith(f"# {page.name[:4]}. ")


def test_the_licence_is_there_in_full() -> None:
    """Apache-2.0, as pyproject.toml says."""
    licence = (REPOSITORY / "LICENSE").read_text()
    assert "Apache License" in licence
    assert "END OF TERMS AND CONDITIONS" in licence
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert project["license"] == "Apache-2.0"
