-- Verbs on what can be made and on the machines: models and revisions, products, consumables, finished stock, printers, blackout hours.

CREATE OR REPLACE VIEW odin.model_view WITH (security_invoker = true) AS
SELECT m.id, m.name, m.sku, m.category, m.is_active, m.is_favorite, m.customer_id, r.id AS current_revision_id, r.revision, r.pieces_per_plate AS quantity_per_bed, round(r.seconds / 3600.0, 3) AS build_time_hours,
       round(n.mg / 1000.0, 2) AS grams_per_plate, n.filament_type AS default_filament_type, n.colors AS required_colors, r.file_name, r.file_sha256, r.printer_model, r.nozzle_mm, m.markup_percent, m.license, m.author, m.source_url,
       coalesce(b.quantity, 0) AS in_stock, m.notes, m.org_id, m.created_at, m.updated_at
  FROM odin.models m
  LEFT JOIN odin.model_revisions r ON r.id = m.current_revision_id
  LEFT JOIN odin.stock_balances b ON b.model_id = m.id
  LEFT JOIN LATERAL (SELECT sum(x.mg) AS mg, string_agg(DISTINCT x.material, ', ') AS filament_type, array_remove(array_agg(x.color_hex ORDER BY x.tool), NULL) AS colors FROM odin.revision_materials x WHERE x.revision_id = r.id) n ON true;
COMMENT ON VIEW odin.model_view IS 'Models as the tools show them, with what a plate of the current revision takes.';
GRANT SELECT ON odin.model_view TO odin_viewer;

CREATE OR REPLACE FUNCTION odin.list_models(search text DEFAULT NULL, category text DEFAULT NULL, include_archived boolean DEFAULT false, "limit" integer DEFAULT 100, cursor text DEFAULT NULL) RETURNS SETOF odin.model_view
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  after_id bigint := coalesce((odin.cursor_decode(list_models.cursor)->>0)::bigint, 0);
  orgs bigint[] := odin._visible_orgs();
BEGIN
  RETURN QUERY SELECT v.* FROM odin.model_view v WHERE v.org_id = ANY (orgs) AND v.id > after_id AND (include_archived OR v.is_active) AND (list_models.category IS NULL OR lower(v.category) = lower(list_models.category))
     AND (list_models.search IS NULL OR strpos(lower(concat_ws(' ', v.name, v.sku, v.category, v.file_name)), lower(list_models.search)) > 0) ORDER BY v.id LIMIT list_models."limit";
END $f$;
COMMENT ON FUNCTION odin.list_models(text, text, boolean, integer, text) IS 'Lists the models that can be printed, with printing time, grams and pieces of a plate. search looks in name, sku, category and file name.';

CREATE OR REPLACE FUNCTION odin.get_model(model_id bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  m jsonb := (SELECT to_jsonb(v) FROM odin.model_view v WHERE v.id = get_model.model_id);
BEGIN
  IF m IS NULL THEN PERFORM odin.fail('model_not_found', format('model_id: there is no model %s', get_model.model_id), NULL, '{"field":"model_id"}'); END IF;
  RETURN m || jsonb_build_object('model_id', get_model.model_id,
    'cost', (SELECT to_jsonb(e) - 'rate_card_id' || jsonb_build_object('cost_per_item', round(e.cost / nullif((m->>'quantity_per_bed')::int, 0), 4)) FROM odin._estimate((m->>'current_revision_id')::bigint) e),
    'revisions', (SELECT coalesce(jsonb_agg(jsonb_build_object('model_revision_id', r.id, 'revision', r.revision, 'pieces_per_plate', r.pieces_per_plate, 'print_hours', round(r.seconds / 3600.0, 3), 'file_name', r.file_name, 'file_sha256', r.file_sha256,
        'printer_model', r.printer_model, 'protocols', r.protocols, 'nozzle_mm', r.nozzle_mm, 'size_mm', jsonb_build_array(r.size_x_mm, r.size_y_mm, r.size_z_mm), 'changelog', r.changelog, 'created_by', r.created_by, 'created_at', r.created_at,
        'materials', (SELECT coalesce(jsonb_agg(jsonb_build_object('tool', x.tool, 'material', x.material, 'brand', x.brand, 'filament_id', x.filament_id, 'color_hex', x.color_hex, 'grams', round(x.mg / 1000.0, 3)) ORDER BY x.tool), '[]') FROM odin.revision_materials x WHERE x.revision_id = r.id))
        ORDER BY r.revision DESC), '[]') FROM odin.model_revisions r WHERE r.model_id = get_model.model_id),
    'runs', (SELECT jsonb_build_object('completed', count(*) FILTER (WHERE r.status = 'completed'), 'failed', count(*) FILTER (WHERE r.status = 'failed'), 'mean_hours', round((avg(r.seconds) FILTER (WHERE r.status = 'completed') / 3600.0)::numeric, 3))
               FROM (SELECT y.status, y.seconds FROM odin.runs y WHERE y.model_id = get_model.model_id AND y.finished_at IS NOT NULL ORDER BY y.id DESC LIMIT 1000) r));
END $f$;
COMMENT ON FUNCTION odin.get_model(bigint) IS 'Shows one model: cost of a plate and piece, every revision with materials and file, and how its last 1000 runs went.';

CREATE OR REPLACE FUNCTION odin.create_model(name text, print_hours numeric DEFAULT NULL, pieces_per_plate integer DEFAULT 1, material text DEFAULT NULL, grams numeric DEFAULT NULL, color_hex text DEFAULT NULL, materials jsonb DEFAULT NULL, sku text DEFAULT NULL, category text DEFAULT NULL,
  customer_id bigint DEFAULT NULL, file_sha256 text DEFAULT NULL, file_name text DEFAULT NULL, notes text DEFAULT NULL, license text DEFAULT NULL, author text DEFAULT NULL, source_url text DEFAULT NULL, markup_percent numeric DEFAULT 300) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  org bigint := odin._new_in();
  made bigint;
BEGIN
  IF create_model.customer_id IS NOT NULL THEN PERFORM odin._mine('customer', create_model.customer_id); END IF;
  INSERT INTO odin.models(org_id, customer_id, name, sku, category, notes, license, author, source_url, markup_percent)
  VALUES (org, create_model.customer_id, create_model.name, create_model.sku, create_model.category, create_model.notes, create_model.license, create_model.author, create_model.source_url, create_model.markup_percent) RETURNING id INTO made;
  PERFORM odin._add_revision(made, create_model.pieces_per_plate, print_hours, odin._material_list(create_model.materials, create_model.material, create_model.grams, create_model.color_hex),
    jsonb_strip_nulls(jsonb_build_object('file_sha256', create_model.file_sha256, 'file_name', create_model.file_name)));
  PERFORM odin.suggest('queue_job', jsonb_build_object('model_id', made), 'print it');
  RETURN odin.get_model(made);
END $f$;
COMMENT ON FUNCTION odin.create_model IS 'Adds a model with its first revision: printing hours, pieces and filament of one plate. One material: give material and grams; several: give materials. Then queue it with queue_job.';

-- [{"tool":0,"material":"PLA","grams":12.3,"color_hex":"#FF0000"}] checked, with names folded.
CREATE OR REPLACE FUNCTION odin._material_list(materials jsonb, material text, grams numeric, color text) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  e jsonb;
  n integer := 0;
  list jsonb := '[]';
BEGIN
  IF materials IS NULL AND material IS NULL THEN
    IF grams IS NOT NULL THEN PERFORM odin.fail('validation_failed', 'material: grams of what?', 'For example PLA.', '{"field":"material"}'); END IF;
    RETURN '[]';
  END IF;
  IF materials IS NOT NULL AND jsonb_typeof(materials) <> 'array' THEN PERFORM odin.fail('validation_failed', 'materials: a list', '[{"tool":0,"material":"PLA","grams":12.5,"color_hex":"#000000"}]', '{"field":"materials"}'); END IF;
  FOR e IN SELECT x FROM jsonb_array_elements(coalesce(materials, jsonb_build_array(jsonb_build_object('material', material, 'grams', grams, 'color_hex', color)))) x LOOP
    IF odin._material(e->>'material') IS NULL AND e->>'filament_id' IS NULL THEN PERFORM odin.fail('validation_failed', 'materials: every entry needs a material or a filament_id', NULL, '{"field":"materials"}'); END IF;
    IF e->>'filament_id' IS NOT NULL THEN PERFORM odin._mine('filament', (e->>'filament_id')::bigint, 'filament_id'); END IF;
    list := list || jsonb_build_object('tool', coalesce((e->>'tool')::int, n), 'material', coalesce(odin._material(e->>'material'), (SELECT f.material FROM odin.filaments f WHERE f.id = (e->>'filament_id')::bigint)), 'brand', e->>'brand',
      'filament_id', e->'filament_id', 'color_hex', odin._color(e->>'color_hex'), 'mg', round(coalesce((e->>'grams')::numeric * 1000, 0)));
    n := n + 1;
  END LOOP;
  RETURN list;
END $f$;

CREATE OR REPLACE FUNCTION odin._add_revision(model bigint, pieces integer, hours numeric, materials jsonb, about jsonb) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  org bigint := (SELECT m.org_id FROM odin.models m WHERE m.id = model FOR UPDATE);
  made bigint;
BEGIN
  INSERT INTO odin.model_revisions(org_id, model_id, revision, pieces_per_plate, seconds, file_sha256, file_name, protocols, printer_model, nozzle_mm, size_x_mm, size_y_mm, size_z_mm, plate_surface, layer_count, changelog)
  SELECT org, model, coalesce((SELECT max(r.revision) FROM odin.model_revisions r WHERE r.model_id = model), 0) + 1, pieces, round(hours * 3600), about->>'file_sha256', about->>'file_name',
    CASE WHEN about ? 'protocols' THEN ARRAY(SELECT lower(x) FROM jsonb_array_elements_text(about->'protocols') x) END, about->>'printer_model', (about->>'nozzle_mm')::numeric, (about->>'size_x_mm')::numeric, (about->>'size_y_mm')::numeric,
    (about->>'size_z_mm')::numeric, about->>'plate_surface', (about->>'layer_count')::int, about->>'changelog' RETURNING id INTO made;
  INSERT INTO odin.revision_materials(revision_id, org_id, tool, material, brand, filament_id, color_hex, mg)
  SELECT made, org, (e->>'tool')::smallint, e->>'material', e->>'brand', (e->>'filament_id')::bigint, e->>'color_hex', (e->>'mg')::bigint FROM jsonb_array_elements(materials) e;
  UPDATE odin.models m SET current_revision_id = made WHERE m.id = model;
  RETURN made;
END $f$;

CREATE OR REPLACE FUNCTION odin.add_model_revision(model_id bigint, print_hours numeric, pieces_per_plate integer DEFAULT 1, material text DEFAULT NULL, grams numeric DEFAULT NULL, color_hex text DEFAULT NULL, materials jsonb DEFAULT NULL, file_sha256 text DEFAULT NULL, file_name text DEFAULT NULL,
  printer_model text DEFAULT NULL, protocols text[] DEFAULT NULL, nozzle_mm numeric DEFAULT NULL, size_x_mm numeric DEFAULT NULL, size_y_mm numeric DEFAULT NULL, size_z_mm numeric DEFAULT NULL, plate_surface text DEFAULT NULL, layer_count integer DEFAULT NULL, changelog text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
BEGIN
  PERFORM odin._mine('model', add_model_revision.model_id);
  PERFORM odin._add_revision(add_model_revision.model_id, add_model_revision.pieces_per_plate, add_model_revision.print_hours, odin._material_list(add_model_revision.materials, add_model_revision.material, add_model_revision.grams, add_model_revision.color_hex),
    jsonb_strip_nulls(jsonb_build_object('file_sha256', add_model_revision.file_sha256, 'file_name', add_model_revision.file_name, 'protocols', to_jsonb(add_model_revision.protocols), 'printer_model', add_model_revision.printer_model, 'nozzle_mm', add_model_revision.nozzle_mm,
      'size_x_mm', add_model_revision.size_x_mm, 'size_y_mm', add_model_revision.size_y_mm, 'size_z_mm', add_model_revision.size_z_mm, 'plate_surface', add_model_revision.plate_surface, 'layer_count', add_model_revision.layer_count, 'changelog', add_model_revision.changelog)));
  RETURN odin.get_model(add_model_revision.model_id);
END $f$;
COMMENT ON FUNCTION odin.add_model_revision IS 'Adds a new revision of a model (another file, time, grams, size) and makes it the current one. Jobs that are queued keep the revision they were queued with.';

CREATE OR REPLACE FUNCTION odin.update_model(model_id bigint, name text DEFAULT NULL, sku text DEFAULT NULL, category text DEFAULT NULL, notes text DEFAULT NULL, markup_percent numeric DEFAULT NULL, is_favorite boolean DEFAULT NULL, license text DEFAULT NULL, current_revision integer DEFAULT NULL, archived boolean DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  rev bigint;
BEGIN
  PERFORM odin._mine('model', update_model.model_id);
  IF update_model.current_revision IS NOT NULL THEN
    SELECT r.id INTO rev FROM odin.model_revisions r WHERE r.model_id = update_model.model_id AND r.revision = update_model.current_revision;
    IF rev IS NULL THEN PERFORM odin.fail('validation_failed', format('current_revision: model %s has no revision %s', update_model.model_id, update_model.current_revision), 'get_model lists them.', '{"field":"current_revision"}'); END IF;
  END IF;
  UPDATE odin.models x SET name = coalesce(update_model.name, x.name), sku = coalesce(update_model.sku, x.sku), category = coalesce(update_model.category, x.category), notes = coalesce(update_model.notes, x.notes), markup_percent = coalesce(update_model.markup_percent, x.markup_percent),
    is_favorite = coalesce(update_model.is_favorite, x.is_favorite), license = coalesce(update_model.license, x.license), current_revision_id = coalesce(rev, x.current_revision_id), is_active = coalesce(NOT archived, x.is_active) WHERE x.id = update_model.model_id;
  RETURN odin.get_model(update_model.model_id);
END $f$;
COMMENT ON FUNCTION odin.update_model IS 'Changes what is known about a model; current_revision goes back to an earlier revision; archived takes it out of the lists.';

CREATE OR REPLACE FUNCTION odin.list_products(search text DEFAULT NULL, "limit" integer DEFAULT 100, cursor text DEFAULT NULL)
RETURNS TABLE(id bigint, name text, sku text, price numeric, currency text, component_count bigint, estimated_cogs numeric, parts jsonb, consumables jsonb, is_active boolean)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  after_id bigint := coalesce((odin.cursor_decode(list_products.cursor)->>0)::bigint, 0);
  orgs bigint[] := odin._visible_orgs();
BEGIN
  RETURN QUERY SELECT p.id, p.name, p.sku, p.price, p.currency, coalesce(a.n, 0), round(coalesce(a.cost, 0) + coalesce(k.cost, 0), 2), coalesce(a.list, '[]'), coalesce(k.list, '[]'), p.is_active
    FROM odin.products p
    LEFT JOIN LATERAL (SELECT count(*) AS n, sum(x.quantity * e.cost / r.pieces_per_plate) AS cost, jsonb_agg(jsonb_build_object('model_id', x.model_id, 'model_name', m.name, 'quantity', x.quantity) ORDER BY x.model_id) AS list
        FROM odin.product_parts x JOIN odin.models m ON m.id = x.model_id LEFT JOIN odin.model_revisions r ON r.id = m.current_revision_id LEFT JOIN LATERAL odin._estimate(r.id) e ON true WHERE x.product_id = p.id) a ON true
    LEFT JOIN LATERAL (SELECT sum(x.quantity * c.cost_per_unit) AS cost, jsonb_agg(jsonb_build_object('consumable_id', c.id, 'name', c.name, 'quantity', x.quantity) ORDER BY c.id) AS list
        FROM odin.product_consumables x JOIN odin.consumables c ON c.id = x.consumable_id WHERE x.product_id = p.id) k ON true
   WHERE p.org_id = ANY (orgs) AND p.is_active AND p.id > after_id AND (list_products.search IS NULL OR strpos(lower(concat_ws(' ', p.name, p.sku, p.description)), lower(list_products.search)) > 0) ORDER BY p.id LIMIT list_products."limit";
END $f$;
COMMENT ON FUNCTION odin.list_products(text, integer, text) IS 'Lists products with their printed parts, consumables, price and estimated cost of goods.';

CREATE OR REPLACE FUNCTION odin.save_product(product_id bigint DEFAULT NULL, name text DEFAULT NULL, sku text DEFAULT NULL, price numeric DEFAULT NULL, description text DEFAULT NULL, parts jsonb DEFAULT NULL, consumables jsonb DEFAULT NULL, archived boolean DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  org bigint;
  made bigint := save_product.product_id;
  e jsonb;
BEGIN
  IF made IS NULL THEN
    PERFORM odin._not_null(save_product.name, 'name');
    org := odin._new_in();
    INSERT INTO odin.products(org_id, name, sku, price, currency, description) VALUES (org, save_product.name, save_product.sku, save_product.price, odin._currency(org), save_product.description) RETURNING id INTO made;
  ELSE
    org := odin._mine('product', made);
    UPDATE odin.products x SET name = coalesce(save_product.name, x.name), sku = coalesce(save_product.sku, x.sku), price = coalesce(save_product.price, x.price), description = coalesce(save_product.description, x.description), is_active = coalesce(NOT archived, x.is_active) WHERE x.id = made;
  END IF;
  IF (save_product.parts IS NOT NULL AND jsonb_typeof(save_product.parts) <> 'array') OR (save_product.consumables IS NOT NULL AND jsonb_typeof(save_product.consumables) <> 'array') THEN
    PERFORM odin.fail('validation_failed', 'parts, consumables: lists', '[{"model_id": 1, "quantity": 2}]', '{"field":"parts"}');
  END IF;
  IF save_product.parts IS NOT NULL THEN
    DELETE FROM odin.product_parts x WHERE x.product_id = made;
    FOR e IN SELECT x FROM jsonb_array_elements(save_product.parts) x LOOP
      PERFORM odin._not_null((e->>'model_id')::bigint, 'model_id'), odin._mine('model', (e->>'model_id')::bigint);
      INSERT INTO odin.product_parts(product_id, org_id, model_id, quantity, notes) VALUES (made, org, (e->>'model_id')::bigint, coalesce((e->>'quantity')::int, 1), e->>'notes');
    END LOOP;
  END IF;
  IF save_product.consumables IS NOT NULL THEN
    DELETE FROM odin.product_consumables x WHERE x.product_id = made;
    FOR e IN SELECT x FROM jsonb_array_elements(save_product.consumables) x LOOP
      PERFORM odin._not_null((e->>'consumable_id')::bigint, 'consumable_id'), odin._mine('consumable', (e->>'consumable_id')::bigint);
      INSERT INTO odin.product_consumables(product_id, org_id, consumable_id, quantity) VALUES (made, org, (e->>'consumable_id')::bigint, coalesce((e->>'quantity')::numeric, 1));
    END LOOP;
  END IF;
  RETURN (SELECT jsonb_build_object('product_id', p.id, 'id', p.id, 'name', p.name, 'sku', p.sku, 'price', p.price, 'currency', p.currency, 'description', p.description, 'is_active', p.is_active,
    'parts', (SELECT coalesce(jsonb_agg(jsonb_build_object('model_id', x.model_id, 'quantity', x.quantity) ORDER BY x.model_id), '[]') FROM odin.product_parts x WHERE x.product_id = p.id),
    'consumables', (SELECT coalesce(jsonb_agg(jsonb_build_object('consumable_id', x.consumable_id, 'quantity', x.quantity) ORDER BY x.consumable_id), '[]') FROM odin.product_consumables x WHERE x.product_id = p.id)) FROM odin.products p WHERE p.id = made);
END $f$;
COMMENT ON FUNCTION odin.save_product IS 'Adds a product, or changes one when product_id is given. parts: [{"model_id":1,"quantity":2}] printed pieces per unit; consumables: [{"consumable_id":1,"quantity":4}]. A list that is given replaces the old one.';

CREATE OR REPLACE FUNCTION odin.list_consumables(low_only boolean DEFAULT false, search text DEFAULT NULL, "limit" integer DEFAULT 100, cursor text DEFAULT NULL)
RETURNS TABLE(id bigint, name text, sku text, unit text, cost_per_unit numeric, currency text, current_stock numeric, min_stock numeric, is_low_stock boolean, vendor text, notes text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  after_id bigint := coalesce((odin.cursor_decode(list_consumables.cursor)->>0)::bigint, 0);
  orgs bigint[] := odin._visible_orgs();
BEGIN
  RETURN QUERY SELECT c.id, c.name, c.sku, c.unit, c.cost_per_unit, c.currency, c.stock, c.min_stock, c.stock <= c.min_stock, c.vendor, c.notes FROM odin.consumables c
   WHERE c.org_id = ANY (orgs) AND c.is_active AND c.id > after_id AND (NOT low_only OR c.stock <= c.min_stock) AND (list_consumables.search IS NULL OR strpos(lower(concat_ws(' ', c.name, c.sku, c.vendor)), lower(list_consumables.search)) > 0)
   ORDER BY c.id LIMIT list_consumables."limit";
END $f$;
COMMENT ON FUNCTION odin.list_consumables(boolean, text, integer, text) IS 'Lists consumables (screws, boxes, glue) with stock and minimum; low_only keeps those at or below it.';

CREATE OR REPLACE FUNCTION odin.save_consumable(consumable_id bigint DEFAULT NULL, name text DEFAULT NULL, sku text DEFAULT NULL, unit text DEFAULT NULL, cost_per_unit numeric DEFAULT NULL, min_stock numeric DEFAULT NULL, vendor text DEFAULT NULL, notes text DEFAULT NULL, archived boolean DEFAULT NULL) RETURNS odin.consumables
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  org bigint;
  c odin.consumables;
BEGIN
  IF save_consumable.consumable_id IS NULL THEN
    PERFORM odin._not_null(save_consumable.name, 'name');
    org := odin._new_in();
    INSERT INTO odin.consumables(org_id, name, sku, unit, cost_per_unit, currency, min_stock, vendor, notes) VALUES (org, save_consumable.name, save_consumable.sku, coalesce(save_consumable.unit, 'piece'), coalesce(save_consumable.cost_per_unit, 0), odin._currency(org),
      coalesce(save_consumable.min_stock, 0), save_consumable.vendor, save_consumable.notes) RETURNING * INTO c;
  ELSE
    PERFORM odin._mine('consumable', save_consumable.consumable_id);
    UPDATE odin.consumables x SET name = coalesce(save_consumable.name, x.name), sku = coalesce(save_consumable.sku, x.sku), unit = coalesce(save_consumable.unit, x.unit), cost_per_unit = coalesce(save_consumable.cost_per_unit, x.cost_per_unit),
      min_stock = coalesce(save_consumable.min_stock, x.min_stock), vendor = coalesce(save_consumable.vendor, x.vendor), notes = coalesce(save_consumable.notes, x.notes), is_active = coalesce(NOT archived, x.is_active) WHERE x.id = save_consumable.consumable_id RETURNING * INTO c;
  END IF;
  RETURN c;
END $f$;
COMMENT ON FUNCTION odin.save_consumable IS 'Adds a consumable, or changes one when consumable_id is given. Stock changes with adjust_consumable.';

CREATE OR REPLACE FUNCTION odin.adjust_consumable(consumable_id bigint, kind text, quantity numeric, notes text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  org bigint := odin._mine('consumable', adjust_consumable.consumable_id);
BEGIN
  IF adjust_consumable.quantity <= 0 AND adjust_consumable.kind <> 'adjust' THEN PERFORM odin.fail('validation_failed', 'quantity: more than 0', NULL, '{"field":"quantity"}'); END IF;
  INSERT INTO odin.consumable_moves(org_id, consumable_id, kind, quantity, notes) VALUES (org, adjust_consumable.consumable_id, adjust_consumable.kind, CASE adjust_consumable.kind WHEN 'deduct' THEN -adjust_consumable.quantity ELSE adjust_consumable.quantity END, adjust_consumable.notes);
  RETURN (SELECT jsonb_build_object('success', true, 'consumable_id', c.id, 'current_stock', c.stock, 'is_low_stock', c.stock <= c.min_stock) FROM odin.consumables c WHERE c.id = adjust_consumable.consumable_id);
END $f$;
COMMENT ON FUNCTION odin.adjust_consumable(bigint, text, numeric, text) IS 'Books consumables: restock adds, deduct takes away (never below zero), adjust corrects by a signed quantity.';

CREATE OR REPLACE FUNCTION odin.list_stock("limit" integer DEFAULT 100, cursor text DEFAULT NULL) RETURNS TABLE(model_id bigint, model_name text, sku text, quantity integer)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  after_id bigint := coalesce((odin.cursor_decode(list_stock.cursor)->>0)::bigint, 0);
  orgs bigint[] := odin._visible_orgs();
BEGIN
  RETURN QUERY SELECT b.model_id, m.name, m.sku, b.quantity FROM odin.stock_balances b JOIN odin.models m ON m.id = b.model_id WHERE b.org_id = ANY (orgs) AND b.quantity > 0 AND b.model_id > after_id ORDER BY b.model_id LIMIT list_stock."limit";
END $f$;
COMMENT ON FUNCTION odin.list_stock(integer, text) IS 'Lists finished pieces in stock per model: made for stock, or left over from whole plates.';

CREATE OR REPLACE FUNCTION odin.adjust_stock(model_id bigint, quantity integer, reason text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  org bigint := odin._mine('model', adjust_stock.model_id);
BEGIN
  IF adjust_stock.quantity = 0 THEN PERFORM odin.fail('validation_failed', 'quantity: not 0', NULL, '{"field":"quantity"}'); END IF;
  INSERT INTO odin.stock_moves(org_id, model_id, kind, quantity, reason, actor) VALUES (org, adjust_stock.model_id, 'adjust', adjust_stock.quantity, adjust_stock.reason, odin.actor());
  RETURN (SELECT jsonb_build_object('success', true, 'model_id', b.model_id, 'quantity', b.quantity) FROM odin.stock_balances b WHERE b.model_id = adjust_stock.model_id);
END $f$;
COMMENT ON FUNCTION odin.adjust_stock(bigint, integer, text) IS 'Corrects finished pieces in stock after a count, by a signed quantity, with the reason.';
GRANT EXECUTE ON FUNCTION odin._material_list(jsonb, text, numeric, text), odin._add_revision(bigint, integer, numeric, jsonb, jsonb) TO odin_operator;
GRANT EXECUTE ON FUNCTION odin.list_models(text, text, boolean, integer, text), odin.get_model(bigint), odin.list_products(text, integer, text), odin.list_consumables(boolean, text, integer, text), odin.list_stock(integer, text) TO odin_viewer;
GRANT EXECUTE ON FUNCTION odin.create_model, odin.add_model_revision, odin.update_model, odin.save_product, odin.save_consumable, odin.adjust_consumable(bigint, text, numeric, text), odin.adjust_stock(bigint, integer, text) TO odin_operator;
