-- A line of the audit trail proves from the moment it is recorded that a server recorded it, and a full trail
-- loses what anonymous callers caused before anything else.

-- HMAC-SHA-256 over the line, under a key that is not in this database, from when it is recorded until it is
-- chained; NULL in a chained line, which the chain proves. 'refused': somebody else wrote the line, and it is
-- never chained.
ALTER TABLE audit_events ADD COLUMN row_mac TEXT;

-- Lines that name neither a person nor a grant, by their place: they go first.
CREATE INDEX audit_events_anonymous ON audit_events (seq)
    WHERE seq IS NOT NULL AND subject IS NULL AND grant_id IS NULL AND actor IN ('client', 'person');

-- Lines that were removed from the middle of the chain, one row for each run of them.
CREATE TABLE audit_gaps (
    first_seq BIGINT PRIMARY KEY NOT NULL,
    last_seq  BIGINT NOT NULL,
    line_mac  TEXT NOT NULL,                 -- mac of the last line of the run: the chain goes on from it
    mac       TEXT NOT NULL                  -- HMAC-SHA-256 over the three: only a server can make a gap
);
