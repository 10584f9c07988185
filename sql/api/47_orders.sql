-- Orders: made, imported once, changed with their jobs reconciled, cancelled, shipped. Lock order: parts by id, then jobs, lines, order.

-- A line with the pieces it needs. Jobs queue themselves from the parts (21_orders.sql).
CREATE OR REPLACE FUNCTION odin._add_line(ord bigint, item jsonb, use_stock boolean, held boolean) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  o odin.orders;
  line bigint;
  pt record;
  what record;
  taken integer;
  n integer := (item->>'quantity')::integer;
BEGIN
  SELECT * INTO o FROM odin.orders x WHERE x.id = ord;
  IF n IS NULL OR n < 1 OR n > 100000 THEN
    PERFORM odin.fail('validation_failed', 'lines: quantity is a whole number from 1 to 100000', NULL, '{"field":"lines"}');
  ELSIF num_nonnulls(item->>'product_id', item->>'model_id') <> 1 THEN
    PERFORM odin.fail('validation_failed', 'lines: each line has a product_id or a model_id, one of the two', NULL, '{"field":"lines"}');
  END IF;
  IF item ? 'product_id' THEN
    IF odin._mine('product', (item->>'product_id')::bigint, 'product_id') <> o.org_id THEN PERFORM odin.fail('product_not_found', format('product_id: there is no product %s', item->>'product_id')); END IF;
    SELECT p.name, p.price INTO what FROM odin.products p WHERE p.id = (item->>'product_id')::bigint;
    IF NOT EXISTS (SELECT 1 FROM odin.product_parts x WHERE x.product_id = (item->>'product_id')::bigint) THEN
      PERFORM odin.fail('validation_failed', format('product_id: product %s (%s) has no parts to print', item->>'product_id', what.name), 'Add parts with save_product.', '{"field":"product_id"}');
    END IF;
  ELSE
    IF odin._mine('model', (item->>'model_id')::bigint, 'model_id') <> o.org_id THEN PERFORM odin.fail('model_not_found', format('model_id: there is no model %s', item->>'model_id')); END IF;
    SELECT m.name, round(e.cost / r.pieces_per_plate * (1 + m.markup_percent / 100), 2) AS price INTO what
      FROM odin.models m JOIN odin.model_revisions r ON r.id = m.current_revision_id, odin._estimate(r.id) e WHERE m.id = (item->>'model_id')::bigint;
  END IF;
  INSERT INTO odin.order_lines(org_id, order_id, line_no, external_line_id, product_id, model_id, description, quantity, unit_price, due_at, priority, notes)
  VALUES (o.org_id, ord, (SELECT coalesce(max(x.line_no), 0) + 1 FROM odin.order_lines x WHERE x.order_id = ord), item->>'external_line_id', (item->>'product_id')::bigint, (item->>'model_id')::bigint,
    left(coalesce(item->>'description', what.name), 500), n, coalesce((item->>'unit_price')::numeric, what.price, 0), (item->>'due_at')::timestamptz, odin._priority(item->>'priority'), item->>'notes')
  RETURNING id INTO line;
  FOR pt IN SELECT x.model_id, x.quantity FROM odin.product_parts x WHERE x.product_id = (item->>'product_id')::bigint UNION ALL SELECT (item->>'model_id')::bigint, 1 WHERE item ? 'model_id' ORDER BY 1 LOOP
    taken := 0;
    IF use_stock THEN
      SELECT least(b.quantity, n * pt.quantity) INTO taken FROM odin.stock_balances b WHERE b.model_id = pt.model_id FOR UPDATE;
      taken := coalesce(taken, 0);
    END IF;
    INSERT INTO odin.order_parts(org_id, order_line_id, model_id, per_unit, ordered, from_stock) VALUES (o.org_id, line, pt.model_id, pt.quantity, n * pt.quantity, taken);
    IF taken > 0 THEN
      INSERT INTO odin.stock_moves(org_id, model_id, kind, quantity, order_part_id, actor) SELECT o.org_id, pt.model_id, 'taken', -taken, x.id, odin.actor() FROM odin.order_parts x WHERE x.order_line_id = line AND x.model_id = pt.model_id;
    END IF;
  END LOOP;
  UPDATE odin.order_lines x SET from_stock = least(x.quantity, (SELECT min(p.from_stock / p.per_unit) FROM odin.order_parts p WHERE p.order_line_id = line)) WHERE x.id = line AND use_stock;
  IF held THEN
    UPDATE odin.jobs j SET hold = true, hold_reason = 'the order is on hold' WHERE j.order_line_id = line AND j.status = 'pending';
  END IF;
  RETURN line;
END $f$;

CREATE OR REPLACE FUNCTION odin._items(lines jsonb) RETURNS SETOF jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  IF jsonb_typeof(lines) IS DISTINCT FROM 'array' OR jsonb_array_length(lines) NOT BETWEEN 1 AND 500 THEN
    PERFORM odin.fail('validation_failed', 'lines: a list of 1 to 500 lines', '[{"product_id": 1, "quantity": 2}]', '{"field":"lines"}');
  END IF;
  RETURN QUERY SELECT jsonb_strip_nulls(e) FROM jsonb_array_elements(lines) e;
END $f$;

CREATE OR REPLACE FUNCTION odin.create_order(lines jsonb, customer_id bigint DEFAULT NULL, due_at timestamptz DEFAULT NULL, priority text DEFAULT '3', order_number text DEFAULT NULL, notes text DEFAULT NULL, ship_to text DEFAULT NULL,
  shipping_charged numeric DEFAULT 0, discount numeric DEFAULT 0, tax_pct numeric DEFAULT 0, platform_fees numeric DEFAULT 0, payment_fees numeric DEFAULT 0, use_stock boolean DEFAULT true, hold boolean DEFAULT false) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  org bigint := odin._new_in();
  ord bigint;
  item jsonb;
BEGIN
  IF create_order.customer_id IS NOT NULL THEN org := odin._mine('customer', create_order.customer_id); END IF;
  INSERT INTO odin.orders(org_id, customer_id, order_number, due_at, priority, currency, notes, ship_to, shipping_charged, discount, tax_pct, platform_fees, payment_fees, created_by)
  VALUES (org, create_order.customer_id, coalesce(create_order.order_number, odin._next_number(org, 'order', 'O-')), create_order.due_at, odin._priority(create_order.priority), odin._currency(org), create_order.notes, create_order.ship_to,
    create_order.shipping_charged, create_order.discount, create_order.tax_pct, create_order.platform_fees, create_order.payment_fees, odin.actor()) RETURNING id INTO ord;
  FOR item IN SELECT i FROM odin._items(create_order.lines) i LOOP
    PERFORM odin._add_line(ord, item, use_stock, hold);
  END LOOP;
  PERFORM odin.would((SELECT jsonb_build_object('action', 'create_order', 'customer_id', o.customer_id, 'order_number', o.order_number, 'total', o.total, 'currency', o.currency, 'due_date', o.due_date,
    'jobs', (SELECT count(*) FROM odin.jobs j JOIN odin.order_lines l ON l.id = j.order_line_id WHERE l.order_id = ord), 'from_stock', (SELECT coalesce(sum(p.from_stock), 0) FROM odin.order_parts p JOIN odin.order_lines l ON l.id = p.order_line_id WHERE l.order_id = ord))
    FROM odin.order_view o WHERE o.id = ord));
  PERFORM odin._note_licenses(org, create_order.lines);
  PERFORM odin.suggest('get_order', jsonb_build_object('order_id', ord), 'follow its progress');
  RETURN odin._order_answer(ord);
END $f$;
COMMENT ON FUNCTION odin.create_order IS 'Takes an order: lines of product_id or model_id with quantity. Finished pieces in stock are used first (use_stock), the rest is queued as jobs at once. hold queues them on hold.';

-- Does the caller read orders as staff do? A customer's own login has its own view of them.
CREATE OR REPLACE FUNCTION odin._reads_orders() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT has_table_privilege('odin.order_view', 'SELECT');
$f$;

-- An order in full; definer verbs answer with it, get_order reads it as the caller.
CREATE OR REPLACE FUNCTION odin._order_answer(ord bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  answer jsonb;
  due timestamptz;
  made jsonb := '{}';
BEGIN
  IF odin._reads_orders() THEN
    SELECT to_jsonb(v), v.due_date INTO answer, due FROM odin.order_view v WHERE v.id = ord;
    SELECT coalesce(jsonb_object_agg(p.id, jsonb_build_object('scrapped', p.scrapped, 'to_stock', p.to_stock)), '{}') INTO made
      FROM odin.order_parts p JOIN odin.order_lines l ON l.id = p.order_line_id WHERE l.order_id = ord;
  ELSE
    SELECT to_jsonb(v), v.due_date INTO answer, due FROM odin.customer_order_view v WHERE v.id = ord;
  END IF;
  IF answer IS NULL THEN RETURN NULL; END IF;
  RETURN answer || jsonb_build_object('order_id', ord,
    'lines', (SELECT coalesce(jsonb_agg(jsonb_build_object('order_line_id', l.id, 'line_no', l.line_no, 'product_id', l.product_id, 'model_id', l.model_id, 'description', l.description, 'quantity', l.quantity, 'fulfilled_quantity', l.fulfilled,
        'shipped_quantity', l.shipped, 'is_fulfilled', l.fulfilled >= l.quantity, 'unit_price', l.unit_price, 'subtotal', round(l.quantity * l.unit_price, 2), 'status', l.status, 'due_date', coalesce(l.due_at, due), 'external_line_id', l.external_line_id,
        'parts', (SELECT coalesce(jsonb_agg(jsonb_build_object('part_id', p.id, 'model_id', p.model_id, 'ordered', p.ordered, 'from_stock', p.from_stock, 'waived', p.waived, 'queued', p.queued, 'in_flight', p.in_flight, 'good', p.good)
                    || coalesce(made->p.id::text, '{}') ORDER BY p.id), '[]') FROM odin.order_parts p WHERE p.order_line_id = l.id)) ORDER BY l.line_no), '[]')
        FROM odin.order_lines l WHERE l.order_id = ord),
    'jobs_total', (SELECT count(*) FROM odin.jobs j JOIN odin.order_lines l ON l.id = j.order_line_id WHERE l.order_id = ord),
    'jobs_complete', (SELECT count(*) FROM odin.jobs j JOIN odin.order_lines l ON l.id = j.order_line_id WHERE l.order_id = ord AND j.status = 'completed'),
    'invoice', (SELECT jsonb_build_object('invoice_id', i.id, 'invoice_number', i.invoice_number, 'status', i.status, 'total', i.total) FROM odin.invoices i WHERE i.order_id = ord AND i.status <> 'void'));
END $f$;

CREATE OR REPLACE FUNCTION odin.get_order(order_id bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  answer jsonb := odin._order_answer(get_order.order_id);
BEGIN
  IF answer IS NULL THEN PERFORM odin.fail('order_not_found', format('order_id: there is no order %s', get_order.order_id), NULL, '{"field":"order_id"}'); END IF;
  RETURN answer;
END $f$;
COMMENT ON FUNCTION odin.get_order(bigint) IS 'Shows one order: lines with ordered, queued, printing, good and shipped pieces, job counts, totals and invoice.';

CREATE OR REPLACE FUNCTION odin.list_orders(status_filter text DEFAULT NULL, customer_id bigint DEFAULT NULL, search text DEFAULT NULL, due_before timestamptz DEFAULT NULL, "limit" integer DEFAULT 100, cursor text DEFAULT NULL)
RETURNS SETOF odin.order_view
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  before_id bigint := coalesce((odin.cursor_decode(list_orders.cursor)->>0)::bigint, 9223372036854775807);
  orgs bigint[] := odin._visible_orgs();
  states text[] := CASE status_filter WHEN 'completed' THEN ARRAY['fulfilled','shipped'] WHEN 'open' THEN ARRAY['pending','in_progress','partial'] ELSE CASE WHEN status_filter IS NULL THEN ARRAY['pending','in_progress','partial','fulfilled','shipped','cancelled'] ELSE ARRAY[status_filter] END END;
  ids bigint[];
BEGIN
  ids := ARRAY(SELECT x.id FROM unnest(orgs) o, unnest(states) s,
    LATERAL (SELECT y.id FROM odin.orders y LEFT JOIN odin.customers c ON c.id = y.customer_id WHERE y.org_id = o AND y.status = s AND NOT y.is_stock AND y.id < before_id
        AND (list_orders.customer_id IS NULL OR y.customer_id = list_orders.customer_id) AND (due_before IS NULL OR y.due_at < due_before)
        AND (list_orders.search IS NULL OR strpos(lower(concat_ws(' ', y.order_number, y.external_id, c.name, c.email, y.tracking_number)), lower(list_orders.search)) > 0)
      ORDER BY y.org_id, y.status, y.id DESC LIMIT list_orders."limit") x ORDER BY x.id DESC LIMIT list_orders."limit");
  IF odin._reads_orders() THEN
    RETURN QUERY SELECT v.* FROM odin.order_view v WHERE v.id = ANY (ids) ORDER BY v.id DESC;
  ELSE
    RETURN QUERY SELECT v.id, v.order_number, v.status, v.customer_id, v.customer_name, v.channel, v.external_id, v.priority, v.order_date, v.due_date, v.shipped_date, v.carrier, v.tracking_number, v.total_items, v.fulfilled_items,
        v.subtotal, v.total, v.currency, v.shipping_charged, NULL::numeric(14,2), NULL::numeric(14,2), NULL::numeric(14,2), v.discount, v.tax_pct, NULL::numeric(10,2), NULL::text, NULL::text, v.org_id, v.created_at, v.updated_at
      FROM odin.customer_order_view v WHERE v.id = ANY (ids) ORDER BY v.id DESC;
  END IF;
END $f$;
COMMENT ON FUNCTION odin.list_orders(text, bigint, text, timestamptz, integer, text) IS 'Lists orders, newest first. status_filter: pending, in_progress, partial, fulfilled, shipped, cancelled; open = not finished, completed = fulfilled or shipped. search looks in number, customer and tracking.';

CREATE OR REPLACE FUNCTION odin._lock_parts(ord bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  PERFORM 1 FROM odin.order_parts p WHERE p.order_line_id IN (SELECT l.id FROM odin.order_lines l WHERE l.order_id = ord) ORDER BY p.id FOR UPDATE;
END $f$;

CREATE OR REPLACE FUNCTION odin._set_line_quantity(line bigint, n integer, why text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  pt record;
  back integer;
BEGIN
  UPDATE odin.order_lines l SET quantity = n, from_stock = least(l.from_stock, n) WHERE l.id = line;
  FOR pt IN SELECT * FROM odin.order_parts p WHERE p.order_line_id = line ORDER BY p.id LOOP
    back := greatest(pt.from_stock - n * pt.per_unit, 0);
    IF back > 0 THEN
      INSERT INTO odin.stock_moves(org_id, model_id, kind, quantity, order_part_id, reason, actor) VALUES (pt.org_id, pt.model_id, 'returned', back, pt.id, why, odin.actor());
    END IF;
    -- A new quantity is a new decision: what was waived before no longer counts beyond what is missing to it.
    UPDATE odin.order_parts p SET ordered = n * p.per_unit, from_stock = p.from_stock - back, waived = CASE WHEN n * p.per_unit > p.ordered THEN p.waived ELSE least(p.waived, n * p.per_unit) END, updated_at = now() WHERE p.id = pt.id;
    PERFORM odin._trim_part(pt.id, why);
  END LOOP;
END $f$;

CREATE OR REPLACE FUNCTION odin.update_order(order_id bigint, due_at timestamptz DEFAULT NULL, priority text DEFAULT NULL, notes text DEFAULT NULL, ship_to text DEFAULT NULL, shipping_charged numeric DEFAULT NULL, shipping_cost numeric DEFAULT NULL,
  platform_fees numeric DEFAULT NULL, payment_fees numeric DEFAULT NULL, discount numeric DEFAULT NULL, tax_pct numeric DEFAULT NULL, labor_minutes numeric DEFAULT NULL, add_lines jsonb DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  o odin.orders;
  item jsonb;
BEGIN
  PERFORM odin._mine('order', update_order.order_id);
  PERFORM odin._lock_parts(update_order.order_id);
  SELECT * INTO o FROM odin.orders x WHERE x.id = update_order.order_id FOR UPDATE;
  IF o.is_stock THEN PERFORM odin.fail('order_not_found', format('order_id: order %s is the standing stock order; it is not edited', o.id)); END IF;
  IF o.status = 'cancelled' OR (o.status = 'shipped' AND add_lines IS NOT NULL) THEN
    PERFORM odin.fail('invalid_state_transition', format('order %s is %s and cannot be changed so', o.order_number, o.status));
  END IF;
  UPDATE odin.orders x SET due_at = coalesce(update_order.due_at, x.due_at), priority = coalesce(odin._priority(update_order.priority), x.priority), notes = coalesce(update_order.notes, x.notes), ship_to = coalesce(update_order.ship_to, x.ship_to),
    shipping_charged = coalesce(update_order.shipping_charged, x.shipping_charged), shipping_cost = coalesce(update_order.shipping_cost, x.shipping_cost), platform_fees = coalesce(update_order.platform_fees, x.platform_fees),
    payment_fees = coalesce(update_order.payment_fees, x.payment_fees), discount = coalesce(update_order.discount, x.discount), tax_pct = coalesce(update_order.tax_pct, x.tax_pct), labor_minutes = coalesce(update_order.labor_minutes, x.labor_minutes)
   WHERE x.id = o.id RETURNING * INTO o;
  IF update_order.due_at IS NOT NULL OR update_order.priority IS NOT NULL THEN
    UPDATE odin.jobs j SET due_at = coalesce(l.due_at, o.due_at), priority = CASE WHEN update_order.priority IS NULL THEN j.priority ELSE coalesce(l.priority, o.priority) END
      FROM odin.order_lines l WHERE l.order_id = o.id AND j.order_line_id = l.id AND j.status IN ('submitted', 'rejected', 'pending', 'scheduled');
  END IF;
  IF add_lines IS NOT NULL THEN
    FOR item IN SELECT i FROM odin._items(add_lines) i LOOP PERFORM odin._add_line(o.id, item, true, false); END LOOP;
    PERFORM odin._refresh_order(o.id);
  END IF;
  RETURN odin._order_answer(o.id);
END $f$;
COMMENT ON FUNCTION odin.update_order IS 'Changes an order: due date and priority (its waiting jobs follow), address, fees, discount, tax, notes; add_lines adds lines and queues their jobs. Change a line''s quantity with update_order_line.';

CREATE OR REPLACE FUNCTION odin.update_order_line(order_line_id bigint, quantity integer DEFAULT NULL, unit_price numeric DEFAULT NULL, due_at timestamptz DEFAULT NULL, priority text DEFAULT NULL, description text DEFAULT NULL, remake_waived boolean DEFAULT false) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  l odin.order_lines;
  o odin.orders;
BEGIN
  PERFORM odin._mine('order_line', update_order_line.order_line_id);
  SELECT * INTO l FROM odin.order_lines x WHERE x.id = update_order_line.order_line_id;
  PERFORM odin._lock_parts(l.order_id);
  SELECT * INTO o FROM odin.orders x WHERE x.id = l.order_id FOR UPDATE;
  IF o.is_stock OR l.status = 'cancelled' OR o.status IN ('cancelled', 'shipped') THEN
    PERFORM odin.fail('invalid_state_transition', format('line %s cannot be changed: %s', l.id, CASE WHEN o.is_stock THEN 'it belongs to the stock order; change or cancel its jobs' WHEN l.status = 'cancelled' THEN 'it is cancelled' ELSE 'the order is ' || o.status END));
  END IF;
  IF update_order_line.quantity IS NOT NULL AND update_order_line.quantity < l.shipped THEN
    PERFORM odin.fail('validation_failed', format('quantity: %s were shipped already', l.shipped), NULL, '{"field":"quantity"}');
  END IF;
  UPDATE odin.order_lines x SET unit_price = coalesce(update_order_line.unit_price, x.unit_price), due_at = coalesce(update_order_line.due_at, x.due_at), priority = coalesce(odin._priority(update_order_line.priority), x.priority),
    description = coalesce(update_order_line.description, x.description) WHERE x.id = l.id;
  IF remake_waived THEN
    UPDATE odin.order_parts p SET waived = 0 WHERE p.order_line_id = l.id AND p.waived > 0;
  END IF;
  IF update_order_line.quantity IS NOT NULL THEN PERFORM odin._set_line_quantity(l.id, update_order_line.quantity, 'the order was changed'); END IF;
  IF update_order_line.due_at IS NOT NULL OR update_order_line.priority IS NOT NULL THEN
    UPDATE odin.jobs j SET due_at = coalesce(update_order_line.due_at, j.due_at), priority = coalesce(odin._priority(update_order_line.priority), j.priority) WHERE j.order_line_id = l.id AND j.status IN ('submitted', 'rejected', 'pending', 'scheduled');
  END IF;
  RETURN odin._order_answer(l.order_id);
END $f$;
COMMENT ON FUNCTION odin.update_order_line IS 'Changes a line of an order: quantity (0 drops it), price, due date, priority. Waiting jobs are added or cancelled to match; what prints goes on. remake_waived makes pieces again that were given up by cancelling jobs.';

CREATE OR REPLACE FUNCTION odin.cancel_order(order_id bigint, reason text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  o odin.orders;
  pt record;
  gone integer := 0;
BEGIN
  PERFORM odin._mine('order', cancel_order.order_id);
  PERFORM odin._lock_parts(cancel_order.order_id);
  SELECT * INTO o FROM odin.orders x WHERE x.id = cancel_order.order_id FOR UPDATE;
  IF o.is_stock OR o.status IN ('shipped', 'cancelled') THEN
    PERFORM odin.fail('invalid_state_transition', format('order %s is %s and cannot be cancelled', o.order_number, CASE WHEN o.is_stock THEN 'the standing stock order' ELSE o.status END));
  END IF;
  UPDATE odin.orders x SET status = 'cancelled', cancel_reason = cancel_order.reason WHERE x.id = o.id;
  UPDATE odin.order_lines l SET status = 'cancelled' WHERE l.order_id = o.id;
  FOR pt IN SELECT p.* FROM odin.order_parts p JOIN odin.order_lines l ON l.id = p.order_line_id WHERE l.order_id = o.id ORDER BY p.id LOOP
    IF pt.from_stock > 0 THEN
      INSERT INTO odin.stock_moves(org_id, model_id, kind, quantity, order_part_id, reason, actor) VALUES (pt.org_id, pt.model_id, 'returned', pt.from_stock, pt.id, 'order cancelled', odin.actor());
    END IF;
    UPDATE odin.order_parts p SET waived = p.ordered, from_stock = 0, updated_at = now() WHERE p.id = pt.id;
    gone := gone + odin._trim_part(pt.id, coalesce('order cancelled: ' || cancel_order.reason, 'order cancelled'));
  END LOOP;
  PERFORM odin.would(jsonb_build_object('action', 'cancel_order', 'order_id', o.id, 'order_number', o.order_number, 'from_status', o.status, 'to_status', 'cancelled', 'jobs_cancelled', gone,
    'jobs_left_printing', (SELECT count(*) FROM odin.jobs j JOIN odin.order_lines l ON l.id = j.order_line_id WHERE l.order_id = o.id AND j.status IN ('printing', 'paused'))));
  RETURN odin._order_answer(o.id) || jsonb_build_object('jobs_cancelled', gone);
END $f$;
COMMENT ON FUNCTION odin.cancel_order(bigint, text) IS 'Cancels an order: its waiting jobs are cancelled, what prints goes on and its pieces go to stock, pieces taken from stock go back.';

CREATE OR REPLACE FUNCTION odin.ship_order(order_id bigint, carrier text DEFAULT NULL, tracking_number text DEFAULT NULL, shipping_cost numeric DEFAULT NULL, partial boolean DEFAULT false) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  o odin.orders;
  short record;
  c record;
  used numeric;
  everything boolean;
BEGIN
  PERFORM odin._mine('order', ship_order.order_id);
  PERFORM odin._lock_parts(ship_order.order_id);
  SELECT * INTO o FROM odin.orders x WHERE x.id = ship_order.order_id FOR UPDATE;
  IF o.is_stock OR o.status IN ('shipped', 'cancelled') THEN
    PERFORM odin.fail('invalid_state_transition', format('order %s is %s and cannot be shipped', o.order_number, CASE WHEN o.is_stock THEN 'the standing stock order' ELSE o.status END));
  END IF;
  SELECT string_agg(format('%s of %s %s', l.fulfilled, l.quantity, l.description), '; ') AS what, coalesce(sum(l.fulfilled - l.shipped), 0) AS ready INTO short
    FROM odin.order_lines l WHERE l.order_id = o.id AND l.status = 'open' AND l.fulfilled < l.quantity;
  everything := o.status = 'fulfilled' OR short.what IS NULL;
  IF NOT everything AND NOT partial THEN
    PERFORM odin.fail('invalid_state_transition', format('order %s is not complete: %s', o.order_number, short.what), 'Ship what is ready with partial: true, or wait.', jsonb_build_object('from_status', o.status, 'to_status', 'shipped'));
  END IF;
  -- Packing takes the products' consumables out of stock, as far as there are any; a shortage is noted, not hidden.
  FOR c IN SELECT pc.consumable_id, k.name, k.stock, sum(pc.quantity * (l.fulfilled - l.shipped)) AS needed FROM odin.order_lines l JOIN odin.product_consumables pc ON pc.product_id = l.product_id JOIN odin.consumables k ON k.id = pc.consumable_id
            WHERE l.order_id = o.id AND l.status = 'open' AND l.fulfilled > l.shipped GROUP BY 1, 2, 3 ORDER BY 1 LOOP
    used := least(c.needed, c.stock);
    IF used > 0 THEN
      INSERT INTO odin.consumable_moves(org_id, consumable_id, kind, quantity, notes, actor) VALUES (o.org_id, c.consumable_id, 'ship', -used, format('order %s', o.order_number), odin.actor());
    END IF;
    IF used < c.needed THEN PERFORM odin.note(format('%s: %s needed, %s were in stock; count it.', c.name, trim_scale(c.needed), trim_scale(c.stock))); END IF;
  END LOOP;
  UPDATE odin.order_lines l SET shipped = l.fulfilled WHERE l.order_id = o.id AND l.status = 'open' AND l.shipped < l.fulfilled;
  UPDATE odin.orders x SET status = CASE WHEN everything THEN 'shipped' ELSE x.status END, shipped_at = CASE WHEN everything THEN now() END, carrier = coalesce(ship_order.carrier, x.carrier),
    tracking_number = coalesce(ship_order.tracking_number, x.tracking_number), shipping_cost = coalesce(ship_order.shipping_cost, x.shipping_cost) WHERE x.id = o.id;
  PERFORM odin.would(jsonb_build_object('action', 'ship_order', 'order_id', o.id, 'order_number', o.order_number, 'from_status', o.status, 'to_status', CASE WHEN everything THEN 'shipped' ELSE o.status END, 'tracking_number', ship_order.tracking_number));
  PERFORM odin.suggest('create_invoice', jsonb_build_object('order_id', o.id), 'send the bill');
  RETURN odin._order_answer(o.id);
END $f$;
COMMENT ON FUNCTION odin.ship_order(bigint, text, text, numeric, boolean) IS 'Ships an order with carrier and tracking number; consumables of the products leave stock. An incomplete order ships only with partial: true, and stays open.';

CREATE OR REPLACE FUNCTION odin.import_order(channel text, external_id text, lines jsonb, customer_name text DEFAULT NULL, customer_email text DEFAULT NULL, customer_external_id text DEFAULT NULL, due_at timestamptz DEFAULT NULL, ordered_at timestamptz DEFAULT NULL,
  notes text DEFAULT NULL, ship_to text DEFAULT NULL, shipping_charged numeric DEFAULT NULL, platform_fees numeric DEFAULT NULL, payment_fees numeric DEFAULT NULL, discount numeric DEFAULT NULL, use_stock boolean DEFAULT true) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  org bigint := odin._new_in();
  chan text := lower(btrim(import_order.channel));
  o odin.orders;
  buyer bigint;
  item jsonb;
  l odin.order_lines;
  created boolean := false;
  n_added integer := 0;
  n_changed integer := 0;
  n_dropped integer := 0;
  keys text[] := '{}';
  k text;
BEGIN
  IF customer_external_id IS NOT NULL OR customer_email IS NOT NULL OR customer_name IS NOT NULL THEN
    SELECT c.id INTO buyer FROM odin.customers c WHERE c.org_id = org AND ((c.channel = chan AND c.external_id = customer_external_id) OR (customer_external_id IS NULL AND lower(c.email) = lower(customer_email))
      OR (customer_external_id IS NULL AND customer_email IS NULL AND lower(c.name) = lower(customer_name))) ORDER BY c.id LIMIT 1;
    IF buyer IS NULL THEN
      INSERT INTO odin.customers AS c (org_id, name, email, channel, external_id, created_by) VALUES (org, coalesce(customer_name, customer_email, customer_external_id), customer_email, CASE WHEN customer_external_id IS NOT NULL THEN chan END, customer_external_id, odin.actor())
      ON CONFLICT ON CONSTRAINT customers_external_key DO UPDATE SET name = c.name RETURNING id INTO buyer;
    END IF;
  END IF;
  SELECT * INTO o FROM odin.orders x WHERE x.org_id = org AND x.channel = chan AND x.external_id = import_order.external_id;
  IF o.id IS NULL THEN
    INSERT INTO odin.orders(org_id, customer_id, order_number, channel, external_id, due_at, ordered_at, currency, notes, ship_to, shipping_charged, platform_fees, payment_fees, discount, created_by)
    VALUES (org, buyer, left(format('%s-%s', upper(chan), import_order.external_id), 60), chan, import_order.external_id, import_order.due_at, coalesce(import_order.ordered_at, now()), odin._currency(org), import_order.notes, import_order.ship_to,
      coalesce(import_order.shipping_charged, 0), coalesce(import_order.platform_fees, 0), coalesce(import_order.payment_fees, 0), coalesce(import_order.discount, 0), odin.actor())
    ON CONFLICT ON CONSTRAINT orders_external_key DO NOTHING RETURNING * INTO o;
    created := o.id IS NOT NULL;
    IF NOT created THEN SELECT * INTO o FROM odin.orders x WHERE x.org_id = org AND x.channel = chan AND x.external_id = import_order.external_id; END IF;
  END IF;
  PERFORM odin._lock_parts(o.id);
  SELECT * INTO o FROM odin.orders x WHERE x.id = o.id FOR UPDATE;
  FOR item IN SELECT i FROM odin._items(import_order.lines) i LOOP
    k := item->>'external_line_id';
    IF k IS NULL THEN PERFORM odin.fail('validation_failed', 'lines: every imported line has an external_line_id', 'It is what keeps a second import from doubling the line.', '{"field":"lines"}'); END IF;
    IF k = ANY (keys) THEN PERFORM odin.fail('validation_failed', format('lines: external_line_id %s is there twice', k), NULL, '{"field":"lines"}'); END IF;
    keys := keys || k;
    -- Products may be named by their sku, as shops do.
    IF item ? 'sku' AND NOT item ?| ARRAY['product_id', 'model_id'] THEN
      item := item || coalesce((SELECT jsonb_build_object('product_id', p.id) FROM odin.products p WHERE p.org_id = org AND p.sku = item->>'sku'), (SELECT jsonb_build_object('model_id', m.id) FROM odin.models m WHERE m.org_id = org AND m.sku = item->>'sku'), '{}');
      IF NOT item ?| ARRAY['product_id', 'model_id'] THEN PERFORM odin.fail('product_not_found', format('lines: no product or model has the sku %s', item->>'sku'), 'Add it with save_product, or map the line to a product_id.', '{"field":"lines"}'); END IF;
    END IF;
    SELECT * INTO l FROM odin.order_lines x WHERE x.order_id = o.id AND x.external_line_id = k;
    IF l.id IS NULL THEN
      CONTINUE WHEN o.status IN ('shipped', 'cancelled');
      PERFORM odin._add_line(o.id, item, use_stock, false);
      n_added := n_added + 1;
    ELSIF l.status = 'open' AND o.status NOT IN ('shipped', 'cancelled') AND (l.quantity <> (item->>'quantity')::int OR l.unit_price <> coalesce((item->>'unit_price')::numeric, l.unit_price)) THEN
      UPDATE odin.order_lines x SET unit_price = coalesce((item->>'unit_price')::numeric, x.unit_price) WHERE x.id = l.id;
      IF l.quantity <> (item->>'quantity')::int THEN PERFORM odin._set_line_quantity(l.id, greatest((item->>'quantity')::int, l.shipped), 'the order was changed in its channel'); END IF;
      n_changed := n_changed + 1;
    END IF;
  END LOOP;
  IF NOT created AND o.status NOT IN ('shipped', 'cancelled') THEN
    FOR l IN SELECT * FROM odin.order_lines x WHERE x.order_id = o.id AND x.status = 'open' AND x.quantity > 0 AND x.external_line_id IS NOT NULL AND x.external_line_id <> ALL (keys) ORDER BY x.id LOOP
      PERFORM odin._set_line_quantity(l.id, l.shipped, 'the line is no longer in the imported order');
      n_dropped := n_dropped + 1;
    END LOOP;
  END IF;
  PERFORM odin._refresh_order(o.id);
  PERFORM odin.would(jsonb_build_object('action', 'import_order', 'channel', chan, 'external_id', import_order.external_id, 'would_create', created, 'lines_added', n_added, 'lines_changed', n_changed, 'lines_dropped', n_dropped));
  RETURN odin._order_answer(o.id) || jsonb_build_object('created', created, 'lines_added', n_added, 'lines_changed', n_changed, 'lines_dropped', n_dropped);
END $f$;
COMMENT ON FUNCTION odin.import_order IS 'Takes over an order from a shop (channel and its external_id). Importing it again changes only what changed there: quantities and prices of lines by external_line_id; nothing is doubled. Lines name product_id, model_id or sku.';

CREATE OR REPLACE FUNCTION odin.list_customers(search text DEFAULT NULL, "limit" integer DEFAULT 100, cursor text DEFAULT NULL)
RETURNS TABLE(id bigint, name text, company text, email text, phone text, address text, tax_id text, notes text, is_active boolean, open_orders bigint, orders bigint, created_at timestamptz)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  after_id bigint := coalesce((odin.cursor_decode(list_customers.cursor)->>0)::bigint, 0);
  orgs bigint[] := odin._visible_orgs();
BEGIN
  RETURN QUERY SELECT c.id, c.name, c.company, c.email, c.phone, c.address, c.tax_id, c.notes, c.is_active, o.n_open, o.n, c.created_at
    FROM odin.customers c, LATERAL (SELECT count(*) FILTER (WHERE x.status IN ('pending','in_progress','partial')) AS n_open, count(*) AS n FROM odin.orders x WHERE x.customer_id = c.id) o
   WHERE c.org_id = ANY (orgs) AND c.id > after_id AND (list_customers.search IS NULL OR strpos(lower(concat_ws(' ', c.name, c.company, c.email)), lower(list_customers.search)) > 0)
   ORDER BY c.id LIMIT list_customers."limit";
END $f$;
COMMENT ON FUNCTION odin.list_customers(text, integer, text) IS 'Lists customers with how many orders they have; search looks in name, company and mail.';

CREATE OR REPLACE FUNCTION odin.save_customer(customer_id bigint DEFAULT NULL, name text DEFAULT NULL, company text DEFAULT NULL, email text DEFAULT NULL, phone text DEFAULT NULL, address text DEFAULT NULL, tax_id text DEFAULT NULL, notes text DEFAULT NULL, archived boolean DEFAULT NULL) RETURNS odin.customers
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  c odin.customers;
BEGIN
  IF save_customer.customer_id IS NULL THEN
    PERFORM odin._not_null(save_customer.name, 'name');
    INSERT INTO odin.customers(org_id, name, company, email, phone, address, tax_id, notes) VALUES (odin._new_in(), save_customer.name, save_customer.company, save_customer.email, save_customer.phone, save_customer.address, save_customer.tax_id, save_customer.notes) RETURNING * INTO c;
  ELSE
    PERFORM odin._mine('customer', save_customer.customer_id);
    UPDATE odin.customers x SET name = coalesce(save_customer.name, x.name), company = coalesce(save_customer.company, x.company), email = coalesce(save_customer.email, x.email), phone = coalesce(save_customer.phone, x.phone),
      address = coalesce(save_customer.address, x.address), tax_id = coalesce(save_customer.tax_id, x.tax_id), notes = coalesce(save_customer.notes, x.notes), is_active = coalesce(NOT archived, x.is_active) WHERE x.id = save_customer.customer_id RETURNING * INTO c;
  END IF;
  RETURN c;
END $f$;
COMMENT ON FUNCTION odin.save_customer IS 'Adds a customer, or changes one when customer_id is given. What you leave out stays.';
GRANT EXECUTE ON FUNCTION odin._order_answer(bigint), odin._reads_orders() TO odin_viewer, odin_customer;
GRANT EXECUTE ON FUNCTION odin.get_order(bigint), odin.list_orders(text, bigint, text, timestamptz, integer, text) TO odin_viewer, odin_customer;
GRANT EXECUTE ON FUNCTION odin.list_customers(text, integer, text) TO odin_viewer;
GRANT EXECUTE ON FUNCTION odin.create_order, odin.update_order, odin.update_order_line, odin.cancel_order(bigint, text), odin.ship_order(bigint, text, text, numeric, boolean), odin.import_order, odin.save_customer TO odin_operator;
