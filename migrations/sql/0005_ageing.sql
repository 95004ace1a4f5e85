-- Ageing of evidence after a shift, which revision 0005 adds.

ALTER TABLE metallm.shifts
    ADD COLUMN ageing_s DOUBLE PRECISION,
    ADD CONSTRAINT shifts_ageing_in_range CHECK (ageing_s >= 1);

COMMENT ON COLUMN metallm.shifts.ageing_s IS 'Time scale at which evidence ages since; null: it does not.';

CREATE OR REPLACE VIEW metallm.drift AS
SELECT arm, detected_at, effective_at, direction, mean_before, mean_after, factor, detector, slot,
       ageing_s
FROM metallm.shifts
ORDER BY effective_at DESC, arm;

COMMENT ON VIEW metallm.drift IS
    'Where the quality of an arm has moved away from what was predicted, newest first: the mean of '
    'quality less prediction before and after, what its older evidence counts since, and the time '
    'scale at which it ages.';
