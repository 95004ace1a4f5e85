"""What a policy is worth: replays of logged outcomes, and the baselines to respect."""

from metallm_stream.evaluate.baselines import Utilities, Value, baselines, utilities
from metallm_stream.evaluate.outcomes import Outcomes, read_outcomes
from metallm_stream.evaluate.replay import Choices, Labels, replay
from metallm_stream.evaluate.report import Part, mean_part, parts

__all__ = [
    "Choices",
    "Labels",
    "Outcomes",
    "Part",
    "Utilities",
    "Value",
    "baselines",
    "mean_part",
    "parts",
    "read_outcomes",
    "replay",
    "utilities",
]
