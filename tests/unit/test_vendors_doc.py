"""The settings in docs/vendors.md are settings, and its tables say what the code does."""

from __future__ import annotations

import asyncio
import re
import tomllib
from pathlib import Path

import pytest

from metallm_stream.providers import WIRES, open_provider
from metallm_stream.providers.anthropic import _MAX_TOKENS
from metallm_stream.serve.vendors import provider_settings
from metallm_stream.settings import Settings
from tests.readme import REPOSITORY

TEXT = (REPOSITORY / "docs" / "vendors.md").read_text()
BLOCK = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)[0]
SETTINGS = Settings(**tomllib.loads(BLOCK))


@pytest.mark.parametrize("name", sorted(SETTINGS.providers))
def test_each_provider_that_is_shown_can_be_opened(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With its key in the variable or file that is named, and AWS' own where none is."""
    entry = SETTINGS.providers[name]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    if entry.api_key_env is not None:
        monkeypatch.setenv(entry.api_key_env, "key")
    if entry.api_key_file is not None:
        (tmp_path / "key").write_text("key\n")
        entry = entry.model_copy(update={"api_key_file": tmp_path / "key"})
    shown = Settings(providers={name: entry})
    provider = open_provider(provider_settings(shown, name, max_connections=1))
    assert provider.name == name
    asyncio.run(provider.close())


def test_every_wire_is_shown() -> None:
    """And no other."""
    assert {entry.wire for entry in SETTINGS.providers.values()} == set(WIRES)


def test_the_limit_that_anthropic_is_sent_is_the_one_that_is_told() -> None:
    """In tokens."""
    assert f"else {_MAX_TOKENS:,}" in TEXT
