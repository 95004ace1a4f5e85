"""Servers for the session, and a pipeline of its own for each test or module that asks."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import hypothesis
import pytest

from tests.pipeline import LABELS, Pipeline, open_pipeline, outcomes, questions

pytest_plugins = ["tests.servers"]


def pytest_configure() -> None:
    """End as with Ctrl-C where somebody else ends the run: fixtures stop what they have started."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_report_header() -> str:
    """The vendors' SDKs and the price table that this run stands for."""
    packages = ("openai", "anthropic", "boto3", "httpx2", "genai-prices")
    return "vendors: " + ", ".join(f"{name} {version(name)}" for name in packages)


# Machines that run tests are busy: a slow example is no failure.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")


@pytest.fixture
def pipeline(kafka_bootstrap: str, database_url: str, tmp_path: Path) -> Iterator[Pipeline]:
    """Topics and a database; the test starts what it needs."""
    with open_pipeline(kafka_bootstrap, database_url, tmp_path) as opened:
        yield opened


@pytest.fixture(scope="module")
def running(
    kafka_bootstrap: str, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pipeline]:
    """One running pipeline for a module: a vendor that knows `questions`, and all services."""
    directory = tmp_path_factory.mktemp("running")
    with open_pipeline(kafka_bootstrap, database_url, directory) as opened:
        opened.record(outcomes(questions(400)), labels=LABELS)
        opened.start_all()
        yield opened
