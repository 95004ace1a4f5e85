-- Views of schema metallm that revision 0006 adds.

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
