-- Verbs around a print: why it waits, start, pause, resume, stop, complete, fail, verdict, clear the bed.
-- What only the printer can confirm is answered as "command queued", never as done.

CREATE OR REPLACE FUNCTION odin.why_waiting(job_id bigint, printer_id bigint DEFAULT NULL, only_fitting boolean DEFAULT false, "limit" integer DEFAULT 50) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  j jsonb := (SELECT jsonb_build_object('job_id', v.id, 'item_name', v.item_name, 'status', v.status, 'hold', v.hold, 'start_by', v.start_by) FROM odin.job_view v WHERE v.id = why_waiting.job_id);
  answer jsonb;
BEGIN
  IF j IS NULL THEN
    PERFORM odin.fail('job_not_found', format('job_id: there is no job %s', why_waiting.job_id), NULL, '{"field":"job_id"}');
  END IF;
  WITH w AS MATERIALIZED (SELECT row_number() OVER () AS n, x.* FROM odin.why(why_waiting.job_id, why_waiting.printer_id) x)
  SELECT jsonb_build_object('fits', (SELECT count(*) FROM w WHERE w.fits), 'checked', (SELECT count(*) FROM w),
      'reasons', (SELECT coalesce(jsonb_object_agg(r.rule, r.n), '{}') FROM (SELECT w.rule, count(*) AS n FROM w WHERE NOT w.fits GROUP BY w.rule) r),
      'printers', (SELECT coalesce(jsonb_agg(jsonb_build_object('printer_id', w.printer_id, 'printer_name', w.printer_name, 'fits', w.fits, 'rule', w.rule, 'reason', w.reason, 'all_rules', w.all_rules, 'all_reasons', w.all_reasons, 'slot_map', w.slot_map)
                       || CASE WHEN p.auto_dispatch_off_at IS NOT NULL THEN jsonb_build_object('automatic_start_off', p.auto_dispatch_off_reason) ELSE '{}' END ORDER BY w.n), '[]')
                     FROM w LEFT JOIN odin.printers p ON p.id = w.printer_id WHERE w.n <= why_waiting."limit" AND (w.fits OR NOT only_fitting)))
    INTO answer;
  IF (answer->>'fits')::int > 0 THEN
    PERFORM odin.suggest('start_job', jsonb_build_object('job_id', why_waiting.job_id, 'printer_id', answer#>'{printers,0,printer_id}'), 'a printer is ready for it');
  ELSIF answer->'reasons' ? 'not_cleared' THEN
    PERFORM odin.suggest('list_printers', '{"status_filter":"finished"}', 'see which beds have to be cleared');
  END IF;
  RETURN j || answer;
END $f$;
COMMENT ON FUNCTION odin.why_waiting(bigint, bigint, boolean, integer) IS 'Says why a job does not start: per printer the first rule that refuses it and the reason in words, and which printers fit now. reasons counts printers per rule.';

-- The plate that a sliced file's figures are of is the one to print: a file may hold only its third.
CREATE OR REPLACE FUNCTION odin._plate_of(revision bigint) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT coalesce((SELECT jsonb_build_object('plate', f.facts->'plate') FROM odin.model_revisions v JOIN odin.files f ON f.org_id = v.org_id AND f.sha256 = v.file_sha256
    WHERE v.id = revision AND f.kind = 'gcode_3mf' AND f.facts ? 'plate' ORDER BY f.id LIMIT 1), '{}');
$f$;

CREATE OR REPLACE FUNCTION odin.start_job(job_id bigint, printer_id bigint DEFAULT NULL, started_by_hand boolean DEFAULT false) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  r odin.runs;
  command bigint;
BEGIN
  PERFORM odin._mine('job', start_job.job_id);
  IF start_job.printer_id IS NOT NULL THEN PERFORM odin._mine('printer', start_job.printer_id); END IF;
  r := odin._claim_run(start_job.job_id, start_job.printer_id, started_by_hand);
  IF started_by_hand THEN
    PERFORM odin._run_started(r.id);
  ELSE
    command := odin._command(r.printer_id, 'start', r.id, jsonb_build_object('job_id', r.job_id, 'slots',
      (SELECT coalesce(jsonb_agg(jsonb_build_object('tool', s.tool, 'slot_number', s.slot_number) ORDER BY s.tool), '[]') FROM odin.run_slots s WHERE s.run_id = r.id)) || odin._plate_of(r.revision_id), '15 minutes');
    PERFORM odin.note('The start command is queued; the job prints when the printer reports it.');
  END IF;
  PERFORM odin.would(jsonb_build_object('action', 'start_job', 'job_id', r.job_id, 'printer_id', r.printer_id, 'from_status', 'pending', 'to_status', 'printing', 'by_hand', started_by_hand,
    'grams', round(r.planned_mg / 1000.0, 2), 'duration_hours', round(r.planned_seconds / 3600.0, 3)));
  RETURN (SELECT jsonb_strip_nulls(jsonb_build_object('job_id', r.job_id, 'run_id', r.id, 'printer_id', r.printer_id, 'printer_name', p.name, 'run_status', x.status, 'command_id', command, 'command_state', CASE WHEN command IS NOT NULL THEN 'queued' END,
      'slots', (SELECT coalesce(jsonb_agg(jsonb_build_object('tool', s.tool, 'slot_number', s.slot_number, 'spool_id', s.spool_id, 'grams', round(s.planned_mg / 1000.0, 2)) ORDER BY s.tool), '[]') FROM odin.run_slots s WHERE s.run_id = r.id)))
    FROM odin.runs x JOIN odin.printers p ON p.id = x.printer_id WHERE x.id = r.id);
END $f$;
COMMENT ON FUNCTION odin.start_job(bigint, bigint, boolean) IS 'Starts a waiting job on a printer that fits (or the one given): claims printer, bed and spools, and sends the start command. started_by_hand: you start it at the machine yourself. Refused with the rule when something is in the way.';

-- The run a report is about: the job's active one, else a new one at the printer where somebody printed it by hand.
CREATE OR REPLACE FUNCTION odin._run_to_finish(job bigint, printer bigint, hours numeric) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  j odin.jobs;
  found_run bigint;
  r odin.runs;
BEGIN
  SELECT * INTO j FROM odin.jobs x WHERE x.id = job;
  SELECT x.id INTO found_run FROM odin.runs x WHERE x.job_id = job AND x.status IN ('claimed','starting','printing','paused','unknown');
  IF found_run IS NOT NULL THEN
    PERFORM odin._run_started(found_run, now() - make_interval(secs => coalesce(hours * 3600, 0)::float8));
    RETURN found_run;
  END IF;
  IF j.status NOT IN ('pending', 'scheduled') THEN RETURN NULL; END IF;
  IF coalesce(printer, j.printer_id, j.scheduled_printer_id) IS NULL THEN
    PERFORM odin.fail('invalid_state_transition', format('job %s is %s: it was not started', job, j.status), 'Call start_job first, or give the printer_id where it was printed by hand.',
      jsonb_build_object('from_status', j.status, 'to_status', 'completed'));
  END IF;
  r := odin._claim_run(job, coalesce(printer, j.printer_id, j.scheduled_printer_id), true);
  PERFORM odin._run_started(r.id, now() - make_interval(secs => coalesce(hours * 3600, 0)::float8));
  RETURN r.id;
END $f$;

CREATE OR REPLACE FUNCTION odin._finish_answer(done jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  j odin.jobs;
BEGIN
  SELECT * INTO j FROM odin.jobs x WHERE x.id = (done->>'job_id')::bigint;
  IF NOT (done->>'applied')::boolean THEN
    PERFORM odin.note(format('Job %s was reported before; nothing changed.', j.id));
  ELSE
    PERFORM odin.suggest('clear_bed', jsonb_build_object('printer_id', done->'printer_id'), 'when the print is off the bed');
    IF done ? 'requeued_job_ids' THEN
      PERFORM odin.suggest('get_job', jsonb_build_object('id', done#>'{requeued_job_ids,0}'), 'the missing pieces are queued again');
    END IF;
  END IF;
  RETURN done || jsonb_build_object('job_status', j.status, 'success', true);
END $f$;

CREATE OR REPLACE FUNCTION odin.complete_job(job_id bigint, good integer DEFAULT NULL, scrapped integer DEFAULT NULL, scrap_reason text DEFAULT NULL, notes text DEFAULT NULL, used_grams numeric DEFAULT NULL,
  used jsonb DEFAULT NULL, print_hours numeric DEFAULT NULL, printer_id bigint DEFAULT NULL, energy_kwh numeric DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  j odin.jobs;
  run bigint;
  done jsonb;
BEGIN
  PERFORM odin._mine('job', complete_job.job_id);
  IF complete_job.printer_id IS NOT NULL THEN PERFORM odin._mine('printer', complete_job.printer_id); END IF;
  PERFORM 1 FROM odin.order_parts p WHERE p.id = (SELECT x.part_id FROM odin.jobs x WHERE x.id = complete_job.job_id) FOR UPDATE;
  SELECT * INTO j FROM odin.jobs x WHERE x.id = complete_job.job_id FOR UPDATE;
  IF j.status = 'completed' THEN
    run := (SELECT max(x.id) FROM odin.runs x WHERE x.job_id = j.id);
  ELSE
    run := odin._run_to_finish(j.id, complete_job.printer_id, print_hours);
  END IF;
  IF run IS NULL THEN
    PERFORM odin.fail('invalid_state_transition', format('job %s is %s and cannot be completed', j.id, j.status), NULL, jsonb_build_object('from_status', j.status, 'to_status', 'completed'));
  END IF;
  done := odin.apply_finish(run, 'completed', complete_job.good, complete_job.scrapped, scrap_reason, complete_job.notes, CASE WHEN odin.call_key() IS NULL THEN 'person' ELSE 'agent' END,
    coalesce(complete_job.used, CASE WHEN used_grams IS NOT NULL THEN jsonb_build_array(jsonb_build_object('tool', coalesce((SELECT min(s.tool) FROM odin.run_slots s WHERE s.run_id = run), 0), 'grams', used_grams)) END),
    NULL, (print_hours * 3600)::integer, energy_kwh * 1000);
  PERFORM odin.would(jsonb_build_object('action', 'complete_job', 'job_id', j.id, 'run_id', run, 'from_status', j.status, 'to_status', done->'job_status', 'good', done->'good', 'scrapped', done->'scrapped',
    'grams_consumed', done->'grams_used', 'would_requeue', done ? 'requeued_job_ids'));
  RETURN odin._finish_answer(done);
END $f$;
COMMENT ON FUNCTION odin.complete_job IS 'Reports that a job was printed: good and scrapped pieces, grams if you know better than the plan. Books filament, cost, stock and order progress once; reporting twice changes nothing. Missing pieces are queued again. Then clear the bed with clear_bed.';

CREATE OR REPLACE FUNCTION odin.fail_job(job_id bigint, reason text DEFAULT 'other', notes text DEFAULT NULL, good integer DEFAULT 0, progress_percent numeric DEFAULT NULL, used_grams numeric DEFAULT NULL, requeue boolean DEFAULT true,
  printer_id bigint DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  j odin.jobs;
  run bigint;
  done jsonb;
  again bigint;
BEGIN
  PERFORM odin._mine('job', fail_job.job_id);
  IF fail_job.printer_id IS NOT NULL THEN PERFORM odin._mine('printer', fail_job.printer_id); END IF;
  PERFORM 1 FROM odin.order_parts p WHERE p.id = (SELECT x.part_id FROM odin.jobs x WHERE x.id = fail_job.job_id) FOR UPDATE;
  SELECT * INTO j FROM odin.jobs x WHERE x.id = fail_job.job_id FOR UPDATE;
  IF j.status = 'failed' THEN
    run := (SELECT max(x.id) FROM odin.runs x WHERE x.job_id = j.id);
  ELSE
    run := odin._run_to_finish(j.id, fail_job.printer_id, NULL);
  END IF;
  IF run IS NULL THEN
    PERFORM odin.fail('invalid_state_transition', format('job %s is %s and cannot fail', j.id, j.status), NULL, jsonb_build_object('from_status', j.status, 'to_status', 'failed'));
  END IF;
  done := odin.apply_finish(run, 'failed', fail_job.good, NULL, fail_job.reason, fail_job.notes, CASE WHEN odin.call_key() IS NULL THEN 'person' ELSE 'agent' END,
    CASE WHEN used_grams IS NOT NULL THEN jsonb_build_array(jsonb_build_object('tool', coalesce((SELECT min(s.tool) FROM odin.run_slots s WHERE s.run_id = run), 0), 'grams', used_grams)) END, progress_percent);
  IF NOT requeue AND done ? 'requeued_job_ids' THEN
    FOR again IN SELECT e::bigint FROM jsonb_array_elements_text(done->'requeued_job_ids') e LOOP
      UPDATE odin.jobs SET status = 'cancelled', cancelled_by = odin.actor(), cancel_reason = 'not to be made again' WHERE id = again;
    END LOOP;
    done := done - 'requeued_job_ids' || '{"waived": true}';
  END IF;
  PERFORM odin.would(jsonb_build_object('action', 'fail_job', 'job_id', j.id, 'run_id', run, 'from_status', j.status, 'to_status', 'failed', 'reason', fail_job.reason, 'good', done->'good', 'scrapped', done->'scrapped',
    'grams_consumed', done->'grams_used', 'would_requeue', done ? 'requeued_job_ids'));
  RETURN odin._finish_answer(done);
END $f$;
COMMENT ON FUNCTION odin.fail_job IS 'Reports that a print failed, with the reason. Filament is booked by progress (or used_grams), the missing pieces are queued again unless requeue is false, linked to this run. Then clear the bed with clear_bed.';

-- A later look at the plate corrects what was assumed; counts, stock and requeue follow.
CREATE OR REPLACE FUNCTION odin._judge(run bigint, new_good integer, new_scrapped integer, why text, note text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  p odin.order_parts;
  j odin.jobs;
  r odin.runs;
  g integer;
  s integer;
  back integer;
  missing integer;
  requeued bigint[] := '{}';
BEGIN
  SELECT * INTO p FROM odin.order_parts x WHERE x.id = (SELECT y.part_id FROM odin.runs y WHERE y.id = run) FOR UPDATE;
  SELECT * INTO j FROM odin.jobs x WHERE x.id = (SELECT y.job_id FROM odin.runs y WHERE y.id = run) FOR UPDATE;
  SELECT * INTO r FROM odin.runs x WHERE x.id = run FOR UPDATE;
  IF r.status NOT IN ('completed', 'failed', 'cancelled') THEN
    PERFORM odin.fail('invalid_state_transition', format('run %s is %s: it has no result to judge yet', run, r.status), 'Call complete_job or fail_job.');
  END IF;
  g := coalesce(new_good, r.pieces - new_scrapped);
  s := coalesce(new_scrapped, r.pieces - g);
  IF g < 0 OR s < 0 OR g + s > r.pieces THEN
    PERFORM odin.fail('validation_failed', format('good, scrapped: %s good and %s scrapped do not fit a plate of %s pieces', g, s, r.pieces), NULL, '{"field":"good"}');
  END IF;
  UPDATE odin.runs x SET good = g, scrapped = s, verdict = CASE WHEN g = r.pieces THEN 'good' WHEN g > 0 THEN 'partial' ELSE 'scrap' END, verdict_by = odin.actor(), verdict_at = now(),
    fail_reason = CASE WHEN s > 0 OR r.status <> 'completed' THEN coalesce(why, r.fail_reason, 'quality') END, fail_notes = coalesce(left(note, 500), r.fail_notes) WHERE x.id = run;
  UPDATE odin.printer_totals t SET good = t.good + g - r.good, scrapped = t.scrapped + s - r.scrapped WHERE t.printer_id = r.printer_id;
  IF p.is_stock THEN
    IF g <> r.good THEN
      INSERT INTO odin.stock_moves(org_id, model_id, kind, quantity, order_part_id, run_id, reason, actor) VALUES (r.org_id, r.model_id, 'adjust', g - r.good, p.id, run, 'verdict', odin.actor());
    END IF;
  ELSE
    back := p.to_stock - greatest(p.good + g - r.good - p.needed, 0);
    IF back > 0 THEN
      UPDATE odin.order_parts SET to_stock = to_stock - back WHERE id = p.id RETURNING * INTO p;
      INSERT INTO odin.stock_moves(org_id, model_id, kind, quantity, order_part_id, run_id, reason, actor) VALUES (r.org_id, r.model_id, 'adjust', -back, p.id, run, 'verdict', odin.actor());
    END IF;
  END IF;
  missing := p.needed - (p.good - p.to_stock + g - r.good) - p.in_flight - p.queued;
  IF missing > 0 THEN
    requeued := odin._queue_plates(p.id, missing, odin._requeue_options(j) || jsonb_build_object('requeued_from_run_id', run, 'attempt', j.attempt + 1));
  END IF;
  UPDATE odin.jobs SET good = g, scrapped = s WHERE id = j.id;
  PERFORM odin._surplus_to_stock(p.id, run);
  PERFORM odin._run_cost(run);
  RETURN jsonb_strip_nulls(jsonb_build_object('run_id', run, 'job_id', j.id, 'good', g, 'scrapped', s, 'verdict', CASE WHEN g = r.pieces THEN 'good' WHEN g > 0 THEN 'partial' ELSE 'scrap' END,
    'requeued_job_ids', CASE WHEN cardinality(requeued) > 0 THEN to_jsonb(requeued) END));
END $f$;

CREATE OR REPLACE FUNCTION odin.set_verdict(run_id bigint, good integer DEFAULT NULL, scrapped integer DEFAULT NULL, reason text DEFAULT NULL, notes text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  PERFORM odin._mine('run', set_verdict.run_id);
  IF set_verdict.good IS NULL AND set_verdict.scrapped IS NULL THEN
    PERFORM odin.fail('validation_failed', 'good: give good, scrapped or both', NULL, '{"field":"good"}');
  END IF;
  RETURN odin._judge(set_verdict.run_id, set_verdict.good, set_verdict.scrapped, set_verdict.reason, set_verdict.notes);
END $f$;
COMMENT ON FUNCTION odin.set_verdict(bigint, integer, integer, text, text) IS 'Corrects how many pieces of a finished run are good and scrapped, after looking at the plate. Order, stock and cost follow; missing pieces are queued again.';

CREATE OR REPLACE FUNCTION odin.clear_bed(printer_id bigint, good integer DEFAULT NULL, scrapped integer DEFAULT NULL, reason text DEFAULT NULL, how text DEFAULT 'person') RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  b record;
  active odin.runs;
  judged jsonb;
  was boolean;
BEGIN
  PERFORM odin._mine('printer', clear_bed.printer_id);
  SELECT x.occupied, x.run_id, x.since INTO b FROM odin.beds x WHERE x.printer_id = clear_bed.printer_id;
  SELECT * INTO active FROM odin.runs x WHERE x.printer_id = clear_bed.printer_id AND x.status IN ('claimed','starting','printing','paused','unknown');
  IF active.id IS NOT NULL THEN
    PERFORM odin.fail('printer_busy', format('run %s of job %s is %s on this printer', active.id, active.job_id, active.status), 'Report it first with complete_job or fail_job.', jsonb_build_object('job_id', active.job_id));
  END IF;
  IF clear_bed.good IS NOT NULL OR clear_bed.scrapped IS NOT NULL THEN
    IF b.run_id IS NULL THEN
      PERFORM odin.fail('validation_failed', 'good: no run of the farm lies on this bed, so there is nothing to count', NULL, '{"field":"good"}');
    END IF;
    judged := odin._judge(b.run_id, clear_bed.good, clear_bed.scrapped, clear_bed.reason, NULL);
  END IF;
  was := odin._bed(clear_bed.printer_id, false, clear_bed.how);
  PERFORM odin.would(jsonb_build_object('action', 'clear_bed', 'printer_id', clear_bed.printer_id, 'was_occupied', b.occupied, 'run_id', b.run_id, 'how', clear_bed.how));
  PERFORM odin.suggest('list_queue', '{}', 'see what can start here next');
  IF EXISTS (SELECT 1 FROM odin.printers x WHERE x.id = clear_bed.printer_id AND x.auto_dispatch_off_at IS NOT NULL) THEN
    PERFORM odin.suggest('update_printer', jsonb_build_object('printer_id', clear_bed.printer_id, 'auto_dispatch', true), 'automatic start switched itself off after a failure; switch it on again once the printer is in order');
  END IF;
  RETURN jsonb_strip_nulls(jsonb_build_object('success', true, 'printer_id', clear_bed.printer_id, 'was_occupied', b.occupied, 'occupied_since', CASE WHEN b.occupied THEN b.since END, 'run_id', b.run_id, 'verdict', judged));
END $f$;
COMMENT ON FUNCTION odin.clear_bed(bigint, integer, integer, text, text) IS 'Records that the bed is clear, so that the next job may start. At the same moment you can say how many pieces were good and scrapped.';

-- pause, resume and stop: the same shape of answer.
CREATE OR REPLACE FUNCTION odin._printer_verb(printer bigint, verb text, wanted_from text[], target text, arguments jsonb DEFAULT '{}') RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  p record;
  command bigint;
BEGIN
  PERFORM odin._mine('printer', _printer_verb.printer);
  SELECT x.id, x.name, s.state, s.reported_at, r.id AS run_id, r.status AS run_status INTO p FROM odin.printers x JOIN odin.printer_state s ON s.printer_id = x.id
    LEFT JOIN odin.runs r ON r.printer_id = x.id AND r.status IN ('claimed','starting','printing','paused','unknown') WHERE x.id = _printer_verb.printer;
  IF NOT (p.state = ANY (wanted_from) OR (p.state IN ('unknown', 'idle') AND coalesce(p.run_status = ANY (wanted_from), false))) THEN
    PERFORM odin.fail('invalid_state_transition', format('printer %s reports %s; it cannot %s', p.name, p.state, _printer_verb.verb),
      format('It must be %s.', array_to_string(wanted_from, ' or ')), jsonb_build_object('printer_id', p.id, 'from_status', p.state, 'to_status', target));
  END IF;
  command := odin._command(p.id, _printer_verb.verb, p.run_id, _printer_verb.arguments);
  PERFORM odin.would(jsonb_build_object('action', _printer_verb.verb || '_printer', 'printer_id', p.id, 'printer_name', p.name, 'current_gcode_state', p.state, 'target_gcode_state', target));
  PERFORM odin.suggest('get_printer', jsonb_build_object('id', p.id), 'see what the printer reports now');
  RETURN jsonb_build_object('success', true, 'message', format('The %s command for %s is queued; the printer still reports %s.', _printer_verb.verb, p.name, p.state), 'printer_id', p.id, 'state', p.state,
    'command_id', command, 'command_state', (SELECT c.state FROM odin.commands c WHERE c.id = command));
END $f$;

CREATE OR REPLACE FUNCTION odin.pause_printer(printer_id bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  RETURN odin._printer_verb(pause_printer.printer_id, 'pause', '{printing}', 'paused');
END $f$;
COMMENT ON FUNCTION odin.pause_printer(bigint) IS 'Pauses the print that runs on a printer. The answer says whether the command is queued or done; state is what the printer itself reports.';

CREATE OR REPLACE FUNCTION odin.resume_printer(printer_id bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  RETURN odin._printer_verb(resume_printer.printer_id, 'resume', '{paused}', 'printing');
END $f$;
COMMENT ON FUNCTION odin.resume_printer(bigint) IS 'Resumes a paused print. The answer says whether the command is queued or done; state is what the printer itself reports.';

CREATE OR REPLACE FUNCTION odin.stop_printer(printer_id bigint, reason text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  RETURN odin._printer_verb(stop_printer.printer_id, 'stop', '{preparing,printing,paused,starting,unknown,error}', 'idle', jsonb_strip_nulls(jsonb_build_object('reason', stop_printer.reason)));
END $f$;
COMMENT ON FUNCTION odin.stop_printer(bigint, text) IS 'Stops the print on a printer for good; it cannot be resumed. The job is queued again on hold. To give the job up as well use cancel_job.';
GRANT EXECUTE ON FUNCTION odin.why_waiting(bigint, bigint, boolean, integer) TO odin_viewer;
GRANT EXECUTE ON FUNCTION odin.start_job(bigint, bigint, boolean), odin.complete_job, odin.fail_job, odin.set_verdict(bigint, integer, integer, text, text), odin.clear_bed(bigint, integer, integer, text, text),
  odin.pause_printer(bigint), odin.resume_printer(bigint), odin.stop_printer(bigint, text) TO odin_operator;
