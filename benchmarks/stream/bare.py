"""A bare asyncio loop on the wire that workers use, without Kafka: what a worker is compared with.

    python -m benchmarks.stream.bare URL TEXTS.json --concurrency 500
    python -m benchmarks.stream.bare URL TEXTS.json --rate 100

TEXTS.json says for each text how many seconds the vendor takes by itself. Prints one JSON object:
all at once the rate, evenly at RATE calls a second what is added to the vendor's time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import SecretStr

from metallm_stream.events import Generation, Model
from metallm_stream.providers import Provider, ProviderSettings, open_provider

MODEL = Model(arm="m", provider="recorded", model="m")


def main() -> None:
    """Ask every text once."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url")
    parser.add_argument("texts", type=Path)
    parser.add_argument("--concurrency", type=int, default=500)
    parser.add_argument("--rate", type=float)
    options = parser.parse_args()
    print(json.dumps(asyncio.run(ask(options) if options.rate is None else paced(options))))


async def ask(options: argparse.Namespace) -> dict[str, float]:
    """Calls a second, and processor time a call."""
    texts, ended_s = json.loads(options.texts.read_text()), []
    provider, left = _provider(options), iter(enumerate(texts))

    async def work(left: Iterator[tuple[int, str]]) -> None:
        for number, text in left:
            await _call(provider, number, text)
            ended_s.append(time.perf_counter())

    began_s, cpu_began_s = time.perf_counter(), time.process_time()
    await asyncio.gather(*(work(left) for _ in range(options.concurrency)))
    took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_began_s
    await provider.close()
    return {
        "calls_per_s": sustained(ended_s),
        "cpu_ms_per_call": 1e3 * cpu_s / len(texts),
        "core_share": cpu_s / took_s,
    }


async def paced(options: argparse.Namespace) -> dict[str, Any]:
    """What a call takes beyond the vendor's time, from when it was due, in milliseconds."""
    own_s, added_ms = json.loads(options.texts.read_text()), []
    provider = _provider(options)
    began_s, cpu_began_s = time.perf_counter(), time.process_time()

    async def one(number: int, text: str) -> None:
        due_s = began_s + number / options.rate
        await asyncio.sleep(due_s - time.perf_counter())
        await _call(provider, number, text)
        added_ms.append(1e3 * (time.perf_counter() - due_s - own_s[text]))

    await asyncio.gather(*(one(*numbered) for numbered in enumerate(own_s)))
    cpu_s = time.process_time() - cpu_began_s
    await provider.close()
    return {"cpu_ms_per_call": 1e3 * cpu_s / len(own_s), "added_ms": percentiles(added_ms)}


def _provider(options: argparse.Namespace) -> Provider:
    settings = ProviderSettings(
        name="recorded",
        base_url=options.url,
        api_key=SecretStr(os.environ["VENDOR_KEY"]),
        max_connections=options.concurrency,
    )
    return open_provider(settings)


async def _call(provider: Provider, number: int, text: str) -> None:
    await provider.complete(
        MODEL,
        [{"role": "user", "content": text}],
        Generation(temperature=0),
        timeout_s=60,
        idempotency_key=f"bare-{number}",
    )


def sustained(ended_s: Sequence[float]) -> float:
    """Calls a second between the first and the last tenth of them, as start and tail say little."""
    ordered = sorted(ended_s)
    tenth = len(ordered) // 10
    return (len(ordered) - 2 * tenth) / (ordered[-tenth - 1] - ordered[tenth])


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """The 50th, 90th and 99th."""
    return {f"p{share}": round(float(np.percentile(values, share)), 1) for share in (50, 90, 99)}


if __name__ == "__main__":
    main()
