"""Text to context: the only thing that the learned policies know of a query."""

from metallm_stream.encode.encoder import Encoder
from metallm_stream.encode.load import DEFAULT_ENCODER, load_encoder
from metallm_stream.encode.sentence_transformers import SentenceEncoder
from metallm_stream.encode.static import StaticEncoder
from metallm_stream.encode.wire import context_from_bytes, context_to_bytes, contexts_from_bytes

__all__ = [
    "DEFAULT_ENCODER",
    "Encoder",
    "SentenceEncoder",
    "StaticEncoder",
    "context_from_bytes",
    "context_to_bytes",
    "contexts_from_bytes",
    "load_encoder",
]
