"""`metallm models`: the catalogue of arms, changed while queries flow."""

from __future__ import annotations

from collections.abc import Iterable

import click
from rich.table import Column, Table

from metallm_stream.cli.cluster import cluster
from metallm_stream.cli.groups import Group
from metallm_stream.cli.listed import listed_entry, overruled_prices, require_reported_cost
from metallm_stream.cli.output import output
from metallm_stream.cli.topics import create_topics
from metallm_stream.errors import ConfigurationError
from metallm_stream.events import Model, Price
from metallm_stream.kafka import Record, write
from metallm_stream.serve.knowledge import read_catalogue
from metallm_stream.serve.surroundings import names
from metallm_stream.serve.vendors import api_key
from metallm_stream.settings import Settings, load


@click.group(cls=Group)
def models() -> None:
    """List, add, reprice or remove models; routers follow within a second."""


@models.command("add")
@click.argument("arm")
@click.option("--provider", help="A provider's name; default: what is before ARM's first slash.")
@click.option("--model", help="The provider's name for it; default: ARM, or what is behind it.")
@click.option("--input-usd", type=float, help="USD for 10⁶ input tokens.")
@click.option("--output-usd", type=float, help="USD for 10⁶ output tokens.")
@click.option("--cached-input-usd", type=float, help="USD for 10⁶ cached input tokens.")
@click.option("--call-usd", type=float, default=0.0, help="USD for each call.")
@click.option("--context-window", type=int, help="Tokens that prompt and answer may take.")
@click.option("--max-output", type=int, help="Tokens that an answer may have.")
@click.option("--tag", "tags", multiple=True, help="A capability; may be given several times.")
@click.option("--language", "languages", multiple=True, help="A language, as pt-BR; default: all.")
@click.option("--region", "regions", multiple=True, help="Where queries may be processed.")
@click.option("--elsewhere", is_flag=True, help="PROVIDER is in the settings of its workers alone.")
def add(
    arm: str,
    provider: str | None,
    model: str | None,
    input_usd: float | None,
    output_usd: float | None,
    cached_input_usd: float | None,
    call_usd: float,
    context_window: int | None,
    max_output: int | None,
    tags: tuple[str, ...],
    languages: tuple[str, ...],
    regions: tuple[str, ...],
    elsewhere: bool,
) -> None:
    """Add ARM, or replace it, as in `metallm models add anthropic/claude-sonnet-4-5`.

    Without a price, the one of the price table is taken, and the context window with it. What the
    table does not know costs what the vendor reports, if it is one that does.
    """
    settings = load()
    provider, model = _whose(arm, provider, model)
    given = _price(input_usd, output_usd, cached_input_usd, call_usd)
    entry = listed_entry(settings, provider, model)
    if given is None and entry is None:
        require_reported_cost(settings, provider, model)
    record = Model(
        arm=arm,
        provider=provider,
        model=model,
        price=given or (entry and entry.price),
        context_window_tokens=(
            entry and entry.context_window_tokens if context_window is None else context_window
        ),
        max_output_tokens=max_output,
        tags=tags,
        languages=languages or None,
        regions=regions or None,
    )
    if not elsewhere:
        _require_worker(settings, provider)
    put_model(settings, record)
    unpriced = "no price: costs are what the vendor reports, and unknown where it reports none"
    click.echo(f"added {arm}: {_shown(record.price) if record.price else unpriced}")
    _note_key(settings, provider)


@models.command("reprice")
@click.argument("arm")
@click.option("--input-usd", type=float, required=True, help="USD for 10⁶ input tokens.")
@click.option("--output-usd", type=float, required=True, help="USD for 10⁶ output tokens.")
@click.option("--cached-input-usd", type=float, help="USD for 10⁶ cached input tokens.")
@click.option("--call-usd", type=float, help="USD for each call.")
def reprice(
    arm: str,
    input_usd: float,
    output_usd: float,
    cached_input_usd: float | None,
    call_usd: float | None,
) -> None:
    """Change the price of ARM from now on; what past calls have cost stays as it was booked.

    What the vendor reports as a call's cost goes before any price; what the router expects of it
    follows the price all the same.
    """
    settings = load()
    known = _known(settings, arm)
    given = {
        "input_usd_per_mtok": input_usd,
        "output_usd_per_mtok": output_usd,
        "cached_input_usd_per_mtok": cached_input_usd,
        "call_usd": call_usd,
    }
    before = {} if known.price is None else known.price.model_dump(exclude={"table"})
    price = Price.model_validate(before | {k: v for k, v in given.items() if v is not None})
    repriced = known.model_copy(update={"price": price})
    put_model(settings, repriced)
    click.echo(f"repriced {arm}: {_shown(known.price)} → {_shown(price)}")
    _note(settings, [repriced])


@models.command("remove")
@click.argument("arm")
def remove(arm: str) -> None:
    """Take ARM out of the choice; what was learned of it is kept."""
    settings = load()
    _known(settings, arm)
    kafka = cluster(settings)
    write(kafka.producer(), [Record(names(settings).models, arm.encode(), None)])
    click.echo(f"removed {arm}")


@models.command("list")
def list_() -> None:
    """Show the catalogue."""
    settings = load()
    arms = read_catalogue(cluster(settings), names(settings)).arms.values()
    output().print(catalogue_table(arms))
    if not arms:
        click.echo("no models: `metallm models add` adds one", err=True)
    _note(settings, arms)


def catalogue_table(arms: Iterable[Model]) -> Table:
    """A row for each arm; names are whole in any width."""
    names = (Column(name, overflow="fold") for name in ("arm", "provider", "model"))
    can = Column("can", overflow="fold")
    table = Table(*names, "input $/Mtok", "output $/Mtok", "window", can)
    for model in arms:
        price = model.price
        table.add_row(
            model.arm,
            model.provider,
            model.model,
            "vendor's" if price is None else f"{price.input_usd_per_mtok:g}",
            "vendor's" if price is None else f"{price.output_usd_per_mtok:g}",
            str(model.context_window_tokens or ""),
            ", ".join((*model.tags, *(model.languages or ()), *(model.regions or ()))),
        )
    return table


def put_model(settings: Settings, model: Model) -> None:
    """Write one arm to the catalogue, and make its provider's topic if it is the first there."""
    kafka = cluster(settings)
    create_topics(kafka, names(settings), settings.topics, (model.provider,))
    write(kafka.producer(), [Record.of(names(settings).models, model.arm, model)])


def _whose(arm: str, provider: str | None, model: str | None) -> tuple[str, str]:
    """Provider and model, read from the arm's name where they are not given."""
    if provider is not None:
        return provider, model or arm
    named, slash, rest = arm.partition("/")
    if not slash or not rest:
        raise click.UsageError(f"--provider is missing, and {arm!r} is no PROVIDER/MODEL")
    return named, model or rest


def _require_worker(settings: Settings, provider: str) -> None:
    """Raises `ConfigurationError` if no worker with these settings can answer."""
    if provider not in settings.providers:
        known = ", ".join(sorted(settings.providers)) or "none"
        raise ConfigurationError(
            f"provider {provider!r} is not in these settings (there are: {known}), so nothing was "
            "added: queries routed to it would wait for a worker that nobody can start. Mend the "
            f"name, set METALLM_PROVIDERS__{provider.upper()}__*, or give --elsewhere if its "
            "workers have settings of their own"
        )


def _note(settings: Settings, models: Iterable[Model]) -> None:
    """Say of which prices something is to be known."""
    if note := overruled_prices(settings, models):
        click.echo(note, err=True)


def _note_key(settings: Settings, provider: str) -> None:
    """Say so if no worker with these settings could start for want of its key."""
    if provider not in settings.providers:
        return
    try:
        api_key(settings.providers[provider])
    except ConfigurationError as exc:
        click.echo(
            f"note: {exc}, so no worker of {provider!r} can run here: until one runs elsewhere, "
            "queries given to this arm wait for it; `metallm models remove` takes it out",
            err=True,
        )


def _known(settings: Settings, arm: str) -> Model:
    """The arm's record; raises `ConfigurationError` if there is none."""
    catalogue = read_catalogue(cluster(settings), names(settings))
    if arm not in catalogue:
        known = ", ".join(catalogue) or "none"
        raise ConfigurationError(f"arm {arm!r} is not in the catalogue (there are: {known})")
    return catalogue[arm]


def _price(
    input_usd: float | None, output_usd: float | None, cached_usd: float | None, call_usd: float
) -> Price | None:
    """The price that was given, if one was."""
    if (input_usd is None) != (output_usd is None):
        raise click.UsageError("--input-usd and --output-usd go together")
    if input_usd is None or output_usd is None:
        if cached_usd is not None or call_usd:
            raise click.UsageError(
                "--cached-input-usd and --call-usd need --input-usd and --output-usd beside them"
            )
        return None
    return Price(
        input_usd_per_mtok=input_usd,
        output_usd_per_mtok=output_usd,
        cached_input_usd_per_mtok=cached_usd,
        call_usd=call_usd,
    )


def _shown(price: Price | None) -> str:
    if price is None:
        return "the vendor's price"
    parts = [
        f"${price.input_usd_per_mtok:g} in",
        f"${price.output_usd_per_mtok:g} out",
    ]
    if price.cached_input_usd_per_mtok is not None:
        parts.append(f"${price.cached_input_usd_per_mtok:g} cached in")
    table = "" if price.table is None else f", by the price table of {price.table}"
    per_call = f", ${price.call_usd:g} a call" if price.call_usd else ""
    return f"{', '.join(parts)} per 10⁶ tokens{per_call}{table}"
