-- Direct control of printers under the farm's own names, the same for every protocol: look, files, start a stored file, heat, home, move, G-code.
-- Every check is made on what the printer last reported, so a preview looks at the real world and yet sends nothing. Motion and heat wait for rest.

-- The printer meant: the one named, or the only one there is.
CREATE OR REPLACE FUNCTION odin._one_printer(printer_id bigint, floor name DEFAULT 'odin_operator') RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  mine bigint[];
BEGIN
  IF _one_printer.printer_id IS NOT NULL THEN
    PERFORM odin._mine('printer', _one_printer.printer_id, 'printer_id', floor);
    RETURN _one_printer.printer_id;
  END IF;
  mine := ARRAY(SELECT p.id FROM odin.printers p WHERE p.org_id = ANY (odin._visible_orgs()) AND p.is_active ORDER BY p.id LIMIT 2);
  IF cardinality(mine) <> 1 THEN
    PERFORM odin.fail('validation_failed', CASE cardinality(mine) WHEN 0 THEN 'printer_id: there is no printer yet' ELSE 'printer_id: is required, because there are several printers' END, 'Call list_printers for the ids.', '{"field":"printer_id"}');
  END IF;
  PERFORM odin._mine('printer', mine[1], 'printer_id', floor);
  RETURN mine[1];
END $f$;

-- What a printer is like now; refuses when nobody has heard from it.
CREATE OR REPLACE FUNCTION odin._printer_now(printer bigint, OUT id bigint, OUT name text, OUT org_id bigint, OUT protocol text, OUT state text, OUT raw_state text, OUT max_tool_c numeric, OUT max_bed_c numeric, OUT max_move_mm numeric,
  OUT max_feed numeric, OUT run_id bigint, OUT occupied boolean, OUT is_held boolean, OUT hold_reason text, OUT said text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  SELECT p.id, p.name, p.org_id, p.protocol, CASE WHEN s.reported_at IS NULL THEN 'unknown' ELSE s.state END, s.raw_state, p.max_tool_c, p.max_bed_c, p.max_move_mm, p.max_feed_mm_min, r.id, b.occupied, p.is_held, p.hold_reason, s.error_message
    INTO _printer_now.id, _printer_now.name, _printer_now.org_id, _printer_now.protocol, _printer_now.state, _printer_now.raw_state, _printer_now.max_tool_c, _printer_now.max_bed_c, _printer_now.max_move_mm, max_feed, run_id, occupied,
      _printer_now.is_held, _printer_now.hold_reason, said
    FROM odin.printers p JOIN odin.printer_state s ON s.printer_id = p.id JOIN odin.beds b ON b.printer_id = p.id
    LEFT JOIN odin.runs r ON r.printer_id = p.id AND r.status IN ('claimed','starting','printing','paused','unknown') WHERE p.id = printer;
END $f$;

CREATE OR REPLACE FUNCTION odin._needs_answer(now record) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  IF now.state IN ('offline', 'unknown') THEN
    PERFORM odin.fail('printer_unreachable', format('%s is %s%s', now.name, now.state, coalesce(': ' || now.said, '')), NULL, jsonb_build_object('printer_id', now.id));
  END IF;
END $f$;

CREATE OR REPLACE FUNCTION odin._needs_clear_bed(now record) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  IF now.occupied THEN
    PERFORM odin.fail('bed_not_clear', format('something lies on the bed of %s', now.name), format('Take the print off, then call clear_bed with printer_id %s.', now.id), jsonb_build_object('printer_id', now.id));
  END IF;
END $f$;

CREATE OR REPLACE FUNCTION odin._needs_rest(now record, what text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  PERFORM odin._needs_answer(now);
  IF now.state NOT IN ('idle', 'finished', 'failed') THEN
    PERFORM odin.fail('printer_not_ready', format('%s reports %s; %s is refused meanwhile', now.name, now.state, what), NULL, jsonb_build_object('printer_id', now.id, 'state', now.state));
  END IF;
END $f$;

-- What only some protocols have.
CREATE OR REPLACE FUNCTION odin._protocol_can(protocol text, verb text) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT CASE _protocol_can.verb WHEN 'set_light' THEN _protocol_can.protocol IN ('bambu', 'virtual') WHEN 'set_slot' THEN _protocol_can.protocol IN ('bambu') WHEN 'gcode' THEN _protocol_can.protocol <> 'prusalink'
    WHEN 'set_fan' THEN _protocol_can.protocol <> 'prusalink' WHEN 'set_speed' THEN _protocol_can.protocol <> 'prusalink' WHEN 'skip_objects' THEN _protocol_can.protocol <> 'prusalink'
    WHEN 'connect' THEN _protocol_can.protocol NOT IN ('prusalink', 'bambu') WHEN 'disconnect' THEN _protocol_can.protocol = 'octoprint' ELSE true END;
$f$;

-- Queues one command and gives the first half of the answer; the sidecar puts the printer's own word in. In a preview it only says what would happen.
CREATE OR REPLACE FUNCTION odin._control(now record, verb text, arguments jsonb, words text, action text, within interval DEFAULT '2 minutes') RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  made bigint;
BEGIN
  IF NOT odin._protocol_can(now.protocol, verb) THEN
    PERFORM odin.fail('not_supported', format('%s speaks %s, which cannot %s', now.name, now.protocol, replace(verb, '_', ' ')), NULL, jsonb_build_object('printer_id', now.id));
  END IF;
  PERFORM odin.would(jsonb_build_object('action', action, 'printer_id', now.id, 'printer_name', now.name, 'printer_state', now.state) || arguments);
  IF odin.call_is_preview() THEN
    RETURN jsonb_build_object('ok', true, 'printer_id', now.id, 'detail', format('Safety check - nothing was sent to %s (it reports %s). This would %s.', now.name, now.state, words));
  END IF;
  INSERT INTO odin.commands(org_id, printer_id, run_id, verb, arguments, deadline, requested_by, call_id)
  VALUES (now.org_id, now.id, CASE WHEN _control.verb IN ('pause', 'resume', 'stop') THEN now.run_id END, _control.verb, _control.arguments, clock_timestamp() + within, odin.actor(), odin.current_call()) RETURNING id INTO made;
  PERFORM pg_notify('odin_work', '');
  RETURN jsonb_build_object('ok', false, 'dry_run', false, 'printer_id', now.id, 'detail', 'The command is queued; the printer has not answered yet.', 'state', now.state, 'command_id', made, 'command_state', 'queued');
END $f$;

CREATE OR REPLACE FUNCTION odin._listed_file(printer bigint, path text) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_variable
DECLARE
  facts odin.printer_facts;
  found_one jsonb;
  near text;
BEGIN
  SELECT * INTO facts FROM odin.printer_facts f WHERE f.printer_id = printer;
  SELECT e INTO found_one FROM jsonb_array_elements(facts.files) e WHERE e->>'path' = ltrim(btrim(path), '/') LIMIT 1;
  IF found_one IS NULL AND facts.files_at IS NOT NULL THEN
    near := odin._nearest(path, ARRAY(SELECT e->>'path' FROM jsonb_array_elements(facts.files) e LIMIT 500));
    PERFORM odin.fail('file_not_on_printer', format('path: the printer has no file %s (its %s files were listed %s s ago)', path, jsonb_array_length(facts.files), round(extract(epoch FROM clock_timestamp() - facts.files_at))),
      coalesce(format('Did you mean %s?', near), 'Call printer_files.'), jsonb_build_object('field', 'path', 'printer_id', printer));
  END IF;
  RETURN coalesce(found_one, jsonb_build_object('path', ltrim(btrim(path), '/')));
END $f$;

CREATE OR REPLACE FUNCTION odin.start_print(path text, printer_id bigint DEFAULT NULL, plate integer DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_variable
DECLARE
  now record;
  file jsonb;
BEGIN
  now := odin._printer_now(odin._one_printer(printer_id));
  file := odin._listed_file(now.id, path);
  PERFORM odin._needs_rest(now, 'a new print');
  IF now.run_id IS NOT NULL THEN
    PERFORM odin.fail('printer_busy', format('run %s of the farm is on %s', now.run_id, now.name), NULL, jsonb_build_object('printer_id', now.id));
  END IF;
  PERFORM odin._needs_clear_bed(now);
  IF now.is_held THEN
    PERFORM odin.fail('not_ready', format('%s is held%s', now.name, coalesce(': ' || now.hold_reason, '')), NULL, jsonb_build_object('printer_id', now.id));
  ELSIF plate > 1 AND (now.protocol <> 'bambu' OR file->>'path' !~* '\.3mf$') THEN
    PERFORM odin.fail('not_supported', format('plate: %s on %s has one plate only; several are in .gcode.3mf files on Bambu Lab printers', file->>'path', now.name), 'Leave plate out.', jsonb_build_object('field', 'plate', 'printer_id', now.id));
  END IF;
  PERFORM odin.suggest('printer_status', jsonb_build_object('printer_id', now.id), 'watch it');
  RETURN odin._control(now, 'print_file', jsonb_strip_nulls(jsonb_build_object('path', file->>'path', 'seconds', coalesce((file->>'estimated_print_time_s')::numeric, 60), 'plate', plate)),
    format('select ''%s''%s and begin printing it on the physical machine', file->>'path', CASE WHEN plate > 1 THEN format(', plate %s,', plate) ELSE '' END), 'start_print') || '{"printing": false}';
END $f$;
COMMENT ON FUNCTION odin.start_print(text, bigint, integer) IS 'Starts a file that is already on the printer (see printer_files), without a job of the farm. plate: which one of a sliced Bambu Lab file with several (1 unless said). Previews unless confirm is true: first show the preview to a person, and check that the bed is clear and the right filament is loaded. For jobs of the farm use start_job.';

CREATE OR REPLACE FUNCTION odin.set_temperature(heater text, target integer, tool_index integer DEFAULT 0, printer_id bigint DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_variable
DECLARE
  now record;
  top numeric;
  loaded_top numeric;
  loaded text;
  named text := CASE heater WHEN 'bed' THEN 'bed' ELSE 'tool' || tool_index END;
BEGIN
  now := odin._printer_now(odin._one_printer(printer_id));
  top := CASE heater WHEN 'bed' THEN least(140, now.max_bed_c) ELSE least(300, now.max_tool_c) END;
  -- Nobody knows which of several spools is in the nozzle: the one that takes most decides, and one without a figure sets no limit.
  SELECT CASE WHEN count(l.most) = count(*) THEN max(l.most) END, string_agg(DISTINCT f.material, ', ' ORDER BY f.material) INTO loaded_top, loaded
    FROM odin.printer_slots ps JOIN odin.spools sp ON sp.id = ps.spool_id JOIN odin.filaments f ON f.id = sp.filament_id
    CROSS JOIN LATERAL (SELECT CASE heater WHEN 'bed' THEN f.bed_max_c ELSE f.nozzle_max_c END AS most) l WHERE ps.printer_id = now.id;
  IF target > loaded_top AND loaded_top < top THEN
    PERFORM odin.fail('printer_limit', format('target: with %s loaded the %s of %s takes at most %s °C', loaded, CASE heater WHEN 'bed' THEN 'bed' ELSE 'tool' END, now.name, trim_scale(loaded_top)),
      'Unload it first; or correct the filament''s own limits with save_filament.', jsonb_build_object('field', 'target', 'maximum', trim_scale(loaded_top), 'printer_id', now.id));
  ELSIF target > top THEN
    PERFORM odin.fail('printer_limit', format('target: the %s of %s takes at most %s °C', CASE heater WHEN 'bed' THEN 'bed' ELSE 'tool' END, now.name, trim_scale(top)), NULL, jsonb_build_object('field', 'target', 'maximum', trim_scale(top), 'printer_id', now.id));
  END IF;
  PERFORM odin._needs_rest(now, 'setting a temperature');
  RETURN odin._control(now, 'set_temperature', jsonb_build_object('heater', heater, 'target', target, 'tool_index', tool_index),
    CASE WHEN target = 0 THEN format('switch the %s heater off', named) ELSE format('set the %s heater to %s°C', named, target) END, 'set_temperature') || jsonb_build_object('heater', named, 'target', target);
END $f$;
COMMENT ON FUNCTION odin.set_temperature(text, integer, integer, bigint) IS 'Sets the target temperature of a tool or the bed in °C; 0 switches it off. Only at rest, within the printer''s own limits. Previews unless confirm is true.';

CREATE OR REPLACE FUNCTION odin.home_printer(axes text[] DEFAULT NULL, printer_id bigint DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_variable
DECLARE
  now record;
  clean text[] := ARRAY(SELECT DISTINCT lower(btrim(a)) FROM unnest(coalesce(nullif(axes, '{}'), '{x,y,z}')) a ORDER BY 1);
BEGIN
  IF NOT clean <@ '{x,y,z}'::text[] THEN
    PERFORM odin.fail('validation_failed', format('axes: %s is not among x, y, z', (SELECT a FROM unnest(clean) a WHERE a NOT IN ('x', 'y', 'z') LIMIT 1)), NULL, '{"field":"axes"}');
  END IF;
  now := odin._printer_now(odin._one_printer(printer_id));
  PERFORM odin._needs_rest(now, 'motion');
  RETURN odin._control(now, 'home', jsonb_build_object('axes', to_jsonb(clean)), format('home the axes %s', upper(array_to_string(clean, ', '))), 'home_printer') || jsonb_build_object('homed', to_jsonb(clean));
END $f$;
COMMENT ON FUNCTION odin.home_printer(text[], bigint) IS 'Moves axes to their home position (all, or some of x, y, z). Only at rest. Previews unless confirm is true: the machine moves.';

CREATE OR REPLACE FUNCTION odin.move_printer(x numeric DEFAULT NULL, y numeric DEFAULT NULL, z numeric DEFAULT NULL, speed numeric DEFAULT NULL, printer_id bigint DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_variable
DECLARE
  now record;
  moved jsonb := jsonb_strip_nulls(jsonb_build_object('x', x, 'y', y, 'z', z));
  far numeric;
BEGIN
  IF moved = '{}' THEN
    PERFORM odin.fail('validation_failed', 'x: give at least one of x, y, z', NULL, '{"field":"x"}');
  END IF;
  now := odin._printer_now(odin._one_printer(printer_id));
  far := least(500, now.max_move_mm);
  IF greatest(abs(x), abs(y), abs(z)) > far THEN
    PERFORM odin.fail('printer_limit', format('a move of %s takes at most %s mm', now.name, trim_scale(far)), NULL, jsonb_build_object('maximum', trim_scale(far), 'printer_id', now.id));
  ELSIF speed > least(12000, now.max_feed) THEN
    PERFORM odin.fail('printer_limit', format('speed: %s takes at most %s mm/min', now.name, trim_scale(least(12000, now.max_feed))), NULL, jsonb_build_object('field', 'speed', 'maximum', trim_scale(least(12000, now.max_feed)), 'printer_id', now.id));
  END IF;
  PERFORM odin._needs_rest(now, 'motion');
  RETURN odin._control(now, 'move', moved || jsonb_strip_nulls(jsonb_build_object('speed', speed)),
    format('move the head %s', (SELECT string_agg(upper(key) || to_char(value::text::numeric, 'SFM990.999') || 'mm', ' ' ORDER BY key) FROM jsonb_each(moved))), 'move_printer') || jsonb_build_object('moved', moved);
END $f$;
COMMENT ON FUNCTION odin.move_printer(numeric, numeric, numeric, numeric, bigint) IS 'Moves the head by so many mm (relative, plus or minus) on x, y, z; speed in mm/min. Only at rest. Previews unless confirm is true: the machine moves.';

CREATE OR REPLACE FUNCTION odin.printer_gcode(lines text[], printer_id bigint DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_variable
DECLARE
  now record;
  clean text[] := ARRAY(SELECT btrim(l) FROM unnest(lines) l WHERE btrim(l) <> '');
BEGIN
  now := odin._printer_now(odin._one_printer(printer_id, 'odin_admin'));
  IF cardinality(clean) = 0 OR EXISTS (SELECT 1 FROM unnest(clean) l WHERE l ~ '[\n\r]' OR length(l) > 200) THEN
    PERFORM odin.fail('validation_failed', 'lines: one command each, at most 200 characters, none empty', NULL, '{"field":"lines"}');
  END IF;
  PERFORM odin._needs_rest(now, 'G-code');
  RETURN odin._control(now, 'gcode', jsonb_build_object('lines', to_jsonb(clean)), format('send %s lines of G-code: %s', cardinality(clean), left(array_to_string(clean, '; '), 300)), 'printer_gcode');
END $f$;
COMMENT ON FUNCTION odin.printer_gcode(text[], bigint) IS 'Sends raw G-code lines to a printer at rest. For administrators; nothing checks what the lines do. Previews unless confirm is true.';

CREATE OR REPLACE FUNCTION odin.connect_printer(action text DEFAULT 'connect', port text DEFAULT NULL, baudrate integer DEFAULT NULL, printer_id bigint DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_variable
DECLARE
  now record;
BEGIN
  now := odin._printer_now(odin._one_printer(printer_id));
  IF action = 'disconnect' AND now.state IN ('printing', 'paused', 'preparing') THEN
    PERFORM odin.fail('printer_not_ready', format('%s reports %s; disconnecting would lose the print', now.name, now.state), NULL, jsonb_build_object('printer_id', now.id, 'state', now.state));
  END IF;
  RETURN odin._control(now, action, jsonb_strip_nulls(jsonb_build_object('port', port, 'baudrate', baudrate)),
    CASE action WHEN 'connect' THEN format('connect the server to its printer%s', coalesce(' on ' || port, '')) ELSE 'disconnect the server from its printer' END, 'connect_printer') || jsonb_build_object('action', action);
END $f$;
COMMENT ON FUNCTION odin.connect_printer(text, text, integer, bigint) IS 'Connects a print server to its printer over its serial port, or disconnects it (never while it prints). Previews unless confirm is true.';

CREATE OR REPLACE FUNCTION odin.printer_status(printer_id bigint DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_variable
BEGIN
  RETURN (SELECT jsonb_build_object('printer_id', p.id, 'printer_name', p.name, 'protocol', p.protocol, 'state', s.state, 'raw_state', s.raw_state, 'stage', s.stage, 'ready', s.state = 'idle' AND NOT b.occupied AND NOT p.is_held,
      'age_seconds', round(extract(epoch FROM clock_timestamp() - s.reported_at)::numeric, 1), 'tool_c', s.tool_c, 'tool_target_c', s.tool_target_c, 'bed_c', s.bed_c, 'bed_target_c', s.bed_target_c, 'chamber_c', s.chamber_c,
      'file', s.file_name, 'progress_percent', round(s.progress_pct::numeric, 1), 'remaining_seconds', s.remaining_seconds, 'bed_occupied', b.occupied, 'is_held', p.is_held, 'problem', s.error_message, 'problem_code', s.error_code, 'server', f.facts->'server', 'connection', f.facts->'connection')
    FROM odin.printers p JOIN odin.printer_state s ON s.printer_id = p.id JOIN odin.beds b ON b.printer_id = p.id LEFT JOIN odin.printer_facts f ON f.printer_id = p.id WHERE p.id = odin._one_printer(printer_status.printer_id, 'odin_viewer'));
END $f$;
COMMENT ON FUNCTION odin.printer_status(bigint) IS 'Shows what a printer reports right now: state, temperatures in °C, file, progress, and how old the report is. ready = at rest, bed clear, not held.';

CREATE OR REPLACE FUNCTION odin.printer_files(printer_id bigint DEFAULT NULL, "limit" integer DEFAULT 50) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_variable
BEGIN
  RETURN (SELECT jsonb_build_object('printer_id', p.id, 'count', (SELECT count(*) FROM jsonb_path_query(coalesce(f.files, '[]'), '$[*]') WITH ORDINALITY x(e, n) WHERE n <= "limit"), 'total', jsonb_array_length(coalesce(f.files, '[]')), 'listed_at', f.files_at,
      'files', (SELECT coalesce(jsonb_agg(jsonb_build_object('path', e->'path', 'size_bytes', e->'size_bytes', 'date', e->'date', 'estimated_print_time_s', e->'estimated_print_time_s') ORDER BY n), '[]') FROM jsonb_array_elements(coalesce(f.files, '[]')) WITH ORDINALITY x(e, n) WHERE n <= "limit"))
    FROM odin.printers p LEFT JOIN odin.printer_facts f ON f.printer_id = p.id WHERE p.id = odin._one_printer(printer_files.printer_id, 'odin_viewer'));
END $f$;
COMMENT ON FUNCTION odin.printer_files(bigint, integer) IS 'Lists the G-code files on a printer, newest first, as it last listed them (listed_at). Start one with start_print.';

GRANT EXECUTE ON FUNCTION odin._one_printer(bigint, name), odin.printer_status(bigint), odin.printer_files(bigint, integer) TO odin_viewer;
GRANT EXECUTE ON FUNCTION odin.start_print(text, bigint, integer), odin.set_temperature(text, integer, integer, bigint), odin.home_printer(text[], bigint), odin.move_printer(numeric, numeric, numeric, numeric, bigint),
  odin.connect_printer(text, text, integer, bigint) TO odin_operator;
GRANT EXECUTE ON FUNCTION odin.printer_gcode(text[], bigint) TO odin_admin;
