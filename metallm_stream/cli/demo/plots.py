"""Three pictures of a stream: shares of the arms, regret against the baselines, and spend.

Invariant: drawn without a display and without pyplot's global state.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from metallm_stream.cli.demo.figures import Stream

PICTURES = ("shares.png", "regret.png", "spend.png")
WINDOW = 150
SIZE = (9.0, 4.8)
DPI = 130
SERVICE = "#111111"
ARMS = ("#4477aa", "#ee7733", "#228833", "#aa3377", "#66ccee", "#ccbb44", "#bbbbbb")
UNIFORM = "#999999"
STYLE: dict[Any, Any] = {
    "font.size": 10.5,
    "axes.titlesize": 12.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def plot(stream: Stream, directory: Path) -> list[Path]:
    """Draw the three pictures into the directory."""
    paths = [directory / name for name in PICTURES]
    with mpl.rc_context(STYLE):
        for path, draw in zip(paths, (_shares, _regret, _spend), strict=True):
            draw(stream).savefig(path, dpi=DPI)
    return paths


def _shares(stream: Stream) -> Figure:
    """Stacked shares of the arms in a moving window, over time."""
    figure = Figure(SIZE, layout="constrained")
    axes = figure.add_subplot()
    window = min(WINDOW, max(1, len(stream) // 5))
    first = min(window // 5, len(stream) - 1)
    order = np.argsort(stream.seconds, kind="stable")
    nobody = np.zeros(len(stream.arms))
    answered = np.vstack((np.eye(len(stream.arms)), nobody))[stream.arm[order]]
    seconds = stream.seconds[order][first:]
    shares = 100 * _moving_mean(answered, window)[first:]
    axes.stackplot(seconds, shares.T, labels=stream.arms, colors=ARMS, alpha=0.85, zorder=0)
    axes.set_axisbelow(False)
    axes.set(
        title=f"Which model answered (share of the last {window} queries)",
        xlabel="seconds since the first decision",
        ylabel="share of answers in %",
        xlim=(seconds[0], seconds[-1]),
        ylim=(0, 100),
    )
    _legend_below(figure, axes, columns=3)
    return figure


def _regret(stream: Stream) -> Figure:
    """Left: what everybody lost against the oracle. Right: the service against the best arm."""
    figure, left, right = _side_by_side()
    fixed = stream.value.utility
    queries = np.arange(1, len(stream) + 1)
    for name, utility, look in _lines(stream):
        left.plot(queries, np.cumsum(fixed.max(axis=1) - utility), label=name, **look)
    left.set_title("Cumulative regret against the oracle")
    best = int(np.argmax(fixed.mean(axis=0)))
    right.axhline(0, color=ARMS[best % len(ARMS)], linewidth=1.6)
    right.plot(queries, np.cumsum(fixed[:, best] - stream.utility), color=SERVICE, linewidth=2.4)
    right.set_title("… of the service against the best fixed arm")
    right.annotate(
        f"always {stream.arms[best]}",
        (1, 0),
        xycoords=("axes fraction", "data"),
        xytext=(-4, 5),
        textcoords="offset points",
        ha="right",
        color=ARMS[best % len(ARMS)],
        fontsize=9.5,
    )
    for axes in (left, right):
        axes.set(xlabel="queries", ylabel="utility lost since the start", xlim=(0, len(stream)))
    _legend_below(figure, left, columns=3)
    return figure


def _spend(stream: Stream) -> Figure:
    """Money spent so far, by the service and by every arm alone; right: the same, magnified."""
    figure, left, right = _side_by_side()
    order = np.argsort(stream.seconds, kind="stable")
    seconds = stream.seconds[order]
    spends = [("the service", stream.cost_usd, SERVICE, 2.4)]
    for column, arm in enumerate(stream.arms):
        cost_usd = stream.value.outcomes.cost_usd[:, column]
        spends.append((f"always {arm}", cost_usd, ARMS[column % len(ARMS)], 1.6))
    for name, cost_usd, color, width in spends:
        spent = np.cumsum(cost_usd[order])
        label = f"{name}: ${spent[-1]:,.2f}"
        for axes in (left, right):
            axes.plot(seconds, spent, color=color, linewidth=width, label=label)
    left.set_title(f"Spend on {len(stream):,} queries")
    left.set_ylim(bottom=0)
    right.set_title("… magnified")
    right.set_ylim(0, 1.3 * float(stream.cost_usd.sum()))
    for axes in (left, right):
        axes.set(xlabel="seconds since the first decision", xlim=(0, seconds[-1]))
        axes.yaxis.set_major_formatter("${x:,.2f}")
    left.set_ylabel("USD since the start")
    _legend_below(figure, left, columns=2)
    return figure


def _lines(stream: Stream) -> list[tuple[str, NDArray[np.float64], dict[str, Any]]]:
    """Utilities `(n,)` of the service and of what does not learn, with their looks."""
    utility = stream.value.utility
    arms: list[tuple[str, NDArray[np.float64], dict[str, Any]]] = [
        (f"always {arm}", utility[:, column], {"color": ARMS[column % len(ARMS)]})
        for column, arm in enumerate(stream.arms)
    ]
    return [
        ("the service", stream.utility, {"color": SERVICE, "linewidth": 2.4, "zorder": 3}),
        *arms,
        ("uniform random", utility.mean(axis=1), {"color": UNIFORM, "linestyle": "--"}),
    ]


def _moving_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Mean of the last `window` rows at each row, of fewer in the beginning; `(n, K)` as given."""
    sums = np.vstack((np.zeros(values.shape[1]), np.cumsum(values, axis=0)))
    ends = np.arange(1, len(sums))
    starts = np.maximum(0, ends - window)
    mean: NDArray[np.float64] = (sums[ends] - sums[starts]) / (ends - starts)[:, None]
    return mean


def _side_by_side() -> tuple[Figure, Axes, Axes]:
    figure = Figure((SIZE[0] * 1.25, SIZE[1]), layout=ConstrainedLayoutEngine(wspace=0.06))
    left, right = figure.subplots(1, 2)
    return figure, left, right


def _legend_below(figure: Figure, axes: Axes, *, columns: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=9.5)
