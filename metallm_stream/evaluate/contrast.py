"""Whether the rewards of a log differ enough for their spread to be believed.

Invariant: a failure that has not come yet is in no spread. Where all but a few rewards lie at one
end of what is possible, intervals by a limit theorem are too narrow, down to no width at all.
"""

from __future__ import annotations

from metallm_stream.evaluate.estimate import Estimate
from metallm_stream.evaluate.overlap import distrust

# The usual rule asks for so many successes, and as many failures (Brown, Cai & DasGupta 2001,
# "Interval estimation for a binomial proportion", section 2).
FEWEST_AGAINST = 10.0
# A width of so little of the value is 0 but for rounding.
NARROWEST = 1e-6


def too_narrow(
    mean: Estimate,
    effective_decisions: float,
    bounds: tuple[float, float] | None,
    *,
    anytime: bool,
) -> tuple[str, ...]:
    """Why intervals are too narrow, but for an `anytime` one if there is any.

    `mean` is the weighted mean of the rewards (`snips`). Empty where nothing speaks against them.

    >>> mean = Estimate("snips", 0.995, 0.985, 1.005)
    >>> too_narrow(mean, 200.0, (0.0, 1.0), anytime=False)
    ('only 1.0 effective decisions speak against a value of 1: no interval can be trusted',)
    """
    if mean.value is None or mean.low is None or mean.high is None:
        return ()
    for bound in bounds or ():
        against = effective_decisions * abs(mean.value - bound)
        if against < FEWEST_AGAINST:
            said = f"only {against:.1f} effective decisions speak against a value of {bound:g}"
            return (f"{said}: {distrust(anytime=anytime)}",)
    if mean.high - mean.low <= NARROWEST * abs(mean.value):
        said = f"every decision that counts brought {mean.value:.4g}"
        return (f"{said}: {distrust(anytime=anytime)}",)
    return ()
