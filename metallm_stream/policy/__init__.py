"""From sums to weights to a choice: everything that is learned, usable without Kafka.

The same as a policy of River's, to run in River: `metallm_stream.policy.multi_task_ridge`. It is
not loaded here, since River takes a second to import and the services need none of it.
"""

from metallm_stream.policy.beliefs import Beliefs
from metallm_stream.policy.chooser import Chooser, Stateful, sample
from metallm_stream.policy.costs import CostCurve
from metallm_stream.policy.elimination import SoftElimination
from metallm_stream.policy.epsilon_greedy import EpsilonGreedy
from metallm_stream.policy.fixed import Fixed
from metallm_stream.policy.forgetting import NOTHING_FORGOTTEN, Forgetting, HalfLife, Shift
from metallm_stream.policy.igw import InverseGap
from metallm_stream.policy.linucb import LinUcb
from metallm_stream.policy.published import Published, to_records
from metallm_stream.policy.registry import CHOOSERS, DEFAULT_CHOOSER, chooser, is_river
from metallm_stream.policy.ridge import Precisions, RidgeFit, fit
from metallm_stream.policy.scorer import Scores
from metallm_stream.policy.sums import Sums, merged
from metallm_stream.policy.thompson import Thompson
from metallm_stream.policy.uniform import Uniform
from metallm_stream.policy.usage import CHARACTERS, Usage, mean_of, usage_of_call, usage_row

__all__ = [
    "CHARACTERS",
    "CHOOSERS",
    "DEFAULT_CHOOSER",
    "NOTHING_FORGOTTEN",
    "Beliefs",
    "Chooser",
    "CostCurve",
    "EpsilonGreedy",
    "Fixed",
    "Forgetting",
    "HalfLife",
    "InverseGap",
    "LinUcb",
    "Precisions",
    "Published",
    "RidgeFit",
    "Scores",
    "Shift",
    "SoftElimination",
    "Stateful",
    "Sums",
    "Thompson",
    "Uniform",
    "Usage",
    "chooser",
    "fit",
    "is_river",
    "mean_of",
    "merged",
    "sample",
    "to_records",
    "usage_of_call",
    "usage_row",
]
