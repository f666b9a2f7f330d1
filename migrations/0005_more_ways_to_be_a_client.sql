-- Clients that manage their registration, and clients that sign. A client that is published at its own id
-- has a row of kind 'document' (0003): metadata is the last good copy, last_registered_at when it was read.

-- A confidential client may read, change and delete its registration (RFC 7592). Public clients have
-- none: identical ones are one row, and one of them must not rule over the others.
ALTER TABLE clients ADD COLUMN management_hash TEXT; -- hash of the registration access token

-- Assertions by which clients proved themselves (RFC 7523): each counts once.
CREATE TABLE client_assertions (
    id         TEXT PRIMARY KEY NOT NULL, -- hash of client and jti
    expires_at BIGINT NOT NULL            -- when the assertion itself is too old to be accepted
);
CREATE INDEX client_assertions_by_expiry ON client_assertions (expires_at);
