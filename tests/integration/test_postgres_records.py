"""Dead letters, policies and models as PostgreSQL keeps them."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from sqlalchemy import Engine, text

from metallm_stream.events import Model, PolicyArm, PolicyManifest, Price
from metallm_stream.postgres import (
    DeadLetter,
    next_policy_version,
    record_policy,
    save_dead_letters,
    save_model,
    try_publish_lock,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def _manifest(version: int, **fields: object) -> PolicyManifest:
    weights = np.array([3.0, 4.0], dtype="<f4").tobytes()
    known = {
        "policy": "ridge-igw",
        "version": version,
        "published_at": NOW,
        "encoder": "test",
        "dimensions": 2,
        "arms": ("mini",),
        "observations": 12.0,
        "mean_quality": 0.5,
        "shared_weights": weights,
        "noise_variance": 0.25,
        "shared_precision": 10.0,
        "arm_precision": 30.0,
        "log_evidence": -7.5,
    }
    return PolicyManifest(**(known | fields))


def _arm(version: int) -> PolicyArm:
    return PolicyArm(
        policy="ridge-igw",
        version=version,
        arm="mini",
        observations=12,
        mean_quality=0.5,
        weights=np.array([0.6, 0.8], dtype="<f4").tobytes(),
        mean_context=np.zeros(2, dtype="<f4").tobytes(),
        calls=20,
        cost_usd=0.001,
        latency_s=1.5,
        failure_rate=0.05,
    )


def test_a_dead_letter_is_kept_once_with_its_first_reason(engine: Engine) -> None:
    """A replayed batch adds nothing, and neither does the same record twice in a batch."""
    first = DeadLetter("queries", 1, 7, "router", NOW, "not JSON", b"key", b"\xff\x00{")
    again = DeadLetter("queries", 1, 7, "router", NOW, "another reason")
    with engine.begin() as conn:
        save_dead_letters(conn, [first, again])
        save_dead_letters(conn, [again, DeadLetter("queries", 2, 7, "router", NOW, "tombstone")])
        save_dead_letters(conn, [])
        rows = conn.execute(
            text("SELECT reason, key, value FROM metallm.dead_records ORDER BY partition")
        )
        assert [tuple(row) for row in rows] == [
            ("not JSON", b"key", b"\xff\x00{"),
            ("tombstone", None, None),
        ]


def test_a_long_dead_letter_is_cut_and_says_so(engine: Engine) -> None:
    """Of 10 MB the first 64 KB are kept, and the true length."""
    with engine.begin() as conn:
        save_dead_letters(
            conn, [DeadLetter("queries", 0, 0, "router", NOW, "too long", None, b"x" * 10**7)]
        )
        row = conn.execute(
            text("SELECT length(value), value_bytes, truncated FROM metallm.dead_records")
        ).one()
    assert tuple(row) == (65_536, 10**7, True)


def test_a_dead_letter_with_forged_headers_cannot_stop_the_learner(engine: Engine) -> None:
    """Texts with NUL and numbers beyond the column are cut to what fits."""
    forged = DeadLetter("a\x00b", 10**12, 10**30, "\x00", NOW, "\ud800")
    with engine.begin() as conn:
        save_dead_letters(conn, [forged])
        row = conn.execute(text("SELECT topic, partition, reason FROM metallm.dead_records")).one()
    assert tuple(row) == ("ab", 2**31 - 1, "\ufffd")


def test_policy_versions_only_grow(engine: Engine) -> None:
    """Also after a rollback, and past what the topic already has."""
    with engine.begin() as conn:
        first = next_policy_version(conn)
    with engine.connect() as conn:
        lost = next_policy_version(conn)
        conn.rollback()
    with engine.begin() as conn:
        ahead = next_policy_version(conn, above=1_000)
        assert first < lost < ahead == 1_001
        assert next_policy_version(conn, above=5) == 1_002


def test_policies_are_recorded_and_trimmed(engine: Engine) -> None:
    """The newest `keep` stay."""
    with engine.begin() as conn:
        for version in range(1, 8):
            record_policy(conn, _manifest(version), [_arm(version)], keep=3)
        versions = conn.execute(text("SELECT version FROM metallm.policies ORDER BY version"))
        assert versions.scalars().all() == [5, 6, 7]


def test_policy_now_shows_norms_evidence_and_priors(engine: Engine) -> None:
    """The newest version, one row an arm."""
    with engine.begin() as conn:
        record_policy(conn, _manifest(1, log_evidence=None), [_arm(1)], keep=9)
        record_policy(conn, _manifest(2), [_arm(2)], keep=9)
        row = conn.execute(text("SELECT * FROM metallm.policy_now")).one()
    assert (row.version, row.shared_precision, row.arm_precision) == (2, 10.0, 30.0)
    assert (row.log_evidence, row.noise_variance, row.observations) == (-7.5, 0.25, 12.0)
    assert row.shared_norm == pytest.approx(5.0)
    assert (row.arm, row.arm_calls, row.arm_failure_rate) == ("mini", 20.0, 0.05)
    assert row.arm_weights_norm == pytest.approx(1.0)
    assert row.arm_input_tokens is None
    assert row.age_s > 0


def test_the_catalogue_is_kept_and_arms_are_removed(engine: Engine) -> None:
    """A price change replaces the record, a tombstone deletes it."""
    model = Model(arm="mini", provider="openai", model="gpt-4o-mini")
    dearer = model.model_copy(
        update={"price": Price(input_usd_per_mtok=1.0, output_usd_per_mtok=2.0)}
    )
    with engine.begin() as conn:
        save_model(conn, "mini", model)
        save_model(conn, "mini", dearer)
        save_model(conn, "large", model.model_copy(update={"arm": "large"}))
        save_model(conn, "large", None)
        save_model(conn, "never", None)
        rows = conn.execute(text("SELECT arm, record FROM metallm.models")).all()
    assert [arm for arm, _ in rows] == ["mini"]
    assert Model.model_validate(rows[0][1]) == dearer


def test_one_learner_at_a_time_may_publish(engine: Engine) -> None:
    """The lock belongs to a transaction, and is free when that ends in whatever way."""
    with engine.connect() as holder, engine.connect() as other:
        assert try_publish_lock(holder)
        assert not try_publish_lock(other)
        holder.commit()
        assert try_publish_lock(other)
        other.rollback()
        assert try_publish_lock(holder)
