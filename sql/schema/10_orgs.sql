-- Whose farm this is: the instance, orgs, members and the rules of row-level access.
-- Must never hold a secret, and nothing here may be reachable by a key: who is who is a human's decision.

COMMENT ON SCHEMA odin_call IS 'One generated function a tool: takes the arguments out of JSON and calls the tool''s own function. Do not edit.';
COMMENT ON SCHEMA odin_private IS 'Secrets; no farm role may use this schema.';
COMMENT ON SCHEMA odin_bi IS 'Reporting: facts and dimensions with stable names, read by the role odin_bi.';

CREATE TABLE odin.instance (
  only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
  schema_version text NOT NULL,
  registry_version bigint NOT NULL DEFAULT 1,
  installed_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE odin.instance IS 'One row: version of the tables and of the tool registry.';
INSERT INTO odin.instance(schema_version) VALUES ('new'); -- the installer puts its version here

CREATE TABLE odin_private.secrets (
  name text PRIMARY KEY,
  value bytea NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE odin_private.secrets IS 'Keys of seals. Only odin_owner reads it.';

CREATE TABLE odin.orgs (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL UNIQUE CHECK (length(trim(name)) BETWEEN 1 AND 200),
  currency text NOT NULL DEFAULT 'USD' CHECK (currency ~ '^[A-Z]{3}$'),
  timezone text NOT NULL DEFAULT 'UTC',
  settings jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(settings) = 'object'),
  created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE odin.orgs IS 'A farm or a department of one: everything belongs to an org, and people see the rows of their orgs.';
COMMENT ON COLUMN odin.orgs.settings IS 'Switches of the farm''s rules, e.g. {"require_job_approval": true}.';

CREATE TABLE odin.clock (
  name text PRIMARY KEY,
  last_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE odin.clock IS 'When work that is due now and then was last done, so that of many sidecars one does it.';

CREATE TABLE odin.members (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  role_name text NOT NULL CHECK (role_name <> ''),
  org_id bigint NOT NULL REFERENCES odin.orgs ON DELETE CASCADE,
  customer_id bigint,
  added_by text NOT NULL DEFAULT current_user,
  added_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX members_role_org ON odin.members (role_name, org_id, coalesce(customer_id, 0));
CREATE INDEX members_org ON odin.members (org_id);
COMMENT ON TABLE odin.members IS 'Which database role belongs to which org; with a customer it is that customer''s own login and sees that customer only.';

CREATE TABLE odin.guarded_tables (
  table_name text PRIMARY KEY,
  org_column text NOT NULL,
  customer_column text,
  key_columns text[] NOT NULL,
  trail boolean NOT NULL
);
COMMENT ON TABLE odin.guarded_tables IS 'Tables under row-level access and the change trail; filled by odin.guard_table().';

CREATE TABLE odin.access_rules (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL UNIQUE CHECK (name ~ '^[a-z][a-z0-9_]{0,39}$'),
  table_name text NOT NULL DEFAULT '*',
  role_name text,
  kind text NOT NULL CHECK (kind IN ('permission', 'guard')),
  operations text NOT NULL CHECK (operations ~ '^c?r?u?d?$' AND operations <> ''),
  filter text NOT NULL,
  comment text
);
COMMENT ON TABLE odin.access_rules IS 'Row-level access as rows: permissions add rows, guards take rows away. odin.apply_access() makes policies of them.';
COMMENT ON COLUMN odin.access_rules.table_name IS 'Table (odin.jobs) or * for every guarded table that has the columns the filter names.';
COMMENT ON COLUMN odin.access_rules.role_name IS 'Role it applies to; NULL = everybody who works with the farm.';
COMMENT ON COLUMN odin.access_rules.operations IS 'Letters of crud: create, read, update, delete.';
COMMENT ON COLUMN odin.access_rules.filter IS 'SQL condition on the row; {org} and {customer} stand for the table''s columns.';

INSERT INTO odin.access_rules(name, role_name, kind, operations, filter, comment) VALUES
  ('staff', 'odin_viewer', 'permission', 'crud', '{org} = ANY (ARRAY(SELECT odin.orgs_of(current_user)))', 'People see and change the rows of their orgs, as far as their grants go.'),
  ('reporting', 'odin_bi', 'permission', 'r', '{org} = ANY (ARRAY(SELECT odin.orgs_of(current_user)))', 'Dashboards read the rows of their orgs.'),
  ('customer', 'odin_customer', 'permission', 'r', '{customer} = ANY (ARRAY(SELECT odin.customers_of(current_user)))', 'A customer''s own login sees that customer''s rows and nothing else.');

-- Takes a table under guard. Policies and trail triggers are made by odin.apply_access(), so that they
-- always follow the rules and this version's code.
CREATE FUNCTION odin.guard_table(guarded text, trail boolean DEFAULT true, org_column text DEFAULT 'org_id') RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  rel oid := guarded::regclass;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM pg_index WHERE indrelid = rel AND indisprimary) THEN
    RAISE EXCEPTION '% has no primary key; the change trail needs one to name the row', guarded USING ERRCODE = 'invalid_table_definition';
  END IF;
  EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', rel::regclass);
  INSERT INTO odin.guarded_tables VALUES (guarded, org_column,
    (SELECT attname FROM pg_attribute WHERE attrelid = rel AND attname = 'customer_id' AND NOT attisdropped),
    (SELECT array_agg(a.attname ORDER BY k.n) FROM pg_index i, unnest(i.indkey) WITH ORDINALITY k(attnum, n), pg_attribute a
      WHERE i.indrelid = rel AND i.indisprimary AND a.attrelid = rel AND a.attnum = k.attnum),
    guard_table.trail);
END $f$;
COMMENT ON FUNCTION odin.guard_table(text, boolean, text) IS 'Puts a table with an org_id (and perhaps customer_id) under row-level access and the change trail; run odin.apply_access() after it.';

SELECT odin.guard_table('odin.orgs', org_column => 'id');
GRANT USAGE ON SCHEMA odin_call TO odin_viewer, odin_customer;
GRANT SELECT ON odin.orgs TO odin_viewer, odin_bi;
GRANT UPDATE (currency, timezone, settings) ON odin.orgs TO odin_admin;
GRANT SELECT ON odin.instance TO odin_viewer;
GRANT SELECT ON odin.members, odin.access_rules, odin.guarded_tables TO odin_admin;
ALTER TABLE odin.members ENABLE ROW LEVEL SECURITY; -- its policy stands with the trail's, in the last step of an install
