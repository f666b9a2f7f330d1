-- The replicas that are running, as each of them reports itself a few times a minute. A row that was not
-- renewed for some minutes goes. `configuration` has a keyed hash for each part of what is written there.
CREATE TABLE replicas (
    id            TEXT PRIMARY KEY,
    version       TEXT NOT NULL,
    configuration TEXT NOT NULL,
    clock_ahead   BIGINT NOT NULL, -- seconds that its clock is ahead of the database's; negative: behind
    reported_at   BIGINT NOT NULL  -- by the clock of the database, which all of them can read
);
