-- What a decision about a client was about: a digest of the client as it was then (name, home page,
-- redirect URIs, how it proves itself, keys). A client that is different now was not decided about.
ALTER TABLE client_standings ADD COLUMN approved_as TEXT;
ALTER TABLE client_standings ADD COLUMN trusted_as TEXT;

-- Clients that are published at their own id, or stand in the configuration, could change until now
-- without anybody being asked again, so what was decided about them before says nothing. Registered ones
-- lost their decisions whenever they changed; the configuration vouches for its clients itself.
DELETE FROM remembered_consents WHERE client_id IN
    (SELECT client_id FROM client_standings
     WHERE trusted = 1 AND COALESCE(trusted_by, '') <> 'configuration'
       AND (client_id LIKE 'https://%' OR client_id IN (SELECT id FROM clients WHERE kind IN ('document', 'configured'))));
UPDATE client_standings SET trusted = 0, trusted_by = NULL
    WHERE trusted = 1 AND COALESCE(trusted_by, '') <> 'configuration'
      AND (client_id LIKE 'https://%' OR client_id IN (SELECT id FROM clients WHERE kind IN ('document', 'configured')));
UPDATE client_standings SET approval = 'none'
    WHERE approval = 'approved'
      AND (client_id LIKE 'https://%' OR client_id IN (SELECT id FROM clients WHERE kind IN ('document', 'configured')));
