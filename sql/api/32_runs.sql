-- Runs: claimed with their slot map, ended exactly once whoever reports it. Everything that follows from an end is done here, in one transaction.
-- Lock order everywhere: part, job, run, bed, spools by id. Functions named _x do not check who asks.

CREATE OR REPLACE FUNCTION odin._run_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  job_status text := CASE NEW.status WHEN 'paused' THEN 'paused' WHEN 'released' THEN 'pending' WHEN 'completed' THEN NULL WHEN 'failed' THEN NULL WHEN 'cancelled' THEN NULL ELSE 'printing' END;
BEGIN
  IF TG_OP = 'UPDATE' AND OLD.status = NEW.status THEN RETURN NULL; END IF;
  IF job_status IS NOT NULL THEN
    UPDATE odin.jobs SET status = job_status, started_at = CASE WHEN NEW.status IN ('printing', 'paused') THEN coalesce(started_at, NEW.started_at, now()) ELSE started_at END
     WHERE id = NEW.job_id AND status <> job_status;
  END IF;
  IF NEW.status IN ('printing', 'paused') AND (TG_OP = 'INSERT' OR OLD.status IN ('claimed', 'starting')) THEN
    PERFORM odin._bed(NEW.printer_id, true, 'run', NEW.id);
  END IF;
  RETURN NULL;
END $f$;
CREATE OR REPLACE TRIGGER odin_changed AFTER INSERT OR UPDATE OF status ON odin.runs FOR EACH ROW EXECUTE FUNCTION odin._run_changed();

CREATE OR REPLACE FUNCTION odin._bed(printer bigint, taken boolean, how text, run bigint DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  b record;
BEGIN
  SELECT * INTO b FROM odin.beds WHERE printer_id = printer FOR UPDATE;
  IF b.occupied = taken AND (NOT taken OR b.run_id IS NOT DISTINCT FROM run) THEN RETURN false; END IF;
  UPDATE odin.beds SET occupied = taken, run_id = CASE WHEN taken THEN run END, since = now() WHERE printer_id = printer;
  INSERT INTO odin.bed_events(org_id, printer_id, run_id, event, how, actor) VALUES (b.org_id, printer, coalesce(run, b.run_id), CASE WHEN taken THEN 'occupied' ELSE 'cleared' END, _bed.how, odin.actor());
  RETURN true;
END $f$;

-- Takes a printer and its slots for a job, or says which rule refuses. by_hand: a person starts it at the machine.
CREATE OR REPLACE FUNCTION odin._claim_run(job bigint, printer bigint DEFAULT NULL, by_hand boolean DEFAULT false) RETURNS odin.runs
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  j odin.jobs;
  fit record;
  r odin.runs;
  m record;
  held bigint;
BEGIN
  PERFORM 1 FROM odin.order_parts WHERE id = (SELECT part_id FROM odin.jobs WHERE id = job) FOR UPDATE;
  SELECT * INTO j FROM odin.jobs WHERE id = job FOR UPDATE;
  IF j.status NOT IN ('pending', 'scheduled') THEN
    PERFORM odin.fail(CASE WHEN j.status IN ('printing', 'paused') THEN 'job_busy' ELSE 'invalid_state_transition' END, format('job %s is %s; only a waiting job can start', job, j.status),
      CASE j.status WHEN 'submitted' THEN 'Approve it first with approve_job.' END, jsonb_build_object('from_status', j.status, 'to_status', 'printing'));
  END IF;
  IF printer IS NOT NULL THEN
    PERFORM 1 FROM odin.beds WHERE printer_id = printer FOR UPDATE;
  END IF;
  SELECT f.* INTO fit FROM odin._fit(job, coalesce(printer, j.printer_id), by_hand) f
   ORDER BY (f.rules IS NULL) DESC, (f.printer_id IS NOT DISTINCT FROM j.scheduled_printer_id) DESC, cardinality(f.rules), f.wear_hours, f.printer_id LIMIT 1;
  IF fit.printer_id IS NULL THEN
    PERFORM odin.fail('printer_not_found', format('printer_id: there is no active printer %s', coalesce(printer, j.printer_id)), NULL, '{"field":"printer_id"}');
  ELSIF fit.rules IS NOT NULL THEN
    PERFORM odin.fail(CASE fit.rules[1] WHEN 'busy' THEN 'printer_busy' WHEN 'not_cleared' THEN 'bed_not_clear' ELSE 'not_ready' END,
      format('job %s cannot start on %s: %s', job, fit.printer_name, array_to_string(fit.reasons, '; ')),
      CASE fit.rules[1] WHEN 'not_cleared' THEN format('Take the print off, then call clear_bed with printer_id %s.', fit.printer_id) END,
      jsonb_build_object('job_id', job, 'printer_id', fit.printer_id, 'rules', to_jsonb(fit.rules)));
  END IF;
  INSERT INTO odin.runs(org_id, customer_id, job_id, order_line_id, part_id, model_id, revision_id, printer_id, pieces, planned_seconds, planned_mg, claimed_by)
  VALUES (j.org_id, j.customer_id, j.id, j.order_line_id, j.part_id, j.model_id, j.revision_id, fit.printer_id, j.pieces, j.estimated_seconds,
          coalesce((SELECT sum((e->>'mg')::bigint) FROM jsonb_array_elements(fit.slot_map) e), 0), odin.actor())
  RETURNING * INTO r;
  FOR m IN SELECT (e->>'tool')::smallint AS tool, (e->>'slot_number')::smallint AS slot_number, (e->>'spool_id')::bigint AS spool_id, (e->>'mg')::bigint AS mg
             FROM jsonb_array_elements(fit.slot_map) e ORDER BY 3 LOOP
    INSERT INTO odin.run_slots(run_id, org_id, printer_id, tool, slot_number, spool_id, planned_mg) VALUES (r.id, r.org_id, r.printer_id, m.tool, m.slot_number, m.spool_id, m.mg);
    -- What the job had reserved on this spool becomes the run's.
    held := odin._reserved_for_job(m.spool_id, job);
    IF held > 0 THEN
      INSERT INTO odin.spool_moves(org_id, spool_id, kind, reserved_mg, job_id) VALUES (r.org_id, m.spool_id, 'release', -held, job);
    END IF;
    IF m.mg > 0 THEN
      INSERT INTO odin.spool_moves(org_id, spool_id, kind, reserved_mg, job_id, run_id, printer_id, slot_number) VALUES (r.org_id, m.spool_id, 'reserve', m.mg, job, r.id, r.printer_id, m.slot_number);
    END IF;
  END LOOP;
  RETURN r;
END $f$;

-- Gives a claimed run back before anything was printed: spools released, the job waits again (or is cancelled with it).
CREATE OR REPLACE FUNCTION odin._release_run(run bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  r odin.runs;
BEGIN
  PERFORM 1 FROM odin.order_parts WHERE id = (SELECT part_id FROM odin.runs WHERE id = run) FOR UPDATE;
  SELECT * INTO r FROM odin.runs WHERE id = run FOR UPDATE;
  IF r.status NOT IN ('claimed', 'starting', 'unknown') OR r.started_at IS NOT NULL THEN RETURN false; END IF;
  PERFORM odin._release_reserved(run);
  UPDATE odin.runs SET status = 'released', finished_at = now(), finished_by = odin.actor() WHERE id = run;
  RETURN true;
END $f$;

CREATE OR REPLACE FUNCTION odin._release_reserved(run bigint) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  INSERT INTO odin.spool_moves(org_id, spool_id, kind, reserved_mg, job_id, run_id, printer_id, slot_number)
  SELECT m.org_id, m.spool_id, 'release', -sum(m.reserved_mg), min(m.job_id), run, min(m.printer_id), min(m.slot_number)
    FROM odin.spool_moves m WHERE m.run_id = run GROUP BY m.org_id, m.spool_id HAVING sum(m.reserved_mg) > 0 ORDER BY m.spool_id;
$f$;

-- The run prints: said by the printer, or by the person who started it.
CREATE OR REPLACE FUNCTION odin._run_started(run bigint, at timestamptz DEFAULT now()) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  UPDATE odin.runs SET status = 'printing', started_at = coalesce(started_at, at) WHERE id = run AND status IN ('claimed', 'starting', 'paused', 'unknown');
$f$;

-- The end of a run. Reported twice or in parallel, the second finds it ended and changes nothing.
-- used: [{"tool":0,"grams":12.3,"spool_id":7,"segment":0}] where measured; without it the plan is taken, scaled by progress when the run broke off.
CREATE OR REPLACE FUNCTION odin.apply_finish(run bigint, outcome text, good integer DEFAULT NULL, scrapped integer DEFAULT NULL, reason text DEFAULT NULL, notes text DEFAULT NULL,
  reported_by text DEFAULT 'person', used jsonb DEFAULT NULL, progress numeric DEFAULT NULL, seconds integer DEFAULT NULL, energy_wh numeric DEFAULT NULL, at timestamptz DEFAULT now()) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  r odin.runs;
  j odin.jobs;
  p odin.order_parts;
  g integer;
  s integer;
  part_done numeric;
  lasted integer;
  total_mg bigint := 0;
  missing integer;
  job_status text;
  requeued bigint[] := '{}';
  cap integer;
  overshoot integer;
BEGIN
  SELECT * INTO p FROM odin.order_parts WHERE id = (SELECT part_id FROM odin.runs x WHERE x.id = run) FOR UPDATE;
  SELECT * INTO j FROM odin.jobs WHERE id = (SELECT job_id FROM odin.runs x WHERE x.id = run) FOR UPDATE;
  SELECT * INTO r FROM odin.runs x WHERE x.id = run FOR UPDATE;
  IF r.id IS NULL THEN PERFORM odin.fail('run_not_found', format('run_id: there is no run %s', run)); END IF;
  IF r.status IN ('completed', 'failed', 'cancelled', 'released') THEN
    RETURN jsonb_build_object('applied', false, 'run_id', r.id, 'job_id', r.job_id, 'status', r.status, 'good', r.good, 'scrapped', r.scrapped);
  ELSIF outcome NOT IN ('completed', 'failed', 'cancelled') THEN
    PERFORM odin.fail('validation_failed', format('outcome: %s is not completed, failed or cancelled', outcome));
  END IF;
  g := coalesce(apply_finish.good, CASE WHEN outcome = 'completed' THEN r.pieces - coalesce(apply_finish.scrapped, 0) ELSE 0 END);
  s := coalesce(apply_finish.scrapped, CASE WHEN r.started_at IS NULL THEN 0 ELSE r.pieces - g END);
  IF g < 0 OR s < 0 OR g + s > r.pieces THEN
    PERFORM odin.fail('validation_failed', format('good, scrapped: %s good and %s scrapped do not fit a plate of %s pieces', g, s, r.pieces),
      format('good + scrapped is at most %s.', r.pieces), '{"field":"good"}');
  END IF;
  lasted := greatest(0, coalesce(apply_finish.seconds, extract(epoch FROM at - coalesce(r.started_at, at)))::integer);
  part_done := CASE WHEN outcome = 'completed' THEN 1 WHEN r.started_at IS NULL THEN 0
    ELSE least(1, greatest(0, coalesce(progress / 100, r.progress_pct::numeric / 100, lasted::numeric / nullif(r.planned_seconds, 0), 1))) END;

  total_mg := odin._consume_run(r, used, part_done, at);
  PERFORM odin._release_reserved(r.id);
  UPDATE odin.runs x SET status = outcome, finished_at = at, started_at = CASE WHEN outcome = 'completed' THEN coalesce(x.started_at, at - make_interval(secs => coalesce(apply_finish.seconds, 0))) ELSE x.started_at END,
    seconds = lasted, progress_pct = round(part_done * 100, 1), used_mg = total_mg, energy_wh = apply_finish.energy_wh, good = g, scrapped = s,
    verdict = CASE WHEN apply_finish.good IS NULL AND outcome = 'completed' AND apply_finish.scrapped IS NULL THEN 'assumed' WHEN g = r.pieces THEN 'good' WHEN g > 0 THEN 'partial' ELSE 'scrap' END,
    verdict_by = CASE WHEN apply_finish.good IS NULL AND apply_finish.scrapped IS NULL THEN NULL ELSE odin.actor() END,
    verdict_at = CASE WHEN apply_finish.good IS NULL AND apply_finish.scrapped IS NULL THEN NULL ELSE now() END,
    fail_reason = CASE WHEN outcome = 'completed' AND s = 0 THEN NULL ELSE coalesce(apply_finish.reason, CASE outcome WHEN 'failed' THEN 'other' WHEN 'cancelled' THEN 'user_cancelled' ELSE 'quality' END) END,
    fail_notes = left(apply_finish.notes, 500), finished_by = odin.actor(), reported_by = apply_finish.reported_by
   WHERE x.id = r.id;
  IF r.started_at IS NOT NULL OR outcome = 'completed' THEN
    PERFORM odin._bed(r.printer_id, true, 'run', r.id);
    UPDATE odin.printer_totals t SET print_seconds = t.print_seconds + lasted, runs = t.runs + 1, runs_failed = t.runs_failed + (outcome <> 'completed')::int,
      good = t.good + g, scrapped = t.scrapped + s, last_run_at = at WHERE t.printer_id = r.printer_id;
    UPDATE odin.nozzles n SET print_seconds = n.print_seconds + lasted, runs = n.runs + 1 WHERE n.printer_id = r.printer_id AND n.removed_at IS NULL;
    PERFORM odin._run_cost(r.id);
  END IF;

  -- Somebody cancelled the job: its pieces are not made. Otherwise what is missing is queued again, linked to this run.
  job_status := CASE WHEN outcome = 'cancelled' AND j.cancelled_by IS NOT NULL THEN 'cancelled' WHEN outcome = 'completed' AND g > 0 THEN 'completed' ELSE 'failed' END;
  IF job_status <> 'cancelled' THEN
    missing := least(p.needed - (p.good - p.to_stock + g) - (p.in_flight - j.pieces) - p.queued, j.pieces);
    IF missing > 0 THEN
      cap := odin._setting(r.org_id, 'max_attempts', '3')::integer;
      requeued := odin._queue_plates(p.id, missing, odin._requeue_options(j) || jsonb_build_object('requeued_from_run_id', r.id, 'attempt', least(j.attempt + 1, 32000),
        'hold', outcome = 'cancelled' OR j.attempt >= cap,
        'hold_reason', CASE WHEN outcome = 'cancelled' THEN 'the print was stopped at the printer' WHEN j.attempt >= cap THEN format('failed %s times', j.attempt) END));
    END IF;
  END IF;
  UPDATE odin.jobs x SET status = job_status, good = g, scrapped = s, finished_at = at, started_at = coalesce(x.started_at, r.started_at),
    fail_reason = CASE WHEN job_status = 'failed' THEN coalesce(apply_finish.reason, CASE outcome WHEN 'failed' THEN 'other' WHEN 'cancelled' THEN 'user_cancelled' ELSE 'quality' END) END,
    fail_notes = CASE WHEN job_status = 'failed' THEN left(apply_finish.notes, 500) END WHERE x.id = j.id;
  IF p.is_stock AND g > 0 THEN
    INSERT INTO odin.stock_moves(org_id, model_id, kind, quantity, order_part_id, run_id, actor) VALUES (r.org_id, r.model_id, 'made', g, p.id, r.id, odin.actor());
  END IF;
  overshoot := odin._surplus_to_stock(p.id, r.id);
  PERFORM odin._finish_alert(r.id, requeued);
  PERFORM odin._maintenance_alerts(r.printer_id);
  RETURN jsonb_strip_nulls(jsonb_build_object('applied', true, 'run_id', r.id, 'job_id', r.job_id, 'printer_id', r.printer_id, 'status', outcome, 'job_status', job_status, 'good', g, 'scrapped', s,
    'grams_used', round(total_mg / 1000.0, 2), 'requeued_job_ids', CASE WHEN cardinality(requeued) > 0 THEN to_jsonb(requeued) END, 'to_stock', nullif(overshoot, 0), 'bed_occupied', true));
END $f$;
COMMENT ON FUNCTION odin.apply_finish IS 'Ends a run exactly once, whoever reports it: ledger, counts, cost, counters, bed, requeue of what is missing, alerts, in one transaction. For the farm''s own code; people use complete_job and fail_job.';

-- Consumption of a run per tool and segment; the answer is the sum in mg.
CREATE OR REPLACE FUNCTION odin._consume_run(r odin.runs, used jsonb, part_done numeric, used_at timestamptz) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  u record;
  total bigint := 0;
BEGIN
  FOR u IN
    SELECT coalesce((e->>'spool_id')::bigint, s.spool_id) AS spool_id, coalesce(s.slot_number, (e->>'slot_number')::smallint, 0::smallint) AS slot_number, coalesce((e->>'segment')::int, 0) AS segment,
           round(coalesce((e->>'grams')::numeric * 1000, (e->>'mg')::numeric))::bigint AS mg, coalesce(e->>'basis', 'person') AS basis, CASE WHEN coalesce((e->>'segment')::int, 0) = 0 THEN s.planned_mg ELSE 0 END AS release
      FROM jsonb_array_elements(CASE WHEN jsonb_typeof(used) = 'array' THEN used ELSE '[]' END) e
      LEFT JOIN odin.run_slots s ON s.run_id = r.id AND s.tool = coalesce((e->>'tool')::smallint, 0)
    UNION ALL
    SELECT s.spool_id, s.slot_number, 0, round(s.planned_mg * part_done)::bigint, CASE WHEN part_done = 1 THEN 'slicer' ELSE 'scaled' END, s.planned_mg
      FROM odin.run_slots s WHERE s.run_id = r.id AND NOT EXISTS (SELECT 1 FROM jsonb_array_elements(CASE WHEN jsonb_typeof(used) = 'array' THEN used ELSE '[]' END) e WHERE coalesce((e->>'tool')::smallint, 0) = s.tool)
    ORDER BY 1, 2, 3
  LOOP
    IF u.spool_id IS NULL THEN
      PERFORM odin.fail('validation_failed', 'used: a tool without a slot in this run needs a spool_id', NULL, '{"field":"used"}');
    ELSIF u.mg IS NULL OR u.mg < 0 THEN
      PERFORM odin.fail('validation_failed', 'used: grams must be a number, 0 or more', NULL, '{"field":"used"}');
    ELSIF NOT EXISTS (SELECT 1 FROM odin.spools sp WHERE sp.id = u.spool_id AND sp.org_id = r.org_id) THEN
      PERFORM odin.fail('spool_not_found', format('used: there is no spool %s', u.spool_id));
    END IF;
    CONTINUE WHEN u.mg = 0 AND u.release = 0;
    PERFORM odin._consume(u.spool_id, u.mg, u.release, r.job_id, r.id, r.printer_id, u.slot_number, u.segment, 0, u.basis, NULL, used_at);
    total := total + u.mg;
  END LOOP;
  RETURN total;
END $f$;

-- What a replacement takes over from the job whose pieces are missing.
CREATE OR REPLACE FUNCTION odin._requeue_options(j odin.jobs) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT jsonb_strip_nulls(jsonb_build_object('revision_id', j.revision_id, 'name', j.name, 'priority', j.priority, 'due_at', j.due_at, 'printer_id', j.printer_id, 'target_type', j.target_type,
    'target_filter', j.target_filter, 'required_tags', to_jsonb(j.required_tags), 'material_policy', j.material_policy, 'notes', j.notes));
$f$;

-- A replacement is printed in what its predecessor was to be printed in.
CREATE OR REPLACE FUNCTION odin._job_inherits_materials() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  INSERT INTO odin.job_materials(job_id, org_id, tool, material, brand, filament_id, color_hex, mg)
  SELECT NEW.id, m.org_id, m.tool, m.material, m.brand, m.filament_id, m.color_hex, m.mg
    FROM odin.runs r JOIN odin.job_materials m ON m.job_id = r.job_id WHERE r.id = NEW.requeued_from_run_id;
  RETURN NULL;
END $f$;
CREATE OR REPLACE TRIGGER odin_materials AFTER INSERT ON odin.jobs FOR EACH ROW WHEN (NEW.requeued_from_run_id IS NOT NULL) EXECUTE FUNCTION odin._job_inherits_materials();

-- What the run really cost, by the rate card in force now.
CREATE OR REPLACE FUNCTION odin._run_cost(run bigint) RETURNS numeric
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  r record;
  card odin.rate_cards;
  made odin.run_costs;
BEGIN
  SELECT x.*, p.watts, p.price, p.life_hours, p.hour_rate INTO r FROM odin.runs x JOIN odin.printers p ON p.id = x.printer_id WHERE x.id = run;
  card := odin._rate_card(r.org_id);
  made.run_id := r.id; made.org_id := r.org_id; made.rate_card_id := card.id; made.currency := card.currency;
  SELECT coalesce(round(sum(-m.mg / 1000000.0 * coalesce(s.price * 1000000 / nullif(s.initial_mg, 0), f.cost_per_kg, card.material_per_kg)), 4), 0) INTO made.material
    FROM odin.spool_moves m JOIN odin.spools s ON s.id = m.spool_id JOIN odin.filaments f ON f.id = s.filament_id
   WHERE m.run_id = run AND m.kind = 'consume' AND NOT EXISTS (SELECT 1 FROM odin.spool_moves v WHERE v.void_of = m.id);
  made.machine := round(r.seconds / 3600.0 * coalesce(r.hour_rate, r.price / r.life_hours, card.machine_per_hour), 4);
  made.energy := round(coalesce(r.energy_wh, r.seconds / 3600.0 * coalesce(r.watts, card.watts)) / 1000 * card.electricity_per_kwh, 4);
  made.labor := round(card.labor_minutes_per_run / 60 * card.labor_per_hour, 4);
  made.scrap_share := round((made.material + made.machine + made.energy + made.labor) * coalesce(r.scrapped, 0) / r.pieces, 4);
  INSERT INTO odin.run_costs(run_id, org_id, rate_card_id, material, machine, energy, labor, scrap_share, currency)
  VALUES (made.run_id, made.org_id, made.rate_card_id, made.material, made.machine, made.energy, made.labor, made.scrap_share, made.currency)
  ON CONFLICT (run_id) DO UPDATE SET material = excluded.material, machine = excluded.machine, energy = excluded.energy, labor = excluded.labor, scrap_share = excluded.scrap_share;
  UPDATE odin.runs SET cost = made.material + made.machine + made.energy + made.labor, currency = made.currency WHERE id = run;
  RETURN made.material + made.machine + made.energy + made.labor;
END $f$;

CREATE OR REPLACE FUNCTION odin._finish_alert(run bigint, requeued bigint[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  r record;
BEGIN
  SELECT x.*, j.name AS job_name, j.submitted_by, p.name AS printer_name, l.order_id, l.is_stock INTO r FROM odin.runs x JOIN odin.jobs j ON j.id = x.job_id JOIN odin.printers p ON p.id = x.printer_id
    JOIN odin.order_lines l ON l.id = x.order_line_id WHERE x.id = run;
  PERFORM odin._alert(r.org_id, CASE WHEN r.status = 'completed' AND r.good > 0 THEN 'print_complete' ELSE 'print_failed' END,
    format('%s %s on %s', r.job_name, CASE r.status WHEN 'completed' THEN 'is done' WHEN 'failed' THEN 'failed' ELSE 'was stopped' END, r.printer_name),
    format('%s good, %s scrapped%s%s', r.good, r.scrapped, coalesce(', ' || r.fail_reason, ''),
      CASE WHEN cardinality(requeued) > 0 THEN format('; queued again as job %s', array_to_string(requeued, ', ')) END),
    printer => r.printer_id, job => r.job_id, run => r.id, ord => CASE WHEN NOT r.is_stock THEN r.order_id END);
END $f$;
