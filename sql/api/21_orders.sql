-- The quantity invariant: counters of order_parts follow the jobs, a shortfall queues itself, line and order states follow the counters.
-- Always after a statement: good - to_stock + in_flight + queued >= needed, unless the model has nothing to print.

-- Where the pieces of a job stand.
CREATE OR REPLACE FUNCTION odin._job_is_queued(status text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $f$ SELECT status IN ('submitted', 'rejected', 'pending', 'scheduled') $f$;
CREATE OR REPLACE FUNCTION odin._job_is_in_flight(status text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $f$ SELECT status IN ('printing', 'paused') $f$;

-- The session keeps a trigger's plans, made for as many rows as it met first, one or ten thousand: what was and what is are therefore added up instead of
-- joined, and each part is found by its key.
CREATE OR REPLACE FUNCTION odin._jobs_counted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  x record;
BEGIN
  IF TG_OP = 'INSERT' THEN
    FOR x IN SELECT n.part_id, sum(n.pieces * odin._job_is_queued(n.status)::int)::int AS q, sum(n.pieces * odin._job_is_in_flight(n.status)::int)::int AS f, sum(n.good)::int AS g, sum(n.scrapped)::int AS s
               FROM new_rows n GROUP BY n.part_id ORDER BY n.part_id LOOP
      UPDATE odin.order_parts p SET queued = p.queued + x.q, in_flight = p.in_flight + x.f, good = p.good + x.g, scrapped = p.scrapped + x.s, updated_at = now() WHERE p.id = x.part_id;
    END LOOP;
    RETURN NULL;
  END IF;
  FOR x IN
    SELECT * FROM (
      SELECT w.part_id, sum(w.sign * w.pieces * odin._job_is_queued(w.status)::int)::int AS q, sum(w.sign * w.pieces * odin._job_is_in_flight(w.status)::int)::int AS f,
             sum(w.sign * w.good)::int AS g, sum(w.sign * w.scrapped)::int AS s, sum(w.sign * w.pieces * (w.status = 'cancelled')::int)::int AS cancelled
        FROM (SELECT 1 AS sign, n.part_id, n.pieces, n.status, n.good, n.scrapped FROM new_rows n UNION ALL SELECT -1, o.part_id, o.pieces, o.status, o.good, o.scrapped FROM old_rows o) w
       GROUP BY w.part_id) d
     WHERE (d.q, d.f, d.g, d.s, d.cancelled) <> (0, 0, 0, 0, 0) ORDER BY d.part_id
  LOOP
    -- A cancelled job's pieces are waived as far as they would be missing now: cancelling is a decision not to make them.
    UPDATE odin.order_parts p
       SET queued = p.queued + x.q, in_flight = p.in_flight + x.f, good = p.good + x.g, scrapped = p.scrapped + x.s, updated_at = now(),
           waived = p.waived + least(x.cancelled, greatest(p.needed - (p.good + x.g - p.to_stock) - (p.in_flight + x.f) - (p.queued + x.q), 0))
     WHERE p.id = x.part_id;
  END LOOP;
  RETURN NULL;
END $f$;
CREATE OR REPLACE TRIGGER odin_counted_insert AFTER INSERT ON odin.jobs REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION odin._jobs_counted();
CREATE OR REPLACE TRIGGER odin_counted_update AFTER UPDATE ON odin.jobs REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION odin._jobs_counted();

-- Queues whole plates for `pieces` of a part. Everything a job needs to know comes from its line, order and model.
CREATE OR REPLACE FUNCTION odin._queue_plates(part bigint, wanted integer, options jsonb DEFAULT '{}') RETURNS bigint[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $f$
DECLARE
  p record;
  per_plate integer;
  n integer;
  ids bigint[];
  cost record;
BEGIN
  IF wanted < 1 THEN RETURN '{}'; END IF;
  SELECT op.id, op.org_id, op.customer_id, op.order_line_id, op.model_id, m.name AS model_name, m.markup_percent, CASE WHEN l.product_id IS NULL THEN l.description ELSE l.description || ': ' || m.name END AS description, o.is_stock,
         r.id AS revision_id, r.pieces_per_plate, coalesce(r.seconds, 0) AS seconds,
         coalesce(l.priority, o.priority) AS priority, coalesce(l.due_at, o.due_at) AS due_at
    INTO p FROM odin.order_parts op JOIN odin.order_lines l ON l.id = op.order_line_id JOIN odin.orders o ON o.id = l.order_id JOIN odin.models m ON m.id = op.model_id
    LEFT JOIN odin.model_revisions r ON r.id = coalesce((options->>'revision_id')::bigint, m.current_revision_id) AND r.model_id = m.id
   WHERE op.id = part;
  IF p.revision_id IS NULL THEN
    PERFORM odin.fail('validation_failed', format('model_id: model %s (%s) has no revision to print', p.model_id, p.model_name), 'Add one with add_model_revision.', '{"field":"model_id"}');
  END IF;
  per_plate := p.pieces_per_plate;
  n := ceil(wanted::numeric / per_plate);
  SELECT e.mg, e.cost, e.currency INTO cost FROM odin._estimate(p.revision_id) e;
  WITH made AS (
    INSERT INTO odin.jobs(org_id, customer_id, order_line_id, part_id, model_id, revision_id, plate_no, plates, name, quantity, pieces, status, hold, hold_reason,
      priority, due_at, printer_id, target_type, target_filter, required_tags, material_policy, estimated_seconds, estimated_mg, estimated_cost, suggested_price, currency,
      attempt, requeued_from_run_id, notes)
    SELECT p.org_id, p.customer_id, p.order_line_id, p.id, p.model_id, p.revision_id, i, n,
      left(coalesce(options->>'name', p.description, p.model_name), 200), coalesce((options->>'quantity')::int, wanted), per_plate,
      coalesce(options->>'status', 'pending'), coalesce((options->>'hold')::boolean, false), options->>'hold_reason',
      coalesce((options->>'priority')::smallint, p.priority), coalesce((options->>'due_at')::timestamptz, p.due_at),
      (options->>'printer_id')::bigint, coalesce(options->>'target_type', CASE WHEN options ? 'printer_id' AND options->>'printer_id' IS NOT NULL THEN 'specific' ELSE 'any' END),
      options->>'target_filter', coalesce(ARRAY(SELECT jsonb_array_elements_text(nullif(options->'required_tags', 'null'))), '{}'), coalesce(options->>'material_policy', 'hold'),
      p.seconds, cost.mg, cost.cost, round(cost.cost * (1 + p.markup_percent / 100), 2), cost.currency,
      coalesce((options->>'attempt')::smallint, 1), (options->>'requeued_from_run_id')::bigint, options->>'notes'
    FROM generate_series(1, n) i
    RETURNING id
  ) SELECT array_agg(id ORDER BY id) INTO ids FROM made;
  IF n > 1 THEN UPDATE odin.jobs SET batch_id = ids[1] WHERE id = ANY (ids); END IF;
  RETURN ids;
END $f$;

-- A part that lacks pieces queues them. Parts on a line that is held back queue on hold.
CREATE OR REPLACE FUNCTION odin._part_short() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  PERFORM odin._queue_plates(NEW.id, NEW.shortfall);
  RETURN NULL;
END $f$;
CREATE OR REPLACE TRIGGER odin_short AFTER INSERT OR UPDATE ON odin.order_parts FOR EACH ROW WHEN (NEW.shortfall > 0) EXECUTE FUNCTION odin._part_short();

-- Line and order follow their parts. The stock order has no state to follow.
CREATE OR REPLACE FUNCTION odin._refresh_line(line bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  l record;
BEGIN
  SELECT x.id, x.order_id, x.quantity, x.fulfilled INTO l FROM odin.order_lines x WHERE x.id = line FOR UPDATE;
  -- A fresh statement sees what others committed while we waited for the lock.
  UPDATE odin.order_lines x SET fulfilled = f.units
    FROM (SELECT least(l.quantity, coalesce(min((p.good - p.to_stock + p.from_stock) / p.per_unit), 0)) AS units FROM odin.order_parts p WHERE p.order_line_id = line) f
   WHERE x.id = line AND x.fulfilled <> f.units;
  PERFORM odin._refresh_order(l.order_id);
END $f$;
CREATE OR REPLACE FUNCTION odin._part_moved() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  PERFORM odin._refresh_line(NEW.order_line_id);
  RETURN NULL;
END $f$;
CREATE OR REPLACE TRIGGER odin_moved AFTER UPDATE ON odin.order_parts FOR EACH ROW
  WHEN (NOT NEW.is_stock AND (OLD.good, OLD.to_stock, OLD.from_stock, OLD.waived, OLD.ordered, OLD.in_flight > 0) IS DISTINCT FROM (NEW.good, NEW.to_stock, NEW.from_stock, NEW.waived, NEW.ordered, NEW.in_flight > 0))
  EXECUTE FUNCTION odin._part_moved();
-- Pieces taken from stock may fulfil a line at once; a further part may open it again.
CREATE OR REPLACE TRIGGER odin_moved_insert AFTER INSERT ON odin.order_parts FOR EACH ROW WHEN (NOT NEW.is_stock) EXECUTE FUNCTION odin._part_moved();

CREATE OR REPLACE FUNCTION odin._refresh_order(ord bigint) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  o record;
  now_is text;
BEGIN
  SELECT id, status, is_stock INTO o FROM odin.orders WHERE id = ord FOR UPDATE;
  IF o.is_stock OR o.status IN ('shipped', 'cancelled') THEN RETURN o.status; END IF;
  -- Again a fresh statement.
  SELECT CASE WHEN count(*) = 0 THEN 'pending'
              WHEN bool_and(p.good - p.to_stock + p.from_stock + p.waived >= p.ordered) AND bool_or(p.good - p.to_stock + p.from_stock > 0) THEN 'fulfilled'
              WHEN bool_or(l.fulfilled > 0) THEN 'partial'
              WHEN bool_or(p.in_flight > 0 OR p.good > 0 OR p.scrapped > 0) THEN 'in_progress'
              ELSE 'pending' END
    INTO now_is
    FROM odin.order_lines l JOIN odin.order_parts p ON p.order_line_id = l.id WHERE l.order_id = ord AND l.status = 'open';
  IF now_is <> o.status THEN
    UPDATE odin.orders SET status = now_is WHERE id = ord;
  END IF;
  RETURN now_is;
END $f$;

-- Cancels queued plates that nobody needs any more, newest first; what prints goes on and its pieces go to stock.
CREATE OR REPLACE FUNCTION odin._trim_part(part bigint, why text) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  p record;
  surplus integer;
  j record;
  gone bigint[] := '{}';
BEGIN
  SELECT * INTO p FROM odin.order_parts WHERE id = part FOR UPDATE;
  surplus := (p.good - p.to_stock) + p.in_flight + p.queued - p.needed;
  FOR j IN SELECT id, pieces FROM odin.jobs WHERE part_id = part AND status IN ('submitted', 'rejected', 'pending', 'scheduled') ORDER BY id DESC FOR UPDATE LOOP
    IF j.pieces <= surplus THEN
      gone := gone || j.id;
      surplus := surplus - j.pieces;
    END IF;
  END LOOP;
  UPDATE odin.jobs SET status = 'cancelled', cancelled_by = odin.actor(), cancel_reason = why WHERE id = ANY (gone);
  PERFORM odin._surplus_to_stock(part, NULL);
  RETURN cardinality(gone);
END $f$;

-- Good pieces beyond what the part needs go to finished stock.
CREATE OR REPLACE FUNCTION odin._surplus_to_stock(part bigint, run bigint) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  p record;
  extra integer;
BEGIN
  SELECT * INTO p FROM odin.order_parts WHERE id = part FOR UPDATE;
  extra := p.good - p.to_stock - p.needed;
  IF p.is_stock OR extra <= 0 THEN RETURN 0; END IF;
  UPDATE odin.order_parts SET to_stock = to_stock + extra, updated_at = now() WHERE id = part;
  INSERT INTO odin.stock_moves(org_id, model_id, kind, quantity, order_part_id, run_id, actor) VALUES (p.org_id, p.model_id, 'overshoot', extra, part, run, odin.actor());
  RETURN extra;
END $f$;

CREATE OR REPLACE FUNCTION odin._stock_moved() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  -- Not an upsert alone: the row proposed for insertion would meet the CHECK before it meets the row that is there.
  UPDATE odin.stock_balances b SET quantity = b.quantity + NEW.quantity WHERE b.model_id = NEW.model_id;
  IF NOT FOUND THEN
    INSERT INTO odin.stock_balances AS b (org_id, model_id, quantity) VALUES (NEW.org_id, NEW.model_id, NEW.quantity)
    ON CONFLICT (model_id) DO UPDATE SET quantity = b.quantity + excluded.quantity;
  END IF;
  RETURN NULL;
END $f$;
CREATE OR REPLACE TRIGGER odin_balance AFTER INSERT ON odin.stock_moves FOR EACH ROW EXECUTE FUNCTION odin._stock_moved();

CREATE OR REPLACE FUNCTION odin._consumable_moved() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  UPDATE odin.consumables SET stock = stock + NEW.quantity WHERE id = NEW.consumable_id;
  RETURN NULL;
END $f$;
CREATE OR REPLACE TRIGGER odin_balance AFTER INSERT ON odin.consumable_moves FOR EACH ROW EXECUTE FUNCTION odin._consumable_moved();

-- The org's standing stock order, made when first needed.
CREATE OR REPLACE FUNCTION odin._stock_order(org bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  found_one bigint;
BEGIN
  SELECT id INTO found_one FROM odin.orders WHERE org_id = org AND is_stock;
  IF found_one IS NULL THEN
    INSERT INTO odin.orders(org_id, is_stock, order_number, status, currency, channel, notes)
    VALUES (org, true, 'STOCK', 'in_progress', odin._currency(org), 'stock', 'Standing order: jobs that nobody ordered are made for stock.')
    ON CONFLICT DO NOTHING;
    SELECT id INTO found_one FROM odin.orders WHERE org_id = org AND is_stock;
  END IF;
  RETURN found_one;
END $f$;

-- Lines, parts and jobs take customer and kind from what they hang on, so that a copy cannot lie.
CREATE OR REPLACE FUNCTION odin._inherit() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  IF TG_TABLE_NAME = 'order_lines' THEN
    SELECT o.customer_id, o.is_stock INTO NEW.customer_id, NEW.is_stock FROM odin.orders o WHERE o.id = NEW.order_id;
  ELSIF TG_TABLE_NAME = 'order_parts' THEN
    SELECT l.customer_id, l.is_stock INTO NEW.customer_id, NEW.is_stock FROM odin.order_lines l WHERE l.id = NEW.order_line_id;
  ELSIF TG_TABLE_NAME IN ('model_revisions', 'model_files') THEN
    SELECT m.customer_id INTO NEW.customer_id FROM odin.models m WHERE m.id = NEW.model_id;
  ELSIF TG_TABLE_NAME = 'revision_materials' THEN
    SELECT r.customer_id INTO NEW.customer_id FROM odin.model_revisions r WHERE r.id = NEW.revision_id;
  ELSE
    SELECT j.customer_id INTO NEW.customer_id FROM odin.jobs j WHERE j.id = NEW.job_id;
  END IF;
  RETURN NEW;
END $f$;
DO $d$
DECLARE
  t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['order_lines','order_parts','model_revisions','model_files','revision_materials','job_materials'] LOOP
    EXECUTE format('CREATE OR REPLACE TRIGGER odin_inherit BEFORE INSERT ON odin.%I FOR EACH ROW EXECUTE FUNCTION odin._inherit()', t);
  END LOOP;
END $d$;
