"""The rule of choice that pulls a policy of River's.

Invariant: the propensity of a choice is exact given what the policy drew: each of the K allowed
arms has ε/K, and the drawn one 1 − ε besides. What it draws by are random numbers of this rule, not
those that come with a state: the learner never pulls, so that in a state they stand still.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from metallm_stream.errors import ConfigurationError, InvalidEvent
from metallm_stream.events import RiverPart, RiverState
from metallm_stream.policy.beliefs import Beliefs
from metallm_stream.policy.chooser import check_share, floored
from metallm_stream.policy.river_policy import UNFIT, RiverPolicy, river_context
from metallm_stream.policy.river_state import Taught, digest, from_bytes, reseed, teach


class RiverRule:
    """Pulls a River policy for each query, and spreads a share evenly over the allowed arms.

    Parameters
    ----------
    policy
        As the settings name it; until `adopt` is called, it has learned nothing.
    floor
        Share ε of the probability that is spread evenly, above 0 and at most 1.
    rng
        Seeds the policy's own random numbers, anew with each state that is adopted.

    """

    def __init__(self, policy: RiverPolicy, floor: float, rng: np.random.Generator) -> None:
        check_share("floor", floor)
        self.policy = policy
        self._floor = floor
        self._rng = rng
        self._learned = policy.make()
        reseed(self._learned, rng)
        self._sha256 = ""

    @property
    def name(self) -> str:
        """The name that decisions are logged with."""
        return self.policy.name

    def adopt(self, state: RiverState, parts: Mapping[int, RiverPart]) -> None:
        """Pull the policy of this state from now on, unless it is the one in force already.

        Raises `InvalidEvent` if a part is missing or not the one that was published, and
        `ConfigurationError` if the state is of another policy, or not safe to read.
        """
        if state.sha256 == self._sha256:
            return
        self.policy.require(
            state.policy,
            state.parameters,
            state.river_version,
            whose="the published state",
            remedy="start router and learner with the same settings and release",
        )
        wanted = [parts.get(number) for number in range(state.parts)]
        raw = b"".join(part.state for part in wanted if part and part.version == state.version)
        if digest(raw) != state.sha256:
            raise InvalidEvent(f"the state of policy {state.policy} lacks parts of its version")
        self._learned = from_bytes(self.policy, raw)
        reseed(self._learned, self._rng)
        self._sha256 = state.sha256

    def teach(self, lessons: Iterable[Taught]) -> None:
        """Learn here, where no learner publishes a state to adopt.

        Raises `ConfigurationError` if the policy fails at a lesson.
        """
        teach(self.policy, self._learned, lessons)

    def probabilities(
        self, beliefs: Beliefs, allowed: NDArray[np.bool_] | None
    ) -> NDArray[np.float64]:
        """Probabilities given the policy's draws, `(n, K)`; see `Chooser.probabilities`.

        Each row is `(1 − ε)·1[arm = drawn] + ε/K`. The policy is asked once a row, and for allowed
        arms alone. Raises `ConfigurationError` if it fails or draws another arm.
        """
        allowed = beliefs.mask(allowed)
        if beliefs.contexts is None:
            raise ValueError("a River policy chooses by contexts: give them in the beliefs")
        drawn = np.zeros(allowed.shape)
        for row, context in enumerate(beliefs.contexts):
            columns = np.flatnonzero(allowed[row]).tolist()
            arms: list[int | str] = [beliefs.arms[column] for column in columns]
            try:
                arm = self._learned.pull(arms, river_context(context))
            except UNFIT as exc:
                raise self.policy.unfit(exc) from exc
            if arm not in arms:
                raise ConfigurationError(
                    f"policy {self.name} drew {arm!r} where {arms} were allowed: "
                    "name another in METALLM_ROUTER__POLICY"
                )
            drawn[row, columns[arms.index(arm)]] = 1.0
        return floored(drawn, allowed, self._floor)
