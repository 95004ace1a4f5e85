"""Twenty kinds of vendors' faults: one result a query, nothing retried in vain, every cent booked.

    python -m benchmarks.stream.faults --calls 5000

Two vendors with two arms each answer through two workers; each fault strikes with the same
probability, by a seed. Prints one JSON object, or fails with what is wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import Message

from benchmarks.stream.stage import Stage, open_stage
from metallm_stream.embedded.recorded_llm import Fault
from metallm_stream.events import Call, Model, Query, Result
from metallm_stream.kafka import Record, write
from metallm_stream.providers import idempotency_key

PROVIDERS = ("left", "right")
ARMS = {
    provider: [
        Model(arm=f"{provider}/{size}", provider=provider, model=f"{provider}-{size}")
        for size in ("small", "large")
    ]
    for provider in PROVIDERS
}
COST_USD = {
    "left-small": 0.00113,
    "left-large": 0.0217,
    "right-small": 0.00071,
    "right-large": 0.03,
}
TRIES = 3
FINAL = {
    *(Fault.UNAUTHORIZED, Fault.OUT_OF_QUOTA, Fault.BAD_REQUEST, Fault.CONTEXT_TOO_LONG),
    *(Fault.REFUSAL, Fault.CONTENT_FILTER, Fault.COMPRESSED, Fault.REDIRECT),
}  # and oversized answers, unless they are cut off by a timeout before that is seen
FINAL_KINDS = {"authentication", "bad_request", "unsupported", "context_too_long", "refused"}
Line = Mapping[str, Any]


def main() -> None:
    """Run, audit, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=5_000)
    parser.add_argument("--rate", type=float, default=0.015, help="Of each fault.")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with open_stage(*PROVIDERS) as stage:
        figures = run(stage, options.calls, rate=options.rate, seed=options.seed)
    print(json.dumps(figures, indent=2))


def run(stage: Stage, count: int, *, rate: float, seed: int) -> dict[str, Any]:
    """Answer `count` calls under faults and audit what came of them; raises `AssertionError`."""
    texts = [f"Question {number}" for number in range(count)]
    ledgers = {name: stage.directory / f"{name}.ledger" for name in PROVIDERS}
    for provider in PROVIDERS:
        known = {
            arm.model: {"answer": "yes", "cost": COST_USD[arm.model], "input_tokens": 9}
            for arm in ARMS[provider]
        }
        faults = [f"--fault={fault}={rate}" for fault in Fault]
        books = ["--ledger-file", str(ledgers[provider]), "--retry-after-s", "0.05"]
        latency = ["--latency-mean-s", "0.02", "--seed", str(seed)]
        stage.vendor(provider, dict.fromkeys(texts, known), *faults, *books, *latency)
    for provider in PROVIDERS:
        settings = {"CONCURRENCY": "100", "ATTEMPT_TIMEOUT_S": "5", "TRIES": str(TRIES)}
        worker = {f"WORKER__{name}": value for name, value in settings.items()}
        stage.start("worker", "--provider", provider, **worker, WORKER__BACKOFF_S="0.05")
    began_s = time.monotonic()
    calls = [_call(number, text) for number, text in enumerate(texts)]
    topics = [stage.names.calls(call.ranking[0].provider) for call in calls]
    pairs = zip(topics, calls, strict=True)
    write(stage.producer, [Record.of(topic, call.call_id, call) for topic, call in pairs])
    results: dict[str, list[Result]] = defaultdict(list)

    def seen(message: Message) -> None:
        result = Result.parse(message.value())
        results[result.query_id].append(result)

    with stage.reader(stage.names.results) as consumer:
        stage.read(consumer, count, seen, 600)
        for message in consumer.consume(500, 2.0):  # what comes beyond is one too many
            if message.error() is None:
                seen(message)
    took_s = time.monotonic() - began_s
    lines = [
        json.loads(line) for path in ledgers.values() for line in path.read_text().splitlines()
    ]
    return {"seconds": round(took_s, 1), **audit(calls, results, lines)}


def audit(
    calls: Sequence[Call], results: Mapping[str, Sequence[Result]], lines: Sequence[Line]
) -> dict[str, Any]:
    """What the results say beside what the vendors' books say; raises `AssertionError`."""
    assert results.keys() == {call.query.query_id for call in calls}, "a query has no result"
    assert all(len(found) == 1 for found in results.values()), "a query has two results"
    ended = [found[0] for found in results.values()]
    spent_usd = sum(result.cost_usd for result in ended)
    charged_usd = sum(line["cost_usd"] for line in lines)
    assert abs(spent_usd - charged_usd) < 0.005, f"{spent_usd} booked, {charged_usd} charged"
    attempts = [attempt for result in ended for attempt in result.attempts]
    broken = sum(one.failure is not None and one.failure.kind == "connection" for one in attempts)
    assert len(lines) <= len(attempts) <= len(lines) + broken, "an attempt is not in the books"
    by_key: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        by_key[line["idempotency_key"]].append(line)
    keys = {idempotency_key(call.call_id, arm.arm): call for call in calls for arm in call.ranking}
    for key, tries in by_key.items():
        assert key in keys, "a request with a key of nobody's"
        assert len(tries) <= TRIES, "an arm was tried too often"
        for line in tries[:-1]:
            assert line["fault"] is not None, "asked again after an answer"
            assert Fault(line["fault"]) not in FINAL, f"{line['fault']} was retried"
    for result in ended:
        _audit_arms(result)
        kinds = [one.failure.kind for one in result.attempts if one.failure is not None]
        assert kinds[:-1].count("bad_request") < 2, "somebody was asked after a malformed request"
    return {
        "calls": len(calls),
        "answered": sum(result.failure is None for result in ended),
        "failures": dict(Counter(r.failure.kind for r in ended if r.failure is not None)),
        "requests": len(lines),
        "faults": dict(Counter(line["fault"] for line in lines if line["fault"] is not None)),
        "skipped": dict(Counter(one.reason.kind for r in ended for one in r.skipped)),
        "spent_usd": round(spent_usd, 6),
        "charged_usd": round(charged_usd, 6),
    }


def _audit_arms(result: Result) -> None:
    """No arm is tried again after a failure that can only come again."""
    final: set[str] = set()
    for attempt in result.attempts:
        assert attempt.arm not in final, f"{attempt.arm} was retried: {result.attempts}"
        failure = attempt.failure
        if failure is None or failure.kind in FINAL_KINDS or "longer than" in failure.message:
            final.add(attempt.arm)


def _call(number: int, text: str) -> Call:
    first, second = PROVIDERS if number % 2 else PROVIDERS[::-1]
    pairs = zip(ARMS[first], ARMS[second], strict=True)
    return Call(
        call_id=hashlib.sha256(text.encode()).hexdigest()[:32],
        query=Query(query_id=f"q{number}", text=text),
        ranking=tuple(arm for pair in pairs for arm in pair),
        decided_at=datetime.now(UTC),
    )


if __name__ == "__main__":
    main()
