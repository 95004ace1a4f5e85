"""Why something did not come about.

Invariant: the kinds are a closed list, so that whoever counts them knows them all.
"""

from __future__ import annotations

from typing import Literal

from metallm_stream.events.base import Event
from metallm_stream.events.bounds import Note

FailureKind = Literal[
    "no_arm",  # no arm is left for this query: the message says what excluded each
    "deadline",  # the query's own deadline passed
    "timeout",  # the provider did not answer in time
    "connection",  # the provider could not be reached or broke off
    "rate_limited",  # the provider asked to slow down
    "server_error",  # the provider failed
    "authentication",  # the provider refused our credentials
    "bad_request",  # the provider refused the request itself
    "unsupported",  # the provider lacks the model, or the model something that was asked of it
    "context_too_long",  # the prompt does not fit the arm's context window
    "refused",  # the model or a content filter declined to answer
    "malformed_answer",  # the provider's answer could not be read
    "circuit_open",  # too many of the arm's recent tries failed: it was not asked
    "spend_cap",  # the worker has spent what it may: the arm was not asked
    "superseded",  # another arm answered first; this try was broken off
    "worker_error",  # our own worker could not cope; its log has the traceback
]


class Failure(Event):
    """Why there is no prediction."""

    kind: FailureKind
    message: Note
