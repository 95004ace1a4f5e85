"""What each published policy looked like, and who may publish.

Invariant: versions only grow, also across crashes; one learner at a time holds the publish lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from sqlalchemy import Connection

from metallm_stream.events import Model, PolicyArm, PolicyManifest
from metallm_stream.postgres import statements
from metallm_stream.postgres.rows import storable_json


def try_publish_lock(conn: Connection) -> bool:
    """Whether this transaction may publish; the lock lasts until its end.

    Commit only when the policy has been published, so that no other learner's comes between.
    """
    return bool(conn.execute(statements.TRY_PUBLISH_LOCK).scalar_one())


def newest_policy_version(conn: Connection) -> int:
    """The version of the newest policy that was published; 0 where there is none."""
    return int(conn.execute(statements.NEWEST_POLICY_VERSION).scalar_one())


def next_policy_version(conn: Connection, *, above: int = 0) -> int:
    """A version never given out before, larger than `above` (what the topic already has).

    `above` matters after the database was restored or replaced while the topic was kept.
    """
    version = int(conn.execute(statements.NEXT_POLICY_VERSION).scalar_one())
    if version > above:
        return version
    conn.execute(statements.SKIP_POLICY_VERSIONS, {"version": above + 1})
    return above + 1


def record_policy(
    conn: Connection, manifest: PolicyManifest, arms: Sequence[PolicyArm], *, keep: int
) -> None:
    """Keep means, priors and norms of one policy for the views; the oldest beyond `keep` go."""
    conn.execute(
        statements.RECORD_POLICY,
        {
            "version": manifest.version,
            "policy": manifest.policy,
            "published_at": manifest.published_at,
            "encoder": manifest.encoder,
            "dimensions": manifest.dimensions,
            "observations": manifest.observations,
            "mean_quality": manifest.mean_quality,
            "shared_norm": _norm(manifest.shared_weights),
            "noise_variance": manifest.noise_variance,
            "shared_precision": manifest.shared_precision,
            "arm_precision": manifest.arm_precision,
            "log_evidence": manifest.log_evidence,
            "arms": orjson.dumps([_summary(item) for item in arms]).decode(),
        },
    )
    conn.execute(statements.TRIM_POLICIES, {"keep": keep})


def save_model(conn: Connection, arm: str, model: Model | None) -> None:
    """Keep one arm of the catalogue; `None` removes it."""
    if model is None:
        conn.execute(statements.DELETE_MODEL, {"arm": arm})
    else:
        conn.execute(statements.SAVE_MODEL, {"arm": arm, "record": storable_json(model)})


def forget_other_models(conn: Connection, arms: Sequence[str]) -> None:
    """Remove every arm but these from the catalogue."""
    conn.execute(statements.DELETE_OTHER_MODELS, {"arms": list(arms)})


def _norm(weights: bytes) -> float:
    return float(np.linalg.norm(np.frombuffer(weights, dtype="<f4")))


def _summary(item: PolicyArm) -> dict[str, Any]:
    bulky = {
        "weights",
        "mean_context",
        "covariance_root",
        "schema_version",
        "kind",
        "policy",
        "version",
    }
    return item.model_dump(exclude=bulky) | {"weights_norm": _norm(item.weights)}
