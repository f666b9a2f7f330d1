-- Who trusted a client: what the configuration trusts, the configuration can take back, whatever an
-- administrator has decided about the client since.
ALTER TABLE client_standings ADD COLUMN trusted_by TEXT;
UPDATE client_standings SET trusted_by = changed_by WHERE trusted = 1;
