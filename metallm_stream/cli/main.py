"""The command line: one file a command, each loaded only when it is used.

Invariant: what a user did wrong is told in one line that names the way out, without a traceback.
"""

from __future__ import annotations

import importlib
import sys

import click

from metallm_stream.errors import MetallmError

COMMANDS = {
    "up": "metallm_stream.cli.up",
    "demo": "metallm_stream.cli.demo",
    "topics": "metallm_stream.cli.topics",
    "db": "metallm_stream.cli.db",
    "models": "metallm_stream.cli.models",
    "ask": "metallm_stream.cli.ask",
    "feedback": "metallm_stream.cli.ask",
    "explain": "metallm_stream.cli.explain",
    "replay": "metallm_stream.cli.replay",
    "rebuild": "metallm_stream.cli.rebuild",
    "schemas": "metallm_stream.cli.schemas",
}


class Commands(click.Group):
    """The commands by name; the module of each has an attribute of that name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order in which a newcomer needs them."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(COMMANDS[cmd_name]), cmd_name)
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="metallm-stream")
def cli() -> None:
    """Learn, while it runs, which LLM to use for each query of a Kafka stream."""


def main() -> None:
    """Run the command line."""
    try:
        cli()
    except MetallmError as exc:
        click.echo(f"error: {exc}", err=True)
        sys.exit(1)
