"""River's contextual policies, with pulls and updates on arrays beside those on dicts.

Invariant: `update_many` leaves the policy as the same updates one by one would, up to round-off,
and pulling changes nothing but the state of the random generator and the count of pulls.
"""

from __future__ import annotations

import abc
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from river.bandit.base import ArmID, ContextualPolicy, RewardObj

from metallm_stream.policy.beliefs import Beliefs
from metallm_stream.policy.chooser import Chooser, sample
from metallm_stream.policy.features import Features

# What is learned is kept as sums of squares, and one that is no double ends all learning.
_LARGEST = np.float64(1e100)


@dataclass(frozen=True, eq=False)
class Pulls:
    """The choices for n queries among K arms.

    Attributes
    ----------
    columns
        Position of the chosen arm among the arms that were asked for, `(n,)`.
    probabilities
        `(n, K)`, from which the columns were drawn.

    """

    columns: NDArray[np.int64]
    probabilities: NDArray[np.float64]

    @property
    def propensities(self) -> NDArray[np.float64]:
        """Probability with which each chosen arm was drawn, `(n,)`."""
        chosen: NDArray[np.float64] = np.take_along_axis(
            self.probabilities, self.columns[:, None], axis=1
        )[:, 0]
        return chosen


class BatchPolicy(ContextualPolicy, abc.ABC):
    """A contextual policy on dicts (River) and on arrays, where column j is the feature named j.

    Features of dicts may appear at any time; before, and where they are missing, they count as 0.
    Arrays all have the width of the first one learned from. Arms are known by `str(arm_id)`.

    Parameters
    ----------
    reward_obj
        River's statistic of an arm's rewards; used for `ranking` only.
    burn_in
        Pulls of each arm, in turn, before `pull` asks the policy; `pull_many` knows none.
    seed
        Seed of the random generator.

    """

    learns_costs: ClassVar[bool] = False  # rewards are qualities; costs are weighed when choosing

    def __init__(
        self, reward_obj: RewardObj | None = None, burn_in: int = 0, seed: int | None = None
    ) -> None:
        super().__init__(reward_obj=reward_obj, burn_in=burn_in)
        self.seed = seed
        self._rng = np.random.default_rng(seed)
        self._features = Features()
        self.pulls: Counter[str] = Counter()  # decisions so far by arm, labelled or not

    @abc.abstractmethod
    def _rule(self) -> Chooser:
        """The rule of choice."""

    @abc.abstractmethod
    def _beliefs(self, contexts: NDArray[np.floating], arms: Sequence[str]) -> Beliefs:
        """What is expected of the arms for contexts `(n, d)`, penalties apart."""

    @abc.abstractmethod
    def _learn(
        self, arms: Sequence[str], contexts: NDArray[np.floating], rewards: NDArray[np.float64]
    ) -> None:
        """Take in labelled events that `_n` does not count yet."""

    @abc.abstractmethod
    def until_refresh(self) -> float:
        """Further labelled events after which expectations change; infinite if never."""

    def pull_many(
        self,
        contexts: ArrayLike,
        arm_ids: Sequence[ArmID],
        *,
        penalties: ArrayLike | None = None,
        variances: ArrayLike | None = None,
        allowed: NDArray[np.bool_] | None = None,
    ) -> Pulls:
        """Choose an arm for each of n queries.

        Parameters
        ----------
        contexts
            `(n, d)`.
        arm_ids
            The K arms that can be pulled, each named once.
        penalties
            What is subtracted from the expected rewards (weighted costs); broadcasts to `(n, K)`;
            default: nothing. Where given, rewards are taken to be at most 1.
        variances
            How uncertain the penalties are, likewise; default: not at all.
        allowed
            Which arms each query may use, `(n, K)`; default: all.

        Raises `ValueError` for contexts of another width than was learned from, an arm named
        twice, other shapes, and numbers of allowed arms that are not finite; then nothing is drawn.

        """
        given = _floats(contexts)
        if given.ndim != 2:
            raise ValueError(f"contexts must be of shape (n, d), got {given.shape}")
        _check_finite("contexts", given, "query")
        rows = self._features.rows_of_array(given)
        return self._choose(rows, arm_ids, penalties, variances, allowed)

    def update_many(
        self, arm_ids: Sequence[ArmID], contexts: ArrayLike, rewards: ArrayLike
    ) -> None:
        """Learn from n labelled events: arms `(n,)`, contexts `(n, d)`, rewards `(n,)`.

        Raises `ValueError` for other shapes, contexts of another width than before and numbers
        that are not finite or from 1e100 on, and learns nothing.
        """
        given = _floats(contexts if len(arm_ids) else np.zeros((0, 0)))
        gained = np.asarray(rewards, dtype=np.float64)
        _check(arm_ids, given, gained)
        if len(arm_ids):
            self._features.add_columns(given.shape[1])
            self._take_in(arm_ids, self._features.rows_of_array(given), gained)

    def update(
        self, arm_id: ArmID, context: Mapping[Any, float] | None, *reward_args: float
    ) -> None:
        """Learn from one labelled event, River's way.

        `update(arm_id, reward)` works as well: `river.bandit.evaluate` knows no contexts.
        """
        if not reward_args:
            return self.update(arm_id, None, context)  # type: ignore[arg-type]
        named = context or {}
        gained = np.asarray(reward_args[:1], dtype=np.float64)
        _check([arm_id], np.array([list(named.values())], dtype=np.float64), gained)
        self._features.add(named)
        return self._take_in([arm_id], self._features.row_of_dict(named), gained)

    def _pull(  # type: ignore[override]  # as River's own contextual policies do
        self, arm_ids: Iterable[ArmID], context: Mapping[Any, float] | None
    ) -> ArmID:
        arms = list(arm_ids)
        pulls = self._choose(self._features.row_of_dict(context or {}), arms, None, None, None)
        return arms[int(pulls.columns[0])]

    def _choose(
        self,
        contexts: NDArray[np.floating],
        arm_ids: Sequence[ArmID],
        penalties: ArrayLike | None,
        variances: ArrayLike | None,
        allowed: NDArray[np.bool_] | None,
    ) -> Pulls:
        arms = [str(arm_id) for arm_id in arm_ids]
        if not arms:
            raise ValueError("there is no arm to choose from: name at least one")
        beliefs = self._beliefs(contexts, arms)
        expected = beliefs.utility
        if allowed is not None and allowed.shape != expected.shape:
            raise ValueError(f"allowed must be (n, K), here {expected.shape}, got {allowed.shape}")
        if penalties is not None:
            taken = _each("penalties", penalties, expected.shape, allowed)
            beliefs = replace(beliefs, utility=expected - taken, headroom=1.0 - expected)
        if variances is not None:
            unsure = _each("variances", variances, expected.shape, allowed)
            if (unsure < 0).any():
                raise ValueError(f"variances must not be negative, got {unsure.min():g}")
            beliefs = beliefs.with_variance(unsure)
        probabilities = self._rule().probabilities(beliefs, allowed)
        columns = sample(probabilities, self._rng)
        counts = np.bincount(columns, minlength=len(arms)).tolist()
        self.pulls.update(dict(zip(arms, counts, strict=True)))
        return Pulls(columns, probabilities)

    def _take_in(
        self,
        arm_ids: Sequence[ArmID],
        contexts: NDArray[np.floating],
        rewards: NDArray[np.float64],
    ) -> None:
        self._learn([str(arm_id) for arm_id in arm_ids], contexts, rewards)
        # River's `update` of its own counts, without a call for each event.
        for arm_id, reward in zip(arm_ids, rewards.tolist(), strict=True):
            self._rewards[arm_id].update(reward)  # type: ignore[union-attr, call-arg]
        self._counts.update(arm_ids)
        self._n += len(arm_ids)


def _floats(contexts: ArrayLike) -> NDArray[np.floating]:
    """Contexts as an array: of float32 where they are, else of float64."""
    given = np.asarray(contexts)
    return given if given.dtype == np.float32 else given.astype(np.float64, copy=False)


def _check(
    arm_ids: Sequence[ArmID], contexts: NDArray[np.floating], rewards: NDArray[np.float64]
) -> None:
    """Raise `ValueError` unless events of contexts `(n, d)` and rewards `(n,)` can be learned."""
    n = len(arm_ids)
    if contexts.ndim != 2 or len(contexts) != n or rewards.shape != (n,):
        raise ValueError(
            f"contexts must be of shape (n, d) and rewards (n,), one a pulled arm, of which there "
            f"are {n}; got {contexts.shape} and {rewards.shape}"
        )
    _check_finite("contexts", contexts, "event", below=_LARGEST)
    _check_finite("rewards", rewards[:, None], "event", below=_LARGEST)


def _each(
    name: str, given: ArrayLike, shape: tuple[int, ...], allowed: NDArray[np.bool_] | None
) -> NDArray[np.float64]:
    """A parameter of each query and arm, `(n, K)`; 0 where the arm is not allowed.

    Raises `ValueError` for what does not broadcast to that, and is not finite where allowed.
    """
    values = np.asarray(given, dtype=np.float64)
    try:
        values = np.broadcast_to(values, shape)
    except ValueError as exc:
        raise ValueError(
            f"{name} must be (n, K), here {shape}, or broadcast to that, got {values.shape}"
        ) from exc
    if allowed is not None:
        values = np.where(allowed, values, 0.0)
    _check_finite(name, values, "query")
    return values


def _check_finite(
    name: str, values: NDArray[np.floating], what: str, below: np.float64 | None = None
) -> None:
    """Raise `ValueError` unless all values of the batch's queries or events are finite."""
    finite = np.isfinite(values) if below is None else np.abs(values) < below
    if not finite.all():
        row = int(np.argmin(finite.all(axis=1)))
        size = "" if below is None else f" and below {below:g}"
        raise ValueError(f"{name} must be finite{size}, that of {what} {row} of the batch is not")
