-- What printers report, one statement for all of a sidecar's printers per tick; and what follows when a state changes.
-- State is what the printer said. A print's end goes through odin.apply_finish, which does it once however often it is reported.

CREATE OR REPLACE FUNCTION odin.worker_printer_reports(holder text, reports jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  x record;
  heard bigint[] := '{}';
BEGIN
  FOR x IN
    WITH r AS (
      SELECT r.*, l.org_id FROM jsonb_to_recordset(reports) AS r(p bigint, f bigint, state text, raw text, stage text, tool_c real, tool_target_c real, bed_c real, bed_target_c real, chamber_c real, progress_pct real,
          remaining_seconds integer, file text, layer integer, total_layers integer, fan_pct real, speed_pct real, lights_on boolean, error_code text, error_message text, slots jsonb, ended jsonb, notable jsonb, facts jsonb, files jsonb)
        JOIN odin.printer_leases l ON l.printer_id = r.p AND l.fence = r.f AND l.holder = worker_printer_reports.holder),
    old AS MATERIALIZED (
      SELECT s.printer_id, s.state, s.file_name, s.reported_at FROM odin.printer_state s WHERE s.printer_id IN (SELECT p FROM r) ORDER BY s.printer_id FOR UPDATE),
    said AS (
      -- An idle machine with a print on its bed is finished, not free.
      SELECT r.*, CASE WHEN r.state = 'idle' AND b.occupied THEN CASE WHEN coalesce(u.status, 'completed') = 'completed' THEN 'finished' ELSE 'failed' END ELSE r.state END AS now_state, o.state AS was, o.reported_at AS was_at
        FROM r JOIN old o ON o.printer_id = r.p JOIN odin.beds b ON b.printer_id = r.p LEFT JOIN odin.runs u ON u.id = b.run_id),
    put AS (
      UPDATE odin.printer_state s SET state = d.now_state, raw_state = left(d.raw, 100), stage = left(d.stage, 100), state_since = CASE WHEN s.state = d.now_state THEN s.state_since ELSE clock_timestamp() END,
          reported_at = CASE WHEN d.state = 'offline' THEN s.reported_at ELSE clock_timestamp() END,
          tool_c = d.tool_c, tool_target_c = d.tool_target_c, bed_c = d.bed_c, bed_target_c = d.bed_target_c, chamber_c = d.chamber_c, progress_pct = CASE WHEN d.progress_pct IS NOT NULL THEN least(100, greatest(0, d.progress_pct)) END,
          remaining_seconds = CASE WHEN d.remaining_seconds IS NOT NULL THEN greatest(0, d.remaining_seconds) END, file_name = left(d.file, 500), layer = d.layer, total_layers = d.total_layers, fan_pct = d.fan_pct, speed_pct = d.speed_pct, lights_on = d.lights_on,
          error_code = coalesce(left(d.error_code, 100), CASE WHEN d.now_state IN ('printing', 'idle') THEN NULL ELSE s.error_code END), error_message = coalesce(left(d.error_message, 1000), CASE WHEN d.now_state IN ('printing', 'idle') THEN NULL ELSE s.error_message END),
          error_at = CASE WHEN d.error_message IS NOT NULL AND d.error_message IS DISTINCT FROM s.error_message THEN clock_timestamp() ELSE s.error_at END
        FROM said d WHERE s.printer_id = d.p RETURNING s.printer_id),
    loaded AS (
      -- What the machine itself reads off its spools; which spool of the farm that is, people say.
      UPDATE odin.printer_slots t SET reported_material = left(e->>'material', 60), reported_color = left(e->>'color', 20)
        FROM said d, LATERAL jsonb_array_elements(d.slots) e WHERE t.printer_id = d.p AND t.slot_number = (e->>'slot')::integer
         AND (t.reported_material, t.reported_color) IS DISTINCT FROM (left(e->>'material', 60), left(e->>'color', 20))),
    history AS (
      -- Thinned: a row when the state changes, one a minute while something happens, one in ten minutes at rest, and no other where nobody answers.
      INSERT INTO odin.printer_telemetry(printer_id, org_id, at, state, tool_c, tool_target_c, bed_c, bed_target_c, chamber_c, progress_pct)
      SELECT d.p, d.org_id, clock_timestamp(), d.now_state, d.tool_c, d.tool_target_c, d.bed_c, d.bed_target_c, d.chamber_c, d.progress_pct
        FROM said d, LATERAL (SELECT CASE WHEN d.now_state IN ('printing', 'paused', 'preparing') THEN 60 ELSE 600 END AS grain) g
       WHERE d.now_state <> d.was OR (d.now_state <> 'offline' AND floor(extract(epoch FROM clock_timestamp()) / g.grain) IS DISTINCT FROM floor(extract(epoch FROM d.was_at) / g.grain)) ON CONFLICT DO NOTHING),
    told AS (
      INSERT INTO odin.printer_facts AS t (printer_id, org_id, facts, facts_at, files, files_at)
      SELECT d.p, d.org_id, coalesce(d.facts, '{}'), CASE WHEN d.facts IS NOT NULL THEN clock_timestamp() END, coalesce(d.files, '[]'), CASE WHEN d.files IS NOT NULL THEN clock_timestamp() END
        FROM said d WHERE d.facts IS NOT NULL OR d.files IS NOT NULL
      ON CONFLICT (printer_id) DO UPDATE SET facts = CASE WHEN excluded.facts_at IS NULL THEN t.facts ELSE excluded.facts END, facts_at = coalesce(excluded.facts_at, t.facts_at),
        files = CASE WHEN excluded.files_at IS NULL THEN t.files ELSE excluded.files END, files_at = coalesce(excluded.files_at, t.files_at))
    SELECT d.p, d.org_id, d.was, d.now_state, d.state, d.file, d.progress_pct, d.raw, d.error_code, d.error_message, d.ended, d.notable FROM said d
  LOOP
    heard := heard || x.p;
    IF x.was <> x.now_state OR x.ended IS NOT NULL OR x.notable IS NOT NULL OR x.state IN ('printing', 'paused', 'preparing') THEN
      PERFORM odin._printer_observed(x.p, x.org_id, x.was, x.state, x.now_state, x.file, x.progress_pct, x.raw, x.error_code, x.error_message, x.ended, x.notable);
    END IF;
  END LOOP;
  RETURN jsonb_build_object('heard', to_jsonb(heard));
END $f$;
COMMENT ON FUNCTION odin.worker_printer_reports(text, jsonb) IS 'Writes what the printers of a sidecar report, all in one statement; the answer lists those whose lease is still this sidecar''s.';

-- One printer whose report says something new. Links it to the run that is on it, or records a print that the farm did not start.
CREATE OR REPLACE FUNCTION odin._printer_observed(printer bigint, org bigint, was text, said text, now_state text, file text, progress real, raw text, error_code text, error_message text, ended jsonb, notable jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  r odin.runs;
  ours boolean;
  name text;
BEGIN
  SELECT * INTO r FROM odin.runs x WHERE x.printer_id = printer AND x.status IN ('claimed','starting','printing','paused','unknown');
  ours := r.id IS NOT NULL AND (file IS NULL OR file = r.remote_file OR (r.remote_file IS NULL AND r.started_at IS NOT NULL));
  IF was <> now_state THEN
    SELECT p.name INTO name FROM odin.printers p WHERE p.id = printer;
    INSERT INTO odin.printer_events(org_id, printer_id, run_id, kind, severity, code, message, data)
    VALUES (org, printer, r.id, 'state', CASE WHEN now_state = 'error' THEN 'critical' WHEN now_state = 'offline' THEN 'warning' ELSE 'info' END, error_code, left(error_message, 1000),
      jsonb_strip_nulls(jsonb_build_object('from', was, 'to', now_state, 'raw', raw, 'file', file)));
    IF now_state = 'error' THEN
      PERFORM odin._alert(org, 'printer_error', format('%s reports an error', name), error_message, printer => printer, run => r.id, job => r.job_id);
    ELSIF now_state = 'offline' AND r.status IN ('printing', 'paused') THEN
      PERFORM odin._alert(org, 'printer_error', format('%s does not answer while it prints', name), error_message, printer => printer, run => r.id, job => r.job_id);
    END IF;
  END IF;
  IF ended IS NOT NULL THEN
    PERFORM odin._print_ended(printer, org, r, ended);
    RETURN;
  END IF;
  IF said IN ('printing', 'paused', 'preparing') THEN
    IF NOT ours THEN
      IF NOT EXISTS (SELECT 1 FROM odin.printer_events e WHERE e.printer_id = printer AND e.kind = 'foreign_print_started' AND e.data->>'file' IS NOT DISTINCT FROM file
           AND e.id > coalesce((SELECT max(k.id) FROM odin.printer_events k WHERE k.printer_id = printer AND k.kind = 'foreign_print_ended'), 0)) THEN
        INSERT INTO odin.printer_events(org_id, printer_id, kind, severity, message, data) VALUES (org, printer, 'foreign_print_started', 'warning', format('%s prints %s, which the farm did not start', coalesce(name, 'The printer'), coalesce(file, 'something')), jsonb_build_object('file', file));
        PERFORM odin._bed(printer, true, 'foreign_print');
      END IF;
    ELSIF said <> 'preparing' AND r.status IN ('claimed', 'starting', 'unknown') AND file IS NOT NULL THEN
      PERFORM odin._run_started(r.id);
    END IF;
    IF ours AND said = 'paused' AND r.status = 'printing' THEN
      UPDATE odin.runs SET status = 'paused' WHERE id = r.id;
      IF NOT EXISTS (SELECT 1 FROM odin.commands c WHERE c.printer_id = printer AND c.verb = 'pause' AND coalesce(c.finished_at, clock_timestamp()) > clock_timestamp() - interval '2 minutes') THEN
        INSERT INTO odin.printer_events(org_id, printer_id, run_id, kind, severity, code, message) VALUES (org, printer, r.id, 'paused_at_printer', 'warning', error_code, coalesce(error_message, 'paused by the machine itself or at its screen'));
      END IF;
    ELSIF ours AND said = 'printing' AND r.status = 'paused' THEN
      UPDATE odin.runs SET status = 'printing' WHERE id = r.id;
    END IF;
  END IF;
  IF notable IS NOT NULL THEN
    INSERT INTO odin.printer_events(org_id, printer_id, run_id, kind, severity, code, message, data)
    VALUES (org, printer, r.id, notable->>'kind', coalesce(notable->>'severity', 'warning'), notable->>'code', left(notable->>'message', 1000), notable - 'kind' - 'severity' - 'message');
    IF notable->>'severity' = 'critical' THEN
      PERFORM odin._alert(org, 'printer_error', format('%s: %s', (SELECT p.name FROM odin.printers p WHERE p.id = printer), replace(notable->>'kind', '_', ' ')), notable->>'message', printer => printer, run => r.id, job => r.job_id);
    END IF;
  END IF;
END $f$;

-- A print has ended: ours ends its run, anybody else's is recorded; both lie on the bed now.
CREATE OR REPLACE FUNCTION odin._print_ended(printer bigint, org bigint, r odin.runs, ended jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  outcome text := ended->>'outcome';
BEGIN
  IF r.id IS NOT NULL AND r.status <> 'claimed' AND (ended->>'file' IS NULL OR r.remote_file IS NULL OR ended->>'file' = r.remote_file) THEN
    IF r.status IN ('starting', 'unknown') AND r.started_at IS NULL THEN PERFORM odin._run_started(r.id, clock_timestamp() - make_interval(secs => coalesce((ended->>'seconds')::float8, 0))); END IF;
    PERFORM odin.apply_finish(r.id, outcome, reason => CASE outcome WHEN 'failed' THEN coalesce(ended->>'reason', 'printer_error') WHEN 'cancelled' THEN 'user_cancelled' END, notes => ended->>'message', reported_by => 'printer',
      progress => (ended->>'progress')::numeric, seconds => (ended->>'seconds')::integer);
    INSERT INTO odin.printer_events(org_id, printer_id, run_id, kind, severity, message, data) VALUES (org, printer, r.id, 'print_' || outcome, CASE outcome WHEN 'failed' THEN 'warning' ELSE 'info' END, left(ended->>'message', 1000), ended - 'message');
    UPDATE odin.printer_state s SET state = CASE outcome WHEN 'completed' THEN 'finished' ELSE 'failed' END WHERE s.printer_id = printer AND s.state = 'idle';
  ELSIF EXISTS (SELECT 1 FROM odin.printer_events e WHERE e.printer_id = printer AND e.kind = 'foreign_print_started' AND e.data->>'file' IS NOT DISTINCT FROM (ended->>'file')
          AND e.id > coalesce((SELECT max(k.id) FROM odin.printer_events k WHERE k.printer_id = printer AND k.kind = 'foreign_print_ended'), 0)) THEN
    INSERT INTO odin.printer_events(org_id, printer_id, kind, severity, message, data) VALUES (org, printer, 'foreign_print_ended', 'info', left(ended->>'message', 1000), ended - 'message');
  END IF;
END $f$;

-- A cleared bed makes a finished machine idle at once; it need not report anew.
CREATE OR REPLACE FUNCTION odin._bed_cleared() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  UPDATE odin.printer_state s SET state = 'idle', state_since = clock_timestamp() WHERE s.printer_id = NEW.printer_id AND s.state IN ('finished', 'failed');
  RETURN NULL;
END $f$;
CREATE OR REPLACE TRIGGER odin_cleared AFTER UPDATE OF occupied ON odin.beds FOR EACH ROW WHEN (OLD.occupied AND NOT NEW.occupied) EXECUTE FUNCTION odin._bed_cleared();

GRANT EXECUTE ON FUNCTION odin.worker_printer_reports(text, jsonb) TO odin_worker;
