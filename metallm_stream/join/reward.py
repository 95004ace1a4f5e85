"""What a complete interaction is worth to a policy that learns utilities: one number.

Invariant: a function of the interaction and the trade-off alone, so that folding the log again
gives the same rewards. Users' judgements alone count: what such a policy was taught cannot be
replaced at once, as a verdict is by a user's word.
"""

from __future__ import annotations

from dataclasses import dataclass

from metallm_stream.events import Decision, Result
from metallm_stream.join.change import users_lesson
from metallm_stream.join.interaction import Interaction

LEAST, MOST = -1.0, 1.0


@dataclass(frozen=True, slots=True)
class Reward:
    """The reward of `arm` in a context of raw float32 bytes."""

    arm: str
    context: bytes
    reward: float


@dataclass(frozen=True, slots=True)
class Rewards:
    """Utility by the default trade-off, whatever a query itself gave for money and time.

    `quality − cost_weight · cost / scale − latency_weight · latency / latency_scale`, cut to
    −1 to 1. Cost and latency are those of the answering arm's tries; what is not known costs
    nothing. The scale is the decision's, which is 1 USD before any cost was known. Of an arm whose
    cost the decision did not know, it is the cost itself where that is more: the scale may be far
    below it, and a policy cannot unlearn. So such a call costs `cost_weight` at most.
    """

    cost_weight: float
    latency_weight: float
    latency_scale_s: float

    def of(self, interaction: Interaction | None, encoder: str) -> Reward | None:
        """The reward of an interaction that has decision, answer and judgement; else None."""
        taught = None if interaction is None else users_lesson(interaction, encoder)
        if interaction is None or taught is None:
            return None
        decision, result = interaction.decision, interaction.result
        if decision is None or result is None:
            return None
        utility = taught.quality - self._price(decision, result)
        return Reward(taught.arm, taught.context, min(MOST, max(LEAST, utility)))

    def _price(self, decision: Decision, result: Result) -> float:
        own = [attempt for attempt in result.attempts if attempt.arm == result.arm]
        cost_usd = sum(attempt.cost_usd or 0.0 for attempt in own)
        latency_s = sum(attempt.latency_s for attempt in own)
        scale_usd = decision.cost_scale_usd
        if all(one.arm != result.arm or one.cost_usd is None for one in decision.candidates):
            scale_usd = max(scale_usd, cost_usd)
        price = self.cost_weight * cost_usd / scale_usd
        return price + self.latency_weight * latency_s / self.latency_scale_s
