"""When circuits open and close, what passes meanwhile, and what is told of them."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime, timedelta

import pytest

from metallm_stream.events import FailureKind, Model
from metallm_stream.providers import Answer, Circuits, ProviderFailure
from metallm_stream.providers.circuit import BEAT_S, IDLE_S, LATE_S, RETRY_AFTER_S, VALID_S

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINI = Model(arm="mini", provider="here", model="m")
MAXI = Model(arm="maxi", provider="here", model="x")
WELL = Answer("4")
OPENING = 5  # failures: half of ten tries


class HandClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        """The time."""
        return NOW + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        """Seconds since the start."""
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        """Pass so much time."""
        self.seconds += seconds


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


class Observed(Circuits):
    """Circuits whose clock a test can read."""

    def __init__(self, clock: HandClock) -> None:
        super().__init__("here", "0", 0.5, clock)
        self.clock = clock


@pytest.fixture
def circuits(clock: HandClock) -> Observed:
    return Observed(clock)


def failed(kind: FailureKind) -> ProviderFailure:
    return ProviderFailure(kind, "by the test", retriable=True)


def run(
    circuits: Observed, *ended: Answer | FailureKind, model: Model = MINI, latency_s: float = 0.0
) -> None:
    """Tries that end like this, one after the other."""
    for one in ended:
        began_s = circuits.clock.monotonic() - latency_s
        circuits.begin(model, began_s)
        circuits.leave(model, one if isinstance(one, Answer) else failed(one), began_s)


def is_open(circuits: Observed, model: Model = MINI) -> bool:
    return circuits.enter(model).barred is not None


def test_a_high_share_of_failures_opens(circuits: Observed) -> None:
    """Half of the recent tries, or of ten if they are fewer."""
    run(circuits, WELL, *["server_error"] * (OPENING - 1), WELL)
    assert not is_open(circuits)
    run(circuits, "timeout")
    assert is_open(circuits)
    assert not is_open(circuits, MAXI)


def test_single_failures_do_not_open(circuits: Observed) -> None:
    """Two of five are below the share."""
    for _ in range(20):
        run(circuits, WELL, WELL, WELL, "server_error", "connection")
    assert not is_open(circuits)


@pytest.mark.parametrize(
    "kind", ["bad_request", "refused", "context_too_long", "unsupported", "rate_limited"]
)
def test_what_is_not_the_vendors_trouble_does_not_open(
    circuits: Observed, kind: FailureKind
) -> None:
    """Refused requests and rate limits have other remedies."""
    run(circuits, *[kind] * 50)
    assert not is_open(circuits)


def test_a_timeout_says_nothing_of_the_host(circuits: Observed, clock: HandClock) -> None:
    """Neither that it is reached nor that it is not: only an answer closes its circuit."""
    run(circuits, *["connection"] * OPENING)
    clock.seconds = RETRY_AFTER_S
    run(circuits, "timeout")
    assert not is_open(circuits, MAXI)  # the probe
    assert is_open(circuits, MAXI)
    run(circuits, WELL)
    assert not is_open(circuits, MAXI)


def test_tries_that_hung_before_others_began_do_not_open(
    circuits: Observed, clock: HandClock
) -> None:
    """Their timeouts come together, and later than what tells how the vendor does now."""
    for second in range(1, 61):
        clock.seconds = float(second)
        run(circuits, WELL, latency_s=0.5)
    run(circuits, *["timeout"] * 20, latency_s=30.0)
    assert not is_open(circuits)
    run(circuits, *["timeout"] * 10, latency_s=0.1)
    assert is_open(circuits)


def test_failures_among_tries_that_still_run_do_not_open(
    circuits: Observed, clock: HandClock
) -> None:
    """Errors come at once and answers take their time: of a hundred that began, ten have failed."""
    for _ in range(100):
        circuits.begin(MINI, 0.0)
    clock.seconds = 0.01
    for _ in range(9):
        circuits.leave(MINI, failed("server_error"), 0.0)
    assert not is_open(circuits)
    clock.seconds = 2.0
    for _ in range(91):
        circuits.leave(MINI, WELL, 0.0)
    assert not is_open(circuits)


def test_tries_that_hang_since_before_do_not_hide_an_outage(
    circuits: Observed, clock: HandClock
) -> None:
    """Those that begin now all fail."""
    for _ in range(100):
        circuits.begin(MINI, 0.0)
    clock.seconds = 1.0
    run(circuits, *["connection"] * 10)
    assert is_open(circuits)


def test_tries_that_all_hang_open(circuits: Observed, clock: HandClock) -> None:
    """By the first that runs into its timeout: the others wait for as long."""
    for number in range(100):
        circuits.begin(MINI, number / 100)
    clock.seconds = 30
    assert not is_open(circuits)
    circuits.leave(MINI, failed("timeout"), 0.0)
    assert is_open(circuits)


def test_an_outage_in_which_most_tries_hang_opens(circuits: Observed, clock: HandClock) -> None:
    """Though newer ones hang than those that fail at once: soon after they should have ended."""
    for _ in range(20):
        run(circuits, WELL, latency_s=0.5)
    for tenth in range(100):
        clock.seconds = 1 + tenth / 10
        circuits.begin(MINI, clock.seconds)
        if tenth % 5 == 0:
            circuits.leave(MINI, failed("server_error"), clock.seconds)
        if is_open(circuits):
            break
    assert LATE_S < clock.seconds < 3 * LATE_S


def test_errors_that_take_as_long_as_answers_open(circuits: Observed, clock: HandClock) -> None:
    """However many are in flight: those that began before have had as much time."""
    for number in range(200):
        circuits.begin(MINI, number / 100)
    for number in range(OPENING):
        assert not is_open(circuits)
        clock.seconds = 2 + number / 100
        circuits.leave(MINI, failed("server_error"), number / 100)
    assert is_open(circuits)


def test_failures_of_long_ago_do_not_count(circuits: Observed, clock: HandClock) -> None:
    """Four failures now and one a minute later are not five."""
    run(circuits, *["timeout"] * 4)
    clock.seconds = 60
    run(circuits, "timeout")
    assert not is_open(circuits)


def test_a_deadline_counts_if_it_left_time(circuits: Observed, clock: HandClock) -> None:
    """A query in a hurry is no evidence; one that waited long beyond the usual is."""
    run(circuits, *[WELL] * 20, latency_s=1.0)
    run(circuits, *["deadline"] * 40, latency_s=2.0)
    assert not is_open(circuits)
    clock.seconds = 10
    run(circuits, *["deadline"] * 20, latency_s=4.0)
    assert is_open(circuits)


def test_queries_in_a_hurry_do_not_open_where_nothing_is_known(circuits: Observed) -> None:
    """A cold worker knows no usual latency; what has waited for long has failed all the same."""
    run(circuits, *["deadline"] * 20, latency_s=0.02)
    assert not is_open(circuits)
    run(circuits, *["deadline"] * OPENING, latency_s=LATE_S + 1)
    assert is_open(circuits)


def test_an_open_circuit_lets_one_try_pass_now_and_then(
    circuits: Observed, clock: HandClock
) -> None:
    """Also while earlier ones are still waiting for their answer."""
    run(circuits, *["timeout"] * OPENING)
    passed = []
    for tenth in range(100):
        clock.seconds = tenth / 10
        passed.append(not is_open(circuits))
    assert sum(passed) == 9 / RETRY_AFTER_S
    assert passed.index(True) == RETRY_AFTER_S * 10


def test_the_first_answer_closes(circuits: Observed, clock: HandClock) -> None:
    """And what failed before is forgotten; a late answer to an earlier try does not close."""
    run(circuits, *["timeout"] * OPENING)
    clock.seconds = RETRY_AFTER_S
    run(circuits, WELL, latency_s=30.0)
    assert not is_open(circuits)  # the probe
    assert is_open(circuits)
    run(circuits, WELL)
    run(circuits, "timeout")
    assert not is_open(circuits)


def test_what_began_in_an_outage_says_nothing_after_it(
    circuits: Observed, clock: HandClock
) -> None:
    """Probes that hang until long after the end do not open the circuit again."""
    run(circuits, *["timeout"] * OPENING)
    clock.seconds = 60.0
    run(circuits, WELL)
    clock.seconds = 90.0
    run(circuits, *["timeout"] * 30, latency_s=60.0)
    assert not is_open(circuits)
    run(circuits, *["timeout"] * OPENING, latency_s=20.0)
    assert is_open(circuits)


def test_broken_connections_open_for_the_whole_provider(
    circuits: Observed, clock: HandClock
) -> None:
    """An arm that was never tried is not asked; any response opens the way again."""
    run(circuits, *["connection"] * OPENING)
    assert is_open(circuits, MAXI)
    assert {(h.arm, h.state) for h in circuits.news()} == {("mini", "open"), (None, "open")}
    clock.seconds = RETRY_AFTER_S
    assert not is_open(circuits, MAXI)
    run(circuits, "server_error", model=MAXI)
    assert not is_open(circuits, MAXI)


def test_what_changes_is_told_once_and_all_in_use_with_every_beat(
    circuits: Observed, clock: HandClock
) -> None:
    """With the reason, and for how long it holds; an arm that is not used any more is not told."""
    circuits.news()
    run(circuits, WELL, model=MAXI)
    run(circuits, *["server_error"] * OPENING)
    (told,) = circuits.news()
    assert (told.arm, told.state, told.since, told.slot) == ("mini", "open", NOW, "0")
    assert told.reason == "5 of 5 tries failed; the last: server_error: by the test"
    assert told.retry_at == NOW + timedelta(seconds=RETRY_AFTER_S)
    assert told.valid_until == NOW + timedelta(seconds=VALID_S)
    assert told.key == "here/mini/0"
    assert circuits.news() == []
    clock.seconds = BEAT_S
    assert {h.arm: h.state for h in circuits.news()} == {
        "mini": "open",
        "maxi": "closed",
        None: "closed",
    }
    circuits.enter(MINI)
    clock.seconds = IDLE_S + BEAT_S
    assert not is_open(circuits)  # the probe
    assert {(h.arm, h.state) for h in circuits.news()} == {("mini", "open")}


def test_an_open_circuit_that_nobody_asks_for_is_forgotten(
    circuits: Observed, clock: HandClock
) -> None:
    """As of an arm that was removed; it is told once more, as closed, and why."""
    run(circuits, *["connection"] * OPENING)
    circuits.news()
    clock.seconds = IDLE_S - 1
    assert {(h.arm, h.state) for h in circuits.news()} == {("mini", "open"), (None, "open")}
    clock.seconds = IDLE_S + BEAT_S
    told = circuits.news()
    assert {(h.arm, h.state, h.reason) for h in told} == {
        ("mini", "closed", "nobody has asked for it for 60 s"),
        (None, "closed", "nobody has asked for it for 60 s"),
    }
    clock.seconds += BEAT_S
    assert circuits.news() == []
    run(circuits, *["connection"] * (OPENING - 1))
    assert not is_open(circuits)
    run(circuits, "connection")
    assert is_open(circuits)


def test_an_open_circuit_that_is_asked_for_stays_open(circuits: Observed, clock: HandClock) -> None:
    """For as long as the outage lasts, also for an arm whose calls its provider's circuit bars."""
    run(circuits, *["connection"] * OPENING)
    for _ in range(100):
        clock.seconds += RETRY_AFTER_S
        circuits.enter(MAXI)
        circuits.enter(MINI)
        assert all(health.state == "open" for health in circuits.news())
    assert is_open(circuits)


def test_an_open_circuit_with_a_try_in_flight_is_not_forgotten(
    circuits: Observed, clock: HandClock
) -> None:
    """However long it takes: its answer closes the circuit."""
    run(circuits, *["timeout"] * OPENING)
    clock.seconds = RETRY_AFTER_S
    circuits.begin(MINI, RETRY_AFTER_S)
    clock.seconds = 2 * IDLE_S
    assert {h.state for h in circuits.news()} == {"open"}
    circuits.leave(MINI, WELL, RETRY_AFTER_S)
    assert {(h.state, h.reason) for h in circuits.news() if h.arm == "mini"} == {("closed", None)}


def test_what_is_remembered_does_not_grow(circuits: Observed, clock: HandClock) -> None:
    """Ten tries a second: after some minutes as many are forgotten as are added."""

    def serve(seconds: int) -> int:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(10 * seconds):
            clock.seconds += 0.1
            run(circuits, WELL, latency_s=0.5)
        return tracemalloc.get_traced_memory()[0] - before

    tracemalloc.start()
    try:
        warm_up, later = serve(300), serve(900)
    finally:
        tracemalloc.stop()
    assert warm_up > 10_000
    assert later < warm_up / 2
