-- The trail: every call, every row changed, and the seals over both. Append-only for everybody.
-- No row is ever chained inside a business transaction: that would serialise the farm to its commits.

CREATE TABLE odin.audit_calls (
  id bigint GENERATED ALWAYS AS IDENTITY,
  called_at timestamptz NOT NULL,
  duration_us int NOT NULL,
  role_name text NOT NULL,
  key_id bigint,
  face text NOT NULL,
  client text,
  tool text NOT NULL,
  arguments jsonb NOT NULL,
  -- done, preview, replay, refused, failed, asked or queued. No CHECK: only the dispatcher writes here, and every call would pay for it.
  outcome text NOT NULL,
  code text,
  request_id text,
  idempotency_key text,
  origin bigint NOT NULL,
  xid xid8 NOT NULL,
  PRIMARY KEY (id, called_at)
) PARTITION BY RANGE (called_at);
CREATE INDEX audit_calls_key ON odin.audit_calls (key_id, called_at) WHERE key_id IS NOT NULL;
CREATE INDEX audit_calls_role ON odin.audit_calls (role_name, called_at);
CREATE INDEX audit_calls_seal ON odin.audit_calls (origin, xid);
CREATE INDEX audit_calls_when ON odin.audit_calls USING brin (called_at);
COMMENT ON TABLE odin.audit_calls IS 'Every call, previews and refusals included: who, what with, how it ended. Secrets are masked. Append-only, sealed.';

CREATE TABLE odin.audit_changes (
  id bigint GENERATED ALWAYS AS IDENTITY,
  changed_at timestamptz NOT NULL,
  call_id bigint,
  role_name text NOT NULL,
  org_id bigint,
  table_name text NOT NULL,
  op text NOT NULL CHECK (op IN ('insert', 'update', 'delete')),
  row_key text NOT NULL,
  before jsonb,
  after jsonb,
  origin bigint NOT NULL,
  xid xid8 NOT NULL,
  PRIMARY KEY (id, changed_at)
) PARTITION BY RANGE (changed_at);
CREATE INDEX audit_changes_row ON odin.audit_changes (table_name, row_key, changed_at);
CREATE INDEX audit_changes_call ON odin.audit_changes (call_id) WHERE call_id IS NOT NULL;
CREATE INDEX audit_changes_org ON odin.audit_changes (org_id, changed_at);
CREATE INDEX audit_changes_seal ON odin.audit_changes (origin, xid);
COMMENT ON TABLE odin.audit_changes IS 'Every row changed on the farm''s tables: changed columns before and after, the call it belongs to or the SQL user who typed it.';

CREATE TABLE odin.audit_seals (
  n bigint PRIMARY KEY,
  table_name text NOT NULL CHECK (table_name IN ('audit_calls', 'audit_changes')),
  month date NOT NULL,
  origin bigint NOT NULL,
  from_xid xid8 NOT NULL,
  to_xid xid8 NOT NULL,
  row_count bigint NOT NULL,
  rows_digest bytea NOT NULL,
  digest bytea NOT NULL,
  sealed_at timestamptz NOT NULL DEFAULT now(),
  CHECK (from_xid < to_xid)
);
CREATE INDEX audit_seals_cut ON odin.audit_seals (table_name, origin, to_xid);
COMMENT ON TABLE odin.audit_seals IS 'Seals over committed audit rows, each chained to the one before. Keep copies of digest elsewhere: odin.verify_audit() and a copy prove that nothing was altered.';

CREATE TABLE odin.audit_retired (
  table_name text NOT NULL,
  month date NOT NULL,
  last_seal bigint NOT NULL,
  retired_by text NOT NULL,
  retired_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (table_name, month)
);
COMMENT ON TABLE odin.audit_retired IS 'Months whose partition was detached after sealing; the chain of digests still covers them.';

ALTER TABLE odin.audit_calls ENABLE ROW LEVEL SECURITY;
ALTER TABLE odin.audit_changes ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON odin.audit_calls, odin.audit_changes TO odin_operator;
GRANT SELECT ON odin.audit_seals, odin.audit_retired TO odin_operator;
