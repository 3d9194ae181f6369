-- An access key may end by itself.
ALTER TABLE access_key ADD COLUMN expires_ms INTEGER;
