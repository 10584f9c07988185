-- The demo farm is what it says, keeps the farm's invariants, and every query of docs/sql.md runs on it.
\set ON_ERROR_STOP 1
-- One transaction makes both farms: the month they show ends with the hour, and between two it could be another one.
BEGIN;
INSERT INTO odin.orgs(name) VALUES ('Demo Farm');
SELECT t.is(odin.demo_farm() - 'org_id' - 'jobs' - 'runs', '{"printers": 12, "spools": 40, "customers": 6, "orders": 30}', 'the demo farm has 12 printers, 40 spools, 6 customers and 30 orders');
SELECT t.ok((SELECT count(*) > 80 AND count(DISTINCT finished_at::date) >= 15 FROM odin.runs WHERE finished_at IS NOT NULL), 'with a month of history');
SELECT t.ok((SELECT count(DISTINCT status) >= 4 FROM odin.orders WHERE org_id = (SELECT id FROM odin.orgs WHERE name = 'Demo Farm') AND NOT is_stock), 'orders in every stage');
DO $d$ BEGIN PERFORM odin.demo_farm(); RAISE EXCEPTION 'made twice' USING ERRCODE = 'TT001'; EXCEPTION WHEN SQLSTATE 'OD034' THEN NULL; END $d$;
-- Another org, another run: the same farm, to the cent, the second and the gram.
CREATE FUNCTION t.demo_print(f bigint) RETURNS jsonb LANGUAGE sql AS $f$
  SELECT jsonb_build_object(
    'orders', (SELECT jsonb_agg(jsonb_build_array(o.order_number, o.status, o.ordered_at, o.due_at, o.shipped_at, o.priority, c.name, v.total) ORDER BY o.id) FROM odin.orders o LEFT JOIN odin.customers c ON c.id = o.customer_id LEFT JOIN odin.order_view v ON v.id = o.id WHERE o.org_id = f AND NOT o.is_stock),
    'runs', (SELECT jsonb_agg(jsonb_build_array(p.name, j.name, r.status, r.good, r.scrapped, r.fail_reason, r.used_mg, r.seconds, r.cost, r.finished_at, CASE WHEN r.finished_at IS NOT NULL THEN r.started_at END) ORDER BY r.id) FROM odin.runs r JOIN odin.printers p ON p.id = r.printer_id JOIN odin.jobs j ON j.id = r.job_id WHERE r.org_id = f),
    'jobs', (SELECT jsonb_agg(jsonb_build_array(j.name, j.status, j.pieces, j.good, j.attempt, j.due_at, j.created_at) ORDER BY j.id) FROM odin.jobs j WHERE j.org_id = f AND j.requeued_from_run_id IS NULL),
    'spools', (SELECT jsonb_agg(jsonb_build_array(right(s.code, 3), x.name, b.balance_mg, b.reserved_mg, s.lot_number, s.storage_location) ORDER BY s.id) FROM odin.spools s JOIN odin.filaments x ON x.id = s.filament_id JOIN odin.spool_balances b ON b.spool_id = s.id WHERE s.org_id = f),
    'use', (SELECT jsonb_agg(jsonb_build_array(m.kind, m.mg, m.at) ORDER BY m.id) FROM odin.spool_moves m WHERE m.org_id = f AND m.kind = 'consume'),
    'bills', (SELECT jsonb_agg(jsonb_build_array(i.invoice_number, i.total, i.status, i.issued_on, i.paid_on) ORDER BY i.id) FROM odin.invoices i WHERE i.org_id = f),
    'printers', (SELECT jsonb_agg(jsonb_build_array(p.name, s.state, t.runs, t.print_seconds) ORDER BY p.id) FROM odin.printers p JOIN odin.printer_state s ON s.printer_id = p.id JOIN odin.printer_totals t ON t.printer_id = p.id WHERE p.org_id = f),
    'alerts', (SELECT jsonb_agg(jsonb_build_array(a.type, regexp_replace(a.title, 'DEMO-[0-9]+', 'DEMO'), a.is_read) ORDER BY a.id) FROM odin.alerts a WHERE a.org_id = f),
    'service', (SELECT jsonb_agg(jsonb_build_array(l.printer_name, l.task_name, l.performed_at::date) ORDER BY l.id) FROM odin.maintenance_log l WHERE l.org_id = f)) $f$;
INSERT INTO odin.orgs(name) VALUES ('Demo Again');
SELECT odin.demo_farm(id) FROM odin.orgs WHERE name = 'Demo Again' \g /dev/null
COMMIT;
SELECT t.is(again.part, first.part, 'a second demo farm is the same as the first: ' || first.key) FROM (SELECT e.key, e.value AS part FROM odin.orgs o, jsonb_each(t.demo_print(o.id)) e WHERE o.name = 'Demo Farm') first
  JOIN (SELECT e.key, e.value AS part FROM odin.orgs o, jsonb_each(t.demo_print(o.id)) e WHERE o.name = 'Demo Again') again USING (key) ORDER BY 1;
SELECT t.ok((SELECT count(DISTINCT at::date) >= 15 FROM odin.spool_moves WHERE kind = 'consume'), 'filament was used day by day');
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
-- Days are days in UTC whoever asks, and what is added up is what the ledger says, to the milligram and at once.
SET TimeZone = 'Asia/Tokyo';
SELECT t.is((SELECT jsonb_agg(to_jsonb(x) ORDER BY x.day, x.filament_id, x.kind) FROM (SELECT d.day, d.filament_id, d.kind, d.moves, d.grams_out FROM odin_bi.filament_daily d) x),
  (SELECT jsonb_agg(to_jsonb(x) ORDER BY x.day, x.filament_id, x.kind) FROM (SELECT (m.at AT TIME ZONE 'UTC')::date AS day, s.filament_id, m.kind, count(*) AS moves, -sum(m.mg) / 1000.0 AS grams_out
    FROM odin.spool_moves m JOIN odin.spools s ON s.id = m.spool_id WHERE m.mg <> 0 GROUP BY 1, 2, 3) x), 'filament per day is what the ledger says');
SELECT t.is((SELECT jsonb_agg(to_jsonb(x) ORDER BY x.material) FROM (SELECT f.material, sum(f.grams_out) AS grams FROM odin_bi.fact_filament f GROUP BY 1) x), (SELECT jsonb_agg(to_jsonb(x) ORDER BY x.material) FROM (SELECT d.material, sum(d.grams_out) AS grams FROM odin_bi.filament_daily d GROUP BY 1) x), 'and what the single moves add up to');
SELECT t.is((SELECT to_jsonb(count(*)) FROM odin.runs WHERE finished_on IS DISTINCT FROM (finished_at AT TIME ZONE 'UTC')::date), '0', 'runs end on a day in UTC');
SELECT sum(grams_out) AS before FROM odin_bi.filament_daily \gset
INSERT INTO odin.spool_moves(org_id, spool_id, kind, mg, reason, at) SELECT org_id, id, 'purge', -1, 'test', '2026-01-31 23:30:00-01' FROM odin.spools ORDER BY id LIMIT 1;
SELECT t.is((SELECT to_jsonb(sum(grams_out) - :before) FROM odin_bi.filament_daily), '0.001', 'the next move counts at once');
SELECT t.is((SELECT jsonb_agg(day) FROM odin_bi.fact_filament WHERE grams_out = 0.001 AND kind = 'purge'), '["2026-02-01"]', 'on its day in UTC');
RESET TimeZone;
SELECT t.ok(NOT has_table_privilege('ft_bi', 'odin.commands', 'SELECT') AND NOT has_table_privilege('ft_bi', 'odin.jobs', 'UPDATE'), 'and nothing but reports');
