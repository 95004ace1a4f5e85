"""Groups of commands: they list what each one does, and tell what went wrong in one line.

Invariant: the line names the command that was run, however deep it lies.
"""

from __future__ import annotations

import importlib

import click

COMPLAINTS = "metallm_stream.cli.complaints"
WHOLE = 1_000


class Refusal(click.ClickException):
    """What went wrong and the way out, in one line."""

    def show(self, file: object = None) -> None:
        """Print it where errors go."""
        del file
        click.echo(f"error: {self.message}", err=True)


class Group(click.Group):
    """Commands under one name."""

    def invoke(self, ctx: click.Context) -> object:
        """Run one command; errors that a user can mend end it in one line."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Exception as exc:
            _refuse(exc, f"{ctx.command_path} {ctx.invoked_subcommand}")
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Each command with the whole first sentence of its help."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, command.get_short_help_str(WHOLE)) for name, command in commands if command]
            )


def _refuse(error: Exception, command: str) -> None:
    """End with a line about the error if there is one; what libraries it needs is loaded now."""
    line = importlib.import_module(COMPLAINTS).complaint(error, command)
    if line is not None:
        raise Refusal(line) from error
