"""Prediction and label or score → quality in [0, 1]; query → prompt; answer → prediction."""

from metallm_stream.judge.dispatch import parse, prompt, quality, template
from metallm_stream.judge.templates import Template, Templates, load, shipped
from metallm_stream.judge.unjudgeable import Unjudgeable
from metallm_stream.judge.verdict import case_of, is_drawn, is_own, judge_prompt, read_score

__all__ = [
    "Template",
    "Templates",
    "Unjudgeable",
    "case_of",
    "is_drawn",
    "is_own",
    "judge_prompt",
    "load",
    "parse",
    "prompt",
    "quality",
    "read_score",
    "shipped",
    "template",
]
