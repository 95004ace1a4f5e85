-- Whether the cost of a result is known, kept beside it from revision 0012 on.

ALTER TABLE metallm.interactions ADD COLUMN priced BOOLEAN;

COMMENT ON COLUMN metallm.interactions.priced IS 'Whether cost_usd has what the answer cost; null in rows of older releases.';
