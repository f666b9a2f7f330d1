-- The stored data of the main flow, column by column. One text for SQLite and PostgreSQL:
-- columns are TEXT or BIGINT, times are Unix seconds, absent is NULL.
--
-- hash    SHA-256 of a secret under its kind, base64url (src/oauth/secret.rs): proves, cannot be used.
-- sealed  AES-256-GCM under a key that is not in this database, bound to table, column and row
--         (src/oauth/sealed.rs): cannot be read or moved to another row.
-- Row ids begin with their time, so that new rows land at the end of the index.

-- Facts about this installation. 'secret_key_check': a known text, sealed; opening it proves that the
-- secret key is the one this database was made with.
CREATE TABLE installation (
    name  TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
);

-- Keys that sign access tokens. One row per algorithm and generation; two processes that start at once
-- agree through UNIQUE (alg, generation).
CREATE TABLE signing_keys (
    kid         TEXT PRIMARY KEY NOT NULL,
    alg         TEXT NOT NULL,               -- ES256 | RS256 | EdDSA
    generation  BIGINT NOT NULL,             -- 1, 2, 3 … the highest signs
    private_key TEXT NOT NULL,               -- PKCS#8, sealed
    created_at  BIGINT NOT NULL,
    UNIQUE (alg, generation)
);

-- Clients that registered themselves (RFC 7591).
CREATE TABLE clients (
    id                 TEXT PRIMARY KEY NOT NULL,
    identity           TEXT UNIQUE,          -- hash of a public client's metadata: the same metadata is the same client
    secret_hash        TEXT,                 -- hash; only confidential clients have one
    metadata           TEXT NOT NULL,        -- JSON, checked when it was registered
    issued_at          BIGINT NOT NULL,
    last_registered_at BIGINT NOT NULL,      -- identical registrations move this
    last_used_at       BIGINT                -- last code redeemed or token refreshed; NULL: never
);
CREATE INDEX clients_by_use ON clients (last_used_at, last_registered_at);

-- Consent pages that were decided: a page decides once. Undecided pages are not stored anywhere.
CREATE TABLE consents (
    id         TEXT PRIMARY KEY NOT NULL,    -- the id sealed in the page
    decision   TEXT NOT NULL,                -- approved | denied
    expires_at BIGINT NOT NULL               -- when the page itself has expired and the row may go
);

-- Logins on their way through the identity provider: from Approve to the callback.
CREATE TABLE logins (
    id           TEXT PRIMARY KEY NOT NULL,
    state_hash   TEXT NOT NULL,              -- hash of the state sent to the identity provider
    binding_hash TEXT NOT NULL,              -- hash of the cookie of the browser that approved
    client_id    TEXT NOT NULL,
    request      TEXT NOT NULL,              -- what was approved, nonce and PKCE verifier; JSON, sealed
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    ended_at     BIGINT                      -- came back, or was burnt by a wrong browser
);
CREATE INDEX logins_by_expiry ON logins (expires_at);

-- Sessions of people at the identity provider; one row per issuer, subject and sid, shared by all
-- grants that came from that login.
CREATE TABLE upstream_sessions (
    id               TEXT PRIMARY KEY NOT NULL, -- hash of issuer, subject and sid
    issuer           TEXT NOT NULL,
    subject          TEXT NOT NULL,
    sid              TEXT NOT NULL,          -- '-' when the provider names none
    state            TEXT NOT NULL,          -- active | dead
    ended_because    TEXT,
    person           TEXT NOT NULL,          -- name, e-mail and the facts that rules read; JSON, sealed
    tokens           TEXT NOT NULL,          -- upstream access, refresh and ID token; JSON, sealed
    version          BIGINT NOT NULL,        -- grows with every change of tokens
    lease_owner      TEXT,                   -- who is asking the provider right now
    lease_until      BIGINT,
    last_ok_at       BIGINT NOT NULL,        -- last definite yes of the provider
    created_at       BIGINT NOT NULL,
    UNIQUE (issuer, subject, sid)
);

-- What a person gave a client: one row per redeemed code, the family of its refresh tokens.
CREATE TABLE grants (
    id           TEXT PRIMARY KEY NOT NULL,
    client_id    TEXT NOT NULL,
    session_id   TEXT NOT NULL REFERENCES upstream_sessions (id),
    subject      TEXT NOT NULL,              -- our sub: who it is for MCP servers
    resource     TEXT NOT NULL,              -- the one audience
    ceiling      TEXT NOT NULL,              -- consented scopes; rules can only narrow them
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,            -- absolute end; no refresh moves it
    last_used_at BIGINT NOT NULL,
    revoked_at   BIGINT,
    revoked_because TEXT
);
CREATE INDEX grants_by_session ON grants (session_id);
CREATE INDEX grants_by_client ON grants (client_id);

-- Authorization codes (RFC 6749 section 4.1.2), bound to everything they were asked with.
CREATE TABLE authorization_codes (
    id             TEXT PRIMARY KEY NOT NULL,
    code_hash      TEXT NOT NULL,            -- hash
    client_id      TEXT NOT NULL,
    redirect_uri   TEXT NOT NULL,            -- as presented, the port included
    code_challenge TEXT NOT NULL,            -- S256
    resource       TEXT NOT NULL,
    ceiling        TEXT NOT NULL,
    scopes         TEXT NOT NULL,            -- what the rules left of the ceiling at login
    session_id     TEXT NOT NULL REFERENCES upstream_sessions (id),
    subject        TEXT NOT NULL,
    created_at     BIGINT NOT NULL,
    expires_at     BIGINT NOT NULL,
    failures       BIGINT NOT NULL,          -- wrong attempts; too many burn the code
    redeemed_at    BIGINT,
    grant_id       TEXT                      -- the grant it became; a replay revokes it
);
CREATE INDEX authorization_codes_by_expiry ON authorization_codes (expires_at);

-- Refresh tokens. Each has at most one successor, ever.
CREATE TABLE refresh_tokens (
    id         TEXT PRIMARY KEY NOT NULL,
    token_hash TEXT NOT NULL,                -- hash
    grant_id   TEXT NOT NULL REFERENCES grants (id),
    parent_id  TEXT UNIQUE,                  -- the token it replaced; NULL for the first of a grant
    issued_at  BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,              -- idle end
    used_at    BIGINT,                       -- when it was rotated
    successor_id TEXT,
    successor  TEXT,                         -- the successor, sealed under this very token: only its holder can open it
    replays    BIGINT NOT NULL               -- how often the successor was handed out again
);
CREATE INDEX refresh_tokens_by_grant ON refresh_tokens (grant_id);
