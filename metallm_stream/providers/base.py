"""What every provider is to the rest of the house: a name, one coroutine, and typed failures.

Invariant: a provider either returns an `Answer` or raises `ProviderFailure`; nothing that a
vendor sends or fails to send ends a process, and no secret leaves through a text of the vendor's
or a repr.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Protocol
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from metallm_stream.errors import ProviderUnavailable
from metallm_stream.events import FailureKind, Generation, Model
from metallm_stream.providers.rate_headers import RateLimits

_SHORTEST_KEY = 16  # what is shorter ("EMPTY") may be a word of an honest answer


@dataclass(frozen=True, slots=True)
class Answer:
    """What a provider returned for one try; `None` where it did not say.

    `cached_input_tokens` (read from a cache) and `cache_write_tokens` are parts of `input_tokens`,
    `reasoning_tokens` are part of `output_tokens`. `cost_usd` is the vendor's own figure for this
    try, never a computed one. `finish_reason` is `stop`, `length` (a limit cut the text off),
    `tool_calls`, or the vendor's own word. `off_list` says why the usual price list does not hold
    for this try (a batch, another service tier, images). `limits` are the vendor's rate limits
    after it.
    """

    text: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    cost_usd: float | None = None
    request_id: str | None = None
    finish_reason: str | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    off_list: str | None = None
    limits: RateLimits | None = None

    def without(self, secrets: Iterable[str], keys: Iterable[str]) -> Answer:
        """The same answer: its text without the keys, all else without any secret.

        Other secrets, such as a header with the application's name, may belong to an answer.
        """
        return replace(
            self,
            text=_without([key for key in keys if len(key) >= _SHORTEST_KEY], self.text),
            request_id=self.request_id and _without(secrets, self.request_id),
            finish_reason=self.finish_reason and _without(secrets, self.finish_reason),
        )


class ProviderFailure(ProviderUnavailable):
    """One try that brought no usable answer.

    Parameters
    ----------
    kind
        What went wrong; decides nothing by itself.
    message
        What the vendor said, in one line.
    retriable
        Whether the same arm may be tried again.
    retry_after_s
        The wait the vendor asked for, in seconds.
    request_id
        The vendor's identity of the try, for its support.
    billed
        The tokens and cost of a try that was charged although it brought nothing usable.
    limits
        The vendor's rate limits after it.
    """

    kind: FailureKind

    def __init__(
        self,
        kind: FailureKind,
        message: str,
        *,
        retriable: bool,
        retry_after_s: float | None = None,
        request_id: str | None = None,
        billed: Answer | None = None,
        limits: RateLimits | None = None,
    ) -> None:
        super().__init__(kind, message, retriable=retriable, retry_after_s=retry_after_s)
        self.request_id = request_id
        self.billed = billed
        self.limits = limits

    def without(self, secrets: Iterable[str]) -> ProviderFailure:
        """The same failure with every secret blacked out, in what was charged as well."""
        secrets = tuple(secrets)
        return ProviderFailure(
            self.kind,
            _without(secrets, self.message),
            retriable=self.retriable,
            retry_after_s=self.retry_after_s,
            request_id=self.request_id and _without(secrets, self.request_id),
            billed=self.billed and self.billed.without(secrets, secrets),
            limits=self.limits,
        )


def _without(secrets: Iterable[str], text: str) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def _plain_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be an http or https address such as https://host/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must carry no user, query or fragment; use api_key and headers")
    return value


def _header_safe(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not text or not text.isascii() or not text.isprintable() or text != text.strip():
        raise ValueError("must be non-empty printable ASCII without spaces around it")
    return value


HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
HeaderValue = Annotated[SecretStr, AfterValidator(_header_safe)]


class ProviderSettings(BaseModel):
    """How to reach one provider; a new host of a known wire is settings only.

    Parameters
    ----------
    name
        The name that arms and the topic `calls.<name>` refer to.
    wire
        The protocol it speaks: a key of `metallm_stream.providers.registry.WIRES`.
    base_url
        Where it listens; `None` is the vendor's own address.
    region
        The cloud region, for wires that have regions; `None` is the one of their usual variables.
    api_key
        The credential; `None` for hosts that need none, and where a wire has other sources.
    headers
        Further headers of every request; values are treated as secrets.
    max_connections
        Connections open at a time; at least the number of calls a worker keeps in flight.
    max_answer_bytes
        A longer HTTP body is cut off and counts as a malformed answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    wire: str = "openai"
    base_url: Annotated[str, AfterValidator(_plain_url)] | None = None
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")] | None = None
    api_key: HeaderValue | None = None
    headers: Mapping[HeaderName, HeaderValue] = Field(default_factory=dict)
    max_connections: Annotated[int, Field(ge=1, le=100_000)] = 512
    max_answer_bytes: Annotated[int, Field(ge=1_024)] = 4_000_000

    def plain_headers(self) -> dict[str, str]:
        """The further headers as they are sent."""
        return {name: value.get_secret_value() for name, value in self.headers.items()}

    def keys(self) -> tuple[str, ...]:
        """The credential, if there is one."""
        return () if self.api_key is None else (self.api_key.get_secret_value(),)

    def secrets(self) -> tuple[str, ...]:
        """Every value that must not appear in a message, longest first."""
        # Short header values ("1", "true") are no secrets, and blacking them out garbles messages.
        found = {value for value in self.plain_headers().values() if len(value) >= 8}
        return tuple(sorted(found.union(self.keys()), key=len, reverse=True))


class Provider(Protocol):
    """One vendor, or one host that speaks a vendor's wire."""

    @property
    def name(self) -> str:
        """The provider's name, as in `Model.provider`."""

    async def complete(
        self,
        model: Model,
        messages: Sequence[Mapping[str, str]],
        generation: Generation | None,
        *,
        timeout_s: float,
        idempotency_key: str,
    ) -> Answer:
        """One try, over in `timeout_s` seconds whatever the vendor does.

        Raises `ProviderFailure`; never retries by itself.
        """

    async def close(self) -> None:
        """Close all connections; the provider is not used again."""
