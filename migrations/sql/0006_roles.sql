-- What the group roles may do with the objects of revision 0006.

GRANT SELECT, INSERT, UPDATE, DELETE ON
    metallm.river_policy, metallm.river_lessons, metallm.river
TO metallm_service;
GRANT SELECT ON metallm.river TO metallm_analyst;
