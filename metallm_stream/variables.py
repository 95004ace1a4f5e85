"""The variables that a tree of settings is read from, and what is told of those that will not do.

Invariant: a variable that reaches nothing in the tree is refused, and no value is repeated of a
setting that is a secret, or that stands where a key is said to be.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, JsonValue, ValidationError

from metallm_stream.errors import ConfigurationError

PREFIX = "METALLM_"
NOT_SETTINGS = {PREFIX + name for name in ("CONFIG", "TEST_STACK", "RECORDED_LLM_KEY")}
_SECRET = {"database_url", "kafka_properties", "headers"}
# Told without the value, which may be a key in the wrong place.
_PLACES_OF_KEYS = {
    "api_key_env": "the name of an environment variable in capitals, which holds the key",
    "api_key_file": "the whole path of a file, beginning with a slash, which holds the key",
}
_TOLD = 3
# What Kubernetes sets in every container of a namespace with a Service called `metallm-...`.
_OF_KUBERNETES = re.compile(
    PREFIX + r"([A-Z0-9]+_)*(SERVICE_HOST=.*|SERVICE_PORT(_[A-Z0-9]+)*=\d+"
    r"|PORT(_\d+_(TCP|UDP|SCTP))?=(tcp|udp|sctp)://.+"
    r"|PORT_\d+_(TCP|UDP|SCTP)_(PROTO|PORT|ADDR)=.*)"
)


def check_variables(tree: type[BaseModel], env: Mapping[str, str]) -> None:
    """Raises `ConfigurationError` for a variable that is no setting, or a section that is no JSON.

    Two underscores are one step down the tree. What Kubernetes sets for a Service is left alone.
    """
    known = {PREFIX + name.upper() for name in tree.model_fields}
    for name in env:
        if not name.startswith(PREFIX) or name in NOT_SETTINGS:
            continue
        if name.split("__")[0] not in known:
            if _OF_KUBERNETES.fullmatch(f"{name}={env[name]}"):
                continue
            raise ConfigurationError(_no_such(name, known | NOT_SETTINGS))
        steps = name.removeprefix(PREFIX).lower().split("__")
        kind, taken = _reached(tree, steps)
        if taken < len(steps):
            fields, reached = _fields(kind), _variable(steps[:taken])
            there = [f"{reached}__{field.upper()}" for field in fields] or [reached]
            raise ConfigurationError(_no_such(name, there))
        if (_fields(kind) or get_origin(kind) is dict) and not _is_json(env[name]):
            got = "" if _is_secret(steps) else f" (got {env[name]!r:.80})"
            raise ConfigurationError(f"{name}: must be JSON{got}; its parts are {name}__<NAME>")


def refusal(
    error: ValidationError, tree: type[BaseModel], env: Mapping[str, str], file: str | None
) -> str:
    """What is wrong with values, in one line: where they stand, what they are, what is allowed."""
    given = {name.upper(): name for name in env}
    items = error.errors(include_url=False)
    told = [_told(item, tree, given, file) for item in items[:_TOLD]]
    hidden = len(items) - _TOLD
    return "; ".join((*told, f"and {hidden} more") if hidden > 0 else told)


def _told(
    item: Mapping[str, Any], tree: type[BaseModel], given: Mapping[str, str], file: str | None
) -> str:
    steps, got = [str(step) for step in item["loc"]], item["input"]
    if item["type"] == "missing":
        return f"{'.'.join(steps)} ({_variable(steps)}): {item['msg']}"
    where = _place(steps, given, file)
    if item["type"] == "extra_forbidden":
        return _no_such(where, _fields(_reached(tree, steps)[0]))
    if meant := _PLACES_OF_KEYS.get("".join(steps[-1:])):
        return f"{where}: must be {meant}"
    is_hidden = _is_secret(steps) or isinstance(got, dict | list)
    shown = "" if is_hidden else f" (got {got!r:.80})"
    return f"{where}: {item['msg'].removeprefix('Value error, ')}{shown}"


def _place(steps: Sequence[str], given: Mapping[str, str], file: str | None) -> str:
    """The variable that says it, with the rest of the way; else the key in the file."""
    for count in range(len(steps), 0, -1):
        if name := given.get(_variable(steps[:count])):
            return ": ".join(filter(None, (name, ".".join(steps[count:]))))
    parts = _variable(steps) + "__"
    if file is None or any(name.startswith(parts) for name in given):
        return f"{parts}*"
    return f"{'.'.join(steps)} in {file}"


def _reached(tree: type[BaseModel], steps: Sequence[str]) -> tuple[Any, int]:
    """The type of a setting, or of what is last on the way to it, and how many steps lead there."""
    kind: Any = tree
    for taken, step in enumerate(steps):
        if step in _fields(kind):
            kind = kind.model_fields[step].annotation
        elif get_origin(kind) is dict:
            kind = get_args(kind)[1]
        elif kind is not JsonValue:
            return kind, taken
    return kind, len(steps)


def _fields(kind: object) -> Collection[str]:
    """The names below a section; none below anything else."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind.model_fields
    return ()


def _no_such(where: str, there: Collection[str]) -> str:
    return f"{where}: no such setting; there are {', '.join(sorted(there))}"


def _variable(steps: Sequence[str]) -> str:
    return PREFIX + "__".join(steps).upper()


def _is_json(value: str) -> bool:
    try:
        json.loads(value)
    except ValueError:
        return False
    return True


def _is_secret(steps: list[str]) -> bool:
    """Whether a value may hold a secret: what is said of a whole provider may, too."""
    return bool(_SECRET & set(steps)) or (steps[:1] == ["providers"] and len(steps) < 3)
