-- Tables of schema metallm that revision 0006 adds.

CREATE TABLE metallm.river_policy (
    single BOOLEAN DEFAULT true NOT NULL,
    slot TEXT NOT NULL,
    policy TEXT NOT NULL,
    parameters TEXT NOT NULL,
    river_version TEXT NOT NULL,
    encoder TEXT NOT NULL,
    lessons BIGINT NOT NULL,
    state BYTEA NOT NULL,
    base_lessons BIGINT NOT NULL,
    base BYTEA NOT NULL,
    updated_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT river_policy_pkey PRIMARY KEY (single),
    CONSTRAINT river_policy_one_row CHECK (single)
);

ALTER TABLE metallm.river_policy SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200,
    toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 5000
);

COMMENT ON TABLE metallm.river_policy IS 'What a policy of River''s has learned: its base, and then its lessons in order.';

COMMENT ON COLUMN metallm.river_policy.slot IS 'The one learner that teaches it.';

COMMENT ON COLUMN metallm.river_policy.lessons IS 'Number of the last lesson in it.';

COMMENT ON COLUMN metallm.river_policy.base IS 'The state after base_lessons.';

CREATE TABLE metallm.river_lessons (
    number BIGINT NOT NULL,
    query_id TEXT NOT NULL,
    arm TEXT NOT NULL,
    context BYTEA NOT NULL,
    reward DOUBLE PRECISION NOT NULL,
    learned_at timestamptz DEFAULT now() NOT NULL,
    corrected_at timestamptz,
    arm_now TEXT,
    reward_now DOUBLE PRECISION,
    CONSTRAINT river_lessons_pkey PRIMARY KEY (number)
);

CREATE UNIQUE INDEX river_lessons_query_id_idx ON metallm.river_lessons (query_id);

COMMENT ON TABLE metallm.river_lessons IS 'What the policy of River''s was taught, in order, and what has changed since.';

COMMENT ON COLUMN metallm.river_lessons.reward IS 'As it was learned.';

COMMENT ON COLUMN metallm.river_lessons.corrected_at IS 'When it became another one; null: it still holds.';

COMMENT ON COLUMN metallm.river_lessons.reward_now IS 'Null: withdrawn.';
