"""What was asked and charged, as the vendor's own books have it.

Invariant: a request is booked when it is accepted, before its answer is sent, so a client that
hangs up is charged all the same, as by a real vendor.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TextIO

from metallm_stream.embedded.recorded_llm.faults import ChatRequest, Fault


@dataclass(slots=True)
class _Line:
    requests: int = 0
    charged: int = 0
    spend_usd: float = 0.0
    unpriced: int = 0

    def add(self, *, charged: bool, cost_usd: float | None) -> None:
        self.requests += 1
        self.charged += charged
        self.unpriced += charged and cost_usd is None
        self.spend_usd += cost_usd or 0.0 if charged else 0.0


class Ledger:
    """Requests, charges and spend by idempotency key, model and text.

    Parameters
    ----------
    file
        Where each request is also appended as one JSON line at once, if given.
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self._lines: dict[tuple[str, str, str], _Line] = {}
        self._file = file

    def number(self, idempotency_key: str, model: str, text_sha256: str) -> int:
        """How many requests with these three were booked before, plus one."""
        line = self._lines.get((idempotency_key, model, text_sha256))
        return 1 if line is None else line.requests + 1

    def book(
        self, request: ChatRequest, *, fault: Fault | None, charged: bool, cost_usd: float | None
    ) -> None:
        """Book one request; `cost_usd` is `None` where the recording has no cost."""
        key = (request.idempotency_key, request.model, request.text_sha256)
        self._lines.setdefault(key, _Line()).add(charged=charged, cost_usd=cost_usd)
        if self._file is not None:
            entry = {
                "idempotency_key": request.idempotency_key,
                "model": request.model,
                "text_sha256": request.text_sha256,
                "number": request.number,
                "fault": fault,
                "charged": charged,
                "cost_usd": cost_usd if charged else 0.0,
            }
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()

    def summary(self) -> dict[str, object]:
        """Totals, totals by model, and every line of the book."""
        models = sorted({model for _, model, _ in self._lines})
        return {
            **_total(list(self._lines.values())),
            "models": {
                name: _total([line for key, line in self._lines.items() if key[1] == name])
                for name in models
            },
            "calls": [
                {"idempotency_key": key, "model": model, "text_sha256": text, **_total([line])}
                for (key, model, text), line in self._lines.items()
            ],
        }


def _total(lines: list[_Line]) -> dict[str, float]:
    return {
        "requests": sum(line.requests for line in lines),
        "charged": sum(line.charged for line in lines),
        "unpriced": sum(line.unpriced for line in lines),
        "spend_usd": math.fsum(line.spend_usd for line in lines),
    }
