"""What a policy is worth: replays of logged outcomes, baselines, and evaluation from the log."""

from metallm_stream.evaluate.bandit_log import BanditLog
from metallm_stream.evaluate.baselines import Utilities, Value, baselines, utilities
from metallm_stream.evaluate.decisions import Decisions, Logged
from metallm_stream.evaluate.estimate import Estimate, Estimator
from metallm_stream.evaluate.metrics import METRICS, Metric
from metallm_stream.evaluate.off_policy import LogEvaluation, PolicyEvaluation, PolicyValue
from metallm_stream.evaluate.outcomes import Outcomes, read_outcomes
from metallm_stream.evaluate.replay import Choices, Labels, replay
from metallm_stream.evaluate.report import Part, mean_part, parts
from metallm_stream.evaluate.targets import ALWAYS, TARGETS

__all__ = [
    "ALWAYS",
    "METRICS",
    "TARGETS",
    "BanditLog",
    "Choices",
    "Decisions",
    "Estimate",
    "Estimator",
    "Labels",
    "LogEvaluation",
    "Logged",
    "Metric",
    "Outcomes",
    "Part",
    "PolicyEvaluation",
    "PolicyValue",
    "Utilities",
    "Value",
    "baselines",
    "mean_part",
    "parts",
    "read_outcomes",
    "replay",
    "utilities",
]
