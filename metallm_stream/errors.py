"""The three families of errors, by what a service loop does with them.

Invariant: only :class:`InvalidEvent` may be dead-lettered and only :class:`ProviderUnavailable`
may be answered with another arm; every other exception ends the process, and a restart replays.
"""

from __future__ import annotations


class MetallmError(Exception):
    """Base of every error that this package raises on purpose."""


class InvalidEvent(MetallmError):
    """A record that can never be accepted: dead-letter it with the reason and go on.

    Parameters
    ----------
    reason
        Names the field, the value and the way out; safe to show to whoever sent the record.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ProviderUnavailable(MetallmError):
    """One try at a provider failed; the failure is itself an observation of the arm.

    Parameters
    ----------
    kind
        One of :data:`metallm_stream.events.FailureKind`.
    message
        What the provider said, without secrets.
    retriable
        Whether the same arm may be tried again within the retry budget.
    retry_after_s
        What the provider asked us to wait, in seconds, if it did.
    """

    def __init__(
        self, kind: str, message: str, *, retriable: bool, retry_after_s: float | None = None
    ) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.message = message
        self.retriable = retriable
        self.retry_after_s = retry_after_s


class ConfigurationError(MetallmError):
    """Settings or surroundings (topics, tables, encoder) do not fit; the message has the remedy."""


class Unreachable(ConfigurationError):
    """A server does not answer now: its address may be wrong, or it may be back in a moment."""


class Fenced(MetallmError):
    """Another process has taken over this slot or partition: stop writing and restart."""


def counted(count: float, word: str) -> str:
    """A number and what it counts, as messages tell it.

    >>> counted(1, "arm"), counted(2_000, "query"), counted(0.7, "record")
    ('1 arm', '2,000 queries', '1 record')
    """
    shown = f"{count:,.0f}"
    many = f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"
    return f"{shown} {word if shown == '1' else many}"
