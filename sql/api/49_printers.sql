-- Verbs on machines as things one owns: add, change, hold, retire, blackout hours. What a machine does is none of this file's business.

CREATE OR REPLACE FUNCTION odin.create_printer(name text, model text DEFAULT NULL, protocol text DEFAULT 'virtual', address text DEFAULT NULL, slot_count integer DEFAULT 1, group_name text DEFAULT NULL, tags text[] DEFAULT '{}', nickname text DEFAULT NULL, location text DEFAULT NULL,
  bed_x_mm numeric DEFAULT NULL, bed_y_mm numeric DEFAULT NULL, bed_z_mm numeric DEFAULT NULL, nozzle_mm numeric DEFAULT 0.4, nozzle_type text DEFAULT 'brass', plate_surface text DEFAULT NULL, watts numeric DEFAULT NULL, price numeric DEFAULT NULL, life_hours integer DEFAULT NULL,
  camera_url text DEFAULT NULL, machine_type text DEFAULT 'fdm', serial text DEFAULT NULL, notes text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  org bigint := odin._new_in();
  ref odin.reference_printers;
  made bigint;
BEGIN
  -- Size, watts, price and life come from the reference data when the model is known there.
  SELECT * INTO ref FROM odin.reference_printers r WHERE strpos(lower(r.name), lower(nullif(btrim(create_printer.model), ''))) > 0 OR r.slug = lower(btrim(create_printer.model)) ORDER BY r.position LIMIT 1;
  INSERT INTO odin.printers(org_id, name, nickname, model, machine_type, protocol, address, serial, camera_url, location, group_name, tags, slot_count, bed_x_mm, bed_y_mm, bed_z_mm, plate_surface, enclosed, watts, price, life_hours, currency, notes)
  VALUES (org, btrim(create_printer.name), create_printer.nickname, create_printer.model, create_printer.machine_type, create_printer.protocol, create_printer.address, create_printer.serial, create_printer.camera_url, create_printer.location, create_printer.group_name, create_printer.tags,
    create_printer.slot_count, coalesce(create_printer.bed_x_mm, ref.bed_x_mm, 220), coalesce(create_printer.bed_y_mm, ref.bed_y_mm, 220), coalesce(create_printer.bed_z_mm, ref.bed_z_mm, 250), create_printer.plate_surface, coalesce(ref.enclosed, false),
    coalesce(create_printer.watts, ref.watts), coalesce(create_printer.price, ref.price), coalesce(create_printer.life_hours, ref.life_hours), odin._currency(org), create_printer.notes) RETURNING id INTO made;
  IF create_printer.machine_type = 'fdm' THEN
    UPDATE odin.nozzles n SET diameter_mm = create_printer.nozzle_mm, type = create_printer.nozzle_type WHERE n.printer_id = made AND n.tool = 0;
  END IF;
  PERFORM odin.suggest('assign_spool', jsonb_build_object('printer_id', made), 'say what is loaded');
  RETURN odin.get_printer(made) || jsonb_build_object('printer_id', made);
END $f$;
COMMENT ON FUNCTION odin.create_printer IS 'Adds a printer. protocol: octoprint, moonraker, prusalink, bambu, duet, elegoo, or virtual (simulated or run by hand). Bed size, watts and price are looked up when the model is a known one.';

CREATE OR REPLACE FUNCTION odin.update_printer(printer_id bigint, name text DEFAULT NULL, nickname text DEFAULT NULL, model text DEFAULT NULL, protocol text DEFAULT NULL, address text DEFAULT NULL, slot_count integer DEFAULT NULL, group_name text DEFAULT NULL, tags text[] DEFAULT NULL,
  location text DEFAULT NULL, bed_x_mm numeric DEFAULT NULL, bed_y_mm numeric DEFAULT NULL, bed_z_mm numeric DEFAULT NULL, plate_surface text DEFAULT NULL, watts numeric DEFAULT NULL, price numeric DEFAULT NULL, life_hours integer DEFAULT NULL, hour_rate numeric DEFAULT NULL,
  max_nozzle_c numeric DEFAULT NULL, max_bed_c numeric DEFAULT NULL, max_move_mm numeric DEFAULT NULL, max_feed_mm_min numeric DEFAULT NULL, changeover_minutes numeric DEFAULT NULL, auto_dispatch boolean DEFAULT NULL, camera_url text DEFAULT NULL, notes text DEFAULT NULL, archived boolean DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
BEGIN
  PERFORM odin._mine('printer', update_printer.printer_id);
  IF archived AND EXISTS (SELECT 1 FROM odin.runs r WHERE r.printer_id = update_printer.printer_id AND r.status IN ('claimed','starting','printing','paused','unknown')) THEN
    PERFORM odin.fail('printer_busy', format('printer %s has an active run and cannot be retired', update_printer.printer_id));
  END IF;
  UPDATE odin.printers x SET
    name = coalesce(update_printer.name, x.name), nickname = coalesce(update_printer.nickname, x.nickname), model = coalesce(update_printer.model, x.model), protocol = coalesce(update_printer.protocol, x.protocol),
    address = coalesce(update_printer.address, x.address), slot_count = coalesce(update_printer.slot_count, x.slot_count), group_name = coalesce(update_printer.group_name, x.group_name), tags = coalesce(update_printer.tags, x.tags),
    location = coalesce(update_printer.location, x.location), bed_x_mm = coalesce(update_printer.bed_x_mm, x.bed_x_mm), bed_y_mm = coalesce(update_printer.bed_y_mm, x.bed_y_mm), bed_z_mm = coalesce(update_printer.bed_z_mm, x.bed_z_mm),
    plate_surface = coalesce(update_printer.plate_surface, x.plate_surface), watts = coalesce(update_printer.watts, x.watts), price = coalesce(update_printer.price, x.price), life_hours = coalesce(update_printer.life_hours, x.life_hours),
    hour_rate = coalesce(update_printer.hour_rate, x.hour_rate), max_tool_c = coalesce(update_printer.max_nozzle_c, x.max_tool_c), max_bed_c = coalesce(update_printer.max_bed_c, x.max_bed_c), max_move_mm = coalesce(update_printer.max_move_mm, x.max_move_mm),
    max_feed_mm_min = coalesce(update_printer.max_feed_mm_min, x.max_feed_mm_min), changeover_minutes = coalesce(update_printer.changeover_minutes, x.changeover_minutes), auto_dispatch = coalesce(update_printer.auto_dispatch, x.auto_dispatch), camera_url = coalesce(update_printer.camera_url, x.camera_url),
    notes = coalesce(update_printer.notes, x.notes),
    is_active = coalesce(NOT archived, x.is_active)
   WHERE x.id = update_printer.printer_id;
  IF update_printer.auto_dispatch AND odin._setting((SELECT x.org_id FROM odin.printers x WHERE x.id = update_printer.printer_id), 'auto_dispatch', 'false') <> 'true' THEN
    PERFORM odin.note('This org does not let printers start jobs by themselves; an administrator allows it with set_settings, auto_dispatch true.');
  END IF;
  RETURN odin.get_printer(update_printer.printer_id) || jsonb_build_object('printer_id', update_printer.printer_id);
END $f$;
COMMENT ON FUNCTION odin.update_printer IS 'Changes what is known about a printer: name, model, address, group, tags, bed, limits, cost. archived true retires it (its history stays), false brings it back. What you leave out stays.';

CREATE OR REPLACE FUNCTION odin.hold_printer(printer_id bigint, hold boolean DEFAULT true, reason text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
BEGIN
  PERFORM odin._mine('printer', hold_printer.printer_id);
  UPDATE odin.printers x SET is_held = hold_printer.hold, hold_reason = CASE WHEN hold_printer.hold THEN hold_printer.reason END WHERE x.id = hold_printer.printer_id;
  RETURN (SELECT jsonb_build_object('printer_id', x.id, 'name', x.name, 'is_held', x.is_held, 'hold_reason', x.hold_reason) FROM odin.printers x WHERE x.id = hold_printer.printer_id);
END $f$;
COMMENT ON FUNCTION odin.hold_printer(bigint, boolean, text) IS 'Holds a printer: nothing new starts on it (what prints goes on); hold false lets it go again.';

CREATE OR REPLACE FUNCTION odin.list_blackouts() RETURNS TABLE(id bigint, printer_id bigint, days smallint[], from_time time, until_time time, from_at timestamptz, until_at timestamptz, time_zone text, reason text, in_force_now boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT b.id, b.printer_id, b.days, b.from_time, b.until_time, b.from_at, b.until_at, b.time_zone, b.reason, odin._in_blackout(b, now()) FROM odin.blackouts b WHERE b.org_id = ANY (odin._visible_orgs()) AND b.is_active ORDER BY b.id;
$f$;
COMMENT ON FUNCTION odin.list_blackouts() IS 'Lists the hours in which no print may start (one that runs goes on), per printer or for all.';

CREATE OR REPLACE FUNCTION odin.save_blackout(blackout_id bigint DEFAULT NULL, printer_id bigint DEFAULT NULL, from_time time DEFAULT NULL, until_time time DEFAULT NULL, days integer[] DEFAULT NULL, from_at timestamptz DEFAULT NULL, until_at timestamptz DEFAULT NULL, reason text DEFAULT NULL, remove boolean DEFAULT false) RETURNS odin.blackouts
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  b odin.blackouts;
BEGIN
  IF save_blackout.printer_id IS NOT NULL THEN PERFORM odin._mine('printer', save_blackout.printer_id); END IF;
  IF save_blackout.blackout_id IS NULL THEN
    INSERT INTO odin.blackouts(org_id, printer_id, days, from_time, until_time, from_at, until_at, time_zone, reason)
    VALUES (odin._new_in(), save_blackout.printer_id, coalesce(save_blackout.days::smallint[], '{1,2,3,4,5,6,7}'), save_blackout.from_time, save_blackout.until_time, save_blackout.from_at, save_blackout.until_at, (SELECT o.timezone FROM odin.orgs o WHERE o.id = odin.my_org()), save_blackout.reason) RETURNING * INTO b;
  ELSE
    UPDATE odin.blackouts x SET printer_id = coalesce(save_blackout.printer_id, x.printer_id), days = coalesce(save_blackout.days::smallint[], x.days), from_time = coalesce(save_blackout.from_time, x.from_time), until_time = coalesce(save_blackout.until_time, x.until_time),
      from_at = coalesce(save_blackout.from_at, x.from_at), until_at = coalesce(save_blackout.until_at, x.until_at), reason = coalesce(save_blackout.reason, x.reason), is_active = NOT remove WHERE x.id = save_blackout.blackout_id RETURNING * INTO b;
    IF b.id IS NULL THEN PERFORM odin.fail('not_found', format('blackout_id: there is no blackout %s', save_blackout.blackout_id), 'Call list_blackouts.', '{"field":"blackout_id"}'); END IF;
  END IF;
  RETURN b;
END $f$;
COMMENT ON FUNCTION odin.save_blackout IS 'Sets hours in which no print may start: every day from_time to until_time (over midnight too, in the org''s time zone; days 1 = Monday), or once from_at to until_at. For one printer or all. remove true takes one away.';
GRANT EXECUTE ON FUNCTION odin._in_blackout(odin.blackouts, timestamptz), odin.list_blackouts() TO odin_viewer;
GRANT EXECUTE ON FUNCTION odin.create_printer, odin.update_printer, odin.hold_printer(bigint, boolean, text), odin.save_blackout TO odin_operator;
