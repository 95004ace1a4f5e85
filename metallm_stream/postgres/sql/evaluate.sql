-- What other policies would have brought, from the log alone. The same estimators are in
-- metallm_stream/evaluate, where their references stand; a test compares the two.

CREATE VIEW metallm.outcomes AS
SELECT i.query_id, i.day, i.task, i.decided_at, i.arm, i.propensity, i.quality,
       i.cost_usd, i.latency_s, i.cost_weight, i.latency_weight, i.cost_scale_usd,
       d.latency_scale_s, coalesce(d.budget_weight, 0) AS budget_weight, d.candidates
FROM metallm.results AS i
-- Wide values are read from outside the row at each mention: decision and result have one.
CROSS JOIN LATERAL jsonb_to_record(i.decision) AS d (
    fingerprint text, query_partition text, query_offset text, latency_scale_s double precision,
    budget_weight double precision, candidates jsonb
)
WHERE i.arm IS NOT NULL
  AND d.candidates @> jsonb_build_array(jsonb_build_object('arm', i.arm))
  -- The result of another decision of the same query_id says nothing of this one.
  AND coalesce(i.result ->> 'call_id' = left(encode(sha256(convert_to(concat_ws(
      E'\n', i.query_id, d.fingerprint, d.query_partition, d.query_offset
  ), 'UTF8')), 'hex'), 32), true);

COMMENT ON VIEW metallm.outcomes IS
    'One row a decision that has its result: the arm, its propensity, what came of it, and every '
    'candidate with its probability and predictions. What is not known is null. The candidates'' '
    'utility is less budget_weight * cost_usd / cost_scale_usd, what came of it is not.';

CREATE FUNCTION metallm.evaluate(
    since timestamptz DEFAULT '-infinity', until timestamptz DEFAULT 'infinity',
    metric text DEFAULT 'utility', task text DEFAULT NULL,
    latency_scale_s double precision DEFAULT 10, cost_scale_usd double precision DEFAULT NULL
) RETURNS TABLE (
    target text, estimator text, value double precision, low double precision,
    high double precision, decisions bigint, effective_decisions double precision,
    largest_weight double precision, unsupported double precision
)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    -- One for all decisions: the median of theirs, since the first knew little of costs.
    cost_unit_usd double precision := coalesce(evaluate.cost_scale_usd, (
        SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY i.cost_scale_usd)
        FROM metallm.interactions AS i
        WHERE i.decided_at >= coalesce(evaluate.since, '-infinity')
          AND i.decided_at < coalesce(evaluate.until, 'infinity')
          AND (evaluate.task IS NULL OR i.task = evaluate.task)
          AND i.arm IS NOT NULL
    ));
    -- Nothing is drawn more rarely, and no amount is smaller: else products of what somebody has
    -- logged could be too large or too small for a number, which PostgreSQL refuses.
    rarest CONSTANT double precision := 1e-9;
    smallest CONSTANT double precision := 1e-30;
BEGIN
    IF evaluate.metric IS NULL
       OR evaluate.metric NOT IN ('utility', 'quality', 'cost', 'latency') THEN
        RAISE EXCEPTION 'no metric %: utility, quality, cost or latency', evaluate.metric
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- NaN counts as larger than any number.
    IF (evaluate.latency_scale_s > 0 AND evaluate.latency_scale_s < 'Infinity') IS NOT TRUE THEN
        RAISE EXCEPTION 'latency_scale_s is %: it must be a number of seconds above 0',
            evaluate.latency_scale_s USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NOT cost_unit_usd BETWEEN 1e-12 AND 1e12 THEN
        RAISE EXCEPTION 'cost_scale_usd is %: it must be a number of USD from 1e-12 to 1e12',
            cost_unit_usd USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN QUERY
    WITH logged AS (
        SELECT row_number() OVER (ORDER BY o.decided_at, o.query_id COLLATE "C") AS id,
               o.arm, greatest(o.propensity, rarest) AS propensity, o.candidates, s.cost_weight,
               s.latency_weight, s.latency_scale_s, r.reward
        FROM metallm.outcomes AS o
        CROSS JOIN LATERAL (
            SELECT coalesce(o.latency_scale_s, evaluate.latency_scale_s) AS latency_scale_s,
                   o.quality * (o.quality >= smallest)::integer AS quality,
                   o.cost_usd * (o.cost_usd >= smallest)::integer AS cost_usd,
                   o.latency_s * (o.latency_s >= smallest)::integer AS latency_s,
                   o.cost_weight * (o.cost_weight >= smallest)::integer AS cost_weight,
                   o.latency_weight * (o.latency_weight >= smallest)::integer AS latency_weight
        ) AS s
        CROSS JOIN LATERAL (
            SELECT CASE evaluate.metric
                WHEN 'quality' THEN s.quality
                WHEN 'cost' THEN s.cost_usd
                WHEN 'latency' THEN s.latency_s
                ELSE s.quality
                    - CASE WHEN s.cost_weight = 0 THEN 0
                           ELSE s.cost_weight * s.cost_usd / cost_unit_usd END
                    - CASE WHEN s.latency_weight = 0 THEN 0
                           ELSE s.latency_weight * s.latency_s / s.latency_scale_s END
            END AS reward
        ) AS r
        WHERE o.decided_at >= coalesce(evaluate.since, '-infinity')
          AND o.decided_at < coalesce(evaluate.until, 'infinity')
          AND (evaluate.task IS NULL OR o.task = evaluate.task)
          AND r.reward IS NOT NULL
    ), seen AS (
        SELECT l.id, l.reward, l.propensity, c.arm, c.arm = l.arm AS chosen, q.probability,
               coalesce(CASE evaluate.metric
                   WHEN 'quality' THEN q.quality
                   WHEN 'cost' THEN q.cost_usd
                   WHEN 'latency' THEN q.latency_s
                   -- As the reward has it: the logged utility has the price of budgets in it, and
                   -- the scale of cost of its time.
                   ELSE q.quality - coalesce(l.cost_weight * (q.cost_usd / cost_unit_usd), 0)
                       - coalesce(l.latency_weight * (q.latency_s / l.latency_scale_s), 0)
               END, 0) AS predicted,
               rank() OVER (
                   PARTITION BY l.id ORDER BY coalesce(c.utility, '-Infinity') DESC
               ) = 1 AS best
        FROM logged AS l
        CROSS JOIN LATERAL jsonb_to_recordset(l.candidates) AS c (
            arm text, probability double precision, quality double precision,
            cost_usd double precision, latency_s double precision, utility double precision
        )
        CROSS JOIN LATERAL (
            -- Predictions are linear, and early ones go far beyond; null where nothing was expected.
            SELECT CASE WHEN c.quality < smallest THEN 0 WHEN c.quality > 1 THEN 1 ELSE c.quality
                   END AS quality,
                   c.cost_usd * (c.cost_usd >= smallest)::integer AS cost_usd,
                   c.latency_s * (c.latency_s >= smallest)::integer AS latency_s,
                   CASE WHEN c.probability > 0 THEN greatest(c.probability, rarest) ELSE 0
                   END AS probability
        ) AS q
    ), shared AS (
        SELECT *, best::integer / sum(best::integer) OVER one::double precision AS greedy,
               1 / count(*) OVER one::double precision AS uniform
        FROM seen
        WINDOW one AS (PARTITION BY id)
    ), aimed AS (
        SELECT 'always:' || arm AS target, id, reward, chosen::integer / propensity AS w,
               predicted AS expected, predicted AS direct, (probability = 0)::integer AS missing,
               coalesce(1 / nullif(probability, 0), 0) AS v
        FROM shared
        UNION ALL
        SELECT t.target, id, reward, sum(t.share) FILTER (WHERE chosen) / propensity,
               max(predicted) FILTER (WHERE chosen), sum(t.share * predicted),
               coalesce(sum(t.share) FILTER (WHERE probability = 0), 0),
               coalesce(sum(t.share * t.share / nullif(probability, 0)), 0)
        FROM shared
        CROSS JOIN LATERAL (
            VALUES ('logged', probability), ('greedy', greedy), ('uniform', uniform)
        ) AS t (target, share)
        GROUP BY t.target, id, reward, propensity
    ), running AS (
        SELECT *, row_number() OVER past - 1 AS before, sum(v) OVER past AS v_so_far
        FROM aimed
        WINDOW past AS (PARTITION BY target ORDER BY id ROWS UNBOUNDED PRECEDING)
    ), scored AS (
        SELECT target, missing, w, w * reward AS wr, w * (reward - expected) + direct AS score,
               -- Over the 100 decisions before: a difference, since frames are summed anew each time.
               sqrt((1 + least(before, 100)) / (
                   1 + lag(v_so_far, 1, 0) OVER past - lag(v_so_far, 101, 0) OVER past
               )) AS h
        FROM running
        WINDOW past AS (PARTITION BY target ORDER BY id)
    ), totals AS (
        SELECT target, count(*) AS n, avg(missing)::double precision AS missing, max(w) AS w_max,
               sum(w) AS w, sum(w * w) AS ww, sum(wr) AS wr, sum(w * wr) AS wwr,
               sum(wr * wr) AS wwrr, avg(wr) AS ips, stddev_samp(wr) AS ips_spread,
               avg(score) AS dr, stddev_samp(score) AS dr_spread,
               sum(h) AS h, sum(h * h) AS hh, sum(h * score) AS hs, sum(h * h * score) AS hhs,
               sum(h * h * score * score) AS hhss
        FROM scored
        GROUP BY target
    ), ratios AS (
        SELECT *, wr / nullif(w, 0) AS snips, hs / h AS weighted FROM totals
    )
    SELECT r.target, e.estimator, e.value,
           CASE WHEN n > 1 THEN e.value - 1.959963984540054 * e.error END,
           CASE WHEN n > 1 THEN e.value + 1.959963984540054 * e.error END,
           n, coalesce(w * w / nullif(ww, 0), 0), w_max, missing
    FROM ratios AS r
    CROSS JOIN LATERAL (VALUES
        (1, 'ips', ips, ips_spread / sqrt(n)),
        (2, 'snips', snips,
         sqrt(greatest(wwrr - 2 * snips * wwr + snips * snips * ww, 0)) / nullif(w, 0)),
        (3, 'dr', dr, dr_spread / sqrt(n)),
        (4, 'dr_weighted', weighted,
         sqrt(greatest(hhss - 2 * weighted * hhs + weighted * weighted * hh, 0)) / h)
    ) AS e (place, estimator, value, error)
    ORDER BY r.target LIKE 'always:%', r.target COLLATE "C", e.place;
END
$$;

COMMENT ON FUNCTION metallm.evaluate(
    timestamptz, timestamptz, text, text, double precision, double precision
) IS
    'What always each arm, the greedy, the uniform and the logging policy are worth per decision, '
    'from decisions since (inclusive) to until (exclusive), null for no bound: value with a 95 % '
    'interval by inverse propensities (ips, snips) and doubly robust (dr, dr_weighted). Do not '
    'trust intervals of few effective decisions (below 100), of a quality that few of them speak '
    'against (effective_decisions * least(value, 1 - value) below 10), or where unsupported is '
    'above 0. '
    'Utilities divide all costs by cost_scale_usd, null for the median of the decisions'' own.';

CREATE VIEW metallm.policy_values AS
SELECT target, estimator, value, low, high, decisions, effective_decisions, largest_weight,
       unsupported
FROM metallm.evaluate(cost_scale_usd => NULL);

COMMENT ON VIEW metallm.policy_values IS
    'The utility of always each arm, of the greedy, the uniform and the logging policy over all '
    'retained decisions that are labelled, as evaluate() gives it.';
