-- The scopes that the challenge said to ask for: a request for other scopes does not answer it.
ALTER TABLE step_ups ADD COLUMN asked TEXT NOT NULL DEFAULT '';
