"""The statements about a policy of River's and its lessons, by name; see `statements`.

Invariant: each is one round trip whatever the size of the batch, and names its tables with their
schema.
"""

from __future__ import annotations

from sqlalchemy import text

CLAIM_RIVER = text("""
    INSERT INTO metallm.river_policy (
        slot, policy, parameters, river_version, encoder, lessons, state, base_lessons, base
    ) VALUES (:slot, :policy, :parameters, :river_version, :encoder, 0, :state, 0, :state)
    ON CONFLICT (single) DO NOTHING
""")

LOAD_RIVER = text("""
    SELECT slot, policy, parameters, river_version, encoder, lessons, state, base_lessons, base
    FROM metallm.river_policy
""")

LOCK_RIVER = text("""
    SELECT slot, policy, parameters, river_version, encoder, lessons, state, base_lessons, base
    FROM metallm.river_policy FOR UPDATE
""")

SAVE_RIVER = text("""
    UPDATE metallm.river_policy SET state = :state, lessons = :lessons, updated_at = now()
""")

REPLACE_RIVER = text("""
    UPDATE metallm.river_policy
    SET policy = :policy, parameters = :parameters, river_version = :river_version,
        state = :state, base = :base, updated_at = now()
""")

REBASE_RIVER = text("UPDATE metallm.river_policy SET base = :base, base_lessons = :base_lessons")

KNOWN_LESSONS = text("""
    SELECT query_id FROM metallm.river_lessons
    WHERE query_id = ANY (CAST(:query_ids AS text[]))
""")

SAVE_LESSONS = text("""
    INSERT INTO metallm.river_lessons (number, query_id, arm, context, reward)
    SELECT * FROM unnest(
        CAST(:numbers AS bigint[]), CAST(:query_ids AS text[]), CAST(:arms AS text[]),
        CAST(:contexts AS bytea[]), CAST(:rewards AS double precision[])
    )
""")

CORRECT_LESSONS = text("""
    UPDATE metallm.river_lessons AS l
    SET arm_now = c.arm, reward_now = c.reward,
        corrected_at = CASE WHEN (c.arm, c.reward) IS DISTINCT FROM (l.arm, l.reward) THEN now() END
    FROM unnest(
        CAST(:query_ids AS text[]), CAST(:arms AS text[]), CAST(:rewards AS double precision[])
    ) AS c (query_id, arm, reward)
    WHERE l.query_id = c.query_id
""")

LOAD_LESSONS = text("""
    SELECT number, query_id, arm, context, reward, corrected_at IS NOT NULL, arm_now, reward_now
    FROM metallm.river_lessons ORDER BY number
""")

DELETE_WITHDRAWN = text("""
    DELETE FROM metallm.river_lessons WHERE corrected_at IS NOT NULL AND reward_now IS NULL
""")

APPLY_CORRECTIONS = text("""
    UPDATE metallm.river_lessons
    SET arm = arm_now, reward = reward_now, arm_now = NULL, reward_now = NULL, corrected_at = NULL
    WHERE corrected_at IS NOT NULL
""")

# Lessons up to the first whose interaction is still retained.
FORGOTTEN_LESSONS = text("""
    SELECT number, query_id, arm, context, reward, false, NULL, NULL FROM metallm.river_lessons
    WHERE number < coalesce((
        SELECT min(l.number) FROM metallm.river_lessons AS l
        JOIN metallm.query_days AS q ON q.query_id = l.query_id
    ), 9223372036854775807)
    ORDER BY number
""")

DELETE_LESSONS = text("DELETE FROM metallm.river_lessons WHERE number <= :number")
