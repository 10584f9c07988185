-- Verbs on upkeep: what is due, done, changed; nozzles.

CREATE OR REPLACE FUNCTION odin.list_maintenance_tasks(overdue_only boolean DEFAULT false, printer_id bigint DEFAULT NULL, due text DEFAULT NULL, "limit" integer DEFAULT 200, cursor text DEFAULT NULL)
RETURNS SETOF odin.maintenance_status
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  k jsonb := odin.cursor_decode(list_maintenance_tasks.cursor);
  orgs bigint[] := odin._visible_orgs();
BEGIN
  RETURN QUERY SELECT m.* FROM odin.maintenance_status m WHERE m.org_id = ANY (orgs) AND (NOT overdue_only OR m.due = 'overdue') AND (list_maintenance_tasks.due IS NULL OR m.due = list_maintenance_tasks.due)
     AND (list_maintenance_tasks.printer_id IS NULL OR m.printer_id = list_maintenance_tasks.printer_id) AND (k IS NULL OR (m.task_id, m.printer_id) > ((k->>0)::bigint, (k->>1)::bigint))
   ORDER BY m.task_id, m.printer_id LIMIT list_maintenance_tasks."limit";
END $f$;
COMMENT ON FUNCTION odin.list_maintenance_tasks(boolean, bigint, text, integer, text) IS 'Lists maintenance per task and printer: hours of printing and days since it was done, and whether it is ok, due_soon or overdue. Record work with complete_maintenance.';

CREATE OR REPLACE FUNCTION odin.complete_maintenance(task_id bigint, printer_id bigint DEFAULT NULL, notes text DEFAULT NULL, cost numeric DEFAULT NULL, downtime_minutes integer DEFAULT NULL, performed_by text DEFAULT NULL, performed_at timestamptz DEFAULT now()) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  org bigint := odin._mine('maintenance_task', complete_maintenance.task_id, 'task_id');
  t odin.maintenance_tasks;
  target bigint := complete_maintenance.printer_id;
  n integer;
  made odin.maintenance_log;
BEGIN
  SELECT * INTO t FROM odin.maintenance_tasks x WHERE x.id = complete_maintenance.task_id;
  IF target IS NULL THEN
    -- One printer only, or one that is due only: then it is clear which one was meant.
    SELECT count(*), min(m.printer_id) INTO n, target FROM odin.maintenance_status m WHERE m.task_id = t.id;
    IF n <> 1 THEN
      SELECT count(*), min(m.printer_id) INTO n, target FROM odin.maintenance_status m WHERE m.task_id = t.id AND m.due = 'overdue';
    END IF;
    IF n <> 1 THEN
      PERFORM odin.fail('validation_failed', format('printer_id: %s concerns several printers; say on which one it was done', t.name), 'Call list_maintenance_tasks to see them.',
        jsonb_build_object('field', 'printer_id', 'printer_ids', (SELECT jsonb_agg(m.printer_id ORDER BY m.printer_id) FROM odin.maintenance_status m WHERE m.task_id = t.id)));
    END IF;
  ELSIF odin._mine('printer', target) <> org OR NOT EXISTS (SELECT 1 FROM odin.maintenance_status m WHERE m.task_id = t.id AND m.printer_id = target) THEN
    PERFORM odin.fail('validation_failed', format('printer_id: %s is not a task of printer %s', t.name, target), 'Call list_maintenance_tasks with this printer_id.', '{"field":"printer_id"}');
  END IF;
  IF performed_at > now() + interval '1 minute' THEN PERFORM odin.fail('validation_failed', 'performed_at: lies in the future', NULL, '{"field":"performed_at"}'); END IF;
  INSERT INTO odin.maintenance_log(org_id, printer_id, printer_name, task_id, task_name, performed_by, performed_at, notes, cost, currency, downtime_minutes)
  VALUES (org, target, '', t.id, t.name, coalesce(complete_maintenance.performed_by, odin.actor()), complete_maintenance.performed_at, complete_maintenance.notes, coalesce(complete_maintenance.cost, t.estimated_cost), odin._currency(org),
    coalesce(complete_maintenance.downtime_minutes, t.estimated_downtime_minutes)) RETURNING * INTO made;
  UPDATE odin.alerts a SET is_read = true, is_dismissed = true, read_by = odin.actor(), read_at = now() WHERE a.printer_id = target AND a.type = 'maintenance_overdue' AND NOT a.is_dismissed AND (a.data->>'task_id')::bigint = t.id;
  PERFORM odin.would(jsonb_build_object('action', 'complete_maintenance', 'printer', made.printer_name, 'printer_id', target, 'task_id', t.id, 'task_name', t.name, 'notes', made.notes, 'cost', made.cost, 'downtime_minutes', made.downtime_minutes,
    'print_hours_at_service', round(made.print_seconds_at_service / 3600.0, 1)));
  PERFORM odin.suggest('list_maintenance_tasks', jsonb_build_object('printer_id', target), 'see what else is due on this printer');
  RETURN jsonb_build_object('id', made.id, 'message', format('%s done on %s', t.name, made.printer_name), 'task_id', t.id, 'printer_id', target, 'print_hours_at_service', round(made.print_seconds_at_service / 3600.0, 1),
    'cost', made.cost, 'downtime_minutes', made.downtime_minutes, 'performed_by', made.performed_by);
END $f$;
COMMENT ON FUNCTION odin.complete_maintenance(bigint, bigint, text, numeric, integer, text, timestamptz) IS 'Records that a maintenance task was done on a printer; its counters start again. printer_id may be left out when only one printer has the task or only one is overdue.';

CREATE OR REPLACE FUNCTION odin.save_maintenance_task(task_id bigint DEFAULT NULL, name text DEFAULT NULL, description text DEFAULT NULL, printer_id bigint DEFAULT NULL, printer_model_filter text DEFAULT NULL, interval_print_hours numeric DEFAULT NULL,
  interval_days integer DEFAULT NULL, estimated_cost numeric DEFAULT NULL, estimated_downtime_minutes integer DEFAULT NULL, blocks_printing boolean DEFAULT NULL, archived boolean DEFAULT NULL) RETURNS odin.maintenance_tasks
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  t odin.maintenance_tasks;
BEGIN
  IF save_maintenance_task.printer_id IS NOT NULL THEN PERFORM odin._mine('printer', save_maintenance_task.printer_id); END IF;
  IF save_maintenance_task.task_id IS NULL THEN
    PERFORM odin._not_null(save_maintenance_task.name, 'name');
    INSERT INTO odin.maintenance_tasks(org_id, name, description, printer_id, printer_model_filter, interval_print_hours, interval_days, estimated_cost, estimated_downtime_minutes, blocks_printing)
    VALUES (odin._new_in(), save_maintenance_task.name, save_maintenance_task.description, save_maintenance_task.printer_id, save_maintenance_task.printer_model_filter, save_maintenance_task.interval_print_hours, save_maintenance_task.interval_days,
      coalesce(save_maintenance_task.estimated_cost, 0), coalesce(save_maintenance_task.estimated_downtime_minutes, 30), coalesce(save_maintenance_task.blocks_printing, false)) RETURNING * INTO t;
  ELSE
    PERFORM odin._mine('maintenance_task', save_maintenance_task.task_id, 'task_id');
    UPDATE odin.maintenance_tasks x SET name = coalesce(save_maintenance_task.name, x.name), description = coalesce(save_maintenance_task.description, x.description), printer_id = coalesce(save_maintenance_task.printer_id, x.printer_id),
      printer_model_filter = coalesce(save_maintenance_task.printer_model_filter, x.printer_model_filter), interval_print_hours = coalesce(save_maintenance_task.interval_print_hours, x.interval_print_hours),
      interval_days = coalesce(save_maintenance_task.interval_days, x.interval_days), estimated_cost = coalesce(save_maintenance_task.estimated_cost, x.estimated_cost),
      estimated_downtime_minutes = coalesce(save_maintenance_task.estimated_downtime_minutes, x.estimated_downtime_minutes), blocks_printing = coalesce(save_maintenance_task.blocks_printing, x.blocks_printing),
      is_active = coalesce(NOT archived, x.is_active) WHERE x.id = save_maintenance_task.task_id RETURNING * INTO t;
  END IF;
  RETURN t;
END $f$;
COMMENT ON FUNCTION odin.save_maintenance_task IS 'Adds a maintenance task, or changes one when task_id is given: interval in printing hours, days or both; for one printer, for models whose name contains a text, or for all. blocks_printing keeps jobs off a printer while it is overdue.';

CREATE OR REPLACE FUNCTION odin.change_nozzle(printer_id bigint, diameter_mm numeric DEFAULT 0.4, type text DEFAULT 'brass', tool integer DEFAULT 0) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  org bigint := odin._mine('printer', change_nozzle.printer_id);
  old odin.nozzles;
  made bigint;
BEGIN
  UPDATE odin.nozzles n SET removed_at = now() WHERE n.printer_id = change_nozzle.printer_id AND n.tool = change_nozzle.tool AND n.removed_at IS NULL RETURNING * INTO old;
  INSERT INTO odin.nozzles(org_id, printer_id, tool, diameter_mm, type) VALUES (org, change_nozzle.printer_id, change_nozzle.tool, change_nozzle.diameter_mm, change_nozzle.type) RETURNING id INTO made;
  RETURN jsonb_build_object('success', true, 'printer_id', change_nozzle.printer_id, 'nozzle_id', made, 'diameter_mm', change_nozzle.diameter_mm, 'type', change_nozzle.type, 'tool', change_nozzle.tool,
    'removed', CASE WHEN old.id IS NOT NULL THEN jsonb_build_object('nozzle_id', old.id, 'diameter_mm', old.diameter_mm, 'type', old.type, 'print_hours', round(old.print_seconds / 3600.0, 1), 'runs', old.runs) END);
END $f$;
COMMENT ON FUNCTION odin.change_nozzle(bigint, numeric, text, integer) IS 'Records a nozzle change on a printer; matching uses diameter and type from now on, and the old one''s life is kept.';
GRANT EXECUTE ON FUNCTION odin.list_maintenance_tasks(boolean, bigint, text, integer, text) TO odin_viewer;
GRANT EXECUTE ON FUNCTION odin.complete_maintenance(bigint, bigint, text, numeric, integer, text, timestamptz), odin.save_maintenance_task, odin.change_nozzle(bigint, numeric, text, integer) TO odin_operator;
