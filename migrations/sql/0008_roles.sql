-- What the group roles may do with the objects of revision 0008.

REVOKE EXECUTE ON FUNCTION metallm.evaluate(
    timestamptz, timestamptz, text, text, double precision, double precision
) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION metallm.evaluate(
    timestamptz, timestamptz, text, text, double precision, double precision
) TO metallm_service, metallm_analyst;
REVOKE EXECUTE ON FUNCTION metallm.explain(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION metallm.explain(text) TO metallm_service, metallm_analyst;
