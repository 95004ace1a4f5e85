"""`metallm doctor`: what is reachable and whether it fits, each finding with its remedy."""

from metallm_stream.cli.doctor.command import doctor

__all__ = ["doctor"]
