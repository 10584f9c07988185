-- The life of a command: claimed by the sidecar that holds the printer, sent at most once, ended with what the printer said.
-- Every function of a worker names its lease by (holder, fence); with an old one nothing changes. No caller may edit a command.

CREATE OR REPLACE FUNCTION odin._command_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  IF NEW.state <> OLD.state AND NOT EXISTS (SELECT 1 FROM odin.transitions t WHERE t.machine = 'command' AND t.from_state = OLD.state AND t.to_state = NEW.state) THEN
    PERFORM odin.fail('invalid_state_transition', format('command %s is %s and cannot become %s', NEW.id, OLD.state, NEW.state), NULL, jsonb_build_object('from_status', OLD.state, 'to_status', NEW.state));
  END IF;
  IF NEW.state IN ('done', 'failed', 'cancelled') AND OLD.state <> NEW.state THEN
    NEW.finished_at := coalesce(NEW.finished_at, clock_timestamp());
    PERFORM pg_notify('odin_work', '');
  END IF;
  RETURN NEW;
END $f$;
CREATE OR REPLACE TRIGGER odin_transition BEFORE UPDATE OF state ON odin.commands FOR EACH ROW EXECUTE FUNCTION odin._command_changed();

-- What can only be known once the printer has been looked at is never repeated; what was never sent may be.
CREATE OR REPLACE FUNCTION odin.worker_claim_commands(holder text, most integer DEFAULT 100) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  claimed jsonb;
BEGIN
  UPDATE odin.commands c SET state = 'failed', error = odin._error('command_expired', format('%s was not sent to the printer in time', c.verb))
   WHERE (c.state = 'queued' OR (c.state = 'claimed' AND c.printer_id IS NULL)) AND c.deadline < clock_timestamp();
  -- Taken over: what the holder before had only claimed waits again, what it may have sent is in doubt.
  UPDATE odin.commands c SET state = CASE c.state WHEN 'claimed' THEN 'queued' ELSE 'in_doubt' END, holder = CASE c.state WHEN 'sent' THEN c.holder END
    FROM odin.printer_leases l WHERE l.printer_id = c.printer_id AND l.holder = worker_claim_commands.holder AND c.state IN ('claimed', 'sent') AND c.fence IS DISTINCT FROM l.fence;
  WITH due AS (
    SELECT c.id, l.fence FROM odin.commands c JOIN odin.printer_leases l ON l.printer_id = c.printer_id AND l.holder = worker_claim_commands.holder
     WHERE (c.state = 'in_doubt' AND c.fence IS DISTINCT FROM l.fence)
        OR (c.state = 'queued' AND NOT EXISTS (SELECT 1 FROM odin.commands o WHERE o.printer_id = c.printer_id AND o.id <> c.id
              AND (o.state IN ('claimed', 'sent', 'in_doubt') OR (o.state = 'queued' AND ((o.verb <> 'stop'), o.id) < ((c.verb <> 'stop'), c.id)))))
     ORDER BY c.id LIMIT most FOR UPDATE OF c SKIP LOCKED),
  taken AS (
    UPDATE odin.commands c SET state = CASE c.state WHEN 'queued' THEN 'claimed' ELSE c.state END, holder = worker_claim_commands.holder, fence = due.fence,
        claimed_at = clock_timestamp(), attempts = c.attempts + (c.state = 'queued')::int
      FROM due WHERE c.id = due.id RETURNING c.*),
  named AS (
    UPDATE odin.runs r SET status = 'starting', remote_file = coalesce(r.remote_file, odin._remote_file(r.id)) FROM taken t
     WHERE t.verb = 'start' AND t.state = 'claimed' AND r.id = t.run_id AND r.status = 'claimed' RETURNING r.id, r.status, r.remote_file)
  SELECT coalesce(jsonb_agg(jsonb_build_object('id', t.id, 'printer_id', t.printer_id, 'fence', t.fence, 'verb', t.verb, 'arguments', t.arguments, 'in_doubt', t.state = 'in_doubt', 'run_id', t.run_id,
      'run_status', coalesce(n.status, r.status), 'remote_file', coalesce(n.remote_file, r.remote_file), 'file_sha256', v.file_sha256, 'estimated_seconds', r.planned_seconds,
      'seconds_left', greatest(0, extract(epoch FROM t.deadline - clock_timestamp()))) ORDER BY t.id), '[]') INTO claimed
    FROM taken t LEFT JOIN named n ON n.id = t.run_id LEFT JOIN odin.runs r ON r.id = t.run_id LEFT JOIN odin.model_revisions v ON v.id = r.revision_id;
  -- A search belongs to no printer and to no lease.
  WITH search AS (UPDATE odin.commands c SET state = 'claimed', holder = worker_claim_commands.holder, fence = 0, claimed_at = clock_timestamp(), attempts = 1
     WHERE c.id = (SELECT x.id FROM odin.commands x WHERE x.printer_id IS NULL AND x.state = 'queued' ORDER BY x.id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING c.id, c.arguments)
  SELECT claimed || coalesce(jsonb_agg(jsonb_build_object('id', s.id, 'search', s.arguments)), '[]') INTO claimed FROM search s;
  RETURN claimed;
END $f$;
COMMENT ON FUNCTION odin.worker_claim_commands(text, integer) IS 'Gives a sidecar the next command of each printer it holds, and those in doubt that it must reconcile first. One at a time per printer; stop goes first.';

-- A name that no other run has: servers misbehave when a file in use is overwritten, and this is how a run is recognised later. Its ending is that of the file.
CREATE OR REPLACE FUNCTION odin._remote_file(run bigint) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT format('odin_%s_%s%s', r.id, left(trim(BOTH '-' FROM regexp_replace(lower(j.name), '[^a-z0-9]+', '-', 'g')), 40), CASE f.kind WHEN 'gcode_3mf' THEN '.gcode.3mf' WHEN 'bgcode' THEN '.bgcode' ELSE '.gcode' END)
    FROM odin.runs r JOIN odin.jobs j ON j.id = r.job_id LEFT JOIN odin.model_revisions v ON v.id = r.revision_id LEFT JOIN odin.files f ON f.org_id = r.org_id AND f.sha256 = v.file_sha256 WHERE r.id = run ORDER BY f.id LIMIT 1;
$f$;

-- The last look before something leaves: still ours, still wanted, still safe. {"ok": true} is committed as 'sent' before the first byte.
CREATE OR REPLACE FUNCTION odin.worker_command_sending(command_id bigint, holder text, fence bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  c odin.commands;
  problem jsonb;
BEGIN
  SELECT * INTO c FROM odin.commands x WHERE x.id = command_id AND x.holder = worker_command_sending.holder AND x.fence = worker_command_sending.fence
     AND EXISTS (SELECT 1 FROM odin.printer_leases l WHERE l.printer_id = x.printer_id AND l.holder = x.holder AND l.fence = x.fence) FOR UPDATE;
  IF c.id IS NULL OR c.state <> 'claimed' THEN
    RETURN '{"ok": false, "reason": "lost"}';
  END IF;
  problem := CASE
    WHEN c.deadline < clock_timestamp() THEN odin._error('command_expired', format('%s was not sent to the printer in time', c.verb))
    ELSE odin._start_problem(c) END;
  IF problem IS NOT NULL THEN
    PERFORM odin._end_command(c, CASE WHEN problem->>'code' = 'cancelled' THEN 'cancelled' ELSE 'failed' END, NULL, problem);
    RETURN jsonb_build_object('ok', false, 'reason', 'refused', 'error', problem);
  END IF;
  UPDATE odin.commands SET state = 'sent', sent_at = clock_timestamp() WHERE id = c.id;
  RETURN '{"ok": true}';
END $f$;
COMMENT ON FUNCTION odin.worker_command_sending(bigint, text, bigint) IS 'Asked right before a command leaves. ok = it is committed as sent and may leave once; otherwise it must not.';

-- Why a start may not go out any more. The upload may have taken minutes: beds, holds and wishes have moved meanwhile.
CREATE OR REPLACE FUNCTION odin._start_problem(c odin.commands) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  p record;
BEGIN
  IF c.verb <> 'start' THEN RETURN NULL; END IF;
  SELECT r.status AS run_status, x.name, x.is_held, x.hold_reason, x.is_active, b.occupied, s.state INTO p FROM odin.printers x JOIN odin.beds b ON b.printer_id = x.id
    JOIN odin.printer_state s ON s.printer_id = x.id LEFT JOIN odin.runs r ON r.id = c.run_id WHERE x.id = c.printer_id;
  RETURN CASE
    WHEN EXISTS (SELECT 1 FROM odin.commands o WHERE o.printer_id = c.printer_id AND o.verb = 'stop' AND o.run_id IS NOT DISTINCT FROM c.run_id AND o.state = 'queued')
      THEN odin._error('cancelled', 'the print was cancelled before it was started')
    WHEN c.run_id IS NOT NULL AND p.run_status <> 'starting' THEN odin._error('invalid_state_transition', format('run %s is %s by now', c.run_id, p.run_status))
    WHEN p.is_held THEN odin._error('not_ready', format('%s is held%s', p.name, coalesce(': ' || p.hold_reason, '')))
    WHEN p.occupied THEN odin._error('bed_not_clear', format('something lies on the bed of %s', p.name))
    WHEN p.state IN ('printing', 'paused', 'preparing') THEN odin._error('printer_not_ready', format('%s reports %s', p.name, p.state))
  END;
END $f$;

-- The end of a command and what follows from it.
CREATE OR REPLACE FUNCTION odin._end_command(c odin.commands, outcome text, said jsonb, problem jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  unsure boolean := problem->>'code' IN ('command_in_doubt', 'command_unconfirmed');
BEGIN
  UPDATE odin.commands x SET state = outcome, result = said, error = problem WHERE x.id = c.id;
  IF c.verb = 'start' AND c.run_id IS NOT NULL THEN
    IF outcome = 'done' THEN
      PERFORM odin._run_started(c.run_id);
    ELSIF unsure THEN
      UPDATE odin.runs r SET status = 'unknown' WHERE r.id = c.run_id AND r.status IN ('claimed', 'starting');
    ELSIF odin._release_run(c.run_id) AND outcome = 'failed' THEN
      PERFORM odin._alert(c.org_id, 'queue_failed_start', format('%s could not be started', (SELECT j.name FROM odin.runs r JOIN odin.jobs j ON j.id = r.job_id WHERE r.id = c.run_id)), problem->>'detail', printer => c.printer_id, run => c.run_id);
      -- What the farm itself refused says nothing about the machine.
      IF problem->>'code' NOT IN ('cancelled', 'invalid_state_transition', 'not_ready', 'bed_not_clear', 'printer_not_ready') THEN
        PERFORM odin._auto_off(c.printer_id, format('Run %s could not be started: %s', c.run_id, problem->>'detail'), c.run_id);
      END IF;
    END IF;
  ELSIF c.verb = 'stop' AND outcome = 'done' AND c.run_id IS NOT NULL THEN
    PERFORM odin._run_stopped(c.run_id, (said->>'progress')::numeric, c.arguments->>'reason');
  END IF;
  IF unsure THEN
    INSERT INTO odin.printer_events(org_id, printer_id, run_id, kind, severity, code, message) VALUES (c.org_id, c.printer_id, c.run_id, 'command_in_doubt', 'warning', problem->>'code', problem->>'detail');
  END IF;
END $f$;

-- The printer has stopped: a run that printed is cancelled, one that never began is given back (and cancelled with its job).
CREATE OR REPLACE FUNCTION odin._run_stopped(run bigint, progress numeric, why text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  j odin.jobs;
BEGIN
  SELECT x.* INTO j FROM odin.jobs x JOIN odin.runs r ON r.job_id = x.id WHERE r.id = run;
  IF odin._release_run(run) THEN
    IF j.cancelled_by IS NOT NULL THEN
      PERFORM odin._release_job(j.id);
      UPDATE odin.jobs x SET status = 'cancelled' WHERE x.id = j.id AND x.status = 'pending';
    ELSE
      UPDATE odin.jobs x SET hold = true, hold_reason = 'the start was stopped' WHERE x.id = j.id AND x.status = 'pending';
    END IF;
  ELSIF EXISTS (SELECT 1 FROM odin.runs r WHERE r.id = run AND r.status IN ('starting', 'printing', 'paused', 'unknown')) THEN
    PERFORM odin.apply_finish(run, 'cancelled', reason => 'user_cancelled', notes => why, reported_by => 'printer', progress => progress);
  END IF;
END $f$;

CREATE OR REPLACE FUNCTION odin.worker_command_ended(command_id bigint, holder text, fence bigint, outcome jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  c odin.commands;
  problem jsonb := outcome->'error';
BEGIN
  SELECT * INTO c FROM odin.commands x WHERE x.id = command_id AND x.holder = worker_command_ended.holder AND x.fence = worker_command_ended.fence FOR UPDATE;
  IF c.id IS NULL OR c.state NOT IN ('claimed', 'sent', 'in_doubt') THEN
    RETURN '{"ok": false}';
  END IF;
  IF problem IS NOT NULL THEN
    problem := odin._error(problem->>'code', left(problem->>'detail', 1000), problem->>'hint', jsonb_build_object('printer_id', c.printer_id, 'command_id', c.id));
  END IF;
  IF outcome->>'state' = 'again' THEN
    -- Reconciled: the printer shows that it never arrived. It waits once more, unless its time is over.
    UPDATE odin.commands x SET state = 'queued', holder = NULL WHERE x.id = c.id AND x.state IN ('claimed', 'in_doubt');
  ELSE
    PERFORM odin._end_command(c, CASE WHEN problem IS NULL THEN 'done' ELSE 'failed' END, outcome->'result', problem);
  END IF;
  RETURN '{"ok": true}';
END $f$;
COMMENT ON FUNCTION odin.worker_command_ended(bigint, text, bigint, jsonb) IS 'How a command ended: {"state": "done", "result"} as the printer confirms, {"error": {code, detail}}, or {"state": "again"} when it is certain that nothing arrived.';

-- What the caller's answer becomes once the printer has answered. final = false: not yet, here is the handle.
CREATE OR REPLACE FUNCTION odin._command_answer(c odin.commands, answer jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  s record;
  words text;
  done boolean := c.state = 'done';
BEGIN
  SELECT p.name, coalesce(c.result->>'state', x.state) AS state INTO s FROM odin.printers p JOIN odin.printer_state x ON x.printer_id = p.id WHERE p.id = c.printer_id;
  words := CASE WHEN done THEN coalesce(c.result->>'detail', format('%s: %s is done; it reports %s.', s.name, c.verb, s.state))
                WHEN c.printer_id IS NULL THEN format('The search is %s; ask again with get_command.', c.state)
                ELSE format('%s: %s is %s; not confirmed by the printer yet (it reports %s). Ask again with get_command.', s.name, c.verb, replace(c.state, '_', ' '), s.state) END;
  RETURN answer || jsonb_build_object('command_id', c.id, 'command_state', c.state, 'confirmed', done)
    || CASE WHEN answer ? 'state' THEN jsonb_build_object('state', s.state) ELSE '{}' END
    || CASE WHEN answer ? 'message' THEN jsonb_build_object('message', words) ELSE '{}' END
    || CASE WHEN answer ? 'detail' THEN jsonb_build_object('detail', words) ELSE '{}' END
    || CASE WHEN answer ? 'ok' THEN jsonb_build_object('ok', done) ELSE '{}' END
    || CASE WHEN answer ? 'success' THEN jsonb_build_object('success', done) ELSE '{}' END
    || CASE WHEN answer ? 'printing' AND answer->>'printing' IS NOT NULL THEN jsonb_build_object('printing', done AND s.state IN ('printing', 'preparing')) ELSE '{}' END
    || CASE WHEN answer ? 'uploaded' THEN jsonb_build_object('uploaded', done) ELSE '{}' END
    || CASE WHEN done AND answer ? 'run_status' AND c.run_id IS NOT NULL THEN (SELECT jsonb_build_object('run_status', r.status) FROM odin.runs r WHERE r.id = c.run_id) ELSE '{}' END
    || CASE WHEN done AND answer ? 'cancelled_job_ids' AND c.run_id IS NOT NULL THEN (SELECT jsonb_build_object('status', j.status, 'notes', '[]'::jsonb) FROM odin.runs r JOIN odin.jobs j ON j.id = r.job_id WHERE r.id = c.run_id) ELSE '{}' END
    || CASE WHEN done AND c.result ? 'works' THEN jsonb_build_object('works', c.result->'works', 'ok', c.result->'works') || jsonb_strip_nulls(jsonb_build_object('problem', c.result->'problem')) ELSE '{}' END
    || CASE WHEN done AND c.result ? 'found' THEN odin._found(c.org_id, c.result) ELSE '{}' END
    || CASE WHEN done AND c.result ? 'picture' THEN jsonb_build_object('picture', c.result->'picture') ELSE '{}' END
    || CASE WHEN done AND c.result ? 'lines' THEN jsonb_build_object('lines', c.result->'lines') ELSE '{}' END;
END $f$;

CREATE OR REPLACE FUNCTION odin.gateway_command(credential text, command_id bigint, answer jsonb, options jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  p record;
  c odin.commands;
BEGIN
  SELECT * INTO p FROM odin._principal(credential, options);
  IF p.error IS NOT NULL THEN RETURN jsonb_build_object('ok', false, 'error', p.error); END IF;
  SELECT * INTO c FROM odin.commands x WHERE x.id = command_id AND x.org_id IN (SELECT odin.orgs_of((p.k).role_name::name));
  IF c.id IS NULL THEN
    RETURN jsonb_build_object('ok', false, 'error', odin._error('command_not_found', format('command_id: there is no command %s', command_id)));
  ELSIF c.state IN ('failed', 'cancelled') THEN
    RETURN jsonb_build_object('ok', true, 'final', true, 'failed', coalesce(c.error, odin._error('cancelled', format('%s was cancelled before it was sent', c.verb))));
  END IF;
  RETURN jsonb_build_object('ok', true, 'final', c.state = 'done', 'result', odin._command_answer(c, coalesce(answer, '{}')));
END $f$;
COMMENT ON FUNCTION odin.gateway_command(text, bigint, jsonb, jsonb) IS 'For a caller that waits for a printer: the tool''s answer with what the printer has confirmed by now; final says whether that is the end of it.';

CREATE OR REPLACE FUNCTION odin.get_command(command_id bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  answer jsonb := (SELECT jsonb_build_object('command_id', c.id, 'printer_id', c.printer_id, 'run_id', c.run_id, 'verb', c.verb, 'command_state', c.state, 'confirmed', c.state = 'done', 'state', s.state,
      'result', c.result, 'problem', c.error, 'requested_by', c.requested_by, 'created_at', c.created_at, 'sent_at', c.sent_at, 'finished_at', c.finished_at, 'deadline', c.deadline)
    FROM odin.commands c LEFT JOIN odin.printer_state s ON s.printer_id = c.printer_id WHERE c.id = get_command.command_id);
BEGIN
  IF answer IS NULL THEN
    PERFORM odin.fail('command_not_found', format('command_id: there is no command %s', get_command.command_id), NULL, '{"field":"command_id"}');
  END IF;
  RETURN answer;
END $f$;
COMMENT ON FUNCTION odin.get_command(bigint) IS 'Shows what became of a command to a printer: command_state done means that the printer itself confirmed it; in_doubt means nobody knows yet.';

GRANT EXECUTE ON FUNCTION odin.get_command(bigint) TO odin_viewer;
GRANT EXECUTE ON FUNCTION odin.gateway_command(text, bigint, jsonb, jsonb) TO odin_gateway;
GRANT EXECUTE ON FUNCTION odin.worker_claim_commands(text, integer), odin.worker_command_sending(bigint, text, bigint), odin.worker_command_ended(bigint, text, bigint, jsonb) TO odin_worker;
