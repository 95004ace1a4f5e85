"""River's contextual policies by name.

Invariant: nothing but subclasses of River's `ContextualPolicy` is ever made.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import orjson
from numpy.typing import NDArray
from river import bandit
from river.bandit.base import ContextualPolicy

from metallm_stream.errors import ConfigurationError
from metallm_stream.policy.detectors import river_version
from metallm_stream.policy.registry import CHOOSERS

# What a policy that cannot work raises when it is tried.
UNFIT = (ArithmeticError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError)


@dataclass(frozen=True)
class RiverPolicy:
    """A contextual policy as the settings name it.

    Attributes
    ----------
    name
        `river:<class>` for River's own, else the class's full path.
    cls
        The class.
    parameters
        What it is made with; a `seed` that it takes and that is not given is 0, so that the
        same log always makes the same policy.

    """

    name: str
    cls: type[ContextualPolicy]
    parameters: Mapping[str, Any]

    def make(self) -> ContextualPolicy:
        """A policy that has learned nothing. Raises `ConfigurationError` for wrong parameters."""
        try:
            made = self.cls(**self.parameters)
        except UNFIT as exc:
            raise self.unfit(exc) from exc
        burn_in = self.parameters.get("burn_in")
        if burn_in and getattr(made, "reward_scaler", None) == burn_in:
            raise ConfigurationError(
                f"METALLM_ROUTER__POLICY_PARAMETERS: burn_in={burn_in!r} does not work, since "
                f"{self.name} hands it on to River as reward_scaler, and the first lesson would "
                "fail; leave burn_in out: METALLM_ROUTER__FLOOR tries every arm"
            )
        return made

    def unfit(self, error: Exception) -> ConfigurationError:
        """Why the policy cannot be run, for whoever has set it."""
        return ConfigurationError(
            f"METALLM_ROUTER__POLICY={self.name} with METALLM_ROUTER__POLICY_PARAMETERS="
            f"{self.signature()} cannot be run: {type(error).__name__}: {error}; correct the "
            "parameters, or name another policy"
        )

    def require(self, policy: str, parameters: str, river: str, *, whose: str, remedy: str) -> None:
        """Raise `ConfigurationError` unless a state of such a policy is one of this policy."""
        theirs = (policy, parameters, river)
        ours = (self.name, self.signature(), river_version())
        if theirs != ours:
            raise ConfigurationError(
                f"METALLM_ROUTER__POLICY={ours[0]} with parameters {ours[1]} and River {ours[2]}, "
                f"but {whose} is of {theirs[0]} with parameters {theirs[1]} and River "
                f"{theirs[2]}: set the same, or {remedy}"
            )

    def signature(self) -> str:
        """The parameters as JSON, the same for the same parameters."""
        return orjson.dumps(dict(self.parameters), option=orjson.OPT_SORT_KEYS).decode()


def river_policy(name: str, parameters: Mapping[str, Any] | None = None) -> RiverPolicy:
    """The policy that the settings name: `river:LinUCBDisjoint`, or the full path of a class.

    Raises `ConfigurationError` for what is no subclass of `ContextualPolicy`.

    >>> river_policy("river.bandit.LinUCBDisjoint").name
    'river:LinUCBDisjoint'
    """
    found = _own(name) or _of_a_path(name)
    known = inspect.signature(found.__init__).parameters
    given = ({"seed": 0} if "seed" in known else {}) | dict(parameters or {})
    is_own = found is getattr(bandit, found.__name__, None)
    label = f"river:{found.__name__}" if is_own else f"{found.__module__}.{found.__qualname__}"
    return RiverPolicy(label, found, given)


def contextual_policies() -> dict[str, type[ContextualPolicy]]:
    """River's own contextual policies by name, in the installed version."""
    return {name: item for name, item in sorted(vars(bandit).items()) if _is_contextual(item)}


def river_context(context: NDArray[np.floating]) -> dict[int, float]:
    """A context `(d,)` as River's dict: feature j is column j, and feature d is always 1.

    River's regressions have no intercept of their own.
    """
    return dict(enumerate([*context.tolist(), 1.0]))


def _own(name: str) -> type[ContextualPolicy] | None:
    """River's own policy of that name; None where a full path is meant."""
    known = contextual_policies()
    short = name
    for prefix in ("river:", "river.", "bandit."):
        short = short.removeprefix(prefix)
    if short in known and short != name:
        return known[short]
    if name.startswith("river:") or (name.startswith("river.") and name.count(".") == 2):
        raise _unknown(name, f"River {river_version()} has no such contextual policy")
    return None


def _of_a_path(name: str) -> type[ContextualPolicy]:
    module, _, last = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), last)
    except (ImportError, AttributeError, ValueError) as exc:
        raise _unknown(name, str(exc)) from exc
    if not _is_contextual(found):
        raise _unknown(name, "it is no subclass of river.bandit.base.ContextualPolicy to be made")
    return found


def _is_contextual(item: object) -> TypeGuard[type[ContextualPolicy]]:
    is_one = inspect.isclass(item) and issubclass(item, ContextualPolicy)
    return is_one and not inspect.isabstract(item)


def _unknown(name: str, reason: str) -> ConfigurationError:
    own = ", ".join(f"river:{known}" for known in contextual_policies())
    return ConfigurationError(
        f"METALLM_ROUTER__POLICY={name}: {reason}; choose {own}, the full path of a class of your "
        f"own that is one, or a policy of sums: {', '.join(sorted(CHOOSERS))}"
    )
