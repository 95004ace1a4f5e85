-- The judge model's verdicts, which revision 0007 adds to the interactions.

ALTER TABLE metallm.interactions
    ADD COLUMN judged_by TEXT,
    ADD COLUMN verdict JSONB,
    ADD CONSTRAINT interactions_judged_by_known CHECK (judged_by IN ('user', 'model'));

UPDATE metallm.interactions SET judged_by = 'user' WHERE quality IS NOT NULL;

COMMENT ON TABLE metallm.interactions IS 'One row a query: decision, result, feedback and verdict as far as they have come.';

COMMENT ON COLUMN metallm.interactions.quality IS 'The user''s judgement in force, in [0, 1].';

COMMENT ON COLUMN metallm.interactions.judged_by IS 'Whose judgement counts: user or model; null: there is none.';

COMMENT ON COLUMN metallm.interactions.verdict IS 'The judge model''s; its cost is in no other column.';
