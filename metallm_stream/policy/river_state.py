"""What a River policy has learned, as bytes: a pickle that is read without trusting it.

Invariant: reading makes nothing but instances of River's classes, of the policy's own module, and
of a few harmless types of Python; NumPy arrays are rebuilt from numbers alone. What is read is the
policy that the settings name, or an error.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import pickle
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from river.bandit.base import ContextualPolicy
from river.base import Base

from metallm_stream.errors import ConfigurationError
from metallm_stream.policy.river_policy import UNFIT, RiverPolicy, river_context

PROTOCOL = 4  # without out-of-band buffers, and with opcodes for what protocol 2 needs functions
PART_BYTES = 660_000  # 880 kB in base64: brokers take records of 1 MB by default
MAX_PARTS = 32
# Parts of River that learn; not those that read files, listen to streams or wrap other libraries.
_RIVER = frozenset((
    "_river_rust", "active", "anomaly", "bandit", "base", "cluster", "compose", "covariance",
    "drift", "dummy", "ensemble", "facto", "feature_extraction", "feature_selection", "forest",
    "imblearn", "linear_model", "metrics", "misc", "model_selection", "multiclass", "multioutput",
    "naive_bayes", "neighbors", "optim", "preprocessing", "proba", "rules", "stats",
    "time_series", "tree", "utils",
))  # fmt: skip
_PLAIN = {
    "builtins": ["bool", "complex", "dict", "float", "frozenset", "int", "list", "object", "set"],
    "collections": ["Counter", "OrderedDict", "defaultdict", "deque"],
    "datetime": ["date", "datetime", "timedelta"],
    "functools": ["partial"],
    "random": ["Random"],
}
_NUMBERS = "biufc"  # kinds of NumPy types that hold numbers and no references


class Taught(NamedTuple):
    """One complete interaction as a River policy learns it: an arm's reward in a context `(d,)`."""

    arm: str
    context: NDArray[np.floating]
    reward: float


class UnsafeState(ConfigurationError):
    """A state that holds what no policy should; it was not written by this service."""


def to_bytes(policy: RiverPolicy, learned: ContextualPolicy) -> bytes:
    """The policy as bytes that were read back once.

    Raises `ConfigurationError` where it is too large, no pickle, or not one to be read.
    """
    stream = io.BytesIO()
    try:
        _Pickler(stream, PROTOCOL).dump(learned)
    except (pickle.PicklingError, *UNFIT) as exc:
        raise policy.unfit(exc) from exc
    raw = stream.getvalue()
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
        learned = _Unpickler(io.BytesIO(raw), policy.cls.__module__).load()
    except (pickle.UnpicklingError, EOFError, ImportError, *UNFIT) as exc:
        raise UnsafeState(f"the state of policy {policy.name} cannot be read: {exc}") from exc
    if type(learned) is not policy.cls:
        raise UnsafeState(
            f"the state of policy {policy.name} is a {type(learned).__name__} instead"
        )
    return learned


def learn(policy: RiverPolicy, state: bytes, lessons: Iterable[Taught]) -> bytes:
    """The state after further lessons, one by one in their order."""
    learned = from_bytes(policy, state)
    for arm, context, reward in lessons:
        learned.update(arm, river_context(context), reward)  # type: ignore[no-untyped-call]
    return to_bytes(policy, learned)


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
    pairs, largest, seen = [(one, other)], 0.0, set()
    while pairs:
        a, b = pairs.pop()
        if (id(a), id(b)) in seen:
            continue
        seen.add((id(a), id(b)))
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


# What stands in the pickle for the two things that would need an unsafe function to be rebuilt.


def array(kind: str, shape: tuple[int, ...], order: str, raw: bytes) -> NDArray[Any]:
    """A NumPy array of numbers."""
    if np.dtype(kind).kind not in _NUMBERS or order not in ("C", "F"):
        raise pickle.UnpicklingError(f"an array of {kind!r} in order {order!r}")
    flat = np.frombuffer(raw, dtype=np.dtype(kind))
    return flat.reshape(shape, order="F" if order == "F" else "C").copy(order="K")


def scalar(kind: str, raw: bytes) -> object:
    """A NumPy number."""
    return array(kind, (1,), "C", raw)[0]


def maker(example: Base) -> Callable[[], Base]:
    """River's way to make new statistics: the `clone` of an example."""
    if not isinstance(example, Base):
        raise pickle.UnpicklingError(f"the clone of a {type(example).__name__}")
    return example.clone


_OWN = {"array": array, "scalar": scalar, "maker": maker}


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: object) -> Any:  # noqa: ANN401 - as the standard library has it
        if type(obj) is np.ndarray and obj.dtype.kind in _NUMBERS:
            is_fortran = obj.flags.f_contiguous and not obj.flags.c_contiguous
            raw = obj.tobytes("F") if is_fortran else obj.tobytes("C")
            return array, (obj.dtype.str, obj.shape, "F" if is_fortran else "C", raw)
        if isinstance(obj, np.generic) and obj.dtype.kind in _NUMBERS:
            return scalar, (obj.dtype.str, obj.tobytes())
        if isinstance(obj, types.MethodType) and obj.__name__ == "clone":
            return maker, (obj.__self__,)
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, module: str) -> None:
        super().__init__(stream)
        self._module = module

    def find_class(self, module: str, name: str) -> object:
        if module == __name__ and name in _OWN:
            return _OWN[name]
        is_named = module == self._module or _learns(module)
        if (is_named or name in _PLAIN.get(module, ())) and "." not in name:
            found = getattr(importlib.import_module(module), name, None)
            # Neither functions, nor what a module of River has itself imported from elsewhere.
            if isinstance(found, type) and found.__module__ == module:
                return found
        raise UnsafeState(
            f"the policy's state asks for {module}.{name}, which no state of ours holds: it was "
            "not written by this service, or holds objects of a class that snapshots do not carry"
        )


def _learns(module: str) -> bool:
    first, _, rest = module.partition(".")
    return first == "river" and rest.partition(".")[0] in _RIVER and ".datasets" not in module
