-- Views of schema metallm that revision 0007 adds.

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
       sum(cost_usd) AS cost_usd
FROM metallm.verdicts
GROUP BY judge, template, arm
ORDER BY judge, template, arm;

COMMENT ON VIEW metallm.judges IS
    'How judge models and users agree, per judge, template and arm: bias is the mean of score less '
    'quality over the answers that both have judged, give or take bias_margin (95 %); cost_usd is '
    'what the judge has cost, which is part of no arm''s cost.';
