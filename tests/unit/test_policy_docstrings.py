"""The examples in the docstrings of encode, policy and evaluate run and are right."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import metallm_stream.encode
import metallm_stream.evaluate
import metallm_stream.policy

MODULES = [
    found.name
    for package in (metallm_stream.encode, metallm_stream.evaluate, metallm_stream.policy)
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    """Each example gives the output that stands beside it."""
    assert doctest.testmod(importlib.import_module(name)).failed == 0
