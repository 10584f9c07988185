-- Model sites: the token an org has for each, sealed outside. Nobody in the database can read one.

CREATE TABLE odin_private.source_secrets (
  org_id bigint NOT NULL REFERENCES odin.orgs ON DELETE CASCADE,
  source text NOT NULL CHECK (source IN ('thingiverse')),
  sealed text NOT NULL CHECK (sealed ~ '^sealed:v1:[A-Za-z0-9_-]{40,}$'),
  set_by text NOT NULL,
  set_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (org_id, source)
);
COMMENT ON TABLE odin_private.source_secrets IS 'Tokens for model sites, sealed with a key that only the sidecars hold. Written by set_source_token, read by the worker that asks the site.';

INSERT INTO odin.error_codes(code, sqlstate, status, retriable, meaning, hint) VALUES
  ('source_token_missing', 'OD620', 409, false, 'The org has no token for this model site.', 'An administrator calls set_source_token.'),
  ('source_refused', 'OD621', 502, false, 'The model site did not accept the request.', 'Check the token (set_source_token) and what it may do.'),
  ('source_not_found', 'OD622', 404, false, 'The model site has no such thing or file.', 'Search again; ids are those of the site.');
