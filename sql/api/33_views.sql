-- What people and tools read: jobs, printers, spools and orders with everything that belongs to them. All security_invoker: who asks sees his own rows.

CREATE OR REPLACE VIEW odin.job_view WITH (security_invoker = true) AS
SELECT j.id, j.name AS item_name, j.status, j.hold, j.hold_reason, j.priority, j.quantity, j.pieces AS quantity_on_bed, j.plate_no, j.plates, coalesce(j.batch_id, j.id) AS batch_id,
       j.model_id, m.name AS model_name, j.revision_id AS model_revision_id,
       coalesce(r.printer_id, j.printer_id, j.scheduled_printer_id) AS printer_id, coalesce(p.nickname, p.name) AS printer_name, j.printer_id IS NOT NULL AS pinned, j.target_type, j.target_filter, j.required_tags,
       n.filament_type, n.colors, round(j.estimated_mg / 1000.0, 2) AS grams, round(j.estimated_seconds / 3600.0, 3) AS duration_hours, j.material_policy,
       j.due_at AS due_date, j.start_by, j.queue_position, j.scheduled_start, j.scheduled_end, j.started_at AS actual_start, j.finished_at AS actual_end,
       r.id AS run_id, r.status AS run_status, CASE WHEN r.id IS NOT NULL THEN round(coalesce(s.progress_pct, r.progress_pct)::numeric, 1) END AS progress_percent,
       CASE WHEN r.id IS NOT NULL THEN s.remaining_seconds END AS remaining_seconds,
       j.good, j.scrapped, j.attempt, j.requeued_from_run_id, j.fail_reason, j.fail_notes,
       l.order_id, o.order_number, j.order_line_id, l.is_stock AS for_stock, j.customer_id, c.name AS customer_name,
       j.estimated_cost, j.suggested_price, j.currency, j.submitted_by, j.approved_by, j.approved_at, j.approval_notes, j.rejected_by, j.rejected_reason, j.cancelled_by, j.cancel_reason,
       j.notes, j.org_id, j.created_at, j.updated_at
  FROM odin.jobs j
  JOIN odin.order_lines l ON l.id = j.order_line_id
  JOIN odin.orders o ON o.id = l.order_id
  LEFT JOIN odin.models m ON m.id = j.model_id
  LEFT JOIN odin.customers c ON c.id = j.customer_id
  LEFT JOIN odin.runs r ON r.job_id = j.id AND r.status IN ('claimed','starting','printing','paused','unknown')
  LEFT JOIN odin.printers p ON p.id = coalesce(r.printer_id, j.printer_id, j.scheduled_printer_id)
  LEFT JOIN odin.printer_state s ON s.printer_id = r.printer_id
  LEFT JOIN LATERAL (SELECT string_agg(DISTINCT x.material, ', ') AS filament_type, array_remove(array_agg(x.color_hex ORDER BY x.tool), NULL) AS colors
                       FROM (SELECT rm.tool, coalesce(jm.material, rm.material) AS material, CASE WHEN jm.job_id IS NULL THEN rm.color_hex ELSE jm.color_hex END AS color_hex
                               FROM odin.revision_materials rm LEFT JOIN odin.job_materials jm ON jm.job_id = j.id AND jm.tool = rm.tool WHERE rm.revision_id = j.revision_id) x) n ON true;
COMMENT ON VIEW odin.job_view IS 'Jobs as the tools show them: with model, printer, order, customer, active run and progress. quantity = pieces of the whole request, quantity_on_bed = pieces on this plate.';

CREATE OR REPLACE VIEW odin.printer_view WITH (security_invoker = true) AS
SELECT p.id, p.name, p.nickname, p.model, p.protocol AS api_type, s.state AS status, s.stage, extract(epoch FROM now() - s.reported_at)::integer AS status_age_seconds, s.state_since,
       p.group_name, p.location, p.tags, p.is_active, p.is_held, p.hold_reason, b.occupied AS bed_occupied, b.since AS bed_since,
       r.id AS run_id, r.job_id AS active_job_id, j.name AS active_job_name, round(s.progress_pct::numeric, 1) AS progress_percent, s.remaining_seconds,
       round(s.tool_c::numeric, 1) AS nozzle_temp_c, round(s.bed_c::numeric, 1) AS bed_temp_c, s.error_code AS last_error_code, s.error_message AS last_error_message,
       p.slot_count, l.loaded, nz.diameter_mm AS nozzle_diameter_mm, p.bed_x_mm, p.bed_y_mm, p.bed_z_mm,
       round(t.print_seconds / 3600.0, 1) AS total_print_hours, t.runs AS total_print_count, p.auto_dispatch, p.org_id, p.created_at, p.updated_at,
       p.auto_dispatch_off_at, p.auto_dispatch_off_reason
  FROM odin.printers p
  JOIN odin.printer_state s ON s.printer_id = p.id
  JOIN odin.beds b ON b.printer_id = p.id
  JOIN odin.printer_totals t ON t.printer_id = p.id
  LEFT JOIN odin.runs r ON r.printer_id = p.id AND r.status IN ('claimed','starting','printing','paused','unknown')
  LEFT JOIN odin.jobs j ON j.id = r.job_id
  LEFT JOIN odin.nozzles nz ON nz.printer_id = p.id AND nz.tool = 0 AND nz.removed_at IS NULL
  LEFT JOIN LATERAL (SELECT coalesce(array_agg(f.material || coalesce(' ' || f.color_hex, '') ORDER BY ps.slot_number), '{}') AS loaded
                       FROM odin.printer_slots ps JOIN odin.spools sp ON sp.id = ps.spool_id JOIN odin.filaments f ON f.id = sp.filament_id WHERE ps.printer_id = p.id) l ON true;
COMMENT ON VIEW odin.printer_view IS 'Printers as the tools show them. status is what the printer last reported (unknown, offline, idle, preparing, printing, paused, finished, failed, error, degraded) and status_age_seconds how long ago.';

CREATE OR REPLACE VIEW odin.spool_view WITH (security_invoker = true) AS
SELECT sp.id, sp.code, sp.filament_id, f.brand AS filament_brand, f.name AS filament_name, f.material AS filament_type, f.color_name, f.color_hex, sp.status,
       round(b.balance_mg / 1000.0, 2) AS remaining_weight_g, round(b.reserved_mg / 1000.0, 2) AS reserved_g, round((b.balance_mg - b.reserved_mg) / 1000.0, 2) AS available_g,
       CASE WHEN sp.initial_mg > 0 THEN round(b.balance_mg * 100.0 / sp.initial_mg, 1) END AS percent_remaining, b.balance_mg <= sp.low_stock_mg AS is_low,
       round(sp.initial_mg / 1000.0, 2) AS initial_weight_g, round(sp.tare_mg / 1000.0, 2) AS tare_g, round(sp.low_stock_mg / 1000.0, 2) AS low_stock_threshold_g,
       ps.printer_id, p.name AS printer_name, ps.slot_number, sp.storage_location, sp.rfid_tag, sp.vendor, sp.lot_number, sp.price, sp.currency, sp.purchased_on, sp.last_dried_at, sp.notes,
       sp.org_id, sp.created_at, sp.updated_at
  FROM odin.spools sp
  JOIN odin.filaments f ON f.id = sp.filament_id
  JOIN odin.spool_balances b ON b.spool_id = sp.id
  LEFT JOIN odin.printer_slots ps ON ps.spool_id = sp.id
  LEFT JOIN odin.printers p ON p.id = ps.printer_id;
COMMENT ON VIEW odin.spool_view IS 'Spools as the tools show them: grams left, promised and free, and where they are.';

CREATE OR REPLACE VIEW odin.order_view WITH (security_invoker = true) AS
SELECT o.id, o.order_number, o.status, o.customer_id, c.name AS customer_name, o.channel, o.external_id, o.priority, o.ordered_at AS order_date, o.due_at AS due_date, o.shipped_at AS shipped_date,
       o.carrier, o.tracking_number, t.total_items, t.fulfilled_items, t.subtotal,
       round((t.subtotal - o.discount + o.shipping_charged) * (1 + o.tax_pct / 100), 2) AS total, o.currency,
       o.shipping_charged, o.shipping_cost, o.platform_fees, o.payment_fees, o.discount, o.tax_pct, o.labor_minutes, o.notes, o.cancel_reason, o.org_id, o.created_at, o.updated_at
  FROM odin.orders o
  LEFT JOIN odin.customers c ON c.id = o.customer_id
  LEFT JOIN LATERAL (SELECT coalesce(sum(l.quantity), 0) AS total_items, coalesce(sum(l.fulfilled), 0) AS fulfilled_items, round(coalesce(sum(l.quantity * l.unit_price), 0), 2) AS subtotal
                       FROM odin.order_lines l WHERE l.order_id = o.id AND l.status = 'open' AND NOT l.is_stock) t ON true
 WHERE NOT o.is_stock;
COMMENT ON VIEW odin.order_view IS 'Customers'' orders as the tools show them; the org''s standing stock order is left out.';

CREATE OR REPLACE VIEW odin.alert_view WITH (security_invoker = true) AS
SELECT a.id, a.type AS alert_type, a.severity, a.title, a.message, a.is_read, a.is_dismissed, a.printer_id, p.name AS printer_name, a.job_id, a.run_id, a.spool_id, a.order_id, a.recipient, a.data, a.org_id, a.created_at
  FROM odin.alerts a LEFT JOIN odin.printers p ON p.id = a.printer_id;
COMMENT ON VIEW odin.alert_view IS 'Alerts as the tools show them.';
GRANT SELECT ON odin.alert_view TO odin_viewer;
GRANT SELECT ON odin.job_view, odin.printer_view, odin.spool_view TO odin_viewer;

-- A view reads as its caller, so the customer's stands by itself: order_view names columns that a customer may not read.
CREATE OR REPLACE VIEW odin.customer_order_view WITH (security_invoker = true) AS
SELECT o.id, o.order_number, o.status, o.customer_id, c.name AS customer_name, o.channel, o.external_id, o.priority, o.ordered_at AS order_date, o.due_at AS due_date, o.shipped_at AS shipped_date,
       o.carrier, o.tracking_number, t.total_items, t.fulfilled_items, t.subtotal,
       round((t.subtotal - o.discount + o.shipping_charged) * (1 + o.tax_pct / 100), 2) AS total, o.currency, o.shipping_charged, o.discount, o.tax_pct, o.org_id, o.created_at, o.updated_at
  FROM odin.orders o
  LEFT JOIN odin.customers c ON c.id = o.customer_id
  LEFT JOIN LATERAL (SELECT coalesce(sum(l.quantity), 0) AS total_items, coalesce(sum(l.fulfilled), 0) AS fulfilled_items, round(coalesce(sum(l.quantity * l.unit_price), 0), 2) AS subtotal
                       FROM odin.order_lines l WHERE l.order_id = o.id AND l.status = 'open' AND NOT l.is_stock) t ON true
 WHERE NOT o.is_stock;
COMMENT ON VIEW odin.customer_order_view IS 'Orders as the customer may see them: no fees, no shipping cost, no working time, no notes of the staff.';
GRANT SELECT ON odin.order_view TO odin_viewer;
GRANT SELECT ON odin.customer_order_view TO odin_viewer, odin_customer;
