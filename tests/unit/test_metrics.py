"""What services count, and when they count as alive and ready."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from http import HTTPStatus
from importlib.metadata import version

import pytest

from metallm_stream.arms import Catalogue
from metallm_stream.events import ArmHealth, Attempt, Call, Failure, Model, Query
from metallm_stream.join import Interaction
from metallm_stream.policy.drift import ArmWatch, Drift
from metallm_stream.providers import Forward
from metallm_stream.route import Decided
from metallm_stream.serve.call_metrics import CallMetrics
from metallm_stream.serve.drift import Observed
from metallm_stream.serve.http import pages
from metallm_stream.serve.learner_metrics import LearnerMetrics
from metallm_stream.serve.metrics import READY_WITHIN_S, LoopMetrics
from metallm_stream.serve.router_metrics import RouterMetrics
from tests.records import FAILED, START, attempt, decision, feedback, result
from tests.unit.test_route_decide import policy

STUCK_AFTER_S = 100.0


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        """The present second."""
        return self.now_s


def value(metrics: LoopMetrics, name: str, **labels: str) -> float | None:
    """One sample; None where there is none."""
    return metrics.registry.get_sample_value(f"metallm_{name}", labels)


def call(*attempts: Attempt) -> Call:
    """A call that has been tried so far."""
    arms = tuple(Model(arm=arm, provider="p", model=arm) for arm in ("mini", "large"))
    query = Query(query_id="q", text="Why?")
    return Call(call_id="c", query=query, ranking=arms, attempts=attempts, decided_at=START)


def catalogue(**providers: str) -> Catalogue:
    """A catalogue of arms by name, each at the provider given."""
    made = Catalogue()
    for arm, provider in providers.items():
        made.apply(arm, Model(arm=arm, provider=provider, model=arm))
    return made


def test_a_service_is_ready_when_its_group_has_assigned_something_or_nothing() -> None:
    """A replica without a partition waits for one: it is ready, and says that it has none."""
    clock = Clock()
    metrics = LoopMetrics("router", "0", clock=clock)
    metrics.stepped(lambda: None)
    assert "assigned nothing" in str(metrics.unready())
    clock.now_s += 1
    metrics.stepped(dict)
    assert metrics.unready() is None
    assert value(metrics, "partitions") == 0
    clock.now_s += 1
    metrics.stepped(lambda: {("queries", 0): 7, ("queries", 1): None})
    assert value(metrics, "partitions") == 2
    assert value(metrics, "lag_records", topic="queries", partition="0") == 7
    assert value(metrics, "lag_records", topic="queries", partition="1") is None


def test_the_lag_is_asked_for_once_a_second() -> None:
    """However often the loop comes round."""
    clock, asked = Clock(), []
    metrics = LoopMetrics("router", "0", clock=clock)
    for _ in range(50):
        metrics.stepped(lambda: asked.append(1) or {})
        clock.now_s += 0.1
    assert len(asked) == 5


def test_a_stuck_loop_is_first_not_ready_and_then_dead() -> None:
    """And both again when it goes on; a service that is told to stop is not ready, but lives."""
    clock, stop = Clock(), threading.Event()
    metrics = LoopMetrics("learner", "0", clock=clock)
    served = pages(metrics, stop, stuck_after_s=STUCK_AFTER_S)

    def told() -> tuple[int, int]:
        return served["/livez"]()[0], served["/readyz"]()[0]

    metrics.stepped(dict)
    assert told() == (200, 200)
    clock.now_s += READY_WITHIN_S
    assert told() == (200, 503)
    assert b"stuck for 30 s" in served["/readyz"]()[2]
    clock.now_s += STUCK_AFTER_S - READY_WITHIN_S
    assert told() == (503, 503)
    assert served["/livez"]()[2] == b"the loop is stuck for 100 s\n"
    metrics.stepped(dict)
    assert told() == (200, 200)
    stop.set()
    assert told() == (200, 503)
    assert json.loads(served["/readyz"]()[2]) == {"ready": False, "reason": "it is stopping"}


def test_metrics_are_served_with_the_processs_own() -> None:
    """In the text format of Prometheus, with the name of the service."""
    metrics = LoopMetrics("router", "7")
    status, kind, body = pages(metrics, threading.Event(), stuck_after_s=9)["/metrics"]()
    assert (status, kind.split(";")[0]) == (HTTPStatus.OK, "text/plain")
    assert b'metallm_service_info{provider="",service="router",slot="7",version=' in body
    assert b"process_start_time_seconds" in body


def test_what_alerts_look_for_is_there_at_0_before_it_happens() -> None:
    """A counter that is first seen at 1 has not increased for Prometheus."""
    metrics = LoopMetrics("router", "0")
    metrics.reads(["queries"])
    assert value(metrics, "dead_letters_total", topic="queries") == 0
    assert value(metrics, "records_total", topic="queries") == 0
    worker = CallMetrics("worker", "0", provider="acme")
    for outcome in ("answered", "forwarded", "timeout", "authentication", "worker_error"):
        assert value(worker, "results_total", outcome=outcome) == 0, outcome
    router = RouterMetrics("0")
    router.knows(catalogue(mini="acme"), None)
    assert value(router, "decisions_total", arm="mini") == 0
    learner = LearnerMetrics("0")
    learner.learned([(None, Interaction("q", decision=decision()))], Observed({}, ()))
    assert value(learner, "shifts_total", arm=decision().arm or "") == 0


def test_a_worker_tells_its_provider_and_a_router_whose_arms_there_are() -> None:
    """So that an alert can tell a provider whose arms nobody calls."""
    worker, router = CallMetrics("worker", "0", provider="acme"), RouterMetrics("0")
    own = {"slot": "0", "version": version("metallm-stream")}
    assert value(worker, "service_info", service="worker", provider="acme", **own) == 1
    arms = catalogue(mini="acme", large="acme", other="umbrella")
    router.knows(arms, None)
    assert value(router, "arms", provider="acme") == 2
    assert value(router, "arms", provider="umbrella") == 1
    arms.apply("other", None)
    router.knows(arms, None)
    assert value(router, "arms", provider="umbrella") == 0


def test_a_router_counts_decisions_by_arm_exploration_and_refusals() -> None:
    """And tells the policy in force and its time."""
    metrics = RouterMetrics("0")
    arms = {arm: Model(arm=arm, provider="p", model=arm) for arm in ("a", "b")}
    decided = [Decided(b"", b"", (arms[arm],), 0.25) for arm in ("a", "b", "a")]
    metrics.decided([*decided, Decided(b"", None, ())])
    metrics.decided(decided)
    assert value(metrics, "decisions_total", arm="a") == 4
    assert value(metrics, "decisions_total", arm="b") == 2
    assert value(metrics, "exploration_total") == 1.5
    assert value(metrics, "refusals_total") == 1
    metrics.knows(catalogue(a="p", b="p"), None)
    assert value(metrics, "policy_version") == 0
    published = policy()
    metrics.knows(catalogue(a="p", b="p", c="p"), published)
    assert value(metrics, "arms", provider="p") == 3
    assert value(metrics, "policy_version") == published.version
    published_at = published.manifest.published_at.timestamp()
    assert value(metrics, "policy_timestamp_seconds") == published_at


def test_a_router_tells_how_many_labels_of_each_arm_have_come_and_were_due() -> None:
    """Of those in the catalogue, by the policy in force."""
    metrics = RouterMetrics("0")
    published = policy(mini={"observations": 0.0, "calls": 300.0})
    metrics.knows(catalogue(big="p", mini="p"), published)
    assert value(metrics, "arm_labels", arm="big") == 100
    assert value(metrics, "arm_labels", arm="mini") == 0
    due = 300 * published.label_share
    assert value(metrics, "arm_labels_due", arm="mini") == pytest.approx(due)
    assert value(metrics, "arm_labels", arm="mid") is None
    metrics.knows(catalogue(big="p"), policy())
    assert value(metrics, "arm_labels", arm="mini") is None
    assert value(metrics, "arm_labels_due", arm="mini") is None


def test_a_worker_counts_results_tries_latency_and_spend() -> None:
    """By arm and by kind of failure; unknown costs add nothing."""
    metrics = CallMetrics("worker", "0")
    failed = attempt("mini", failure=FAILED, latency_s=60.0, cost_usd=None)
    metrics.ended(call(), result(attempts=(failed, attempt("mini", latency_s=0.2))))
    metrics.ended(call(), result(arm=None, attempts=(failed,)))
    assert value(metrics, "results_total", outcome="answered") == 1
    assert value(metrics, "results_total", outcome="timeout") == 1
    assert value(metrics, "attempts_total", arm="mini", outcome="timeout") == 2
    assert value(metrics, "attempts_total", arm="mini", outcome="answered") == 1
    assert value(metrics, "attempt_seconds_sum", arm="mini") == 120.2
    assert value(metrics, "attempt_seconds_bucket", arm="mini", le="0.25") == 1
    assert value(metrics, "spend_usd_total", arm="mini") == 0.001
    assert value(metrics, "fallbacks_total") == 0


def test_a_call_passed_on_is_counted_once_in_each_worker() -> None:
    """Where it came from as forwarded, and no try of the one in the other."""
    first, second = CallMetrics("worker", "0"), CallMetrics("worker", "0")
    failed = attempt("mini", failure=FAILED)
    first.ended(call(), Forward(call(failed)))
    answered = attempt("large")
    second.ended(call(failed), result(arm="large", attempts=(failed, answered, answered)))
    assert value(first, "results_total", outcome="forwarded") == 1
    assert value(first, "attempts_total", arm="mini", outcome="timeout") == 1
    assert value(first, "fallbacks_total") == 0
    assert value(second, "attempts_total", arm="mini", outcome="timeout") is None
    assert value(second, "attempts_total", arm="large", outcome="answered") == 2
    assert value(second, "fallbacks_total") == 1


def test_a_try_that_was_broken_off_is_no_latency_of_the_vendor() -> None:
    """It is counted among the tries."""
    metrics = CallMetrics("worker", "0")
    broken_off = Failure(kind="superseded", message="another arm answered first")
    tries = (attempt("mini", failure=broken_off, cost_usd=None), attempt("large"))
    metrics.ended(call(), result(arm="large", attempts=tries))
    assert value(metrics, "attempts_total", arm="mini", outcome="superseded") == 1
    assert value(metrics, "attempt_seconds_count", arm="mini") is None


def test_a_turn_of_the_loop_tells_what_it_took_and_what_is_in_flight() -> None:
    """Records add up, calls in flight do not."""
    metrics = CallMetrics("judge", "0")
    for in_flight in (5, 3):
        metrics.turned("cases", 2, in_flight=in_flight)
    assert value(metrics, "records_total", topic="cases") == 4
    assert value(metrics, "calls_in_flight") == 3


def test_circuits_are_open_or_closed_by_arm_or_for_the_whole_provider() -> None:
    """The star stands for all arms of the provider."""
    metrics = CallMetrics("worker", "0")
    told = {"provider": "p", "slot": "0", "since": START, "valid_until": datetime.now(UTC)}
    opened = ArmHealth(arm="mini", state="open", reason="timeout", **told)
    metrics.circuits([opened, ArmHealth(arm=None, state="open", reason="timeout", **told)])
    assert value(metrics, "circuit_open", arm="mini") == 1
    assert value(metrics, "circuit_open", arm="*") == 1
    metrics.circuits([ArmHealth(arm="mini", state="closed", **told)])
    assert value(metrics, "circuit_open", arm="mini") == 0
    assert value(metrics, "circuit_open", arm="*") == 1


def test_a_circuit_that_is_forgotten_has_no_sample() -> None:
    """Or an arm that was removed while it was down would raise its alert for ever."""
    metrics = CallMetrics("worker", "0")
    told = {"provider": "p", "arm": "mini", "slot": "0", "since": START}
    told["valid_until"] = datetime.now(UTC)
    metrics.circuits([ArmHealth(state="open", reason="timeout", **told)])
    for _ in range(2):
        metrics.circuits([ArmHealth(state="closed", reason="nobody has asked for it", **told)])
        assert value(metrics, "circuit_open", arm="mini") is None
    metrics.circuits([ArmHealth(state="open", reason="timeout", **told)])
    assert value(metrics, "circuit_open", arm="mini") == 1


def test_a_learner_counts_each_part_of_an_interaction_once() -> None:
    """Corrections and repetitions are no new parts; residuals and shifts are of arms."""
    metrics = LearnerMetrics("0")
    decided = Interaction("q", decision=decision())
    finished = Interaction("q", decision=decision(), result=result())
    judged = Interaction("q", decision(), result(), (feedback(),))
    watch = ArmWatch("adwin", recent=-0.25)
    drift = Drift("mini", "down", 0.0, -0.25)
    metrics.learned([(None, decided), (decided, finished)], Observed({}, ()))
    metrics.learned([(finished, judged), (judged, judged)], Observed({"mini": watch}, (drift,)))
    for part in ("decision", "result", "feedback"):
        assert value(metrics, "interactions_total", part=part) == 1, part
    assert value(metrics, "residual", arm="mini") == -0.25
    assert value(metrics, "shifts_total", arm="mini") == 1
