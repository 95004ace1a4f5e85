"""The streams that policies are measured on: logged outcomes of a folder, and synthetic ones.

Where there is no folder of logged outcomes, benchmarks run on synthetic streams alone, and say so.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metallm_stream.encode import DEFAULT_ENCODER, load_encoder
from metallm_stream.evaluate import Outcomes, read_outcomes

DATA = Path("../shared/data")
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Stream:
    """Outcomes of n queries under K arms, and the queries' contexts `(n, d)`."""

    name: str
    outcomes: Outcomes
    contexts: NDArray[np.float32]

    @property
    def priced(self) -> bool:
        """Whether any arm has a cost that is known and not 0."""
        return bool(np.nansum(self.outcomes.cost_usd) > 0)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options that name the folder of logged outcomes and the encoder."""
    parser.add_argument("--data", type=Path, default=DATA, help="folder of *.jsonl[.gz] files")
    parser.add_argument("--encoder", default=DEFAULT_ENCODER)


def logged(options: argparse.Namespace) -> list[Stream]:
    """Every file of the folder, encoded; none, with a word about it, if there is no such folder."""
    files = sorted(options.data.glob("*.jsonl*")) if options.data.is_dir() else []
    if not files:
        print(f"no logged outcomes in {options.data}: synthetic streams only", flush=True)
    return [read(path, options.encoder) for path in files]


def read(path: Path, encoder: str) -> Stream:
    """One file, encoded."""
    outcomes = read_outcomes(path)
    for note in outcomes.notes:
        print(f"{path.name}: {note}")
    return Stream(
        path.name.partition(".")[0], outcomes, load_encoder(encoder).encode(outcomes.texts)
    )


def read_task(path: Path, encoder: str, prefix: str) -> Stream:
    """The queries of one file whose `task` begins with a prefix, encoded."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rb") as lines, tempfile.TemporaryDirectory() as folder:
        kept = [line for line in lines if str(json.loads(line).get("task")).startswith(prefix)]
        part = Path(folder) / path.name.removesuffix(".gz")
        part.write_bytes(b"".join(kept))
        return read(part, encoder)


def synthetic(n: int = 4_000, arms: int = 5, dimensions: int = 128, seed: int = 0) -> Stream:
    """Arms of which the dearer are better on average, and each on some queries of its own."""
    rng = np.random.default_rng(seed)
    contexts = unit_contexts(n, dimensions, rng)
    names = tuple(f"arm-{k}" for k in range(arms))
    chance = chances(contexts, np.linspace(0.55, 0.75, arms), rng)
    mean_usd = np.geomspace(1e-4, 1e-2, arms)
    return Stream(
        "synthetic",
        Outcomes(
            arms=names,
            texts=("",) * n,
            quality=(rng.random(chance.shape) < chance).astype(np.float64),
            cost_usd=mean_usd * rng.lognormal(-0.125, 0.5, size=(n, arms)),
        ),
        contexts.astype(np.float32),
    )


def unit_contexts(n: int, dimensions: int, rng: np.random.Generator) -> Floats:
    """Rows of unit length whose variance falls with the dimension, as that of encoded text does."""
    rows: Floats = rng.normal(size=(n, dimensions)) / np.sqrt(np.arange(1, dimensions + 1))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def chances(contexts: Floats, means: Floats, rng: np.random.Generator) -> Floats:
    """Probabilities of success, `(n, K)`: each arm's mean, moved by 0.1 (σ) by the context."""
    weights = rng.normal(size=(contexts.shape[1], len(means)))
    moved = contexts @ weights
    moved = 0.1 * (moved - moved.mean(axis=0)) / moved.std(axis=0)
    return np.clip(means + moved, 0.02, 0.98)


def without_unpriced(stream: Stream) -> Stream:
    """The arms whose cost is known, for figures in which costs count."""
    return replace(stream, outcomes=stream.outcomes.priced(1.0))
