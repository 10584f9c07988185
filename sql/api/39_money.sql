-- Money: rate cards, quotes, invoices, profit of an order, quotas. Every figure names the rate card it came from; amounts are rounded once, at the end.

CREATE OR REPLACE FUNCTION odin.get_rate_card(version integer DEFAULT NULL) RETURNS odin.rate_cards
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  card odin.rate_cards;
BEGIN
  SELECT * INTO card FROM odin.rate_cards c WHERE c.org_id = odin.my_org() AND (get_rate_card.version IS NULL OR c.version = get_rate_card.version) ORDER BY c.version DESC LIMIT 1;
  IF card.id IS NULL THEN PERFORM odin.fail('not_found', format('version: there is no rate card version %s', get_rate_card.version), NULL, '{"field":"version"}'); END IF;
  RETURN card;
END $f$;
COMMENT ON FUNCTION odin.get_rate_card(integer) IS 'Shows what things cost the farm: material, machine hours, electricity, labour, failure share, packaging, overhead, margin. Without version, the one in force.';

CREATE OR REPLACE FUNCTION odin.set_rate_card(material_per_kg numeric DEFAULT NULL, machine_per_hour numeric DEFAULT NULL, electricity_per_kwh numeric DEFAULT NULL, watts numeric DEFAULT NULL, labor_per_hour numeric DEFAULT NULL, labor_minutes_per_run numeric DEFAULT NULL,
  labor_minutes_per_order numeric DEFAULT NULL, failure_pct numeric DEFAULT NULL, packaging_per_order numeric DEFAULT NULL, overhead_per_month numeric DEFAULT NULL, pieces_per_month numeric DEFAULT NULL, margin_pct numeric DEFAULT NULL, notes text DEFAULT NULL) RETURNS odin.rate_cards
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  org bigint := odin._new_in('odin_admin');
  was odin.rate_cards;
  card odin.rate_cards;
BEGIN
  PERFORM 1 FROM odin.orgs o WHERE o.id = org FOR NO KEY UPDATE;
  was := odin._rate_card(org);
  INSERT INTO odin.rate_cards(org_id, version, currency, material_per_kg, machine_per_hour, electricity_per_kwh, watts, labor_per_hour, labor_minutes_per_run, labor_minutes_per_order, failure_pct, packaging_per_order, overhead_per_month, pieces_per_month, margin_pct, notes, created_by)
  VALUES (org, was.version + 1, odin._currency(org), coalesce(set_rate_card.material_per_kg, was.material_per_kg), coalesce(set_rate_card.machine_per_hour, was.machine_per_hour), coalesce(set_rate_card.electricity_per_kwh, was.electricity_per_kwh), coalesce(set_rate_card.watts, was.watts),
    coalesce(set_rate_card.labor_per_hour, was.labor_per_hour), coalesce(set_rate_card.labor_minutes_per_run, was.labor_minutes_per_run), coalesce(set_rate_card.labor_minutes_per_order, was.labor_minutes_per_order), coalesce(set_rate_card.failure_pct, was.failure_pct),
    coalesce(set_rate_card.packaging_per_order, was.packaging_per_order), coalesce(set_rate_card.overhead_per_month, was.overhead_per_month), coalesce(set_rate_card.pieces_per_month, was.pieces_per_month), coalesce(set_rate_card.margin_pct, was.margin_pct), set_rate_card.notes, odin.actor())
  RETURNING * INTO card;
  RETURN card;
END $f$;
COMMENT ON FUNCTION odin.set_rate_card IS 'Adds a new version of the rate card; what you leave out stays as it was. Costs and quotes made before keep their version.';

-- Lines of a quote: per line plates, cost parts and price. The same arithmetic for create_quote and its preview.
CREATE OR REPLACE FUNCTION odin._quote_lines(org bigint, lines jsonb) RETURNS TABLE(description text, product_id bigint, model_id bigint, quantity integer, plates bigint, hours numeric, grams numeric, material numeric, machine numeric, energy numeric, labor numeric, failure numeric, consumables numeric, list_price numeric)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  item jsonb;
  n integer;
BEGIN
  FOR item IN SELECT i FROM odin._items(lines) i LOOP
    n := (item->>'quantity')::integer;
    IF n IS NULL OR n NOT BETWEEN 1 AND 100000 OR num_nonnulls(item->>'product_id', item->>'model_id') <> 1 THEN
      PERFORM odin.fail('validation_failed', 'lines: each line has a product_id or a model_id, and a quantity from 1 to 100000', NULL, '{"field":"lines"}');
    END IF;
    IF (item ? 'product_id' AND odin._mine('product', (item->>'product_id')::bigint, 'product_id', 'odin_viewer') <> org) OR (item ? 'model_id' AND odin._mine('model', (item->>'model_id')::bigint, 'model_id', 'odin_viewer') <> org) THEN
      PERFORM odin.fail('not_found', 'lines: a line is of another org');
    END IF;
    RETURN QUERY
      WITH parts AS (SELECT x.model_id, x.quantity * n AS pieces FROM odin.product_parts x WHERE x.product_id = (item->>'product_id')::bigint UNION ALL SELECT (item->>'model_id')::bigint, n WHERE item ? 'model_id'),
      plates AS (SELECT p.model_id, ceil(p.pieces::numeric / r.pieces_per_plate)::bigint AS plates, e.* FROM parts p JOIN odin.models m ON m.id = p.model_id JOIN odin.model_revisions r ON r.id = m.current_revision_id, LATERAL odin._estimate(r.id) e)
      SELECT coalesce(item->>'description', (SELECT y.name FROM odin.products y WHERE y.id = (item->>'product_id')::bigint), (SELECT y.name FROM odin.models y WHERE y.id = (item->>'model_id')::bigint)), (item->>'product_id')::bigint, (item->>'model_id')::bigint, n,
        sum(t.plates)::bigint, sum(t.plates * t.seconds / 3600.0), sum(t.plates * t.mg / 1000.0), sum(t.plates * t.material), sum(t.plates * t.machine), sum(t.plates * t.energy), sum(t.plates * t.labor), sum(t.plates * t.failure),
        coalesce((SELECT sum(x.quantity * c.cost_per_unit) * n FROM odin.product_consumables x JOIN odin.consumables c ON c.id = x.consumable_id WHERE x.product_id = (item->>'product_id')::bigint), 0),
        (SELECT y.price * n FROM odin.products y WHERE y.id = (item->>'product_id')::bigint)
      FROM plates t;
  END LOOP;
END $f$;

CREATE OR REPLACE FUNCTION odin.create_quote(lines jsonb, customer_id bigint DEFAULT NULL, margin_pct numeric DEFAULT NULL, valid_days integer DEFAULT 30, notes text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  org bigint := odin._new_in();
  card odin.rate_cards;
  t record;
  breakdown jsonb;
  overhead numeric;
  total_cost numeric;
  total_price numeric;
  made odin.quotes;
BEGIN
  IF create_quote.customer_id IS NOT NULL THEN org := odin._mine('customer', create_quote.customer_id); END IF;
  card := odin._rate_card(org);
  SELECT sum(q.material) AS material, sum(q.machine) AS machine, sum(q.energy) AS energy, sum(q.labor) AS labor, sum(q.failure) AS failure, sum(q.consumables) AS consumables, sum(q.quantity) AS pieces, sum(q.hours) AS hours, sum(q.grams) AS grams,
         jsonb_agg(jsonb_build_object('description', q.description, 'product_id', q.product_id, 'model_id', q.model_id, 'quantity', q.quantity, 'plates', q.plates, 'hours', round(q.hours, 3), 'grams', round(q.grams, 2),
           'cost', round(q.material + q.machine + q.energy + q.labor + q.failure + q.consumables, 2), 'list_price', round(q.list_price, 2))) AS list
    INTO t FROM odin._quote_lines(org, create_quote.lines) q;
  overhead := card.overhead_per_month / card.pieces_per_month * t.pieces;
  total_cost := t.material + t.machine + t.energy + t.labor + t.failure + t.consumables + overhead + card.packaging_per_order + card.labor_minutes_per_order / 60 * card.labor_per_hour;
  total_price := round(total_cost * (1 + coalesce(create_quote.margin_pct, card.margin_pct) / 100), 2);
  breakdown := jsonb_build_object('material', round(t.material, 2), 'machine', round(t.machine, 2), 'energy', round(t.energy, 2), 'labor', round(t.labor + card.labor_minutes_per_order / 60 * card.labor_per_hour, 2), 'failure', round(t.failure, 2),
    'consumables', round(t.consumables, 2), 'packaging', round(card.packaging_per_order, 2), 'overhead', round(overhead, 2), 'margin_pct', coalesce(create_quote.margin_pct, card.margin_pct), 'hours', round(t.hours, 2), 'grams', round(t.grams, 1), 'lines', t.list);
  INSERT INTO odin.quotes(org_id, customer_id, quote_number, rate_card_id, currency, inputs, breakdown, cost, price, valid_until, notes, created_by)
  VALUES (org, create_quote.customer_id, odin._next_number(org, 'quote', 'Q-'), card.id, card.currency, jsonb_build_object('lines', create_quote.lines, 'margin_pct', create_quote.margin_pct), breakdown, round(total_cost, 2), total_price, current_date + valid_days, create_quote.notes, odin.actor())
  RETURNING * INTO made;
  PERFORM odin.would(jsonb_build_object('action', 'create_quote', 'cost', made.cost, 'price', made.price, 'currency', made.currency, 'valid_until', made.valid_until));
  PERFORM odin._note_licenses(org, create_quote.lines);
  PERFORM odin.suggest('accept_quote', jsonb_build_object('quote_id', made.id), 'when the customer agrees');
  RETURN jsonb_build_object('quote_id', made.id, 'quote_number', made.quote_number, 'status', made.status, 'customer_id', made.customer_id, 'cost', made.cost, 'price', made.price, 'currency', made.currency, 'rate_card_version', card.version, 'breakdown', breakdown, 'valid_until', made.valid_until);
END $f$;
COMMENT ON FUNCTION odin.create_quote IS 'Works out a price before printing: lines of product_id or model_id with quantity, from the rate card in force (material, machine hours, energy, labour, failure share, packaging, overhead, margin). The quote keeps its figures; accept it with accept_quote.';

CREATE OR REPLACE FUNCTION odin.accept_quote(quote_id bigint, due_at timestamptz DEFAULT NULL, use_stock boolean DEFAULT true) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  q odin.quotes;
  item jsonb;
  made jsonb;
  priced jsonb := '[]';
  total numeric;
BEGIN
  PERFORM odin._mine('quote', accept_quote.quote_id);
  SELECT * INTO q FROM odin.quotes x WHERE x.id = accept_quote.quote_id FOR UPDATE;
  IF q.status NOT IN ('draft', 'sent') OR q.valid_until < current_date THEN
    PERFORM odin.fail('invalid_state_transition', format('quote %s is %s', q.quote_number, CASE WHEN q.valid_until < current_date THEN 'no longer valid' ELSE q.status END), 'Make a new quote.');
  END IF;
  -- The quoted price is spread over the lines by their cost, so the order sums up to what was offered.
  total := (SELECT sum((l->>'cost')::numeric) FROM jsonb_array_elements(q.breakdown->'lines') l);
  FOR item IN SELECT l FROM jsonb_array_elements(q.breakdown->'lines') l LOOP
    priced := priced || jsonb_strip_nulls(jsonb_build_object('product_id', item->'product_id', 'model_id', item->'model_id', 'quantity', item->'quantity', 'description', item->'description',
      'unit_price', round(q.price * (item->>'cost')::numeric / nullif(total, 0) / (item->>'quantity')::int, 4)));
  END LOOP;
  made := odin.create_order(priced, q.customer_id, accept_quote.due_at, '3', NULL, format('quote %s', q.quote_number), NULL, 0, 0, 0, 0, 0, accept_quote.use_stock, false);
  UPDATE odin.quotes x SET status = 'accepted', order_id = (made->>'order_id')::bigint WHERE x.id = q.id;
  RETURN made || jsonb_build_object('quote_id', q.id, 'quoted_price', q.price);
END $f$;
COMMENT ON FUNCTION odin.accept_quote(bigint, timestamptz, boolean) IS 'Turns a quote into an order at the quoted price; its jobs are queued.';

CREATE OR REPLACE FUNCTION odin.set_quote(quote_id bigint, status text, valid_until date DEFAULT NULL, notes text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  q odin.quotes;
  today constant date := current_date;
BEGIN
  PERFORM odin._mine('quote', set_quote.quote_id);
  SELECT * INTO q FROM odin.quotes x WHERE x.id = set_quote.quote_id FOR UPDATE;
  IF set_quote.status = 'sent' AND coalesce(set_quote.valid_until, q.valid_until) < today THEN
    PERFORM odin.fail('validation_failed', format('valid_until: quote %s was valid until %s', q.quote_number, coalesce(set_quote.valid_until, q.valid_until)), 'Give a later valid_until, or make a new quote.', '{"field":"valid_until"}');
  END IF;
  UPDATE odin.quotes x SET status = set_quote.status, valid_until = coalesce(set_quote.valid_until, x.valid_until), notes = coalesce(set_quote.notes, x.notes) WHERE x.id = q.id;
  PERFORM odin.would(jsonb_build_object('action', 'set_quote', 'quote_id', q.id, 'from_status', q.status, 'to_status', set_quote.status));
  IF set_quote.status = 'sent' THEN PERFORM odin.suggest('accept_quote', jsonb_build_object('quote_id', q.id), 'when the customer agrees'); END IF;
  RETURN (SELECT jsonb_build_object('quote_id', x.id, 'quote_number', x.quote_number, 'status', x.status, 'valid_until', x.valid_until, 'notes', x.notes, 'price', x.price, 'currency', x.currency) FROM odin.quotes x WHERE x.id = q.id);
END $f$;
COMMENT ON FUNCTION odin.set_quote(bigint, text, date, text) IS 'Marks a quote as sent to the customer, declined, or expired, with a note. A quote the customer agrees to is accepted with accept_quote. One that ran out expires by itself.';

CREATE OR REPLACE FUNCTION odin.list_quotes(status_filter text DEFAULT NULL, customer_id bigint DEFAULT NULL, "limit" integer DEFAULT 100, cursor text DEFAULT NULL)
RETURNS SETOF odin.quotes LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  before_id bigint := coalesce((odin.cursor_decode(list_quotes.cursor)->>0)::bigint, 9223372036854775807);
  orgs bigint[] := odin._visible_orgs();
BEGIN
  IF has_table_privilege('odin.quotes', 'SELECT') THEN
    RETURN QUERY SELECT q.* FROM odin.quotes q WHERE q.org_id = ANY (orgs) AND q.id < before_id AND (status_filter IS NULL OR q.status = status_filter) AND (list_quotes.customer_id IS NULL OR q.customer_id = list_quotes.customer_id) ORDER BY q.id DESC LIMIT list_quotes."limit";
  ELSE
    -- A customer gets the price, not the reckoning.
    RETURN QUERY SELECT q.id, q.org_id, q.customer_id, q.quote_number, q.status, NULL::bigint, q.currency, NULL::jsonb, NULL::jsonb, NULL::numeric(14,2), q.price, q.valid_until, q.order_id, NULL::text, NULL::text, q.created_at, q.updated_at
      FROM odin.quotes q WHERE q.org_id = ANY (orgs) AND q.id < before_id AND (status_filter IS NULL OR q.status = status_filter) AND (list_quotes.customer_id IS NULL OR q.customer_id = list_quotes.customer_id) ORDER BY q.id DESC LIMIT list_quotes."limit";
  END IF;
END $f$;
COMMENT ON FUNCTION odin.list_quotes(text, bigint, integer, text) IS 'Lists quotes, newest first.';

CREATE OR REPLACE FUNCTION odin.create_invoice(order_id bigint, due_days integer DEFAULT 14, bill_to text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  o odin.orders;
  made odin.invoices;
  sub numeric;
  items jsonb;
BEGIN
  PERFORM odin._mine('order', create_invoice.order_id);
  SELECT * INTO o FROM odin.orders x WHERE x.id = create_invoice.order_id FOR UPDATE;
  IF o.is_stock OR o.status = 'cancelled' THEN
    PERFORM odin.fail('invalid_state_transition', format('order %s is %s and gets no invoice', o.order_number, CASE WHEN o.is_stock THEN 'the standing stock order' ELSE o.status END));
  END IF;
  SELECT coalesce(sum(round(l.quantity * l.unit_price, 2)), 0), coalesce(jsonb_agg(jsonb_build_object('description', l.description, 'quantity', l.quantity, 'unit_price', l.unit_price, 'amount', round(l.quantity * l.unit_price, 2)) ORDER BY l.line_no), '[]')
    INTO sub, items FROM odin.order_lines l WHERE l.order_id = o.id AND l.status = 'open' AND l.quantity > 0;
  INSERT INTO odin.invoices(org_id, customer_id, order_id, invoice_number, due_on, bill_to, currency, lines, subtotal, discount, shipping, tax, total, created_by)
  VALUES (o.org_id, o.customer_id, o.id, odin._next_number(o.org_id, 'invoice', 'INV-'), current_date + due_days, coalesce(create_invoice.bill_to, (SELECT concat_ws(E'\n', c.company, c.name, c.address) FROM odin.customers c WHERE c.id = o.customer_id)), o.currency, items, sub,
    o.discount, o.shipping_charged, round((sub - o.discount + o.shipping_charged) * o.tax_pct / 100, 2), sub - o.discount + o.shipping_charged + round((sub - o.discount + o.shipping_charged) * o.tax_pct / 100, 2), odin.actor())
  RETURNING * INTO made;
  PERFORM odin.would(jsonb_build_object('action', 'create_invoice', 'order_id', o.id, 'total', made.total, 'currency', made.currency, 'due_on', made.due_on));
  RETURN to_jsonb(made) || jsonb_build_object('invoice_id', made.id);
END $f$;
COMMENT ON FUNCTION odin.create_invoice(bigint, integer, text) IS 'Issues the invoice of an order, with the next number (no gaps). Its figures are a snapshot; a wrong one is voided with set_invoice and issued again.';

CREATE OR REPLACE FUNCTION odin.set_invoice(invoice_id bigint, status text, reason text DEFAULT NULL, paid_on date DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
BEGIN
  PERFORM odin._mine('invoice', set_invoice.invoice_id);
  IF set_invoice.status = 'void' AND btrim(coalesce(set_invoice.reason, '')) = '' THEN PERFORM odin.fail('validation_failed', 'reason: voiding an invoice needs one', NULL, '{"field":"reason"}'); END IF;
  UPDATE odin.invoices x SET status = set_invoice.status, paid_on = CASE WHEN set_invoice.status = 'paid' THEN coalesce(set_invoice.paid_on, current_date) END, void_reason = CASE WHEN set_invoice.status = 'void' THEN set_invoice.reason END WHERE x.id = set_invoice.invoice_id;
  RETURN (SELECT to_jsonb(x) || jsonb_build_object('invoice_id', x.id) FROM odin.invoices x WHERE x.id = set_invoice.invoice_id);
END $f$;
COMMENT ON FUNCTION odin.set_invoice(bigint, text, text, date) IS 'Marks an invoice paid, or voids it with a reason.';

CREATE OR REPLACE FUNCTION odin.list_invoices(status_filter text DEFAULT NULL, customer_id bigint DEFAULT NULL, "limit" integer DEFAULT 100, cursor text DEFAULT NULL)
RETURNS SETOF odin.invoices LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  before_id bigint := coalesce((odin.cursor_decode(list_invoices.cursor)->>0)::bigint, 9223372036854775807);
  orgs bigint[] := odin._visible_orgs();
BEGIN
  IF has_table_privilege('odin.invoices', 'SELECT') THEN
    RETURN QUERY SELECT i.* FROM odin.invoices i WHERE i.org_id = ANY (orgs) AND i.id < before_id AND (status_filter IS NULL OR i.status = status_filter OR (status_filter = 'overdue' AND i.status = 'issued' AND i.due_on < current_date))
      AND (list_invoices.customer_id IS NULL OR i.customer_id = list_invoices.customer_id) ORDER BY i.id DESC LIMIT list_invoices."limit";
  ELSE
    RETURN QUERY SELECT i.id, i.org_id, i.customer_id, i.order_id, i.invoice_number, i.status, i.issued_on, i.due_on, i.paid_on, i.bill_to, i.currency, i.lines, i.subtotal, i.discount, i.shipping, i.tax, i.total, NULL::text, NULL::text, i.created_at
      FROM odin.invoices i WHERE i.org_id = ANY (orgs) AND i.id < before_id AND (status_filter IS NULL OR i.status = status_filter OR (status_filter = 'overdue' AND i.status = 'issued' AND i.due_on < current_date))
      AND (list_invoices.customer_id IS NULL OR i.customer_id = list_invoices.customer_id) ORDER BY i.id DESC LIMIT list_invoices."limit";
  END IF;
END $f$;
COMMENT ON FUNCTION odin.list_invoices(text, bigint, integer, text) IS 'Lists invoices, newest first; overdue = issued and past its due date.';

CREATE OR REPLACE FUNCTION odin.invoice_html(invoice_id bigint) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  i record;
  seller text;
BEGIN
  SELECT x.id, x.org_id, x.invoice_number, x.bill_to, x.issued_on, x.due_on, x.status, x.paid_on, x.lines, x.subtotal, x.discount, x.shipping, x.tax, x.total, x.currency INTO i FROM odin.invoices x WHERE x.id = invoice_html.invoice_id;
  IF i.id IS NULL THEN PERFORM odin.fail('invoice_not_found', format('invoice_id: there is no invoice %s', invoice_html.invoice_id), NULL, '{"field":"invoice_id"}'); END IF;
  seller := odin._org_name(i.org_id);
  RETURN format('<!doctype html><html lang="en"><head><meta charset="utf-8"><title>%1$s</title><style>body{font:14px sans-serif;margin:3em}table{border-collapse:collapse;width:100%%}td,th{padding:.4em;border-bottom:1px solid #ccc;text-align:left}td.n,th.n{text-align:right}</style></head><body><h1>Invoice %1$s</h1><p><b>%2$s</b></p><p style="white-space:pre-line">%3$s</p><p>Issued %4$s, due %5$s%6$s</p><table><tr><th>Item</th><th class="n">Quantity</th><th class="n">Price</th><th class="n">Amount</th></tr>%7$s</table><p>Subtotal %8$s<br>Discount %9$s<br>Shipping %10$s<br>Tax %11$s<br><b>Total %12$s %13$s</b></p></body></html>',
    i.invoice_number, odin._html(seller), odin._html(coalesce(i.bill_to, '')), i.issued_on, i.due_on, CASE i.status WHEN 'void' THEN ' (void)' WHEN 'paid' THEN ', paid ' || i.paid_on ELSE '' END,
    (SELECT string_agg(format('<tr><td>%s</td><td class="n">%s</td><td class="n">%s</td><td class="n">%s</td></tr>', odin._html(l->>'description'), l->>'quantity', trim_scale((l->>'unit_price')::numeric), l->>'amount'), '') FROM jsonb_array_elements(i.lines) l),
    i.subtotal, i.discount, i.shipping, i.tax, i.total, i.currency);
END $f$;
COMMENT ON FUNCTION odin.invoice_html(bigint) IS 'An invoice as a printable HTML page.';

CREATE OR REPLACE FUNCTION odin._html(said text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT replace(replace(replace(replace(said, '&', '&amp;'), '<', '&lt;'), '>', '&gt;'), '"', '&quot;');
$f$;

-- Real cost of the runs that an order needed, scrap included, against what it brings.
CREATE OR REPLACE VIEW odin.order_profit_view WITH (security_invoker = true) AS
SELECT v.id AS order_id, v.order_number, v.status, v.customer_id, v.customer_name, v.currency, v.order_date, v.subtotal - v.discount + v.shipping_charged AS revenue,
       coalesce(k.material, 0) AS material, coalesce(k.machine, 0) AS machine, coalesce(k.energy, 0) AS energy, coalesce(k.labor, 0) + round(v.labor_minutes / 60 * coalesce(card.labor_per_hour, 0), 2) AS labor,
       coalesce(k.scrap_share, 0) AS of_which_scrap, coalesce(cs.cost, 0) AS consumables, coalesce(fs.cost, 0) AS from_stock_value, v.platform_fees + v.payment_fees AS fees, v.shipping_cost,
       coalesce(j.estimated, 0) AS estimated_cost, x.actual_cost, v.subtotal - v.discount + v.shipping_charged - x.actual_cost AS profit,
       CASE WHEN v.subtotal - v.discount + v.shipping_charged > 0 THEN round((v.subtotal - v.discount + v.shipping_charged - x.actual_cost) * 100 / (v.subtotal - v.discount + v.shipping_charged), 1) END AS margin_percent, v.org_id
  FROM odin.order_view v
  LEFT JOIN LATERAL (SELECT c.labor_per_hour FROM odin.rate_cards c WHERE c.org_id = v.org_id ORDER BY c.version DESC LIMIT 1) card ON true
  LEFT JOIN LATERAL (SELECT round(sum(c.material), 2) AS material, round(sum(c.machine), 2) AS machine, round(sum(c.energy), 2) AS energy, round(sum(c.labor), 2) AS labor, round(sum(c.scrap_share), 2) AS scrap_share
                       FROM odin.order_lines l JOIN odin.runs r ON r.order_line_id = l.id JOIN odin.run_costs c ON c.run_id = r.id WHERE l.order_id = v.id) k ON true
  LEFT JOIN LATERAL (SELECT round(sum(y.estimated_cost), 2) AS estimated FROM odin.order_lines l JOIN odin.jobs y ON y.order_line_id = l.id WHERE l.order_id = v.id AND y.requeued_from_run_id IS NULL AND y.status <> 'cancelled') j ON true
  LEFT JOIN LATERAL (SELECT round(sum(l.shipped * pc.quantity * c.cost_per_unit), 2) AS cost FROM odin.order_lines l JOIN odin.product_consumables pc ON pc.product_id = l.product_id JOIN odin.consumables c ON c.id = pc.consumable_id WHERE l.order_id = v.id) cs ON true
  LEFT JOIN LATERAL (SELECT round(sum(p.from_stock * m.cost), 2) AS cost FROM odin.order_lines l JOIN odin.order_parts p ON p.order_line_id = l.id AND p.from_stock > 0
                       CROSS JOIN LATERAL (SELECT coalesce(avg(y.cost / nullif(y.good, 0)), 0) AS cost FROM (SELECT r.cost, r.good FROM odin.runs r WHERE r.model_id = p.model_id AND r.good > 0 ORDER BY r.id DESC LIMIT 20) y) m WHERE l.order_id = v.id) fs ON true
  CROSS JOIN LATERAL (SELECT coalesce(k.material, 0) + coalesce(k.machine, 0) + coalesce(k.energy, 0) + coalesce(k.labor, 0) + round(v.labor_minutes / 60 * coalesce(card.labor_per_hour, 0), 2) + coalesce(cs.cost, 0) + coalesce(fs.cost, 0)
                             + v.platform_fees + v.payment_fees + v.shipping_cost AS actual_cost) x;
COMMENT ON VIEW odin.order_profit_view IS 'Profit and loss per order: revenue, real cost of its runs (scrap included), consumables, pieces from stock, fees, shipping.';
GRANT SELECT ON odin.order_profit_view TO odin_viewer;

CREATE OR REPLACE FUNCTION odin.order_profit(order_id bigint) RETURNS odin.order_profit_view
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  v odin.order_profit_view;
BEGIN
  SELECT * INTO v FROM odin.order_profit_view x WHERE x.order_id = order_profit.order_id;
  IF v.order_id IS NULL THEN PERFORM odin.fail('order_not_found', format('order_id: there is no order %s', order_profit.order_id), NULL, '{"field":"order_id"}'); END IF;
  RETURN v;
END $f$;
COMMENT ON FUNCTION odin.order_profit(bigint) IS 'Shows profit and loss of one order: revenue, real cost by kind with scrap, fees, shipping, profit and margin.';

CREATE OR REPLACE FUNCTION odin.list_quotas() RETURNS TABLE(id bigint, role_name text, customer_id bigint, metric text, period text, limit_value numeric, subject text, used numeric, period_start date)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT q.id, q.role_name, q.customer_id, q.metric, q.period, q.limit_value, u.subject, coalesce(u.used, 0), u.starts_on FROM odin.quotas q
    LEFT JOIN LATERAL (SELECT x.* FROM odin.quota_usage x WHERE x.quota_id = q.id AND x.starts_on = (SELECT max(y.starts_on) FROM odin.quota_usage y WHERE y.quota_id = q.id)) u ON true
   WHERE q.org_id = ANY (odin._visible_orgs()) AND q.is_active ORDER BY q.id, u.subject;
$f$;
COMMENT ON FUNCTION odin.list_quotas() IS 'Lists quotas (jobs, grams or hours per period) and how much of each is used.';

CREATE OR REPLACE FUNCTION odin.set_quota(metric text, period text, limit_value numeric, role_name text DEFAULT NULL, customer_id bigint DEFAULT NULL, remove boolean DEFAULT false) RETURNS odin.quotas
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  org bigint := odin._new_in('odin_admin');
  q odin.quotas;
BEGIN
  IF set_quota.customer_id IS NOT NULL THEN PERFORM odin._mine('customer', set_quota.customer_id); END IF;
  IF set_quota.role_name IS NOT NULL AND set_quota.customer_id IS NOT NULL THEN PERFORM odin.fail('validation_failed', 'role_name: give role_name or customer_id, not both', NULL, '{"field":"role_name"}'); END IF;
  INSERT INTO odin.quotas AS x (org_id, role_name, customer_id, metric, period, limit_value, is_active) VALUES (org, set_quota.role_name, set_quota.customer_id, set_quota.metric, set_quota.period, set_quota.limit_value, NOT remove)
  ON CONFLICT ON CONSTRAINT quotas_key DO UPDATE SET limit_value = excluded.limit_value, is_active = excluded.is_active RETURNING * INTO q;
  RETURN q;
END $f$;
COMMENT ON FUNCTION odin.set_quota(text, text, numeric, text, bigint, boolean) IS 'Limits how many jobs, grams or hours may be queued per period: by one role, for one customer, or (neither given) by every submitter each for himself.';
GRANT EXECUTE ON FUNCTION odin._html(text) TO odin_viewer, odin_customer;
GRANT EXECUTE ON FUNCTION odin.get_rate_card(integer), odin.list_quotes(text, bigint, integer, text), odin.list_invoices(text, bigint, integer, text), odin.invoice_html(bigint), odin.order_profit(bigint), odin.list_quotas() TO odin_viewer;
GRANT EXECUTE ON FUNCTION odin.create_quote, odin.accept_quote(bigint, timestamptz, boolean), odin.set_quote(bigint, text, date, text), odin.create_invoice(bigint, integer, text), odin.set_invoice(bigint, text, text, date) TO odin_operator;
GRANT EXECUTE ON FUNCTION odin.set_rate_card, odin.set_quota(text, text, numeric, text, bigint, boolean) TO odin_admin;
