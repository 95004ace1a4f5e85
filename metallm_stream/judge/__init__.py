"""Prediction and label or score → quality in [0, 1]; query → prompt; answer → prediction."""

from metallm_stream.judge.dispatch import parse, prompt, quality, template
from metallm_stream.judge.templates import Templates, load, shipped
from metallm_stream.judge.unjudgeable import Unjudgeable

__all__ = [
    "Templates",
    "Unjudgeable",
    "load",
    "parse",
    "prompt",
    "quality",
    "shipped",
    "template",
]
