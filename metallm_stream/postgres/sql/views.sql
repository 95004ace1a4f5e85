-- Views of schema metallm: what the service learned and spent, for people. Amounts are in USD,
-- durations in seconds, times in UTC.

CREATE VIEW metallm.attempts AS
SELECT i.query_id, i.day, i.task, i.decided_at, a.arm, a.started_at, a.latency_s,
       a.failure ->> 'kind' AS failure, a.input_tokens, a.output_tokens, a.cost_usd
FROM metallm.interactions AS i
CROSS JOIN LATERAL jsonb_to_recordset(i.result -> 'attempts') AS a (
    arm text, started_at timestamptz, latency_s double precision, failure jsonb,
    input_tokens numeric, output_tokens numeric, cost_usd double precision
);

COMMENT ON VIEW metallm.attempts IS
    'One row a call to a provider, failed ones included; cost_usd is null where it is unknown.';

CREATE VIEW metallm.arm_events AS
SELECT e.arm, i.task, i.day, coalesce(i.decided_at, i.finished_at) AS at,
       e.decided, e.answered, e.quality, e.called, e.failed, e.cost_usd, e.latency_s
FROM metallm.interactions AS i
CROSS JOIN LATERAL (
    SELECT i.arm, 1 AS decided, 0 AS answered, NULL::double precision AS quality,
           0 AS called, 0 AS failed, NULL::double precision AS cost_usd,
           NULL::double precision AS latency_s
    WHERE i.arm IS NOT NULL
    UNION ALL
    SELECT i.answered_by, 0, 1, i.quality, 0, 0, NULL, NULL
    WHERE i.answered_by IS NOT NULL
    UNION ALL
    SELECT a.arm, 0, 0, NULL, 1, (a.failure IS NOT NULL)::integer, a.cost_usd, a.latency_s
    FROM jsonb_to_recordset(i.result -> 'attempts') AS a (
        arm text, failure jsonb, cost_usd double precision, latency_s double precision
    )
) AS e;

COMMENT ON VIEW metallm.arm_events IS
    'What happened to arms, one row each: an arm was decided, it answered, or it was called.';

CREATE VIEW metallm.arms AS
WITH totals AS (
    SELECT arm, sum(decided) AS decisions, sum(called) AS calls, sum(failed) AS failures,
           sum(answered) AS answers, count(quality) AS labelled, avg(quality) AS mean_quality,
           avg(cost_usd) AS mean_cost_usd, avg(latency_s) AS mean_latency_s,
           sum(cost_usd) AS cost_usd, count(cost_usd) AS priced_calls
    FROM metallm.arm_events
    GROUP BY arm
)
SELECT arm, m.arm IS NOT NULL AS in_catalogue,
       coalesce(t.decisions, 0) AS decisions,
       coalesce(t.decisions / nullif(sum(t.decisions) OVER (), 0), 0)::double precision AS share,
       coalesce(t.calls, 0) AS calls, coalesce(t.failures, 0) AS failures,
       coalesce(t.answers, 0) AS answers, coalesce(t.labelled, 0) AS labelled,
       t.mean_quality, t.mean_cost_usd, t.mean_latency_s, t.cost_usd,
       coalesce(t.priced_calls, 0) AS priced_calls
FROM totals AS t FULL JOIN metallm.models AS m USING (arm)
ORDER BY decisions DESC, arm;

COMMENT ON VIEW metallm.arms IS
    'Per arm: share of decisions, calls and failures, mean quality of its judged answers, mean '
    'cost and latency of its calls, cost in total; costs are those of its priced_calls, the calls '
    'whose cost is known. Reads all retained interactions.';

CREATE VIEW metallm.arms_by_task AS
SELECT task, arm, sum(decided) AS decisions,
       coalesce(
           sum(decided)::numeric / nullif(sum(sum(decided)) OVER (PARTITION BY task), 0), 0
       )::double precision AS share,
       sum(called) AS calls, sum(failed) AS failures, sum(answered) AS answers,
       count(quality) AS labelled, avg(quality) AS mean_quality,
       avg(cost_usd) AS mean_cost_usd, avg(latency_s) AS mean_latency_s, sum(cost_usd) AS cost_usd,
       count(cost_usd) AS priced_calls
FROM metallm.arm_events
GROUP BY task, arm
ORDER BY task, decisions DESC, arm;

COMMENT ON VIEW metallm.arms_by_task IS
    'As arms, per task; share is that of the task''s decisions. Queries without a task: null.';

CREATE VIEW metallm.arms_over_time AS
SELECT b.bucket, date_trunc(b.bucket, e.at, 'UTC') AS at, e.arm, sum(e.decided) AS decisions,
       coalesce(
           sum(e.decided)::numeric / nullif(sum(sum(e.decided)) OVER (
               PARTITION BY b.bucket, date_trunc(b.bucket, e.at, 'UTC')
           ), 0), 0
       )::double precision AS share,
       sum(e.called) AS calls, sum(e.failed) AS failures, sum(e.answered) AS answers,
       count(e.quality) AS labelled, avg(e.quality) AS mean_quality,
       avg(e.cost_usd) AS mean_cost_usd, avg(e.latency_s) AS mean_latency_s,
       sum(e.cost_usd) AS cost_usd, count(e.cost_usd) AS priced_calls
FROM metallm.arm_events AS e CROSS JOIN (VALUES ('minute'), ('hour'), ('day')) AS b (bucket)
GROUP BY b.bucket, date_trunc(b.bucket, e.at, 'UTC'), e.arm
ORDER BY b.bucket, at, e.arm;

COMMENT ON VIEW metallm.arms_over_time IS
    'As arms, per minute, hour and day of the decision: choose with where bucket = ''hour''.';

CREATE VIEW metallm.policy_now AS
SELECT p.version, p.policy, p.published_at,
       extract(epoch FROM now() - p.published_at)::double precision AS age_s,
       p.encoder, p.dimensions, p.observations, p.mean_quality, p.log_evidence,
       p.shared_precision, p.arm_precision, p.noise_variance, p.shared_norm,
       a.arm, a.observations AS arm_observations, a.mean_quality AS arm_mean_quality,
       a.weights_norm AS arm_weights_norm, a.calls AS arm_calls, a.cost_usd AS arm_cost_usd,
       a.input_tokens AS arm_input_tokens, a.output_tokens AS arm_output_tokens,
       a.latency_s AS arm_latency_s, a.failure_rate AS arm_failure_rate
FROM (SELECT * FROM metallm.policies ORDER BY version DESC LIMIT 1) AS p
CROSS JOIN LATERAL jsonb_to_recordset(p.arms) AS a (
    arm text, observations double precision, mean_quality double precision,
    weights_norm double precision, calls double precision, cost_usd double precision,
    input_tokens double precision, output_tokens double precision, latency_s double precision,
    failure_rate double precision
)
ORDER BY a.arm;

COMMENT ON VIEW metallm.policy_now IS
    'The policy published last, one row an arm: version and age, evidence and the priors it '
    'chose (precisions), the shared direction''s norm, and per arm the learned means and norm.';

CREATE VIEW metallm.spend AS
WITH buckets AS (
    SELECT b.bucket, date_trunc(b.bucket, e.at, 'UTC') AS at, e.arm,
           sum(e.called) AS calls, count(e.cost_usd) AS priced_calls,
           coalesce(sum(e.cost_usd), 0) AS cost_usd
    FROM metallm.arm_events AS e CROSS JOIN (VALUES ('minute'), ('hour'), ('day')) AS b (bucket)
    WHERE e.called > 0
    GROUP BY GROUPING SETS (
        (b.bucket, date_trunc(b.bucket, e.at, 'UTC'), e.arm),
        (b.bucket, date_trunc(b.bucket, e.at, 'UTC'))
    )
)
SELECT bucket, at, arm, calls, priced_calls, cost_usd,
       sum(cost_usd) OVER (PARTITION BY bucket, arm ORDER BY at) AS cost_usd_so_far
FROM buckets
ORDER BY bucket, at, arm NULLS FIRST;

COMMENT ON VIEW metallm.spend IS
    'Cost of calls per minute, hour and day of the decision, and added up so far: choose with '
    'where bucket = ''hour''. The rows where arm is null are the total of all arms. Calls of '
    'unknown cost are among calls, not among priced_calls.';

CREATE VIEW metallm.results AS
SELECT i.query_id, i.day, i.task, i.arm, i.answered_by, i.propensity, i.decided_at, i.quality,
       -- That of an answer is known if its call's is. Rows of older releases do not say so.
       CASE WHEN coalesce(
           i.priced,
           i.answered_by IS NULL OR i.result -> 'attempts' = '[]' OR jsonb_path_exists(
               i.result, '$.attempts[*] ? (exists(@.cost_usd) && !exists(@.failure))'
           )
       ) THEN i.cost_usd END AS cost_usd,
       i.latency_s, i.cost_weight, i.latency_weight, i.cost_scale_usd, i.decision, i.result
FROM metallm.interactions AS i
WHERE i.decision IS NOT NULL AND i.result IS NOT NULL;

COMMENT ON VIEW metallm.results IS
    'One row a decision that has its result, for the views that compare costs: cost_usd is null '
    'where it is unknown, unlike that of interactions, which adds up what is known.';

CREATE VIEW metallm.savings AS
WITH service AS (
    SELECT count(*) AS queries, count(cost_usd) AS priced_queries, sum(cost_usd) AS spent_usd,
           avg(quality) AS mean_quality
    FROM metallm.results
    WHERE arm IS NOT NULL
), reweighted AS (
    SELECT i.arm, sum(k.quality / k.propensity) / sum(1 / k.propensity) AS quality
    FROM metallm.interactions AS i
    CROSS JOIN LATERAL (
        -- As evaluate() has it: PostgreSQL refuses what is too large or too small for a number.
        SELECT i.quality * (i.quality >= 1e-30)::integer AS quality,
               greatest(i.propensity, 1e-9) AS propensity
    ) AS k
    WHERE i.arm = i.answered_by AND i.quality IS NOT NULL
    GROUP BY i.arm
)
SELECT a.arm, s.queries, s.spent_usd, s.mean_quality,
       nullif(s.priced_queries, 0) * a.mean_cost_usd AS always_usd,
       nullif(s.priced_queries, 0) * a.mean_cost_usd - s.spent_usd AS saved_usd,
       a.mean_quality AS always_quality, r.quality AS always_quality_reweighted,
       s.priced_queries
FROM metallm.arms AS a CROSS JOIN service AS s LEFT JOIN reweighted AS r ON r.arm = a.arm
WHERE a.calls > 0
ORDER BY a.arm;

COMMENT ON VIEW metallm.savings IS
    'Actual spend and quality against what each arm alone would have cost (priced_queries times its '
    'mean cost a call) and reached. Amounts are over the priced_queries, those whose cost is known, '
    'and null where none is. always_quality is the mean over the answers the arm did give, which '
    'the policy chose; always_quality_reweighted corrects for that choice by the logged '
    'propensities (self-normalised inverse propensity weights) and is noisy for rarely chosen arms.';

CREATE VIEW metallm.lag AS
SELECT topic, partition, next_offset, high_watermark,
       CASE
           WHEN high_watermark IS NOT NULL THEN greatest(high_watermark - next_offset, 0)
       END AS lag,
       epoch, updated_at,
       extract(epoch FROM now() - updated_at)::double precision AS age_s
FROM metallm.offsets
ORDER BY topic, partition;

COMMENT ON VIEW metallm.lag IS
    'How far the learner is behind in each partition, as of its last transaction there.';

CREATE VIEW metallm.budgets AS
SELECT budget, metadata_key, key, per, hard, amount_usd, queries, spent_usd, reserved_usd, left_usd,
       spent_usd + reserved_usd AS committed_usd,
       (spent_usd + reserved_usd) / nullif(queries, 0) AS usd_per_query, weight, updated_at
FROM metallm.budget_accounts
WHERE account IS NOT NULL
ORDER BY budget, key;

COMMENT ON VIEW metallm.budgets IS
    'What each budget has spent, and reserved for calls in flight, per value of its metadata key, '
    'as of updated_at; left_usd is what one more call may be expected to cost, weight is what the '
    'budget adds to the cost weight of queries.';

CREATE VIEW metallm.dead_letters AS
SELECT topic, partition, record_offset, service, at, reason,
       encode(key, 'escape') AS key_text, encode(substr(value, 1, 1000), 'escape') AS value_text,
       value, value_bytes, truncated
FROM metallm.dead_records
ORDER BY at DESC, topic, partition, record_offset;

COMMENT ON VIEW metallm.dead_letters IS
    'Records that could not be read, newest first: where they stood, who refused them and why. '
    'The texts show the first 1,000 bytes, those beyond ASCII as \ooo.';

CREATE VIEW metallm.dead_letter_counts AS
SELECT topic, service, count(*) AS records, min(at) AS first_at, max(at) AS last_at,
       (array_agg(reason ORDER BY at DESC))[1] AS last_reason
FROM metallm.dead_records
GROUP BY topic, service
ORDER BY records DESC, topic, service;

COMMENT ON VIEW metallm.dead_letter_counts IS 'Dead letters per topic and refusing service.';

CREATE VIEW metallm.learning_curve AS
WITH usual AS (
    SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY cost_scale_usd) AS cost_scale_usd
    FROM metallm.interactions
    WHERE arm IS NOT NULL AND cost_scale_usd BETWEEN 1e-12 AND 1e12
), known AS MATERIALIZED (
    -- Before they are sorted, since results are wide; small numbers as in savings.
    SELECT decided_at, query_id, quality * (quality >= 1e-30)::integer AS quality,
           cost_weight * (cost_weight >= 1e-30)::integer AS cost_weight,
           cost_usd * (cost_usd >= 1e-30)::integer AS cost_usd
    FROM metallm.results
), answered AS (
    SELECT (row_number() OVER (ORDER BY k.decided_at, k.query_id) - 1) / 100 AS bucket,
           k.decided_at, k.quality, k.cost_usd,
           CASE WHEN k.cost_usd IS NOT NULL OR k.cost_weight = 0 THEN
               k.quality - coalesce(k.cost_weight * k.cost_usd / usual.cost_scale_usd, 0)
           END AS utility
    FROM known AS k CROSS JOIN usual
), buckets AS (
    SELECT bucket, min(decided_at) AS from_at, max(decided_at) AS to_at, count(*) AS queries,
           count(quality) AS labelled, sum(quality) AS quality, count(cost_usd) AS priced,
           sum(cost_usd) AS cost_usd, count(utility) AS valued, sum(utility) AS utility
    FROM answered
    GROUP BY bucket
)
SELECT bucket * 100 + 1 AS from_query, bucket * 100 + queries AS to_query, from_at, to_at,
       labelled,
       quality / nullif(labelled, 0) AS quality,
       cost_usd / nullif(priced, 0) AS cost_usd,
       utility / nullif(valued, 0) AS utility,
       sum(quality) OVER recent / nullif(sum(labelled) OVER recent, 0)::double precision
           AS quality_moving,
       sum(cost_usd) OVER recent / nullif(sum(priced) OVER recent, 0)::double precision
           AS cost_usd_moving,
       sum(utility) OVER recent / nullif(sum(valued) OVER recent, 0)::double precision
           AS utility_moving,
       sum(quality) OVER so_far / nullif(sum(labelled) OVER so_far, 0)::double precision
           AS quality_so_far,
       sum(cost_usd) OVER so_far / nullif(sum(priced) OVER so_far, 0)::double precision
           AS cost_usd_so_far,
       sum(utility) OVER so_far / nullif(sum(valued) OVER so_far, 0)::double precision
           AS utility_so_far,
       priced, valued
FROM buckets
WINDOW recent AS (ORDER BY bucket ROWS BETWEEN 9 PRECEDING AND CURRENT ROW),
       so_far AS (ORDER BY bucket)
ORDER BY bucket;

COMMENT ON VIEW metallm.learning_curve IS
    'Mean quality, cost and utility (quality less weighted cost) per 100 retained queries in the '
    'order of their decisions; moving: over the last 1,000; so_far: since the first. Quality is '
    'over the labelled ones, cost over the priced ones, whose cost is known, and utility over the '
    'valued ones: labelled, and priced unless cost has no weight.';

CREATE VIEW metallm.drift AS
SELECT arm, detected_at, effective_at, direction, mean_before, mean_after, factor, detector, slot,
       ageing_s
FROM metallm.shifts
ORDER BY effective_at DESC, arm;

COMMENT ON VIEW metallm.drift IS
    'Where the quality of an arm has moved away from what was predicted, newest first: the mean of '
    'quality less prediction before and after, what its older evidence counts since, and the time '
    'scale at which it ages.';

CREATE VIEW metallm.river AS
SELECT p.policy, p.parameters, p.river_version, p.encoder, p.slot, p.lessons,
       count(l.number) AS lessons_kept,
       count(l.corrected_at) AS corrections, min(l.corrected_at) AS first_correction_at,
       length(p.state) AS state_bytes, p.updated_at
FROM metallm.river_policy AS p LEFT JOIN metallm.river_lessons AS l ON true
GROUP BY p.single;

COMMENT ON VIEW metallm.river IS
    'The policy of River''s in force, if there is one: how many lessons it has learned, how many '
    'are kept, and how many of these were corrected or withdrawn since and still count as they '
    'were learned, until metallm rebuild --apply.';

CREATE VIEW metallm.verdicts AS
SELECT i.query_id, i.day, i.task, i.decided_at, v.arm, v.judge, v.template, v.score,
       v.failure ->> 'kind' AS failure, v.weight,
       coalesce(i.judged_by = 'model', false) AS in_force, i.quality, v.text, v.input_tokens,
       v.output_tokens, v.cost_usd, v.latency_s, v.finished_at
FROM metallm.interactions AS i
CROSS JOIN LATERAL jsonb_to_record(i.verdict) AS v (
    arm text, judge text, template text, score double precision, failure jsonb,
    weight double precision, text text, input_tokens numeric, output_tokens numeric,
    cost_usd double precision, latency_s double precision, finished_at timestamptz
)
WHERE i.verdict IS NOT NULL;

COMMENT ON VIEW metallm.verdicts IS
    'One row a verdict of a judge model: its score or failure, what it cost, whether it counts, and '
    'the quality that a user''s judgement gave the same answer, if there is one.';

CREATE VIEW metallm.judges AS
SELECT judge, template, arm, count(*) AS verdicts, count(failure) AS failures,
       count(*) FILTER (WHERE in_force) AS in_force, avg(score) AS mean_score,
       count(score + quality) AS compared,
       avg(score - quality) AS bias,
       1.96 * stddev_samp(score - quality) / sqrt(nullif(count(score + quality), 0)) AS bias_margin,
       corr(score, quality) AS correlation,
       sum(cost_usd) AS cost_usd, count(cost_usd) AS priced_verdicts
FROM metallm.verdicts
GROUP BY judge, template, arm
ORDER BY judge, template, arm;

COMMENT ON VIEW metallm.judges IS
    'How judge models and users agree, per judge, template and arm: bias is the mean of score less '
    'quality over the answers that both have judged, give or take bias_margin (95 %); cost_usd is '
    'what the judge has cost in its priced_verdicts, and part of no arm''s cost.';

CREATE FUNCTION metallm.explain(query_id text) RETURNS TABLE (
    arm text, probability double precision, quality double precision, cost_usd double precision,
    latency_s double precision, utility double precision, chosen boolean, answered boolean,
    policy text, policy_version bigint, cost_weight double precision,
    latency_weight double precision, budget_weight double precision,
    cost_scale_usd double precision, decided_at timestamptz, failure text
)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.arm, c.probability, c.quality, c.cost_usd, c.latency_s, c.utility,
           coalesce(c.arm = i.arm, false), coalesce(c.arm = i.answered_by, false),
           i.policy, i.policy_version, i.cost_weight, i.latency_weight,
           coalesce((i.decision ->> 'budget_weight')::double precision, 0), i.cost_scale_usd,
           i.decided_at,
           coalesce(
               i.result -> 'failure' ->> 'message', i.decision -> 'refusal' ->> 'message'
           )
    FROM metallm.interactions AS i
    LEFT JOIN LATERAL jsonb_to_recordset(i.decision -> 'candidates') AS c (
        arm text, probability double precision, quality double precision,
        cost_usd double precision, latency_s double precision, utility double precision
    ) ON true
    WHERE i.query_id = explain.query_id AND i.decision IS NOT NULL
    ORDER BY c.probability DESC, c.utility DESC, c.arm
$$;

COMMENT ON FUNCTION metallm.explain(text) IS
    'Why a query went where it went: one row a candidate with what the policy predicted of it, '
    'whether it was chosen and answered, and the weights of the trade-off; budgets add theirs to '
    'cost_weight. A query that found no arm has one row without an arm, and says why in failure.';
