"""One contract for all encoders; the transformer stands behind a stand-in of the same interface."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pytest

from metallm_stream.encode import Encoder, SentenceEncoder, load_encoder

TEXTS = [
    "Who wrote Faust?",
    "def f(x): return x",
    "¿Qué hora es? 今何時ですか 🙂",
    "word " * 40_000,
    "\x07\ufffd",
    "Who wrote Faust?",
]


class HashedSentences:
    """Sentence vectors from hashes, in the form of a sentence-transformers model."""

    def encode(
        self, sentences: list[str], *, show_progress_bar: bool, convert_to_numpy: bool
    ) -> np.ndarray:
        """One vector of 32 numbers a sentence."""
        assert not show_progress_bar
        assert convert_to_numpy
        digests = [hashlib.sha256(sentence.encode()).digest() for sentence in sentences]
        return np.array([list(digest) for digest in digests], dtype=np.float32) - 128


ENCODERS: dict[str, Callable[[], Encoder]] = {
    "wordllama-32": lambda: load_encoder("wordllama:32"),
    "wordllama-128": load_encoder,
    "wordllama-256": lambda: load_encoder("wordllama:256"),
    "sentence-transformers-hashed": lambda: SentenceEncoder(
        "sentence-transformers-hashed", HashedSentences()
    ),
}


@pytest.fixture(scope="module", params=ENCODERS)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    """One of the encoders, named as it names itself."""
    made = ENCODERS[request.param]()
    assert made.name == request.param
    return made


def test_contexts_are_unit_float32_rows(encoder: Encoder) -> None:
    """One row a text, of the encoder's dimension, float32, finite, of unit norm."""
    contexts = encoder.encode(TEXTS)
    assert contexts.shape == (len(TEXTS), encoder.dimensions)
    assert contexts.dtype == np.float32
    assert np.isfinite(contexts).all()
    assert np.allclose(np.linalg.norm(contexts, axis=1), 1, atol=1e-5)


def test_empty_text_is_the_zero_context(encoder: Encoder) -> None:
    """A text in which nothing is known gives zeros, also between others; no texts, no rows."""
    contexts = encoder.encode(["a text", "", "another"])
    assert not contexts[1].any()
    assert contexts[[0, 2]].any(axis=1).all()
    assert encoder.encode([""]).shape == (1, encoder.dimensions)
    assert encoder.encode([]).shape == (0, encoder.dimensions)


def test_the_batch_does_not_matter(encoder: Encoder) -> None:
    """A text has the same context alone, in a batch and again."""
    contexts = encoder.encode(TEXTS)
    for row, text in enumerate(TEXTS):
        assert np.allclose(encoder.encode([text])[0], contexts[row], atol=1e-6)
    assert np.array_equal(contexts[0], contexts[-1])


def test_different_texts_differ(encoder: Encoder) -> None:
    """Contexts carry information: unlike texts are not parallel."""
    first, second = encoder.encode(["Solve the integral of x.", "A poem about autumn leaves"])
    assert first @ second < 0.95
