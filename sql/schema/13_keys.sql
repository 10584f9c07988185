-- Keys, consents and stored answers. The secret of a key is never in the database: the sidecar sends the
-- SHA-256 of what was presented, and the table holds the SHA-256 of that.

CREATE TABLE odin_private.keys (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL CHECK (length(trim(name)) BETWEEN 1 AND 100),
  role_name text NOT NULL,
  prefix text NOT NULL,
  hash bytea NOT NULL UNIQUE CHECK (length(hash) = 32),
  scopes text[] NOT NULL CHECK (cardinality(scopes) > 0),
  toolsets text[],
  allowed_ips inet[],
  rate_per_minute int CHECK (rate_per_minute > 0),
  concurrency int CHECK (concurrency > 0),
  created_at timestamptz NOT NULL DEFAULT now(),
  created_by text NOT NULL,
  expires_at timestamptz,
  revoked_at timestamptz,
  revoked_by text,
  replaces bigint REFERENCES odin_private.keys
);
CREATE INDEX keys_role ON odin_private.keys (role_name);
CREATE INDEX keys_replaces ON odin_private.keys (replaces) WHERE replaces IS NOT NULL;
COMMENT ON TABLE odin_private.keys IS 'Keys of agents and programs. A key runs as its role, narrowed by its scopes. See the view odin.keys.';

CREATE TABLE odin.login_failures (
  minute timestamptz NOT NULL,
  ip inet NOT NULL,
  reason text NOT NULL,
  attempts bigint NOT NULL DEFAULT 1,
  PRIMARY KEY (minute, ip, reason)
);
COMMENT ON TABLE odin.login_failures IS 'Refused keys, counted by minute and address: a stranger must not be able to fill a table. Pruned after 30 days.';
GRANT SELECT ON odin.login_failures TO odin_admin;

CREATE TABLE odin.idempotency (
  role_name text NOT NULL,
  key text NOT NULL CHECK (octet_length(key) BETWEEN 1 AND 255),
  tool text NOT NULL,
  request_hash bytea NOT NULL,
  rights_hash bytea NOT NULL,
  answer jsonb,
  call_id bigint NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  PRIMARY KEY (role_name, key)
);
CREATE INDEX idempotency_expiry ON odin.idempotency (expires_at);
COMMENT ON TABLE odin.idempotency IS 'Answers kept for 24 hours by idempotency key; written in the transaction of the work itself. A NULL answer was too large to keep.';

CREATE TABLE odin.consents (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id bigint REFERENCES odin.orgs,
  role_name text NOT NULL,
  key_id bigint,
  tool text NOT NULL,
  arguments jsonb NOT NULL,
  arguments_hash bytea NOT NULL,
  why text CHECK (length(why) <= 500),
  preview jsonb,
  state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'approved', 'denied', 'used', 'expired')),
  reason text,
  asked_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL DEFAULT now() + interval '1 day',
  decided_by text,
  decided_via text CHECK (decided_via IN ('sql', 'rest', 'elicitation')),
  decided_at timestamptz,
  CHECK ((state IN ('approved', 'denied')) <= (decided_by IS NOT NULL))
);
CREATE UNIQUE INDEX consents_open ON odin.consents (role_name, tool, arguments_hash) WHERE state IN ('pending', 'approved');
CREATE INDEX consents_asked ON odin.consents (role_name, tool, arguments_hash, id DESC);
CREATE INDEX consents_org ON odin.consents (org_id, state);
COMMENT ON TABLE odin.consents IS 'Calls that wait for a person, and what was decided: by whom, when, for how long. Decide with odin.approve_call() or odin.deny_call().';
COMMENT ON COLUMN odin.consents.why IS 'What the caller said it wants this for; reason is what the person said who decided.';
COMMENT ON COLUMN odin.consents.preview IS 'What the call would do, as a preview showed when it was asked for: would_execute and changes, or the error it would end with.';
SELECT odin.guard_table('odin.consents', trail => false);
GRANT SELECT ON odin.consents TO odin_operator;
