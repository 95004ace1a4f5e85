"""How long an answer takes.

Invariant: the latency of a request is a function of seed, model, text and the number of the try
alone, so a run has the same latencies in whatever order its requests arrive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from metallm_stream.embedded.recorded_llm.recording import Outcome


@dataclass(frozen=True, slots=True)
class Latency:
    """Recorded latencies, or log-normal ones where a mean is given; none where neither is known.

    Parameters
    ----------
    mean_s
        Mean of the log-normal distribution; `None` takes the recorded latency.
    sigma
        Standard deviation of its logarithm: 0.5 puts the 99th percentile at 2.8 times the mean.
    scale
        Factor on either.
    seed
        What the draws depend on, besides the request.
    """

    mean_s: float | None = None
    sigma: float = 0.5
    scale: float = 1.0
    seed: int = 0

    def of(self, outcome: Outcome | None, request: str) -> float:
        """Seconds until the answer to the request with this identity.

        >>> Latency(mean_s=0.8, sigma=0.0).of(None, "a")
        0.8
        """
        if self.mean_s is not None and self.mean_s > 0:
            draw = Random(f"{self.seed} {request}")  # noqa: S311 - no secret depends on it
            mu = math.log(self.mean_s) - self.sigma**2 / 2
            return self.scale * draw.lognormvariate(mu, self.sigma)
        recorded_s = outcome.recorded_latency_s if outcome is not None else None
        return self.scale * (recorded_s or 0.0)
