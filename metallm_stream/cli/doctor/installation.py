"""What is installed here: versions, the encoder, the providers' keys.

Invariant: whether a key is set is told, never what it is.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version

import confluent_kafka

from metallm_stream.cli.doctor.finding import Finding, ok, problem, warning
from metallm_stream.encode import load_encoder
from metallm_stream.errors import ConfigurationError
from metallm_stream.providers import opener
from metallm_stream.serve.answerer import templates_of
from metallm_stream.serve.open_judge import judge_model
from metallm_stream.serve.open_router import open_chooser
from metallm_stream.serve.surroundings import budgets
from metallm_stream.serve.vendors import api_key, provider_settings
from metallm_stream.settings import Settings

PACKAGES = ("sqlalchemy", "psycopg", "pydantic", "numpy", "river", "openai")
VENDORS = ("anthropic", "boto3")


def versions() -> Iterator[Finding]:
    """Python and the packages that matter."""
    yield ok("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    shown = [f"metallm-stream {version('metallm-stream')}"]
    librdkafka = confluent_kafka.libversion()[0]
    shown += [f"confluent-kafka {version('confluent-kafka')} (librdkafka {librdkafka})"]
    shown += [f"{name} {version(name)}" for name in PACKAGES]
    yield ok("packages", ", ".join([*shown, *(_extra(name) for name in VENDORS)]))


def encoder(settings: Settings) -> tuple[str | None, Finding]:
    """The encoder's identity, if it loads."""
    try:
        loaded = load_encoder(settings.encoder)
        loaded.encode(["Does it encode?"])
    except ConfigurationError as exc:
        return None, problem("encoder", str(exc), "set METALLM_ENCODER")
    return loaded.name, ok("encoder", f"{loaded.name} loads, {loaded.dimensions} dimensions")


def services(settings: Settings) -> Iterator[Finding]:
    """What a service would refuse to start with; nothing where all would start."""
    checks: tuple[tuple[str, Callable[[Settings], object]], ...] = (
        ("router", open_chooser),
        ("budgets", budgets),
        ("templates", templates_of),
        ("judge", _judge),
    )
    for about, check in checks:
        try:
            check(settings)
        except ConfigurationError as exc:
            yield problem(about, str(exc))


def _judge(settings: Settings) -> None:
    model = judge_model(settings.judge)
    if model is not None and model.provider not in settings.providers:  # others have their line
        provider_settings(settings, model.provider, max_connections=1)


def keys(settings: Settings) -> Iterator[Finding]:
    """Whether a worker could run here for each provider of the settings."""
    for name, entry in settings.providers.items():
        about, where = f"provider {name}", entry.base_url or "the vendor's own address"
        remedy = "mend the file" if entry.api_key_file else f"export {entry.api_key_env}=..."
        try:
            key = api_key(entry)
        except ConfigurationError as exc:
            yield warning(about, f"{exc}: no worker can run here", remedy)
            continue
        try:
            opener(provider_settings(settings, name, max_connections=1))
        except ConfigurationError as exc:
            yield problem(about, f"{exc}: no worker starts")
            continue
        if key is None:
            needs = "AWS' own credentials" if entry.wire == "bedrock" else "no key"
            yield ok(about, f"{where}, needs {needs}")
        elif entry.api_key_file is not None:
            yield ok(about, f"{where}, {entry.api_key_file} can be read")
        else:
            yield ok(about, f"{where}, {entry.api_key_env} is set")


def _extra(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"no {name}"
