"""Whatever is doubled, reordered, cut off, moved or fenced, the promises hold; and it would show.

Long runs: `python -m tests.simulation --histories 100000`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from metallm_stream.join import Interaction, change
from metallm_stream.kafka import Window
from metallm_stream.policy import Forgetting, Sums
from metallm_stream.route import Budget, Pacer
from tests.simulation.core import DIMENSIONS, ENCODER, Core, Joined, Pair
from tests.simulation.dice import LARGEST
from tests.simulation.history import cut_down, drawn, lived, told
from tests.simulation.oracle import settle
from tests.simulation.world import ACTIONS, World


class Adversary(RuleBasedStateMachine):
    """Chooses what happens next; when it has had its say, all work is done and counted."""

    world: World | None = None

    @initialize(seed=st.integers(0, 2**32 - 1))
    def begin(self, seed: int) -> None:
        """Budgets, forgetting and policy are drawn from the seed."""
        self.world = World(seed)

    @rule(action=st.sampled_from(ACTIONS), number=st.integers(0, LARGEST - 1))
    def act(self, action: str, number: int) -> None:
        """Any step may come at any time."""
        assert self.world is not None
        self.world.take(action, number)

    def teardown(self) -> None:
        """Nothing is lost, doubled, left reserved or learned otherwise than from the log."""
        if self.world is not None:
            settle(self.world)


TestAdversary = Adversary.TestCase
TestAdversary.settings = settings(max_examples=200, stateful_step_count=20)


class CountsDuplicates(Core):
    """A join that adds what it reads, whatever it knew before."""

    def change(self, pairs: Iterable[Pair], forgetting: Forgetting) -> Sums:
        """As if nothing was known."""
        return change(((None, after) for _, after in pairs), ENCODER, DIMENSIONS, forgetting)


class KeepsTheOldLabel(Core):
    """A join that takes no correction."""

    def joined(self, known: Interaction, event: Joined) -> Interaction:
        """The first judgement stays."""
        merged = known.merged(event)
        return known if known.judged().quality is not None else merged


class ForgetsWhatIsDone(Core):
    """A window that ignores the commit's metadata."""

    def window(self, next_offset: int, metadata: str) -> Window:
        """What was done above the offset is done again."""
        return Window(next_offset, metadata and None)


class Hasty(Window):
    """Takes what was begun for what is done."""

    @property
    def next_offset(self) -> int:
        """The next one to be read."""
        return self._position


class SkipsWhatIsUnfinished(Core):
    """A window that commits the position."""

    def window(self, next_offset: int, metadata: str) -> Window:
        """What was begun is never done."""
        return Hasty(next_offset, metadata)


class Grasping(Pacer):
    """Keeps what it has reserved for partitions that are gone."""

    def give_up(self, partition: int) -> None:
        """Nothing is given up."""


class KeepsReserves(Core):
    """Budgets that are charged for decisions that others make anew."""

    def pacer(self, budgets: Sequence[Budget]) -> Pacer:
        """It keeps everything."""
        return Grasping(budgets)


class FencesNobody(Core):
    """A database that lets every learner write."""

    def may_advance(self, held: tuple[int, int], stored: tuple[int, int]) -> bool:
        """Whoever asks."""
        return bool(held and stored)


@pytest.mark.parametrize(
    ("core", "said"),
    [
        (CountsDuplicates(), "from the fold of the log"),
        (KeepsTheOldLabel(), "from the fold of the log"),
        (ForgetsWhatIsDone(), "handed out True, done True"),
        (SkipsWhatIsUnfinished(), "is not done"),
        (KeepsReserves(), "reserved"),
        (FencesNobody(), ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Core) else "",
)
def test_a_planted_bug_is_found_and_told_in_few_steps(core: Core, said: str) -> None:
    """Within 200 histories, and none of the steps that are shown can be left out."""
    seed, steps = next(
        (seed, steps) for seed in range(200) if lived(seed, steps := drawn(seed), core)
    )
    least = cut_down(steps, lambda fewer: lived(seed, fewer, core) is not None)
    assert len(least) <= 12
    assert said in (lived(seed, least, core) or "")
    assert lived(seed, least) is None
    assert f"seed {seed}, {len(least)} of {len(steps)} steps" in told(seed, steps, core)


def test_a_history_is_its_seed() -> None:
    """Drawn and lived through again, it ends in the same way."""
    assert drawn(3) == drawn(3) != drawn(4)
    core = CountsDuplicates()
    assert [lived(seed, drawn(seed), core) for seed in range(9)] == [
        lived(seed, drawn(seed), core) for seed in range(9)
    ]
