-- What administrators and people see and change: the audit trail, the standing of clients and people,
-- sessions of the pages, remembered consents, sign-ins that wait for an administrator.

-- What happened. Rows are only ever added; `seq` and `mac` are filled in once, within a second, and
-- chain each line to the one before it under a key that is not in this database.
CREATE TABLE audit_events (
    id         TEXT PRIMARY KEY NOT NULL,    -- begins with its time; later lines sort later
    at         BIGINT NOT NULL,              -- Unix milliseconds
    event      TEXT NOT NULL,                -- what happened, such as code_redeemed
    actor      TEXT NOT NULL,                -- who did it: client, person, admin <sub>, provider, server, shell
    client_id  TEXT,
    subject    TEXT,                         -- our sub; never a name or an address
    resource   TEXT,
    grant_id   TEXT,
    reference  TEXT,                         -- the number an error page showed
    detail     TEXT NOT NULL,                -- everything else: JSON object, no secrets
    seq        BIGINT UNIQUE,                -- 1, 2, 3 …: the place in the chain; NULL until settled
    mac        TEXT                          -- HMAC-SHA-256 over the line and the mac before it
);
CREATE INDEX audit_events_by_client ON audit_events (client_id, id) WHERE client_id IS NOT NULL;
CREATE INDEX audit_events_by_subject ON audit_events (subject, id) WHERE subject IS NOT NULL;
CREATE INDEX audit_events_by_event ON audit_events (event, at);
CREATE INDEX audit_events_by_reference ON audit_events (reference) WHERE reference IS NOT NULL;
CREATE INDEX audit_events_unsettled ON audit_events (id) WHERE seq IS NULL;

-- Clients of every kind are listed from here; a client that is not stored (configured, or a metadata
-- document) gets its row when it first receives a grant.
ALTER TABLE clients ADD COLUMN kind TEXT NOT NULL DEFAULT 'registered'; -- registered | created | configured | document
-- Lower-case name and host of the first redirect URI in hexadecimal: a range of the index finds what
-- begins with some letters, whatever the collation of the engine.
ALTER TABLE clients ADD COLUMN name_key TEXT;
ALTER TABLE clients ADD COLUMN host_key TEXT;
CREATE INDEX clients_by_issue ON clients (issued_at, id);
CREATE INDEX clients_by_name ON clients (name_key, id);
CREATE INDEX clients_by_host ON clients (host_key, id);

-- What administrators decided about a client. No row: nobody decided anything.
CREATE TABLE client_standings (
    client_id    TEXT PRIMARY KEY NOT NULL,
    approval     TEXT NOT NULL,              -- none | waiting | approved | refused
    trusted      BIGINT NOT NULL,            -- 1: approvals of people are remembered
    blocked      BIGINT NOT NULL,            -- 1: no authorization, no token
    requested_at BIGINT,                     -- when a person first waited for it
    requested_by TEXT,                       -- our sub of that person
    changed_at   BIGINT NOT NULL,
    changed_by   TEXT NOT NULL
);
CREATE INDEX client_standings_by_approval ON client_standings (approval, requested_at);

-- People who have signed in.
CREATE TABLE people (
    subject       TEXT PRIMARY KEY NOT NULL, -- our sub
    issuer        TEXT NOT NULL,
    upstream_subject TEXT NOT NULL,
    first_seen_at BIGINT NOT NULL,
    last_seen_at  BIGINT NOT NULL,           -- last sign-in
    blocked_at    BIGINT,
    blocked_by    TEXT
);
CREATE INDEX people_by_last_seen ON people (last_seen_at, subject);
INSERT INTO people (subject, issuer, upstream_subject, first_seen_at, last_seen_at)
    SELECT g.subject, MAX(s.issuer), MAX(s.subject), MIN(g.created_at), MAX(g.created_at)
    FROM grants g JOIN upstream_sessions s ON s.id = g.session_id GROUP BY g.subject;

-- Words of names, and whole e-mail addresses, as keyed hashes: they find a person, and tell nothing.
CREATE TABLE people_words (
    word    TEXT NOT NULL,                   -- HMAC-SHA-256 of the lower-case word
    subject TEXT NOT NULL,
    PRIMARY KEY (word, subject)
);
CREATE INDEX people_words_by_subject ON people_words (subject);

CREATE INDEX grants_by_subject ON grants (subject, id);

-- People and administrators who are signed in to the pages.
CREATE TABLE console_sessions (
    id           TEXT PRIMARY KEY NOT NULL,
    token_hash   TEXT NOT NULL,              -- hash of the cookie
    realm        TEXT NOT NULL,              -- admin | account: one is never good for the other
    subject      TEXT NOT NULL,
    session_id   TEXT NOT NULL,              -- the session at the identity provider it stands on
    signed_in_at BIGINT NOT NULL,            -- last proof by the identity provider; destructive actions want a fresh one
    seen_at      BIGINT NOT NULL,            -- last request, to the minute
    expires_at   BIGINT NOT NULL,            -- absolute end
    ended_at     BIGINT
);
CREATE INDEX console_sessions_by_subject ON console_sessions (subject);
CREATE INDEX console_sessions_by_expiry ON console_sessions (expires_at);

-- Approvals that need not be asked again, for trusted clients only, in one browser.
CREATE TABLE remembered_consents (
    id            TEXT PRIMARY KEY NOT NULL,
    token_hash    TEXT NOT NULL,             -- hash of the cookie
    subject       TEXT NOT NULL,             -- who approved; somebody else is asked
    client_id     TEXT NOT NULL,
    redirect_uri  TEXT NOT NULL,             -- byte for byte
    resource      TEXT NOT NULL,
    scopes        TEXT NOT NULL,             -- as approved; one more asks again
    metadata_hash TEXT NOT NULL,             -- of what the client had registered
    created_at    BIGINT NOT NULL,
    expires_at    BIGINT NOT NULL
);
CREATE INDEX remembered_consents_by_subject ON remembered_consents (subject);
CREATE INDEX remembered_consents_by_client ON remembered_consents (client_id);
CREATE INDEX remembered_consents_by_expiry ON remembered_consents (expires_at);

-- People who have signed in and wait until an administrator has decided about the client.
CREATE TABLE held_logins (
    id           TEXT PRIMARY KEY NOT NULL,
    token_hash   TEXT NOT NULL,              -- hash of the cookie of the waiting browser
    client_id    TEXT NOT NULL,
    subject      TEXT NOT NULL,
    login        TEXT NOT NULL,              -- request, person and tokens; JSON, sealed
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    ended_at     BIGINT
);
CREATE INDEX held_logins_by_client ON held_logins (client_id);
CREATE INDEX held_logins_by_expiry ON held_logins (expires_at);
