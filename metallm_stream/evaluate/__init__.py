"""What a policy is worth: replays of logged outcomes, baselines, and evaluation from the log."""

from metallm_stream.evaluate.bandit_log import BanditLog
from metallm_stream.evaluate.baselines import (
    WITHIN_BUDGET,
    Utilities,
    Value,
    baselines,
    utilities,
    within_budget,
)
from metallm_stream.evaluate.decisions import Decisions, Logged
from metallm_stream.evaluate.estimate import Estimate, Estimator
from metallm_stream.evaluate.metrics import METRICS, Metric
from metallm_stream.evaluate.off_policy import LogEvaluation, PolicyEvaluation, PolicyValue
from metallm_stream.evaluate.outcomes import LoggedQuery, Outcomes, read_logged, read_outcomes
from metallm_stream.evaluate.replay import Choices, Labels, Replayed, replay
from metallm_stream.evaluate.report import Part, mean_part, parts
from metallm_stream.evaluate.spending import Spending
from metallm_stream.evaluate.targets import ALWAYS, TARGETS
from metallm_stream.evaluate.warm_start import prior, prior_weight

__all__ = [
    "ALWAYS",
    "METRICS",
    "TARGETS",
    "WITHIN_BUDGET",
    "BanditLog",
    "Choices",
    "Decisions",
    "Estimate",
    "Estimator",
    "Labels",
    "LogEvaluation",
    "Logged",
    "LoggedQuery",
    "Metric",
    "Outcomes",
    "Part",
    "PolicyEvaluation",
    "PolicyValue",
    "Replayed",
    "Spending",
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
    "within_budget",
]
