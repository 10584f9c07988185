-- The demo farm is what it says, keeps the farm's invariants, and every query of docs/sql.md runs on it.
\set ON_ERROR_STOP 1
INSERT INTO odin.orgs(name) VALUES ('Demo Farm');
SELECT t.is(odin.demo_farm() - 'org_id' - 'jobs' - 'runs', '{"printers": 12, "spools": 40, "customers": 6, "orders": 30}', 'the demo farm has 12 printers, 40 spools, 6 customers and 30 orders');
SELECT t.ok((SELECT count(*) > 80 AND count(DISTINCT finished_at::date) >= 15 FROM odin.runs WHERE finished_at IS NOT NULL), 'with a month of history');
SELECT t.ok((SELECT count(DISTINCT status) >= 4 FROM odin.orders WHERE org_id = (SELECT id FROM odin.orgs WHERE name = 'Demo Farm') AND NOT is_stock), 'orders in every stage');
DO $d$ BEGIN PERFORM odin.demo_farm(); RAISE EXCEPTION 'made twice' USING ERRCODE = 'TT001'; EXCEPTION WHEN SQLSTATE 'OD034' THEN NULL; END $d$;
\ir ../invariants.sql
SELECT odin.add_member('ft_viewer', (SELECT id FROM odin.orgs WHERE name = 'Demo Farm')) \g /dev/null
SELECT t.is(to_jsonb((SELECT count(*) FROM odin_bi.fact_runs)), to_jsonb((SELECT count(*) FROM odin.runs WHERE finished_at IS NOT NULL AND status <> 'released')), 'the reporting schema counts every finished run');
DO $d$ BEGIN IF to_regrole('ft_bi') IS NULL THEN CREATE ROLE ft_bi LOGIN; END IF; GRANT odin_bi TO ft_bi; END $d$;
SELECT odin.add_member('ft_bi', (SELECT id FROM odin.orgs WHERE name = 'Demo Farm')) \g /dev/null
CREATE FUNCTION t.rows_of(view text) RETURNS bigint LANGUAGE plpgsql AS $f$
DECLARE
  n bigint;
BEGIN
  PERFORM set_config('role', 'ft_bi', true);
  EXECUTE format('SELECT count(*) FROM odin_bi.%I', view) INTO n;
  PERFORM set_config('role', 'none', true);
  RETURN n;
END $f$;
SELECT t.ok(t.rows_of(c.relname) > 0, 'a dashboard reads odin_bi.' || c.relname) FROM pg_class c WHERE c.relnamespace = 'odin_bi'::regnamespace AND c.relkind = 'v' ORDER BY 1;
SELECT t.ok(NOT has_table_privilege('ft_bi', 'odin.commands', 'SELECT') AND NOT has_table_privilege('ft_bi', 'odin.jobs', 'UPDATE'), 'and nothing but reports');
