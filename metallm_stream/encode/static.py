"""Contexts from static token vectors whose weights are inside an installed package.

Invariant: no download, no torch, no state: the weights are read once, when the first text comes,
and never written.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from model2vec import StaticModel
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from metallm_stream.encode.encoder import unit_rows
from metallm_stream.errors import ConfigurationError

SMALLEST, LARGEST = 32, 256
_WEIGHTS = "weights/l2_supercat_256.safetensors"
_TOKENIZER = "tokenizers/l2_supercat_tokenizer_config.json"


class StaticEncoder:
    """The mean of a text's token vectors, cut to the leading dimensions and scaled to unit norm.

    Fast (tens of thousands of short texts a second on one core) and blind to word order. The
    vectors come from the `wordllama` package, whose leading dimensions are trained to stand
    alone. A text counts up to its first 512 tokens.

    Parameters
    ----------
    dimensions
        How many leading dimensions to keep, 32 to 256.

    Examples
    --------
    >>> encoder = StaticEncoder(64)
    >>> contexts = encoder.encode(["Who wrote Faust?", ""])
    >>> contexts.shape, contexts.dtype
    ((2, 64), dtype('float32'))
    >>> np.linalg.norm(contexts, axis=1).round(3)
    array([1., 0.], dtype=float32)

    """

    def __init__(self, dimensions: int = 128) -> None:
        if not SMALLEST <= dimensions <= LARGEST:
            raise ConfigurationError(
                f"encoder wordllama:{dimensions}: choose {SMALLEST} to {LARGEST} dimensions"
            )
        self.name = f"wordllama-{dimensions}"
        self.dimensions = dimensions
        self._package = _package_directory()

    @cached_property
    def _model(self) -> StaticModel:
        # Half a second, which a learner does without: it needs the name and the dimensions only.
        vectors = load_file(self._package / _WEIGHTS)["embedding.weight"][:, : self.dimensions]
        return StaticModel(
            np.ascontiguousarray(vectors, dtype=np.float32),
            Tokenizer.from_file(str(self._package / _TOKENIZER)),
        )

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Contexts of texts, `(n, d)`; see `Encoder.encode`."""
        if not texts:
            return np.zeros((0, self.dimensions), dtype=np.float32)
        return unit_rows(self._model.encode(list(texts), use_multiprocessing=False))


def _package_directory() -> Path:
    spec = importlib.util.find_spec("wordllama")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError("encoder wordllama: install the package `wordllama`")
    return Path(spec.submodule_search_locations[0])
