"""`metallm schemas`: the JSON Schema of every topic, generated from the event models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import orjson
from pydantic import TypeAdapter

from metallm_stream.events import (
    SCHEMA_VERSION,
    ArmHealth,
    BudgetAccount,
    Call,
    Case,
    Decision,
    Feedback,
    Model,
    PolicyArm,
    PolicyManifest,
    Query,
    Result,
    RiverPart,
    Verdict,
    WorkerSpend,
)

TOPICS: dict[str, Any] = {
    "queries": Query,
    "decisions": Decision,
    "calls": Call,
    "results": Result,
    "feedback": Feedback,
    "cases": Case,
    "verdicts": Verdict,
    "models": Model,
    "policy": PolicyManifest | PolicyArm | BudgetAccount | RiverPart,
    "health": ArmHealth | WorkerSpend,
}


def generate() -> dict[str, bytes]:
    """File name and content of each schema."""
    files = {}
    for topic, model in TOPICS.items():
        schema = TypeAdapter(model).json_schema(mode="validation")
        schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
        schema["$id"] = f"metallm-stream/{topic}.v{SCHEMA_VERSION}"
        options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
        files[f"{topic}.v{SCHEMA_VERSION}.json"] = orjson.dumps(schema, option=options)
    return files


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
def schemas(directory: Path) -> None:
    """Write the schemas into DIRECTORY."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in generate().items():
        (directory / name).write_bytes(content)
        click.echo(f"wrote {name}")
