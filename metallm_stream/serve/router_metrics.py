"""What a router counts beside its loop: decisions, exploration, refusals, the policy in force."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from metallm_stream.arms import Catalogue
from metallm_stream.policy import Published
from metallm_stream.route import Decided
from metallm_stream.serve.metrics import LoopMetrics


class RouterMetrics(LoopMetrics):
    """The metrics of one router, of which replica `slot` is."""

    def __init__(self, slot: str) -> None:
        super().__init__("router", slot)
        self._decisions = self.counter("decisions", "Queries given to an arm.", "arm")
        self._refusals = self.counter("refusals", "Queries that no arm was left for.")
        self._exploration = self.counter(
            "exploration", "Probability given to other arms than the likeliest, over all decisions."
        )
        self._arms = self.gauge("arms", "Arms of the catalogue, by provider.", "provider")
        self._version = self.gauge("policy_version", "Version of the policy in force; 0: none yet.")
        self._published_at = self.gauge(
            "policy_timestamp_seconds", "When the policy in force was published; 0: none yet."
        )
        self._labels = self.gauge(
            "arm_labels", "Labelled answers of an arm that the policy in force knows of.", "arm"
        )
        self._due = self.gauge(
            "arm_labels_due", "Labels that as many calls as the arm's have brought usually.", "arm"
        )
        self._known: Published | None = None
        self._revision = 0
        self._providers: set[str] = set()
        self._judged_arms: set[str] = set()

    def decided(self, decided: Sequence[Decided]) -> None:
        """Count a batch."""
        arms = Counter([choice.ranking[0].arm if choice.ranking else None for choice in decided])
        refused = arms.pop(None, 0)
        for arm, count in arms.items():
            self._decisions.labels(arm).inc(count)
        if refused:
            self._refusals.inc(refused)
        self._exploration.inc(sum([choice.exploration for choice in decided]))

    def knows(self, catalogue: Catalogue, published: Published | None) -> None:
        """Note the arms, and the policy in force."""
        if catalogue.revision != self._revision:
            self._revision = catalogue.revision
            self._note(catalogue)
        if published is not None and published is not self._known:
            self._known = published
            self._version.set(published.version)
            self._published_at.set(published.manifest.published_at.timestamp())
            self._judged(catalogue, published)

    def _judged(self, catalogue: Catalogue, published: Published) -> None:
        """Arms that have left the catalogue have no sample."""
        arms = list(catalogue)
        due = published.label_share * published.calls(catalogue.arms)
        for gauge, counts in ((self._labels, published.observed(arms)), (self._due, due)):
            for arm, count in zip(arms, counts.tolist(), strict=True):
                gauge.labels(arm).set(count)
            for arm in self._judged_arms.difference(arms):
                gauge.remove(arm)
        self._judged_arms = set(arms)

    def _note(self, catalogue: Catalogue) -> None:
        """Providers whose last arm has gone stand at 0; new arms' decisions begin there."""
        providers = Counter([model.provider for model in catalogue.arms.values()])
        self._providers |= providers.keys()
        for provider in self._providers:
            self._arms.labels(provider).set(providers[provider])
        for arm in catalogue:
            self._decisions.labels(arm)
