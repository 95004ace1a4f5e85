"""The wires that this release speaks.

Invariant: a provider's name in the settings is enough to reach it; a new wire is one file beside
this one and one line below. A vendor's SDK is imported only when a provider speaks its wire.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType

from metallm_stream.errors import ConfigurationError
from metallm_stream.providers.base import Provider, ProviderSettings

# The class by the name that a wire's module has, and but for OpenAI's the extra with its SDK.
WIRES: Mapping[str, str] = MappingProxyType(
    {
        "openai": "OpenAIProvider",
        "anthropic": "AnthropicProvider",
        "bedrock": "BedrockProvider",
    }
)


def open_provider(settings: ProviderSettings) -> Provider:
    """A provider that is ready to be asked; close it when done.

    Raises `ConfigurationError` for a wire that nobody speaks or whose extra is not installed.
    """
    return opener(settings)(settings)


def opener(settings: ProviderSettings) -> Callable[[ProviderSettings], Provider]:
    """What opens such a provider, without opening it. Raises as `open_provider`."""
    if settings.wire not in WIRES:
        known = ", ".join(sorted(WIRES))
        raise ConfigurationError(
            f"provider {settings.name!r} has the unknown wire {settings.wire!r}: use one of {known}"
        )
    try:
        module = import_module(f"metallm_stream.providers.{settings.wire}")
    except ModuleNotFoundError as exc:
        missing = str(exc.name).partition(".")[0]
        raise ConfigurationError(
            f"provider {settings.name!r}: the wire {settings.wire!r} needs the package "
            f"{missing!r}, which is not installed: pip install 'metallm-stream[{settings.wire}]'"
        ) from exc
    found: Callable[[ProviderSettings], Provider] = getattr(module, WIRES[settings.wire])
    return found
