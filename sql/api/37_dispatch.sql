-- The farm's own clock: printers that may start jobs by themselves, quotes that run out, maintenance that falls due by the calendar.
-- Nothing here starts a print unless the org allows it (setting auto_dispatch), somebody set the printer to it, the printer is idle and the bed was cleared.
-- After a failure a printer is no longer set to it: only a person sets it again, because only a person has looked.

-- True for one caller per span, however many ask.
CREATE OR REPLACE FUNCTION odin._is_due(what text, every interval) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  INSERT INTO odin.clock AS c (name, last_at) VALUES (what, now()) ON CONFLICT (name) DO UPDATE SET last_at = excluded.last_at WHERE c.last_at < now() - every;
  RETURN FOUND;
END $f$;

-- The job a printer should take next: what the plan gave it, else the first of the queue whose pins, tags and materials suit it. The rules themselves are asked after.
CREATE OR REPLACE FUNCTION odin._jobs_for_printer(printer bigint) RETURNS SETOF bigint
LANGUAGE sql STABLE SECURITY DEFINER ROWS 5 SET search_path = pg_catalog, pg_temp AS $f$
  SELECT x.id FROM (
    (SELECT y.id, -1::bigint AS place FROM odin.jobs y WHERE y.scheduled_printer_id = printer AND y.status = 'scheduled' AND NOT y.hold ORDER BY y.scheduled_start LIMIT 1)
    UNION ALL
    (SELECT w.id, w.place FROM odin.printers p
       CROSS JOIN LATERAL (SELECT array_agg(DISTINCT f.material) AS materials FROM odin.printer_slots s JOIN odin.spools sp ON sp.id = s.spool_id AND sp.status = 'active' JOIN odin.filaments f ON f.id = sp.filament_id WHERE s.printer_id = p.id) l
       CROSS JOIN LATERAL (SELECT y.id, y.revision_id, y.printer_id, y.target_type, y.required_tags, row_number() OVER (ORDER BY coalesce(y.queue_position, 'infinity'::numeric), y.start_by, y.priority, y.id) AS place FROM odin.jobs y WHERE y.org_id = p.org_id AND y.status IN ('pending', 'scheduled') AND y.status = 'pending' AND NOT y.hold
                            ORDER BY coalesce(y.queue_position, 'infinity'::numeric), y.start_by, y.priority, y.id LIMIT 1000) w
      WHERE p.id = printer AND (w.printer_id IS NULL OR w.printer_id = p.id) AND w.required_tags <@ p.tags
        AND NOT EXISTS (SELECT 1 FROM odin.revision_materials m LEFT JOIN odin.job_materials o ON o.job_id = w.id AND o.tool = m.tool WHERE m.revision_id = w.revision_id AND coalesce(o.material, m.material) <> ALL (coalesce(l.materials, '{}')))
      ORDER BY w.place LIMIT 5)) x ORDER BY x.place;
$f$;

-- Something went wrong on a printer: it starts nothing by itself until somebody sets auto_dispatch again.
CREATE OR REPLACE FUNCTION odin._auto_off(printer bigint, why text, run bigint DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  p record;
BEGIN
  UPDATE odin.printers x SET auto_dispatch = false, auto_dispatch_off_at = clock_timestamp(), auto_dispatch_off_reason = left(why, 500) WHERE x.id = printer AND x.auto_dispatch RETURNING x.org_id, x.name INTO p;
  IF NOT FOUND THEN RETURN; END IF;
  INSERT INTO odin.printer_events(org_id, printer_id, run_id, kind, severity, message) VALUES (p.org_id, printer, run, 'auto_start_off', 'warning', left(why, 500));
  PERFORM odin._alert(p.org_id, 'printer_error', format('%s starts no job by itself any more', p.name),
    why || '. Look at the printer, then switch automatic start on again: update_printer with auto_dispatch true.', printer => printer, run => run, data => '{"auto_dispatch": false}');
END $f$;

CREATE OR REPLACE FUNCTION odin._auto_off_after() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  CASE TG_TABLE_NAME
    WHEN 'runs' THEN PERFORM odin._auto_off(NEW.printer_id, format('Run %s failed: %s', NEW.id, concat_ws(', ', replace(NEW.fail_reason, '_', ' '), NEW.fail_notes)), NEW.id);
    WHEN 'printer_state' THEN
      -- A printer switched off at night is no failure; one that falls silent while it prints is.
      IF NEW.state <> 'offline' THEN
        PERFORM odin._auto_off(NEW.printer_id, format('The printer reports %s%s', NEW.state, coalesce(': ' || coalesce(NEW.error_message, NEW.error_code), '')));
      ELSIF EXISTS (SELECT 1 FROM odin.runs r WHERE r.printer_id = NEW.printer_id AND r.status IN ('starting', 'printing', 'paused', 'unknown')) THEN
        PERFORM odin._auto_off(NEW.printer_id, 'The printer fell silent while it printed');
      END IF;
    ELSE PERFORM odin._auto_off(NEW.printer_id, format('The printer reports %s%s', replace(NEW.kind, '_', ' '), coalesce(': ' || coalesce(NEW.message, NEW.code), '')), NEW.run_id);
  END CASE;
  RETURN NULL;
END $f$;
CREATE OR REPLACE TRIGGER odin_auto_off AFTER UPDATE OF status ON odin.runs FOR EACH ROW WHEN (NEW.status = 'failed' AND OLD.status <> 'failed') EXECUTE FUNCTION odin._auto_off_after();
CREATE OR REPLACE TRIGGER odin_auto_off AFTER UPDATE OF state ON odin.printer_state FOR EACH ROW WHEN (NEW.state IN ('error', 'failed', 'offline') AND OLD.state <> NEW.state) EXECUTE FUNCTION odin._auto_off_after();
-- A halt, a thermal runaway or a stalled print may leave the state as it was; a print that somebody started at the machine means that he uses it.
CREATE OR REPLACE TRIGGER odin_auto_off AFTER INSERT ON odin.printer_events FOR EACH ROW WHEN (NEW.severity = 'critical' OR NEW.kind = 'foreign_print_started') EXECUTE FUNCTION odin._auto_off_after();

CREATE OR REPLACE FUNCTION odin._auto_on() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  IF NEW.auto_dispatch_off_at IS NOT NULL THEN
    INSERT INTO odin.printer_events(org_id, printer_id, kind, message, data) VALUES (NEW.org_id, NEW.id, 'auto_start_on', format('%s switched automatic start on again', odin.actor()), jsonb_build_object('off_since', NEW.auto_dispatch_off_at, 'off_reason', NEW.auto_dispatch_off_reason));
  END IF;
  NEW.auto_dispatch_off_at := NULL;
  NEW.auto_dispatch_off_reason := NULL;
  RETURN NEW;
END $f$;
CREATE OR REPLACE TRIGGER odin_auto_on BEFORE UPDATE OF auto_dispatch ON odin.printers FOR EACH ROW WHEN (NEW.auto_dispatch AND NOT OLD.auto_dispatch) EXECUTE FUNCTION odin._auto_on();

CREATE OR REPLACE FUNCTION odin.dispatch_ready(most integer DEFAULT 20) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  p record;
  job bigint;
  r odin.runs;
  done integer := 0;
BEGIN
  -- One at a time, whichever sidecar asks: the others have nothing to add.
  IF NOT pg_try_advisory_xact_lock(hashtextextended('odin dispatch', 0)) THEN RETURN 0; END IF;
  -- A printer for which nothing was found waits half a minute, unless its bed or state changed: no printer keeps another from its turn.
  FOR p IN SELECT x.id FROM odin.printers x JOIN odin.orgs o ON o.id = x.org_id AND o.settings->>'auto_dispatch' = 'true' JOIN odin.printer_state s ON s.printer_id = x.id JOIN odin.beds b ON b.printer_id = x.id
            WHERE x.auto_dispatch AND x.is_active AND NOT x.is_held AND s.state = 'idle' AND NOT b.occupied
              AND (s.dispatch_tried_at IS NULL OR s.dispatch_tried_at < greatest(now() - interval '30 seconds', b.since, s.state_since))
              AND NOT EXISTS (SELECT 1 FROM odin.runs y WHERE y.printer_id = x.id AND y.status IN ('claimed','starting','printing','paused','unknown'))
            ORDER BY s.dispatch_tried_at NULLS FIRST, x.id LIMIT dispatch_ready.most LOOP
    r := NULL;
    FOR job IN SELECT j FROM odin._jobs_for_printer(p.id) j LOOP
      CONTINUE WHEN NOT EXISTS (SELECT 1 FROM odin._fit(job, p.id) f WHERE f.rules IS NULL);
      -- An error may have come in since the list was made.
      EXIT WHEN NOT EXISTS (SELECT 1 FROM odin.printers x WHERE x.id = p.id AND x.auto_dispatch);
      BEGIN
        r := odin._claim_run(job, p.id);
        PERFORM odin._command(p.id, 'start', r.id, jsonb_build_object('job_id', r.job_id, 'slots',
          (SELECT coalesce(jsonb_agg(jsonb_build_object('tool', s.tool, 'slot_number', s.slot_number) ORDER BY s.tool), '[]') FROM odin.run_slots s WHERE s.run_id = r.id)), '15 minutes');
        done := done + 1;
      EXCEPTION WHEN unique_violation OR SQLSTATE 'OD110' OR SQLSTATE 'OD111' OR SQLSTATE 'OD112' OR SQLSTATE 'OD113' OR SQLSTATE 'OD027' THEN
        -- Somebody was quicker; the next call looks again.
        r := NULL;
      END;
      EXIT;
    END LOOP;
    IF r.id IS NULL THEN UPDATE odin.printer_state s SET dispatch_tried_at = now() WHERE s.printer_id = p.id; END IF;
  END LOOP;
  RETURN done;
END $f$;
COMMENT ON FUNCTION odin.dispatch_ready(integer) IS 'Starts the first fitting job on printers with auto_dispatch that are idle with a clear bed, in orgs whose setting auto_dispatch is true. Every sidecar''s clock calls it, one at a time works; the answer is how many were started.';

-- What falls due by the calendar; odin.tick() calls it.
CREATE OR REPLACE FUNCTION odin._farm_clock() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  p bigint;
BEGIN
  IF NOT odin._is_due('farm', '10 minutes') THEN RETURN; END IF;
  UPDATE odin.quotes SET status = 'expired' WHERE status IN ('draft', 'sent') AND valid_until < current_date;
  FOR p IN SELECT DISTINCT m.printer_id FROM odin.maintenance_status m WHERE m.due = 'overdue' AND m.interval_days IS NOT NULL ORDER BY 1 LOOP
    PERFORM odin._maintenance_alerts(p);
  END LOOP;
END $f$;
GRANT EXECUTE ON FUNCTION odin.dispatch_ready(integer) TO odin_worker;
