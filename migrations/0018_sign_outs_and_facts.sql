-- Sign-outs at the identity provider that may have overtaken a login: the message came before the session was
-- stored. Logins that began before the sign-out end when they come back; see src/storage/sign_outs.rs.
CREATE TABLE upstream_sign_outs (
    id         TEXT PRIMARY KEY NOT NULL,    -- keyed hash of the issuer and a session id, a subject or an address
    number     BIGINT NOT NULL,              -- of the latest such sign-out, see the counter 'sign_outs'
    expires_at BIGINT NOT NULL               -- when no login of before it can come back any more
);
CREATE INDEX upstream_sign_outs_by_expiry ON upstream_sign_outs (expires_at);

-- How many sign-outs there have been. The order of sign-outs and logins must not depend on anybody's clock.
INSERT INTO counters (name, value) VALUES ('sign_outs', 0);
ALTER TABLE logins ADD COLUMN sign_outs BIGINT NOT NULL DEFAULT 0; -- how many there had been when it began

-- The claim `sub`, by which a message of the provider names people. Where people are known by another claim
-- (Entra), `subject` is not that. NULL: stored by an earlier version; the ID token has it.
ALTER TABLE upstream_sessions ADD COLUMN claim_sub TEXT;

-- When everything that rules may read was last read, and not taken over from an earlier answer.
ALTER TABLE upstream_sessions ADD COLUMN facts_read_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE upstream_sessions ADD COLUMN taken_over TEXT NOT NULL DEFAULT ''; -- kinds of facts that are as an earlier answer told them
UPDATE upstream_sessions SET facts_read_at = last_ok_at;
