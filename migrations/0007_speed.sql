-- What is asked at every step must not grow with what was there before.

-- Live grants of a person, the least recently used last: one more than allowed ends the oldest.
CREATE INDEX grants_live_by_subject ON grants (subject, last_used_at) WHERE revoked_at IS NULL;

-- Logins that are still on their way: how many there are is asked at every Approve.
CREATE INDEX logins_pending ON logins (expires_at) WHERE ended_at IS NULL;

-- Numbers that would have to be counted otherwise. 'clients': how many registered themselves; counted anew
-- at every clean-up.
CREATE TABLE counters (
    name  TEXT PRIMARY KEY NOT NULL,
    value BIGINT NOT NULL
);
INSERT INTO counters (name, value) SELECT 'clients', COUNT(*) FROM clients WHERE kind = 'registered';
