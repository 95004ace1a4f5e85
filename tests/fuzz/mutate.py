"""Malformed records: golden ones with something wrong in them, and bytes that are nothing at all.

Invariant: a seed gives the same records. Most are wrong in one place, since what is wrong
everywhere is refused at the first look.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parents[1] / "golden" / "v1"
LONGEST_BYTES = 1_000_000  # what a topic of users takes
RAW = "\ue000"  # what stands between two of these is put into the JSON as it is
NUMBERS = (
    "NaN",
    "-Infinity",
    "1e999",
    "-1e999",
    "1" + "0" * 400,
    "-1",
    "0",
    "1e-320",
    "1e308",
    "9223372036854775808",
    "4611686018427387904",
    "0.1",
)
VALUES: tuple[Any, ...] = (None, True, [], {}, "", 7, [[]], {"a": {"b": None}}, "7", ["x"], "x")
TEXTS = (
    "\x00",
    "a\x00b",
    "\ud800",
    "\u202e\u2066",
    "🙂" * 100,
    "'; DROP TABLE metallm.interactions; --",
    "%s{}$1\\",
    "9999-12-31T23:59:59Z",
    "2026-03-01T08:14:01+23:59",
    "1969-12-31T00:00:00Z",
    "=",
    "____",
)
Where = tuple[Any, Any]


def golden(topic: str) -> list[dict[str, Any]]:
    """The golden records of a topic, by the first part of its name."""
    return [json.loads(path.read_text()) for path in sorted(GOLDEN.glob(f"{topic}-*.json"))]


class Fuzzer:
    """Draws records of a topic.

    Parameters
    ----------
    rng
        Decides everything.
    fitted
        Puts a golden record of a topic into the pipeline's own terms: ids, arms, encoder.
    """

    def __init__(
        self, rng: np.random.Generator, fitted: Callable[[str, int, dict[str, Any]], None]
    ) -> None:
        self._rng, self._fitted = rng, fitted
        topics = {path.name.partition("-")[0] for path in GOLDEN.iterdir()}
        self._golden = {topic: golden(topic) for topic in sorted(topics)}

    def record(self, topic: str, number: int) -> bytes | None:
        """One record, or a tombstone."""
        kind = self._rng.random()
        if kind < 0.15:
            return self._noise()
        if kind < 0.2:
            topic = self._one(sorted(self._golden))
        known = json.loads(json.dumps(self._one(self._golden[topic])))
        self._fitted(topic, number, known)
        if kind < 0.5:
            return self._broken_bytes(_text(known))
        for _ in range(int(self._rng.integers(3))):
            self._damage(known)
        return _text(known)

    def _noise(self) -> bytes | None:
        choice = int(self._rng.integers(8))
        length = int(self._rng.integers(1, 300))
        plain = (None, b"", b"null", b"[]", b'"text"', b"\xef\xbb\xbf{}", b"{" * 30_000)
        return plain[choice] if choice < len(plain) else self._rng.bytes(length)

    def _broken_bytes(self, value: bytes) -> bytes:
        place = int(self._rng.integers(1, len(value)))
        choice = int(self._rng.integers(6))
        if choice == 0:
            return value[:place]
        if choice == 1:
            return value[:place] + self._rng.bytes(1) + value[place + 1 :]
        if choice == 2:
            return value[:place] + b"\xff\xfe\xc0" + value[place:]
        if choice == 3:
            return value + self._one((b"}", b"\x00", value, b" \n", b","))
        if choice == 4:
            return value[:place] + value[place + int(self._rng.integers(1, 9)) :]
        key = self._one(sorted(json.loads(value)))
        twice = self._one((b"null", b"1", b'"again"', b"{}"))
        return value[:-1] + b"," + json.dumps(key).encode() + b":" + twice + b"}"

    def _damage(self, known: dict[str, Any]) -> None:
        places = list(_places(known)) or [(known, "x")]
        parent, key = places[int(self._rng.integers(len(places)))]
        choice = int(self._rng.integers(8))
        if choice == 0:
            del parent[key]
        elif choice == 1:
            parent[key] = self._one(VALUES)
        elif choice == 2:
            parent[key] = RAW + self._one(NUMBERS) + RAW
        elif choice == 3:
            depth = int(self._one((5, 100, 200, 2_000, 20_000)))
            parent[key] = RAW + "[" * depth + "]" * depth + RAW
        elif choice == 4:
            parent[key] = "é" * int(self._one((129, 257, 2_001, 200_001, 400_000)))
        elif choice == 5:
            parent[key] = self._one(TEXTS)
        elif choice == 6:
            known[self._one(("lable", "__class__", "", "a" * 1_000))] = self._one(VALUES)
        else:
            parent[key] = [parent[key]] * int(self._one((1, 2, 27, 1_001)))

    def _one(self, choices: Any) -> Any:
        return choices[int(self._rng.integers(len(choices)))]


def zeros(dimensions: int) -> str:
    """A context of zeros as it stands in records."""
    return base64.urlsafe_b64encode(bytes(4 * dimensions)).decode()


def _places(value: Any) -> list[Where]:
    """Every place in a record: what holds it, and its key or index."""
    pairs = list(value.items() if isinstance(value, Mapping) else enumerate(value))
    found: list[Where] = [(value, key) for key, _ in pairs]
    for _, inner in pairs:
        if isinstance(inner, dict | list):
            found += _places(inner)
    return found


def _text(known: dict[str, Any]) -> bytes:
    text = json.dumps(known, ensure_ascii=False)
    text = text.replace(f'"{RAW}', "").replace(f'{RAW}"', "")
    return text.encode(errors="surrogatepass")[:LONGEST_BYTES]
