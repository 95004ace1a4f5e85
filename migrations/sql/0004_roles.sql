-- What the group roles may do with the objects of revision 0004.

GRANT SELECT, INSERT, UPDATE, DELETE ON metallm.half_lives, metallm.shifts, metallm.warmups
TO metallm_service;
