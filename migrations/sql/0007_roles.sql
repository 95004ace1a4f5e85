-- What the group roles may do with the objects of revision 0007.

GRANT SELECT, INSERT, UPDATE, DELETE ON metallm.verdicts, metallm.judges TO metallm_service;
GRANT SELECT ON metallm.verdicts, metallm.judges TO metallm_analyst;
