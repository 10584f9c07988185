-- Who talks to which printer: sidecars report in every few seconds, share the printers evenly and take over from those that fell silent.
-- The fence rises whenever a printer changes hands, so that what an earlier holder still says or sends counts for nothing.

CREATE OR REPLACE FUNCTION odin.worker_lease_printers(holder text, lease_seconds integer, most integer, version text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  alive text[];
  share integer;
  mine integer;
BEGIN
  INSERT INTO odin.sidecars AS s (holder, version, until) VALUES (worker_lease_printers.holder, worker_lease_printers.version, clock_timestamp() + make_interval(secs => lease_seconds))
  ON CONFLICT ON CONSTRAINT sidecars_pkey DO UPDATE SET until = excluded.until;
  -- One at a time deals the printers out; whoever finds another one dealing has only reported in.
  IF pg_try_advisory_xact_lock(hashtextextended('odin printers', 0)) THEN
    DELETE FROM odin.sidecars s WHERE s.until < clock_timestamp() - interval '1 day';
    alive := ARRAY(SELECT s.holder FROM odin.sidecars s WHERE s.until > clock_timestamp());
    INSERT INTO odin.printer_leases(printer_id, org_id) SELECT p.id, p.org_id FROM odin.printers p WHERE p.is_active AND NOT EXISTS (SELECT 1 FROM odin.printer_leases l WHERE l.printer_id = p.id);
    UPDATE odin.printer_leases l SET holder = '', fence = l.fence + 1 FROM odin.printers p WHERE p.id = l.printer_id AND NOT p.is_active AND l.holder <> '';
    SELECT ceil(count(*)::numeric / cardinality(alive)), count(*) FILTER (WHERE l.holder = worker_lease_printers.holder) INTO share, mine
      FROM odin.printer_leases l JOIN odin.printers p ON p.id = l.printer_id AND p.is_active;
    IF mine > share THEN
      -- Too many here: those at rest go back, and whoever has room takes them.
      UPDATE odin.printer_leases l SET holder = '', fence = l.fence + 1 WHERE l.printer_id IN (
        SELECT x.printer_id FROM odin.printer_leases x WHERE x.holder = worker_lease_printers.holder
           AND NOT EXISTS (SELECT 1 FROM odin.commands c WHERE c.printer_id = x.printer_id AND c.state IN ('claimed', 'sent', 'in_doubt')) ORDER BY x.printer_id DESC LIMIT mine - share);
    ELSIF least(share, most) > mine THEN
      UPDATE odin.printer_leases l SET holder = worker_lease_printers.holder, fence = l.fence + 1, taken_at = clock_timestamp() WHERE l.printer_id IN (
        SELECT x.printer_id FROM odin.printer_leases x JOIN odin.printers p ON p.id = x.printer_id AND p.is_active
         WHERE x.holder <> ALL (alive) ORDER BY x.printer_id LIMIT least(share, most) - mine FOR UPDATE OF x SKIP LOCKED);
    END IF;
  END IF;
  RETURN jsonb_build_object('held', (SELECT coalesce(jsonb_agg(jsonb_build_array(l.printer_id, l.fence, odin._printer_config_version(p, s.set_at))), '[]')
    FROM odin.printer_leases l JOIN odin.printers p ON p.id = l.printer_id LEFT JOIN odin_private.printer_secrets s ON s.printer_id = p.id WHERE l.holder = worker_lease_printers.holder));
END $f$;
COMMENT ON FUNCTION odin.worker_lease_printers(text, integer, integer, text) IS 'A sidecar reports in: its leases go on, it takes its share of free printers and gives back what is too much. Answer: held = [[printer, fence, version of its settings], ...].';

CREATE OR REPLACE FUNCTION odin._printer_config_version(p odin.printers, secret_at timestamptz) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT left(md5(concat_ws('|', p.protocol, p.address, p.serial, p.camera_url, extract(epoch FROM secret_at))), 12);
$f$;

-- A sidecar that stops in good order does not let others wait for its lease to run out.
CREATE OR REPLACE FUNCTION odin.worker_leave(holder text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  DELETE FROM odin.sidecars s WHERE s.holder = worker_leave.holder;
  UPDATE odin.printer_leases l SET holder = '', fence = l.fence + 1 WHERE l.holder = worker_leave.holder;
  RETURN '{"ok": true}';
END $f$;
COMMENT ON FUNCTION odin.worker_leave(text) IS 'Hands every printer of a sidecar back at once.';

CREATE OR REPLACE FUNCTION odin.worker_printer_configs(holder text, ids bigint[]) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT coalesce(jsonb_agg(jsonb_build_object('id', p.id, 'name', p.name, 'protocol', p.protocol, 'address', p.address, 'serial', p.serial, 'camera_url', p.camera_url, 'sealed', s.sealed, 'certificate', f.facts->>'certificate',
      'stall_seconds', odin._setting(p.org_id, 'printer_stall_seconds', '900')::integer,
      'run_file', r.remote_file, 'run_status', r.status)), '[]')
    FROM odin.printers p JOIN odin.printer_leases l ON l.printer_id = p.id AND l.holder = worker_printer_configs.holder LEFT JOIN odin_private.printer_secrets s ON s.printer_id = p.id
    LEFT JOIN odin.printer_facts f ON f.printer_id = p.id LEFT JOIN odin.runs r ON r.printer_id = p.id AND r.status IN ('claimed','starting','printing','paused','unknown') WHERE p.id = ANY (ids);
$f$;
COMMENT ON FUNCTION odin.worker_printer_configs(text, bigint[]) IS 'How to reach printers that this sidecar holds, with their sealed credentials and the run that is on them.';

-- The brain of virtual printers: what a machine was told, kept here so that it goes on whoever watches.
CREATE OR REPLACE FUNCTION odin.worker_virtual(printer bigint, act jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  verb text := act->>'verb';
  m odin.virtual_machines;
BEGIN
  INSERT INTO odin.virtual_machines(printer_id, org_id, speed)
  SELECT p.id, p.org_id, greatest(0.001, coalesce((regexp_match(p.address, 'speed=([0-9.]+)'))[1]::real, 1)) FROM odin.printers p WHERE p.id = printer AND p.protocol = 'virtual' ON CONFLICT DO NOTHING;
  UPDATE odin.virtual_machines v SET
      file = CASE verb WHEN 'start' THEN act->>'file' ELSE v.file END,
      seconds = CASE verb WHEN 'start' THEN (act->>'seconds')::real ELSE v.seconds END,
      started_at = CASE verb WHEN 'start' THEN clock_timestamp() ELSE v.started_at END,
      paused_s = CASE verb WHEN 'start' THEN 0 WHEN 'resume' THEN v.paused_s + coalesce(extract(epoch FROM clock_timestamp() - v.paused_at), 0) ELSE v.paused_s END,
      paused_at = CASE verb WHEN 'start' THEN NULL WHEN 'resume' THEN NULL WHEN 'pause' THEN coalesce(v.paused_at, clock_timestamp()) ELSE v.paused_at END,
      ended = CASE verb WHEN 'start' THEN NULL WHEN 'stop' THEN 'cancelled' WHEN 'break' THEN 'failed' ELSE v.ended END,
      tool_target = CASE WHEN verb = 'heat' AND act->>'heater' = 'tool' THEN (act->>'target')::real ELSE v.tool_target END,
      bed_target = CASE WHEN verb = 'heat' AND act->>'heater' = 'bed' THEN (act->>'target')::real ELSE v.bed_target END,
      files = CASE verb WHEN 'store' THEN v.files || jsonb_build_object('path', act->'file', 'size_bytes', act->'size', 'date', floor(extract(epoch FROM clock_timestamp()))) ELSE v.files END,
      acts = v.acts || jsonb_build_object(verb, coalesce((v.acts->>verb)::int, 0) + 1)
    WHERE v.printer_id = printer AND verb IS NOT NULL;
  SELECT * INTO m FROM odin.virtual_machines v WHERE v.printer_id = printer;
  RETURN jsonb_build_object('speed', m.speed, 'file', m.file, 'seconds', m.seconds, 'ran', extract(epoch FROM coalesce(m.paused_at, clock_timestamp()) - m.started_at) - m.paused_s, 'paused', m.paused_at IS NOT NULL,
    'ended', m.ended, 'tool_target', m.tool_target, 'bed_target', m.bed_target, 'files', m.files);
END $f$;
COMMENT ON FUNCTION odin.worker_virtual(bigint, jsonb) IS 'Tells a virtual machine something (verb start, pause, resume, stop, heat, store, break) or just reads it.';

GRANT EXECUTE ON FUNCTION odin.worker_lease_printers(text, integer, integer, text), odin.worker_leave(text), odin.worker_printer_configs(text, bigint[]), odin.worker_virtual(bigint, jsonb) TO odin_worker;

CREATE OR REPLACE FUNCTION odin.worker_lease_anew(holder text, printer bigint) RETURNS jsonb
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  UPDATE odin.printer_leases l SET fence = l.fence + 1 WHERE l.printer_id = printer AND l.holder = worker_lease_anew.holder RETURNING to_jsonb(l.fence);
$f$;
COMMENT ON FUNCTION odin.worker_lease_anew(text, bigint) IS 'A sidecar starts over with a printer it holds (other settings): a new fence, and whatever was under way is looked at anew.';
GRANT EXECUTE ON FUNCTION odin.worker_lease_anew(text, bigint) TO odin_worker;
