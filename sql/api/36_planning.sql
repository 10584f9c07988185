-- Planning: all waiting jobs onto all printers at once. Static rules make classes of jobs and of printers, so the matrix stays small; a Rust leaf solves it.
-- A plan promises nothing: whether a job may start is decided again, by the same rules, when it is claimed.

-- Hours in which nothing may start, as [from, until] in seconds from now.
CREATE OR REPLACE FUNCTION odin._blackout_seconds(b odin.blackouts, horizon interval) RETURNS TABLE(from_s bigint, until_s bigint)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT extract(epoch FROM b.from_at - now())::bigint, extract(epoch FROM b.until_at - now())::bigint WHERE b.from_at IS NOT NULL AND b.until_at > now()
  UNION ALL
  SELECT extract(epoch FROM (d + b.from_time) AT TIME ZONE b.time_zone - now())::bigint,
         extract(epoch FROM (d + b.until_time + CASE WHEN b.until_time < b.from_time THEN interval '1 day' ELSE '0' END) AT TIME ZONE b.time_zone - now())::bigint
    FROM generate_series(date_trunc('day', now() AT TIME ZONE b.time_zone) - interval '1 day', date_trunc('day', (now() + horizon) AT TIME ZONE b.time_zone), interval '1 day') d
   WHERE b.from_time IS NOT NULL AND extract(isodow FROM d)::smallint = ANY (b.days);
$f$;

-- Everything the solver needs to know about an org, with the ids that its places stand for.
CREATE OR REPLACE FUNCTION odin._plan_input(org bigint, horizon interval, most integer, replan boolean, include_offline boolean, OUT input jsonb, OUT job_ids bigint[], OUT printer_ids bigint[])
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $f$
#variable_conflict use_column
BEGIN
  WITH waiting AS MATERIALIZED (
    SELECT j.id, j.revision_id, j.printer_id, j.target_type, lower(j.target_filter) AS target_filter, j.required_tags, j.material_policy, j.estimated_seconds, j.due_at, j.start_by, j.priority, j.queue_position,
           row_number() OVER (ORDER BY coalesce(j.queue_position, 'infinity'::numeric), j.start_by, j.priority, j.id) AS place
      FROM odin.jobs j WHERE j.org_id = org AND j.status IN ('pending', 'scheduled') AND (replan OR j.status = 'pending') AND NOT j.hold
     ORDER BY coalesce(j.queue_position, 'infinity'::numeric), j.start_by, j.priority, j.id LIMIT most
  ), needs AS MATERIALIZED (
    -- One row per kind of need; a job that takes substitutes needs the material only.
    SELECT w.id, w.place, rm.tool, coalesce(jm.material, rm.material) AS material,
           CASE WHEN w.material_policy = 'hold' THEN CASE WHEN jm.job_id IS NULL THEN rm.brand ELSE jm.brand END END AS brand,
           CASE WHEN w.material_policy = 'hold' THEN CASE WHEN jm.job_id IS NULL THEN rm.filament_id ELSE jm.filament_id END END AS filament_id,
           CASE WHEN w.material_policy = 'hold' THEN CASE WHEN jm.job_id IS NULL THEN rm.color_hex ELSE jm.color_hex END END AS color_hex
      FROM waiting w JOIN odin.revision_materials rm ON rm.org_id = org AND rm.revision_id = w.revision_id LEFT JOIN odin.job_materials jm ON jm.job_id = w.id AND jm.tool = rm.tool
  ), sigs AS MATERIALIZED (
    SELECT (row_number() OVER (ORDER BY n.material, n.brand, n.filament_id, n.color_hex) - 1)::int AS sig, n.material, n.brand, n.filament_id, n.color_hex, f.color_hex AS filament_color, f.brand AS filament_brand
      FROM (SELECT DISTINCT material, brand, filament_id, color_hex FROM needs) n LEFT JOIN odin.filaments f ON f.id = n.filament_id
  ), job_needs AS (
    SELECT n.id, jsonb_agg(s.sig ORDER BY n.tool) AS needs FROM needs n JOIN sigs s ON s.material = n.material AND s.brand IS NOT DISTINCT FROM n.brand AND s.filament_id IS NOT DISTINCT FROM n.filament_id
       AND s.color_hex IS NOT DISTINCT FROM n.color_hex GROUP BY n.id
  ), classed AS MATERIALIZED (
    SELECT w.*, r.printer_model, r.protocols, r.nozzle_mm, r.size_x_mm, r.size_y_mm, r.size_z_mm, r.plate_surface, a.abrasive,
           (dense_rank() OVER (ORDER BY r.printer_model, r.protocols, r.nozzle_mm, r.size_x_mm, r.size_y_mm, r.size_z_mm, r.plate_surface, a.abrasive, CASE WHEN w.target_type = 'specific' THEN 'any' ELSE w.target_type END, w.target_filter, w.required_tags) - 1)::int AS class
      FROM waiting w JOIN odin.model_revisions r ON r.id = w.revision_id
      LEFT JOIN (SELECT n.id, true AS abrasive FROM needs n JOIN odin.filaments f ON f.id = n.filament_id AND f.abrasive GROUP BY n.id) a ON a.id = w.id
  ), blocked AS (
    SELECT m.printer_id FROM odin.maintenance_status m WHERE m.org_id = org AND m.blocks_printing AND m.due = 'overdue'
  ), machines AS MATERIALIZED (
    SELECT p.id, row_number() OVER (ORDER BY p.id) - 1 AS place, p.model, p.protocol, lower(p.group_name) AS group_name, p.tags, p.bed_x_mm, p.bed_y_mm, p.bed_z_mm, lower(p.plate_surface) AS plate_surface, nz.diameter_mm, nz.type AS nozzle_type,
           (p.changeover_minutes * 60)::bigint AS changeover, t.print_seconds / 3600.0 AS wear,
           greatest(CASE WHEN r.id IS NOT NULL THEN coalesce(s.remaining_seconds, greatest(r.planned_seconds - extract(epoch FROM now() - coalesce(r.started_at, now())), 60))::bigint WHEN b.occupied THEN 300 ELSE 0 END,
             CASE WHEN NOT replan THEN coalesce((SELECT extract(epoch FROM max(j.scheduled_end) - now())::bigint FROM odin.jobs j WHERE j.scheduled_printer_id = p.id AND j.status = 'scheduled'), 0) ELSE 0 END) AS free_at,
           (dense_rank() OVER (ORDER BY p.model, p.protocol, p.group_name, p.tags, p.bed_x_mm, p.bed_y_mm, p.bed_z_mm, p.plate_surface, nz.diameter_mm, nz.type) - 1)::int AS class
      FROM odin.printers p JOIN odin.printer_state s ON s.printer_id = p.id JOIN odin.beds b ON b.printer_id = p.id JOIN odin.printer_totals t ON t.printer_id = p.id
      LEFT JOIN odin.nozzles nz ON nz.printer_id = p.id AND nz.tool = 0 AND nz.removed_at IS NULL
      LEFT JOIN odin.runs r ON r.printer_id = p.id AND r.status IN ('claimed','starting','printing','paused','unknown')
     WHERE p.org_id = org AND p.is_active AND NOT p.is_held AND (include_offline OR s.state NOT IN ('offline', 'unknown', 'error')) AND p.id NOT IN (SELECT b.printer_id FROM blocked b)
  ), loaded AS (
    -- What each slot would satisfy, by the three levels of match.
    SELECT ps.printer_id, jsonb_agg(coalesce(x.sigs, '[]') ORDER BY ps.slot_number) AS slots FROM odin.printer_slots ps JOIN machines m ON m.id = ps.printer_id
      LEFT JOIN odin.spools sp ON sp.id = ps.spool_id AND sp.status = 'active' LEFT JOIN odin.filaments f ON f.id = sp.filament_id
      LEFT JOIN LATERAL (SELECT jsonb_agg(g.sig ORDER BY g.sig) AS sigs FROM sigs g WHERE g.material = f.material AND (g.filament_id IS NULL OR g.filament_id = f.id) AND (g.brand IS NULL OR lower(g.brand) = lower(f.brand))
           AND (g.color_hex IS NULL OR g.filament_id IS NOT NULL OR g.color_hex = f.color_hex)) x ON true
     GROUP BY ps.printer_id
  ), windows AS (
    SELECT m.id, jsonb_agg(jsonb_build_array(w.from_s, w.until_s) ORDER BY w.from_s) AS list FROM odin.blackouts b, LATERAL odin._blackout_seconds(b, horizon) w, machines m
     WHERE b.org_id = org AND b.is_active AND w.until_s > 0 AND (b.printer_id IS NULL OR b.printer_id = m.id) GROUP BY m.id
  ), job_classes AS (SELECT DISTINCT ON (class) * FROM classed ORDER BY class),
  printer_classes AS (SELECT DISTINCT ON (class) * FROM machines ORDER BY class),
  eligible AS (
    SELECT c.class, coalesce(jsonb_agg(q.class ORDER BY q.class) FILTER (WHERE q.class IS NOT NULL), '[]') AS can
      FROM job_classes c LEFT JOIN printer_classes q ON (c.printer_model IS NULL OR strpos(lower(coalesce(q.model, '')), lower(c.printer_model)) > 0) AND (c.protocols IS NULL OR q.protocol = ANY (c.protocols))
       AND (c.nozzle_mm IS NULL OR q.diameter_mm = c.nozzle_mm) AND NOT coalesce(c.size_x_mm > q.bed_x_mm + 2 OR c.size_y_mm > q.bed_y_mm + 2 OR c.size_z_mm > q.bed_z_mm, false)
       AND (c.plate_surface IS NULL OR lower(c.plate_surface) = q.plate_surface) AND NOT (coalesce(c.abrasive, false) AND coalesce(q.nozzle_type = 'brass', false)) AND q.tags @> c.required_tags
       AND CASE c.target_type WHEN 'model' THEN strpos(lower(coalesce(q.model, '')), c.target_filter) > 0 WHEN 'protocol' THEN q.protocol = c.target_filter WHEN 'group' THEN coalesce(q.group_name = c.target_filter, false) ELSE true END
     GROUP BY c.class
  )
  SELECT jsonb_build_object('horizon', extract(epoch FROM horizon)::bigint,
      'printers', (SELECT coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object('class', m.class, 'free_at', m.free_at, 'changeover', m.changeover, 'wear', round(m.wear, 1), 'slots', l.slots, 'windows', w.list)) ORDER BY m.place), '[]')
                     FROM machines m LEFT JOIN loaded l ON l.printer_id = m.id LEFT JOIN windows w ON w.id = m.id),
      'jobs', (SELECT coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object('class', c.class, 'seconds', greatest(c.estimated_seconds, 60), 'due', extract(epoch FROM c.due_at - now())::bigint, 'wanted', extract(epoch FROM c.start_by - now())::bigint + c.estimated_seconds,
                   'weight', (ARRAY[8, 4, 2, 1, 0.7, 0.5])[least(c.priority, 5) + 1], 'needs', n.needs, 'pin', CASE WHEN c.printer_id IS NOT NULL THEN coalesce((SELECT m.place FROM machines m WHERE m.id = c.printer_id), 1000000) END)) ORDER BY c.place), '[]')
                 FROM classed c LEFT JOIN job_needs n ON n.id = c.id),
      'by_hand', (SELECT coalesce(jsonb_agg(c.place - 1 ORDER BY c.place), '[]') FROM classed c WHERE c.queue_position IS NOT NULL),
      'eligible', (SELECT coalesce(jsonb_agg(e.can ORDER BY e.class), '[]') FROM eligible e),
      'covers', (SELECT coalesce(jsonb_agg(x.list ORDER BY x.sig), '[]') FROM (SELECT g.sig, jsonb_agg(t.sig ORDER BY t.sig) AS list FROM sigs g JOIN sigs t ON t.material = g.material AND (t.filament_id IS NULL OR t.filament_id = g.filament_id)
                   AND (t.brand IS NULL OR lower(t.brand) = lower(coalesce(g.brand, g.filament_brand))) AND (t.color_hex IS NULL OR t.color_hex = coalesce(g.color_hex, g.filament_color)) GROUP BY g.sig) x)),
    (SELECT array_agg(c.id ORDER BY c.place) FROM classed c), (SELECT array_agg(m.id ORDER BY m.place) FROM machines m)
    INTO input, job_ids, printer_ids;
END $f$;

CREATE OR REPLACE FUNCTION odin.plan_queue(horizon_hours numeric DEFAULT 168, max_jobs integer DEFAULT 10000, replan boolean DEFAULT true, include_offline boolean DEFAULT false, show integer DEFAULT 50) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $f$
#variable_conflict use_column
DECLARE
  org bigint := odin._new_in();
  q record;
  solved jsonb;
  moment timestamptz := now();
  span interval := make_interval(secs => (plan_queue.horizon_hours * 3600)::float8);
  made bigint;
  n_placed integer;
BEGIN
  -- One plan at a time: two would schedule the same jobs against each other.
  PERFORM pg_advisory_xact_lock(hashtextextended('odin plan', org));
  SELECT * INTO q FROM odin._plan_input(org, span, plan_queue.max_jobs, plan_queue.replan, plan_queue.include_offline);
  solved := odin._plan(q.input);
  IF solved ? 'problem' THEN RAISE EXCEPTION 'the plan cannot be solved: %', solved->>'problem'; END IF;
  n_placed := jsonb_array_length(solved->'rows');
  UPDATE odin.jobs j SET status = 'scheduled', scheduled_printer_id = p.printer_id, scheduled_start = p.starts, scheduled_end = p.ends
    FROM (SELECT q.job_ids[(r->>0)::int + 1] AS job_id, q.printer_ids[(r->>1)::int + 1] AS printer_id, moment + make_interval(secs => (r->>2)::float8) AS starts, moment + make_interval(secs => (r->>3)::float8) AS ends
            FROM jsonb_array_elements(solved->'rows') r) p
   WHERE j.id = p.job_id AND j.status IN ('pending', 'scheduled') AND (j.scheduled_printer_id, j.scheduled_start, j.scheduled_end) IS DISTINCT FROM (p.printer_id, p.starts, p.ends);
  UPDATE odin.jobs j SET status = 'pending'
   WHERE plan_queue.replan AND j.org_id = org AND j.status = 'scheduled'
     AND j.id IN (SELECT q.job_ids[e::int + 1] FROM jsonb_array_elements_text((solved->'homeless') || (solved->'beyond')) e);
  INSERT INTO odin.plans(org_id, made_by, horizon, waiting, assigned, skipped, changeovers, late, tardiness_s, reasons)
  VALUES (org, odin.actor(), span, coalesce(cardinality(q.job_ids), 0), n_placed, jsonb_array_length(solved->'homeless') + jsonb_array_length(solved->'beyond'), (solved->>'changeovers')::int, (solved->>'late')::int, (solved->>'tardiness')::bigint,
    jsonb_build_object('no_printer_can_take_it', jsonb_array_length(solved->'homeless'), 'beyond_the_horizon', jsonb_array_length(solved->'beyond'))) RETURNING id INTO made;
  PERFORM odin.would(jsonb_build_object('action', 'plan_queue', 'waiting', coalesce(cardinality(q.job_ids), 0), 'assigned', n_placed, 'skipped', jsonb_array_length(solved->'homeless') + jsonb_array_length(solved->'beyond'),
    'late', solved->'late', 'tardiness_hours', round((solved->>'tardiness')::numeric / 3600, 2), 'changeovers', solved->'changeovers',
    'plan', odin._plan_rows(solved->'rows', q.job_ids, q.printer_ids, moment, plan_queue.show)));
  IF jsonb_array_length(solved->'homeless') > 0 THEN
    PERFORM odin.suggest('why_waiting', jsonb_build_object('job_id', q.job_ids[(solved#>>'{homeless,0}')::int + 1]), 'no printer can take this job');
  END IF;
  RETURN jsonb_build_object('plan_id', made, 'waiting', coalesce(cardinality(q.job_ids), 0), 'printers', coalesce(cardinality(q.printer_ids), 0), 'assigned', n_placed, 'late', solved->'late', 'tardiness_hours', round((solved->>'tardiness')::numeric / 3600, 2),
    'changeovers', solved->'changeovers', 'plan', odin._plan_rows(solved->'rows', q.job_ids, q.printer_ids, moment, plan_queue.show),
    'skipped', (SELECT coalesce(jsonb_agg(jsonb_build_object('job_id', q.job_ids[x.e::int + 1], 'reason', x.why)), '[]')
                  FROM (SELECT e, 'no printer can take it' AS why FROM jsonb_array_elements_text(solved->'homeless') e UNION ALL SELECT e, 'starts beyond the horizon' FROM jsonb_array_elements_text(solved->'beyond') e LIMIT plan_queue.show) x));
END $f$;
COMMENT ON FUNCTION odin.plan_queue(numeric, integer, boolean, boolean, integer) IS 'Plans all waiting jobs onto the printers: due dates first, then priority, few material changes, even wear; blackout hours and pins are kept, jobs moved by hand come first. Jobs become scheduled with a printer and a time. dry_run shows the plan and changes nothing.';

-- The plan with the parts of its score as columns.
CREATE OR REPLACE FUNCTION odin._plan_rows(rows jsonb, job_ids bigint[], printer_ids bigint[], moment timestamptz, most integer) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT coalesce(jsonb_agg(jsonb_build_object('job_id', j.id, 'item_name', j.name, 'printer_id', p.id, 'printer_name', p.name, 'start', r.starts, 'end', r.ends, 'due_date', j.due_at,
           'slack_hours', round(extract(epoch FROM j.due_at - r.ends)::numeric / 3600, 2), 'late', coalesce(r.ends > j.due_at, false), 'priority', j.priority, 'start_by', j.start_by, 'pinned', j.printer_id IS NOT NULL, 'moved_by_hand', j.queue_position IS NOT NULL,
           'changeovers', r.changes, 'wear_hours', round(t.print_seconds / 3600.0, 1)) ORDER BY r.starts, r.printer_id), '[]')
    FROM (SELECT job_ids[(e->>0)::int + 1] AS job_id, printer_ids[(e->>1)::int + 1] AS printer_id, moment + make_interval(secs => (e->>2)::float8) AS starts, moment + make_interval(secs => (e->>3)::float8) AS ends, (e->>4)::int AS changes
            FROM jsonb_array_elements(rows) e ORDER BY (e->>2)::bigint, (e->>1)::int LIMIT most) r
    JOIN odin.jobs j ON j.id = r.job_id JOIN odin.printers p ON p.id = r.printer_id JOIN odin.printer_totals t ON t.printer_id = p.id;
$f$;

CREATE OR REPLACE FUNCTION odin.material_forecast(days_ahead integer DEFAULT NULL)
RETURNS TABLE(material text, brand text, filament_id bigint, filament_name text, color_hex text, jobs bigint, needed_grams numeric, available_grams numeric, shortfall_grams numeric, first_needed timestamptz, material_needed_grams numeric, material_available_grams numeric)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  orgs bigint[] := odin._visible_orgs();
BEGIN
  RETURN QUERY
    WITH needs AS MATERIALIZED (
      SELECT n.material, n.brand, n.filament_id, n.color_hex, count(*) AS jobs, sum(n.mg) AS mg, min(n.start_by) AS first_needed FROM (
        SELECT coalesce(jm.material, rm.material) AS material, CASE WHEN j.material_policy = 'substitute' THEN NULL WHEN jm.job_id IS NULL THEN rm.brand ELSE jm.brand END AS brand,
               CASE WHEN j.material_policy = 'substitute' THEN NULL WHEN jm.job_id IS NULL THEN rm.filament_id ELSE jm.filament_id END AS filament_id,
               CASE WHEN j.material_policy = 'substitute' THEN NULL WHEN jm.job_id IS NULL THEN rm.color_hex ELSE jm.color_hex END AS color_hex, coalesce(jm.mg, rm.mg) AS mg, j.start_by
          FROM odin.jobs j JOIN odin.revision_materials rm ON rm.revision_id = j.revision_id LEFT JOIN odin.job_materials jm ON jm.job_id = j.id AND jm.tool = rm.tool
         WHERE j.org_id = ANY (orgs) AND j.status IN ('submitted', 'pending', 'scheduled') AND (material_forecast.days_ahead IS NULL OR j.start_by < now() + make_interval(days => material_forecast.days_ahead))) n
       GROUP BY 1, 2, 3, 4
    ), stock AS MATERIALIZED (
      -- What runs have reserved is spoken for; what is reserved for waiting jobs is counted with the needs.
      SELECT f.id, f.material, lower(f.brand) AS brand, f.color_hex, sum(b.balance_mg - coalesce(v.mg, 0)) AS mg FROM odin.spools s JOIN odin.filaments f ON f.id = s.filament_id JOIN odin.spool_balances b ON b.spool_id = s.id
        LEFT JOIN (SELECT rs.spool_id, sum(rs.planned_mg) AS mg FROM odin.run_slots rs JOIN odin.runs r ON r.id = rs.run_id WHERE r.status IN ('claimed','starting','printing','paused','unknown') GROUP BY 1) v ON v.spool_id = s.id
       WHERE s.org_id = ANY (orgs) AND s.status = 'active' GROUP BY 1, 2, 3, 4
    ), per_material AS (SELECT n.material, sum(n.mg) AS mg FROM needs n GROUP BY 1)
    SELECT n.material, n.brand, n.filament_id, f.name, coalesce(n.color_hex, f.color_hex), n.jobs, round(n.mg / 1000.0, 1), round(coalesce(a.mg, 0) / 1000.0, 1), round(greatest(n.mg - coalesce(a.mg, 0), 0) / 1000.0, 1), n.first_needed,
           round(m.mg / 1000.0, 1), round(coalesce((SELECT sum(s.mg) FROM stock s WHERE s.material = n.material), 0) / 1000.0, 1)
      FROM needs n JOIN per_material m ON m.material = n.material LEFT JOIN odin.filaments f ON f.id = n.filament_id
      LEFT JOIN LATERAL (SELECT sum(s.mg) AS mg FROM stock s WHERE s.material = n.material AND (n.filament_id IS NULL OR s.id = n.filament_id) AND (n.brand IS NULL OR s.brand = lower(n.brand))
             AND (n.color_hex IS NULL OR n.filament_id IS NOT NULL OR s.color_hex = n.color_hex)) a ON true
     ORDER BY greatest(n.mg - coalesce(a.mg, 0), 0) DESC, n.mg DESC, n.material;
END $f$;
COMMENT ON FUNCTION odin.material_forecast(integer) IS 'Forecasts filament for the whole queue: per material, brand, filament and colour the grams that waiting jobs need, the grams there are, and what is missing. material_* compare the material as a whole.';

-- Months of telemetry ahead, and old ones gone (setting telemetry_months per instance is the largest of all orgs; 13 by default).
CREATE OR REPLACE FUNCTION odin.telemetry_partitions() RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  month date;
  part text;
  keep integer := (SELECT coalesce(max((settings->>'telemetry_months')::integer), 13) FROM odin.orgs WHERE settings->>'telemetry_months' ~ '^[0-9]{1,3}$');
  made integer := 0;
BEGIN
  FOR i IN 0..1 LOOP
    month := date_trunc('month', now() AT TIME ZONE 'UTC' + make_interval(months => i))::date;
    part := 'printer_telemetry_' || to_char(month, 'YYYY_MM');
    CONTINUE WHEN to_regclass('odin.' || part) IS NOT NULL;
    -- A month whose rows already fell into the default partition stays there.
    CONTINUE WHEN EXISTS (SELECT 1 FROM odin.printer_telemetry_default t WHERE t.at >= month::timestamp AT TIME ZONE 'UTC' AND t.at < (month + interval '1 month')::timestamp AT TIME ZONE 'UTC');
    EXECUTE format('CREATE TABLE odin.%I PARTITION OF odin.printer_telemetry FOR VALUES FROM (%L) TO (%L)', part, month::timestamp AT TIME ZONE 'UTC', (month + interval '1 month')::timestamp AT TIME ZONE 'UTC');
    EXECUTE format('COMMENT ON TABLE odin.%I IS %L', part, 'Telemetry of one month.');
    EXECUTE format('ALTER TABLE odin.%I ENABLE ROW LEVEL SECURITY', part);
    made := made + 1;
  END LOOP;
  FOR part IN SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'odin.printer_telemetry'::regclass AND c.relname ~ '^printer_telemetry_[0-9]{4}_[0-9]{2}$'
               AND to_date(right(c.relname, 7), 'YYYY_MM') < date_trunc('month', now() AT TIME ZONE 'UTC' - make_interval(months => keep)) LOOP
    EXECUTE format('DROP TABLE odin.%I', part);
  END LOOP;
  DELETE FROM odin.printer_telemetry_default t WHERE t.at < now() - make_interval(months => keep);
  RETURN made;
END $f$;
COMMENT ON FUNCTION odin.telemetry_partitions() IS 'Prepares this and the next month of printer_telemetry and drops months older than the setting telemetry_months (13).';
SELECT odin.telemetry_partitions();
GRANT EXECUTE ON FUNCTION odin.telemetry_partitions() TO odin_worker;
GRANT EXECUTE ON FUNCTION odin.material_forecast(integer) TO odin_viewer;
GRANT EXECUTE ON FUNCTION odin.plan_queue(numeric, integer, boolean, boolean, integer) TO odin_operator;
