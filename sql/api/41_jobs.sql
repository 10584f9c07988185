-- Verbs on jobs before they print: queue, submit, approve, reject, edit, hold, reorder, cancel, repeat, batch.
-- They run with the farm's rights, so each first asks odin._mine() whether the caller may.

-- Checks and counts quotas in this transaction, under the counter's row lock: parallel calls cannot pass the limit together.
CREATE OR REPLACE FUNCTION odin._use_quota(org bigint, who text, customer bigint, jobs integer, mg bigint, seconds bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  q record;
  wanted numeric;
  now_used numeric;
  start date;
BEGIN
  FOR q IN SELECT * FROM odin.quotas x WHERE x.org_id = org AND x.is_active AND ((x.role_name = who) OR (x.customer_id = customer) OR (x.role_name IS NULL AND x.customer_id IS NULL)) ORDER BY x.id LOOP
    wanted := CASE q.metric WHEN 'jobs' THEN jobs WHEN 'grams' THEN mg / 1000.0 ELSE seconds / 3600.0 END;
    start := CASE q.period WHEN 'daily' THEN current_date WHEN 'weekly' THEN date_trunc('week', now() AT TIME ZONE 'UTC')::date WHEN 'monthly' THEN date_trunc('month', now() AT TIME ZONE 'UTC')::date
                           ELSE make_date(extract(year FROM now() AT TIME ZONE 'UTC')::int, CASE WHEN extract(month FROM now() AT TIME ZONE 'UTC') < 7 THEN 1 ELSE 7 END, 1) END;
    INSERT INTO odin.quota_usage AS u (quota_id, org_id, subject, starts_on, used) VALUES (q.id, org, coalesce('customer ' || q.customer_id, who), start, wanted)
    ON CONFLICT (quota_id, subject, starts_on) DO UPDATE SET used = u.used + excluded.used RETURNING u.used INTO now_used;
    IF now_used > q.limit_value THEN
      PERFORM odin.fail('quota_exceeded', format('quota: this would use %s of %s %s (%s)', trim_scale(round(now_used, 2)), trim_scale(q.limit_value), q.metric, q.period), 'Ask for less, or an administrator raises it with set_quota.',
        jsonb_build_object('metric', q.metric, 'period', q.period, 'limit', trim_scale(q.limit_value), 'used', trim_scale(round(now_used - wanted, 3)), 'requested', trim_scale(round(wanted, 3))));
    END IF;
  END LOOP;
END $f$;

-- pending for whom the org trusts, submitted for whom it does not. Setting require_job_approval: false, true (viewers), "all" (everybody but admins).
CREATE OR REPLACE FUNCTION odin._first_status(org bigint) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  rule text := odin._setting(org, 'require_job_approval', 'false');
BEGIN
  IF odin._may(org, 'odin_admin') OR (odin._may(org, 'odin_operator') AND rule <> 'all') THEN RETURN 'pending'; END IF;
  IF rule IN ('true', 'all') THEN RETURN 'submitted'; END IF;
  PERFORM odin.fail('permission_denied', format('%s may read only, and this org takes no jobs for approval', odin.actor()),
    'An administrator sets require_job_approval in odin.orgs.settings, or grants odin_operator.');
END $f$;

CREATE OR REPLACE FUNCTION odin.queue_job(model_id bigint, printer_id bigint DEFAULT NULL, quantity integer DEFAULT 1, priority text DEFAULT '3', notes text DEFAULT NULL,
  due_at timestamptz DEFAULT NULL, target_type text DEFAULT NULL, target_filter text DEFAULT NULL, required_tags text[] DEFAULT NULL, color_hex text DEFAULT NULL, filament_id bigint DEFAULT NULL,
  allow_substitute boolean DEFAULT false, hold boolean DEFAULT false, item_name text DEFAULT NULL, model_revision_id bigint DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  org bigint;
  m odin.models;
  r odin.model_revisions;
  named text;
  state text;
  line bigint;
  part bigint;
  ids bigint[];
  n_plates integer;
  color text := odin._color(queue_job.color_hex);
  chosen odin.filaments;
  cost record;
BEGIN
  org := odin._mine('model', queue_job.model_id, 'model_id', 'odin_viewer');
  SELECT * INTO m FROM odin.models x WHERE x.id = queue_job.model_id;
  SELECT * INTO r FROM odin.model_revisions x WHERE x.id = coalesce(queue_job.model_revision_id, m.current_revision_id) AND x.model_id = m.id;
  IF r.id IS NULL THEN
    PERFORM odin.fail('validation_failed', CASE WHEN queue_job.model_revision_id IS NULL THEN format('model_id: model %s has no revision to print', m.id) ELSE format('model_revision_id: model %s has no revision %s', m.id, queue_job.model_revision_id) END,
      'Call get_model to see its revisions.', jsonb_build_object('field', CASE WHEN queue_job.model_revision_id IS NULL THEN 'model_id' ELSE 'model_revision_id' END));
  END IF;
  IF NOT m.is_active THEN
    PERFORM odin.fail('validation_failed', format('model_id: model %s (%s) is archived', m.id, m.name), NULL, '{"field":"model_id"}');
  END IF;
  IF queue_job.printer_id IS NOT NULL THEN
    PERFORM odin._mine('printer', queue_job.printer_id, 'printer_id', 'odin_viewer');
    IF coalesce(target_type, 'specific') <> 'specific' OR target_filter IS NOT NULL THEN
      PERFORM odin.fail('validation_failed', 'target_type: a job pinned by printer_id has no other target', 'Give printer_id, or target_type with target_filter.', '{"field":"target_type"}');
    END IF;
  ELSIF target_type = 'specific' OR (coalesce(target_type, 'any') <> 'any' AND target_filter IS NULL) OR (coalesce(target_type, 'any') = 'any' AND target_filter IS NOT NULL) THEN
    PERFORM odin.fail('validation_failed', 'target_type: specific needs printer_id; model, protocol and group need target_filter; any needs neither', NULL, '{"field":"target_type"}');
  END IF;
  IF queue_job.filament_id IS NOT NULL THEN
    PERFORM odin._mine('filament', queue_job.filament_id, 'filament_id', 'odin_viewer');
    SELECT * INTO chosen FROM odin.filaments f WHERE f.id = queue_job.filament_id;
  END IF;
  named := coalesce(item_name, left(notes, 80), m.name);
  state := odin._first_status(org);
  n_plates := ceil(queue_job.quantity::numeric / r.pieces_per_plate);
  SELECT * INTO cost FROM odin._estimate(r.id);
  PERFORM odin._use_quota(org, odin.actor(), m.customer_id, n_plates, cost.mg * n_plates, cost.seconds::bigint * n_plates);

  INSERT INTO odin.order_lines(org_id, order_id, model_id, description, quantity, due_at, priority)
  VALUES (org, odin._stock_order(org), m.id, left(named, 500), queue_job.quantity, queue_job.due_at, odin._priority(queue_job.priority)) RETURNING id INTO line;
  INSERT INTO odin.order_parts(org_id, order_line_id, model_id, ordered) VALUES (org, line, m.id, 0) RETURNING id INTO part;
  ids := odin._queue_plates(part, queue_job.quantity, jsonb_strip_nulls(jsonb_build_object('revision_id', r.id, 'name', named, 'status', state, 'hold', queue_job.hold, 'printer_id', queue_job.printer_id,
    'target_type', target_type, 'target_filter', target_filter, 'required_tags', to_jsonb(required_tags), 'material_policy', CASE WHEN allow_substitute THEN 'substitute' END, 'notes', notes, 'quantity', queue_job.quantity)));
  UPDATE odin.order_parts SET ordered = queue_job.quantity WHERE id = part;
  IF color IS NOT NULL OR chosen.id IS NOT NULL THEN
    INSERT INTO odin.job_materials(job_id, org_id, tool, material, brand, filament_id, color_hex, mg)
    SELECT i, org, x.tool, coalesce(chosen.material, x.material), x.brand, chosen.id, CASE WHEN chosen.id IS NULL THEN color END, x.mg
      FROM unnest(ids) i, odin.revision_materials x WHERE x.revision_id = r.id AND x.tool = (SELECT min(tool) FROM odin.revision_materials y WHERE y.revision_id = r.id);
  END IF;
  IF state = 'submitted' THEN
    PERFORM odin._alert(org, 'job_submitted', format('%s waits for approval', named), format('submitted by %s', odin.actor()), job => ids[1]);
    PERFORM odin.suggest('get_job', jsonb_build_object('id', ids[1]), 'see whether it was approved');
  ELSE
    PERFORM odin.suggest('get_job', jsonb_build_object('id', ids[1]), 'check its state');
    PERFORM odin.suggest('why_waiting', jsonb_build_object('job_id', ids[1]), 'see which printers can take it');
  END IF;
  PERFORM odin.would((SELECT jsonb_build_object('action', 'queue_job', 'item_name', named, 'model_id', m.id, 'model_revision_id', r.id, 'quantity', queue_job.quantity, 'plates', n_plates, 'priority', j.priority,
      'duration_hours', round(j.estimated_seconds / 3600.0, 3), 'effective_filament_type', v.filament_type, 'effective_colors', v.colors, 'initial_status', state, 'requires_approval', state = 'submitted',
      'estimated_cost', j.estimated_cost * n_plates, 'suggested_price', j.suggested_price * n_plates, 'currency', j.currency, 'target_type', j.target_type, 'target_filter', j.target_filter, 'printer_id', j.printer_id, 'due_date', j.due_at)
      FROM odin.jobs j JOIN odin.job_view v ON v.id = j.id WHERE j.id = ids[1]));
  RETURN (SELECT to_jsonb(v) FROM odin.job_view v WHERE v.id = ids[1]) || jsonb_build_object('job_id', ids[1], 'job_ids', to_jsonb(ids));
END $f$;
COMMENT ON FUNCTION odin.queue_job IS 'Queues a model to be printed, so many pieces. Lower priority is sooner (1 urgent, 3 normal, 5 lowest; words work too). printer_id pins it to one printer; without it the first fitting printer takes it. More pieces than one plate holds become several jobs (job_ids). Answer: the first job.';

CREATE OR REPLACE FUNCTION odin.cancel_job(job_id bigint, reason text DEFAULT NULL, whole_batch boolean DEFAULT false) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  j odin.jobs;
  one odin.jobs;
  r odin.runs;
  command bigint;
  stopping bigint[] := '{}';
  done bigint[] := '{}';
BEGIN
  PERFORM odin._mine('job', cancel_job.job_id);
  SELECT * INTO j FROM odin.jobs x WHERE x.id = cancel_job.job_id;
  IF j.status IN ('completed', 'failed', 'cancelled') THEN
    PERFORM odin.fail('invalid_state_transition', format('job %s is %s and cannot be cancelled', j.id, j.status), NULL, jsonb_build_object('from_status', j.status, 'to_status', 'cancelled'));
  END IF;
  PERFORM 1 FROM odin.order_parts p WHERE p.id = j.part_id FOR UPDATE;
  FOR one IN SELECT * FROM odin.jobs x WHERE x.part_id = j.part_id AND (x.id = j.id OR (whole_batch AND coalesce(x.batch_id, x.id) = coalesce(j.batch_id, j.id)))
                AND x.status NOT IN ('completed', 'failed', 'cancelled') ORDER BY x.id FOR UPDATE LOOP
    SELECT * INTO r FROM odin.runs x WHERE x.job_id = one.id AND x.status IN ('claimed', 'starting', 'printing', 'paused', 'unknown');
    IF r.id IS NOT NULL AND (r.status <> 'claimed' OR EXISTS (SELECT 1 FROM odin.commands c WHERE c.run_id = r.id AND c.state IN ('claimed', 'sent', 'in_doubt'))) THEN
      UPDATE odin.jobs SET cancelled_by = odin.actor(), cancel_reason = reason WHERE id = one.id;
      command := odin._command(r.printer_id, 'stop', r.id, jsonb_build_object('reason', reason));
      stopping := stopping || one.id;
    ELSE
      IF r.id IS NOT NULL THEN
        UPDATE odin.commands c SET state = 'cancelled', finished_at = now() WHERE c.run_id = r.id AND c.state = 'queued';
        PERFORM odin._release_run(r.id);
      END IF;
      PERFORM odin._release_job(one.id);
      UPDATE odin.jobs SET status = 'cancelled', cancelled_by = odin.actor(), cancel_reason = reason WHERE id = one.id;
      done := done || one.id;
    END IF;
  END LOOP;
  PERFORM odin.would(jsonb_build_object('action', 'cancel_job', 'job_id', j.id, 'item_name', j.name, 'from_status', j.status, 'to_status', 'cancelled', 'would_lock', false,
    'would_stop_printer', cardinality(stopping) > 0, 'job_ids', to_jsonb(done || stopping), 'reason', reason));
  IF cardinality(stopping) > 0 THEN
    PERFORM odin.note(format('The stop command is queued; job %s becomes cancelled when the printer confirms that it stopped.', array_to_string(stopping, ', ')));
    PERFORM odin.suggest('get_job', jsonb_build_object('id', stopping[1]), 'see whether the printer has stopped');
  END IF;
  PERFORM odin.suggest('list_queue', '{}', 'see what is left in the queue');
  RETURN (SELECT to_jsonb(v) FROM odin.job_view v WHERE v.id = j.id) || jsonb_strip_nulls(jsonb_build_object('job_id', j.id, 'cancelled_job_ids', to_jsonb(done), 'stopping_job_ids', to_jsonb(stopping), 'command_id', command, 'command_state', CASE WHEN command IS NOT NULL THEN 'queued' END));
END $f$;
COMMENT ON FUNCTION odin.cancel_job(bigint, text, boolean) IS 'Cancels a job in any state before its end. A waiting job is cancelled at once; for one that prints, a stop command goes to the printer and the job becomes cancelled when the printer confirms. Its pieces are not made again. whole_batch cancels all plates of the same request.';

-- A command for a printer: written here, carried out by the sidecar that holds the printer.
CREATE OR REPLACE FUNCTION odin._command(printer bigint, verb text, run bigint DEFAULT NULL, arguments jsonb DEFAULT '{}', within interval DEFAULT '5 minutes') RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  made bigint;
BEGIN
  SELECT c.id INTO made FROM odin.commands c WHERE c.printer_id = printer AND c.verb = _command.verb AND c.run_id IS NOT DISTINCT FROM run AND c.state IN ('queued', 'claimed', 'sent') LIMIT 1;
  IF made IS NULL THEN
    INSERT INTO odin.commands(org_id, printer_id, run_id, verb, arguments, deadline, requested_by, call_id)
    SELECT p.org_id, p.id, run, _command.verb, coalesce(_command.arguments, '{}'), now() + within, odin.actor(), odin.current_call() FROM odin.printers p WHERE p.id = printer RETURNING id INTO made;
    PERFORM pg_notify('odin_work', '');
  END IF;
  RETURN made;
END $f$;

-- Lets go of what a job had reserved on spools.
CREATE OR REPLACE FUNCTION odin._release_job(job bigint) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  INSERT INTO odin.spool_moves(org_id, spool_id, kind, reserved_mg, job_id)
  SELECT m.org_id, m.spool_id, 'release', -sum(m.reserved_mg), job FROM odin.spool_moves m
   WHERE m.job_id = job AND m.run_id IS NULL AND m.kind IN ('reserve', 'release') GROUP BY m.org_id, m.spool_id HAVING sum(m.reserved_mg) > 0 ORDER BY m.spool_id;
$f$;
GRANT EXECUTE ON FUNCTION odin.queue_job TO odin_viewer;
GRANT EXECUTE ON FUNCTION odin.cancel_job(bigint, text, boolean) TO odin_operator;
