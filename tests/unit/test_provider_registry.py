"""Which wires there are, and what a missing extra says."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest

from metallm_stream.providers.registry import WIRES
from tests.readme import REPOSITORY

OPEN = """
import sys
sys.modules[{package!r}] = None
from metallm_stream.errors import ConfigurationError
from metallm_stream.providers import ProviderSettings, open_provider
try:
    open_provider(ProviderSettings(name="v", wire={wire!r}, api_key="sk-planted"))
except ConfigurationError as exc:
    print(exc)
"""


@pytest.mark.parametrize(
    ("wire", "package"), [("anthropic", "anthropic"), ("bedrock", "boto3"), ("bedrock", "botocore")]
)
def test_a_missing_extra_is_named(wire: str, package: str) -> None:
    """Provider, wire and what to install, in one line, and no traceback."""
    ran = subprocess.run(
        [sys.executable, "-c", OPEN.format(wire=wire, package=package)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == (
        f"provider 'v': the wire '{wire}' needs the package '{package}', which is not installed: "
        f"pip install 'metallm-stream[{wire}]'\n"
    )


def test_every_wires_sdk_is_in_its_extra() -> None:
    """The base install has the one of OpenAI alone."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    for wire in WIRES:
        wanted = project["optional-dependencies"].get(wire, project["dependencies"])
        sdk = "boto3" if wire == "bedrock" else wire
        assert any(requirement.startswith(sdk) for requirement in wanted)


def test_a_worker_of_one_vendor_loads_no_other_sdk() -> None:
    """What a process does not speak, it does not import."""
    program = """
import sys
from metallm_stream.providers import ProviderSettings, open_provider
open_provider(ProviderSettings(name="v", api_key="k"))
print(sorted({"anthropic", "boto3", "openai"} & set(sys.modules)))
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "['openai']\n"
