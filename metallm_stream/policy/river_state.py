"""What a River policy has learned, as bytes, and how lessons change it.

Invariant: the state is the fold of its lessons in their order, wherever it is cut. What is read is
the policy that the settings name, or an error.
"""

from __future__ import annotations

import gc
import hashlib
import pickle
import random
from collections.abc import Iterable, Sequence
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from river.bandit.base import ContextualPolicy

from metallm_stream.errors import ConfigurationError
from metallm_stream.policy import restricted_pickle
from metallm_stream.policy.river_policy import UNFIT, RiverPolicy, river_context

PART_BYTES = 660_000  # 880 kB in base64: brokers take records of 1 MB by default
MAX_PARTS = 32


class UnsafeState(ConfigurationError):
    """A state that holds what no policy should, or another policy."""


class Taught(NamedTuple):
    """One complete interaction as a River policy learns it: an arm's reward in a context `(d,)`."""

    arm: str
    context: NDArray[np.floating]
    reward: float


def to_bytes(policy: RiverPolicy, learned: ContextualPolicy) -> bytes:
    """The policy as bytes that were read back once.

    Raises `ConfigurationError` where it is too large, no pickle, or not one to be read.
    """
    try:
        raw = restricted_pickle.dumps(learned)
    except (pickle.PicklingError, *UNFIT) as exc:
        raise policy.unfit(exc) from exc
    if len(raw) > MAX_PARTS * PART_BYTES:
        raise ConfigurationError(
            f"the state of policy {policy.name} has {len(raw):,} bytes, at most "
            f"{MAX_PARTS * PART_BYTES:,} can be published: use an encoder of fewer dimensions "
            "(METALLM_ENCODER=wordllama:32), fewer arms, or another METALLM_ROUTER__POLICY"
        )
    from_bytes(policy, raw)
    return raw


def from_bytes(policy: RiverPolicy, raw: bytes) -> ContextualPolicy:
    """Read what `to_bytes` wrote.

    Raises `UnsafeState` for anything that is not allowed, and for what is another policy.
    """
    try:
        learned = restricted_pickle.loads(raw, policy.cls.__module__)
    except pickle.UnpicklingError as exc:
        raise UnsafeState(
            f"the state of policy {policy.name} cannot be read: {exc}; it was not written by this "
            "service, or the policy holds what states do not carry (docs/river.md)"
        ) from exc
    if not (isinstance(learned, policy.cls) and type(learned) is policy.cls):
        raise UnsafeState(
            f"the state of policy {policy.name} is a {type(learned).__name__} instead"
        )
    return learned


def learn(policy: RiverPolicy, state: bytes, lessons: Iterable[Taught]) -> bytes:
    """The state after further lessons, one by one in their order.

    Raises `ConfigurationError` if the policy fails at one.
    """
    learned = from_bytes(policy, state)
    teach(policy, learned, lessons)
    return to_bytes(policy, learned)


def teach(policy: RiverPolicy, learned: ContextualPolicy, lessons: Iterable[Taught]) -> None:
    """Let what was learned so far learn further lessons, one by one in their order.

    Raises `ConfigurationError` if the policy fails at one.
    """
    try:
        for arm, context, reward in lessons:
            learned.update(arm, river_context(context), reward)  # type: ignore[no-untyped-call]
    except UNFIT as exc:
        raise policy.unfit(exc) from exc


def nothing_learned(policy: RiverPolicy, dimensions: int) -> bytes:
    """The state before any lesson, once a trial on two arms has shown that the policy works.

    Raises `ConfigurationError` if it cannot be pulled, taught, written or read.
    """
    trial, context = policy.make(), np.full(dimensions, dimensions**-0.5)
    try:
        for arm in ("a", "b", "a"):
            if trial.pull(["a", "b"], river_context(context)) not in ("a", "b"):
                raise ValueError("it pulls arms that it was not given")
            trial.update(arm, river_context(context), 0.5)  # type: ignore[no-untyped-call]
        to_bytes(policy, trial)
    except (*UNFIT, UnsafeState) as exc:
        raise policy.unfit(exc) from exc
    return to_bytes(policy, policy.make())


def reseed(learned: ContextualPolicy, rng: np.random.Generator) -> None:
    """Seed the random numbers of a policy anew, in whichever of its parts they are drawn.

    Of generators a state holds `random.Random` alone: NumPy's are not read.
    """
    left: list[Any] = [learned]
    seen: set[int] = set()
    while left:
        item = left.pop()
        if id(item) in seen or isinstance(item, type | FunctionType | ModuleType):
            continue
        seen.add(id(item))
        if isinstance(item, random.Random):
            item.seed(int(rng.integers(2**63)))
        left += gc.get_referents(item)


def split(state: bytes) -> list[bytes]:
    """A state in parts that fit into records."""
    return [state[at : at + PART_BYTES] for at in range(0, len(state), PART_BYTES)]


def digest(state: bytes) -> str:
    """SHA-256 of a state, in hexadecimal."""
    return hashlib.sha256(state).hexdigest()


def difference(one: object, other: object) -> float:
    """The largest relative difference of any number in two policies; infinite if more differs.

    `max|a − b| / max(1, max|b|)` for an array; numbers are compared like arrays.
    """
    pairs, largest = [(one, other)], 0.0
    seen: dict[tuple[int, int], tuple[object, object]] = {}  # kept alive: ids are used again
    while pairs:
        a, b = pairs.pop()
        if (id(a), id(b)) in seen:
            continue
        seen[id(a), id(b)] = a, b
        if type(a) is not type(b):
            return np.inf
        if isinstance(a, np.ndarray | int | float | complex | np.generic):
            largest = max(largest, _distance(np.asarray(a), np.asarray(b)))
        elif a is None or isinstance(a, str | bytes | type):
            largest = max(largest, 0.0 if a == b else np.inf)
        else:
            left, right = _pieces(a), _pieces(b)
            if len(left) != len(right):
                return np.inf
            pairs += zip(left, right, strict=True)
    return largest


def _pieces(item: object) -> Sequence[object]:
    if isinstance(item, list | tuple):
        return item
    if isinstance(item, dict) and type(item) is dict:
        return [*item, *item.values()]
    if isinstance(item, set | frozenset):
        return sorted(item, key=repr)
    reduced = item.__reduce_ex__(2)
    if isinstance(reduced, str):
        return [reduced]
    make, *state = reduced
    filled = [list(part) if hasattr(part, "__next__") else part for part in state]
    return [getattr(make, "__name__", ""), *filled]


def _distance(a: NDArray[Any], b: NDArray[Any]) -> float:
    if a.shape != b.shape or a.dtype != b.dtype:
        return np.inf
    if not a.size or np.array_equal(a, b, equal_nan=True):
        return 0.0
    apart = np.max(np.abs(a - b)) / max(1.0, float(np.max(np.abs(b))))
    return float(apart) if np.isfinite(apart) else np.inf
