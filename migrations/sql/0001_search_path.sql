-- `select * from arms` works without the schema's name, after whatever else has that name. Only
-- the database's owner may say so, and nobody's own setting is replaced.
DO $$
DECLARE
    ours oid := (
        SELECT oid FROM pg_database
        WHERE datname = current_database() AND pg_has_role(current_user, datdba, 'USAGE')
    );
BEGIN
    IF ours IS NOT NULL AND NOT EXISTS (
        SELECT FROM pg_db_role_setting, unnest(setconfig) AS setting
        WHERE setdatabase = ours AND setrole = 0 AND setting LIKE 'search\_path=%'
    ) THEN
        EXECUTE format(
            'ALTER DATABASE %I SET search_path = "$user", public, metallm', current_database()
        );
    END IF;
END
$$;
