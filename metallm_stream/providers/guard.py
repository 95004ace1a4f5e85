"""What stands before every try of one worker: the circuits of its arms.

Invariant: every try that was let in is told when it ends, however it ends.
"""

from __future__ import annotations

from metallm_stream.events import Failure, Model
from metallm_stream.providers.base import Answer, ProviderFailure
from metallm_stream.providers.circuit import Circuits


class Guard:
    """Shared by all calls of a worker.

    Parameters
    ----------
    circuits
        The circuits of the provider's arms.
    """

    def __init__(self, circuits: Circuits) -> None:
        self._circuits = circuits

    def enter(self, model: Model, *, at_any_rate: bool) -> Failure | None:
        """None if the arm may be asked now; else why not. An open circuit can be overridden."""
        reason = self._circuits.enter(model)
        if reason is None or at_any_rate:
            return None
        return Failure(kind="circuit_open", message=reason)

    def leave(self, model: Model, ended: Answer | ProviderFailure, latency_s: float) -> None:
        """Note how a try ended."""
        self._circuits.leave(model, ended, latency_s)
