REVOKE EXECUTE
ON FUNCTION metallm.evaluate(timestamptz, timestamptz, text, text, double precision) FROM PUBLIC;
GRANT EXECUTE
ON FUNCTION metallm.evaluate(timestamptz, timestamptz, text, text, double precision)
TO metallm_service, metallm_analyst;
GRANT SELECT, INSERT, UPDATE, DELETE ON metallm.outcomes, metallm.policy_values TO metallm_service;
GRANT SELECT ON metallm.outcomes, metallm.policy_values TO metallm_analyst;
