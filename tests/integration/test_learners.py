"""Several learners of one group."""

from __future__ import annotations

import re

from tests.pipeline import Pipeline, eventually


def test_two_learners_share_each_topic(pipeline: Pipeline) -> None:
    """Not only the number of partitions: one with dead letters alone would learn nothing."""
    for slot in ("0", "1"):
        pipeline.start("learner", slot=slot).wait_ready(60)
    for topic in pipeline.names.joined:
        eventually(lambda topic=topic: held(pipeline, topic) in ([[0], [1]], [[1], [0]]), 60)


def held(pipeline: Pipeline, topic: str) -> list[list[int]]:
    """The topic's partitions that each of the two was assigned last."""
    logs = [(pipeline.directory / f"learner-{slot}.log").read_text() for slot in "01"]
    last = [[line for line in log.splitlines() if " assigned " in line][-1:] for log in logs]
    found = [re.findall(rf"{re.escape(topic)}\[(\d+)\]", "".join(line)) for line in last]
    return [[int(number) for number in numbers] for numbers in found]
