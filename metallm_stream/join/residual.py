"""How far a prediction was off: judged quality less what was predicted when the query was decided.

Invariant: an interaction has at most one residual in its life, that of a user's first judgement;
corrections and withdrawals change the sums and not what was watched. Verdicts of a judge model are
not watched: where the judge differs from users, that is no drift of the arm.
"""

from __future__ import annotations

from collections.abc import Iterable

from metallm_stream.join.change import users_lesson
from metallm_stream.join.interaction import Interaction
from metallm_stream.policy.drift import Residual


def residuals(
    pairs: Iterable[tuple[Interaction | None, Interaction | None]], encoder: str
) -> dict[str, list[Residual]]:
    """The residuals of what is judged for the first time, by arm, in the order of the decisions.

    None for a decision that predicted nothing of the arm that answered. Predictions are linear,
    and are taken as no less than 0 and no more than 1.
    """
    found: dict[str, list[Residual]] = {}
    for before, after in pairs:
        taught = None if after is None else users_lesson(after, encoder)
        if taught is None or after is None or after.decision is None:
            continue
        if before is not None and before.decision and before.result and before.feedback:
            continue  # judged already, be it that this was withdrawn since, or not judgeable
        decision = after.decision
        predicted = [item.quality for item in decision.candidates if item.arm == taught.arm]
        if predicted and predicted[0] is not None:
            value = taught.quality - min(1.0, max(0.0, predicted[0]))
            found.setdefault(taught.arm, []).append(
                Residual(taught.arm, decision.decided_at, value)
            )
    return {arm: sorted(own, key=lambda item: item.decided_at) for arm, own in found.items()}
