"""LLM vendors: the only code that speaks to them.

In goes a `Call`; out comes one `Result`, or a `Forward` to another provider.
"""

from metallm_stream.providers.answer import AnswerSettings, Forward, answer_call, idempotency_key
from metallm_stream.providers.base import Answer, Provider, ProviderFailure, ProviderSettings
from metallm_stream.providers.clock import Clock, SystemClock
from metallm_stream.providers.pricing import Listed, cost_usd, listed
from metallm_stream.providers.registry import WIRES, open_provider

__all__ = [
    "WIRES",
    "Answer",
    "AnswerSettings",
    "Clock",
    "Forward",
    "Listed",
    "Provider",
    "ProviderFailure",
    "ProviderSettings",
    "SystemClock",
    "answer_call",
    "cost_usd",
    "idempotency_key",
    "listed",
    "open_provider",
]
