"""Encoders by name, and contexts as bytes."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from metallm_stream.encode import context_from_bytes, context_to_bytes, load_encoder
from metallm_stream.errors import ConfigurationError, InvalidEvent


def test_context_bytes_are_little_endian_float32() -> None:
    """Four bytes a number, and back without loss."""
    context = load_encoder("wordllama:32").encode(["to bytes and back"])[0]
    raw = context_to_bytes(context)
    assert len(raw) == 4 * 32
    assert context_to_bytes([1.0]) == b"\x00\x00\x80\x3f"
    assert np.array_equal(context_from_bytes(raw, 32), context)


def test_context_can_be_written_to_after_reading() -> None:
    """What is read is an array of its own, not a view of the record."""
    context = context_from_bytes(context_to_bytes([1.0, 2.0]), 2)
    context[0] = 3.0
    assert context.tolist() == [3.0, 2.0]


@pytest.mark.parametrize("raw", [b"", b"\x00" * 7, b"\x00" * 12])
def test_a_context_of_another_length_is_an_invalid_event(raw: bytes) -> None:
    """The message names both lengths and the likely cause."""
    with pytest.raises(InvalidEvent, match=f"{len(raw)} bytes where 2 float32 .* another encoder"):
        context_from_bytes(raw, 2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_context_that_is_not_finite_is_an_invalid_event(value: float) -> None:
    """NaN and infinities would spoil the sums."""
    with pytest.raises(InvalidEvent, match="NaN or infinite"):
        context_from_bytes(context_to_bytes([0.0, value]), 2)


@pytest.mark.parametrize(
    "name",
    ["", "wordllama", "wordllama:", "wordllama:-64", "wordllama:x", "wordllama:²", "bert:128"],
)
def test_unknown_encoders_are_refused_with_those_known(name: str) -> None:
    """The message says what may stand there."""
    with pytest.raises(ConfigurationError, match=r"use wordllama:<32 to 256 dimensions> or"):
        load_encoder(name)


@pytest.mark.parametrize("dimensions", [0, 31, 257, 10**9])
def test_static_vectors_have_their_limits(dimensions: int) -> None:
    """Only as many dimensions as the package has, and not too few to tell texts apart."""
    with pytest.raises(ConfigurationError, match="choose 32 to 256 dimensions"):
        load_encoder(f"wordllama:{dimensions}")


def test_fewer_dimensions_are_the_leading_ones_scaled_up() -> None:
    """64 dimensions are the first 64 of 256, of unit norm again."""
    wide = load_encoder("wordllama:256").encode(["a text"])[0, :64]
    narrow = load_encoder("wordllama:64").encode(["a text"])[0]
    assert np.allclose(narrow, wide / np.linalg.norm(wide), atol=1e-6)


def test_sentence_transformers_need_their_extra_and_a_model() -> None:
    """Without the extra its name is told; with it, a model that does not exist is."""
    installed = importlib.util.find_spec("sentence_transformers") is not None
    expected = "sentence-transformers:no/such" if installed else r"metallm-stream\[sbert\]"
    with pytest.raises(ConfigurationError, match=expected):
        load_encoder("sentence-transformers:no/such/model")
