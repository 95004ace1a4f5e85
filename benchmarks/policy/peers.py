"""Other libraries' bandits behind one interface; each is imported when it is made.

They come with the extra `peers` (`make bench` installs it), but for River's, which is always there.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Batch:
    """n queries, the arms that answered them, and the rewards."""

    contexts: Floats
    arms: list[str]
    rewards: NDArray[np.float64]


class Contestant(Protocol):
    """What is timed; `prepare` puts a batch into the library's own form and is not timed."""

    name: str
    batches: bool

    def prepare(self, batch: Batch) -> Any:  # noqa: ANN401 - each library's own
        """The batch as `choose` and `learn` take it."""
        ...

    def choose(self, prepared: Any) -> object:  # noqa: ANN401
        """Choose an arm for each query."""
        ...

    def learn(self, prepared: Any) -> None:  # noqa: ANN401
        """Learn from every query's reward."""
        ...


class OnDicts:
    """Any policy of River's kind, on dicts of features."""

    name, batches = "river", False

    def __init__(self, policy: Any, arms: Sequence[str]) -> None:  # noqa: ANN401
        self._arms = list(arms)
        self._policy = policy

    def prepare(self, batch: Batch) -> list[tuple[str, dict[int, float], float]]:
        """Dicts of features."""
        contexts = [dict(enumerate(row)) for row in batch.contexts.tolist()]
        return list(zip(batch.arms, contexts, batch.rewards.tolist(), strict=True))

    def choose(self, prepared: Any) -> object:  # noqa: ANN401
        """One at a time."""
        return [self._policy.pull(self._arms, context) for _, context, _ in prepared]

    def learn(self, prepared: Any) -> None:  # noqa: ANN401
        """One at a time."""
        for arm, context, reward in prepared:
            self._policy.update(arm, context, reward)


class RiverLinUCB(OnDicts):
    """River's LinUCBDisjoint."""

    name = "river LinUCBDisjoint"

    def __init__(self, arms: Sequence[str], d: int) -> None:
        del d
        super().__init__(importlib.import_module("river.bandit").LinUCBDisjoint(seed=1), arms)


class ParetoBandit:
    """ParetoBandit's policy with its default exploration and forgetting, without priors.

    Its router does more for each query (a log, a store of contexts); this is its core alone.
    """

    name, batches = "paretobandit", False

    def __init__(self, arms: Sequence[str], d: int, alpha: float | None = None) -> None:
        chosen = importlib.import_module("pareto_bandit.config").BEST_K3_HPARAMS
        self._policy = importlib.import_module("pareto_bandit.policy").DisjointLinUCBPolicy(
            list(arms),
            dim=d,
            alpha=chosen["alpha"] if alpha is None else alpha,
            forgetting_factor=chosen["forgetting_factor"],
            seed=1,
        )

    def prepare(self, batch: Batch) -> list[tuple[str, Floats, float]]:
        """Rows in float64."""
        rows = list(batch.contexts.astype(np.float64))
        return list(zip(batch.arms, rows, batch.rewards.tolist(), strict=True))

    def choose(self, prepared: Any) -> object:  # noqa: ANN401
        """One at a time; the clock moves with every choice, as its router has it."""
        return [self.pull(context) for _, context, _ in prepared]

    def learn(self, prepared: Any) -> None:  # noqa: ANN401
        """One at a time."""
        for arm, context, reward in prepared:
            self._policy.update(arm, context, reward, advance_time=False)

    def pull(
        self,
        context: Floats,
        arms: Sequence[str] | None = None,
        penalties: dict[str, float] | None = None,
    ) -> str:
        """Choose among arms, of which new ones are added, under penalties for their costs."""
        for arm in arms or ():
            self._policy.add_arm(arm)
        candidates = None if arms is None else list(arms)
        arm, _ = self._policy.select_arm(context, candidates, penalties)
        self._policy.mark_selected(arm)
        return str(arm)


class MabWiserLinUCB:
    """MABWiser's LinUCB, in one process."""

    name, batches = "mabwiser LinUCB", True

    def __init__(self, arms: Sequence[str], d: int) -> None:
        mab = importlib.import_module("mabwiser.mab")
        self._policy = mab.MAB(list(arms), mab.LearningPolicy.LinUCB(alpha=1.0), seed=1)
        names = list(arms)
        self._policy.fit(names, np.zeros(len(names)), np.zeros((len(names), d)))

    def prepare(self, batch: Batch) -> Batch:
        """Arrays in float64."""
        return Batch(batch.contexts.astype(np.float64), batch.arms, batch.rewards)

    def choose(self, prepared: Any) -> object:  # noqa: ANN401
        """The batch at once."""
        return self._policy.predict(prepared.contexts)

    def learn(self, prepared: Any) -> None:  # noqa: ANN401
        """The batch at once."""
        self._policy.partial_fit(prepared.arms, prepared.rewards, prepared.contexts)


class VowpalWabbitSquareCB:
    """Vowpal Wabbit's SquareCB over arms, each with weights of its own (`-q ua`).

    Examples are parsed beforehand: parsing their text takes several times as long as the rest.
    """

    name, batches = "vw squarecb", False

    def __init__(self, arms: Sequence[str], d: int) -> None:
        del d
        module = importlib.import_module("vowpalwabbit")
        options = "--cb_explore_adf --squarecb -q ua --quiet --random_seed 1 -b 18"
        self._workspace = module.Workspace(options)
        self._arms = list(arms)

    def prepare(self, batch: Batch) -> list[tuple[Any, Any]]:
        """Parsed examples, to choose by and to learn from."""
        return [
            (self._parsed(row), self._parsed(row, arm, reward))
            for row, arm, reward in zip(batch.contexts, batch.arms, batch.rewards, strict=True)
        ]

    def choose(self, prepared: Any) -> object:  # noqa: ANN401
        """One at a time."""
        return [self._workspace.predict(example) for example, _ in prepared]

    def learn(self, prepared: Any) -> None:  # noqa: ANN401
        """One at a time."""
        for _, example in prepared:
            self._workspace.learn(example)

    def _parsed(self, row: Floats, chosen: str | None = None, reward: float = 0.0) -> object:
        lines = ["shared |u " + " ".join(f"{j}:{value:.6g}" for j, value in enumerate(row))]
        for k, arm in enumerate(self._arms):
            label = f"0:{-reward:.6g}:{1 / len(self._arms):.6g} " if arm == chosen else ""
            lines.append(f"{label}|a arm{k}")
        return self._workspace.parse("\n".join(lines))


MAKERS: tuple[Callable[[Sequence[str], int], Contestant], ...] = (
    RiverLinUCB,
    ParetoBandit,
    MabWiserLinUCB,
    VowpalWabbitSquareCB,
)


def installed(arms: Sequence[str], d: int) -> list[Contestant]:
    """The peers that are installed, each for these arms and dimensions."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    found = []
    for make in MAKERS:
        try:
            found.append(make(arms, d))
        except ModuleNotFoundError:
            continue
    return found
