-- What a step writes should lie together: every page that it touches is written to the log as a whole, however
-- little of it has changed.

-- Lines of the audit trail are indexed for search when they are settled, many at once. `seq` stands in the
-- index of what is counted, so that counting looks nowhere else. Lines that are not settled are found in the
-- index of `seq` itself, which holds NULL too.
DROP INDEX audit_events_unsettled;
DROP INDEX audit_events_by_client;
DROP INDEX audit_events_by_subject;
DROP INDEX audit_events_by_event;
DROP INDEX audit_events_by_reference;
DROP INDEX audit_events_by_grant;
CREATE INDEX audit_events_by_client ON audit_events (client_id, id) WHERE client_id IS NOT NULL AND seq IS NOT NULL;
CREATE INDEX audit_events_by_subject ON audit_events (subject, id) WHERE subject IS NOT NULL AND seq IS NOT NULL;
CREATE INDEX audit_events_by_event ON audit_events (event, id, at, seq) WHERE seq IS NOT NULL;
CREATE INDEX audit_events_by_reference ON audit_events (reference) WHERE reference IS NOT NULL AND seq IS NOT NULL;
CREATE INDEX audit_events_by_grant ON audit_events (grant_id, id) WHERE grant_id IS NOT NULL AND seq IS NOT NULL;

-- Live grants of a person, by what no refresh changes. What the counts look at is in the index; who has few
-- enough to keep has few enough to sort by their last use.
DROP INDEX grants_live_by_subject;
CREATE INDEX grants_live_by_subject ON grants (subject, client_id, expires_at, revoked_at) WHERE revoked_at IS NULL;
