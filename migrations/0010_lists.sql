-- Indexes from which the lists of the admin pages are read, page by page, however long they are. A list
-- with a filter is read in its own order from an index that begins with the filter.

-- Decisions, the latest first. The index by approval alone would be preferred to these, and sorts nothing.
DROP INDEX client_standings_by_approval;
CREATE INDEX client_standings_waiting ON client_standings (changed_at, client_id, approval) WHERE approval = 'waiting';
CREATE INDEX client_standings_refused ON client_standings (changed_at, client_id) WHERE approval = 'refused';
CREATE INDEX client_standings_blocked ON client_standings (changed_at, client_id) WHERE blocked = 1;
CREATE INDEX client_standings_trusted ON client_standings (changed_at, client_id) WHERE trusted = 1;

-- A popular client has as many grants as there are people.
DROP INDEX grants_by_client;
CREATE INDEX grants_by_client ON grants (client_id, id);
CREATE INDEX grants_by_resource ON grants (resource, id);
-- Also counts them: what the count looks at is in the index.
CREATE INDEX grants_live ON grants (id, expires_at, revoked_at) WHERE revoked_at IS NULL;

CREATE INDEX people_blocked ON people (last_seen_at, subject) WHERE blocked_at IS NOT NULL;

-- `at` is there for the chart of the overview.
DROP INDEX audit_events_by_event;
CREATE INDEX audit_events_by_event ON audit_events (event, id, at);
