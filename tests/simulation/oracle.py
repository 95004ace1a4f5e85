"""What a world must have come to once everything that can be done was done.

Invariant: expectations are taken from the logs alone. Labels, costs and reserves are counted by
rules of their own; only the sums are those of the real core, folded once over distinct records.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, TypeVar

from metallm_stream.events import Attempt, Decision, Feedback, Result
from metallm_stream.join import Interaction, change
from metallm_stream.policy import merged
from tests.simulation import router, worker
from tests.simulation.broker import PARTITIONS
from tests.simulation.core import DIMENSIONS, ENCODER, Violation
from tests.simulation.dice import Dice
from tests.simulation.learner import PLACES

if TYPE_CHECKING:
    from tests.simulation.world import World

SAME = 1e-9
# Failed tries that a vendor may have charged without telling.
MAYBE_BILLED = {"timeout", "deadline", "superseded", "malformed_answer", "connection"}
ROUNDS = 100
Kind = TypeVar("Kind")


def settle(world: World) -> None:
    """Let the trouble end and all work be done; then raise `Violation` for a broken promise."""
    for _ in range(ROUNDS):
        _work(world)
        if _is_done(world):
            break
    else:
        raise Violation(f"work is left after {ROUNDS} rounds without trouble")
    world.publish(Dice(0))
    for item in world.routers:
        item.adopt(len(world.accounts))
    _check_services(world)
    _check_model(world)
    _check_budgets(world)


def _work(world: World) -> None:
    for each in world.routers:
        each.member.settle()
        each.step(Dice(0))
    for each in world.workers:
        each.member.settle()
        each.drain()
    for each in world.learners:
        each.settle()
    for slot in range(len(world.learners)):
        world.learn(Dice(slot + len(world.learners) * (5 + 6 * 11)))


def _is_done(world: World) -> bool:
    places = [
        (world.broker.committed.get((group, (topic, part)), (0, ""))[0], (topic, part))
        for group, topic in ((router.GROUP, "queries"), (worker.GROUP, "calls"))
        for part in range(PARTITIONS)
    ]
    places += [(world.database.positions[place][1], place) for place in PLACES]
    return all(not world.broker.logs[place].since(offset, 1) for offset, place in places)


def _check_services(world: World) -> None:
    """One decision for each id on each partition, and one result for each decision."""
    asked = Counter(
        {
            (entry.event.query_id, part): 1
            for part in range(PARTITIONS)
            for entry in world.broker.logs["queries", part].entries
        }
    )
    decided = Counter(
        (item.query_id, item.query_partition) for item in _all(world, "decisions", Decision)
    )
    answered = Counter(item.query_id for item in _all(world, "results", Result))
    if decided != asked:
        raise Violation(f"decisions lost: {asked - decided}, doubled: {decided - asked}")
    wanted = Counter(query_id for query_id, _ in asked.elements())
    if answered != wanted:
        raise Violation(f"results lost: {wanted - answered}, doubled: {answered - wanted}")


def _check_model(world: World) -> None:
    """Live model = fold of the distinct log, and each judged answer counts once."""
    live = merged(map(world.database.slot_sums, range(len(world.learners))), DIMENSIONS)
    folded: dict[str, Interaction] = {}
    for topic, kind in (("decisions", Decision), ("results", Result), ("feedback", Feedback)):
        for event in _all(world, topic, kind, ours=False):
            held = folded.get(event.query_id) or Interaction(event.query_id)
            folded[event.query_id] = held.merged(event)
    wanted = change(
        ((None, item) for item in folded.values()), ENCODER, DIMENSIONS, world.forgetting
    )
    difference = live.difference(wanted)
    if not difference <= SAME:
        raise Violation(f"the model differs by {difference} from the fold of the log")
    if world.forgetting.log2_weight("mini", world.now) > 0:
        return
    counted = {arm: live.gram(arm)[0, [0, -1]].tolist() for arm in live.arms}
    labels = _labels(world)
    for arm in {*counted, *labels}:
        pairs = zip(counted.get(arm, (0.0, 0.0)), labels.get(arm, (0.0, 0.0)), strict=True)
        if not all(math.isclose(a, b, abs_tol=SAME) for a, b in pairs):
            raise Violation(f"{arm}: labels counted {counted.get(arm)}, given {labels.get(arm)}")


def _labels(world: World) -> dict[str, tuple[float, float]]:
    """By arm, how many answers are judged, and the sum of their qualities."""
    totals: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    feedback: dict[str, dict[str | None, Feedback]] = defaultdict(dict)
    for item in sorted(_all(world, "feedback", Feedback, ours=False), key=lambda f: f.given_at):
        feedback[item.query_id].pop(item.feedback_id, None)
        feedback[item.query_id][item.feedback_id] = item
    for query_id, (decision, result) in _kept(world).items():
        valid = [item for item in feedback[query_id].values() if not item.withdrawn]
        if result.arm is None or result.call_id != decision.call_id or not valid:
            continue
        score, label = valid[-1].score, valid[-1].label
        quality = score if score is not None else float(label == result.prediction)
        count, total = totals[result.arm]
        totals[result.arm] = (count + 1, total + quality)
    return totals


def _check_budgets(world: World) -> None:
    """Every query is charged what its result cost, and nothing is reserved any longer."""
    kept = _kept(world)
    for budget in world.budgets:
        spent: dict[str, float] = defaultdict(float)
        for decision, result in kept.values():
            spent[budget.account_key(decision.metadata)] += result.cost_usd + sum(
                _untold_usd(decision, a)
                for a in result.attempts
                if a.cost_usd is None and (a.failure is None or a.failure.kind in MAYBE_BILLED)
            )
        for key, total in spent.items():
            account = world.database.accounts[budget.name, key]
            if not math.isclose(account.spent_usd, total, abs_tol=SAME):
                raise Violation(f"{budget.name}/{key}: {account.spent_usd} booked, {total} spent")
            if not math.isclose(account.reserved_usd, 0.0, abs_tol=SAME):
                raise Violation(f"{budget.name}/{key}: {account.reserved_usd} USD stay reserved")
        accounts = [a for (name, _), a in world.database.accounts.items() if name == budget.name]
        if sum(account.queries for account in accounts) != len(kept):
            raise Violation(f"{budget.name}: charged {accounts} for {len(kept)} queries")
    for each in world.routers:
        for place, ledger in each.pacer._ledgers.items():
            if ledger._pending:
                raise Violation(f"{place}: {list(ledger._pending)} stay reserved in a router")


def _untold_usd(decision: Decision, attempt: Attempt) -> float:
    """What the one try of a query counts whose cost nobody tells."""
    costs = {item.arm: item.cost_usd for item in decision.candidates}
    if costs.get(attempt.arm):
        return decision.reserved_usd or 0.0
    return attempt.at_most_usd or decision.reserved_usd or 0.0


def _kept(world: World) -> dict[str, tuple[Decision, Result]]:
    """The first decision and the first result of each query."""
    decisions, results = _all(world, "decisions", Decision), _all(world, "results", Result)
    first = {
        item.query_id: item
        for item in sorted(
            decisions,
            key=lambda d: (d.decided_at, d.query_partition, d.query_offset),
            reverse=True,
        )
    }
    answers = {
        item.query_id: item
        for item in sorted(results, key=lambda r: (r.finished_at, r.encode()), reverse=True)
    }
    return {query_id: (item, answers[query_id]) for query_id, item in first.items()}


def _all(world: World, topic: str, kind: type[Kind], *, ours: bool = True) -> list[Kind]:
    """The records of a topic: those that services wrote, or all."""
    entries: list[Any] = [
        entry
        for part in range(PARTITIONS)
        for entry in world.broker.logs[topic, part].entries
        if entry.ours or not ours
    ]
    return [entry.event for entry in entries if isinstance(entry.event, kind)]
