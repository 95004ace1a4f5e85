"""Encoders by the name that stands in the settings.

Invariant: a name gives an encoder, or an error that says what may stand there.
"""

from __future__ import annotations

from metallm_stream.encode.encoder import Encoder
from metallm_stream.encode.sentence_transformers import load_sentence_encoder
from metallm_stream.encode.static import LARGEST, SMALLEST, StaticEncoder
from metallm_stream.errors import ConfigurationError

DEFAULT_ENCODER = "wordllama:128"


def load_encoder(name: str = DEFAULT_ENCODER) -> Encoder:
    """The encoder called `wordllama:<dimensions>` or `sentence-transformers:<name or path>`.

    Raises `ConfigurationError` for any other name.

    >>> load_encoder("wordllama:32").name
    'wordllama-32'
    """
    family, _, argument = name.partition(":")
    if family == "wordllama" and argument.isascii() and argument.isdigit():
        return StaticEncoder(int(argument))
    if family == "sentence-transformers" and argument:
        return load_sentence_encoder(argument)
    raise ConfigurationError(
        f"unknown encoder {name!r}: use wordllama:<{SMALLEST} to {LARGEST} dimensions> or "
        "sentence-transformers:<name or path>"
    )
