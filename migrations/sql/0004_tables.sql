-- Tables of schema metallm that revision 0004 adds.

CREATE TABLE metallm.half_lives (
    effective_at timestamptz NOT NULL,
    half_life_s DOUBLE PRECISION,
    recorded_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT half_lives_pkey PRIMARY KEY (effective_at),
    CONSTRAINT half_lives_half_life_positive CHECK (half_life_s > 0)
);

COMMENT ON TABLE metallm.half_lives IS 'The half-life of evidence from each time on; rows stay once anything was learned.';

COMMENT ON COLUMN metallm.half_lives.half_life_s IS 'Null: nothing is forgotten with time.';

CREATE TABLE metallm.shifts (
    arm TEXT NOT NULL,
    effective_at timestamptz NOT NULL,
    factor DOUBLE PRECISION NOT NULL,
    detected_at timestamptz DEFAULT now() NOT NULL,
    slot TEXT NOT NULL,
    detector TEXT NOT NULL,
    direction TEXT NOT NULL,
    mean_before DOUBLE PRECISION,
    mean_after DOUBLE PRECISION,
    CONSTRAINT shifts_pkey PRIMARY KEY (arm, effective_at),
    CONSTRAINT shifts_factor_in_range CHECK (factor > 0 AND factor <= 1),
    CONSTRAINT shifts_direction_known CHECK (direction IN ('down', 'up'))
);

COMMENT ON TABLE metallm.shifts IS 'Where an arm''s quality has changed; rows are added, never changed.';

COMMENT ON COLUMN metallm.shifts.factor IS 'What older evidence counts from then on.';

COMMENT ON COLUMN metallm.shifts.slot IS 'The learner that has detected it.';

COMMENT ON COLUMN metallm.shifts.mean_before IS 'Mean residual before the shift.';

COMMENT ON COLUMN metallm.shifts.mean_after IS 'Mean residual since, as far as it was seen.';

CREATE TABLE metallm.warmups (
    name TEXT NOT NULL,
    queries BIGINT NOT NULL,
    weight DOUBLE PRECISION NOT NULL,
    observations JSONB NOT NULL,
    added_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT warmups_pkey PRIMARY KEY (name)
);

COMMENT ON TABLE metallm.warmups IS 'Logged outcomes that were added as prior knowledge; their sums are in a slot each.';

COMMENT ON COLUMN metallm.warmups.weight IS 'What one logged outcome counted, of 1.';

COMMENT ON COLUMN metallm.warmups.observations IS 'Per arm, as of added_at.';

CREATE TABLE metallm.watches (
    slot TEXT NOT NULL,
    arm TEXT NOT NULL,
    state JSONB NOT NULL,
    updated_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT watches_pkey PRIMARY KEY (slot, arm)
);

COMMENT ON TABLE metallm.watches IS 'What each learner remembers of the residuals of the arms that it has judged.';
