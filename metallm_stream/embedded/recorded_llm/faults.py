"""The ways in which a vendor fails, and when.

Invariant: whether a request fails is a function of the request and the seed alone, so a run with
faults can be repeated whatever the order of its requests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from metallm_stream.errors import ConfigurationError


class Fault(StrEnum):
    """One way to fail; `server_error` to `context_too_long` are errors in the vendor's shape."""

    SERVER_ERROR = "server_error"  # 500
    RATE_LIMITED = "rate_limited"  # 429 with Retry-After
    OUT_OF_QUOTA = "out_of_quota"  # 429 insufficient_quota: waiting does not help
    UNAUTHORIZED = "unauthorized"  # 401 that repeats the key it was given
    BAD_REQUEST = "bad_request"  # 400: a parameter that no model takes
    CONTEXT_TOO_LONG = "context_too_long"  # 400 context_length_exceeded
    ERROR_IN_200 = "error_in_200"  # an error object where the answer should be
    RATE_LIMITED_IN_200 = "rate_limited_in_200"  # the same, with an HTTP status as its code
    HANG = "hang"  # nothing, ever
    TRICKLE = "trickle"  # a space now and then, never an end
    RESET = "reset"  # the connection is reset
    CUT_OFF = "cut_off"  # fewer bytes than announced, then the end of the connection
    HTML = "html"  # a web page with status 200
    TRUNCATED = "truncated"  # half of the JSON, as if it were all
    OVERSIZED = "oversized"  # megabytes of white space before the answer
    COMPRESSED = "compressed"  # gzip that nobody asked for
    EMPTY_CHOICES = "empty_choices"  # an answer without a choice, charged
    CONTENT_FILTER = "content_filter"  # finish_reason content_filter, charged
    REFUSAL = "refusal"  # a refusal in place of the content, charged
    REDIRECT = "redirect"  # 307 to another host


CHARGED = frozenset({Fault.EMPTY_CHOICES, Fault.CONTENT_FILTER, Fault.REFUSAL})


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request as far as faults, latency and the ledger see it.

    `number` counts the requests with the same idempotency key, model and text, from 1.
    """

    model: str
    text: str
    text_sha256: str
    idempotency_key: str
    number: int

    @property
    def identity(self) -> str:
        """What seeded draws depend on: model, text and number, in one line."""
        return f"{self.model} {self.text_sha256} {self.number}"

    @property
    def digest(self) -> str:
        """What the answer's id is made of: 64 hex digits, the same for the same request."""
        return hashlib.sha256(f"{self.idempotency_key} {self.identity}".encode()).hexdigest()


Faults = Callable[[ChatRequest], Fault | None]


def no_faults(_request: ChatRequest) -> None:
    """Every request is answered."""


@dataclass(frozen=True)
class SeededFaults:
    """Each fault strikes with its own probability; together at most 1.

    >>> faults = SeededFaults({Fault.SERVER_ERROR: 1.0}, seed=7)
    >>> faults(ChatRequest("mini", "2 + 2?", "ab12", "", 1))
    <Fault.SERVER_ERROR: 'server_error'>
    """

    rates: Mapping[Fault, float]
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = any(not 0 <= rate <= 1 for rate in self.rates.values())
        if wrong or sum(self.rates.values()) > 1 + 1e-9:
            shown = ", ".join(f"{fault}={rate}" for fault, rate in self.rates.items())
            raise ConfigurationError(f"fault rates {shown}: each in [0, 1], together at most 1")

    def __call__(self, request: ChatRequest) -> Fault | None:
        """The fault that strikes this request, if any."""
        draw = Random(f"{self.seed} fault {request.identity}").random()  # noqa: S311 - no secret
        for fault, rate in self.rates.items():
            if draw < rate:
                return fault
            draw -= rate
        return None
