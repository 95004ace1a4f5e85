-- Views tell unknown costs and average over known ones, from revision 0011 on.

CREATE OR REPLACE VIEW metallm.arms AS
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

CREATE OR REPLACE VIEW metallm.arms_by_task AS
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

CREATE OR REPLACE VIEW metallm.arms_over_time AS
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

CREATE OR REPLACE VIEW metallm.savings AS
WITH costs AS (
    SELECT i.quality,
           -- As in outcomes: that of an answer is known if its call's is.
           CASE WHEN i.answered_by IS NULL OR i.result -> 'attempts' = '[]' OR EXISTS (
               SELECT FROM jsonb_array_elements(i.result -> 'attempts') AS a
               WHERE a ? 'cost_usd' AND NOT a ? 'failure'
           ) THEN i.cost_usd END AS cost_usd
    FROM metallm.interactions AS i
    WHERE i.arm IS NOT NULL AND i.result IS NOT NULL
), service AS (
    SELECT count(*) AS queries, count(cost_usd) AS priced_queries, sum(cost_usd) AS spent_usd,
           avg(quality) AS mean_quality
    FROM costs
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

CREATE OR REPLACE VIEW metallm.learning_curve AS
WITH usual AS (
    SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY cost_scale_usd) AS cost_scale_usd
    FROM metallm.interactions
    WHERE arm IS NOT NULL AND cost_scale_usd BETWEEN 1e-12 AND 1e12
), answered AS (
    SELECT (row_number() OVER (ORDER BY i.decided_at, i.query_id) - 1) / 100 AS bucket,
           i.decided_at, k.quality, k.cost_usd,
           CASE WHEN k.cost_usd IS NOT NULL OR k.cost_weight = 0 THEN
               k.quality - coalesce(k.cost_weight * k.cost_usd / usual.cost_scale_usd, 0)
           END AS utility
    FROM metallm.interactions AS i CROSS JOIN usual
    CROSS JOIN LATERAL (
        -- As in savings.
        SELECT i.quality * (i.quality >= 1e-30)::integer AS quality,
               i.cost_weight * (i.cost_weight >= 1e-30)::integer AS cost_weight,
               CASE WHEN i.answered_by IS NULL OR i.result -> 'attempts' = '[]' OR EXISTS (
                   SELECT FROM jsonb_array_elements(i.result -> 'attempts') AS a
                   WHERE a ? 'cost_usd' AND NOT a ? 'failure'
               ) THEN i.cost_usd * (i.cost_usd >= 1e-30)::integer END AS cost_usd
    ) AS k
    WHERE i.decision IS NOT NULL AND i.result IS NOT NULL
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

CREATE OR REPLACE VIEW metallm.judges AS
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
