"""Contexts from a sentence-transformers model, as in the MetaLLM paper.

Invariant: the extra `sbert` is imported only when such an encoder is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from metallm_stream.encode.encoder import unit_rows
from metallm_stream.errors import ConfigurationError


class SentenceModel(Protocol):
    """The part of `sentence_transformers.SentenceTransformer` that is used."""

    def encode(
        self, sentences: list[str], *, show_progress_bar: bool, convert_to_numpy: bool
    ) -> NDArray[np.float32]:
        """Sentence vectors, `(n, d)`."""


class SentenceEncoder:
    """A transformer's sentence vectors: knows word order, about a hundred times slower than static.

    Parameters
    ----------
    name
        Identity of the encoder.
    model
        A loaded sentence-transformers model.

    """

    def __init__(self, name: str, model: SentenceModel) -> None:
        self.name = name
        self._model = model
        self.dimensions = int(self._vectors(["dimensions"]).shape[1])

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Contexts of texts, `(n, d)`; see `Encoder.encode`. Texts of white space give zeros."""
        contexts = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        filled = [row for row, text in enumerate(texts) if text.strip()]
        if filled:
            contexts[filled] = unit_rows(self._vectors([texts[row] for row in filled]))
        return contexts

    def _vectors(self, texts: list[str]) -> NDArray[np.float32]:
        return np.asarray(
            self._model.encode(texts, show_progress_bar=False, convert_to_numpy=True),
            dtype=np.float32,
        )


def load_sentence_encoder(model: str) -> SentenceEncoder:
    """The sentence-transformers model of a name or path; its last part is the encoder's identity.

    Raises `ConfigurationError` if the extra `sbert` is not installed, or there is no such model.
    """
    try:
        library = importlib.import_module("sentence_transformers")
    except ImportError as exc:
        raise ConfigurationError(
            f"encoder sentence-transformers:{model} needs the extra `sbert`: "
            "pip install 'metallm-stream[sbert]'"
        ) from exc
    try:
        loaded = library.SentenceTransformer(model)
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"encoder sentence-transformers:{model}: {exc}") from exc
    return SentenceEncoder(f"sentence-transformers-{Path(model).name}", loaded)
