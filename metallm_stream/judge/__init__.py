"""Prediction and label or score → quality in [0, 1]; query → prompt; answer → prediction."""

from metallm_stream.judge.dispatch import parse, prompt, quality
from metallm_stream.judge.unjudgeable import Unjudgeable

__all__ = ["Unjudgeable", "parse", "prompt", "quality"]
