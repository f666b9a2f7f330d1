-- Messages of the identity provider that were acted upon (logout tokens, revocation requests): each
-- counts once.
CREATE TABLE upstream_notices (
    id         TEXT PRIMARY KEY NOT NULL,    -- hash of issuer and jti
    expires_at BIGINT NOT NULL               -- when the message itself is too old to be accepted
);
