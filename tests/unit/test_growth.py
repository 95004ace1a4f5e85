"""What the benchmark of growth calls flat."""

from __future__ import annotations

import pytest

from benchmarks.stream.growth import verdicts


def checkpoint(rss_mb: float, cpu_ms: float) -> dict[str, dict[str, float]]:
    """Of one service."""
    return {"rss_mb": {"one": rss_mb}, "peak_mb": {"one": rss_mb}, "cpu_ms": {"one": cpu_ms}}


@pytest.mark.parametrize(("rss_mb", "cpu_ms"), [(109, 1.0), (100, 1.19), (111, 0.5), (90, 1.21)])
def test_what_grew_little_since_the_warm_up_is_flat(rss_mb: float, cpu_ms: float) -> None:
    """Memory by a tenth, processor time by a fifth; the warm-up and one odd checkpoint are out."""
    checkpoints = [checkpoint(10, 9), *[checkpoint(100, 1)] * 8, checkpoint(rss_mb, cpu_ms)]
    checkpoints += [checkpoint(900, 9), checkpoint(rss_mb, cpu_ms)]
    found = verdicts(checkpoints)
    assert found["grown"]["rss_mb"]["one"] == pytest.approx(rss_mb / 100)
    assert found["flat"] == {"rss_mb": {"one": rss_mb <= 110}, "cpu_ms": {"one": cpu_ms <= 1.2}}
