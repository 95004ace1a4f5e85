"""Tables in a narrow terminal: two arms never look alike."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from metallm_stream.cli import providers, replay_report
from metallm_stream.cli.models import catalogue_table
from metallm_stream.cli.output import output
from metallm_stream.events import Model
from metallm_stream.serve.probe import Probe

ARMS = [f"bedrock/eu.anthropic.claude-3-5-sonnet-20240620-v{version}:0" for version in (1, 2)]
MODELS = [Model(arm=arm, provider="bedrock", model=arm.split("/")[1]) for arm in ARMS]


def replayed() -> Table:
    """A table of `metallm replay`."""
    table = replay_report._table("logs.jsonl: 3 queries", "policy")
    for arm in ARMS:
        table.add_row(f"fixed:{arm}", *["0.1234"] * 6)
    return table


tables = pytest.mark.parametrize(
    "table",
    [catalogue_table(MODELS), providers._table([Probe(model) for model in MODELS]), replayed()],
    ids=["models list", "providers check", "replay"],
)


@tables
def test_names_are_whole_in_80_columns(table: Table) -> None:
    """On as many lines as they need."""
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table)
    lines = [line.replace("│", " ").split() for line in console.export_text().splitlines()]
    first_column = "".join(words[0] for words in lines if words)
    for arm in ARMS:
        assert arm in first_column


@tables
def test_names_are_whole_on_one_line_where_nobody_looks(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a pipe, whatever the width of the terminal behind it."""
    monkeypatch.setenv("COLUMNS", "80")
    console = output()
    with console.capture() as captured:
        console.print(table)
    for arm in ARMS:
        assert any(
            arm in line.split() or f"fixed:{arm}" in line.split()
            for line in captured.get().replace("│", " ").splitlines()
        )
