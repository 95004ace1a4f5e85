"""A prompt's turns and limits as the wires want them.

Invariant: no word of a prompt is lost on any wire.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from metallm_stream.events import Generation, Model


def system_and_turns(
    messages: Sequence[Mapping[str, str]],
) -> tuple[str | None, list[Mapping[str, str]]]:
    """The system text, several joined by an empty line, and the turns of user and assistant.

    >>> system_and_turns([{"role": "system", "content": "Be brief."}])
    ('Be brief.', [])
    """
    system = [turn["content"] for turn in messages if turn["role"] == "system"]
    turns = [turn for turn in messages if turn["role"] != "system"]
    return "\n\n".join(system) or None, turns


def output_limit(model: Model, generation: Generation | None) -> int | None:
    """The query's limit on output tokens, capped by what the arm can; None without a wish."""
    if generation is None or generation.max_output_tokens is None:
        return None
    wish = generation.max_output_tokens
    return wish if model.max_output_tokens is None else min(wish, model.max_output_tokens)


def temperature_to_1(generation: Generation) -> float | None:
    """The query's temperature for wires that take none above 1."""
    return None if generation.temperature is None else min(generation.temperature, 1.0)
