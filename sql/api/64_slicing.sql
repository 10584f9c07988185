-- Tools that slice: they check everything that can be known, put the work on the list and return its handle.
-- The sidecar that carried the call waits for the end, or gives the client the task; nothing is sliced in here.

-- Where a result goes: a name in the store, .gcode, never a path.
CREATE OR REPLACE FUNCTION odin._gcode_path(wanted text, model odin.files, printer text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  clean text := odin._store_path(coalesce(nullif(btrim(wanted), ''), format('gcode/%s_%s.gcode', regexp_replace(model.name, '\.[^.]*$', ''), regexp_replace(printer, '[^A-Za-z0-9_-]+', '_', 'g'))));
BEGIN
  RETURN CASE WHEN clean ~* '\.(gcode|gco|g)$' THEN clean ELSE clean || '.gcode' END;
END $f$;

-- The farm's printer the file is meant for, as limits for the worker.
CREATE OR REPLACE FUNCTION odin._printer_limits(printer bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  IF printer IS NULL THEN RETURN '{}'; END IF;
  PERFORM odin._mine('printer', printer, 'for_printer_id', 'odin_viewer');
  RETURN (SELECT jsonb_strip_nulls(jsonb_build_object('printer_id', p.id, 'bed_x_mm', p.bed_x_mm, 'bed_y_mm', p.bed_y_mm, 'bed_z_mm', p.bed_z_mm, 'max_tool_c', p.max_tool_c, 'max_bed_c', p.max_bed_c,
      'nozzle_mm', (SELECT n.diameter_mm FROM odin.nozzles n WHERE n.printer_id = p.id AND n.removed_at IS NULL ORDER BY n.tool LIMIT 1)))
    FROM odin.printers p WHERE p.id = printer);
END $f$;

CREATE OR REPLACE FUNCTION odin._queue_slice(model odin.files, slicer text, about jsonb, label text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  task text;
BEGIN
  PERFORM odin.would(jsonb_build_object('action', slicer || '_slice_model', 'model', model.name, 'output_path', about->>'output_path') || coalesce(about->'result'->'settings', '{}'));
  task := odin.start_task('slice', jsonb_strip_nulls(jsonb_build_object('slicer', slicer, 'sha256', model.sha256, 'kind', model.kind, 'license', model.license, 'author', model.author, 'source_url', model.source_url)) || about,
    'waiting for a slicer', max_attempts => 3);
  RETURN (about->'result') || jsonb_build_object('gcode_path', about->>'output_path', 'task_id', task, 'task_state', 'queued',
    'hint', format('%s is being sliced as task %s; call get_task for its end.', label, task));
END $f$;

CREATE OR REPLACE FUNCTION odin.cura_slice_model(model_path text, printer text DEFAULT 'creality_ender3pro', layer_height float8 DEFAULT 0.2, infill_density float8 DEFAULT 20, supports boolean DEFAULT false,
  adhesion_type text DEFAULT 'skirt', material_print_temperature float8 DEFAULT 200, material_bed_temperature float8 DEFAULT 60, output_path text DEFAULT NULL,
  process text DEFAULT NULL, material text DEFAULT NULL, overrides jsonb DEFAULT NULL, for_printer_id bigint DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  org bigint := odin._new_in();
  model odin.files := odin._find_file(org, model_path, 'model_path');
  machine odin.slicer_profiles;
  process_row odin.slicer_profiles;
  material_row odin.slicer_profiles;
  definition odin.slicer_presets;
  limits jsonb := odin._printer_limits(for_printer_id);
  asked jsonb;
  settings jsonb;
BEGIN
  PERFORM odin._need_slicer('cura');
  IF model.kind <> 'stl' THEN
    PERFORM odin.fail('not_sliceable', format('model_path: %s is %s; CuraEngine reads STL', model.name, model.kind),
      CASE WHEN model.kind IN ('3mf', 'obj') THEN 'prusa_slice_model reads 3MF and OBJ.' END, '{"field": "model_path"}');
  END IF;
  SELECT * INTO machine FROM odin.slicer_profiles x WHERE x.org_id = org AND x.slicer = 'cura' AND x.tier = 'printer' AND lower(x.name) = lower(btrim(printer)) AND x.is_current;
  definition := odin._cura_printer(coalesce(machine.base, btrim(printer)), 'printer');
  process_row := odin._profile(org, 'cura', 'process', process, 'process');
  material_row := odin._profile(org, 'cura', 'material', material, 'material');
  PERFORM odin._check_settings('cura', overrides, 'overrides');
  -- A farm's printer may carry another nozzle than its definition says.
  asked := jsonb_build_object('layer_height', layer_height, 'infill_sparse_density', infill_density, 'support_enable', supports, 'adhesion_type', adhesion_type,
    'material_print_temperature', material_print_temperature, 'material_bed_temperature', material_bed_temperature, 'material_print_temperature_layer_0', material_print_temperature, 'material_bed_temperature_layer_0', material_bed_temperature);
  -- Later ones win: printer, process, material, arguments that were given, overrides. A profile beats an argument left at its default.
  settings := coalesce(machine.settings, '{}') || CASE WHEN limits ? 'nozzle_mm' THEN jsonb_build_object('machine_nozzle_size', limits->'nozzle_mm') ELSE '{}' END
    || odin._plain_cura(asked, coalesce(process_row.settings, '{}') || coalesce(material_row.settings, '{}') || coalesce(machine.settings, '{}'))
    || coalesce(process_row.settings, '{}') || coalesce(material_row.settings, '{}') || odin._asked_cura(asked) || coalesce(overrides, '{}');
  RETURN odin._queue_slice(model, 'cura', jsonb_build_object('printer', definition.name, 'overrides', settings, 'limits', limits, 'density', coalesce(material_row.density, 1.24), 'material', coalesce(material_row.material, 'PLA'),
    'output_path', odin._gcode_path(output_path, model, printer), 'profiles', jsonb_strip_nulls(jsonb_build_object('printer', machine.id, 'process', process_row.id, 'material', material_row.id)),
    'result', jsonb_build_object('model', model.name, 'printer', printer, 'settings', jsonb_build_object('layer_height', settings->'layer_height', 'infill_density', settings->'infill_sparse_density', 'supports', settings->'support_enable',
      'adhesion_type', settings->'adhesion_type', 'material_print_temperature', settings->'material_print_temperature', 'material_bed_temperature', settings->'material_bed_temperature'))), model.name);
END $f$;
COMMENT ON FUNCTION odin.cura_slice_model(text, text, float8, float8, boolean, text, float8, float8, text, text, text, jsonb, bigint) IS 'Slices an STL of the store to G-code with CuraEngine and stores it. model_path is a name, id or SHA-256 of a stored file (upload_file, list_files). printer is a Cura id (creality_ender3pro) or a saved printer profile. layer_height in mm (lower = finer, slower), infill_density in percent, temperatures in C. process and material name saved profiles; overrides sets any Cura setting by its own name. With for_printer_id the result must fit that printer''s bed, nozzle and limits. The answer has print time, metres and grams; next: create_model_from_file, then queue_job.';

-- The arguments' defaults, except where a profile says something else.
CREATE OR REPLACE FUNCTION odin._plain_cura(asked jsonb, profiles jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT coalesce(jsonb_object_agg(a.key, a.value), '{}') FROM jsonb_each(asked) a
   WHERE NOT profiles ? a.key AND NOT (a.key LIKE '%\_layer\_0' AND profiles ? replace(a.key, '_layer_0', ''));
$f$;

-- What differs from the defaults was asked for, and beats every profile.
CREATE OR REPLACE FUNCTION odin._asked_cura(asked jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT coalesce(jsonb_object_agg(a.key, a.value), '{}') FROM jsonb_each(asked) a
   WHERE a.value <> ('{"layer_height": 0.2, "infill_sparse_density": 20, "support_enable": false, "adhesion_type": "skirt", "material_print_temperature": 200, "material_bed_temperature": 60,
     "material_print_temperature_layer_0": 200, "material_bed_temperature_layer_0": 60}'::jsonb->a.key);
$f$;

CREATE OR REPLACE FUNCTION odin.prusa_slice_model(model_path text, printer text DEFAULT NULL, process text DEFAULT NULL, material text DEFAULT NULL, layer_height float8 DEFAULT NULL, infill_density float8 DEFAULT NULL,
  supports boolean DEFAULT NULL, output_path text DEFAULT NULL, overrides jsonb DEFAULT NULL, for_printer_id bigint DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  org bigint := odin._new_in();
  model odin.files := odin._find_file(org, model_path, 'model_path');
  machine odin.slicer_profiles;
  process_row odin.slicer_profiles;
  material_row odin.slicer_profiles;
  limits jsonb := odin._printer_limits(for_printer_id);
  settings jsonb;
BEGIN
  PERFORM odin._need_slicer('prusa');
  IF model.kind NOT IN ('stl', '3mf', 'obj', 'amf') THEN
    PERFORM odin.fail('not_sliceable', format('model_path: %s is %s; PrusaSlicer reads STL, 3MF, OBJ and AMF', model.name, model.kind), NULL, '{"field": "model_path"}');
  END IF;
  machine := odin._profile(org, 'prusa', 'printer', printer, 'printer');
  process_row := odin._profile(org, 'prusa', 'process', process, 'process');
  material_row := odin._profile(org, 'prusa', 'material', material, 'material');
  PERFORM odin._check_settings('prusa', overrides, 'overrides');
  settings := jsonb_build_object('gcode_flavor', 'marlin', 'filament_diameter', 1.75, 'filament_density', coalesce(material_row.density, 1.24), 'filament_type', coalesce(material_row.material, 'PLA'))
    || CASE WHEN limits ? 'bed_x_mm' THEN jsonb_build_object('bed_shape', format('0x0,%1$sx0,%1$sx%2$s,0x%2$s', limits->>'bed_x_mm', limits->>'bed_y_mm'), 'max_print_height', limits->'bed_z_mm') ELSE '{}' END
    || CASE WHEN limits ? 'nozzle_mm' THEN jsonb_build_object('nozzle_diameter', limits->'nozzle_mm') ELSE '{}' END
    || coalesce(machine.settings, '{}') || coalesce(process_row.settings, '{}') || coalesce(material_row.settings, '{}')
    || jsonb_strip_nulls(jsonb_build_object('layer_height', layer_height, 'fill_density', infill_density || '%', 'support_material', supports)) || coalesce(overrides, '{}');
  RETURN odin._queue_slice(model, 'prusa', jsonb_build_object('overrides', settings, 'limits', limits, 'density', coalesce(material_row.density, 1.24), 'material', coalesce(material_row.material, 'PLA'),
    'output_path', odin._gcode_path(output_path, model, coalesce(printer, 'prusa')),
    'profiles', jsonb_strip_nulls(jsonb_build_object('printer', machine.id, 'process', process_row.id, 'material', material_row.id)),
    'result', jsonb_strip_nulls(jsonb_build_object('slicer', 'prusaslicer', 'model', model.name, 'settings', jsonb_build_object('printer', printer, 'process', process, 'material', material, 'layer_height', settings->'layer_height',
      'infill_density', infill_density, 'supports', supports)))), model.name);
END $f$;
COMMENT ON FUNCTION odin.prusa_slice_model(text, text, text, text, float8, float8, boolean, text, jsonb, bigint) IS 'Slices an STL, 3MF or OBJ of the store with PrusaSlicer and stores the G-code. printer, process and material name saved profiles (save_slicer_profile, slicer prusa); overrides sets any PrusaSlicer setting. layer_height in mm, infill_density in percent. With for_printer_id the bed and nozzle of that printer are used and its limits checked.';

CREATE OR REPLACE FUNCTION odin.orca_slice_model(model_path text, machine text, process text, filament text, output_path text DEFAULT NULL, overrides jsonb DEFAULT NULL, for_printer_id bigint DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  org bigint := odin._new_in();
  model odin.files := odin._find_file(org, model_path, 'model_path');
  wanted record;
BEGIN
  PERFORM odin._need_slicer('orca');
  IF model.kind NOT IN ('stl', '3mf', 'obj') THEN
    PERFORM odin.fail('not_sliceable', format('model_path: %s is %s; OrcaSlicer reads STL, 3MF and OBJ', model.name, model.kind), NULL, '{"field": "model_path"}');
  END IF;
  FOR wanted IN SELECT * FROM (VALUES ('machine', machine), ('process', process), ('filament', filament)) v(tier, name) LOOP
    IF NOT EXISTS (SELECT 1 FROM odin.slicer_presets p WHERE p.slicer = 'orca' AND p.tier = wanted.tier AND p.name = wanted.name) THEN
      PERFORM odin.fail('profile_not_found', format('%1$s: unknown %1$s preset %2$s', wanted.tier, wanted.name),
        (SELECT 'Did you mean ' || string_agg(c.name, ', or ') || '?' FROM (SELECT p.name FROM odin.slicer_presets p WHERE p.slicer = 'orca' AND p.tier = wanted.tier
           AND (position(lower(wanted.name) IN lower(p.name)) > 0 OR p.name = odin._nearest(wanted.name, ARRAY(SELECT x.name FROM odin.slicer_presets x WHERE x.slicer = 'orca' AND x.tier = wanted.tier))) ORDER BY length(p.name) LIMIT 3) c),
        jsonb_build_object('field', wanted.tier));
    END IF;
  END LOOP;
  IF EXISTS (SELECT 1 FROM jsonb_each(coalesce(overrides, '{}')) o WHERE jsonb_typeof(o.value) NOT IN ('number', 'string', 'boolean')) THEN
    PERFORM odin.fail('validation_failed', 'overrides: values are numbers, texts, or true or false', NULL, '{"field": "overrides"}');
  END IF;
  PERFORM odin._check_settings('orca', overrides, 'overrides');
  RETURN odin._queue_slice(model, 'orca', jsonb_build_object('presets', jsonb_build_object('machine', machine, 'process', process, 'filament', filament), 'overrides', coalesce(overrides, '{}'),
    'limits', odin._printer_limits(for_printer_id), 'output_path', odin._gcode_path(output_path, model, machine),
    'result', jsonb_build_object('slicer', 'orcaslicer', 'model', model.name, 'settings', jsonb_build_object('machine', machine, 'process', process, 'filament', filament))), model.name);
END $f$;
COMMENT ON FUNCTION odin.orca_slice_model(text, text, text, text, text, jsonb, bigint) IS 'Slices a model of the store with OrcaSlicer and stores the G-code. machine, process and filament are exact preset names (orca_list_profiles). overrides sets single values, as {"layer_height": 0.3}; each goes to the preset that has it (process, filament or machine), and a name none has is refused.';

-- Tasks as tools, for callers that do not speak the tasks extension and for SQL users.
CREATE OR REPLACE FUNCTION odin.get_task(task_id text) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  t odin.tasks;
BEGIN
  SELECT * INTO t FROM odin.tasks x WHERE x.id = task_id AND odin._may(x.org_id, 'odin_viewer');
  IF NOT FOUND THEN PERFORM odin.fail('task_not_found', format('there is no task %s', task_id)); END IF;
  RETURN jsonb_strip_nulls(jsonb_build_object('task_id', t.id, 'kind', t.kind, 'state', t.state, 'message', t.message, 'progress_percent', CASE WHEN t.progress_total = 100 THEN t.progress END, 'attempts', t.attempts,
    'max_attempts', t.max_attempts, 'result', t.outcome->'result', 'error', coalesce(t.outcome->'error', t.error), 'created_by', t.role_name, 'created_at', t.created_at, 'finished_at', t.finished_at));
END $f$;
COMMENT ON FUNCTION odin.get_task(text) IS 'How far a background task is (slicing, download): state queued, working, completed, failed or cancelled; progress_percent; and its result or error once it ended.';

CREATE OR REPLACE FUNCTION odin.cancel_task(task_id text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  t odin.tasks;
BEGIN
  SELECT * INTO t FROM odin.tasks x WHERE x.id = task_id AND odin._may(x.org_id, 'odin_viewer');
  IF NOT FOUND THEN PERFORM odin.fail('task_not_found', format('there is no task %s', task_id)); END IF;
  PERFORM odin._mine_task(t);
  PERFORM odin.would(jsonb_build_object('action', 'cancel_task', 'task_id', t.id, 'kind', t.kind, 'state', t.state));
  RETURN jsonb_build_object('task_id', t.id, 'cancelled', odin._cancel_task(t.id, format('cancelled by %s', odin.actor())), 'was', t.state);
END $f$;
COMMENT ON FUNCTION odin.cancel_task(text) IS 'Stops a background task: a running slicer is killed and nothing of it is kept. Harmless on a finished task.';

-- One's own task, or anybody's in the org for its administrator.
CREATE OR REPLACE FUNCTION odin._mine_task(t odin.tasks) RETURNS void
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  IF t.role_name <> odin.actor() AND NOT odin._may(t.org_id, 'odin_admin') THEN
    PERFORM odin.fail('permission_denied', format('task %s was started by %s', t.id, t.role_name), 'An administrator of the org may cancel it.');
  END IF;
END $f$;

CREATE OR REPLACE FUNCTION odin.list_tasks(state_filter text DEFAULT NULL, kind_filter text DEFAULT NULL, dead_only boolean DEFAULT false, "limit" int DEFAULT 50, cursor text DEFAULT NULL)
RETURNS TABLE(task_id text, kind text, state text, message text, progress_percent numeric, attempts int, max_attempts int, error_code text, error_detail text, created_by text, created_at timestamptz, finished_at timestamptz)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  before jsonb := odin.cursor_decode(list_tasks.cursor);
BEGIN
  RETURN QUERY
    SELECT t.id, t.kind, t.state, t.message, CASE WHEN t.progress_total = 100 THEN t.progress END, t.attempts, t.max_attempts, coalesce(t.outcome#>>'{error,code}', t.error->>'code'),
           coalesce(t.outcome#>>'{error,detail}', t.error->>'message'), t.role_name, t.created_at, t.finished_at
      FROM odin.tasks t
     WHERE t.org_id = ANY (ARRAY(SELECT odin.orgs_of(current_user))) AND (state_filter IS NULL OR t.state = state_filter) AND (kind_filter IS NULL OR t.kind = kind_filter)
       AND (NOT dead_only OR t.state = 'failed' OR t.outcome->>'status' = 'error')
       AND (before IS NULL OR (t.created_at, t.id) < ((before->>0)::timestamptz, before->>1))
     ORDER BY t.created_at DESC, t.id DESC LIMIT list_tasks."limit";
END $f$;
COMMENT ON FUNCTION odin.list_tasks(text, text, boolean, int, text) IS 'Lists background tasks of the org, newest first. dead_only shows those that ended without a result, with the reason. Kept for a day after they end.';

GRANT EXECUTE ON FUNCTION odin.get_task(text), odin.list_tasks(text, text, boolean, int, text) TO odin_viewer;
GRANT EXECUTE ON FUNCTION odin.cura_slice_model(text, text, float8, float8, boolean, text, float8, float8, text, text, text, jsonb, bigint),
  odin.prusa_slice_model(text, text, text, text, float8, float8, boolean, text, jsonb, bigint), odin.orca_slice_model(text, text, text, text, text, jsonb, bigint), odin.cancel_task(text) TO odin_operator;
