-- Quotas: how many jobs, grams or hours somebody may queue per period. Use is counted in the transaction that queues, under the row's lock,
-- so parallel calls cannot pass the limit and a crash cannot lose the count.
CREATE TABLE odin.quotas (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id      bigint NOT NULL REFERENCES odin.orgs,
  role_name   text,
  customer_id bigint,
  metric      text NOT NULL CHECK (metric IN ('jobs','grams','hours')),
  period      text NOT NULL CHECK (period IN ('daily','weekly','monthly','semester')),
  limit_value numeric(14,3) NOT NULL CHECK (limit_value >= 0),
  is_active   boolean NOT NULL DEFAULT true,
  created_at  timestamptz NOT NULL DEFAULT now(),
  updated_at  timestamptz NOT NULL DEFAULT now(),
  UNIQUE (org_id, id),
  CONSTRAINT quotas_key UNIQUE NULLS NOT DISTINCT (org_id, role_name, customer_id, metric, period),
  CONSTRAINT quotas_customer_fk FOREIGN KEY (org_id, customer_id) REFERENCES odin.customers (org_id, id) ON DELETE CASCADE
);
COMMENT ON TABLE odin.quotas IS 'A limit for one role, one customer, or (both NULL) every submitter of the org each for himself.';
COMMENT ON COLUMN odin.quotas.period IS 'daily, weekly (from Monday), monthly, semester (from January and July), in UTC.';
CREATE TABLE odin.quota_usage (
  quota_id  bigint NOT NULL REFERENCES odin.quotas ON DELETE CASCADE,
  org_id    bigint NOT NULL REFERENCES odin.orgs,
  subject   text NOT NULL,
  starts_on date NOT NULL,
  used      numeric(14,3) NOT NULL DEFAULT 0 CHECK (used >= 0),
  PRIMARY KEY (quota_id, subject, starts_on)
) WITH (fillfactor = 70);
COMMENT ON TABLE odin.quota_usage IS 'What was used of a quota in a period, per subject (the role who queued, or the customer).';
CREATE INDEX quotas_by_customer ON odin.quotas (customer_id) WHERE customer_id IS NOT NULL;
CREATE INDEX quota_usage_org ON odin.quota_usage (org_id, starts_on);

SELECT odin.guard_table('odin.quotas');
SELECT odin.guard_table('odin.quota_usage', trail => false);
GRANT SELECT ON odin.quotas, odin.quota_usage TO odin_viewer;
GRANT INSERT, UPDATE, DELETE ON odin.quotas TO odin_admin;
INSERT INTO odin.constraint_errors(constraint_name, code, detail, hint) VALUES
  ('quotas_key', 'already_exists', 'This subject has a quota for that metric and period.', 'Use set_quota to change it.');
