-- Views of schema metallm that revision 0004 adds.

CREATE VIEW metallm.drift AS
SELECT arm, detected_at, effective_at, direction, mean_before, mean_after, factor, detector, slot
FROM metallm.shifts
ORDER BY effective_at DESC, arm;

COMMENT ON VIEW metallm.drift IS
    'Where the quality of an arm has moved away from what was predicted, newest first: the mean of '
    'quality less prediction before and after, and what its older evidence counts since.';
