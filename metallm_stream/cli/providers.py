"""`metallm providers`: whether vendors answer, asked with real calls.

Invariant: nothing is sent before the user has seen what it may cost and has agreed.
"""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.table import Column, Table
from rich.text import Text

from metallm_stream.cli.cluster import cluster
from metallm_stream.cli.groups import Group
from metallm_stream.cli.output import output
from metallm_stream.errors import ConfigurationError, counted
from metallm_stream.events import Model
from metallm_stream.providers.rate_headers import Quota, RateLimits
from metallm_stream.serve.knowledge import read_catalogue
from metallm_stream.serve.open_judge import judge_model
from metallm_stream.serve.probe import TIMEOUT_S, Probe, dearest_usd, probe
from metallm_stream.serve.surroundings import names as topic_names
from metallm_stream.settings import load


@click.group(cls=Group)
def providers() -> None:
    """Look at the vendors behind the models."""


@providers.command()
@click.argument("names", nargs=-1, metavar="[PROVIDER|ARM]...")
@click.option("--yes", is_flag=True, help="Do not ask before calling.")
def check(names: tuple[str, ...], yes: bool) -> None:
    """Make one tiny call to each model, or to those of PROVIDER or ARM, and show how it went.

    The judge model, where one is configured, is among them as judge:MODEL.
    Calls cost money, a fraction of a cent each for most models. The exit code is 1 if any failed.
    """
    settings = load()
    judge = judge_model(settings.judge)
    catalogue = read_catalogue(cluster(settings), topic_names(settings))
    models = _wanted([*catalogue.arms.values(), *([] if judge is None else [judge])], names)
    click.echo(_announced(models))
    if not yes:
        click.confirm("Go on?", abort=True)
    probes = probe(settings, models)
    output().print(_table(probes))
    failed = [one for one in probes if one.failure is not None]
    for one in failed:
        click.echo(f"{one.model.arm}: {': '.join(one.failure or ())}")
    if failed:
        click.get_current_context().exit(1)


def _wanted(arms: Sequence[Model], names: Sequence[str]) -> list[Model]:
    """The arms that are named, by themselves or by their provider; all of them if none is."""
    if not arms:
        raise ConfigurationError("there are no models to check: add one by `metallm models add`")
    known = {model.arm for model in arms} | {model.provider for model in arms}
    for name in names:
        if name not in known:
            raise ConfigurationError(
                f"{name!r} is neither an arm nor a provider of one "
                f"(there are: {', '.join(sorted(known))})"
            )
    return [model for model in arms if not names or {model.arm, model.provider} & set(names)]


def _announced(models: Sequence[Model]) -> str:
    """How many calls there will be and what they may cost."""
    costs = {model.arm: dearest_usd(model) for model in models}
    unknown = [arm for arm, cost in costs.items() if cost is None]
    total_usd = sum(cost or 0.0 for cost in costs.values())
    besides = f", and what is not known of {', '.join(unknown)}" if unknown else ""
    calls = counted(len(models), "call")
    return f"{calls}, {TIMEOUT_S:g} s at most: at most ${total_usd:.6f}{besides}"


def _table(probes: Sequence[Probe]) -> Table:
    names = (Column(name, overflow="fold") for name in ("arm", "provider"))
    table = Table(*names, "says", "latency", "tokens", "cost", "limits left")
    for one in probes:
        says = Text("ok", "green") if one.failure is None else Text(one.failure[0], "red")
        tried = one.attempt
        tokens = "" if tried is None else _tokens(tried.input_tokens, tried.output_tokens)
        known_cost = tried is not None and tried.cost_usd is not None
        table.add_row(
            one.model.arm,
            one.model.provider,
            says,
            "" if tried is None else f"{tried.latency_s:.2f} s",
            tokens,
            f"${tried.cost_usd:.6f}" if tried is not None and known_cost else "",
            _limits(one.limits),
        )
    return table


def _tokens(read: int | None, written: int | None) -> str:
    return "" if read is None and written is None else f"{_shown(read)} + {_shown(written)}"


def _shown(count: int | None) -> str:
    return "?" if count is None else str(count)


def _limits(limits: RateLimits | None) -> str:
    """What remains of the vendor's quotas, where its headers tell."""
    if limits is None:
        return ""
    quotas = (("requests", limits.requests), ("tokens", limits.tokens))
    return "\n".join(_left(name, quota) for name, quota in quotas if quota is not None)


def _left(name: str, quota: Quota) -> str:
    return f"{quota.remaining:g} of {quota.limit:g} {name}"
