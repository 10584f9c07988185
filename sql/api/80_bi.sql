-- Facts and dimensions for dashboards. security_invoker: a reader sees the orgs he belongs to. A column once published keeps its name and meaning.

CREATE OR REPLACE VIEW odin_bi.dim_printers WITH (security_invoker = true) AS
SELECT p.id AS printer_id, p.org_id, p.name AS printer, p.model AS printer_model, p.protocol, p.group_name, p.location, p.machine_type, p.is_active, p.price, p.life_hours, p.created_at::date AS in_service_since,
       round(t.print_seconds / 3600.0, 1) AS lifetime_hours, t.runs AS lifetime_runs, t.runs_failed AS lifetime_failed, t.good AS lifetime_good, t.scrapped AS lifetime_scrapped
  FROM odin.printers p JOIN odin.printer_totals t ON t.printer_id = p.id;
COMMENT ON VIEW odin_bi.dim_printers IS 'Printers with their lifetime counters.';

CREATE OR REPLACE VIEW odin_bi.dim_customers WITH (security_invoker = true) AS
SELECT c.id AS customer_id, c.org_id, c.name AS customer, c.company, c.channel, c.created_at::date AS customer_since, c.is_active FROM odin.customers c;
COMMENT ON VIEW odin_bi.dim_customers IS 'Customers, without addresses.';

CREATE OR REPLACE VIEW odin_bi.dim_models WITH (security_invoker = true) AS
SELECT m.id AS model_id, m.org_id, m.name AS model, m.sku, m.category, m.is_active, r.pieces_per_plate, round(r.seconds / 3600.0, 3) AS planned_hours FROM odin.models m LEFT JOIN odin.model_revisions r ON r.id = m.current_revision_id;
COMMENT ON VIEW odin_bi.dim_models IS 'Models with the plate of their current revision.';

CREATE OR REPLACE VIEW odin_bi.dim_filaments WITH (security_invoker = true) AS
SELECT f.id AS filament_id, f.org_id, f.brand, f.name AS filament, f.material, f.color_name, f.color_hex, f.cost_per_kg, f.currency FROM odin.filaments f;
COMMENT ON VIEW odin_bi.dim_filaments IS 'The filament library.';

CREATE OR REPLACE VIEW odin_bi.dim_dates AS
SELECT d::date AS day, extract(isoyear FROM d)::int AS iso_year, extract(week FROM d)::int AS iso_week, extract(year FROM d)::int AS year, extract(quarter FROM d)::int AS quarter, extract(month FROM d)::int AS month, extract(isodow FROM d)::int AS weekday
  FROM generate_series(date '2020-01-01', date '2039-12-31', interval '1 day') d;
ALTER VIEW odin_bi.dim_dates SET (security_invoker = true);
COMMENT ON VIEW odin_bi.dim_dates IS 'Calendar from 2020 to 2039; weekday 1 = Monday. Days of facts are in UTC.';

CREATE OR REPLACE VIEW odin_bi.fact_runs WITH (security_invoker = true) AS
SELECT r.id AS run_id, r.org_id, r.job_id, r.order_line_id, r.customer_id, r.printer_id, r.model_id, r.revision_id, r.status AS outcome, r.verdict, r.fail_reason,
       r.claimed_at, r.started_at, r.finished_at, r.finished_on, round(r.seconds / 3600.0, 4) AS hours, round(r.planned_seconds / 3600.0, 4) AS planned_hours,
       r.pieces, r.good, r.scrapped, round(r.used_mg / 1000.0, 3) AS grams, round(r.planned_mg / 1000.0, 3) AS planned_grams, r.energy_wh / 1000 AS energy_kwh, r.reported_by, r.cost, r.currency
  FROM odin.runs r WHERE r.finished_at IS NOT NULL AND r.status <> 'released';
COMMENT ON VIEW odin_bi.fact_runs IS 'One row per finished run: outcome completed, failed or cancelled; hours, pieces, grams, cost.';

CREATE OR REPLACE VIEW odin_bi.fact_run_costs WITH (security_invoker = true) AS
SELECT c.run_id, c.org_id, r.printer_id, r.model_id, r.customer_id, r.order_line_id, c.finished_on, c.material, c.machine, c.energy, c.labor, c.total, c.scrap_share, c.currency, k.version AS rate_card_version
  -- Left joins, so that a report that needs neither run nor card reads neither.
  FROM odin.run_costs c LEFT JOIN odin.runs r ON r.id = c.run_id LEFT JOIN odin.rate_cards k ON k.id = c.rate_card_id;
COMMENT ON VIEW odin_bi.fact_run_costs IS 'Cost of each finished run by kind; scrap_share is the part that went into scrap.';

CREATE OR REPLACE VIEW odin_bi.fact_jobs WITH (security_invoker = true) AS
SELECT j.id AS job_id, j.org_id, j.order_line_id, j.customer_id, j.model_id, j.status, j.priority, j.created_at, j.created_on, j.due_at, j.started_at, j.finished_at,
       round(extract(epoch FROM j.started_at - j.created_at)::numeric / 3600, 3) AS hours_waited, CASE WHEN j.finished_at IS NOT NULL AND j.due_at IS NOT NULL THEN j.finished_at > j.due_at END AS was_late,
       j.pieces, j.good, j.scrapped, j.attempt, j.requeued_from_run_id IS NOT NULL AS is_remake, j.estimated_cost, j.currency, j.submitted_by
  FROM odin.jobs j;
COMMENT ON VIEW odin_bi.fact_jobs IS 'One row per job (plate): waiting time, lateness, remakes.';

CREATE OR REPLACE VIEW odin_bi.fact_orders WITH (security_invoker = true) AS
SELECT o.id AS order_id, o.org_id, o.customer_id, o.order_number, o.channel, o.status, o.ordered_at, (o.ordered_at AT TIME ZONE 'UTC')::date AS ordered_on, o.due_at, o.shipped_at, o.shipped_at > o.due_at AS shipped_late,
       l.units, l.units_fulfilled, l.goods_value, l.goods_value - o.discount + o.shipping_charged AS revenue, o.platform_fees + o.payment_fees AS fees, o.shipping_cost, o.currency
  FROM odin.orders o CROSS JOIN LATERAL (SELECT coalesce(sum(x.quantity), 0) AS units, coalesce(sum(x.fulfilled), 0) AS units_fulfilled, round(coalesce(sum(x.quantity * x.unit_price), 0), 2) AS goods_value FROM odin.order_lines x WHERE x.order_id = o.id AND x.status = 'open') l
 WHERE NOT o.is_stock;
COMMENT ON VIEW odin_bi.fact_orders IS 'One row per customer order: value, revenue before cost, delivery.';

CREATE OR REPLACE VIEW odin_bi.fact_filament WITH (security_invoker = true) AS
SELECT m.id AS move_id, m.org_id, m.at, m.day, m.kind, m.spool_id, s.filament_id, f.material, f.color_hex, m.job_id, m.run_id, m.printer_id, -m.mg / 1000.0 AS grams_out, m.basis
  FROM odin.spool_moves m JOIN odin.spools s ON s.id = m.spool_id JOIN odin.filaments f ON f.id = s.filament_id WHERE m.mg <> 0 AND m.kind IN ('consume', 'purge', 'adjust', 'void', 'receive');
COMMENT ON VIEW odin_bi.fact_filament IS 'Ledger of filament as facts: grams_out is positive for use, negative for deliveries and voided uses.';

-- Added up before the library is asked, so that a month of moves costs a row per filament and day.
CREATE OR REPLACE VIEW odin_bi.filament_daily WITH (security_invoker = true) AS
SELECT u.org_id, u.day, u.filament_id, f.material, f.color_hex, u.kind, u.moves, u.mg / 1000.0 AS grams_out
  FROM (SELECT m.org_id, m.day, s.filament_id, m.kind, count(*) AS moves, -sum(m.mg) AS mg
          FROM odin.spool_moves m JOIN odin.spools s ON s.id = m.spool_id WHERE m.mg <> 0 AND m.kind IN ('consume', 'purge', 'adjust', 'void', 'receive') GROUP BY 1, 2, 3, 4) u
  JOIN odin.filaments f ON f.id = u.filament_id;
COMMENT ON VIEW odin_bi.filament_daily IS 'Filament per day, filament and kind of move: the sums of fact_filament, quicker on a large farm.';

CREATE OR REPLACE VIEW odin_bi.fact_failures WITH (security_invoker = true) AS
SELECT r.id AS run_id, r.org_id, r.printer_id, r.model_id, r.customer_id, r.finished_at, r.finished_on, r.status AS outcome, coalesce(r.fail_reason, 'other') AS reason, r.scrapped, round(r.used_mg / 1000.0, 3) AS grams,
       round(r.seconds / 3600.0, 4) AS hours_lost, r.fail_notes
  FROM odin.runs r WHERE r.finished_at IS NOT NULL AND r.status IN ('completed', 'failed', 'cancelled') AND (r.status <> 'completed' OR r.scrapped > 0);
COMMENT ON VIEW odin_bi.fact_failures IS 'Runs that failed, were stopped, or gave scrap, with the reason.';

CREATE OR REPLACE VIEW odin_bi.printer_hours_daily WITH (security_invoker = true) AS
SELECT r.org_id, r.printer_id, r.finished_on AS day, count(*) AS runs, count(*) FILTER (WHERE r.status <> 'completed') AS failed, round(sum(r.seconds) / 3600.0, 2) AS hours, sum(r.good) AS good, sum(r.scrapped) AS scrapped,
       round(sum(r.used_mg) / 1000.0, 1) AS grams, sum(r.cost) AS cost
  FROM odin.runs r WHERE r.finished_at IS NOT NULL AND r.status <> 'released' GROUP BY 1, 2, 3;
COMMENT ON VIEW odin_bi.printer_hours_daily IS 'Per printer and day: runs, failures, hours, pieces, grams, cost. Filter by day to keep it quick on a large farm.';

CREATE OR REPLACE VIEW odin_bi.spools_now WITH (security_invoker = true) AS
SELECT s.id AS spool_id, s.org_id, s.code, s.filament_id, f.material, f.brand, f.color_hex, s.status, round(b.balance_mg / 1000.0, 1) AS grams_left, round(b.reserved_mg / 1000.0, 1) AS grams_reserved, round(b.balance_mg / 1000000.0 * coalesce(s.price * 1000000 / nullif(s.initial_mg, 0), f.cost_per_kg, 0), 2) AS value, s.currency
  FROM odin.spools s JOIN odin.filaments f ON f.id = s.filament_id JOIN odin.spool_balances b ON b.spool_id = s.id;
COMMENT ON VIEW odin_bi.spools_now IS 'Filament in stock now, with its value.';

GRANT USAGE ON SCHEMA odin_bi TO odin_bi, odin_viewer;
GRANT SELECT ON ALL TABLES IN SCHEMA odin_bi TO odin_bi, odin_viewer;
GRANT SELECT ON odin.customers, odin.orders, odin.order_lines, odin.order_parts, odin.jobs, odin.runs, odin.run_costs, odin.rate_cards, odin.printers, odin.printer_totals, odin.filaments, odin.spools, odin.spool_balances, odin.spool_moves, odin.models,
  odin.model_revisions, odin.products, odin.maintenance_log, odin.invoices TO odin_bi;
