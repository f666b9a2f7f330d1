-- The address of the client's last token request: what an administrator looks at who wonders whether it
-- was that person. It goes with the grant.
ALTER TABLE grants ADD COLUMN last_used_from TEXT;
