"""The command line: one file a command, assembled here.

Invariant: what a user did wrong is told in one line that names the way out, without a traceback.
"""

from __future__ import annotations

import sys

import click

from metallm_stream.cli.ask import ask, feedback
from metallm_stream.cli.db import db
from metallm_stream.cli.demo import demo
from metallm_stream.cli.explain import explain
from metallm_stream.cli.models import models
from metallm_stream.cli.rebuild import rebuild
from metallm_stream.cli.replay import replay
from metallm_stream.cli.schemas import schemas
from metallm_stream.cli.topics import topics
from metallm_stream.cli.up import up
from metallm_stream.errors import MetallmError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="metallm-stream")
def cli() -> None:
    """Learn, while it runs, which LLM to use for each query of a Kafka stream."""


for command in (up, demo, topics, db, models, ask, feedback, explain, replay, rebuild, schemas):
    cli.add_command(command)


def main() -> None:
    """Run the command line."""
    try:
        cli()
    except MetallmError as exc:
        click.echo(f"error: {exc}", err=True)
        sys.exit(1)
