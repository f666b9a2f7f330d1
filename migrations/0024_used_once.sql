-- What may be used once and has no row of its own elsewhere, by a keyed hash: sign-ins to our pages, which travel
-- in a cookie, and codes of the identity provider that another browser than the right one brought.
CREATE TABLE used_once (
    id         TEXT PRIMARY KEY NOT NULL,
    expires_at BIGINT NOT NULL               -- when it could not be used any more anyway
);
CREATE INDEX used_once_by_expiry ON used_once (expires_at);
