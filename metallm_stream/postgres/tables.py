"""The tables of schema `metallm`, as they are now.

Invariant: a database built by all migrations has exactly these tables; a test compares the two.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    Date,
    DateTime,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Sequence,
    Table,
    Text,
    event,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

SCHEMA = "metallm"
MOMENT = DateTime(timezone=True)

metadata = MetaData(
    schema=SCHEMA,
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "ck": "%(table_name)s_%(constraint_name)s",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    },
)

policy_version = Sequence("policy_version", metadata=metadata, data_type=BigInteger)

offsets = Table(
    "offsets",
    metadata,
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False),
    Column("next_offset", BigInteger, nullable=False),
    Column("high_watermark", BigInteger),
    Column("updated_at", MOMENT, nullable=False, server_default=func.now()),
    Column("topic_id", Text, comment="Of the topic that was read; null: not known yet."),
    CheckConstraint("next_offset >= 0", name="next_offset_not_negative"),
    comment="The first unread offset of each partition, fenced by epoch.",
)

slots = Table(
    "slots",
    metadata,
    Column("slot", Text, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False, server_default=text("0")),
    Column("updated_at", MOMENT, nullable=False, server_default=func.now()),
    comment="One row a learner process; the epoch fences its predecessor, the version its sums.",
)

sums = Table(
    "sums",
    metadata,
    Column("slot", Text, primary_key=True),
    Column("arm", Text, primary_key=True),
    Column("sums", LargeBinary, nullable=False),
    Column("observations", Double, nullable=False),
    Column("updated_at", MOMENT, nullable=False, server_default=func.now()),
    comment="What each slot has learned of each arm; the model is their sum.",
)

encoder = Table(
    "encoder",
    metadata,
    Column("single", Boolean, primary_key=True, server_default=text("true")),
    Column("name", Text, nullable=False),
    Column("dimensions", Integer, nullable=False),
    CheckConstraint("single", name="one_row"),
    comment="The encoder whose contexts the sums were learned from.",
)

half_lives = Table(
    "half_lives",
    metadata,
    Column("effective_at", MOMENT, primary_key=True),
    Column("half_life_s", Double, comment="Null: nothing is forgotten with time."),
    Column("recorded_at", MOMENT, nullable=False, server_default=func.now()),
    CheckConstraint("half_life_s > 0", name="half_life_positive"),
    comment="The half-life of evidence from each time on; rows stay once anything was learned.",
)

shifts = Table(
    "shifts",
    metadata,
    Column("arm", Text, primary_key=True),
    Column("effective_at", MOMENT, primary_key=True),
    Column("factor", Double, nullable=False, comment="What older evidence counts from then on."),
    Column("detected_at", MOMENT, nullable=False, server_default=func.now()),
    Column("slot", Text, nullable=False, comment="The learner that has detected it."),
    Column("detector", Text, nullable=False),
    Column("direction", Text, nullable=False),
    Column("mean_before", Double, comment="Mean residual before the shift."),
    Column("mean_after", Double, comment="Mean residual since, as far as it was seen."),
    Column(
        "ageing_s", Double, comment="Time scale at which evidence ages since; null: it does not."
    ),
    CheckConstraint("factor > 0 AND factor <= 1", name="factor_in_range"),
    CheckConstraint("direction IN ('down', 'up')", name="direction_known"),
    CheckConstraint("ageing_s >= 1", name="ageing_in_range"),
    comment="Where an arm's quality has changed; rows are added, never changed.",
)

warmups = Table(
    "warmups",
    metadata,
    Column("name", Text, primary_key=True),
    Column("queries", BigInteger, nullable=False),
    Column("weight", Double, nullable=False, comment="What one logged outcome counted, of 1."),
    Column("observations", JSONB, nullable=False, comment="Per arm, as of added_at."),
    Column("added_at", MOMENT, nullable=False, server_default=func.now()),
    comment="Logged outcomes that were added as prior knowledge; their sums are in a slot each.",
)

watches = Table(
    "watches",
    metadata,
    Column("slot", Text, primary_key=True),
    Column("arm", Text, primary_key=True),
    Column("state", JSONB, nullable=False),
    Column("updated_at", MOMENT, nullable=False, server_default=func.now()),
    comment="What each learner remembers of the residuals of the arms that it has judged.",
)

river_policy = Table(
    "river_policy",
    metadata,
    Column("single", Boolean, primary_key=True, server_default=text("true")),
    Column("slot", Text, nullable=False, comment="The one learner that teaches it."),
    Column("policy", Text, nullable=False),
    Column("parameters", Text, nullable=False),
    Column("river_version", Text, nullable=False),
    Column("encoder", Text, nullable=False),
    Column("lessons", BigInteger, nullable=False, comment="Number of the last lesson in it."),
    Column("state", LargeBinary, nullable=False),
    Column("base_lessons", BigInteger, nullable=False),
    Column("base", LargeBinary, nullable=False, comment="The state after base_lessons."),
    Column("updated_at", MOMENT, nullable=False, server_default=func.now()),
    CheckConstraint("single", name="one_row"),
    comment="What a policy of River's has learned: its base, and then its lessons in order.",
)

river_lessons = Table(
    "river_lessons",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("query_id", Text, nullable=False),
    Column("arm", Text, nullable=False),
    Column("context", LargeBinary, nullable=False),
    Column("reward", Double, nullable=False, comment="As it was learned."),
    Column("learned_at", MOMENT, nullable=False, server_default=func.now()),
    Column("corrected_at", MOMENT, comment="When it became another one; null: it still holds."),
    Column("arm_now", Text),
    Column("reward_now", Double, comment="Null: withdrawn."),
    Index(None, "query_id", unique=True),
    comment="What the policy of River's was taught, in order, and what has changed since.",
)

query_days = Table(
    "query_days",
    metadata,
    Column("query_id", Text, primary_key=True),
    Column("day", Date, nullable=False),
    Index(None, "day"),
    comment="The partition of each query's interaction; its row lock serialises the join.",
)

interactions = Table(
    "interactions",
    metadata,
    Column("query_id", Text, primary_key=True),
    Column("day", Date, primary_key=True, comment="UTC day on which the query was first seen."),
    Column("task", Text),
    Column("arm", Text, comment="The arm that was decided; null when no arm was left."),
    Column("answered_by", Text, comment="The arm that answered; null for a failure."),
    Column("propensity", Double, comment="Probability with which the policy chose the arm."),
    Column("policy", Text),
    Column("policy_version", BigInteger),
    Column("encoder", Text),
    Column("cost_weight", Double),
    Column("latency_weight", Double),
    Column("cost_scale_usd", Double, comment="The cost that counts as 1 in the utility."),
    Column("asked_at", MOMENT),
    Column("decided_at", MOMENT),
    Column("finished_at", MOMENT),
    Column("prediction", Text),
    Column("failure", Text, comment="Kind of failure, where there is no prediction."),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("cost_usd", Double, comment="All attempts together."),
    Column("latency_s", Double),
    Column("quality", Double, comment="The user's judgement in force, in [0, 1]."),
    Column("problem", Text, comment="Why the feedback could not be judged."),
    Column("label", Text),
    Column("score", Double),
    Column("given_at", MOMENT, comment="When the feedback in force was given."),
    Column("decision", JSONB, comment="The decision without its context."),
    Column("context", LargeBinary, comment="Float32, little-endian, of the encoder's dimension."),
    Column("result", JSONB),
    Column("feedback", JSONB, comment="The newest of each feedback id, newest last."),
    Column("updated_at", MOMENT, nullable=False, server_default=func.now()),
    Column(
        "judged_by", Text, comment="Whose judgement counts: user or model; null: there is none."
    ),
    Column("verdict", JSONB, comment="The judge model's; its cost is in no other column."),
    Column(
        "priced",
        Boolean,
        comment="Whether cost_usd has what the answer cost; null in rows of older releases.",
    ),
    CheckConstraint("judged_by IN ('user', 'model')", name="judged_by_known"),
    comment="One row a query: decision, result, feedback and verdict as far as they have come.",
    postgresql_partition_by="RANGE (day)",
)

policies = Table(
    "policies",
    metadata,
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("policy", Text, nullable=False),
    Column("published_at", MOMENT, nullable=False),
    Column("encoder", Text, nullable=False),
    Column("dimensions", Integer, nullable=False),
    Column("observations", Double, nullable=False),
    Column("mean_quality", Double, nullable=False),
    Column("shared_norm", Double, nullable=False),
    Column("noise_variance", Double, nullable=False),
    Column("shared_precision", Double, nullable=False),
    Column("arm_precision", Double, nullable=False),
    Column("log_evidence", Double),
    Column("arms", JSONB, nullable=False, comment="Per arm: means, counts and weights' norms."),
    comment="What each published policy looked like; the policy itself is on its topic.",
)

dead_records = Table(
    "dead_records",
    metadata,
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("record_offset", BigInteger, primary_key=True, autoincrement=False),
    Column("service", Text, nullable=False),
    Column("at", MOMENT, nullable=False),
    Column("reason", Text, nullable=False),
    Column("key", LargeBinary),
    Column("value", LargeBinary),
    Column("value_bytes", BigInteger, comment="The value's length before it was cut."),
    Column("truncated", Boolean, nullable=False, server_default=text("false")),
    comment="Records that the learner could not read, with position and reason.",
)

models = Table(
    "models",
    metadata,
    Column("arm", Text, primary_key=True),
    Column("record", JSONB, nullable=False),
    Column("updated_at", MOMENT, nullable=False, server_default=func.now()),
    comment="The catalogue of arms, as the learner last saw it on its topic.",
)

budget_accounts = Table(
    "budget_accounts",
    metadata,
    Column("budget", Text, primary_key=True),
    Column("key", Text, primary_key=True, comment="Value of the metadata key, or empty."),
    Column("metadata_key", Text),
    Column("per", Text),
    Column("hard", Boolean),
    Column("amount_usd", Double),
    Column("queries", BigInteger),
    Column("spent_usd", Double),
    Column("reserved_usd", Double),
    Column("left_usd", Double),
    Column("weight", Double),
    Column("account", JSONB, comment="The whole account; null until its first charge."),
    Column("updated_at", MOMENT, nullable=False, server_default=func.now()),
    comment="What each budget has spent and reserved, booked with the learner's positions.",
)


@event.listens_for(interactions, "after_create")
def _keep_contexts_outside_the_row(_: Table, connection: Connection, **__: object) -> None:
    """Bytes that do not compress are stored as they are."""
    connection.execute(
        text("ALTER TABLE metallm.interactions ALTER COLUMN context SET STORAGE EXTERNAL")
    )


@event.listens_for(sums, "after_create")
def _tend_sums_often(_: Table, connection: Connection, **__: object) -> None:
    """Each batch replaces sums whole: dead chunks pile up faster than the defaults clear them."""
    connection.execute(text("ALTER TABLE metallm.sums ALTER COLUMN sums SET STORAGE EXTERNAL"))
    connection.execute(
        text(
            "ALTER TABLE metallm.sums SET (autovacuum_vacuum_scale_factor = 0, "
            "autovacuum_vacuum_threshold = 200, toast.autovacuum_vacuum_scale_factor = 0, "
            "toast.autovacuum_vacuum_threshold = 5000)"
        )
    )


@event.listens_for(river_policy, "after_create")
def _tend_states_often(_: Table, connection: Connection, **__: object) -> None:
    """Each batch with a lesson replaces the state whole, as with the sums."""
    connection.execute(
        text(
            "ALTER TABLE metallm.river_policy SET (autovacuum_vacuum_scale_factor = 0, "
            "autovacuum_vacuum_threshold = 200, toast.autovacuum_vacuum_scale_factor = 0, "
            "toast.autovacuum_vacuum_threshold = 5000)"
        )
    )
