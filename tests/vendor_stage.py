"""A stage for calls: the real answering loop and SDK against a vendor with a script of faults."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from metallm_stream.embedded.recorded_llm import ChatRequest, Fault, Outcome, RecordedLLM, Recording
from metallm_stream.events import Attempt, Call, Generation, Model, Query, Result
from metallm_stream.judge.dispatch import parse, prompt
from metallm_stream.providers import (
    AnswerSettings,
    Circuits,
    Forward,
    Guard,
    Provider,
    ProviderSettings,
    Shares,
    answer_call,
    open_provider,
)

TEXT = "What is 2 + 2?"
NAMES = ("a", "b", "c", "d")
COST_USD = {"a": 0.001, "b": 0.02, "c": 0.3, "d": 0.0004}
LONG = "long"
NUL = "nul"


class SkippingClock:
    """The machine's clock, but waiting costs no time: it is skipped and noted."""

    def __init__(self) -> None:
        self.waits_s: list[float] = []

    def now(self) -> datetime:
        """Real time and what was skipped."""
        return datetime.now(UTC) + timedelta(seconds=sum(self.waits_s))

    def monotonic(self) -> float:
        """Real time and what was skipped."""
        return time.monotonic() + sum(self.waits_s)

    async def sleep(self, seconds: float) -> None:
        """Skip the wait."""
        self.waits_s.append(seconds)


class FrozenClock(SkippingClock):
    """Time that passes only where somebody waits."""

    def monotonic(self) -> float:
        """What was waited."""
        return sum(self.waits_s)


@dataclass
class Stage:
    """A vendor with a script of faults, a provider that talks to it, and the loop they run on."""

    runner: asyncio.Runner
    server: RecordedLLM | None = None
    provider: Provider | None = None
    script: Iterator[Fault | None] = field(default_factory=lambda: itertools.repeat(None))
    scripts: dict[str, list[Fault]] = field(default_factory=dict)
    seen: list[ChatRequest] = field(default_factory=list)

    def strike(self, request: ChatRequest) -> Fault | None:
        """Note the request and take the next fault of its model's script, or of the common one."""
        self.seen.append(request)
        own = self.scripts.get(request.model)
        return own.pop(0) if own else next(self.script)

    def answer(self, call: Call, *faults: Fault | None, **options: Any) -> Result | Forward:
        """Run `answer_call` with these faults first and answers afterwards."""
        return self.runner.run(self.answering(call, *faults, **options))

    async def answering(
        self,
        call: Call,
        *faults: Fault | None,
        clock: Any = None,
        guard: Guard | None = None,
        scripts: Mapping[str, Sequence[Fault]] | None = None,
        **changed: Any,
    ) -> Result | Forward:
        """The same in a loop that runs already; `scripts` are of single models."""
        assert self.provider is not None
        clock = SkippingClock() if clock is None else clock
        self.seen.clear()
        self.scripts = {name: list(own) for name, own in (scripts or {}).items()}
        self.script = itertools.chain(faults, itertools.repeat(None))
        return await answer_call(
            call,
            self.provider,
            prompt=prompt,
            parse=parse,
            settings=AnswerSettings(**changed),
            clock=clock,
            rng=np.random.default_rng(5),
            guard=guard or open_guard(clock),
        )


@contextmanager
def open_stage() -> Iterator[Stage]:
    """One vendor and one provider, closed at the end."""
    outcomes = {
        name: Outcome(answer="4", cost_usd=cost, input_tokens=10, output_tokens=2)
        for name, cost in COST_USD.items()
    }
    outcomes[LONG] = Outcome(answer="\u0001" * 1_000, cost_usd=0.5)
    outcomes[NUL] = Outcome(answer="fo\x00ur", cost_usd=0.5)
    with asyncio.Runner() as runner:
        stage = Stage(runner)
        server = RecordedLLM(Recording({TEXT: outcomes}), faults=stage.strike, retry_after_s=2.5)
        stage.server = runner.run(server.__aenter__())
        stage.provider = open_provider(
            ProviderSettings(name="here", base_url=server.base_url, api_key="key")
        )
        yield stage
        runner.run(stage.provider.close())
        runner.run(server.__aexit__(None, None, None))


def open_guard(clock: Any) -> Guard:
    """A guard without limits."""
    return Guard(Circuits("here", "0", 0.5, clock), Shares(), 64, clock)


def arm(name: str, provider: str = "here") -> Model:
    """An arm of the stage's vendor, or of another."""
    return Model(arm=f"{provider}/{name}", provider=provider, model=name)


def call_of(*ranking: Model, **changed: Any) -> Call:
    """A call with this ranking."""
    return Call.model_validate(
        {
            "call_id": "call-1",
            "query": Query(query_id="q-1", text=TEXT, generation=Generation(temperature=0)),
            "ranking": ranking,
            "decided_at": datetime.now(UTC),
        }
        | changed
    )


def kinds(attempts: Sequence[Attempt]) -> list[tuple[str, str | None]]:
    """Arm and kind of failure of each attempt."""
    return [(one.arm, one.failure.kind if one.failure else None) for one in attempts]
