-- What some machines can do besides: light, fan, speed, leaving objects out. The same rules as for every direct command: preview unless confirmed,
-- checked against what the printer last reported, and never a word about success before the printer has accepted it.

-- A setting that may be changed whenever the printer answers, also in the middle of a print. Its arguments stand in the answer too.
CREATE OR REPLACE FUNCTION odin._set_machine(printer_id bigint, verb text, arguments jsonb, words text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_variable
DECLARE
  now record;
BEGIN
  now := odin._printer_now(odin._one_printer(printer_id));
  PERFORM odin._needs_answer(now);
  RETURN odin._control(now, verb, arguments, words, verb) || arguments;
END $f$;

CREATE OR REPLACE FUNCTION odin.set_light("on" boolean, printer_id bigint DEFAULT NULL) RETURNS jsonb
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT odin._set_machine(set_light.printer_id, 'set_light', jsonb_build_object('on', set_light."on"), CASE WHEN set_light."on" THEN 'switch the light on' ELSE 'switch the light off' END);
$f$;
COMMENT ON FUNCTION odin.set_light(boolean, bigint) IS 'Switches the light in a printer''s chamber on or off. Bambu Lab printers have one that the network can reach. Previews unless confirm is true.';

CREATE OR REPLACE FUNCTION odin.set_fan(percent numeric, printer_id bigint DEFAULT NULL) RETURNS jsonb
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT odin._set_machine(set_fan.printer_id, 'set_fan', jsonb_build_object('percent', set_fan.percent), format('set the part fan to %s %%', trim_scale(set_fan.percent)));
$f$;
COMMENT ON FUNCTION odin.set_fan(numeric, bigint) IS 'Sets the part cooling fan in percent, also while printing (the file may set it again). Previews unless confirm is true.';

CREATE OR REPLACE FUNCTION odin.set_speed(percent numeric, printer_id bigint DEFAULT NULL) RETURNS jsonb
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT odin._set_machine(set_speed.printer_id, 'set_speed', jsonb_build_object('percent', set_speed.percent), format('print at %s %% of the speed the file was sliced for', trim_scale(set_speed.percent)));
$f$;
COMMENT ON FUNCTION odin.set_speed(numeric, bigint) IS 'Sets the print speed in percent of what the file was sliced for. Bambu Lab printers know 50, 100, 124 and 166: the nearest is taken. Previews unless confirm is true.';

CREATE OR REPLACE FUNCTION odin.skip_objects(objects text[], printer_id bigint DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_variable
DECLARE
  now record;
  clean text[] := ARRAY(SELECT DISTINCT btrim(o) FROM unnest(objects) o WHERE btrim(o) <> '' ORDER BY 1);
BEGIN
  IF cardinality(clean) = 0 OR EXISTS (SELECT 1 FROM unnest(clean) o WHERE o !~ '^[A-Za-z0-9_.-]{1,100}$') THEN
    PERFORM odin.fail('validation_failed', 'objects: names or numbers as the sliced file has them: letters, digits, _ . -', NULL, '{"field":"objects"}');
  END IF;
  now := odin._printer_now(odin._one_printer(printer_id));
  PERFORM odin._needs_answer(now);
  IF now.state NOT IN ('printing', 'paused') THEN
    PERFORM odin.fail('printer_not_ready', format('%s reports %s; there is no print to leave anything out of', now.name, now.state), NULL, jsonb_build_object('printer_id', now.id, 'state', now.state));
  END IF;
  RETURN odin._control(now, 'skip_objects', jsonb_build_object('objects', to_jsonb(clean)), format('leave out of the running print: %s; they cannot be taken back in', array_to_string(clean, ', ')), 'skip_objects') || jsonb_build_object('skipped', to_jsonb(clean));
END $f$;
COMMENT ON FUNCTION odin.skip_objects(text[], bigint) IS 'Leaves objects out of the running print, for good: one that came off the bed, say. Names as sliced with Klipper, numbers with OctoPrint, Duet and Bambu Lab. Previews unless confirm is true.';

GRANT EXECUTE ON FUNCTION odin.set_light(boolean, bigint), odin.set_fan(numeric, bigint), odin.set_speed(numeric, bigint), odin.skip_objects(text[], bigint) TO odin_operator;
