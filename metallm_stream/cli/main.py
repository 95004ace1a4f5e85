"""The command line: one file a command, each loaded only when it is used.

Invariant: what a user did wrong is told in one line that names the way out, without a traceback.
"""

from __future__ import annotations

import importlib

import click

from metallm_stream.cli.groups import Group

COMMANDS = {
    "up": "metallm_stream.cli.up",
    "demo": "metallm_stream.cli.demo",
    "topics": "metallm_stream.cli.topics",
    "db": "metallm_stream.cli.db",
    "models": "metallm_stream.cli.models",
    "providers": "metallm_stream.cli.providers",
    "recorded-llm": "metallm_stream.cli.recorded_llm",
    "ask": "metallm_stream.cli.ask",
    "feedback": "metallm_stream.cli.ask",
    "watch": "metallm_stream.cli.watch",
    "explain": "metallm_stream.cli.explain",
    "evaluate": "metallm_stream.cli.evaluate",
    "replay": "metallm_stream.cli.replay",
    "doctor": "metallm_stream.cli.doctor",
    "rebuild": "metallm_stream.cli.rebuild",
    "warmup": "metallm_stream.cli.warmup",
    "size": "metallm_stream.cli.size",
    "schemas": "metallm_stream.cli.schemas",
}


class Commands(Group):
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
        module = importlib.import_module(COMMANDS[cmd_name])
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="metallm-stream")
def cli() -> None:
    """Learn, while it runs, which LLM to use for each query of a Kafka stream."""


def main() -> None:
    """Run the command line."""
    cli(prog_name="metallm")
