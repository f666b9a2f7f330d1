-- The schema, in the order of a login. One text for SQLite and PostgreSQL: columns are TEXT or BIGINT,
-- times are Unix seconds unless a column says milliseconds, NULL means absent.
--
-- hash    SHA-256 of a secret under its kind, base64url (src/oauth/secret.rs). It verifies the secret
--         and cannot be used in its place.
-- sealed  AES-256-GCM under a key that is not in this database, bound to table, column and row
--         (src/oauth/sealed.rs). It cannot be read, and cannot be moved to another row.
-- Row ids begin with their creation time, so that new rows land at the end of the index.

-- Facts about this installation. `secret_key_check` is a known text, sealed: opening it proves that the
-- secret key is the one with which this database was made.
CREATE TABLE installation (
    name  TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
);

-- Numbers that would be expensive to count, and watermarks of deleted rows (src/storage/, replay
-- protection). `clients`: registered clients, recounted at every clean-up. `sign_outs`: sign-outs at the
-- identity provider so far; their order must not depend on a clock.
CREATE TABLE counters (
    name  TEXT PRIMARY KEY NOT NULL,
    value BIGINT NOT NULL
);
INSERT INTO counters (name, value) VALUES ('clients', 0), ('sign_outs', 0);

-- Keys that sign access tokens. A key is published first, signs from `signs_from` on, and stays published
-- until the last token that it signed has expired. Two processes that start at the same time agree through
-- UNIQUE (alg, generation).
CREATE TABLE signing_keys (
    kid         TEXT PRIMARY KEY NOT NULL,
    alg         TEXT NOT NULL,               -- ES256 | RS256 | EdDSA
    generation  BIGINT NOT NULL,             -- 1, 2, 3 …: of the keys that may sign, the highest signs
    private_key TEXT NOT NULL,               -- PKCS#8, sealed; empty after the key was retired
    created_at  BIGINT NOT NULL,
    signs_from  BIGINT NOT NULL DEFAULT 0,
    retires_at  BIGINT,                      -- when its last token has expired; NULL: it has no successor
    retired_at  BIGINT,                      -- when it was taken out of the JWK set
    UNIQUE (alg, generation)
);

-- The certificate of our listeners from an ACME server, and the state of its order. One row for each directory,
-- list of names and external account that was ever configured.
CREATE TABLE certificates (
    name         TEXT PRIMARY KEY NOT NULL,  -- hash of these three
    content      TEXT,                       -- sealed: chain and private key; NULL: there is none yet
    version      BIGINT NOT NULL,            -- 1, 2, 3 …: one more with each renewal; 0: there is none yet
    expires_at   BIGINT NOT NULL,            -- 0: there is none yet
    leased_until BIGINT NOT NULL,            -- a replica orders it until then; 0: none
    next_at      BIGINT NOT NULL,            -- no further attempt before that
    failures     BIGINT NOT NULL             -- failed attempts in a row
);

-- What an order needs: the account at the ACME server, and for minutes the answers to its challenges, which any
-- replica may have to give.
CREATE TABLE acme_secrets (
    name       TEXT PRIMARY KEY NOT NULL,    -- account/… or challenge/…, and a hash of what it is for
    content    TEXT NOT NULL,                -- sealed
    expires_at BIGINT                        -- of a challenge; NULL: an account
);

-- Servers that share a PostgreSQL database, as each reported itself last.
CREATE TABLE replicas (
    id            TEXT PRIMARY KEY NOT NULL,
    version       TEXT NOT NULL,
    configuration TEXT NOT NULL,             -- fingerprint: replicas with another one are reported
    clock_ahead   BIGINT NOT NULL,           -- seconds ahead of the database's clock; negative: behind
    reported_at   BIGINT NOT NULL            -- by the database's clock, which all replicas can read
);

-- Clients of every kind. A client that is configured, or that publishes its metadata at its own id, gets
-- its row with its first grant.
CREATE TABLE clients (
    id                 TEXT PRIMARY KEY NOT NULL,
    kind               TEXT NOT NULL DEFAULT 'registered', -- registered | created | configured | document
    identity           TEXT UNIQUE,          -- hash of a public client's metadata: equal metadata, same client
    secret_hash        TEXT,                 -- hash; confidential clients only
    management_hash    TEXT,                 -- hash of the registration access token (RFC 7592)
    metadata           TEXT NOT NULL,        -- JSON; of a metadata document the last valid copy
    name_key           TEXT,                 -- lower-case name in hexadecimal, to sort by in any collation
    search_text        TEXT,                 -- lower-case name and host of the first redirect URI, to search in
    annotation         TEXT,                 -- owner and note, by administrators; JSON, sealed
    network            TEXT,                 -- network prefix from which it registered, for evictions
    issued_at          BIGINT NOT NULL,
    last_registered_at BIGINT NOT NULL,      -- moved by equal registrations and by reads of the document
    last_used_at       BIGINT                -- last code redeemed or token refreshed; NULL: never
);
CREATE INDEX clients_by_use ON clients (last_used_at, last_registered_at);
-- A search by any part of a name goes through this index in the order of the list.
CREATE INDEX clients_by_issue ON clients (issued_at, id, search_text);
CREATE INDEX clients_by_name ON clients (name_key, id);
CREATE INDEX clients_by_last_use ON clients ((COALESCE(last_used_at, 0)), id);
CREATE INDEX clients_unused_by_network ON clients (network, last_registered_at, id)
    WHERE kind = 'registered' AND last_used_at IS NULL AND network IS NOT NULL;

-- Administrators' decisions about clients. No row: no decision.
CREATE TABLE client_reviews (
    client_id    TEXT PRIMARY KEY NOT NULL,
    state        TEXT NOT NULL,              -- none | waiting | approved | refused
    approved_as  TEXT,                       -- digest of the metadata that was approved; other metadata is not
    trusted      BIGINT NOT NULL,            -- 1: people's consents are remembered
    trusted_as   TEXT,                       -- digest of the metadata that was trusted
    trusted_by   TEXT,                       -- `configuration`, or an administrator
    blocked      BIGINT NOT NULL,            -- 1: no authorization, no token
    requested_at BIGINT,                     -- when a person first waited for the approval
    requested_by TEXT,                       -- our sub of that person
    changed_at   BIGINT NOT NULL,
    changed_by   TEXT NOT NULL
);
CREATE INDEX client_reviews_waiting ON client_reviews (changed_at, client_id, state) WHERE state = 'waiting';
CREATE INDEX client_reviews_refused ON client_reviews (changed_at, client_id) WHERE state = 'refused';
CREATE INDEX client_reviews_blocked ON client_reviews (changed_at, client_id) WHERE blocked = 1;
CREATE INDEX client_reviews_trusted ON client_reviews (changed_at, client_id) WHERE trusted = 1;

-- Websites whose clients need no review: a client whose redirect URIs all lead there is approved at once.
CREATE TABLE approval_patterns (
    host       TEXT PRIMARY KEY NOT NULL,    -- with the port, unless it is 443
    until_at   BIGINT,                       -- from then on it approves no client; NULL: no end
    approved   BIGINT NOT NULL,              -- how many clients it has approved
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL                 -- our sub of an administrator, or shell
);

-- Clients and people that are refused at every step, whatever they hold.
CREATE VIEW denied_clients AS
    SELECT client_id FROM client_reviews WHERE blocked = 1 OR state = 'refused';

-- Consent pages that were decided. Each page decides once.
CREATE TABLE consents (
    id         TEXT PRIMARY KEY NOT NULL,    -- the id sealed in the page
    decision   TEXT NOT NULL,                -- approved | denied
    expires_at BIGINT NOT NULL               -- when the page has expired and the row may go
);

-- Consents that people gave to trusted clients, so that they are not asked again.
CREATE TABLE remembered_consents (
    id            TEXT PRIMARY KEY NOT NULL,
    token_hash    TEXT NOT NULL,             -- hash of the cookie
    subject       TEXT NOT NULL,             -- the person who consented; another person is asked
    client_id     TEXT NOT NULL,
    redirect_uri  TEXT NOT NULL,             -- byte for byte
    resource      TEXT NOT NULL,
    scopes        TEXT NOT NULL,             -- as consented; any other scope asks again
    upstream      TEXT NOT NULL DEFAULT '',  -- services that the MCP server uses as the person, as shown: `github github:repo`; more asks again
    metadata_hash TEXT NOT NULL,             -- of the client's metadata at that time
    created_at    BIGINT NOT NULL,
    expires_at    BIGINT NOT NULL
);
CREATE INDEX remembered_consents_by_subject ON remembered_consents (subject);
CREATE INDEX remembered_consents_by_client ON remembered_consents (client_id);
CREATE INDEX remembered_consents_by_expiry ON remembered_consents (expires_at);

-- Logins that are pending at the identity provider.
CREATE TABLE logins (
    id           TEXT PRIMARY KEY NOT NULL,
    state_hash   TEXT NOT NULL,              -- hash of the state sent to the identity provider
    binding_hash TEXT NOT NULL,              -- hash of the cookie of the browser that approved
    client_id    TEXT NOT NULL,
    request      TEXT NOT NULL,              -- the approved request, nonce and PKCE verifier; JSON, sealed
    network      TEXT,                       -- network prefix of the person, for the quota
    sign_outs    BIGINT NOT NULL DEFAULT 0,  -- value of the counter when the login began
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    ended_at     BIGINT                      -- came back, or was ended by a wrong browser
);
CREATE INDEX logins_by_expiry ON logins (expires_at);
CREATE INDEX logins_pending ON logins (expires_at) WHERE ended_at IS NULL;
CREATE INDEX logins_pending_by_network ON logins (network, expires_at)
    WHERE ended_at IS NULL AND network IS NOT NULL;

-- Logins of people who wait until an administrator approves the client.
CREATE TABLE logins_awaiting_approval (
    id           TEXT PRIMARY KEY NOT NULL,
    token_hash   TEXT NOT NULL,              -- hash of the cookie of the waiting browser
    client_id    TEXT NOT NULL,
    subject      TEXT NOT NULL,
    resource     TEXT NOT NULL,
    session_id   TEXT NOT NULL,              -- the upstream session; when it ends, the waiting ends
    login        TEXT NOT NULL,              -- request and person; JSON, sealed
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    ended_at     BIGINT
);
CREATE INDEX logins_awaiting_approval_by_client ON logins_awaiting_approval (client_id);
CREATE INDEX logins_awaiting_approval_by_expiry ON logins_awaiting_approval (expires_at);

-- People who have signed in. Names and addresses are in upstream_sessions, sealed.
CREATE TABLE people (
    subject          TEXT PRIMARY KEY NOT NULL, -- our sub
    upstream         TEXT NOT NULL,          -- key of the identity provider; our sub begins with it
    issuer           TEXT NOT NULL,
    upstream_subject TEXT NOT NULL,          -- the person's id at the issuer
    words_digest     TEXT NOT NULL DEFAULT '', -- of the words in people_words, to see whether they changed
    first_seen_at    BIGINT NOT NULL,
    last_seen_at     BIGINT NOT NULL,        -- last login
    blocked_at       BIGINT,
    blocked_by       TEXT
);
CREATE INDEX people_by_last_seen ON people (last_seen_at, subject);
CREATE INDEX people_blocked ON people (last_seen_at, subject) WHERE blocked_at IS NOT NULL;

CREATE VIEW denied_people AS SELECT subject FROM people WHERE blocked_at IS NOT NULL;

-- Index of the words in names and addresses, to search people without storing either in the clear.
CREATE TABLE people_words (
    word    TEXT NOT NULL,                   -- HMAC-SHA-256 of the lower-case word
    subject TEXT NOT NULL,
    PRIMARY KEY (word, subject)
);
CREATE INDEX people_words_by_subject ON people_words (subject);

-- People refused by the rules: the last refusal of each at each MCP server, with what the identity
-- provider sent. A person who was never let in has no row in people.
CREATE TABLE refused_people (
    subject    TEXT NOT NULL,                -- our sub
    resource   TEXT NOT NULL,
    client_id  TEXT NOT NULL,
    reference  TEXT,                         -- the reference that the page showed
    person     TEXT NOT NULL,                -- name, e-mail, facts, and the scopes asked for; JSON, sealed
    first_at   BIGINT NOT NULL,
    refused_at BIGINT NOT NULL,
    times      BIGINT NOT NULL,              -- refusals that this row counts
    PRIMARY KEY (subject, resource)
);
CREATE INDEX refused_people_by_time ON refused_people (refused_at, subject, resource);
CREATE INDEX refused_people_by_resource ON refused_people (resource, refused_at, subject);

-- Sessions of people at the identity provider.
CREATE TABLE upstream_sessions (
    id            TEXT PRIMARY KEY NOT NULL, -- hash of issuer, subject and sid
    upstream      TEXT NOT NULL,             -- key of the identity provider
    issuer        TEXT NOT NULL,
    subject       TEXT NOT NULL,             -- the person's id at the issuer
    claim_sub     TEXT,                      -- the claim sub, where logout messages may use it instead
    sid           TEXT NOT NULL,             -- '-' if the provider names none
    state         TEXT NOT NULL,             -- active | dead
    end_reason    TEXT,
    person        TEXT NOT NULL,             -- name, e-mail and the facts that rules read; JSON, sealed
    tokens        TEXT NOT NULL,             -- access, refresh and ID token of the provider; JSON, sealed
    version       BIGINT NOT NULL,           -- grows with every change of the tokens
    lease_owner   TEXT,                      -- the server that is asking the provider now
    lease_until   BIGINT,
    last_ok_at    BIGINT NOT NULL,           -- when the provider last confirmed the session
    facts_read_at BIGINT NOT NULL,           -- when all facts that rules may read were last read
    reused_facts  TEXT NOT NULL DEFAULT '',  -- kinds of facts that were kept from an earlier response
    created_at    BIGINT NOT NULL,
    UNIQUE (issuer, subject, sid)
);

-- Sign-outs at the identity provider, for as long as a login may take: a login that began before one of
-- them is refused.
CREATE TABLE upstream_sign_outs (
    id         TEXT PRIMARY KEY NOT NULL,    -- HMAC of the issuer and a session id, a subject or an address
    number     BIGINT NOT NULL,              -- of the latest such sign-out: value of the counter `sign_outs`
    expires_at BIGINT NOT NULL               -- when no earlier login can come back any more
);
CREATE INDEX upstream_sign_outs_by_expiry ON upstream_sign_outs (expires_at);

-- Authorization codes.
CREATE TABLE authorization_codes (
    id               TEXT PRIMARY KEY NOT NULL,
    code_hash        TEXT NOT NULL,          -- hash
    client_id        TEXT NOT NULL,
    redirect_uri     TEXT NOT NULL,          -- as presented, including the port
    code_challenge   TEXT NOT NULL,          -- S256
    resource         TEXT NOT NULL,
    consented_scopes TEXT NOT NULL,          -- to which the person consented
    scopes           TEXT NOT NULL,          -- what the rules granted of them at the login
    session_id       TEXT NOT NULL REFERENCES upstream_sessions (id),
    subject          TEXT NOT NULL,
    created_at       BIGINT NOT NULL,
    expires_at       BIGINT NOT NULL,
    failures         BIGINT NOT NULL,        -- failed attempts; too many of them end the code
    redeemed_at      BIGINT,                 -- redeemed, or ended by a revocation
    grant_id         TEXT,                   -- the grant it became; a replay revokes it
    trace            TEXT                    -- the trace of the sign-in, if it is recorded (telemetry)
);
CREATE INDEX authorization_codes_by_session ON authorization_codes (session_id);
-- A code that became a grant stays as long as the grant does, and is found through it.
CREATE INDEX authorization_codes_by_expiry ON authorization_codes (expires_at) WHERE grant_id IS NULL;

-- Grants: what a client may do for a person at one MCP server. The gateway's revocation check reads them.
CREATE TABLE grants (
    id               TEXT PRIMARY KEY NOT NULL,
    kind             TEXT NOT NULL DEFAULT 'person', -- person; further kinds have no upstream session
    client_id        TEXT NOT NULL,
    session_id       TEXT REFERENCES upstream_sessions (id), -- NULL: not granted through a sign-in
    subject          TEXT NOT NULL,          -- our sub: the person as MCP servers see them
    resource         TEXT NOT NULL,          -- the only audience
    consented_scopes TEXT NOT NULL,          -- rules can only narrow them
    created_at       BIGINT NOT NULL,
    expires_at       BIGINT NOT NULL,        -- absolute end; no refresh moves it
    last_used_at     BIGINT NOT NULL,
    last_used_from   TEXT,                   -- address of the last request
    revoked_at       BIGINT,
    end_reason       TEXT,
    CHECK (kind <> 'person' OR session_id IS NOT NULL)
);
CREATE INDEX grants_by_session ON grants (session_id);
CREATE INDEX grants_by_end ON grants ((COALESCE(revoked_at, expires_at)));
CREATE INDEX grants_by_client ON grants (client_id, id);
CREATE INDEX grants_by_subject ON grants (subject, id);
CREATE INDEX grants_by_resource ON grants (resource, id);
CREATE INDEX grants_live ON grants (id, expires_at, revoked_at) WHERE revoked_at IS NULL;
CREATE INDEX grants_live_by_client ON grants (client_id, expires_at, revoked_at) WHERE revoked_at IS NULL;
CREATE INDEX grants_live_by_subject ON grants (subject, client_id, expires_at, revoked_at)
    WHERE revoked_at IS NULL;

-- Refresh tokens. Each rotation adds a row.
CREATE TABLE refresh_tokens (
    id           TEXT PRIMARY KEY NOT NULL,
    token_hash   TEXT NOT NULL,              -- hash
    grant_id     TEXT NOT NULL REFERENCES grants (id),
    parent_id    TEXT UNIQUE,                -- the token it replaced; NULL for the first of a grant
    issued_at    BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,            -- idle end
    used_at      BIGINT,                     -- when it was rotated
    successor_id TEXT,
    successor    TEXT,                       -- the successor, sealed under this token: only its holder can open it
    replays      BIGINT NOT NULL             -- how often the successor was handed out again
);
CREATE INDEX refresh_tokens_by_grant ON refresh_tokens (grant_id);

-- One-time values that were used: ids (`jti`) of client assertions and of logout tokens, sign-ins to our
-- own pages. A row stays until the value would have expired anyway.
CREATE TABLE replay_guard (
    purpose    TEXT NOT NULL,                -- client_assertion | logout_token | sign_in
    id         TEXT NOT NULL,                -- hash of the issuer and the value
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (purpose, id)
);
CREATE INDEX replay_guard_by_expiry ON replay_guard (purpose, expires_at);

-- Further services that people connected, with their tokens. One row for each person and service.
CREATE TABLE connections (
    id               TEXT PRIMARY KEY NOT NULL,
    subject          TEXT NOT NULL,          -- our sub
    name             TEXT NOT NULL,          -- of the [[connection]]
    provider_key     TEXT NOT NULL,          -- hash of client id and token endpoint; another one: of no use
    account_key_hash TEXT,                   -- HMAC of the person's id at the service; NULL: not known
    account_label    TEXT,                   -- the person's name at the service, sealed
    scopes           TEXT NOT NULL,          -- granted, sorted
    tokens           TEXT NOT NULL,          -- access and refresh token; JSON, sealed, bound to the row's person
                                             -- and service
    access_until     BIGINT NOT NULL,        -- end of the access token; 0: it does not expire
    version          BIGINT NOT NULL,        -- grows with every change of the tokens
    lease_owner      TEXT,                   -- the server that is asking the service now
    lease_until      BIGINT,
    state            TEXT NOT NULL,          -- active | broken: the person has to connect it again
    reason           TEXT,                   -- why it is broken
    state_at         BIGINT NOT NULL,        -- when the state began
    created_at       BIGINT NOT NULL,        -- when this account was connected
    used_at          BIGINT,                 -- last use, to the minute; NULL: never
    UNIQUE (subject, name)
);
CREATE INDEX connections_by_name ON connections (name, id);
-- Has all that counts the connections to be made again: no row with its tokens is read for it.
CREATE INDEX connections_by_key ON connections (name, provider_key, state);
CREATE INDEX connections_broken ON connections (state_at, name) WHERE state = 'broken';

-- Connections that are being made in a browser.
CREATE TABLE connection_attempts (
    id             TEXT PRIMARY KEY NOT NULL,
    state_hash     TEXT NOT NULL,            -- hash of the state sent to the service
    binding_hash   TEXT NOT NULL,            -- hash of the browser's cookie
    subject        TEXT NOT NULL,            -- our sub of the person who began it
    web_session_id TEXT NOT NULL,            -- the session at our pages
    name           TEXT NOT NULL,            -- of the [[connection]]
    scopes         TEXT NOT NULL,            -- asked for, sorted
    resource       TEXT NOT NULL,            -- the MCP server that it is for; empty: none
    request        TEXT NOT NULL,            -- PKCE verifier, nonce and where to return; JSON, sealed
    created_at     BIGINT NOT NULL,
    expires_at     BIGINT NOT NULL,
    used_at        BIGINT,                   -- came back, or was ended by a wrong browser or person
    finished_at    BIGINT                    -- a connection was stored from it
);
CREATE INDEX connection_attempts_by_subject ON connection_attempts (subject, expires_at);
CREATE INDEX connection_attempts_by_expiry ON connection_attempts (expires_at);

-- Tokens that wait to be revoked at their services. A row without tokens is a mark: its id is that of an
-- upstream session that may have lost its last grant (src/storage/connections/sessions.rs).
CREATE TABLE token_revocations (
    id           TEXT PRIMARY KEY NOT NULL,
    connection   TEXT NOT NULL,              -- name of the [[connection]]; empty: the identity provider
    provider_key TEXT NOT NULL,              -- that of the connection; the issuer of the identity provider
    owner        TEXT NOT NULL DEFAULT '',   -- our sub; of a sign-in its upstream session; empty: another account
                                             -- has replaced this one
    tokens       TEXT NOT NULL,              -- JSON, sealed; empty: a mark
    due_at       BIGINT NOT NULL,            -- the next attempt
    attempts     BIGINT NOT NULL,
    leased_until BIGINT NOT NULL,            -- a replica revokes them until then; 0: none
    created_at   BIGINT NOT NULL
);
CREATE INDEX token_revocations_by_due ON token_revocations (due_at);

-- Scopes that a client lacked and was told to ask for (step-up authorization).
CREATE TABLE scope_challenges (
    grant_id      TEXT NOT NULL,             -- the grant whose token lacked the scopes
    needed        TEXT NOT NULL,             -- the scopes that the call needed
    challenged    TEXT NOT NULL,             -- the scopes that the challenge named
    challenged_at BIGINT NOT NULL,           -- time of the last challenge
    PRIMARY KEY (grant_id, needed)
);

-- Tasks that MCP servers run for people (MCP tasks), so that only their creators can ask for them.
CREATE TABLE mcp_tasks (
    task_hash  TEXT PRIMARY KEY NOT NULL,    -- hash of the MCP server and the task's id
    subject    TEXT NOT NULL,                -- the person for whom it was created
    client_id  TEXT NOT NULL,
    scopes     TEXT NOT NULL,                -- the scopes that the call needed
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL               -- end of the task's time to live
);
CREATE INDEX mcp_tasks_by_subject ON mcp_tasks (subject, created_at);
CREATE INDEX mcp_tasks_by_expiry ON mcp_tasks (expires_at);

-- Who used what: calls through the gateway, as sums. Never their arguments or results. A key is a person, a
-- client, an MCP server, and a tool (or a method, where no tool was called).
CREATE TABLE usage_keys (
    id        BIGINT PRIMARY KEY NOT NULL,   -- from an HMAC of the columns below: every replica computes the same
    server    BIGINT NOT NULL,               -- from an HMAC of `resource`
    subject   TEXT NOT NULL,
    client_id TEXT NOT NULL,
    resource  TEXT NOT NULL,
    kind      TEXT NOT NULL,                 -- tool | method
    name_hash TEXT NOT NULL,                 -- HMAC of kind and name, to find a tool by its name
    name      TEXT NOT NULL,                 -- as the client named it, sealed; empty: one of many unknown ones
    last_day  BIGINT NOT NULL                -- of the latest call, in days since 1970 (UTC)
);
CREATE INDEX usage_keys_by_subject ON usage_keys (subject);
CREATE INDEX usage_keys_by_client ON usage_keys (client_id);
CREATE INDEX usage_keys_by_name ON usage_keys (name_hash);
CREATE INDEX usage_keys_by_last_day ON usage_keys (last_day);

-- Calls of one key in one hour, by outcome.
CREATE TABLE usage_hours (
    hour          BIGINT NOT NULL,           -- hours since 1970 (UTC)
    usage_key     BIGINT NOT NULL,           -- usage_keys.id
    server        BIGINT NOT NULL,           -- the server of that key
    answered      BIGINT NOT NULL,           -- the MCP server answered with a result
    tool_errors   BIGINT NOT NULL,           -- with a result that says the tool failed
    errors        BIGINT NOT NULL,           -- with an error
    scope_refused BIGINT NOT NULL,           -- refused: scopes were missing
    refused       BIGINT NOT NULL,           -- refused for another reason
    failed        BIGINT NOT NULL,           -- the MCP server did not answer, or not in a usable way
    unanswered    BIGINT NOT NULL,           -- the client left, or its grant ended, before the answer
    PRIMARY KEY (hour, usage_key)
);

-- The same by day, so that a page about a month does not add up hours. The index has all columns, in the
-- order in which the sums of each key are made.
CREATE TABLE usage_days (
    usage_key     BIGINT NOT NULL,
    day           BIGINT NOT NULL,           -- days since 1970 (UTC)
    server        BIGINT NOT NULL,
    last_hour     BIGINT NOT NULL,           -- of the latest call
    answered      BIGINT NOT NULL,
    tool_errors   BIGINT NOT NULL,
    errors        BIGINT NOT NULL,
    scope_refused BIGINT NOT NULL,
    refused       BIGINT NOT NULL,
    failed        BIGINT NOT NULL,
    unanswered    BIGINT NOT NULL,
    PRIMARY KEY (usage_key, day)
);
CREATE INDEX usage_days_sums ON usage_days (usage_key, day, server, last_hour, answered, tool_errors,
    errors, scope_refused, refused, failed, unanswered);
CREATE INDEX usage_days_by_day ON usage_days (day);

-- The same by hour for all keys of an MCP server, for charts.
CREATE TABLE usage_of_servers (
    hour          BIGINT NOT NULL,
    server        BIGINT NOT NULL,
    answered      BIGINT NOT NULL,
    tool_errors   BIGINT NOT NULL,
    errors        BIGINT NOT NULL,
    scope_refused BIGINT NOT NULL,
    refused       BIGINT NOT NULL,
    failed        BIGINT NOT NULL,
    unanswered    BIGINT NOT NULL,
    PRIMARY KEY (hour, server)
);

-- Sessions at our own pages.
CREATE TABLE web_sessions (
    id           TEXT PRIMARY KEY NOT NULL,
    token_hash   TEXT NOT NULL,              -- hash of the cookie
    realm        TEXT NOT NULL,              -- admin | account: one is never valid for the other
    subject      TEXT NOT NULL,
    session_id   TEXT NOT NULL,              -- the upstream session; when it ends, this one ends
    signed_in_at BIGINT NOT NULL,            -- last login; destructive actions require a recent one
    seen_at      BIGINT NOT NULL,            -- last request, to the minute
    expires_at   BIGINT NOT NULL,            -- absolute end
    ended_at     BIGINT
);
CREATE INDEX web_sessions_by_subject ON web_sessions (subject);
CREATE INDEX web_sessions_by_session ON web_sessions (session_id);
CREATE INDEX web_sessions_by_expiry ON web_sessions (expires_at);

-- Messages to the targets of [[notify]] that are not delivered yet.
CREATE TABLE notifications (
    id           TEXT PRIMARY KEY NOT NULL,  -- the same for every attempt to deliver it
    target       TEXT NOT NULL,              -- the target's name in the configuration
    event        TEXT NOT NULL,              -- the kind of message
    open_slot    TEXT UNIQUE,                -- target and kind while further occurrences may join it; NULL after
                                             -- the first attempt
    content      TEXT NOT NULL,              -- sealed: the first occurrences, with ids and names
    occurrences  BIGINT NOT NULL,            -- all of them
    created_at   BIGINT NOT NULL,
    due_at       BIGINT NOT NULL,            -- the next attempt
    attempts     BIGINT NOT NULL,
    leased_until BIGINT NOT NULL             -- a replica is delivering it until then; 0: none
);
CREATE INDEX notifications_by_due ON notifications (due_at);
CREATE INDEX notifications_by_target ON notifications (target, id);

-- What became of the messages of one kind to one target.
CREATE TABLE notification_targets (
    target       TEXT NOT NULL,
    event        TEXT NOT NULL,              -- the kind; empty: all kinds
    next_at      BIGINT NOT NULL,            -- no further message of this kind before that
    delivered_at BIGINT,                     -- last delivery
    failed_at    BIGINT,                     -- last failure
    error        TEXT,                       -- sealed: its reason
    dropped      BIGINT NOT NULL,            -- dropped messages that no delivered message has told of
    PRIMARY KEY (target, event)
);

-- The audit trail. Each line is stored in the transaction of its change and chained shortly after.
CREATE TABLE audit_events (
    id         TEXT PRIMARY KEY NOT NULL,    -- begins with its time; later lines sort later
    at         BIGINT NOT NULL,              -- Unix milliseconds
    event      TEXT NOT NULL,                -- what happened, such as code_redeemed
    actor      TEXT NOT NULL,                -- client, person, admin <sub>, provider, server, shell
    client_id  TEXT,
    subject    TEXT,                         -- our sub; never a name or an address
    resource   TEXT,
    grant_id   TEXT,
    reference  TEXT,                         -- the reference that an error page showed
    detail     TEXT NOT NULL,                -- everything else: JSON object, no secrets
    seq        BIGINT UNIQUE,                -- 1, 2, 3 …: place in the chain; NULL until it is chained
    mac        TEXT,                         -- HMAC-SHA-256 over the line and the mac before it
    row_mac    TEXT                          -- HMAC-SHA-256 over the line alone, until it is chained; NULL
                                             -- afterwards. 'refused': not stored by a server, never chained
);
CREATE INDEX audit_events_by_client ON audit_events (client_id, id)
    WHERE client_id IS NOT NULL AND seq IS NOT NULL;
CREATE INDEX audit_events_by_subject ON audit_events (subject, id)
    WHERE subject IS NOT NULL AND seq IS NOT NULL;
CREATE INDEX audit_events_by_administrators ON audit_events (id)
    WHERE seq IS NOT NULL AND actor NOT IN ('client', 'person', 'provider', 'server');
CREATE INDEX audit_events_not_routine ON audit_events (id)
    WHERE seq IS NOT NULL
      AND event NOT IN ('code_redeemed', 'consent_remembered', 'refresh_grace_replayed', 'refresh_rotated', 'upstream_token_exchanged');
CREATE INDEX audit_events_by_event ON audit_events (event, id, at, seq) WHERE seq IS NOT NULL;
CREATE INDEX audit_events_by_reference ON audit_events (reference)
    WHERE reference IS NOT NULL AND seq IS NOT NULL;
CREATE INDEX audit_events_by_grant ON audit_events (grant_id, id)
    WHERE grant_id IS NOT NULL AND seq IS NOT NULL;
CREATE INDEX audit_events_anonymous ON audit_events (seq)
    WHERE seq IS NOT NULL AND subject IS NULL AND grant_id IS NULL AND actor IN ('client', 'person');

-- Runs of lines that were removed because of the trail's size. The chain continues after them.
CREATE TABLE audit_gaps (
    first_seq BIGINT PRIMARY KEY NOT NULL,
    last_seq  BIGINT NOT NULL,
    line_mac  TEXT NOT NULL,                 -- mac of the last line of the run
    mac       TEXT NOT NULL                  -- HMAC-SHA-256 over the three: only a server can make a gap
);
