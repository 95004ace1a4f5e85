"""What all benchmarks share of input, output and the machine: options, tables, JSON, versions."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PEERS = ("paretobandit", "mabwiser", "vowpalwabbit")
PACKAGES = ("metallm-stream", "numpy", "river", *PEERS)


def parser(doc: str | None, name: str) -> argparse.ArgumentParser:
    """A parser with the first line of a module's docstring, and where to write the figures."""
    made = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    made.add_argument("--json", type=Path, default=Path("out/bench") / f"{name}.json")
    return made


def versions() -> dict[str, str | None]:
    """What was measured: None for a package that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def say_versions() -> None:
    """One line of what takes part, and what is missing."""
    print(", ".join(f"{name} {found or 'not installed'}" for name, found in versions().items()))


def write(path: Path, figures: Mapping[str, Any]) -> None:
    """Write figures, and the versions that they were measured with, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {"versions": versions(), **figures}
    path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    print(f"written: {path}", flush=True)


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table with a title: the first column to the left, the others to the right."""
    cells = [list(columns), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(columns))]
    print(f"\n{title}")
    for row in cells:
        first, *others = zip(row, widths, strict=True)
        line = first[0].ljust(first[1]) + "".join(f"  {cell:>{width}}" for cell, width in others)
        print(line.rstrip())
    print(flush=True)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4f}" if abs(value) < 1 else f"{value:.4g}"
