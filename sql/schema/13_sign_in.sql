-- Sign-in with tokens of an OIDC issuer: whom the farm trusts, with which public keys, and which tokens are in force.
-- A token is verified in here, never on a sidecar's word: a stolen gateway login can sign nobody in.

CREATE TABLE odin.issuers (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  issuer text NOT NULL UNIQUE CHECK (issuer ~ '^(https://|http://(127\.0\.0\.1|localhost)[:/])[^[:space:]]+$'),
  audiences text[] NOT NULL CHECK (cardinality(audiences) > 0),
  jwks_url text CHECK (jwks_url ~ '^(https://|http://(127\.0\.0\.1|localhost)[:/])[^[:space:]]+$'),
  subject_claim text NOT NULL DEFAULT 'sub' CHECK (subject_claim <> ''),
  scope_claim text NOT NULL DEFAULT 'scope' CHECK (scope_claim <> ''),
  scope_map jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(scope_map) = 'object'),
  default_scopes text[] CHECK (cardinality(default_scopes) > 0),
  algorithms text[] NOT NULL DEFAULT '{RS256,PS256,ES256,EdDSA}'
    CHECK (cardinality(algorithms) > 0 AND algorithms <@ '{RS256,RS384,RS512,PS256,PS384,PS512,ES256,ES384,EdDSA}'),
  active boolean NOT NULL DEFAULT true,
  trusted_by text NOT NULL,
  trusted_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE odin.issuers IS 'OIDC issuers whose tokens sign people in. Written by odin.trust_issuer() and odin.distrust_issuer().';
COMMENT ON COLUMN odin.issuers.audiences IS 'A token must be for one of these: the farm''s MCP address, or the client id the issuer knows it by.';
COMMENT ON COLUMN odin.issuers.scope_map IS 'What a word of the token''s scope claim grants here: {"farm.write": ["agent:read", "agent:write"]}. The farm''s own scopes mean themselves.';
COMMENT ON COLUMN odin.issuers.default_scopes IS 'What a token without any scope known here grants; NULL: it is refused.';
GRANT SELECT ON odin.issuers TO odin_admin;

CREATE TABLE odin.issuer_keys (
  issuer_id bigint PRIMARY KEY REFERENCES odin.issuers ON DELETE CASCADE,
  keys jsonb,
  fetched_at timestamptz,
  wanted_at timestamptz,
  tried_at timestamptz,
  ended_at timestamptz,
  problem text
);
COMMENT ON TABLE odin.issuer_keys IS 'Public keys of the issuers (JWKS), as a worker fetched them, and how its last try ended.';
GRANT SELECT ON odin.issuer_keys TO odin_admin;

ALTER TABLE odin_private.keys ADD COLUMN issuer_id bigint REFERENCES odin.issuers, ADD COLUMN subject text,
  ADD CONSTRAINT keys_sign_in CHECK ((issuer_id IS NULL) = (subject IS NULL));
CREATE UNIQUE INDEX keys_subject ON odin_private.keys (issuer_id, subject) WHERE revoked_at IS NULL;
COMMENT ON COLUMN odin_private.keys.subject IS 'Not a key but a person of an issuer: every token of his is good for it, as long as it is in force.';

-- Losing it in a crash only means that tokens are verified once more.
CREATE UNLOGGED TABLE odin_private.sign_ins (
  hash bytea PRIMARY KEY CHECK (length(hash) = 32),
  key_id bigint NOT NULL REFERENCES odin_private.keys ON DELETE CASCADE,
  scopes text[] NOT NULL CHECK (cardinality(scopes) > 0),
  expires_at timestamptz NOT NULL
);
CREATE INDEX sign_ins_key ON odin_private.sign_ins (key_id);
CREATE INDEX sign_ins_expiry ON odin_private.sign_ins (expires_at);
COMMENT ON TABLE odin_private.sign_ins IS 'Verified tokens in force, by hash of their hash, with what each grants.';
