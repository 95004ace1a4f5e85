"""A bare asyncio loop on the wire that workers use, without Kafka: what a worker is compared with.

    python -m benchmarks.stream.bare URL TEXTS.json --concurrency 500

Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import SecretStr

from metallm_stream.events import Generation, Model
from metallm_stream.providers import ProviderSettings, open_provider

MODEL = Model(arm="m", provider="recorded", model="m")


def main() -> None:
    """Ask every text once."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url")
    parser.add_argument("texts", type=Path)
    parser.add_argument("--concurrency", type=int, default=500)
    options = parser.parse_args()
    print(json.dumps(asyncio.run(ask(options))))


async def ask(options: argparse.Namespace) -> dict[str, float]:
    """Calls a second, and processor time a call."""
    settings = ProviderSettings(
        name="recorded",
        base_url=options.url,
        api_key=SecretStr(os.environ["VENDOR_KEY"]),
        max_connections=options.concurrency,
    )
    texts, ended_s = json.loads(options.texts.read_text()), []
    provider, left = open_provider(settings), iter(enumerate(texts))

    async def work(left: Iterator[tuple[int, str]]) -> None:
        for number, text in left:
            await provider.complete(
                MODEL,
                [{"role": "user", "content": text}],
                Generation(temperature=0),
                timeout_s=60,
                idempotency_key=f"bare-{number}",
            )
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


def sustained(ended_s: Sequence[float]) -> float:
    """Calls a second between the first and the last tenth of them, as start and tail say little."""
    ordered = sorted(ended_s)
    tenth = len(ordered) // 10
    return (len(ordered) - 2 * tenth) / (ordered[-tenth - 1] - ordered[tenth])


if __name__ == "__main__":
    main()
