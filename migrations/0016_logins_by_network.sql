-- From which network address somebody approved: so many logins may be on their way from one. Goes with
-- the row; NULL where the address is not one customer's.
ALTER TABLE logins ADD COLUMN network TEXT;
CREATE INDEX logins_pending_by_network ON logins (network, expires_at)
    WHERE ended_at IS NULL AND network IS NOT NULL;
