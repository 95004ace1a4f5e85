"""The vendors that the settings name, with their keys.

Invariant: a key is read once, when a process starts, and leaves here only as a `SecretStr`; what is
wrong with one is told without showing any of it.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path

from pydantic import SecretStr, ValidationError

from metallm_stream.errors import ConfigurationError
from metallm_stream.providers import ProviderSettings
from metallm_stream.settings import ProviderEntry, Settings

_MAX_KEY_BYTES = 65_536
_FILES_BESIDE = 100  # open files that are no connections to vendors: Kafka's, libraries, logs


def provider_settings(settings: Settings, name: str, *, max_connections: int) -> ProviderSettings:
    """How to reach a provider; raises `ConfigurationError` if it or its key is not there."""
    if name not in settings.providers:
        known = ", ".join(sorted(settings.providers)) or "none"
        raise ConfigurationError(
            f"provider {name!r} is not configured (there are: {known}): "
            f"set METALLM_PROVIDERS__{name.upper()}__WIRE"
        )
    entry = settings.providers[name]
    try:
        return ProviderSettings(
            name=name,
            wire=entry.wire,
            base_url=entry.base_url,
            region=entry.region,
            api_key=api_key(entry),
            headers=dict(entry.headers),
            max_connections=max_connections,
        )
    except ConfigurationError as exc:
        raise ConfigurationError(f"provider {name!r}: {exc}") from None
    except ValidationError as exc:
        wrong = [
            f"{_source(name, entry, error['loc'][0])}: {error['msg'].removeprefix('Value error, ')}"
            for error in exc.errors(include_input=False, include_url=False)
        ]
        raise ConfigurationError(f"provider {name!r}: {'; '.join(wrong)}") from None


def allow_connections(count: int, setting: str) -> None:
    """Let this process open so many connections to vendors, as a setting asks for.

    Calls for which there is no open file left would fail as if their vendor could not be reached.
    Raises `ConfigurationError` if the system does not allow so many.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + _FILES_BESIDE
    if needed > hard != resource.RLIM_INFINITY:
        raise ConfigurationError(
            f"{setting}={count} needs {needed} open files, and this process may have {hard}: lower "
            "it, or raise the limit (ulimit -n, LimitNOFILE of systemd)"
        )
    if needed > soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _source(name: str, entry: ProviderEntry, field: int | str) -> str:
    """The variable or file that a field's value came from."""
    if field != "api_key":
        return f"METALLM_PROVIDERS__{name.upper()}__{str(field).upper()}"
    return f"api_key_file {entry.api_key_file}" if entry.api_key_file else str(entry.api_key_env)


def api_key(entry: ProviderEntry) -> SecretStr | None:
    """The key from the variable or file that the settings name; None where they name none.

    Raises `ConfigurationError` if there is nothing in it.
    """
    if entry.api_key_file is not None:
        return SecretStr(_from_file(entry.api_key_file))
    if entry.api_key_env is None:
        return None
    key = os.environ.get(entry.api_key_env, "")
    if not key:
        raise ConfigurationError(f"{entry.api_key_env} is not set")
    return SecretStr(key)


def _from_file(path: Path) -> str:
    """The file's text without the newline at its end."""
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_KEY_BYTES + 1)
        key = raw.decode().rstrip("\r\n")
    except OSError as exc:
        raise ConfigurationError(f"api_key_file {path}: {exc.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"api_key_file {path}: is no text in UTF-8") from None
    if not key or len(raw) > _MAX_KEY_BYTES:
        wrong = f"has more than {_MAX_KEY_BYTES} bytes" if key else "is empty"
        raise ConfigurationError(f"api_key_file {path}: {wrong}; it must hold the key and no more")
    return key
