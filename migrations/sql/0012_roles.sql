-- What the group roles may do with the objects of revision 0012.

GRANT SELECT, INSERT, UPDATE, DELETE ON metallm.results TO metallm_service;
GRANT SELECT ON metallm.results TO metallm_analyst;
