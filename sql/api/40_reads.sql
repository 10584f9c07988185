-- Read tools: the farm at a glance, printers, jobs, queue. Lists go through one index range per org (and state), so they stay flat as history grows.

CREATE OR REPLACE FUNCTION odin.farm_summary() RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  orgs bigint[] := odin._visible_orgs();
  answer jsonb;
BEGIN
  SELECT jsonb_build_object(
    'printer_count', coalesce(p.n, 0), 'printer_states', coalesce(p.states, '{}'),
    'queue_depth', coalesce((j.by_status->>'pending')::int, 0) + coalesce((j.by_status->>'scheduled')::int, 0),
    'active_jobs', coalesce((j.by_status->>'printing')::int, 0) + coalesce((j.by_status->>'paused')::int, 0),
    'waiting_approval', coalesce((j.by_status->>'submitted')::int, 0), 'jobs', coalesce(j.by_status, '{}'), 'held_jobs', q.held,
    'late_jobs', q.late, 'unread_alerts', coalesce(a.n, 0), 'alerts_by_severity', coalesce(a.by_severity, '{}'),
    'beds_to_clear', (SELECT count(*) FROM odin.beds b WHERE b.org_id = ANY (orgs) AND b.occupied AND NOT EXISTS (SELECT 1 FROM odin.runs r WHERE r.printer_id = b.printer_id AND r.status IN ('claimed','starting','printing','paused','unknown'))),
    'open_orders', (SELECT count(*) FROM odin.orders o WHERE o.org_id = ANY (orgs) AND o.status IN ('pending','in_progress','partial') AND NOT o.is_stock),
    'at', now()) INTO answer
  FROM (SELECT sum(x.n)::int AS n, jsonb_object_agg(x.state, x.n) AS states FROM (SELECT s.state, count(*) AS n FROM odin.printer_state s JOIN odin.printers p ON p.id = s.printer_id
          WHERE p.org_id = ANY (orgs) AND p.is_active GROUP BY s.state) x) p,
       (SELECT jsonb_object_agg(x.status, x.n) AS by_status FROM (SELECT w.status, count(*) AS n FROM odin.jobs w WHERE w.org_id = ANY (orgs)
          AND w.status IN ('submitted','rejected','pending','scheduled','printing','paused') GROUP BY w.status) x) j,
       (SELECT count(*) FILTER (WHERE w.hold) AS held, count(*) FILTER (WHERE w.start_by < now() AND w.due_at IS NOT NULL) AS late FROM odin.jobs w WHERE w.org_id = ANY (orgs) AND w.status IN ('pending','scheduled')) q,
       (SELECT sum(x.n)::int AS n, jsonb_object_agg(x.severity, x.n) AS by_severity FROM (SELECT t.severity, count(*) AS n FROM odin.alerts t WHERE t.org_id = ANY (orgs) AND NOT t.is_read AND NOT t.is_dismissed
          AND (t.recipient IS NULL OR t.recipient = odin.actor()) GROUP BY t.severity) x) a;
  RETURN answer;
END $f$;
COMMENT ON FUNCTION odin.farm_summary() IS 'Shows the whole farm at a glance: printers per state, queue depth, active jobs, unread alerts, beds to clear, late jobs. Call this first. All counts are true totals.';

CREATE OR REPLACE FUNCTION odin.list_printers(status_filter text DEFAULT NULL, group_name text DEFAULT NULL, tag text DEFAULT NULL, include_inactive boolean DEFAULT false, "limit" integer DEFAULT 100, cursor text DEFAULT NULL)
RETURNS SETOF odin.printer_view
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  after_id bigint := (odin.cursor_decode(cursor)->>0)::bigint;
  orgs bigint[] := odin._visible_orgs();
BEGIN
  RETURN QUERY SELECT v.* FROM odin.printer_view v
    WHERE v.org_id = ANY (orgs) AND (v.is_active OR include_inactive) AND (after_id IS NULL OR v.id > after_id)
      AND (status_filter IS NULL OR v.status = status_filter OR (status_filter = 'error' AND v.status = 'degraded'))
      AND (list_printers.group_name IS NULL OR lower(v.group_name) = lower(list_printers.group_name)) AND (tag IS NULL OR tag = ANY (v.tags))
    ORDER BY v.id LIMIT "limit";
END $f$;
COMMENT ON FUNCTION odin.list_printers(text, text, text, boolean, integer, text) IS 'Lists the printers with their last reported state, what is loaded and what they print. status_filter keeps one state, e.g. idle or printing. A printer is free for a new job when status is idle, bed_occupied is false and is_held is false.';

CREATE OR REPLACE FUNCTION odin.get_printer(id bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  p jsonb := (SELECT to_jsonb(v) FROM odin.printer_view v WHERE v.id = get_printer.id);
BEGIN
  IF p IS NULL THEN
    PERFORM odin.fail('printer_not_found', format('id: there is no printer %s', get_printer.id), NULL, '{"field":"id"}');
  END IF;
  RETURN p || jsonb_build_object(
    'slots', (SELECT coalesce(jsonb_agg(jsonb_build_object('slot_number', s.slot_number, 'spool_id', s.spool_id, 'spool', sp.code, 'filament_type', f.material, 'brand', f.brand, 'color_hex', f.color_hex,
                'remaining_grams', round(b.balance_mg / 1000.0, 1), 'confirmed', s.confirmed, 'reported_material', s.reported_material, 'reported_color', s.reported_color, 'loaded_at', s.loaded_at) ORDER BY s.slot_number), '[]')
                FROM odin.printer_slots s LEFT JOIN odin.spools sp ON sp.id = s.spool_id LEFT JOIN odin.filaments f ON f.id = sp.filament_id LEFT JOIN odin.spool_balances b ON b.spool_id = s.spool_id WHERE s.printer_id = get_printer.id),
    'active_job', (SELECT jsonb_build_object('job_id', r.job_id, 'run_id', r.id, 'item_name', j.name, 'run_status', r.status, 'started_at', r.started_at, 'progress_percent', p->'progress_percent',
                'remaining_seconds', p->'remaining_seconds', 'planned_hours', round(r.planned_seconds / 3600.0, 2), 'grams', round(r.planned_mg / 1000.0, 1))
                FROM odin.runs r JOIN odin.jobs j ON j.id = r.job_id WHERE r.printer_id = get_printer.id AND r.status IN ('claimed','starting','printing','paused','unknown')),
    'telemetry', (SELECT jsonb_build_object('nozzle_c', round(s.tool_c::numeric, 1), 'nozzle_target_c', round(s.tool_target_c::numeric, 1), 'bed_c', round(s.bed_c::numeric, 1), 'bed_target_c', round(s.bed_target_c::numeric, 1),
                'chamber_c', round(s.chamber_c::numeric, 1), 'layer', s.layer, 'total_layers', s.total_layers, 'fan_percent', s.fan_pct, 'speed_percent', s.speed_pct, 'lights_on', s.lights_on, 'file_name', s.file_name,
                'reported_at', s.reported_at, 'raw_state', s.raw_state) FROM odin.printer_state s WHERE s.printer_id = get_printer.id),
    'next_jobs', (SELECT coalesce(jsonb_agg(x.o), '[]') FROM (SELECT jsonb_build_object('job_id', j.id, 'item_name', j.name, 'scheduled_start', j.scheduled_start, 'scheduled_end', j.scheduled_end) AS o
                FROM odin.jobs j WHERE j.scheduled_printer_id = get_printer.id AND j.status = 'scheduled' ORDER BY j.scheduled_start LIMIT 10) x),
    'recent_errors', (SELECT coalesce(jsonb_agg(x.o), '[]') FROM (SELECT jsonb_build_object('at', e.at, 'kind', e.kind, 'severity', e.severity, 'code', e.code, 'message', e.message) AS o
                FROM odin.printer_events e WHERE e.printer_id = get_printer.id AND e.severity <> 'info' ORDER BY e.id DESC LIMIT 5) x),
    'maintenance_due', (SELECT coalesce(jsonb_agg(jsonb_build_object('task_id', m.task_id, 'task_name', m.task_name, 'due', m.due, 'percent_of_interval', m.percent_of_interval, 'blocks_printing', m.blocks_printing) ORDER BY m.percent_of_interval DESC), '[]')
                FROM odin.maintenance_status m WHERE m.printer_id = get_printer.id AND m.due <> 'ok'),
    'open_commands', (SELECT coalesce(jsonb_agg(jsonb_build_object('command_id', c.id, 'verb', c.verb, 'state', c.state, 'requested_by', c.requested_by, 'created_at', c.created_at) ORDER BY c.id), '[]')
                FROM odin.commands c WHERE c.printer_id = get_printer.id AND c.state IN ('queued','claimed','sent','in_doubt')),
    'limits', (SELECT jsonb_build_object('max_nozzle_c', x.max_tool_c, 'max_bed_c', x.max_bed_c, 'max_move_mm', x.max_move_mm, 'max_feed_mm_min', x.max_feed_mm_min) FROM odin.printers x WHERE x.id = get_printer.id));
END $f$;
COMMENT ON FUNCTION odin.get_printer(bigint) IS 'Shows one printer in full: reported state and its age, temperatures, active job with progress and remaining time, slots with spools, next scheduled jobs, recent errors, maintenance due, open commands.';

-- The states behind a filter word: the farm's own and the words of older clients.
CREATE OR REPLACE FUNCTION odin._job_states(word text) RETURNS text[]
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT CASE word WHEN 'queued' THEN ARRAY['pending','scheduled'] WHEN 'waiting' THEN ARRAY['pending','scheduled'] WHEN 'active' THEN ARRAY['printing','paused']
    ELSE CASE WHEN word IS NULL THEN ARRAY['submitted','rejected','pending','scheduled','printing','paused','completed','failed','cancelled'] ELSE ARRAY[word] END END;
$f$;

CREATE OR REPLACE FUNCTION odin.list_jobs(status_filter text DEFAULT NULL, "limit" integer DEFAULT 100, cursor text DEFAULT NULL, printer_id bigint DEFAULT NULL, model_id bigint DEFAULT NULL, order_id bigint DEFAULT NULL, customer_id bigint DEFAULT NULL)
RETURNS SETOF odin.job_view
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  before_id bigint := coalesce((odin.cursor_decode(cursor)->>0)::bigint, 9223372036854775807);
  orgs bigint[] := odin._visible_orgs();
  states text[] := odin._job_states(status_filter);
  ids bigint[];
BEGIN
  IF order_id IS NOT NULL THEN
    ids := ARRAY(SELECT j.id FROM odin.jobs j JOIN odin.order_lines l ON l.id = j.order_line_id WHERE l.order_id = list_jobs.order_id AND j.status = ANY (states) AND j.id < before_id
                    AND (list_jobs.model_id IS NULL OR j.model_id = list_jobs.model_id) AND (list_jobs.customer_id IS NULL OR j.customer_id = list_jobs.customer_id)
                    AND (list_jobs.printer_id IS NULL OR j.printer_id = list_jobs.printer_id OR j.scheduled_printer_id = list_jobs.printer_id OR EXISTS (SELECT 1 FROM odin.runs r WHERE r.job_id = j.id AND r.printer_id = list_jobs.printer_id))
                  ORDER BY j.id DESC LIMIT "limit");
  ELSIF printer_id IS NOT NULL THEN
    ids := ARRAY(SELECT x.id FROM (
        (SELECT j.id FROM odin.runs r JOIN odin.jobs j ON j.id = r.job_id WHERE r.printer_id = list_jobs.printer_id AND j.status = ANY (states) AND j.id < before_id
            AND (list_jobs.model_id IS NULL OR j.model_id = list_jobs.model_id) AND (list_jobs.customer_id IS NULL OR j.customer_id = list_jobs.customer_id) ORDER BY r.id DESC LIMIT "limit")
        UNION
        (SELECT j.id FROM odin.jobs j WHERE j.org_id = ANY (orgs) AND j.status IN ('submitted','rejected','pending','scheduled','printing','paused') AND j.status = ANY (states) AND j.id < before_id
            AND (j.printer_id = list_jobs.printer_id OR j.scheduled_printer_id = list_jobs.printer_id)
            AND (list_jobs.model_id IS NULL OR j.model_id = list_jobs.model_id) AND (list_jobs.customer_id IS NULL OR j.customer_id = list_jobs.customer_id))) x ORDER BY x.id DESC LIMIT "limit");
  ELSIF model_id IS NOT NULL OR customer_id IS NOT NULL THEN
    ids := ARRAY(SELECT j.id FROM odin.jobs j WHERE (list_jobs.model_id IS NULL OR j.model_id = list_jobs.model_id) AND (list_jobs.customer_id IS NULL OR j.customer_id = list_jobs.customer_id)
                    AND j.status = ANY (states) AND j.id < before_id ORDER BY j.id DESC LIMIT "limit");
  ELSE
    ids := odin._jobs_page(states, before_id, "limit");
  END IF;
  RETURN QUERY SELECT v.* FROM odin.job_view v WHERE v.id = ANY (ids) ORDER BY v.id DESC;
END $f$;
COMMENT ON FUNCTION odin.list_jobs(text, integer, text, bigint, bigint, bigint, bigint) IS 'Lists jobs, newest first. status_filter: submitted, pending, scheduled, printing, paused, completed, failed, cancelled, rejected; queued = pending and scheduled. Filter by printer, model, order or customer as well. For the order in which waiting jobs will start use list_queue.';

CREATE OR REPLACE FUNCTION odin.get_job(id bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  j jsonb := (SELECT to_jsonb(v) FROM odin.job_view v WHERE v.id = get_job.id);
BEGIN
  IF j IS NULL THEN
    PERFORM odin.fail('job_not_found', format('id: there is no job %s', get_job.id), NULL, '{"field":"id"}');
  END IF;
  RETURN j || jsonb_build_object(
    'job_id', get_job.id,
    'materials', (SELECT coalesce(jsonb_agg(jsonb_build_object('tool', n.tool, 'material', n.material, 'brand', n.brand, 'filament_id', n.filament_id, 'color_hex', n.color_hex, 'grams', round(n.mg / 1000.0, 2)) ORDER BY n.tool), '[]')
                    FROM odin._job_needs(get_job.id, (j->>'model_revision_id')::bigint) n),
    'runs', (SELECT coalesce(jsonb_agg(jsonb_build_object('run_id', r.id, 'printer_id', r.printer_id, 'status', r.status, 'started_at', r.started_at, 'finished_at', r.finished_at, 'good', r.good, 'scrapped', r.scrapped,
                'verdict', r.verdict, 'fail_reason', r.fail_reason, 'fail_notes', r.fail_notes, 'grams_used', round(r.used_mg / 1000.0, 2), 'cost', r.cost,
                'slots', (SELECT coalesce(jsonb_agg(jsonb_build_object('tool', s.tool, 'slot_number', s.slot_number, 'spool_id', s.spool_id, 'planned_grams', round(s.planned_mg / 1000.0, 2)) ORDER BY s.tool), '[]') FROM odin.run_slots s WHERE s.run_id = r.id)) ORDER BY r.id), '[]')
                FROM odin.runs r WHERE r.job_id = get_job.id),
    'requeued_as', (SELECT coalesce(jsonb_agg(q.id ORDER BY q.id), '[]') FROM odin.jobs q WHERE q.requeued_from_run_id IN (SELECT r.id FROM odin.runs r WHERE r.job_id = get_job.id)));
END $f$;
COMMENT ON FUNCTION odin.get_job(bigint) IS 'Shows one job in full: state, order, model, materials, printer, progress, cost, every run with its result, and the jobs that replace it. To learn why it does not start, call why_waiting.';

CREATE OR REPLACE FUNCTION odin.list_queue("limit" integer DEFAULT 100, cursor text DEFAULT NULL, include_held boolean DEFAULT true)
RETURNS SETOF odin.job_view
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  k jsonb := odin.cursor_decode(cursor);
  p numeric := coalesce((k->>0)::numeric, CASE WHEN k IS NULL THEN '-infinity' ELSE 'infinity' END::numeric);
  s timestamptz := coalesce((k->>1)::timestamptz, '-infinity');
  r smallint := coalesce((k->>2)::smallint, -1);
  after_id bigint := coalesce((k->>3)::bigint, 0);
  ids bigint[];
BEGIN
  ids := odin._queue_page(p, s, r, after_id, include_held, "limit");
  RETURN QUERY SELECT v.* FROM odin.job_view v WHERE v.id = ANY (ids)
    ORDER BY coalesce(v.queue_position, 'infinity'::numeric), v.start_by, v.priority, v.id;
END $f$;
COMMENT ON FUNCTION odin.list_queue(integer, text, boolean) IS 'Lists the jobs that wait, in the order in which they should start: jobs moved by hand first, then by start_by (the sooner of due date minus printing time, and what the priority allows; a lower priority number is sooner). why_waiting says what keeps a job from starting.';
GRANT EXECUTE ON FUNCTION odin._job_states(text), odin._job_needs(bigint, bigint), odin.farm_summary(), odin.list_printers(text, text, text, boolean, integer, text), odin.get_printer(bigint),
  odin.list_jobs(text, integer, text, bigint, bigint, bigint, bigint), odin.get_job(bigint), odin.list_queue(integer, text, boolean) TO odin_viewer;
