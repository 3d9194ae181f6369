-- What a copy of the service is, as JSON: one of another service does not join. Empty: not said.
ALTER TABLE service_copy ADD COLUMN identity TEXT NOT NULL DEFAULT '';
