-- Runs first, as the superuser who installs: refuses servers the farm is not safe on and makes the fixed
-- roles (cluster-wide: no dump of a database brings them). It must never touch data.
DO $preamble$
DECLARE
  v int := current_setting('server_version_num')::int;
  least int := CASE v / 10000 WHEN 15 THEN 150009 WHEN 16 THEN 160005 WHEN 17 THEN 170001 WHEN 18 THEN 180000 END;
BEGIN
  IF least IS NULL THEN
    RAISE EXCEPTION 'odin_farm needs PostgreSQL 15 to 18; this server is %', current_setting('server_version')
      USING ERRCODE = 'feature_not_supported';
  ELSIF v < least THEN
    RAISE EXCEPTION 'PostgreSQL % is too old for odin_farm: CVE-2024-10976 and CVE-2024-10978 let one user act with another''s rights', current_setting('server_version')
      USING ERRCODE = 'feature_not_supported', HINT = 'Update to 15.9, 16.5, 17.1 or newer of the same major version.';
  END IF;
END $preamble$;

DO $roles$
DECLARE
  r record;
BEGIN
  FOR r IN SELECT * FROM (VALUES
    ('odin_owner', 'NOLOGIN'), ('odin_viewer', 'NOLOGIN'), ('odin_operator', 'NOLOGIN'), ('odin_admin', 'NOLOGIN'),
    ('odin_customer', 'NOLOGIN'), ('odin_bi', 'NOLOGIN'),
    ('odin_gateway', 'LOGIN NOINHERIT'), ('odin_worker', 'LOGIN NOINHERIT')) AS t(name, options)
  LOOP
    -- Two databases of one cluster may install at the same moment.
    BEGIN
      IF to_regrole(r.name) IS NULL THEN
        EXECUTE format('CREATE ROLE %I %s NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE', r.name, r.options);
      END IF;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
      NULL;
    END;
  END LOOP;
  IF NOT pg_has_role('odin_operator', 'odin_viewer', 'MEMBER') THEN GRANT odin_viewer TO odin_operator; END IF;
  IF NOT pg_has_role('odin_admin', 'odin_operator', 'MEMBER') THEN GRANT odin_operator TO odin_admin; END IF;
END $roles$;

ALTER SCHEMA odin OWNER TO odin_owner;
COMMENT ON SCHEMA odin IS 'The print farm: tables, rules, tools. Start with SELECT * FROM odin.tools, or docs/sql.md.';
-- Here and not with the tables: a dump leaves out what an extension script granted on a schema that was there before it.
GRANT USAGE ON SCHEMA odin TO odin_viewer, odin_customer, odin_bi, odin_gateway, odin_worker;
