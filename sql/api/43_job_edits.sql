-- Verbs on waiting jobs: approve, reject, resubmit, change, hold, reorder, repeat, batch.

CREATE OR REPLACE FUNCTION odin._waiting_job(job bigint, wanted text[], verb text, target text) RETURNS odin.jobs
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  j odin.jobs;
BEGIN
  SELECT * INTO j FROM odin.jobs x WHERE x.id = job FOR UPDATE;
  IF j.status <> ALL (wanted) THEN
    PERFORM odin.fail('invalid_state_transition', format('job %s is %s and cannot be %s', job, j.status, verb), format('It must be %s.', array_to_string(wanted, ' or ')),
      jsonb_strip_nulls(jsonb_build_object('from_status', j.status, 'to_status', target)));
  END IF;
  RETURN j;
END $f$;

CREATE OR REPLACE FUNCTION odin.approve_job(job_id bigint, notes text DEFAULT NULL, whole_batch boolean DEFAULT true) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  j odin.jobs;
  n integer;
BEGIN
  PERFORM odin._mine('job', approve_job.job_id);
  j := odin._waiting_job(approve_job.job_id, '{submitted}', 'approved', 'pending');
  UPDATE odin.jobs x SET status = 'pending', approved_by = odin.actor(), approved_at = now(), approval_notes = approve_job.notes
   WHERE x.part_id = j.part_id AND x.status = 'submitted' AND (x.id = j.id OR (whole_batch AND coalesce(x.batch_id, x.id) = coalesce(j.batch_id, j.id)));
  GET DIAGNOSTICS n = ROW_COUNT;
  PERFORM odin._alert(j.org_id, 'job_approved', format('%s was approved', j.name), coalesce(approve_job.notes, format('approved by %s', odin.actor())), j.submitted_by, job => j.id);
  PERFORM odin.would(jsonb_build_object('action', 'approve_job', 'job_id', j.id, 'from_status', 'submitted', 'to_status', 'pending', 'approver_id', odin.actor(), 'would_notify_submitter', true, 'jobs', n));
  PERFORM odin.suggest('why_waiting', jsonb_build_object('job_id', j.id), 'see which printers can take it');
  RETURN jsonb_build_object('status', 'pending', 'job_id', j.id, 'approved_by', odin.actor(), 'notes', approve_job.notes, 'jobs_approved', n);
END $f$;
COMMENT ON FUNCTION odin.approve_job(bigint, text, boolean) IS 'Approves a submitted job: it joins the queue and the submitter is told. All plates of the same request are approved unless whole_batch is false.';

CREATE OR REPLACE FUNCTION odin.reject_job(job_id bigint, reason text, whole_batch boolean DEFAULT true) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  j odin.jobs;
  n integer;
BEGIN
  PERFORM odin._mine('job', reject_job.job_id);
  IF btrim(coalesce(reject_job.reason, '')) = '' THEN
    PERFORM odin.fail('validation_failed', 'reason: a rejection needs a reason; the submitter reads it', NULL, '{"field":"reason"}');
  END IF;
  j := odin._waiting_job(reject_job.job_id, '{submitted}', 'rejected', 'rejected');
  UPDATE odin.jobs x SET status = 'rejected', rejected_by = odin.actor(), rejected_at = now(), rejected_reason = reject_job.reason
   WHERE x.part_id = j.part_id AND x.status = 'submitted' AND (x.id = j.id OR (whole_batch AND coalesce(x.batch_id, x.id) = coalesce(j.batch_id, j.id)));
  GET DIAGNOSTICS n = ROW_COUNT;
  PERFORM odin._alert(j.org_id, 'job_rejected', format('%s was rejected', j.name), reject_job.reason, j.submitted_by, job => j.id);
  PERFORM odin.would(jsonb_build_object('action', 'reject_job', 'job_id', j.id, 'from_status', 'submitted', 'to_status', 'rejected', 'rejector_id', odin.actor(), 'reason', reject_job.reason, 'jobs', n));
  RETURN jsonb_build_object('status', 'rejected', 'job_id', j.id, 'reason', reject_job.reason, 'rejected_by', odin.actor(), 'jobs_rejected', n);
END $f$;
COMMENT ON FUNCTION odin.reject_job(bigint, text, boolean) IS 'Rejects a submitted job; the reason is required and shown to the submitter, who may change the job and submit it again with resubmit_job.';

CREATE OR REPLACE FUNCTION odin.resubmit_job(job_id bigint, notes text DEFAULT NULL, color_hex text DEFAULT NULL, due_at timestamptz DEFAULT NULL, priority text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  j odin.jobs;
  color text := odin._color(resubmit_job.color_hex);
BEGIN
  PERFORM odin._mine('job', resubmit_job.job_id, 'job_id', 'odin_viewer');
  j := odin._waiting_job(resubmit_job.job_id, '{rejected}', 'submitted again', 'submitted');
  IF j.submitted_by <> odin.actor() AND NOT odin._may(j.org_id) THEN
    PERFORM odin.fail('permission_denied', format('job %s was submitted by %s; only they or an operator may submit it again', j.id, j.submitted_by));
  END IF;
  UPDATE odin.jobs x SET status = 'submitted', notes = coalesce(resubmit_job.notes, x.notes), due_at = coalesce(resubmit_job.due_at, x.due_at), priority = coalesce(odin._priority(resubmit_job.priority), x.priority)
   WHERE x.part_id = j.part_id AND x.status = 'rejected' AND coalesce(x.batch_id, x.id) = coalesce(j.batch_id, j.id);
  IF color IS NOT NULL THEN
    PERFORM odin._set_material(j.id, color, NULL);
  END IF;
  PERFORM odin._alert(j.org_id, 'job_submitted', format('%s waits for approval again', j.name), format('submitted by %s', odin.actor()), job => j.id);
  RETURN (SELECT jsonb_build_object('status', x.status, 'job_id', x.id, 'notes', x.notes, 'due_at', x.due_at, 'priority', x.priority) FROM odin.jobs x WHERE x.id = j.id);
END $f$;
COMMENT ON FUNCTION odin.resubmit_job(bigint, text, text, timestamptz, text) IS 'Submits a rejected job again, with changes if you give some. The approvers are told.';

-- Another colour or filament than the revision's for the first tool of a job.
CREATE OR REPLACE FUNCTION odin._set_material(job bigint, color text, filament bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  f odin.filaments;
BEGIN
  SELECT * INTO f FROM odin.filaments x WHERE x.id = filament;
  INSERT INTO odin.job_materials AS m (job_id, org_id, tool, material, brand, filament_id, color_hex, mg)
  SELECT j.id, j.org_id, x.tool, coalesce(f.material, x.material), x.brand, f.id, CASE WHEN f.id IS NULL THEN color END, x.mg
    FROM odin.jobs j JOIN odin.revision_materials x ON x.revision_id = j.revision_id WHERE j.id = job ORDER BY x.tool LIMIT 1
  ON CONFLICT (job_id, tool) DO UPDATE SET material = excluded.material, brand = excluded.brand, filament_id = excluded.filament_id, color_hex = excluded.color_hex;
END $f$;

CREATE OR REPLACE FUNCTION odin.update_job(job_id bigint, priority text DEFAULT NULL, due_at timestamptz DEFAULT NULL, notes text DEFAULT NULL, item_name text DEFAULT NULL, printer_id bigint DEFAULT NULL, unpin boolean DEFAULT false,
  target_type text DEFAULT NULL, target_filter text DEFAULT NULL, required_tags text[] DEFAULT NULL, color_hex text DEFAULT NULL, filament_id bigint DEFAULT NULL, allow_substitute boolean DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  j odin.jobs;
BEGIN
  PERFORM odin._mine('job', update_job.job_id);
  j := odin._waiting_job(update_job.job_id, '{submitted,rejected,pending,scheduled}', 'changed', NULL);
  IF update_job.printer_id IS NOT NULL THEN
    PERFORM odin._mine('printer', update_job.printer_id);
    j.printer_id := update_job.printer_id; j.target_type := 'specific'; j.target_filter := NULL;
  ELSIF unpin THEN
    j.printer_id := NULL; j.target_type := 'any'; j.target_filter := NULL;
  END IF;
  IF update_job.target_type IS NOT NULL AND update_job.printer_id IS NULL THEN
    j.printer_id := NULL; j.target_type := update_job.target_type; j.target_filter := update_job.target_filter;
  END IF;
  IF update_job.filament_id IS NOT NULL THEN PERFORM odin._mine('filament', update_job.filament_id); END IF;
  IF update_job.filament_id IS NOT NULL OR update_job.color_hex IS NOT NULL THEN
    PERFORM odin._set_material(j.id, odin._color(update_job.color_hex), update_job.filament_id);
  END IF;
  UPDATE odin.jobs x SET priority = coalesce(odin._priority(update_job.priority), x.priority), due_at = coalesce(update_job.due_at, x.due_at), notes = coalesce(update_job.notes, x.notes),
    name = coalesce(update_job.item_name, x.name), printer_id = j.printer_id, target_type = j.target_type, target_filter = j.target_filter, required_tags = coalesce(update_job.required_tags, x.required_tags),
    material_policy = CASE update_job.allow_substitute WHEN true THEN 'substitute' WHEN false THEN 'hold' ELSE x.material_policy END,
    status = CASE WHEN x.status = 'scheduled' AND j.printer_id IS DISTINCT FROM x.printer_id AND j.printer_id IS DISTINCT FROM x.scheduled_printer_id THEN 'pending' ELSE x.status END
   WHERE x.id = j.id;
  RETURN (SELECT to_jsonb(v) FROM odin.job_view v WHERE v.id = j.id) || jsonb_build_object('job_id', j.id);
END $f$;
COMMENT ON FUNCTION odin.update_job IS 'Changes a waiting job: priority, due date, notes, name, pin to a printer (or unpin), target, tags, colour, filament. What you leave out stays.';

CREATE OR REPLACE FUNCTION odin.hold_job(job_id bigint, hold boolean DEFAULT true, reason text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  j odin.jobs;
BEGIN
  PERFORM odin._mine('job', hold_job.job_id);
  j := odin._waiting_job(hold_job.job_id, '{submitted,rejected,pending,scheduled}', 'held', NULL);
  UPDATE odin.jobs x SET hold = hold_job.hold, hold_reason = CASE WHEN hold_job.hold THEN hold_job.reason END, status = CASE WHEN hold_job.hold AND x.status = 'scheduled' THEN 'pending' ELSE x.status END WHERE x.id = j.id;
  RETURN (SELECT jsonb_build_object('job_id', x.id, 'status', x.status, 'hold', x.hold, 'hold_reason', x.hold_reason) FROM odin.jobs x WHERE x.id = j.id);
END $f$;
COMMENT ON FUNCTION odin.hold_job(bigint, boolean, text) IS 'Holds a waiting job back, or lets it go again with hold false. A held job keeps its place but does not start.';

CREATE OR REPLACE FUNCTION odin.move_job(job_id bigint, "to" text DEFAULT 'top', before_job_id bigint DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  j odin.jobs;
  b odin.jobs;
  place numeric;
  n integer := 0;
  w record;
BEGIN
  PERFORM odin._mine('job', move_job.job_id);
  j := odin._waiting_job(move_job.job_id, '{pending,scheduled}', 'moved', NULL);
  IF before_job_id IS NOT NULL THEN
    PERFORM odin._mine('job', before_job_id, 'before_job_id');
    b := odin._waiting_job(before_job_id, '{pending,scheduled}', 'moved before', NULL);
    IF b.id = j.id OR b.org_id <> j.org_id THEN
      PERFORM odin.fail('validation_failed', 'before_job_id: another waiting job of the same org', NULL, '{"field":"before_job_id"}');
    END IF;
    IF b.queue_position IS NULL THEN
      -- Everything up to the other job gets a position by hand in its present order; then there is a place before it.
      FOR w IN SELECT x.id FROM odin.jobs x WHERE x.org_id = j.org_id AND x.status IN ('pending', 'scheduled') AND x.id <> j.id
                 AND (coalesce(x.queue_position, 'infinity'::numeric), x.start_by, x.priority, x.id) <= ('infinity'::numeric, b.start_by, b.priority, b.id)
                ORDER BY coalesce(x.queue_position, 'infinity'::numeric), x.start_by, x.priority, x.id LIMIT 1000 LOOP
        n := n + 1;
        UPDATE odin.jobs SET queue_position = n WHERE id = w.id;
      END LOOP;
      SELECT x.queue_position INTO b.queue_position FROM odin.jobs x WHERE x.id = b.id;
      IF b.queue_position IS NULL THEN
        PERFORM odin.fail('validation_failed', 'before_job_id: more than 1000 jobs are ahead of it; move this job to the top instead', NULL, '{"field":"before_job_id"}');
      END IF;
    END IF;
    place := (coalesce((SELECT max(x.queue_position) FROM odin.jobs x WHERE x.org_id = j.org_id AND x.status IN ('pending', 'scheduled') AND x.queue_position < b.queue_position AND x.id <> j.id), b.queue_position - 2) + b.queue_position) / 2;
  ELSIF move_job."to" = 'top' THEN
    -- On top already: stays, so that asking twice changes nothing.
    SELECT coalesce(min(x.queue_position) FILTER (WHERE x.id <> j.id), 1) - 1 INTO place FROM odin.jobs x WHERE x.org_id = j.org_id AND x.status IN ('pending', 'scheduled') AND x.queue_position IS NOT NULL;
    IF j.queue_position <= place THEN place := j.queue_position; END IF;
  END IF;
  UPDATE odin.jobs SET queue_position = trim_scale(place) WHERE id = j.id;
  RETURN jsonb_build_object('job_id', j.id, 'queue_position', trim_scale(place), 'ahead', (SELECT count(*) FROM odin.jobs x JOIN odin.jobs me ON me.id = j.id WHERE x.org_id = j.org_id AND x.status IN ('pending', 'scheduled')
    AND (coalesce(x.queue_position, 'infinity'::numeric), x.start_by, x.priority, x.id) < (coalesce(me.queue_position, 'infinity'::numeric), me.start_by, me.priority, me.id)));
END $f$;
COMMENT ON FUNCTION odin.move_job(bigint, text, bigint) IS 'Moves a waiting job in the queue by hand: to the top, before another job, or back to its automatic place. A job moved by hand goes before all that were not.';

CREATE OR REPLACE FUNCTION odin.repeat_job(job_id bigint, quantity integer DEFAULT NULL, priority text DEFAULT NULL, due_at timestamptz DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  j odin.jobs;
  m record;
  answer jsonb;
  again bigint;
BEGIN
  PERFORM odin._mine('job', repeat_job.job_id, 'job_id', 'odin_viewer');
  SELECT * INTO j FROM odin.jobs x WHERE x.id = repeat_job.job_id;
  answer := odin.queue_job(j.model_id, j.printer_id, coalesce(repeat_job.quantity, least(j.pieces, 100)), coalesce(repeat_job.priority, j.priority::text), j.notes, repeat_job.due_at,
    CASE WHEN j.target_type IN ('model', 'protocol', 'group') THEN j.target_type END, j.target_filter, j.required_tags, NULL, NULL, j.material_policy = 'substitute', false, j.name, j.revision_id);
  FOR again IN SELECT e::bigint FROM jsonb_array_elements_text(answer->'job_ids') e LOOP
    INSERT INTO odin.job_materials(job_id, org_id, tool, material, brand, filament_id, color_hex, mg)
    SELECT again, x.org_id, x.tool, x.material, x.brand, x.filament_id, x.color_hex, x.mg FROM odin.job_materials x WHERE x.job_id = j.id;
  END LOOP;
  RETURN answer || jsonb_build_object('repeats_job_id', j.id);
END $f$;
COMMENT ON FUNCTION odin.repeat_job(bigint, integer, text, timestamptz) IS 'Queues the same again for stock: same model revision, target, colour and notes as an earlier job.';

CREATE OR REPLACE FUNCTION odin.batch_job(model_id bigint, printer_ids bigint[] DEFAULT NULL, group_name text DEFAULT NULL, tag text DEFAULT NULL, quantity_each integer DEFAULT 1, priority text DEFAULT '3', notes text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  org bigint := odin._mine('model', batch_job.model_id);
  p bigint;
  targets bigint[];
  made jsonb := '[]';
BEGIN
  IF num_nonnulls(batch_job.printer_ids, batch_job.group_name, batch_job.tag) <> 1 THEN
    PERFORM odin.fail('validation_failed', 'printer_ids: give printer_ids, group_name or tag, one of them', NULL, '{"field":"printer_ids"}');
  END IF;
  FOREACH p IN ARRAY coalesce(batch_job.printer_ids, '{}') LOOP
    PERFORM odin._mine('printer', p, 'printer_ids');
  END LOOP;
  targets := coalesce(batch_job.printer_ids, ARRAY(SELECT x.id FROM odin.printers x WHERE x.org_id = org AND x.is_active AND (lower(x.group_name) = lower(batch_job.group_name) OR batch_job.tag = ANY (x.tags)) ORDER BY x.id));
  IF cardinality(targets) NOT BETWEEN 1 AND 50 THEN
    PERFORM odin.fail('validation_failed', format('group_name: that names %s printers; 1 to 50 are possible', cardinality(targets)), 'Call list_printers with group_name or tag.', '{"field":"group_name"}');
  END IF;
  FOREACH p IN ARRAY targets LOOP
    made := made || (SELECT odin.queue_job(batch_job.model_id, p, quantity_each, batch_job.priority, batch_job.notes)->'job_ids');
  END LOOP;
  RETURN jsonb_build_object('model_id', batch_job.model_id, 'printers', cardinality(targets), 'job_ids', made, 'count', jsonb_array_length(made));
END $f$;
COMMENT ON FUNCTION odin.batch_job IS 'Queues the same model once for each of several printers: given by printer_ids, by group_name or by tag; each job is pinned to its printer.';

CREATE OR REPLACE FUNCTION odin.bulk_update_jobs(job_ids bigint[], action text, priority text DEFAULT NULL, reason text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  one bigint;
BEGIN
  IF bulk_update_jobs.action = 'set_priority' AND bulk_update_jobs.priority IS NULL THEN
    PERFORM odin.fail('validation_failed', 'priority: set_priority needs one', NULL, '{"field":"priority"}');
  END IF;
  FOR one IN SELECT DISTINCT x FROM unnest(bulk_update_jobs.job_ids) x ORDER BY x LOOP
    CASE bulk_update_jobs.action
      WHEN 'cancel' THEN PERFORM odin.cancel_job(one, bulk_update_jobs.reason);
      WHEN 'hold' THEN PERFORM odin.hold_job(one, true, bulk_update_jobs.reason);
      WHEN 'unhold' THEN PERFORM odin.hold_job(one, false);
      WHEN 'approve' THEN PERFORM odin.approve_job(one, bulk_update_jobs.reason, false);
      WHEN 'reject' THEN PERFORM odin.reject_job(one, bulk_update_jobs.reason, false);
      ELSE PERFORM odin.update_job(one, bulk_update_jobs.priority);
    END CASE;
  END LOOP;
  RETURN jsonb_build_object('action', bulk_update_jobs.action, 'count', (SELECT count(DISTINCT x) FROM unnest(bulk_update_jobs.job_ids) x),
    'jobs', (SELECT coalesce(jsonb_agg(jsonb_build_object('job_id', j.id, 'status', j.status, 'priority', j.priority, 'hold', j.hold) ORDER BY j.id), '[]') FROM odin.jobs j WHERE j.id = ANY (bulk_update_jobs.job_ids)));
END $f$;
COMMENT ON FUNCTION odin.bulk_update_jobs(bigint[], text, text, text) IS 'Does the same to up to 100 jobs: cancel, hold, unhold, approve, reject or set_priority. All or nothing: if one job refuses, none is changed.';
GRANT EXECUTE ON FUNCTION odin.resubmit_job(bigint, text, text, timestamptz, text), odin.repeat_job(bigint, integer, text, timestamptz) TO odin_viewer;
GRANT EXECUTE ON FUNCTION odin.approve_job(bigint, text, boolean), odin.reject_job(bigint, text, boolean), odin.update_job, odin.hold_job(bigint, boolean, text), odin.move_job(bigint, text, bigint), odin.batch_job,
  odin.bulk_update_jobs(bigint[], text, text, text) TO odin_operator;
