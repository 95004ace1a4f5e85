"""A process may open what its calls in flight need, or says what to change."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from metallm_stream.errors import ConfigurationError
from metallm_stream.serve.vendors import allow_connections

SETTING = "METALLM_WORKER__CONCURRENCY"
MEDDLED = 1_000


@pytest.fixture
def hard() -> Iterator[int]:
    """The most that this process may allow itself; it has allowed itself less."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (MEDDLED, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_limit_that_may_be_raised_is_raised(hard: int) -> None:
    """What is usual, 1,024, would not do for 1,000 calls; what is enough stays."""
    allow_connections(500, SETTING)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (MEDDLED, hard)
    allow_connections(MEDDLED, SETTING)
    assert MEDDLED < resource.getrlimit(resource.RLIMIT_NOFILE)[0] < hard


def test_what_the_system_does_not_allow_is_told(hard: int) -> None:
    """Calls beyond it would fail, and their vendors be blamed."""
    with pytest.raises(ConfigurationError, match=rf"{SETTING}={hard} needs .* may have {hard}: "):
        allow_connections(hard, SETTING)
