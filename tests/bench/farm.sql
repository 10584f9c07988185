-- One farm for the benchmarks: 1,000 printers, a queue of 10,000 jobs, and as much history as asked for (bench.grow). Everything old is written past
-- triggers, with its counters as the triggers would have left them; what is measured later goes through the farm's own functions.
CREATE SCHEMA bench;
CREATE TABLE bench.places(org bigint, order_line bigint, part bigint, spool bigint);
INSERT INTO odin.orgs(name) VALUES ('Bench Farm');
DO $d$
DECLARE
  f bigint := (SELECT id FROM odin.orgs WHERE name = 'Bench Farm');
BEGIN
  CREATE ROLE bench_operator LOGIN;
  GRANT odin_operator TO bench_operator;
  CREATE ROLE bench_bi LOGIN;
  GRANT odin_bi TO bench_bi;
  PERFORM odin.add_member('bench_operator', f), odin.add_member('bench_bi', f);
  INSERT INTO odin.filaments(org_id, brand, name, material, color_hex, cost_per_kg)
  SELECT f, 'Acme', m || ' ' || c, m, c, 20 FROM unnest('{PLA,PETG,ABS,TPU}'::text[]) m, unnest('{#000000,#FFFFFF,#FF0000,#0000FF,#00FF00}'::text[]) c;
  INSERT INTO odin.printers(org_id, name, model, protocol, slot_count, group_name, bed_x_mm, bed_y_mm, bed_z_mm, tags)
  SELECT f, 'B' || lpad(n::text, 4, '0'), (ARRAY['Prusa MK4S', 'Bambu Lab P1S', 'Voron 2.4', 'Prusa MINI+', 'Bambu Lab X1C'])[1 + n % 5], 'virtual', CASE n % 5 WHEN 1 THEN 4 WHEN 4 THEN 4 ELSE 1 END, 'row ' || n % 20,
         CASE n % 5 WHEN 3 THEN 180 WHEN 2 THEN 350 ELSE 250 END, CASE n % 5 WHEN 3 THEN 180 WHEN 2 THEN 350 ELSE 210 END, 200, CASE WHEN n % 7 = 0 THEN '{fine}'::text[] ELSE '{}' END FROM generate_series(1, 1000) n;
  INSERT INTO odin.spools(org_id, filament_id, initial_mg, low_stock_mg)
  SELECT f, x.ids[1 + n % 20], 100000000, 0 FROM generate_series(1, 2000) n, (SELECT array_agg(id ORDER BY id) AS ids FROM odin.filaments WHERE org_id = f) x;
  UPDATE odin.printer_slots t SET spool_id = s.id, confirmed = true FROM (SELECT printer_id, slot_number, row_number() OVER (ORDER BY slot_number, printer_id) AS n FROM odin.printer_slots WHERE org_id = f) p,
         (SELECT id, row_number() OVER (ORDER BY id) AS n FROM odin.spools WHERE org_id = f) s WHERE t.printer_id = p.printer_id AND t.slot_number = p.slot_number AND s.n = p.n;
  UPDATE odin.printer_state SET state = 'idle', raw_state = 'IDLE', reported_at = now() + interval '1 day' WHERE org_id = f;
  WITH m AS (INSERT INTO odin.models(org_id, name, sku) SELECT f, 'part ' || n, 'P' || n FROM generate_series(1, 200) n RETURNING id, substr(name, 6)::int AS n),
  r AS (INSERT INTO odin.model_revisions(org_id, model_id, revision, pieces_per_plate, seconds, nozzle_mm, size_x_mm, size_y_mm, size_z_mm) SELECT f, m.id, 1, 4, 1800 + (m.n * 977) % 30000, 0.4, 60 + m.n % 4 * 50, 60 + m.n % 4 * 50, 60 FROM m RETURNING id, model_id),
  k AS (INSERT INTO odin.revision_materials(revision_id, org_id, tool, material, color_hex, mg) SELECT r.id, f, 0, (ARRAY['PLA', 'PLA', 'PETG', 'ABS', 'TPU'])[1 + r.id % 5], CASE WHEN r.id % 2 = 0 THEN (ARRAY['#000000', '#FFFFFF', '#FF0000'])[1 + r.id % 3] END, 20000 + r.id % 50 * 1000 FROM r)
  SELECT count(*) INTO f FROM r;
  UPDATE odin.models x SET current_revision_id = r.id FROM odin.model_revisions r WHERE r.model_id = x.id;
END $d$;
SELECT odin.set_rate_card() FROM (SELECT set_config('role', 'bench_operator', true)) x WHERE false;
INSERT INTO odin.customers(org_id, name) SELECT id, 'Customer ' || n FROM odin.orgs, generate_series(1, 500) n WHERE name = 'Bench Farm';
INSERT INTO odin.rate_cards(org_id, version) SELECT id, 1 FROM odin.orgs o WHERE name = 'Bench Farm' AND NOT EXISTS (SELECT 1 FROM odin.rate_cards c WHERE c.org_id = o.id);

-- So many jobs, in orders of 40, each with its customer; finished ones have a run, its cost and its moves. The waiting ones are due over the next weeks.
CREATE FUNCTION bench.grow(n_jobs bigint, finished boolean) RETURNS void LANGUAGE plpgsql SET session_replication_role = replica SET synchronous_commit = off AS $f$
DECLARE
  f bigint := (SELECT id FROM odin.orgs WHERE name = 'Bench Farm');
  customers bigint[] := ARRAY(SELECT id FROM odin.customers WHERE org_id = f ORDER BY id);
  printers bigint[] := ARRAY(SELECT id FROM odin.printers WHERE org_id = f ORDER BY id);
  spools bigint[] := ARRAY(SELECT id FROM odin.spools WHERE org_id = f ORDER BY id);
  models bigint[] := ARRAY(SELECT id FROM odin.models WHERE org_id = f ORDER BY id);
  revisions bigint[] := ARRAY(SELECT current_revision_id FROM odin.models WHERE org_id = f ORDER BY id);
  card bigint := (SELECT max(id) FROM odin.rate_cards WHERE org_id = f);
  span interval := interval '700 days';
  last_order bigint := (SELECT coalesce(max(id), 0) FROM odin.orders);
  last_job bigint := (SELECT coalesce(max(id), 0) FROM odin.jobs);
BEGIN
  INSERT INTO odin.orders(org_id, customer_id, order_number, status, ordered_at, due_at, shipped_at, created_at)
  SELECT f, customers[1 + n % 500], format('%s-%s', CASE WHEN finished THEN 'H' ELSE 'W' END, last_order + n), CASE WHEN finished THEN 'shipped' ELSE 'pending' END, at, CASE WHEN finished THEN at + interval '9 days' ELSE now() + interval '9 days' END,
         CASE WHEN finished THEN at + interval '8 days' END, at FROM generate_series(1, n_jobs / 40) n, LATERAL (SELECT CASE WHEN finished THEN now() - span + span * (n * 40.0 / n_jobs) - interval '9 days' ELSE now() END AS at) a;
  INSERT INTO odin.order_lines(org_id, customer_id, order_id, line_no, model_id, description, quantity, fulfilled, shipped, unit_price)
  SELECT f, o.customer_id, o.id, 1, models[1 + o.id % 200], 'part', 160, CASE WHEN finished THEN 160 ELSE 0 END, CASE WHEN finished THEN 160 ELSE 0 END, 3 FROM odin.orders o WHERE o.id > last_order;
  INSERT INTO odin.order_parts(org_id, customer_id, order_line_id, model_id, ordered, queued, good)
  SELECT f, l.customer_id, l.id, l.model_id, 160, CASE WHEN finished THEN 0 ELSE 160 END, CASE WHEN finished THEN 160 ELSE 0 END FROM odin.order_lines l WHERE l.order_id > last_order;
  INSERT INTO odin.jobs(org_id, customer_id, order_line_id, part_id, model_id, revision_id, plate_no, plates, name, quantity, pieces, status, priority, due_at, start_by, estimated_seconds, estimated_mg, estimated_cost, good, created_at, started_at, finished_at)
  SELECT f, p.customer_id, p.order_line_id, p.id, p.model_id, revisions[1 + o.id % 200], n, 40, 'part', 160, 4, CASE WHEN finished THEN 'completed' ELSE 'pending' END, 2 + (o.id % 4)::int, CASE WHEN o.id % 3 = 0 THEN o.due_at + make_interval(hours => (o.id % 200)::int - 100) END,
         CASE WHEN finished THEN o.ordered_at ELSE now() + make_interval(mins => ((o.id * 40 + n) * 7919 % 20000)::int - 2000) END, 1800 + (o.id * 977 % 30000)::int, 20000, 1.2, CASE WHEN finished THEN 4 ELSE 0 END, o.ordered_at,
         CASE WHEN finished THEN o.ordered_at + make_interval(hours => n) END, CASE WHEN finished THEN o.ordered_at + make_interval(hours => n + 5) END
    FROM odin.orders o JOIN odin.order_lines l ON l.order_id = o.id JOIN odin.order_parts p ON p.order_line_id = l.id, generate_series(1, 40) n WHERE o.id > last_order;
  IF NOT finished THEN RETURN; END IF;
  INSERT INTO odin.runs(org_id, customer_id, job_id, order_line_id, part_id, model_id, revision_id, printer_id, status, pieces, planned_seconds, planned_mg, claimed_at, started_at, finished_at, seconds, used_mg, energy_wh, good, scrapped, verdict, fail_reason, reported_by, cost, currency)
  SELECT f, j.customer_id, j.id, j.order_line_id, j.part_id, j.model_id, j.revision_id, printers[1 + j.id % 1000], CASE WHEN j.id % 20 = 0 THEN 'failed' ELSE 'completed' END, 4, j.estimated_seconds, 20000, j.started_at, j.started_at, j.finished_at, 18000, 20000, 1500,
         CASE WHEN j.id % 20 = 0 THEN 0 ELSE 4 END, CASE WHEN j.id % 20 = 0 THEN 4 ELSE 0 END, CASE WHEN j.id % 20 = 0 THEN 'scrap' ELSE 'good' END, CASE WHEN j.id % 20 = 0 THEN (ARRAY['clog', 'adhesion', 'warping'])[1 + j.id / 20 % 3] END, 'printer', 1.2, 'USD' FROM odin.jobs j WHERE j.id > last_job;
  INSERT INTO odin.run_costs(run_id, org_id, rate_card_id, material, machine, energy, labor, scrap_share, currency)
  SELECT r.id, f, card, 0.5, 0.3, 0.2, 0.2, CASE WHEN r.status = 'failed' THEN 1.2 ELSE 0 END, 'USD' FROM odin.runs r WHERE r.job_id > last_job;
  INSERT INTO odin.spool_moves(org_id, spool_id, kind, mg, job_id, run_id, printer_id, slot_number, basis, at)
  SELECT f, spools[1 + r.id % 2000], 'consume', -20000, r.job_id, r.id, r.printer_id, 1, 'slicer', r.finished_at FROM odin.runs r WHERE r.job_id > last_job;
  INSERT INTO odin.alerts(org_id, type, severity, title, is_read, is_dismissed, created_at, run_id, job_id)
  SELECT f, 'print_complete', 'info', 'part is done', true, r.id % 2 = 0, r.finished_at, r.id, r.job_id FROM odin.runs r WHERE r.job_id > last_job;
  UPDATE odin.printer_totals t SET runs = x.n, print_seconds = x.s FROM (SELECT printer_id, count(*) AS n, sum(seconds) AS s FROM odin.runs WHERE org_id = f GROUP BY 1) x WHERE x.printer_id = t.printer_id;
END $f$;
