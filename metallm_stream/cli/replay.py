"""`metallm replay`: logged outcomes through the policy, cold, without Kafka.

Invariant: the same file, options and seed give the same figures, except for the rate.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table
from threadpoolctl import threadpool_limits

from metallm_stream.encode import DEFAULT_ENCODER, load_encoder
from metallm_stream.evaluate import (
    Labels,
    Part,
    Utilities,
    Value,
    mean_part,
    parts,
    read_outcomes,
    utilities,
)
from metallm_stream.evaluate import replay as replay_outcomes
from metallm_stream.policy import CHOOSERS, DEFAULT_CHOOSER
from metallm_stream.policy.detectors import DEFAULT_DETECTOR, DETECTORS
from metallm_stream.policy.multi_task_ridge import MultiTaskRidge


@dataclass(frozen=True)
class _Options:
    file: Path
    cost_weight: float
    order: str
    shuffles: int
    seed: int
    limit: int | None
    policy: str
    labels: Labels
    drift: str | None
    half_life: float | None
    encoder: str


@dataclass(frozen=True)
class _Report:
    options: _Options
    stream: Utilities
    n: int
    whole: Part
    second_half: Part
    queries_per_s: float

    def as_json(self) -> dict[str, object]:
        """One object: what was asked, and what came of it."""
        return {
            "policy": self.options.policy,
            "cost_weight": self.options.cost_weight,
            "seed": self.options.seed,
            "order": self.options.order,
            "shuffles": self.options.shuffles,
            "label_fraction": self.options.labels.fraction,
            "label_delay": self.options.labels.delay,
            "drift": self.options.drift,
            "half_life": self.options.half_life,
            "encoder": self.options.encoder,
            "n": self.n,
            "arms": list(self.stream.outcomes.arms),
            "cost_scale_usd": self.stream.cost_scale_usd,
            "all": self.whole.as_json(),
            "second_half": self.second_half.as_json(),
            "queries_per_s": self.queries_per_s,
            "notes": list(self.stream.outcomes.notes),
        }


def _finite(
    _context: click.Context, parameter: click.Parameter, value: float | None
) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number", param=parameter)
    return value


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--cost-weight",
    type=click.FloatRange(min=0),
    callback=_finite,
    default=0.1,
    show_default=True,
    help="What the dearest arm's mean cost is worth, in quality.",
)
@click.option(
    "--order",
    type=click.Choice(["shuffled", "file"]),
    default="shuffled",
    show_default=True,
    help="Shuffled is a stationary stream; the order of the file may drift.",
)
@click.option(
    "--shuffles",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many replays, with the seeds SEED, SEED+1, …; figures are their means.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--limit", type=click.IntRange(min=1), help="Replay only the first queries of each shuffle."
)
@click.option(
    "--policy",
    default=DEFAULT_CHOOSER,
    show_default=True,
    help=f"{', '.join(name for name in CHOOSERS if name != 'fixed')}, or fixed:<arm>.",
)
@click.option(
    "--label-fraction",
    type=click.FloatRange(0, 1),
    callback=_finite,
    default=1.0,
    show_default=True,
    help="Share of the queries whose quality the policy ever learns.",
)
@click.option(
    "--label-delay",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="How many more queries are decided before a label arrives.",
)
@click.option(
    "--drift",
    type=click.Choice(["off", *DETECTORS]),
    default=DEFAULT_DETECTOR,
    show_default=True,
    help="What watches each arm's quality for a shift, as in the service.",
)
@click.option(
    "--half-life",
    type=click.FloatRange(min=0, min_open=True),
    callback=_finite,
    help="Labels after which a label counts half as much; default: as much as ever.",
)
@click.option("--encoder", default=DEFAULT_ENCODER, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def replay(
    file: Path,
    cost_weight: float,
    order: str,
    shuffles: int,
    seed: int,
    limit: int | None,
    policy: str,
    label_fraction: float,
    label_delay: int,
    drift: str,
    half_life: float | None,
    encoder: str,
    as_json: bool,
) -> None:
    """Replay the logged outcomes in FILE through a policy that starts cold.

    FILE holds JSON lines, plain or gzip'd: {"query_id", "text", "outcomes": {arm: {"quality",
    "cost"}}}. The policy sees the outcome of the arm it chooses and of no other. Prints utility
    (quality − cost weight × cost ÷ dearest arm's mean cost), quality and cost beside those of
    every fixed arm, of chance and of hindsight, for the whole stream and its second half.
    """
    labels = Labels(fraction=label_fraction, delay=label_delay)
    memory = None if drift == "off" else drift, half_life
    options = _Options(
        file, cost_weight, order, shuffles, seed, limit, policy, labels, *memory, encoder
    )
    report = _replayed(options)
    if as_json:
        click.echo(json.dumps(report.as_json(), ensure_ascii=False, indent=2))
    else:
        _print(report)


def _replayed(options: _Options) -> _Report:
    outcomes = read_outcomes(options.file)
    stream = utilities(outcomes, options.cost_weight)
    kind, _, arm = options.policy.partition(":")
    if kind == "fixed" and arm not in stream.outcomes.arms:
        known = ", ".join(stream.outcomes.arms)
        raise click.BadParameter(f"no arm {arm!r} in this file: {known}", param_hint="--policy")
    contexts = load_encoder(options.encoder).encode(outcomes.texts)
    started_s = time.perf_counter()
    found = _parts(stream, contexts, options)
    elapsed_s = time.perf_counter() - started_s
    n = min(len(outcomes), options.limit or len(outcomes))
    return _Report(
        options=options,
        stream=stream,
        n=n,
        whole=mean_part([whole for whole, _ in found]),
        second_half=mean_part([half for _, half in found]),
        queries_per_s=n * options.shuffles / elapsed_s,
    )


def _parts(
    stream: Utilities, contexts: NDArray[np.float32], options: _Options
) -> list[tuple[Part, Part]]:
    """The whole and the second half of each shuffle's replay."""
    found = []
    seeds = range(options.seed, options.seed + options.shuffles)
    console = Console(stderr=True)
    # Matrices of this size gain nothing from more threads, and on busy cores wait for each other.
    with threadpool_limits(limits=1, user_api="blas"):
        for seed in track(seeds, "replaying", console=console, disable=not console.is_terminal):
            order = _order(len(contexts), options, seed)
            policy = MultiTaskRidge(
                options.policy, half_life=options.half_life, drift=options.drift, seed=seed
            )
            rng = np.random.default_rng((seed, 1))
            choices = replay_outcomes(
                stream, contexts, policy, order=order, labels=options.labels, rng=rng
            )
            found.append(parts(stream, order, choices))
    return found


def _order(n: int, options: _Options, seed: int) -> NDArray[np.int64]:
    positions: NDArray[np.int64] = np.arange(n)
    if options.order == "shuffled":
        positions = np.random.default_rng(seed).permutation(n)
    return positions[: options.limit]


def _print(report: _Report) -> None:
    console = Console()
    options = report.options
    title = f"{options.file.name}: {report.n:,} queries, cost weight {options.cost_weight:g}"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column("policy", overflow="ellipsis", no_wrap=True, max_width=25)
    for part in ("whole", "2nd half"):
        for column in ("utility", "quality", "$/1,000"):
            table.add_column(f"{part}\n{column}", justify="right", no_wrap=True, min_width=8)
    whole, half = report.whole, report.second_half
    table.add_row(f"[bold]{escape(options.policy)}", *_cells(whole.policy), *_cells(half.policy))
    for name, value in whole.baselines.items():
        table.add_row(escape(name), *_cells(value), *_cells(half.baselines[name]))
    console.print(table)
    for name in ("best_fixed", "cheapest", "dearest"):
        console.print(f"{name}: {escape(whole.baselines[name].arm or 'not the same throughout')}")
    shares = sorted(half.shares.items(), key=lambda item: -item[1])
    console.print(
        "shares, second half: " + ", ".join(f"{escape(arm)} {share:.1%}" for arm, share in shares)
    )
    if whole.standard_error is not None and half.standard_error is not None:
        console.print(
            f"means over {options.shuffles} shuffles; standard error of the policy's utility "
            f"{whole.standard_error:.4f}, second half {half.standard_error:.4f}"
        )
    for note in report.stream.outcomes.notes:
        console.print(f"note: {escape(note)}")
    console.print(f"{report.queries_per_s:,.0f} queries/s after encoding")


def _cells(value: Value) -> tuple[str, str, str]:
    cost = "unknown" if value.cost_usd is None else f"{1000 * value.cost_usd:.4g}"
    return f"{value.utility:.4f}", f"{value.quality:.4f}", cost
