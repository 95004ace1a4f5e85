"""The recorded LLM as a process of its own, seen from outside."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from metallm_stream.embedded.recorded_llm import Outcome, RecordedLLM, Recording

KEY = "sk-recorded"
TEXTS = [f"question {n}" for n in range(50)]
COST_USD = 0.0003

Start = Callable[..., tuple[subprocess.Popen[str], int]]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Fifty texts, each answered by two models."""
    path = tmp_path / "recording.jsonl"
    outcomes = {
        "mini": {"answer": "short", "cost": COST_USD, "input_tokens": 5, "output_tokens": 1},
        "large": {"answer": "long", "cost": 0.02, "input_tokens": 5, "output_tokens": 90},
    }
    lines = [json.dumps({"text": text, "outcomes": outcomes}) for text in TEXTS]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def start(recording: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts the server and waits until it says that it listens; ends what is still running."""
    running: list[subprocess.Popen[str]] = []

    def run(*options: str) -> tuple[subprocess.Popen[str], int]:
        port_file = tmp_path / f"port-{len(running)}"
        command = [sys.executable, "-m", "metallm_stream.cli", "recorded-llm", str(recording)]
        command += ["--port-file", str(port_file), *options]
        environment = os.environ | {"METALLM_RECORDED_LLM_KEY": KEY, "PYTHONWARNINGS": "error"}
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        running.append(process)
        assert process.stdout is not None
        assert "listening" in process.stdout.readline()
        return process, int(port_file.read_text(encoding="utf-8"))

    yield run
    for process in running:
        process.kill()
        process.communicate()


@asynccontextmanager
async def session(port: int, key: str = KEY) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": f"Bearer {key}"}
    base_url = f"http://127.0.0.1:{port}"
    async with aiohttp.ClientSession(base_url, headers=headers) as client:
        yield client


async def chat(
    client: aiohttp.ClientSession, text: str, *, model: str = "mini", key: str = "k"
) -> tuple[int, Any]:
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    headers = {"Idempotency-Key": key}
    async with client.post("/v1/chat/completions", json=body, headers=headers) as response:
        return response.status, await response.json()


def test_it_answers_bills_and_stops(start: Start, tmp_path: Path) -> None:
    """Answers come as recorded, ledger and ledger file agree with them, SIGTERM ends it cleanly."""
    ledger_file = tmp_path / "ledger.jsonl"
    process, port = start("--ledger-file", str(ledger_file))

    async def scene() -> None:
        async with session(port) as client:
            for n, text in enumerate(TEXTS):
                status, answer = await chat(client, text, key=f"key-{n}")
                assert status == 200
                assert answer["choices"][0]["message"]["content"] == "short"
                assert answer["usage"]["cost"] == COST_USD
            await chat(client, TEXTS[0], key="key-0")
            async with client.get("/ledger") as response:
                ledger = await response.json()
        assert (ledger["requests"], len(ledger["calls"])) == (51, 50)
        assert ledger["spend_usd"] == pytest.approx(51 * COST_USD)
        assert ledger["models"].keys() == {"mini"}
        assert max(call["requests"] for call in ledger["calls"]) == 2

    asyncio.run(scene())
    lines = [json.loads(line) for line in ledger_file.read_text(encoding="utf-8").splitlines()]
    assert sum(line["cost_usd"] for line in lines) == pytest.approx(51 * COST_USD)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, "")


def test_what_it_does_not_know_gets_the_vendors_kind_of_error(start: Start) -> None:
    """Unknown models and texts, wrong keys and unreadable requests have status, type and code."""
    _, port = start()

    async def scene() -> None:
        async with session(port) as client:
            assert await code(chat(client, "never recorded")) == (404, "recording_not_found")
            assert await code(chat(client, TEXTS[0], model="x")) == (404, "model_not_found")
            for wrong in (b"{", b"[]", b'{"model": "mini", "messages": []}'):
                async with client.post("/v1/chat/completions", data=wrong) as response:
                    assert response.status == 400
                    assert (await response.json())["error"]["type"] == "invalid_request_error"
        for key in ("wrong", ""):
            async with session(port, key) as client:
                assert await code(chat(client, TEXTS[0])) == (401, "invalid_api_key")

    async def code(answer: Any) -> tuple[int, str]:
        status, body = await answer
        return status, body["error"]["code"]

    asyncio.run(scene())


def test_faults_and_latency_are_set_from_the_command_line(start: Start) -> None:
    """Rates hold over many requests, and the same seed strikes the same requests."""
    options = ("--fault", "server_error=0.3", "--latency-mean-s", "0.02", "--seed", "4")

    async def statuses(port: int) -> list[int]:
        async with session(port) as client:
            answers = await asyncio.gather(*(chat(client, text) for text in TEXTS))
        return [status for status, _ in answers]

    runs = [asyncio.run(statuses(start(*options)[1])) for _ in range(2)]
    assert runs[0] == runs[1]
    assert 5 <= runs[0].count(500) <= 25
    assert set(runs[0]) == {200, 500}


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        (["--fault", "nonsense=1"], 1, "faults: server_error"),
        (["--fault", "html=0.7", "--fault", "reset=0.7"], 1, "together at most 1"),
        (["--fault", "html=often"], 2, "no NAME=RATE"),
        (["--latency-mean-s", "nan"], 2, "not a finite number"),
        (["/nowhere/none.jsonl"], 2, "does not exist"),
    ],
)
def test_bad_arguments_end_with_their_reason(
    recording: Path, options: list[str], code: int, reason: str
) -> None:
    """Wrong rates and files end the process with a message and no traceback."""
    command = [sys.executable, "-m", "metallm_stream.cli", "recorded-llm", str(recording)]
    ran = subprocess.run(
        [*command, *options], capture_output=True, text=True, check=False, timeout=30
    )
    assert ran.returncode == code
    assert reason in ran.stderr
    assert "Traceback" not in ran.stderr


def test_it_costs_less_than_a_core_at_300_requests_a_second(start: Start) -> None:
    """Processor time a request, which is what one core can do, whoever else uses the machine."""
    process, port = start()
    requests = 1_500

    async def scene() -> None:
        async with session(port) as client:
            for _ in range(requests // len(TEXTS)):
                await asyncio.gather(*(chat(client, text) for text in TEXTS))

    before_s = processor_s(process.pid)
    asyncio.run(scene())
    assert (processor_s(process.pid) - before_s) / requests < 1 / 300


def processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_client_that_hangs_up_is_charged_and_the_server_goes_on() -> None:
    """A request is booked when it is accepted, as by a real vendor."""

    async def scene() -> None:
        recording = Recording({"a": {"mini": Outcome(cost_usd=1.0, latency_s=30.0)}})
        accepted = asyncio.Event()
        async with RecordedLLM(recording, faults=lambda _request: accepted.set()) as server:
            async with session(server.port, "any") as client:
                task = asyncio.create_task(chat(client, "a"))
                await asyncio.wait_for(accepted.wait(), timeout=10)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                status, _ = await chat(client, "unknown")
            assert (status, server.ledger.summary()["spend_usd"]) == (404, 1.0)

    asyncio.run(scene())
