-- Two group roles without login, and what they may do in this database. Safe to run again; roles
-- belong to the cluster, rights to the database. Give them to your users, for example:
--   GRANT metallm_service TO learner;  GRANT metallm_analyst TO grafana;
-- Run it as the tables' owner; creating the roles needs CREATEROLE.

DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['metallm_service', 'metallm_analyst'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
            EXCEPTION
                -- Another database of this cluster was faster.
                WHEN duplicate_object OR unique_violation THEN NULL;
            END;
        END IF;
    END LOOP;
END
$$;

GRANT USAGE ON SCHEMA metallm TO metallm_service, metallm_analyst;

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA metallm FROM PUBLIC;

GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA metallm TO metallm_service;
REVOKE INSERT, UPDATE, DELETE ON metallm.alembic_version FROM metallm_service;
GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA metallm TO metallm_service;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA metallm TO metallm_service;

GRANT SELECT ON
    metallm.interactions, metallm.attempts, metallm.arm_events, metallm.arms, metallm.arms_by_task,
    metallm.arms_over_time, metallm.policy_now, metallm.spend, metallm.savings, metallm.lag,
    metallm.dead_letters, metallm.dead_letter_counts, metallm.learning_curve, metallm.outcomes,
    metallm.policy_values, metallm.drift, metallm.budgets, metallm.river,
    metallm.verdicts, metallm.judges, metallm.results
TO metallm_analyst;
GRANT EXECUTE ON FUNCTION
    metallm.explain(text), metallm.partition_days(),
    metallm.evaluate(timestamptz, timestamptz, text, text, double precision, double precision)
TO metallm_analyst;
