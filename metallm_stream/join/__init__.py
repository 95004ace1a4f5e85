"""decision + result + feedback + verdict → interaction → change of the sums."""

from metallm_stream.join.change import (
    Lesson,
    change,
    check_context,
    lesson,
    moment,
    users_lesson,
)
from metallm_stream.join.interaction import MAX_FEEDBACK, Interaction, Judgement
from metallm_stream.join.residual import residuals
from metallm_stream.join.reward import Reward, Rewards

__all__ = [
    "MAX_FEEDBACK",
    "Interaction",
    "Judgement",
    "Lesson",
    "Reward",
    "Rewards",
    "change",
    "check_context",
    "lesson",
    "moment",
    "residuals",
    "users_lesson",
]
