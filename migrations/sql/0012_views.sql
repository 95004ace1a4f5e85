-- One view says which costs are known, from revision 0012 on; others read it.

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

CREATE OR REPLACE VIEW metallm.savings AS
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

CREATE OR REPLACE VIEW metallm.learning_curve AS
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

CREATE OR REPLACE VIEW metallm.outcomes AS
SELECT i.query_id, i.day, i.task, i.decided_at, i.arm, i.propensity, i.quality,
       i.cost_usd, i.latency_s, i.cost_weight, i.latency_weight, i.cost_scale_usd,
       (i.decision ->> 'latency_scale_s')::double precision AS latency_scale_s,
       coalesce((i.decision ->> 'budget_weight')::double precision, 0) AS budget_weight,
       i.decision -> 'candidates' AS candidates
FROM metallm.results AS i
WHERE i.arm IS NOT NULL
  AND i.decision -> 'candidates' @> jsonb_build_array(jsonb_build_object('arm', i.arm))
  AND (
      NOT i.result ? 'call_id'
      -- The result of another decision of the same query_id says nothing of this one.
      OR i.result ->> 'call_id' = left(encode(sha256(convert_to(concat_ws(
          E'\n', i.query_id, i.decision ->> 'fingerprint', i.decision ->> 'query_partition',
          i.decision ->> 'query_offset'
      ), 'UTF8')), 'hex'), 32)
  );
