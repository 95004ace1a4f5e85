-- The view of outcomes reads each decision and result once, from revision 0013 on.

CREATE OR REPLACE VIEW metallm.outcomes AS
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
