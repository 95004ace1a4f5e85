"""Every statement that the learner and evaluation send, by name.

Invariant: each is one round trip whatever the size of the batch, and names its tables with their
schema, so that no `search_path` matters.
"""

from __future__ import annotations

from sqlalchemy import text

from metallm_stream.postgres.rows import ANSWERED, COLUMNS, DECIDED

CLAIM_PARTITION = text("""
    INSERT INTO metallm.offsets AS o (topic, partition, epoch, next_offset, topic_id)
    VALUES (:topic, :partition, 1, :low_watermark, :topic_id)
    ON CONFLICT (topic, partition) DO UPDATE SET
        epoch = o.epoch + 1,
        topic_id = coalesce(
            CASE WHEN o.next_offset = 0 THEN excluded.topic_id END, o.topic_id, excluded.topic_id
        ),
        updated_at = now()
    RETURNING o.topic, o.partition, o.epoch, o.next_offset, o.topic_id
""")

ADVANCE = text("""
    UPDATE metallm.offsets AS o
    SET next_offset = a.new_next_offset, high_watermark = a.high_watermark, updated_at = now()
    FROM unnest(
        CAST(:topics AS text[]), CAST(:partitions AS integer[]), CAST(:epochs AS bigint[]),
        CAST(:next_offsets AS bigint[]), CAST(:new_next_offsets AS bigint[]),
        CAST(:high_watermarks AS bigint[])
    ) AS a (topic, partition, epoch, next_offset, new_next_offset, high_watermark)
    WHERE o.topic = a.topic AND o.partition = a.partition AND o.epoch = a.epoch
      AND o.next_offset = a.next_offset AND a.new_next_offset >= o.next_offset
    RETURNING o.topic, o.partition
""")

LOAD_OFFSETS = text("SELECT topic, partition, next_offset FROM metallm.offsets")

CLAIM_SLOT = text("""
    INSERT INTO metallm.slots AS s (slot, epoch) VALUES (:slot, 1)
    ON CONFLICT (slot) DO UPDATE SET epoch = s.epoch + 1, updated_at = now()
    RETURNING s.slot, s.epoch, s.version
""")

BUMP_SLOT = text("""
    UPDATE metallm.slots SET version = version + 1, updated_at = now()
    WHERE slot = :slot AND epoch = :epoch AND version = :version
    RETURNING slot, epoch, version
""")

SAVE_SUMS = text("""
    INSERT INTO metallm.sums AS s (slot, arm, sums, observations)
    SELECT :slot, a.arm, a.sums, a.observations
    FROM unnest(
        CAST(:arms AS text[]), CAST(:sums AS bytea[]), CAST(:observations AS double precision[])
    ) AS a (arm, sums, observations)
    ON CONFLICT (slot, arm) DO UPDATE
    SET sums = excluded.sums, observations = excluded.observations, updated_at = now()
""")

LOAD_SUMS = text("""
    SELECT slot, arm, sums FROM metallm.sums
    WHERE slot <> :archive AND NOT starts_with(slot, :warmup) ORDER BY slot, arm
""")

LOAD_SLOT_SUMS = text("SELECT arm, sums FROM metallm.sums WHERE slot = :slot ORDER BY arm")

SUMS_BYTES = text("""
    SELECT pg_total_relation_size('metallm.sums'), coalesce(sum(length(sums)), 0) FROM metallm.sums
""")

CLEAR_SLOT = text("DELETE FROM metallm.sums WHERE slot = :slot")

SAVE_WARMUP = text("""
    INSERT INTO metallm.warmups (name, queries, weight, observations)
    VALUES (:name, :queries, :weight, CAST(:observations AS jsonb))
    ON CONFLICT (name) DO UPDATE
    SET queries = excluded.queries, weight = excluded.weight,
        observations = excluded.observations, added_at = excluded.added_at
""")

LOAD_WARMUPS = text("""
    SELECT name, queries, weight, observations, added_at FROM metallm.warmups
    ORDER BY added_at, name
""")

DELETE_WARMUP = text("DELETE FROM metallm.warmups WHERE name = :name RETURNING name")

SLOT_VERSIONS = text("SELECT slot, epoch, version FROM metallm.slots WHERE slot <> :archive")

CLAIM_ENCODER = text("""
    INSERT INTO metallm.encoder (name, dimensions) VALUES (:name, :dimensions)
    ON CONFLICT (single) DO NOTHING
""")

LOAD_ENCODER = text("SELECT name, dimensions FROM metallm.encoder")

LOAD_CLOCKS = text("""
    SELECT effective_at, half_life_s, NULL AS arm, NULL AS factor, NULL AS ageing_s
    FROM metallm.half_lives
    UNION ALL
    SELECT effective_at, NULL, arm, factor, ageing_s FROM metallm.shifts
""")

HAS_WEIGHED = text("SELECT EXISTS (SELECT FROM metallm.sums)")

# Waits for whoever has read the clocks and may yet weigh by them, and lets nobody read them.
LOCK_HALF_LIVES = text("LOCK TABLE metallm.half_lives IN ACCESS EXCLUSIVE MODE")

# A database that has learned nothing yet takes the half-life for all times, however often it
# changes till then, another one for those to come. By the server's clock, which is the same for all
# learners.
CLAIM_HALF_LIFE = text("""
    INSERT INTO metallm.half_lives AS h (effective_at, half_life_s)
    SELECT CASE WHEN EXISTS (SELECT FROM metallm.sums)
                  OR EXISTS (SELECT FROM metallm.half_lives WHERE effective_at > to_timestamp(0))
                THEN clock_timestamp() + make_interval(secs => :margin_s)
                ELSE to_timestamp(0) END,
           CAST(:half_life_s AS double precision)
    WHERE CAST(:half_life_s AS double precision) IS DISTINCT FROM (
        SELECT half_life_s FROM metallm.half_lives ORDER BY effective_at DESC LIMIT 1
    )
    ON CONFLICT (effective_at) DO UPDATE
    SET half_life_s = excluded.half_life_s, recorded_at = excluded.recorded_at
    WHERE NOT EXISTS (SELECT FROM metallm.sums)
    RETURNING h.effective_at, h.half_life_s
""")

# One at a time, and the last thing in a transaction, so that nobody waits behind the lock.
LOCK_SHIFTS = text("SELECT pg_advisory_xact_lock(hashtext('metallm'), hashtext('shifts'))")

RECORD_SHIFT = text("""
    INSERT INTO metallm.shifts (
        arm, effective_at, factor, slot, detector, direction, mean_before, mean_after, ageing_s
    )
    SELECT :arm, clock_timestamp() + make_interval(secs => :margin_s), :factor, :slot, :detector,
           :direction, :mean_before, :mean_after, CAST(:ageing_s AS double precision)
    WHERE NOT EXISTS (
        SELECT FROM metallm.shifts AS s
        WHERE s.arm = :arm AND s.effective_at > clock_timestamp() - make_interval(secs => :gap_s)
    )
    RETURNING effective_at
""")

LOAD_WATCHES = text("SELECT arm, state FROM metallm.watches WHERE slot = :slot")

LOAD_ALL_WATCHES = text("SELECT state FROM metallm.watches")

SAVE_WATCHES = text("""
    INSERT INTO metallm.watches AS w (slot, arm, state)
    SELECT :slot, a.arm, a.state
    FROM unnest(CAST(:arms AS text[]), CAST(:states AS jsonb[])) AS a (arm, state)
    ON CONFLICT (slot, arm) DO UPDATE SET state = excluded.state, updated_at = now()
""")

# Inserts what is new and locks what is not, in one order for everybody. `WHERE false` takes the
# row lock without writing a new version of the row.
LOCK_QUERIES = text("""
    INSERT INTO metallm.query_days AS q (query_id, day)
    SELECT b.query_id, :today
    FROM (SELECT DISTINCT unnest(CAST(:query_ids AS text[])) AS query_id) AS b
    ORDER BY b.query_id
    ON CONFLICT (query_id) DO UPDATE SET day = q.day WHERE false
    RETURNING q.query_id
""")

# A statement of its own, since it must see what the locks' former holders committed.
LOAD_DAYS = text("""
    SELECT query_id, day FROM metallm.query_days WHERE query_id = ANY (CAST(:query_ids AS text[]))
""")

# For the driver, which hands out rows as they come.
LOAD_INTERACTIONS = """
    SELECT query_id, decision::text, context, result::text, feedback::text, verdict::text
    FROM metallm.interactions
    WHERE day = ANY (CAST(%(days)s AS date[])) AND query_id = ANY (CAST(%(query_ids)s AS text[]))
"""

STREAM_INTERACTIONS = text("""
    SELECT query_id, decision::text, context, result::text, feedback::text, verdict::text
    FROM metallm.interactions
""")

_chosen = """
    WHERE (CAST(:since AS timestamptz) IS NULL OR decided_at >= CAST(:since AS timestamptz))
      AND (CAST(:until AS timestamptz) IS NULL OR decided_at < CAST(:until AS timestamptz))
      AND (CAST(:task AS text) IS NULL OR task = CAST(:task AS text))
"""

STREAM_OUTCOMES = text(f"""
    SELECT query_id, arm, propensity, candidates::text, quality, cost_usd, latency_s, cost_weight,
           latency_weight, latency_scale_s
    FROM metallm.outcomes
    {_chosen}
    ORDER BY decided_at, query_id COLLATE "C"
""")  # noqa: S608 - both parts stand above

MEDIAN_COST_SCALE = text(f"""
    SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY cost_scale_usd)
    FROM metallm.interactions
    {_chosen} AND arm IS NOT NULL
""")  # noqa: S608 - both parts stand above

_columns = ", ".join(COLUMNS)
_typed = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())


def _replacement(column: str) -> str:
    part = "decision" if column in DECIDED else "result" if column in ANSWERED else None
    new = f"excluded.{column}"
    if part is None:
        return f"{column} = {new}"
    return f"{column} = CASE WHEN excluded.{part} IS NULL THEN i.{column} ELSE {new} END"


_replaced = ", ".join(_replacement(name) for name in COLUMNS if name not in ("query_id", "day"))
SAVE_INTERACTIONS = text(
    f"INSERT INTO metallm.interactions AS i ({_columns}) "  # noqa: S608 - names from our own source
    f"SELECT {_columns} FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row ({_typed}) "
    f"ON CONFLICT (query_id, day) DO UPDATE SET {_replaced}, updated_at = now()"
)

COPY_INTERACTIONS = f"COPY metallm.interactions ({_columns}) FROM STDIN (FORMAT binary)"

SAVE_DEAD_LETTERS = text("""
    INSERT INTO metallm.dead_records
        (topic, partition, record_offset, service, at, reason, key, value, value_bytes, truncated)
    SELECT * FROM unnest(
        CAST(:topic AS text[]), CAST(:partition AS integer[]), CAST(:offset AS bigint[]),
        CAST(:service AS text[]), CAST(:at AS timestamptz[]), CAST(:reason AS text[]),
        CAST(:key AS bytea[]), CAST(:value AS bytea[]), CAST(:value_bytes AS bigint[]),
        CAST(:truncated AS boolean[])
    )
    ON CONFLICT (topic, partition, record_offset) DO NOTHING
""")

NEWEST_POLICY_VERSION = text("SELECT coalesce(max(version), 0) FROM metallm.policies")

NEXT_POLICY_VERSION = text("SELECT nextval('metallm.policy_version')")

SKIP_POLICY_VERSIONS = text("SELECT setval('metallm.policy_version', :version)")

RECORD_POLICY = text("""
    INSERT INTO metallm.policies (
        version, policy, published_at, encoder, dimensions, observations, mean_quality,
        shared_norm, noise_variance, shared_precision, arm_precision, log_evidence, arms
    ) VALUES (
        :version, :policy, :published_at, :encoder, :dimensions, :observations, :mean_quality,
        :shared_norm, :noise_variance, :shared_precision, :arm_precision, :log_evidence,
        CAST(:arms AS jsonb)
    )
""")

TRIM_POLICIES = text("""
    DELETE FROM metallm.policies WHERE version <= (
        SELECT version FROM metallm.policies ORDER BY version DESC OFFSET :keep LIMIT 1
    )
""")

SAVE_MODEL = text("""
    INSERT INTO metallm.models (arm, record) VALUES (:arm, CAST(:record AS jsonb))
    ON CONFLICT (arm) DO UPDATE SET record = excluded.record, updated_at = now()
""")

DELETE_OTHER_MODELS = text("DELETE FROM metallm.models WHERE arm <> ALL (CAST(:arms AS text[]))")

DELETE_MODEL = text("DELETE FROM metallm.models WHERE arm = :arm")

MAKE_ACCOUNTS = text("""
    INSERT INTO metallm.budget_accounts (budget, key)
    SELECT a.budget, a.key
    FROM unnest(CAST(:budgets AS text[]), CAST(:keys AS text[])) AS a (budget, key)
    ORDER BY a.budget, a.key
    ON CONFLICT (budget, key) DO NOTHING
""")

LOCK_ACCOUNTS = text("""
    SELECT budget, key, account::text FROM metallm.budget_accounts
    WHERE (budget, key) IN (
        SELECT a.budget, a.key
        FROM unnest(CAST(:budgets AS text[]), CAST(:keys AS text[])) AS a (budget, key)
    )
    ORDER BY budget, key FOR UPDATE
""")

SAVE_ACCOUNTS = text("""
    UPDATE metallm.budget_accounts AS b
    SET metadata_key = a.metadata_key, per = a.per, hard = a.hard, amount_usd = a.amount_usd,
        queries = a.queries, spent_usd = a.spent_usd, reserved_usd = a.reserved_usd,
        left_usd = a.left_usd, weight = a.weight, account = a.account, updated_at = now()
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS a (
        budget text, key text, metadata_key text, per text, hard boolean,
        amount_usd double precision, queries bigint, spent_usd double precision,
        reserved_usd double precision, left_usd double precision, weight double precision,
        account jsonb
    )
    WHERE b.budget = a.budget AND b.key = a.key
""")

LIST_ACCOUNTS = text("""
    SELECT budget, key FROM metallm.budget_accounts
    WHERE budget = ANY (CAST(:budgets AS text[])) AND account IS NOT NULL
""")

# What a learner has in work is in use.
FORGET_ACCOUNTS = text("""
    DELETE FROM metallm.budget_accounts WHERE (budget, key) IN (
        SELECT budget, key FROM metallm.budget_accounts
        WHERE updated_at < now() - make_interval(days => :days)
            AND (metadata_key IS NOT NULL OR account IS NULL)
        LIMIT :most FOR UPDATE SKIP LOCKED
    )
    RETURNING budget, key
""")

TRY_PUBLISH_LOCK = text(
    "SELECT pg_try_advisory_xact_lock(hashtext('metallm'), hashtext('publish'))"
)

ENSURE_DAY = text("SELECT metallm.ensure_day(:day)")

EMPTY_DAYS = text("""
    SELECT d.day FROM metallm.partition_days() AS d (day)
    WHERE d.day < :day AND NOT EXISTS (SELECT FROM metallm.query_days AS q WHERE q.day = d.day)
    ORDER BY d.day
""")

TRY_RETENTION_LOCK = text(
    "SELECT pg_try_advisory_xact_lock(hashtext('metallm'), hashtext('retention'))"
)

# Nobody is waited for: what a learner has in work is forgotten next time.
FORGET_QUERIES = text("""
    DELETE FROM metallm.query_days WHERE query_id IN (
        SELECT query_id FROM metallm.query_days WHERE day < :day
        ORDER BY day LIMIT :most FOR UPDATE SKIP LOCKED
    )
    RETURNING query_id, day
""")

DELETE_INTERACTIONS = text("""
    DELETE FROM metallm.interactions
    WHERE day = ANY (CAST(:days AS date[])) AND query_id = ANY (CAST(:query_ids AS text[]))
    RETURNING query_id, decision::text, context, result::text, feedback::text, verdict::text
""")

# A day is dropped when nobody reads it; behind one who does, everybody would wait for this lock.
WAIT_SHORTLY = text("SET LOCAL lock_timeout = '500ms'")

# Whole days in UTC, as the partitions are.
DELETE_DEAD_LETTERS = text("""
    DELETE FROM metallm.dead_records WHERE at < CAST(:day AS date)::timestamp AT TIME ZONE 'UTC'
""")

DROP_DAY = text("SELECT metallm.drop_day(:day)")
