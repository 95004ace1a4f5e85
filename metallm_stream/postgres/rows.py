"""An interaction as a row of the table, and back.

Invariant: `from_row(to_row(interaction)) == interaction`, except for NUL characters, which
PostgreSQL cannot store and which are left out.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from typing import Any

import orjson
from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError, to_jsonable_python

from metallm_stream.events import Decision, Event, Feedback, Result, Verdict
from metallm_stream.join import Interaction

MAX_JSON_BYTES = 2**25  # jsonb takes 2**28 bytes an array

# Columns and types of a row. Those of `DECIDED` and `ANSWERED` are sent only with a new decision or
# result, and stay as they are without.
COLUMNS: dict[str, str] = {
    "query_id": "text",
    "day": "date",
    "task": "text",
    "arm": "text",
    "answered_by": "text",
    "propensity": "double precision",
    "policy": "text",
    "policy_version": "bigint",
    "encoder": "text",
    "cost_weight": "double precision",
    "latency_weight": "double precision",
    "cost_scale_usd": "double precision",
    "asked_at": "timestamptz",
    "decided_at": "timestamptz",
    "finished_at": "timestamptz",
    "prediction": "text",
    "failure": "text",
    "input_tokens": "bigint",
    "output_tokens": "bigint",
    "cost_usd": "double precision",
    "latency_s": "double precision",
    "quality": "double precision",
    "problem": "text",
    "label": "text",
    "score": "double precision",
    "given_at": "timestamptz",
    "decision": "jsonb",
    "context": "bytea",
    "result": "jsonb",
    "feedback": "jsonb",
    "judged_by": "text",
    "verdict": "jsonb",
    "priced": "boolean",
}

_OF_DECISIONS = (
    "task",
    "arm",
    "propensity",
    "policy",
    "policy_version",
    "encoder",
    "cost_weight",
    "latency_weight",
    "cost_scale_usd",
    "asked_at",
    "decided_at",
    "context",
)
DECIDED = frozenset((*_OF_DECISIONS, "decision"))
ANSWERED = frozenset(
    {
        "answered_by",
        "finished_at",
        "prediction",
        "input_tokens",
        "output_tokens",
        "cost_usd",
        "latency_s",
        "result",
        "priced",
    }
)

# What binary COPY is told: jsonb goes as bytes, a version and JSON.
COPY_TYPES = ["bytea" if kind == "jsonb" else kind for kind in COLUMNS.values()]
_JSON_PLACES = [place for place, kind in enumerate(COLUMNS.values()) if kind == "jsonb"]
_JSONB_VERSION = b"\x01"

_feedback = TypeAdapter(tuple[Feedback, ...])


def to_json(
    rows: Iterable[tuple[date, Interaction]], known: Mapping[str, Interaction]
) -> Iterator[str]:
    """The rows as JSON arrays of objects, each of at most about `MAX_JSON_BYTES`.

    `known` are the interactions as the table has them, by query id.
    One JSON argument costs a third of what arrays of JSON texts cost: those are escaped twice.
    """
    held: list[bytes] = []
    size = 0
    for day, interaction in rows:
        row = _as_json(to_row(day, interaction, known.get(interaction.query_id)))
        if held and size + len(row) > MAX_JSON_BYTES:
            yield (b"[" + b",".join(held) + b"]").decode()
            held, size = [], 0
        held.append(row)
        size += len(row)
    if held:
        yield (b"[" + b",".join(held) + b"]").decode()


def to_copy(day: date, interaction: Interaction) -> list[object]:
    """The values of a new row in the order of `COLUMNS`, as `COPY_TYPES`."""
    row = to_row(day, interaction, None)
    values = [row.get(name) for name in COLUMNS]
    for place in _JSON_PLACES:
        value = values[place]
        if value is not None:
            values[place] = _JSONB_VERSION + value.encode()
    return values


def to_row(day: date, interaction: Interaction, known: Interaction | None) -> dict[str, Any]:
    """The values by column, those that are null left out; the flattened follow from the events.

    Decision and result are left out where they are those of `known`, merged from the same objects.
    """
    row: dict[str, Any] = {"query_id": interaction.query_id, "day": day}
    decision, result = interaction.decision, interaction.result
    if decision is not None and (known is None or known.decision is not decision):
        row |= _decided(decision)
    if result is not None and (known is None or known.result is not result):
        row |= _answered(result)
    if result is not None and result.failure is not None:
        row["failure"] = result.failure.kind
    elif decision is not None and decision.refusal is not None:
        row["failure"] = decision.refusal.kind
    if interaction.feedback:
        row |= _judged(interaction)
    if interaction.verdict is not None:
        row["verdict"] = storable_json(interaction.verdict)
    if row.get("quality") is not None:
        row["judged_by"] = "user"
    elif interaction.verdict_in_force() is not None:
        row["judged_by"] = "model"
    return row


def from_row(
    query_id: str,
    decision: str | None,
    context: bytes | None,
    result: str | None,
    feedback: str | None,
    verdict: str | None,
) -> Interaction:
    """The interaction of one row; JSON comes as text."""
    return Interaction(
        query_id,
        None if decision is None else _with_context(decision, context or b""),
        None if result is None else Result.model_validate_json(result),
        () if feedback is None else _feedback.validate_json(feedback),
        None if verdict is None else Verdict.model_validate_json(verdict),
    )


def storable(value: str | None) -> str | None:
    r"""Text that PostgreSQL takes: without NUL, lone surrogates replaced by U+FFFD.

    >>> storable("a\x00b")
    'ab'
    """
    if value is None or (value.isascii() and "\x00" not in value):
        return value
    return value.replace("\x00", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def storable_json(event: Event, *, without: str | None = None) -> str:
    """The event as JSON that `jsonb` takes, optional fields that are unset left out."""
    exclude = None if without is None else {without}
    try:
        dumped = event.model_dump_json(exclude=exclude, exclude_none=True)
    except PydanticSerializationError:  # a lone surrogate
        plain = to_jsonable_python(event, exclude=exclude, exclude_none=True)
        return orjson.dumps(_cleaned(plain)).decode()
    return orjson.dumps(_cleaned(orjson.loads(dumped))).decode() if "\\u0000" in dumped else dumped


def _as_json(row: dict[str, Any]) -> bytes:
    """JSON as it is, and bytes in hexadecimal digits."""
    sent = {
        name: orjson.Fragment(value) if COLUMNS[name] == "jsonb" else value
        for name, value in row.items()
    }
    if "context" in row:
        sent["context"] = "\\x" + row["context"].hex()
    return orjson.dumps(sent)


def _cleaned(value: object) -> object:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, list | tuple):
        return [_cleaned(item) for item in value]
    if isinstance(value, dict):
        return {storable(key): _cleaned(item) for key, item in value.items()}
    return value


def _decided(decision: Decision) -> dict[str, Any]:
    own = {name: getattr(decision, name) for name in _OF_DECISIONS}
    return own | {"decision": storable_json(decision, without="context")}


def _answered(result: Result) -> dict[str, Any]:
    return {
        "answered_by": result.arm,
        "finished_at": result.finished_at,
        "prediction": storable(result.prediction),
        "input_tokens": result.input_tokens,
        "output_tokens": result.output_tokens,
        "cost_usd": result.cost_usd,
        "latency_s": result.latency_s,
        "result": storable_json(result),
        "priced": result.is_priced(),
    }


def _judged(interaction: Interaction) -> dict[str, Any]:
    judgement = interaction.judged()
    given = judgement.feedback
    return {
        "quality": judgement.quality,
        "problem": storable(judgement.problem),
        "label": None if given is None else given.label,
        "score": None if given is None else given.score,
        "given_at": None if given is None else given.given_at,
        "feedback": f"[{','.join(map(storable_json, interaction.feedback))}]",
    }


def _with_context(decision: str, context: bytes) -> Decision:
    encoded = base64.b64encode(context).decode()
    return Decision.model_validate_json(f'{{"context":"{encoded}",{decision.lstrip()[1:]}')
