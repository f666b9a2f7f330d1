-- From which network address somebody approved: so many logins may be on their way from one. Goes with
-- the row; NULL where the address is not one customer's.
ALTER TABLE logins ADD COLUMN network TEXT;
CREATE INDEX logins_pending_by_network ON logins (network, expires_at)
    WHERE ended_at IS NULL AND network IS NOT NULL;

-- From which part of the network a client registered: where the registry is full, whoever has least in it
-- pushes out the latest of whoever has most. The address itself is not kept.
ALTER TABLE clients ADD COLUMN network TEXT;
CREATE INDEX clients_unused_by_network ON clients (network, last_registered_at, id)
    WHERE kind = 'registered' AND last_used_at IS NULL AND network IS NOT NULL;
