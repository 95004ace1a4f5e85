-- What the group roles may do with the objects of revision 0004.

GRANT SELECT, INSERT, UPDATE, DELETE ON
    metallm.half_lives, metallm.shifts, metallm.warmups, metallm.watches, metallm.drift
TO metallm_service;
GRANT SELECT ON metallm.drift TO metallm_analyst;
