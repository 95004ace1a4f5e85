"""The wires that this release speaks.

Invariant: a provider's name in the settings is enough to reach it; a new wire is one file beside
this one and one line below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from metallm_stream.errors import ConfigurationError
from metallm_stream.providers.base import Provider, ProviderSettings
from metallm_stream.providers.openai import OpenAIProvider

WIRES: Mapping[str, Callable[[ProviderSettings], Provider]] = MappingProxyType(
    {
        "openai": OpenAIProvider,
    }
)


def open_provider(settings: ProviderSettings) -> Provider:
    """A provider that is ready to be asked; close it when done.

    Raises `ConfigurationError` for a wire that nobody speaks.
    """
    try:
        wire = WIRES[settings.wire]
    except KeyError as exc:
        known = ", ".join(sorted(WIRES))
        raise ConfigurationError(
            f"provider {settings.name!r} has the unknown wire {settings.wire!r}: use one of {known}"
        ) from exc
    return wire(settings)
