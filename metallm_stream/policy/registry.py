"""The rules of choice by name.

Invariant: a name that is not here is refused with the names that are; a new rule is one new file
and one line in `CHOOSERS`.
"""

from __future__ import annotations

from collections.abc import Callable

from metallm_stream.errors import ConfigurationError
from metallm_stream.policy.chooser import Chooser
from metallm_stream.policy.elimination import SoftElimination
from metallm_stream.policy.epsilon_greedy import EpsilonGreedy
from metallm_stream.policy.fixed import Fixed
from metallm_stream.policy.igw import InverseGap
from metallm_stream.policy.linucb import LinUcb
from metallm_stream.policy.thompson import Thompson
from metallm_stream.policy.uniform import Uniform

DEFAULT_CHOOSER = "ridge-elimination"

CHOOSERS: dict[str, Callable[..., Chooser]] = {
    "ridge-elimination": SoftElimination,
    "ridge-igw": InverseGap,
    "ridge-thompson": Thompson,
    "ridge-linucb": LinUcb,
    "ridge-epsilon": EpsilonGreedy,
    "uniform": Uniform,
    "fixed": Fixed,
}


def is_river(name: str) -> bool:
    """Whether this names a policy of River's, or a class by its path, and no rule of ours.

    >>> is_river("river:LinUCBDisjoint"), is_river("my.policies.Mine"), is_river("fixed:gpt-4.1")
    (True, True, False)
    """
    return name.startswith("river:") or ("." in name and ":" not in name)


def chooser(name: str = DEFAULT_CHOOSER, **parameters: object) -> Chooser:
    """The rule of choice called `name`, with its parameters; `fixed:<arm>` names the arm.

    Raises `ConfigurationError` for an unknown name, or for parameters the rule does not take.

    >>> chooser("fixed:mini").name
    'fixed:mini'
    """
    kind, _, argument = name.partition(":")
    if kind not in CHOOSERS or (kind == "fixed") != bool(argument):
        raise ConfigurationError(
            f"unknown policy {name!r}: choose one of "
            + ", ".join("fixed:<arm>" if known == "fixed" else known for known in CHOOSERS)
            + ", or a policy of River's for the service: river:<class>"
        )
    try:
        return CHOOSERS[kind](*([argument] if argument else []), **parameters)
    except (TypeError, ValueError) as exc:
        raise ConfigurationError(f"policy {name!r}: {exc}") from exc
