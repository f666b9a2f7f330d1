-- Tool calls that the gateway refused for want of a scope: when the client comes back for the scope and
-- the rules do not allow it, the person is told, and the client is not sent round in circles.
CREATE TABLE step_ups (
    grant_id   TEXT NOT NULL,                -- the grant whose token lacked the scopes
    needed     TEXT NOT NULL,                -- the scopes that were needed, parted by spaces
    refused_at BIGINT NOT NULL,              -- when last, Unix seconds
    PRIMARY KEY (grant_id, needed)
);
