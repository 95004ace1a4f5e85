"""The command line: one file a command, assembled in `main`."""

from metallm_stream.cli.main import main

__all__ = ["main"]
