"""The checked-in JSON Schemas fit the models, and records of every version stay readable."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from jsonschema import Draft202012Validator, FormatChecker

from metallm_stream.cli.schemas import TOPICS, generate
from metallm_stream.events import (
    SCHEMA_VERSION,
    ArmHealth,
    BudgetAccount,
    Call,
    Case,
    Decision,
    Event,
    Feedback,
    Model,
    PolicyArm,
    PolicyManifest,
    Query,
    Result,
    RiverPart,
    UserEvent,
    Verdict,
    WorkerSpend,
)

REPOSITORY = Path(__file__).parents[2]
SCHEMAS = REPOSITORY / "schemas"
GOLDEN = sorted((REPOSITORY / "tests" / "golden").glob("v*/*.json"))
RECORDS: dict[str, type[Event]] = {
    "queries": Query,
    "decisions": Decision,
    "calls": Call,
    "results": Result,
    "feedback": Feedback,
    "cases": Case,
    "verdicts": Verdict,
    "models": Model,
}
KINDS: dict[tuple[str, str], type[Event]] = {
    ("policy", "arm"): PolicyArm,
    ("policy", "manifest"): PolicyManifest,
    ("policy", "budget"): BudgetAccount,
    ("policy", "river"): RiverPart,
    ("health", "arm"): ArmHealth,
    ("health", "spend"): WorkerSpend,
}

golden = pytest.mark.parametrize("path", GOLDEN, ids=lambda p: f"{p.parent.name}-{p.stem}")


def topic_of(path: Path) -> str:
    return path.stem.partition("-")[0]


def record_of(path: Path) -> type[Event]:
    if topic_of(path) in RECORDS:
        return RECORDS[topic_of(path)]
    return KINDS[topic_of(path), orjson.loads(path.read_bytes())["kind"]]


def validator(path: Path) -> Draft202012Validator:
    """The validator for the version and topic that a golden record is of."""
    schema = orjson.loads((SCHEMAS / f"{topic_of(path)}.{path.parent.name}.json").read_bytes())
    return Draft202012Validator(schema, format_checker=FormatChecker())


def test_the_checked_in_schemas_are_those_of_the_models() -> None:
    """`make schemas` was run after the last change of the event models."""
    written = {path.name: path.read_bytes() for path in SCHEMAS.glob(f"*.v{SCHEMA_VERSION}.json")}
    assert written == generate(), "stale: run `make schemas`"


def test_every_schema_is_a_schema() -> None:
    """The files are valid under the draft that they name."""
    for content in generate().values():
        Draft202012Validator.check_schema(orjson.loads(content))


def test_every_topic_has_golden_records_of_every_version() -> None:
    """A new version of a topic comes with records that later releases must still read."""
    covered = {(path.parent.name, topic_of(path)) for path in GOLDEN}
    versions = range(1, SCHEMA_VERSION + 1)
    assert covered == {(f"v{number}", topic) for number in versions for topic in TOPICS}


@golden
def test_a_golden_record_still_parses(path: Path) -> None:
    """What was written by an earlier release, or by a user then, is read today."""
    record_of(path).parse(path.read_bytes())


@golden
def test_a_golden_record_is_valid_under_its_schema(path: Path) -> None:
    """The schema that users have does not refuse what the service takes."""
    validator(path).validate(orjson.loads(path.read_bytes()))


@golden
def test_a_golden_record_survives_parsing_and_encoding(path: Path) -> None:
    """What a service passes on is the record that it has read, and is valid as well."""
    record = record_of(path).parse(path.read_bytes())
    encoded = record.encode()
    assert record_of(path).parse(encoded) == record
    validator(path).validate(orjson.loads(encoded))


@golden
def test_a_field_that_nobody_knows_is_refused_in_users_records_only(path: Path) -> None:
    """Schema and model agree: a misspelt wish costs money, a newer service's field does not."""
    record = record_of(path)
    extended = orjson.loads(path.read_bytes()) | {"max_cots_usd": 1}
    assert validator(path).is_valid(extended) is not issubclass(record, UserEvent)


@golden
def test_a_record_of_a_later_version_is_refused_by_its_schema(path: Path) -> None:
    """A version that this release does not know is a dead letter, not a guess."""
    later = orjson.loads(path.read_bytes()) | {"schema_version": SCHEMA_VERSION + 1}
    assert not validator(path).is_valid(later)
