"""What other policies would have brought, from the log of one that ran.

Invariant: memory does not grow with the log: pieces come in order, and sums are kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from metallm_stream.evaluate.anytime import AnytimeDoublyRobust
from metallm_stream.evaluate.bandit_log import BanditLog
from metallm_stream.evaluate.contrast import too_narrow
from metallm_stream.evaluate.decisions import Decisions
from metallm_stream.evaluate.doubly_robust import DoublyRobust
from metallm_stream.evaluate.estimate import Estimate, Estimator
from metallm_stream.evaluate.ips import Ips
from metallm_stream.evaluate.left_out import LeftOut
from metallm_stream.evaluate.metrics import METRICS
from metallm_stream.evaluate.overlap import Overlap
from metallm_stream.evaluate.snips import Snips
from metallm_stream.evaluate.targets import ALWAYS, all_targets, probabilities
from metallm_stream.evaluate.weighted_doubly_robust import WeightedDoublyRobust

ALL = "all"


@dataclass(frozen=True, slots=True)
class PolicyValue:
    """One target's value by every estimator, and how far the log speaks of it.

    Attributes
    ----------
    target
        `logged`, `greedy`, `uniform` or `always:ARM`.
    estimates
        One an estimator.
    decisions
        How many count.
    effective_decisions
        How many of equal weight would be as good.
    largest_weight
        Of a single decision.
    unsupported
        Share of the target's choices that had probability 0 in the log.
    notes
        What speaks against trusting the intervals.

    """

    target: str
    estimates: tuple[Estimate, ...]
    decisions: int
    effective_decisions: float
    largest_weight: float
    unsupported: float
    notes: tuple[str, ...]


class PolicyEvaluation:
    """All estimators of one target, fed by a bandit log in pieces.

    Parameters
    ----------
    target
        The name to report.
    bounds
        Of the rewards; without them there is no anytime-valid interval.

    """

    def __init__(self, target: str, bounds: tuple[float, float] | None) -> None:
        self._target = target
        self._bounds = bounds
        self._overlap = Overlap()
        self._estimators: list[Estimator] = [
            Ips(), Snips(), DoublyRobust(), WeightedDoublyRobust()
        ]  # fmt: skip
        if bounds is not None:
            self._estimators.append(AnytimeDoublyRobust(*bounds))

    def add(self, log: BanditLog) -> None:
        """Take in the next decisions."""
        self._overlap.add(log)
        for estimator in self._estimators:
            estimator.add(log)

    def value(self) -> PolicyValue:
        """What all decisions so far say."""
        estimates = tuple(estimator.estimate() for estimator in self._estimators)
        anytime = any(
            one.estimator == AnytimeDoublyRobust.name and one.note is None for one in estimates
        )
        (mean,) = (one for one in estimates if one.estimator == Snips.name)
        effective = self._overlap.effective_decisions
        return PolicyValue(
            target=self._target,
            estimates=estimates,
            decisions=self._overlap.decisions,
            effective_decisions=effective,
            largest_weight=self._overlap.largest_weight,
            unsupported=self._overlap.unsupported,
            notes=self._overlap.notes(anytime=anytime)
            or too_narrow(mean, effective, self._bounds, anytime=anytime),
        )


class LogEvaluation:
    """One or all targets by one metric, fed by logged decisions in pieces.

    Parameters
    ----------
    metric
        A name of `METRICS`.
    policy
        A target's name, or `all`: `logged`, `greedy`, `uniform` and always each arm that the log
        knows.

    """

    def __init__(self, metric: str, policy: str = ALL) -> None:
        self._metric = METRICS[metric]
        self._policy = policy
        self._arms: set[str] = set()
        self._left_out = LeftOut()
        self._evaluations: dict[str, PolicyEvaluation] = {}
        if policy != ALL:
            self._of(policy)

    @property
    def arms(self) -> tuple[str, ...]:
        """Every arm that was allowed for a decision so far, in order of names."""
        return tuple(sorted(self._arms))

    def add(self, decisions: Decisions) -> None:
        """Take in the next decisions."""
        self._arms.update(decisions.arms)
        measured = self._metric.measure(decisions)
        self._left_out.add(measured)
        for target in all_targets(decisions.arms) if self._policy == ALL else [self._policy]:
            self._of(target).add(measured.log(probabilities(target, decisions)))

    def values(self) -> list[PolicyValue]:
        """What all decisions so far say, a value a target."""
        notes = self._left_out.notes()
        targets = sorted(self._evaluations, key=lambda name: (name.startswith(ALWAYS), name))
        values = [self._evaluations[target].value() for target in targets]
        return [replace(value, notes=(*notes, *value.notes)) for value in values]

    def _of(self, target: str) -> PolicyEvaluation:
        if target not in self._evaluations:
            self._evaluations[target] = PolicyEvaluation(target, self._metric.bounds)
        return self._evaluations[target]
