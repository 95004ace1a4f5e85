"""Policies of River's by name, and the rule of choice that pulls one."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import bandit
from river.bandit.base import ContextualPolicy

from metallm_stream.errors import ConfigurationError, InvalidEvent
from metallm_stream.events import RiverPart, RiverState
from metallm_stream.policy import Beliefs, Stateful, chooser, is_river, sample
from metallm_stream.policy.detectors import river_version
from metallm_stream.policy.river_policy import (
    RiverPolicy,
    contextual_policies,
    river_context,
    river_policy,
)
from metallm_stream.policy.river_rule import RiverRule
from metallm_stream.policy.river_state import Taught, digest, learn, nothing_learned, split

LINUCB = river_policy("river:LinUCBDisjoint")
ARMS = ("a", "b", "c")


class Recorder(ContextualPolicy):
    """Draws the last arm that it is given, and remembers what it was asked."""

    def __init__(self, wanted: str | None = None) -> None:
        super().__init__()
        self.wanted = wanted
        self.asked: list[tuple[list[object], dict[int, float]]] = []

    def _pull(self, arm_ids, context):
        self.asked.append((arm_ids, context))
        return self.wanted or arm_ids[-1]


OWN = f"{__name__}.Recorder"


class Greedy(ContextualPolicy):
    """Explores by random numbers of its own, held as River's are, and once more in a part."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__()
        self.part = {"held": [random.Random(seed)]}
        self._rng = random.Random(seed)

    def _pull(self, arm_ids, context):  # noqa: ARG002 - River's signature
        if self._rng.random() < 0.5:
            return self.part["held"][0].choice(arm_ids)
        return max(arm_ids, key=lambda arm: self._rewards[arm].get() if arm in self._rewards else 0)


GREEDY = river_policy(f"{__name__}.Greedy")


def rule_of(policy: RiverPolicy, floor: float, seed: int = 0) -> RiverRule:
    return RiverRule(policy, floor, np.random.default_rng(seed))


def beliefs(contexts: np.ndarray) -> Beliefs:
    return replace(Beliefs.nothing(ARMS, len(contexts)), contexts=contexts)


@pytest.mark.parametrize(
    "name", ["river:LinUCBDisjoint", "river:bandit.LinUCBDisjoint", "river.bandit.LinUCBDisjoint"]
)
def test_rivers_own_are_found_by_each_of_their_names(name: str) -> None:
    """And are logged under one."""
    policy = river_policy(name, {"alpha": 2.0})
    assert is_river(name)
    assert (policy.name, policy.cls) == ("river:LinUCBDisjoint", bandit.LinUCBDisjoint)
    assert policy.make().alpha == 2.0


def test_the_full_path_of_a_module_of_rivers_works_as_well() -> None:
    """As Python shows the class."""
    assert river_policy("river.bandit.lin_ucb.LinUCBDisjoint").name == "river:LinUCBDisjoint"


def test_a_class_of_ones_own_is_found_by_its_path() -> None:
    """And logged under it; rules of ours are no such path."""
    assert is_river(OWN)
    assert (river_policy(OWN).name, river_policy(OWN).parameters) == (OWN, {})
    assert not any(map(is_river, ("ridge-igw", "uniform", "fixed:vendor/model-4.1")))


def test_the_documents_say_what_this_river_has() -> None:
    """One policy, and no more; a newer River with others makes this fail."""
    assert list(contextual_policies()) == ["LinUCBDisjoint"]


@pytest.mark.parametrize(
    "name",
    [
        "river:",
        "river:UCB",  # not contextual
        "river:LinThompson",  # not in this version
        "river.bandit.Exp3",
        "river.bandit.base.ContextualPolicy",  # abstract
        "river.linear_model.LinearRegression",
        "os.system",
        "no.such.Policy",
        ".Policy",
        "metallm_stream.policy.sums.Sums",
    ],
)
def test_what_is_no_contextual_policy_is_refused_with_the_choices(name: str) -> None:
    """The message names the setting, the value and what may stand there."""
    with pytest.raises(ConfigurationError, match=r"METALLM_ROUTER__POLICY=.*LinUCBDisjoint") as it:
        river_policy(name)
    assert f"METALLM_ROUTER__POLICY={name}:" in str(it.value)


def test_rules_of_ours_name_rivers_as_another_choice() -> None:
    """Whoever misspells one sees the other."""
    with pytest.raises(ConfigurationError, match="river:<class>"):
        chooser("rigde")


@pytest.mark.parametrize(
    "parameters",
    [{"burn_in": 3}, {"width": 2.0}, {"alpha": "much"}, {"alpha": 0}, {"smoothing": [1]}],
)
def test_a_policy_that_cannot_work_is_refused_at_start(parameters: dict[str, object]) -> None:
    """When it is made, pulled or taught."""
    with pytest.raises(ConfigurationError, match="METALLM_ROUTER__POLICY_PARAMETERS") as refused:
        nothing_learned(river_policy("river:LinUCBDisjoint", parameters), 4)
    assert next(iter(parameters)) in str(refused.value)


def test_burn_in_is_refused_with_the_reason_and_the_way_out() -> None:
    """River's class hands it on as `reward_scaler`; 0 works, and so does a class that is right."""
    refused = r"burn_in=3 does not work, since river:LinUCBDisjoint .* reward_scaler.* leave"
    with pytest.raises(ConfigurationError, match=refused) as it:
        river_policy("river:LinUCBDisjoint", {"burn_in": 3}).make()
    assert "METALLM_ROUTER__FLOOR tries every arm" in str(it.value)
    nothing_learned(river_policy("river:LinUCBDisjoint", {"burn_in": 0}), 4)
    right = river_policy("tests.indifferent.UniformPolicy", {"burn_in": 3})
    assert right.make().burn_in == 3


def test_a_seed_is_given_where_there_is_one_to_give() -> None:
    """So that the same lessons make the same policy; one's own counts."""
    assert LINUCB.parameters == {"seed": 0}
    assert river_policy("river:LinUCBDisjoint", {"seed": 7}).parameters == {"seed": 7}


def test_propensities_are_exact_given_the_pull() -> None:
    """ε/K for each allowed arm and 1 − ε more for the one pulled: 20,000 draws agree."""
    rule = rule_of(river_policy(OWN), 0.3)
    contexts = np.ones((20_000, 2), np.float32)
    allowed = np.tile([True, True, False], (len(contexts), 1))
    probabilities = rule.probabilities(beliefs(contexts), allowed)
    assert probabilities[0].tolist() == pytest.approx([0.15, 0.85, 0.0])
    assert (probabilities == probabilities[0]).all()
    drawn = Counter(sample(probabilities, np.random.default_rng(1)).tolist())
    for column, probability in enumerate(probabilities[0].tolist()):
        spread = 4 * np.sqrt(probability * (1 - probability) / len(contexts))
        assert abs(drawn[column] / len(contexts) - probability) <= spread


def test_a_policy_is_asked_for_allowed_arms_alone_and_in_its_context() -> None:
    """With a constant behind the features, and once a query."""
    policy = river_policy(OWN)
    rule, learned = rule_of(policy, 0.05), policy.make()
    rule._learned = learned
    contexts = np.array([[0.5, -1.0], [2.0, 0.0]], np.float32)
    allowed = np.array([[True, False, True], [False, True, False]])
    probabilities = rule.probabilities(beliefs(contexts), allowed)
    assert learned.asked == [
        (["a", "c"], {0: 0.5, 1: -1.0, 2: 1.0}),
        (["b"], {0: 2.0, 1: 0.0, 2: 1.0}),
    ]
    assert probabilities[1].tolist() == pytest.approx([0, 1, 0])


def test_no_mask_stands_for_all_arms() -> None:
    """As the router gives none where nothing is excluded."""
    given = beliefs(np.array([[0.5, -1.0], [2.0, 0.0]], np.float32))
    rule = rule_of(river_policy(OWN), 0.3)
    expected = rule.probabilities(given, np.ones((2, 3), bool))
    assert (rule.probabilities(given, None) == expected).all()


def test_a_policy_that_draws_what_is_not_allowed_is_refused() -> None:
    """Rather than logged with a propensity that is wrong."""
    rule = rule_of(river_policy(OWN, {"wanted": "b"}), 0.05)
    with pytest.raises(ConfigurationError, match="drew 'b'"):
        rule.probabilities(beliefs(np.ones((1, 2))), np.array([[True, False, True]]))
    with pytest.raises(ConfigurationError, match="it pulls arms that it was not given"):
        nothing_learned(river_policy(OWN, {"wanted": "z"}), 2)


@given(seed=st.integers(0, 2**32 - 1), floor=st.sampled_from([0.01, 0.05, 0.5, 1.0]))
@settings(max_examples=30)
def test_rows_are_distributions_over_the_allowed_arms(seed: int, floor: float) -> None:
    """As the contract of all rules has it: each has its part of the floor, and one the rest."""
    rng = np.random.default_rng(seed)
    contexts = rng.normal(size=(4, 3)).astype(np.float32)
    allowed = rng.random((4, 3)) < 0.6
    allowed[~allowed.any(axis=1), 0] = True
    probabilities = rule_of(LINUCB, floor).probabilities(beliefs(contexts), allowed)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-12)
    assert (probabilities[~allowed] == 0).all()
    for row, may in zip(probabilities, allowed, strict=True):
        share = floor / may.sum()
        expected = [*[share] * int(may.sum() - 1), 1 - floor + share]
        assert np.sort(row[may]).tolist() == pytest.approx(expected)


def test_contexts_and_a_floor_are_needed() -> None:
    """Neither is guessed."""
    with pytest.raises(ValueError, match="contexts"):
        rule_of(LINUCB, 0.05).probabilities(Beliefs.nothing(ARMS, 1), np.ones((1, 3), bool))
    with pytest.raises(ValueError, match="floor"):
        rule_of(LINUCB, 1.5)


def test_beliefs_keep_their_contexts_when_some_are_taken() -> None:
    """Row by row."""
    whole = beliefs(np.arange(6.0).reshape(3, 2))
    assert whole[1:2].contexts.tolist() == [[2.0, 3.0]]
    assert whole[np.array([True, False, True])].contexts.tolist() == [[0.0, 1.0], [4.0, 5.0]]


def state_after(
    *lessons: Taught, policy: RiverPolicy = LINUCB
) -> tuple[RiverState, dict[int, RiverPart]]:
    raw = learn(policy, nothing_learned(policy, 2), lessons)
    parts = split(raw)
    head = RiverState(
        policy=policy.name,
        parameters=policy.signature(),
        river_version=river_version(),
        version=3,
        lessons=len(lessons),
        parts=len(parts),
        sha256=digest(raw),
    )
    made = [RiverPart(policy=policy.name, version=3, part=i, state=s) for i, s in enumerate(parts)]
    return head, {part.part: part for part in made}


def test_an_adopted_state_chooses() -> None:
    """Ten good answers of b: b is pulled; before, nothing was known."""
    rule = rule_of(LINUCB, 0.05)
    assert isinstance(rule, Stateful)
    context = np.array([1.0, 0.0], np.float32)
    lessons = [Taught(arm, context, float(arm == "b")) for arm in "abc" * 10]
    rule.adopt(*state_after(*lessons))
    chosen = rule.probabilities(beliefs(context[None]), np.ones((1, 3), bool))
    assert chosen[0].argmax() == 1


def pulled(rule: RiverRule) -> str:
    """What the policy draws for one query."""
    return ARMS[rule.probabilities(beliefs(np.ones((1, 2), np.float32)), None)[0].argmax()]


def test_a_policy_goes_on_drawing_however_often_a_state_is_published() -> None:
    """The learner never pulls, so the states' own random numbers stand still."""
    rule, lessons, seen = rule_of(GREEDY, 0.05), [], []
    for _ in range(60):
        seen.append(pulled(rule))
        lessons.append(Taught(seen[-1], np.ones(2, np.float32), float(seen[-1] == "b")))
        rule.adopt(*state_after(*lessons, policy=GREEDY))
    counts = Counter(seen)
    assert set(counts) == set(ARMS)
    assert counts["b"] > 30  # and greedy in between


def test_routers_draw_apart_from_one_state() -> None:
    """Before the first adoption and after it; one router's seed still makes the same draws."""
    state = state_after(policy=GREEDY)
    for adopted in (False, True):
        draws = []
        for seed in (1, 1, 2, 3):
            rule = rule_of(GREEDY, 0.05, seed)
            if adopted:
                rule.adopt(*state)
            draws.append("".join(pulled(rule) for _ in range(40)))
        assert draws[0] == draws[1]
        assert len(set(draws)) == 3


def test_propensities_hold_for_a_policy_that_draws_itself() -> None:
    """Given the pull: weighted by them, each arm counts once a decision, on average."""
    rule, rng = rule_of(GREEDY, 0.3), np.random.default_rng(5)
    rule.adopt(*state_after(policy=GREEDY))
    probabilities = rule.probabilities(beliefs(np.ones((20_000, 2), np.float32)), None)
    chosen = sample(probabilities, rng)
    assert np.sort(probabilities).tolist() == pytest.approx(np.tile([0.1, 0.1, 0.8], (20_000, 1)))
    for column in range(3):
        weights = (chosen == column) / probabilities[:, column]
        assert weights.mean() == pytest.approx(1, abs=4 * weights.std() / np.sqrt(len(weights)))


def test_a_state_that_is_not_whole_is_not_adopted() -> None:
    """A part that is missing, of another version, or changed: the next policy is waited for."""
    head, parts = state_after()
    other = parts[0].model_copy(update={"version": 4})
    damaged = parts[0].model_copy(update={"state": parts[0].state[:-1] + b"?"})
    for wrong in ({}, {0: other}, {0: damaged}):
        with pytest.raises(InvalidEvent, match="lacks parts"):
            rule_of(LINUCB, 0.05).adopt(head, wrong)


@pytest.mark.parametrize(
    "field", [{"policy": "river:Other"}, {"parameters": "{}"}, {"river_version": "0.1"}]
)
def test_the_state_of_another_policy_is_refused(field: dict[str, str]) -> None:
    """The message names both, and the remedy."""
    head, parts = state_after()
    with pytest.raises(ConfigurationError, match="start router and learner with the same") as it:
        rule_of(LINUCB, 0.05).adopt(head.model_copy(update=field), parts)
    assert next(iter(field.values())) in str(it.value)


def test_a_context_is_a_dict_of_numbers_with_a_constant() -> None:
    """River's regressions have no intercept."""
    assert river_context(np.array([0.5], np.float32)) == {0: 0.5, 1: 1.0}
