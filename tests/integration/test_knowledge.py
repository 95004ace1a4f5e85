"""Which of the policies on the topic a router takes over."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from metallm_stream.errors import ConfigurationError
from metallm_stream.kafka import Record, write
from metallm_stream.policy import Sums, fit, to_records
from metallm_stream.serve.knowledge import Knowledge
from tests.pipeline import Pipeline

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def publish(pipeline: Pipeline, version: int, encoder: str, dimensions: int = 3) -> None:
    """A whole policy of one arm."""
    sums = Sums(dimensions)
    sums.add_quality("mini", np.eye(dimensions), np.ones(dimensions), np.ones(dimensions))
    manifest, arms = to_records(
        fit(sums, ["mini"]),
        sums,
        policy="ridge",
        version=version,
        published_at=NOW,
        encoder=encoder,
    )
    topic = pipeline.names.policy
    records = [Record.of(topic, f"ridge/{version}/{arm.arm}", arm) for arm in arms]
    write(pipeline.producer, [*records, Record.of(topic, f"ridge/{version}", manifest)])


def test_a_policy_of_another_encoder_stops_who_has_no_other(pipeline: Pipeline) -> None:
    """Where one of ours is on the topic, or in force, those of others are ignored."""
    publish(pipeline, 7, "other")
    alone = Knowledge(pipeline.kafka, pipeline.names, "ours", None, 3)
    with pytest.raises(ConfigurationError, match="policy 7 was learned with encoder 'other'"):
        alone.catch_up()
    publish(pipeline, 5, "ours")
    publish(pipeline, 8, "ours", dimensions=4)
    publish(pipeline, 9, "other")
    knowledge = Knowledge(pipeline.kafka, pipeline.names, "ours", None, 3)
    knowledge.catch_up()
    assert knowledge.published is not None
    assert (knowledge.published.version, knowledge.published.encoder) == (5, "ours")
    alone.close()
    knowledge.close()
