-- Functions of schema metallm. Those that change tables run with their owner's rights, so that the
-- service's role needs none on the schema.

CREATE FUNCTION metallm.partition_days() RETURNS SETOF date
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT to_date(right(c.relname, 8), 'YYYYMMDD')
    FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'metallm.interactions'::regclass AND c.relname ~ '^interactions_[0-9]{8}$'
$$;

COMMENT ON FUNCTION metallm.partition_days() IS 'The UTC days that interactions are kept of.';

CREATE FUNCTION metallm.ensure_day(day date) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    partition text := 'interactions_' || to_char(ensure_day.day, 'YYYYMMDD');
BEGIN
    IF to_regclass('metallm.' || partition) IS NOT NULL THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('metallm'), hashtext('partitions'));
    -- Asked by a query, since to_regclass() may still remember what it knew before the wait.
    IF EXISTS (
        SELECT FROM pg_class AS c
        WHERE c.relnamespace = 'metallm'::regnamespace AND c.relname = partition
    ) THEN
        RETURN false;
    END IF;
    -- Attaching a table locks out no reader or writer, as CREATE TABLE ... PARTITION OF would.
    EXECUTE format('CREATE TABLE metallm.%I (LIKE metallm.interactions INCLUDING ALL)', partition);
    EXECUTE format(
        'ALTER TABLE metallm.interactions ATTACH PARTITION metallm.%I FOR VALUES FROM (%L) TO (%L)',
        partition, ensure_day.day, ensure_day.day + 1
    );
    RETURN true;
END
$$;

COMMENT ON FUNCTION metallm.ensure_day(date) IS
    'Creates the partition of one day unless it exists; true if it was created.';

CREATE FUNCTION metallm.drop_day(day date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    partition text := 'interactions_' || to_char(drop_day.day, 'YYYYMMDD');
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('metallm'), hashtext('partitions'));
    EXECUTE format('LOCK TABLE metallm.%I IN ACCESS EXCLUSIVE MODE', partition);
    IF EXISTS (SELECT FROM metallm.query_days AS q WHERE q.day = drop_day.day) THEN
        RAISE EXCEPTION 'queries of % are still joined; archive and forget them first', drop_day.day
            USING ERRCODE = 'object_in_use';
    END IF;
    EXECUTE format('DROP TABLE metallm.%I', partition);
END
$$;

COMMENT ON FUNCTION metallm.drop_day(date) IS
    'Drops the partition of one day; refuses while query_days still has queries of that day.';
