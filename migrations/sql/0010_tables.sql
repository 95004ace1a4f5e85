-- The id of the topic that a position belongs to, from revision 0010 on.

ALTER TABLE metallm.offsets ADD COLUMN topic_id TEXT;

COMMENT ON COLUMN metallm.offsets.topic_id IS 'Of the topic that was read; null: not known yet.';
