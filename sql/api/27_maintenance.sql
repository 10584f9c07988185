-- What is due: one row per printer and task. Computed, never stored, so it cannot go stale.

CREATE OR REPLACE VIEW odin.maintenance_status WITH (security_invoker = true) AS
SELECT t.org_id, t.id AS task_id, t.name AS task_name, p.id AS printer_id, p.name AS printer_name, t.blocks_printing,
       t.interval_print_hours, t.interval_days, t.estimated_cost, t.estimated_downtime_minutes,
       l.performed_at AS last_done_at, l.performed_by AS last_done_by,
       round(u.hours_since, 1) AS print_hours_since, round(u.days_since, 1) AS days_since, round(u.pct, 0) AS percent_of_interval,
       CASE WHEN u.pct >= 100 THEN 'overdue' WHEN u.pct >= 80 THEN 'due_soon' ELSE 'ok' END AS due
  FROM odin.maintenance_tasks t
  JOIN odin.printers p ON p.org_id = t.org_id AND p.is_active AND (t.printer_id IS NULL OR t.printer_id = p.id)
   AND (t.printer_model_filter IS NULL OR strpos(lower(coalesce(p.model, '')), lower(t.printer_model_filter)) > 0)
  JOIN odin.printer_totals c ON c.printer_id = p.id
  LEFT JOIN LATERAL (SELECT g.performed_at, g.performed_by, g.print_seconds_at_service FROM odin.maintenance_log g
                      WHERE g.printer_id = p.id AND g.task_id = t.id ORDER BY g.performed_at DESC LIMIT 1) l ON true
  CROSS JOIN LATERAL (SELECT (c.print_seconds - coalesce(l.print_seconds_at_service, 0)) / 3600.0 AS hours_since,
                             extract(epoch FROM now() - coalesce(l.performed_at, greatest(p.created_at, t.created_at))) / 86400.0 AS days_since) d
  CROSS JOIN LATERAL (SELECT d.hours_since, d.days_since, greatest(d.hours_since / t.interval_print_hours, d.days_since / t.interval_days) * 100 AS pct) u
 WHERE t.is_active;
COMMENT ON VIEW odin.maintenance_status IS 'Per printer and task: how long since it was done, percent of the interval, and ok, due_soon (80 %) or overdue (100 %).';
GRANT SELECT ON odin.maintenance_status TO odin_viewer;

-- Whose work it is and at what reading is recorded by the table, not by the writer.
CREATE OR REPLACE FUNCTION odin._maintenance_stamp() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  SELECT p.name INTO NEW.printer_name FROM odin.printers p WHERE p.id = NEW.printer_id;
  NEW.task_name := coalesce((SELECT t.name FROM odin.maintenance_tasks t WHERE t.id = NEW.task_id), NEW.task_name);
  NEW.print_seconds_at_service := coalesce((SELECT c.print_seconds FROM odin.printer_totals c WHERE c.printer_id = NEW.printer_id), 0);
  RETURN NEW;
END $f$;
CREATE OR REPLACE TRIGGER odin_stamp BEFORE INSERT ON odin.maintenance_log FOR EACH ROW EXECUTE FUNCTION odin._maintenance_stamp();

-- Tasks of a printer that a run just pushed past their interval: one alert each, until it is dismissed or done.
CREATE OR REPLACE FUNCTION odin._maintenance_alerts(printer bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  s record;
BEGIN
  FOR s IN SELECT * FROM odin.maintenance_status m WHERE m.printer_id = printer AND m.due = 'overdue' LOOP
    CONTINUE WHEN EXISTS (SELECT 1 FROM odin.alerts a WHERE a.printer_id = printer AND a.type = 'maintenance_overdue' AND NOT a.is_dismissed AND (a.data->>'task_id')::bigint = s.task_id
                             AND a.created_at > coalesce(s.last_done_at, '-infinity'));
    PERFORM odin._alert(s.org_id, 'maintenance_overdue', format('%s is overdue on %s', s.task_name, s.printer_name),
      format('%s h of printing and %s days since it was done', s.print_hours_since, s.days_since), printer => printer, data => jsonb_build_object('task_id', s.task_id));
  END LOOP;
END $f$;
