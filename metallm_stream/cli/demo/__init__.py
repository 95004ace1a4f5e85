"""`metallm demo`: recorded LLM outcomes through the whole service, and the proof."""

from metallm_stream.cli.demo.command import demo

__all__ = ["demo"]
