"""Plots of learning curves and of quality over the share of strong calls; needs matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

Curve = Sequence[tuple[float, float]]
REFERENCES = {"best fixed arm": "0.4", "uniform": "0.75", "full information": "tab:green"}


def plot(path: Path, title: str, panels: Mapping[str, Mapping[str, Mapping[str, Curve]]]) -> None:
    """One panel a case: the policies' curves with standard errors, and the references."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after the backend

    columns = min(4, len(panels))
    lines = math.ceil(len(panels) / columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(4 * columns, 3.2 * lines), squeeze=False, layout="constrained"
    )
    for axis, (name, policies) in zip(axes.flat, panels.items(), strict=False):
        for rule, curves in policies.items():
            _draw(axis, curves["policy"], rule)
        for reference, colour in REFERENCES.items():
            _draw(axis, next(iter(policies.values()))[reference], reference, colour)
        axis.set(title=name, xlabel="share of the stream", ylabel="utility")
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    axes.flat[0].legend(fontsize="small")
    figure.suptitle(title)
    _save(figure, path)


def plot_quality(
    path: Path, title: str, curves: Mapping[str, Sequence[tuple[float, float]]]
) -> None:
    """Quality gap recovered over the share of strong calls."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after the backend

    figure, axis = plt.subplots(figsize=(5, 4), layout="constrained")
    for name, points in curves.items():
        axis.plot(*zip(*points, strict=True), marker=".", label=name)
    axis.plot([0, 1], [0, 1], color="0.75", label="random")
    axis.set(title=title, xlabel="share of strong calls", ylabel="performance gap recovered")
    axis.legend(fontsize="small")
    _save(figure, path)


def _draw(axis: object, curve: Curve, name: str, colour: str | None = None) -> None:
    """A curve that ends with the stream; a shorter one is of its last part."""
    mean, error = np.array(curve).T
    width = 1 / 20
    x = 1 - width * (np.arange(len(mean))[::-1] + 0.5)
    (line,) = axis.plot(x, mean, color=colour, label=name)  # type: ignore[attr-defined]
    axis.fill_between(  # type: ignore[attr-defined]
        x, mean - error, mean + error, color=line.get_color(), alpha=0.2
    )


def _save(figure: object, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)  # type: ignore[attr-defined]
    print(f"drawn: {path}", flush=True)
