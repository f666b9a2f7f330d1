-- Rotation of signing keys. A key is published first, signs later, and is published on until the last
-- token that it signed has expired. Keys from before sign at once and for as long as they are the
-- newest.
ALTER TABLE signing_keys ADD COLUMN signs_from BIGINT NOT NULL DEFAULT 0; -- not before; of several that may, the highest generation signs
ALTER TABLE signing_keys ADD COLUMN retires_at BIGINT; -- from when no token of it can be alive; NULL: it has no successor
ALTER TABLE signing_keys ADD COLUMN retired_at BIGINT; -- no longer published, and private_key is empty

-- The story of one connection is found without reading the whole trail.
CREATE INDEX audit_events_by_grant ON audit_events (grant_id, id) WHERE grant_id IS NOT NULL;
