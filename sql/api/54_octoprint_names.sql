-- The ten octoprint_* tools as PrintMCP's users know them: its arguments, ranges and answers, for a printer of any protocol.
-- Thin: the work is in 53_printer_control.sql, so both names obey the same checks.

CREATE OR REPLACE FUNCTION odin.octoprint_get_status(printer_id bigint DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_variable
BEGIN
  RETURN (SELECT jsonb_build_object('printer_id', p.id, 'server', jsonb_build_object('version', f.facts#>'{server,version}', 'api', f.facts#>'{server,api}'),
      'connection', jsonb_build_object('state', coalesce(f.facts#>'{connection,state}', to_jsonb(s.raw_state)), 'port', f.facts#>'{connection,port}', 'baudrate', f.facts#>'{connection,baudrate}'),
      'printer_state', coalesce(s.raw_state, s.state), 'ready', s.state IN ('idle', 'finished', 'failed'), 'bed_occupied', b.occupied, 'age_seconds', round(extract(epoch FROM clock_timestamp() - s.reported_at)::numeric, 1),
      'temperatures', jsonb_strip_nulls(jsonb_build_object('tool0', CASE WHEN s.tool_c IS NOT NULL THEN jsonb_build_object('actual', s.tool_c, 'target', s.tool_target_c) END, 'bed', CASE WHEN s.bed_c IS NOT NULL THEN jsonb_build_object('actual', s.bed_c, 'target', s.bed_target_c) END)))
    FROM odin.printers p JOIN odin.printer_state s ON s.printer_id = p.id JOIN odin.beds b ON b.printer_id = p.id LEFT JOIN odin.printer_facts f ON f.printer_id = p.id WHERE p.id = odin._one_printer(octoprint_get_status.printer_id, 'odin_viewer'));
END $f$;
COMMENT ON FUNCTION odin.octoprint_get_status(bigint) IS 'Shows the print server''s version, its connection to the printer, the printer''s state and temperatures. ready = connected and at rest.';

CREATE OR REPLACE FUNCTION odin.octoprint_list_files("limit" integer DEFAULT 50, printer_id bigint DEFAULT NULL) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT odin.printer_files(octoprint_list_files.printer_id, octoprint_list_files."limit");
$f$;
COMMENT ON FUNCTION odin.octoprint_list_files(integer, bigint) IS 'Lists the G-code files on the printer, newest first.';

CREATE OR REPLACE FUNCTION odin.octoprint_get_job(printer_id bigint DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_variable
BEGIN
  RETURN (SELECT jsonb_build_object('printer_id', p.id, 'state', coalesce(s.raw_state, s.state), 'file', s.file_name, 'completion_percent', round(s.progress_pct::numeric, 1),
      'print_time_s', round(extract(epoch FROM clock_timestamp() - r.started_at)), 'print_time_left_s', s.remaining_seconds, 'job_id', r.job_id, 'run_id', r.id)
    FROM odin.printers p JOIN odin.printer_state s ON s.printer_id = p.id LEFT JOIN odin.runs r ON r.printer_id = p.id AND r.status IN ('starting','printing','paused') WHERE p.id = odin._one_printer(octoprint_get_job.printer_id, 'odin_viewer'));
END $f$;
COMMENT ON FUNCTION odin.octoprint_get_job(bigint) IS 'Shows the progress of the print that is on the printer: file, percent done, seconds left. job_id and run_id are there when the farm started it.';

CREATE OR REPLACE FUNCTION odin.octoprint_connect(action text DEFAULT 'connect', port text DEFAULT NULL, baudrate integer DEFAULT NULL, printer_id bigint DEFAULT NULL) RETURNS jsonb
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT odin.connect_printer(octoprint_connect.action, octoprint_connect.port, octoprint_connect.baudrate, octoprint_connect.printer_id);
$f$;
COMMENT ON FUNCTION odin.octoprint_connect(text, text, integer, bigint) IS 'Connects the print server to its printer, or disconnects it. Previews unless confirm is true.';

CREATE OR REPLACE FUNCTION odin.octoprint_upload_file(gcode_path text, dest_path text DEFAULT NULL, "select" boolean DEFAULT false, print_after_upload boolean DEFAULT false, confirm boolean DEFAULT false, printer_id bigint DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_variable
DECLARE
  now record;
  f odin.files;
  target text;
  print_it boolean := print_after_upload AND confirm AND NOT odin.call_is_preview();
  answer jsonb;
BEGIN
  now := odin._printer_now(odin._one_printer(printer_id));
  f := odin._find_file(now.org_id, gcode_path, 'gcode_path');
  IF f.name !~* '\.(gcode|gco|g)$' THEN
    PERFORM odin.fail('validation_failed', format('gcode_path: %s is not G-code; expected .gcode, .gco or .g', f.name), NULL, '{"field":"gcode_path"}');
  END IF;
  target := concat_ws('/', nullif(btrim(coalesce(dest_path, ''), '/ '), ''), f.name);
  IF target ~ '(^|/)\.\.?(/|$)' OR target ~ '[\\[:cntrl:]]' THEN
    PERFORM odin.fail('validation_failed', 'dest_path: a folder on the printer, without .. in it', NULL, '{"field":"dest_path"}');
  END IF;
  PERFORM odin._needs_answer(now);
  IF print_after_upload THEN
    PERFORM odin._needs_rest(now, 'a new print');
    PERFORM odin._needs_clear_bed(now);
  END IF;
  IF print_after_upload AND NOT print_it THEN
    PERFORM odin.would(jsonb_build_object('action', 'octoprint_upload_file', 'printer_id', now.id, 'server_path', target, 'print_after_upload', true));
    RETURN jsonb_build_object('uploaded', false, 'server_path', target, 'selected', false, 'printing', false, 'dry_run', true, 'printer_id', now.id,
      'detail', format('Safety check - nothing was sent to %s. This would upload ''%s'' and begin printing it on the physical machine. Re-run with confirm=true to actually do it.', now.name, f.name));
  END IF;
  answer := odin._control(now, 'upload', jsonb_build_object('path', target, 'sha256', f.sha256, 'print', print_it, 'select', octoprint_upload_file."select"),
    format('upload ''%s''', f.name), 'octoprint_upload_file', '15 minutes') - 'ok';
  RETURN answer || jsonb_build_object('uploaded', false, 'server_path', target, 'selected', print_it, 'printing', CASE WHEN print_it THEN false END);
END $f$;
COMMENT ON FUNCTION odin.octoprint_upload_file(text, text, boolean, boolean, boolean, bigint) IS 'Sends a G-code file of the farm''s file store (its name, number or SHA-256) to the printer. With print_after_upload it also begins to print, and then needs confirm: true.';

CREATE OR REPLACE FUNCTION odin.octoprint_start_print(path text, printer_id bigint DEFAULT NULL) RETURNS jsonb
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT odin.start_print(octoprint_start_print.path, octoprint_start_print.printer_id);
$f$;
COMMENT ON FUNCTION odin.octoprint_start_print(text, bigint) IS 'Selects a file on the printer and prints it. Previews unless confirm is true. Check first: bed clear, right filament, somebody near.';

CREATE OR REPLACE FUNCTION odin.octoprint_control_job(action text, printer_id bigint DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_variable
DECLARE
  now record;
  wanted text[] := CASE action WHEN 'pause' THEN '{printing}' WHEN 'resume' THEN '{paused}' ELSE '{printing,paused,preparing}' END;
BEGIN
  now := odin._printer_now(odin._one_printer(printer_id));
  IF now.state <> ALL (wanted) THEN
    PERFORM odin.fail('printer_not_ready', format('%s reports %s; it cannot %s', now.name, now.state, action), format('It must be %s.', array_to_string(wanted, ' or ')), jsonb_build_object('printer_id', now.id, 'state', now.state));
  END IF;
  RETURN odin._control(now, CASE action WHEN 'cancel' THEN 'stop' ELSE action END, '{}', format('%s the running print', action), 'octoprint_control_job', '5 minutes') || jsonb_build_object('action', action);
END $f$;
COMMENT ON FUNCTION odin.octoprint_control_job(text, bigint) IS 'Pauses, resumes or cancels the print that is on the printer. A cancelled print cannot go on. Previews unless confirm is true.';

CREATE OR REPLACE FUNCTION odin.octoprint_set_temperature(heater text, target integer, tool_index integer DEFAULT 0, printer_id bigint DEFAULT NULL) RETURNS jsonb
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT odin.set_temperature(octoprint_set_temperature.heater, octoprint_set_temperature.target, octoprint_set_temperature.tool_index, octoprint_set_temperature.printer_id);
$f$;
COMMENT ON FUNCTION odin.octoprint_set_temperature(text, integer, integer, bigint) IS 'Sets a heater''s target in °C; 0 switches it off. Previews unless confirm is true.';

CREATE OR REPLACE FUNCTION odin.octoprint_home(axes text[] DEFAULT NULL, printer_id bigint DEFAULT NULL) RETURNS jsonb
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT odin.home_printer(octoprint_home.axes, octoprint_home.printer_id);
$f$;
COMMENT ON FUNCTION odin.octoprint_home(text[], bigint) IS 'Homes axes: all, or some of x, y, z. Previews unless confirm is true: the machine moves.';

CREATE OR REPLACE FUNCTION odin.octoprint_move(x numeric DEFAULT NULL, y numeric DEFAULT NULL, z numeric DEFAULT NULL, speed numeric DEFAULT NULL, printer_id bigint DEFAULT NULL) RETURNS jsonb
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT odin.move_printer(octoprint_move.x, octoprint_move.y, octoprint_move.z, octoprint_move.speed, octoprint_move.printer_id);
$f$;
COMMENT ON FUNCTION odin.octoprint_move(numeric, numeric, numeric, numeric, bigint) IS 'Jogs the head by so many mm (relative). Previews unless confirm is true: the machine moves.';

GRANT EXECUTE ON FUNCTION odin.octoprint_get_status(bigint), odin.octoprint_list_files(integer, bigint), odin.octoprint_get_job(bigint) TO odin_viewer;
GRANT EXECUTE ON FUNCTION odin.octoprint_connect(text, text, integer, bigint), odin.octoprint_upload_file(text, text, boolean, boolean, boolean, bigint), odin.octoprint_start_print(text, bigint), odin.octoprint_control_job(text, bigint),
  odin.octoprint_set_temperature(text, integer, integer, bigint), odin.octoprint_home(text[], bigint), odin.octoprint_move(numeric, numeric, numeric, numeric, bigint) TO odin_operator;
