"""What a policy is worth: replays of logged outcomes, and the baselines to respect."""

from metallm_stream.evaluate.baselines import Utilities, Value, baselines, utilities
from metallm_stream.evaluate.outcomes import Logged, Outcomes, read_logged, read_outcomes
from metallm_stream.evaluate.replay import Choices, Labels, replay
from metallm_stream.evaluate.report import Part, mean_part, parts
from metallm_stream.evaluate.warm_start import prior, prior_weight, utilities_from

__all__ = [
    "Choices",
    "Labels",
    "Logged",
    "Outcomes",
    "Part",
    "Utilities",
    "Value",
    "baselines",
    "mean_part",
    "parts",
    "prior",
    "prior_weight",
    "read_logged",
    "read_outcomes",
    "replay",
    "utilities",
    "utilities_from",
]
