"""Where a vendor's key comes from, and what is said when it is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from metallm_stream.errors import ConfigurationError
from metallm_stream.serve.vendors import provider_settings
from metallm_stream.settings import ProviderEntry, Settings

KEY = "sk-planted-7f3a"


def key(entry: ProviderEntry) -> str | None:
    settings = Settings(providers={"x": entry})
    found = provider_settings(settings, "x", max_connections=1).api_key
    return None if found is None else found.get_secret_value()


def refusal(entry: ProviderEntry) -> str:
    with pytest.raises(ConfigurationError) as refused:
        key(entry)
    assert refused.value.__cause__ is None
    assert KEY not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("written", [KEY, f"{KEY}\n", f"{KEY}\r\n", f"{KEY}\n\n"])
def test_a_key_is_read_from_its_file(tmp_path: Path, written: str) -> None:
    """Without the newline that editors and `echo` leave at its end."""
    path = tmp_path / "key"
    path.write_bytes(written.encode())
    assert key(ProviderEntry(api_key_file=path)) == KEY


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\xff\xfe", "is no text"),
        (KEY.encode() * 10_000, "more than 65536 bytes"),
        (b" " + KEY.encode(), "printable ASCII without spaces"),
        (KEY.encode() + b"\n" + KEY.encode(), "printable ASCII"),
    ],
)
def test_a_file_without_a_key_is_told(tmp_path: Path, written: bytes, said: str) -> None:
    """With the provider's name, and nothing of what stands in it."""
    path = tmp_path / "key"
    path.write_bytes(written)
    message = refusal(ProviderEntry(api_key_file=path))
    assert "provider 'x'" in message
    assert said in message


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """Missing, or no file at all."""
    missing = tmp_path / "absent"
    assert f"{missing}: No such file" in refusal(ProviderEntry(api_key_file=missing))
    assert "directory" in refusal(ProviderEntry(api_key_file=tmp_path))


def test_a_value_that_will_not_do_is_told_by_where_it_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key's variable or file, and the variable of an address."""
    monkeypatch.setenv("THE_KEY", f" {KEY}")
    assert "THE_KEY: must be" in refusal(ProviderEntry(api_key_env="THE_KEY"))
    path = tmp_path / "key"
    path.write_text(f" {KEY}")
    assert f"api_key_file {path}: must be" in refusal(ProviderEntry(api_key_file=path))
    address = ProviderEntry(base_url="host/v1")
    assert "METALLM_PROVIDERS__X__BASE_URL: must be an http" in refusal(address)


def test_a_key_is_read_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is not set, or empty, is told."""
    entry = ProviderEntry(api_key_env="X_KEY")
    assert "X_KEY is not set" in refusal(entry)
    monkeypatch.setenv("X_KEY", "")
    assert "X_KEY is not set" in refusal(entry)
    monkeypatch.setenv("X_KEY", KEY)
    assert key(entry) == KEY


def test_a_provider_may_need_no_key() -> None:
    """A server of one's own."""
    assert key(ProviderEntry()) is None


def test_a_provider_that_is_not_configured_is_told() -> None:
    """With those that are."""
    with pytest.raises(ConfigurationError, match=r"'y' is not configured \(there are: x\)"):
        provider_settings(Settings(providers={"x": ProviderEntry()}), "y", max_connections=1)
