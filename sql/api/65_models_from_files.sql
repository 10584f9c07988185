-- From files to what jobs are made of: a look at a model before slicing, and a model with a revision from G-code.
-- Grams and minutes come from the file; a figure nobody knows stays empty.

CREATE OR REPLACE FUNCTION odin.inspect_model(file text, material text DEFAULT 'PLA', infill_percent float8 DEFAULT 20, layer_height_mm float8 DEFAULT 0.2, mm3_per_second float8 DEFAULT 8) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  f odin.files := odin._find_file(odin.my_org(), file);
  density numeric := (SELECT r.density FROM odin.reference_filaments r WHERE upper(r.slug) = upper(material) OR upper(r.name) = upper(material) ORDER BY r.position LIMIT 1);
  volume numeric;
  skin numeric;
  plastic numeric;
  layers int;
  answer jsonb;
BEGIN
  IF f.kind NOT IN ('stl', '3mf', 'obj') THEN
    PERFORM odin.fail('not_sliceable', format('file: %s is %s, not a model; get_file shows what it says', f.name, f.kind), NULL, '{"field": "file"}');
  ELSIF f.facts_state = 'unreadable' THEN
    PERFORM odin.fail('file_unreadable', format('file: %s cannot be read: %s', f.name, f.facts_problem), NULL, '{"field": "file"}');
  END IF;
  answer := jsonb_strip_nulls(jsonb_build_object('file_id', f.id, 'sha256', f.sha256, 'name', f.name, 'license', f.license, 'author', f.author, 'source_url', f.source_url, 'facts_state', f.facts_state, 'facts', f.facts,
    'thumbnail', 'odin://files/' || f.thumbnail_sha256));
  volume := (f.facts->>'volume_mm3')::numeric;
  IF f.facts IS NULL THEN
    PERFORM odin.note('A worker is still reading the file; call again in a moment.');
  ELSIF volume IS NULL THEN
    PERFORM odin.note('The model is not watertight, so it has no volume and no estimate. Most slicers repair small holes.');
  ELSE
    -- Walls and lids of 0.9 mm are solid, the rest is filled as asked; flow, moves and heating give the time.
    skin := least(volume, (f.facts->>'area_mm2')::numeric * 0.9);
    plastic := skin + (volume - skin) * (infill_percent / 100)::numeric;
    layers := greatest(1, ceil((f.facts#>>'{size_mm,2}')::numeric / layer_height_mm::numeric));
    answer := answer || jsonb_build_object('estimate', jsonb_build_object('material', upper(material), 'density', coalesce(density, 1.24), 'grams', round(plastic / 1000 * coalesce(density, 1.24), 1),
      'print_seconds', round(plastic / mm3_per_second::numeric * 1.15 + layers * 2 + 180), 'layers', layers, 'basis', 'volume and surface; slice it for exact figures'));
  END IF;
  RETURN answer;
END $f$;
COMMENT ON FUNCTION odin.inspect_model(text, text, float8, float8, float8) IS 'Looks at an STL, 3MF or OBJ of the store before slicing: size in mm, volume, watertight or not, a picture, and a rough estimate of grams and seconds for a quote. infill_percent and layer_height_mm change the estimate.';

CREATE OR REPLACE FUNCTION odin.create_model_from_file(file text, name text DEFAULT NULL, model_id bigint DEFAULT NULL, pieces_per_plate int DEFAULT 1, material text DEFAULT NULL, customer_id bigint DEFAULT NULL, changelog text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  org bigint := odin._new_in();
  f odin.files := odin._find_file(org, create_model_from_file.file);
  picture text;
  m odin.models;
  r odin.model_revisions;
  tool jsonb;
  mg bigint;
BEGIN
  IF f.kind NOT IN ('gcode', 'gcode_3mf', 'bgcode') THEN
    PERFORM odin.fail('validation_failed', format('file: %s is %s; a model is made from G-code', f.name, f.kind), 'Slice it first with cura_slice_model.', '{"field": "file"}');
  ELSIF f.facts_state = 'unreadable' THEN
    PERFORM odin.fail('file_unreadable', format('file: %s cannot be read: %s', f.name, f.facts_problem), NULL, '{"field": "file"}');
  ELSIF f.facts_state = 'waiting' THEN
    PERFORM odin.fail('conflict', format('file: a worker is still reading %s', f.name), 'Call again in a moment.', '{"retry_after": 2}');
  END IF;
  IF create_model_from_file.model_id IS NOT NULL THEN
    PERFORM odin._mine('model', create_model_from_file.model_id, 'model_id');
    SELECT * INTO m FROM odin.models x WHERE x.id = create_model_from_file.model_id FOR UPDATE;
  ELSE
    IF create_model_from_file.customer_id IS NOT NULL THEN PERFORM odin._mine('customer', create_model_from_file.customer_id, 'customer_id'); END IF;
    INSERT INTO odin.models(org_id, customer_id, name, license, author, source_url, created_by)
    VALUES (org, create_model_from_file.customer_id, coalesce(nullif(btrim(create_model_from_file.name), ''), regexp_replace(f.name, '(\.gcode)?\.[^.]*$', '')), f.license, f.author, f.source_url, odin.actor()) RETURNING * INTO m;
  END IF;
  INSERT INTO odin.model_revisions(org_id, customer_id, model_id, revision, pieces_per_plate, seconds, file_sha256, file_name, printer_model, nozzle_mm, size_x_mm, size_y_mm, size_z_mm, layer_count, changelog, created_by)
  VALUES (m.org_id, m.customer_id, m.id, coalesce((SELECT max(x.revision) FROM odin.model_revisions x WHERE x.model_id = m.id), 0) + 1, pieces_per_plate, nullif(round((f.facts->>'print_seconds')::numeric), 0)::int, f.sha256, f.name,
    f.facts->>'printer_model', nullif((f.facts->>'nozzle_mm')::numeric, 0), nullif(greatest(0, (f.facts#>>'{max_mm,0}')::numeric - (f.facts#>>'{min_mm,0}')::numeric), 0), nullif(greatest(0, (f.facts#>>'{max_mm,1}')::numeric - (f.facts#>>'{min_mm,1}')::numeric), 0),
    nullif((f.facts#>>'{max_mm,2}')::numeric, 0), nullif((f.facts->>'layers')::int, 0), changelog, odin.actor()) RETURNING * INTO r;
  FOR tool IN SELECT * FROM jsonb_array_elements(coalesce(f.facts->'tools', '[]')) LOOP
    mg := round((tool->>'grams')::numeric * 1000);
    CONTINUE WHEN mg IS NULL;
    INSERT INTO odin.revision_materials(revision_id, org_id, customer_id, tool, material, color_hex, mg)
    VALUES (r.id, m.org_id, m.customer_id, (tool->>'tool')::smallint, odin._material_word(coalesce(create_model_from_file.material, tool->>'material')), tool->>'color', mg);
  END LOOP;
  SELECT coalesce(f.thumbnail_sha256, x.thumbnail_sha256) INTO picture FROM odin.files g LEFT JOIN odin.files x ON x.org_id = g.org_id AND x.sha256 = g.made_from_sha256 WHERE g.id = f.id;
  UPDATE odin.models x SET current_revision_id = r.id, thumbnail_sha256 = coalesce(picture, x.thumbnail_sha256), updated_at = now() WHERE x.id = m.id RETURNING * INTO m;
  INSERT INTO odin.model_files(org_id, customer_id, model_id, revision_id, kind, sha256, name, bytes, created_by)
  SELECT m.org_id, m.customer_id, m.id, r.id, CASE WHEN x.kind IN ('stl', '3mf', 'obj', 'step', 'gcode', 'bgcode', 'gcode_3mf', 'image') THEN x.kind ELSE 'other' END, x.sha256, x.name, x.bytes, odin.actor()
    FROM odin.files x WHERE x.org_id = org AND x.sha256 IN (f.sha256, f.made_from_sha256) ON CONFLICT ON CONSTRAINT model_files_key DO NOTHING;
  PERFORM odin.would(jsonb_build_object('action', 'create_model_from_file', 'file', f.name, 'model_id', m.id, 'name', m.name, 'grams', f.facts->'grams'));
  PERFORM odin.suggest('queue_job', jsonb_build_object('model_id', m.id, 'quantity', 1), 'print it');
  IF m.license IS NOT NULL THEN PERFORM odin.note(format('Licence of the design: %s%s. Check it before the print is sold.', m.license, coalesce(' by ' || m.author, ''))); END IF;
  RETURN jsonb_strip_nulls(jsonb_build_object('model_id', m.id, 'name', m.name, 'revision_id', r.id, 'revision', r.revision, 'pieces_per_plate', r.pieces_per_plate, 'print_seconds', r.seconds, 'grams', f.facts->'grams',
    'materials', (SELECT jsonb_agg(jsonb_build_object('tool', x.tool, 'material', x.material, 'color_hex', x.color_hex, 'grams', x.mg / 1000.0) ORDER BY x.tool) FROM odin.revision_materials x WHERE x.revision_id = r.id),
    'license', m.license, 'author', m.author, 'source_url', m.source_url, 'file_sha256', f.sha256));
END $f$;
COMMENT ON FUNCTION odin.create_model_from_file(text, text, bigint, int, text, bigint, text) IS 'Makes a printable model from G-code in the store (a slice''s result or an upload): name, print time, grams per tool, size, picture and licence come from the file. With model_id it becomes a new revision of that model. pieces_per_plate is how many pieces one print gives. Next: queue_job.';

-- Whoever quotes or takes an order sees whose designs would be sold, and under which licence.
CREATE OR REPLACE FUNCTION odin._note_licenses(org bigint, lines jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  m record;
BEGIN
  FOR m IN SELECT DISTINCT x.id, x.name, x.license, x.author FROM jsonb_array_elements(CASE jsonb_typeof(lines) WHEN 'array' THEN lines ELSE jsonb_build_array(lines) END) l
             JOIN odin.models x ON x.org_id = org AND (x.id::text = l->>'model_id' OR x.id IN (SELECT p.model_id FROM odin.product_parts p WHERE p.product_id::text = l->>'product_id'))
            WHERE x.license IS NOT NULL ORDER BY x.id LIMIT 20 LOOP
    PERFORM odin.note(format('Licence of the design %s: %s%s. Check that it may be sold.', m.name, m.license, coalesce(' by ' || m.author, '')));
  END LOOP;
END $f$;

-- "PLA+ Silk" -> PLA+_SILK: as materials are compared everywhere.
CREATE OR REPLACE FUNCTION odin._material_word(said text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT coalesce(nullif(left(regexp_replace(regexp_replace(upper(btrim(said)), '[^A-Z0-9+-]+', '_', 'g'), '^[^A-Z0-9]+|_+$', '', 'g'), 30), ''), 'PLA');
$f$;

GRANT EXECUTE ON FUNCTION odin.inspect_model(text, text, float8, float8, float8) TO odin_viewer;
GRANT EXECUTE ON FUNCTION odin.create_model_from_file(text, text, bigint, int, text, bigint, text) TO odin_operator;
