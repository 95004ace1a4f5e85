-- Tables of schema metallm as of the first release.

CREATE SEQUENCE metallm.policy_version AS BIGINT;

CREATE TABLE metallm.offsets (
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    epoch BIGINT NOT NULL,
    next_offset BIGINT NOT NULL,
    high_watermark BIGINT,
    updated_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT offsets_pkey PRIMARY KEY (topic, partition),
    CONSTRAINT offsets_next_offset_not_negative CHECK (next_offset >= 0)
);

COMMENT ON TABLE metallm.offsets IS 'The first unread offset of each partition, fenced by epoch.';

CREATE TABLE metallm.slots (
    slot TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    version BIGINT DEFAULT 0 NOT NULL,
    updated_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT slots_pkey PRIMARY KEY (slot)
);

COMMENT ON TABLE metallm.slots IS 'One row a learner process; the epoch fences its predecessor, the version its sums.';

CREATE TABLE metallm.sums (
    slot TEXT NOT NULL,
    arm TEXT NOT NULL,
    sums BYTEA NOT NULL,
    observations DOUBLE PRECISION NOT NULL,
    updated_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT sums_pkey PRIMARY KEY (slot, arm)
);

COMMENT ON TABLE metallm.sums IS 'What each slot has learned of each arm; the model is their sum.';

ALTER TABLE metallm.sums ALTER COLUMN sums SET STORAGE EXTERNAL;

ALTER TABLE metallm.sums SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200, toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 5000);

CREATE TABLE metallm.encoder (
    single BOOLEAN DEFAULT true NOT NULL,
    name TEXT NOT NULL,
    dimensions INTEGER NOT NULL,
    CONSTRAINT encoder_pkey PRIMARY KEY (single),
    CONSTRAINT encoder_one_row CHECK (single)
);

COMMENT ON TABLE metallm.encoder IS 'The encoder whose contexts the sums were learned from.';

CREATE TABLE metallm.query_days (
    query_id TEXT NOT NULL,
    day DATE NOT NULL,
    CONSTRAINT query_days_pkey PRIMARY KEY (query_id)
);

CREATE INDEX query_days_day_idx ON metallm.query_days (day);

COMMENT ON TABLE metallm.query_days IS 'The partition of each query''s interaction; its row lock serialises the join.';

CREATE TABLE metallm.interactions (
    query_id TEXT NOT NULL,
    day DATE NOT NULL,
    task TEXT,
    arm TEXT,
    answered_by TEXT,
    propensity DOUBLE PRECISION,
    policy TEXT,
    policy_version BIGINT,
    encoder TEXT,
    cost_weight DOUBLE PRECISION,
    latency_weight DOUBLE PRECISION,
    cost_scale_usd DOUBLE PRECISION,
    asked_at timestamptz,
    decided_at timestamptz,
    finished_at timestamptz,
    prediction TEXT,
    failure TEXT,
    input_tokens BIGINT,
    output_tokens BIGINT,
    cost_usd DOUBLE PRECISION,
    latency_s DOUBLE PRECISION,
    quality DOUBLE PRECISION,
    problem TEXT,
    label TEXT,
    score DOUBLE PRECISION,
    given_at timestamptz,
    decision JSONB,
    context BYTEA,
    result JSONB,
    feedback JSONB,
    updated_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT interactions_pkey PRIMARY KEY (query_id, day)
) PARTITION BY RANGE (day);

COMMENT ON TABLE metallm.interactions IS 'One row a query: decision, result and feedback as far as they have come.';

COMMENT ON COLUMN metallm.interactions.day IS 'UTC day on which the query was first seen.';

COMMENT ON COLUMN metallm.interactions.arm IS 'The arm that was decided; null when no arm was left.';

COMMENT ON COLUMN metallm.interactions.answered_by IS 'The arm that answered; null for a failure.';

COMMENT ON COLUMN metallm.interactions.propensity IS 'Probability with which the policy chose the arm.';

COMMENT ON COLUMN metallm.interactions.cost_scale_usd IS 'The cost that counts as 1 in the utility.';

COMMENT ON COLUMN metallm.interactions.failure IS 'Kind of failure, where there is no prediction.';

COMMENT ON COLUMN metallm.interactions.cost_usd IS 'All attempts together.';

COMMENT ON COLUMN metallm.interactions.quality IS 'The judgement in force, in [0, 1].';

COMMENT ON COLUMN metallm.interactions.problem IS 'Why the feedback could not be judged.';

COMMENT ON COLUMN metallm.interactions.given_at IS 'When the feedback in force was given.';

COMMENT ON COLUMN metallm.interactions.decision IS 'The decision without its context.';

COMMENT ON COLUMN metallm.interactions.context IS 'Float32, little-endian, of the encoder''s dimension.';

COMMENT ON COLUMN metallm.interactions.feedback IS 'The newest of each feedback id, newest last.';

ALTER TABLE metallm.interactions ALTER COLUMN context SET STORAGE EXTERNAL;

CREATE TABLE metallm.policies (
    version BIGINT NOT NULL,
    policy TEXT NOT NULL,
    published_at timestamptz NOT NULL,
    encoder TEXT NOT NULL,
    dimensions INTEGER NOT NULL,
    observations DOUBLE PRECISION NOT NULL,
    mean_quality DOUBLE PRECISION NOT NULL,
    shared_norm DOUBLE PRECISION NOT NULL,
    noise_variance DOUBLE PRECISION NOT NULL,
    shared_precision DOUBLE PRECISION NOT NULL,
    arm_precision DOUBLE PRECISION NOT NULL,
    log_evidence DOUBLE PRECISION,
    arms JSONB NOT NULL,
    CONSTRAINT policies_pkey PRIMARY KEY (version)
);

COMMENT ON TABLE metallm.policies IS 'What each published policy looked like; the policy itself is on its topic.';

COMMENT ON COLUMN metallm.policies.arms IS 'Per arm: means, counts and weights'' norms.';

CREATE TABLE metallm.dead_records (
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    record_offset BIGINT NOT NULL,
    service TEXT NOT NULL,
    at timestamptz NOT NULL,
    reason TEXT NOT NULL,
    key BYTEA,
    value BYTEA,
    value_bytes BIGINT,
    truncated BOOLEAN DEFAULT false NOT NULL,
    CONSTRAINT dead_records_pkey PRIMARY KEY (topic, partition, record_offset)
);

COMMENT ON TABLE metallm.dead_records IS 'Records that the learner could not read, with position and reason.';

COMMENT ON COLUMN metallm.dead_records.value_bytes IS 'The value''s length before it was cut.';

CREATE TABLE metallm.models (
    arm TEXT NOT NULL,
    record JSONB NOT NULL,
    updated_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT models_pkey PRIMARY KEY (arm)
);

COMMENT ON TABLE metallm.models IS 'The catalogue of arms, as the learner last saw it on its topic.';
