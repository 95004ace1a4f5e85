"""The recorded LLM without its server: recordings, latencies, faults, ledger."""

from __future__ import annotations

import gzip
import io
import json
import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metallm_stream.embedded.recorded_llm import (
    ChatRequest,
    Fault,
    Latency,
    Ledger,
    Outcome,
    SeededFaults,
    read_recording,
)
from metallm_stream.errors import ConfigurationError
from metallm_stream.events import Query
from metallm_stream.judge.dispatch import prompt


def request(
    text: str = "a", *, model: str = "mini", key: str = "k", number: int = 1
) -> ChatRequest:
    return ChatRequest(model, text, f"sha-{text}", key, number)


def test_both_forms_of_a_log_are_read(tmp_path: Path) -> None:
    """`cost` and `latency_ms` stand for `cost_usd` and `latency_s`; gzip is read as it is."""
    own = {"text": "a\u2028b", "outcomes": {"m": {"answer": "x", "cost_usd": 0.1, "latency_s": 2}}}
    other = {"query_id": "1", "text": "c", "task": "t", "outcomes": {"n": {"cost": 0.2}}}
    other["outcomes"]["n"]["latency_ms"] = 1_500
    plain, packed = tmp_path / "own.jsonl", tmp_path / "other.jsonl.gz"
    plain.write_text(json.dumps(own, ensure_ascii=False) + "\n\n", encoding="utf-8")
    packed.write_bytes(gzip.compress(json.dumps(other).encode()))
    recording = read_recording([plain, packed])
    assert recording.models == ("m", "n")
    assert recording.outcomes("a\u2028b")["m"].recorded_latency_s == 2
    assert recording.outcomes("c")["n"].cost_usd == 0.2
    assert recording.outcomes("c")["n"].recorded_latency_s == 1.5
    assert recording.outcomes("d") is None


def test_a_text_with_labels_is_known_by_its_prompt(tmp_path: Path) -> None:
    """What this service sends for a classification query finds the outcome of its text."""
    path = tmp_path / "log.jsonl"
    line = {"text": "Great!", "labels": ["good", "bad"], "outcomes": {"m": {"answer": "good"}}}
    path.write_text(json.dumps(line), encoding="utf-8")
    recording = read_recording([path])
    sent = prompt(Query(query_id="q", text="Great!", labels=("good", "bad")))[-1]["content"]
    assert recording.outcomes(sent)["m"].text == "good"
    assert recording.outcomes("Great!")["m"].text == "good"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"text": "a"}', "outcomes"),
        ('{"text": "a", "outcomes": {}}', "outcomes"),
        ('{"text": "a", "outcomes": {"m": {"cost": -1}}}', "cost"),
        ("not json", "Invalid JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, content: str, reason: str) -> None:
    """The message has file, line and reason."""
    path = tmp_path / "log.jsonl"
    path.write_text(f'\n{{"text": "b", "outcomes": {{"m": {{}}}}}}\n{content}', encoding="utf-8")
    with pytest.raises(ConfigurationError, match=rf"log\.jsonl, line 3: .*{reason}"):
        read_recording([path])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A recording that does not exist is a configuration error."""
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_recording([tmp_path / "none.jsonl"])


def test_what_was_not_recorded_is_said_or_estimated() -> None:
    """No answer text becomes a note, no tokens a quarter of the characters, no cost none."""
    outcome = Outcome(quality=0.5)
    assert "quality 0.5" in outcome.text
    assert outcome.prompt_tokens("x" * 41) == 11
    assert outcome.completion_tokens() == len(outcome.text) // 4 + (len(outcome.text) % 4 > 0)
    assert outcome.cost_usd is None


def test_recorded_latencies_are_scaled() -> None:
    """Without a mean, the log's latency counts; without either, an answer takes no time."""
    assert Latency(scale=0.1).of(Outcome(latency_s=2.0), "a") == pytest.approx(0.2)
    assert Latency().of(Outcome(), "a") == 0.0


def test_drawn_latencies_have_the_mean_and_depend_on_the_request_alone() -> None:
    """Log-normal draws average to the mean, and each request keeps its own in any order."""
    latency = Latency(mean_s=0.8, sigma=0.5, seed=3)
    drawn = [latency.of(None, str(n)) for n in range(4_000)]
    again = [latency.of(None, str(n)) for n in reversed(range(4_000))]
    assert statistics.fmean(drawn) == pytest.approx(0.8, rel=0.05)
    assert drawn == again[::-1]
    assert Latency(mean_s=0.8, seed=4).of(None, "1") != drawn[1]


@given(
    rates=st.dictionaries(st.sampled_from(list(Fault)), st.floats(0, 0.05), max_size=10),
    seed=st.integers(),
    number=st.integers(1, 9),
)
def test_faults_are_a_function_of_the_request(
    rates: dict[Fault, float], seed: int, number: int
) -> None:
    """The same request fails the same way every time, and only in ways with a rate."""
    faults = SeededFaults(rates, seed=seed)
    struck = faults(request(number=number))
    assert struck == faults(request(number=number))
    assert struck is None or rates[struck] > 0


def test_faults_strike_at_their_rates() -> None:
    """Over many requests each fault has about its share."""
    faults = SeededFaults({Fault.SERVER_ERROR: 0.1, Fault.RATE_LIMITED: 0.3}, seed=1)
    struck = [faults(request(str(n))) for n in range(4_000)]
    assert struck.count(Fault.SERVER_ERROR) / 4_000 == pytest.approx(0.1, abs=0.02)
    assert struck.count(Fault.RATE_LIMITED) / 4_000 == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize("rates", [(0.6, 0.6), (-0.1, 0.2), (1.5, 0.0)])
def test_impossible_rates_are_refused(rates: tuple[float, float]) -> None:
    """Rates outside [0, 1], alone or together, are a configuration error."""
    with pytest.raises(ConfigurationError, match="together at most 1"):
        SeededFaults(dict(zip((Fault.RESET, Fault.HANG), rates, strict=True)))


def test_the_ledger_counts_requests_charges_and_spend() -> None:
    """Totals, models and single calls agree, uncharged and unpriced requests told apart."""
    file = io.StringIO()
    ledger = Ledger(file)
    ledger.book(request(), fault=None, charged=True, cost_usd=0.5)
    ledger.book(request(number=2), fault=Fault.HTML, charged=False, cost_usd=0.5)
    ledger.book(request(model="large"), fault=None, charged=True, cost_usd=None)
    summary = ledger.summary()
    assert (summary["requests"], summary["charged"], summary["unpriced"]) == (3, 2, 1)
    assert summary["spend_usd"] == 0.5
    assert summary["models"]["mini"]["requests"] == 2
    assert ledger.number("k", "mini", "sha-a") == 3
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    assert [line["cost_usd"] for line in lines] == [0.5, 0.0, None]
    assert [line["fault"] for line in lines] == [None, "html", None]
