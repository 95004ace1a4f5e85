"""LLM vendors: the only code that speaks to them.

In goes a `Call`; out comes one `Result`, or a `Forward` to another provider.
"""

from metallm_stream.providers.answer import Forward, answer_call
from metallm_stream.providers.attempts import finish
from metallm_stream.providers.base import Answer, Provider, ProviderFailure, ProviderSettings
from metallm_stream.providers.circuit import Circuits
from metallm_stream.providers.clock import Clock, SystemClock
from metallm_stream.providers.guard import Guard
from metallm_stream.providers.pricing import Listed, cost_usd, listed
from metallm_stream.providers.registry import WIRES, open_provider, opener
from metallm_stream.providers.shares import Shares
from metallm_stream.providers.spending import Spending
from metallm_stream.providers.tries import AnswerSettings, idempotency_key

__all__ = [
    "WIRES",
    "Answer",
    "AnswerSettings",
    "Circuits",
    "Clock",
    "Forward",
    "Guard",
    "Listed",
    "Provider",
    "ProviderFailure",
    "ProviderSettings",
    "Shares",
    "Spending",
    "SystemClock",
    "answer_call",
    "cost_usd",
    "finish",
    "idempotency_key",
    "listed",
    "open_provider",
    "opener",
]
