"""The README's blocks: those that are not run are checked here, the others where they are run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import orjson
import pytest
from jsonschema import Draft202012Validator

from metallm_stream.cli.main import cli
from metallm_stream.embedded.recorded_llm import read_recording
from metallm_stream.events import Event, Feedback, Query
from metallm_stream.kafka import TopicNames
from metallm_stream.serve.probe import PROMPT
from metallm_stream.settings import Settings
from tests.readme import README, REPOSITORY, Block, blocks, tables

USERS_RECORDS: dict[str, type[Event]] = {"queries": Query, "feedback": Feedback}
WORDS = [
    *("query", "arm", "context", "policy", "propensity", "decision", "call", "result", "feedback"),
    *(
        "quality",
        "case",
        "verdict",
        "utility",
        "interaction",
        "shard",
        "snapshot",
        "offset",
        "next_offset",
    ),
    *("uncertainty", "leverage", "budget", "clock", "shift", "target", "lesson"),
]


def console_commands() -> Iterator[tuple[Block, list[str]]]:
    """Every command of the README's and the contributors' console blocks, in words."""
    for path in (README, REPOSITORY / "CONTRIBUTING.md"):
        for block in blocks(path):
            for line in block.commands:
                for part in re.split(r"&&|\|(?!\|)", line):
                    yield block, shlex.split(part.rstrip(" &"), comments=True)


def test_the_glossary_has_every_word_once() -> None:
    """One meaning each, in the order of a query's way."""
    assert [word for word, _ in tables(README, "word")] == WORDS


def test_console_commands_are_commands_that_there_are() -> None:
    """Also in the blocks that are not run."""
    known_otherwise = {"source", "export", "echo", "kcat", "python", "make"}
    for block, (program, *arguments) in console_commands():
        if program == "metallm":
            command: click.Command = cli
            for name in arguments:
                if not isinstance(command, click.Group):
                    break
                found = command.get_command(click.Context(command), name)
                assert found is not None, (block.number, name)
                command = found
            options = {o for p in command.params for o in p.opts} | {"--help"}
            given = {a.partition("=")[0] for a in arguments if a.startswith("--")}
            assert given <= options, (block.number, given - options)
        else:
            assert program in known_otherwise, (block.number, program)


def test_make_targets_run_what_they_promise() -> None:
    """`make demo` is the command that its own test runs; the others are targets."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    for block, (program, *arguments) in console_commands():
        if program != "make":
            continue
        dry = subprocess.run(
            ["make", "-n", *arguments],
            cwd=REPOSITORY,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        assert dry.stdout.strip(), block.number
        if arguments == ["demo"]:
            assert ".venv/bin/metallm demo" in dry.stdout


def test_blocks_that_are_not_run_say_why() -> None:
    """All others are run by tests/integration/test_readme.py."""
    excluded = [block for block in blocks() if not block.is_run]
    assert all(len(block.why) > 10 for block in excluded)
    assert {block.said for block in excluded} == {"run by hand", "not run"}
    assert len(excluded) == 3


def test_kcat_examples_are_records_that_the_service_takes() -> None:
    """Topic, key and value of each line."""
    produced = []
    for block in blocks():
        for line in block.commands:
            if "kcat" not in line:
                continue
            words = shlex.split(line.replace("|", " "))
            topic = words[words.index("-t") + 1]
            assert topic in TopicNames().all(())
            assert "$KAFKA_BOOTSTRAP_SERVERS" in words
            if "-P" in words:
                value = words[words.index("echo") + 1].encode()
                record = USERS_RECORDS[topic].parse(value)
                schema = orjson.loads((REPOSITORY / f"schemas/{topic}.v1.json").read_bytes())
                Draft202012Validator(schema).validate(orjson.loads(value))
                key = words[words.index("-k") + 1]
                assert record.model_dump()["query_id"] == key
                produced.append(topic)
            else:
                assert "isolation.level=read_committed" in words
    assert produced == ["queries", "feedback"]


def test_the_readmes_queries_are_in_the_recording() -> None:
    """Whoever types them gets an answer from both models, as does `metallm providers check`."""
    recording = read_recording([REPOSITORY / "docs" / "example" / "recording.jsonl"])
    text = README.read_text()
    asked = [words[2] for _, words in console_commands() if words[:2] == ["metallm", "ask"]]
    asked += re.findall(r'"text": "([^"]+)"', text)
    assert len(asked) == 3
    for each in (*asked, PROMPT):
        assert set(recording.outcomes(each) or ()) == {"small", "large"}


def test_the_example_settings_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/example/metallm.toml is read without complaint."""
    for name in [name for name in os.environ if name.startswith("METALLM_")]:
        monkeypatch.delenv(name)
    file = REPOSITORY / "docs" / "example" / "metallm.toml"
    shown = Settings(**tomllib.loads(file.read_text()))
    assert shown.providers.keys() == {"recorded", "openai"}
    assert shown.state_dir == Path(".metallm")
