-- Verbs on filament: library, spools, loading, weighing, using, correcting, reserving. Grams outside, milligrams inside.

CREATE OR REPLACE FUNCTION odin.list_spools(filament_type text DEFAULT NULL, available_only boolean DEFAULT false, low_only boolean DEFAULT false, printer_id bigint DEFAULT NULL, "limit" integer DEFAULT 100, cursor text DEFAULT NULL)
RETURNS SETOF odin.spool_view
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  after_id bigint := coalesce((odin.cursor_decode(list_spools.cursor)->>0)::bigint, 0);
  orgs bigint[] := odin._visible_orgs();
BEGIN
  RETURN QUERY SELECT v.* FROM odin.spool_view v WHERE v.org_id = ANY (orgs) AND v.id > after_id AND v.status <> 'archived'
      AND (list_spools.filament_type IS NULL OR v.filament_type = odin._material(list_spools.filament_type)) AND (NOT available_only OR (v.status = 'active' AND v.available_g > 0 AND v.printer_id IS NULL))
      AND (NOT low_only OR v.is_low) AND (list_spools.printer_id IS NULL OR v.printer_id = list_spools.printer_id)
    ORDER BY v.id LIMIT list_spools."limit";
END $f$;
COMMENT ON FUNCTION odin.list_spools(text, boolean, boolean, bigint, integer, text) IS 'Lists spools with grams left, promised and free, and where they are. available_only keeps those with free grams that sit in no printer; filament_type keeps one material, e.g. PLA.';

CREATE OR REPLACE FUNCTION odin.get_spool(spool_id bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  s jsonb := (SELECT to_jsonb(v) FROM odin.spool_view v WHERE v.id = get_spool.spool_id);
BEGIN
  IF s IS NULL THEN PERFORM odin.fail('spool_not_found', format('spool_id: there is no spool %s', get_spool.spool_id), NULL, '{"field":"spool_id"}'); END IF;
  RETURN s || jsonb_build_object('moves', (SELECT coalesce(jsonb_agg(x.o), '[]') FROM (
    SELECT jsonb_strip_nulls(jsonb_build_object('move_id', m.id, 'at', m.at, 'kind', m.kind, 'grams', round(m.mg / 1000.0, 2), 'reserved_grams', nullif(round(m.reserved_mg / 1000.0, 2), 0), 'job_id', m.job_id, 'run_id', m.run_id,
      'printer_id', m.printer_id, 'slot_number', m.slot_number, 'segment', nullif(m.segment, 0), 'revision', nullif(m.revision, 0), 'void_of', m.void_of, 'basis', m.basis, 'reason', m.reason, 'actor', m.actor)) AS o
      FROM odin.spool_moves m WHERE m.spool_id = get_spool.spool_id ORDER BY m.id DESC LIMIT 50) x));
END $f$;
COMMENT ON FUNCTION odin.get_spool(bigint) IS 'Shows one spool with its last 50 ledger moves; correct a wrong use with correct_usage and its move_id.';

CREATE OR REPLACE FUNCTION odin.list_filaments(material text DEFAULT NULL, search text DEFAULT NULL, "limit" integer DEFAULT 200, cursor text DEFAULT NULL)
RETURNS TABLE(id bigint, brand text, name text, filament_type text, color_name text, color_hex text, cost_per_kg numeric, cost_per_gram numeric, currency text, density numeric, nozzle_min_c smallint, nozzle_max_c smallint, bed_min_c smallint, bed_max_c smallint,
  abrasive boolean, hygroscopic boolean, is_custom boolean, spools bigint, remaining_grams numeric)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  after_id bigint := coalesce((odin.cursor_decode(list_filaments.cursor)->>0)::bigint, 0);
  orgs bigint[] := odin._visible_orgs();
BEGIN
  RETURN QUERY SELECT f.id, f.brand, f.name, f.material, f.color_name, f.color_hex, f.cost_per_kg, round(f.cost_per_kg / 1000, 5), f.currency, f.density, f.nozzle_min_c, f.nozzle_max_c, f.bed_min_c, f.bed_max_c,
      f.abrasive, f.hygroscopic, f.is_custom, s.n, s.g
    FROM odin.filaments f, LATERAL (SELECT count(*) AS n, round(coalesce(sum(b.balance_mg), 0) / 1000.0, 1) AS g FROM odin.spools sp JOIN odin.spool_balances b ON b.spool_id = sp.id WHERE sp.filament_id = f.id AND sp.status = 'active') s
    WHERE f.org_id = ANY (orgs) AND f.is_active AND f.id > after_id AND (list_filaments.material IS NULL OR f.material = odin._material(list_filaments.material))
      AND (list_filaments.search IS NULL OR strpos(lower(concat_ws(' ', f.brand, f.name, f.material, f.color_name)), lower(list_filaments.search)) > 0)
    ORDER BY f.id LIMIT list_filaments."limit";
END $f$;
COMMENT ON FUNCTION odin.list_filaments(text, text, integer, text) IS 'Lists the filament library: brand, material, colour, cost and temperatures, with how many spools and grams of each there are.';

CREATE OR REPLACE FUNCTION odin.save_filament(filament_id bigint DEFAULT NULL, brand text DEFAULT NULL, name text DEFAULT NULL, material text DEFAULT NULL, color_name text DEFAULT NULL, color_hex text DEFAULT NULL, cost_per_kg numeric DEFAULT NULL,
  density numeric DEFAULT NULL, nozzle_min_c integer DEFAULT NULL, nozzle_max_c integer DEFAULT NULL, bed_min_c integer DEFAULT NULL, bed_max_c integer DEFAULT NULL, abrasive boolean DEFAULT NULL, archived boolean DEFAULT NULL) RETURNS odin.filaments
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  f odin.filaments;
  kind text := odin._material(save_filament.material);
BEGIN
  IF filament_id IS NULL THEN
    PERFORM odin._not_null(save_filament.name, 'name'), odin._not_null(save_filament.material, 'material');
    INSERT INTO odin.filaments(org_id, brand, name, material, color_name, color_hex, cost_per_kg, currency, density, nozzle_min_c, nozzle_max_c, bed_min_c, bed_max_c, abrasive, hygroscopic)
    SELECT odin._new_in(), coalesce(save_filament.brand, 'Generic'), save_filament.name, kind, save_filament.color_name, odin._color(save_filament.color_hex), save_filament.cost_per_kg, odin._currency(odin.my_org()),
      coalesce(save_filament.density, r.density, 1.24), coalesce(save_filament.nozzle_min_c, r.nozzle_min_c), coalesce(save_filament.nozzle_max_c, r.nozzle_max_c), coalesce(save_filament.bed_min_c, r.bed_min_c), coalesce(save_filament.bed_max_c, r.bed_max_c),
      coalesce(save_filament.abrasive, kind ~ '(_CF|_GF)$'), kind IN ('PA', 'PC', 'PVA', 'TPU', 'PETG', 'NYLON_CF', 'NYLON_GF', 'PC_CF', 'PPS', 'PPS_CF')
      FROM (SELECT 1) one LEFT JOIN odin.reference_filaments r ON upper(r.slug) = CASE kind WHEN 'PA' THEN 'NYLON' WHEN 'PLA_PLUS' THEN 'PLA-PLUS' ELSE kind END
    RETURNING * INTO f;
  ELSE
    PERFORM odin._mine('filament', save_filament.filament_id);
    UPDATE odin.filaments x SET brand = coalesce(save_filament.brand, x.brand), name = coalesce(save_filament.name, x.name), material = coalesce(kind, x.material), color_name = coalesce(save_filament.color_name, x.color_name),
      color_hex = coalesce(odin._color(save_filament.color_hex), x.color_hex), cost_per_kg = coalesce(save_filament.cost_per_kg, x.cost_per_kg), density = coalesce(save_filament.density, x.density),
      nozzle_min_c = coalesce(save_filament.nozzle_min_c, x.nozzle_min_c), nozzle_max_c = coalesce(save_filament.nozzle_max_c, x.nozzle_max_c), bed_min_c = coalesce(save_filament.bed_min_c, x.bed_min_c), bed_max_c = coalesce(save_filament.bed_max_c, x.bed_max_c),
      abrasive = coalesce(save_filament.abrasive, x.abrasive), is_active = coalesce(NOT archived, x.is_active) WHERE x.id = save_filament.filament_id RETURNING * INTO f;
  END IF;
  RETURN f;
END $f$;
COMMENT ON FUNCTION odin.save_filament IS 'Adds a filament to the library, or changes one when filament_id is given. material is the type in capitals, e.g. PLA, PETG, PA_CF. What you leave out keeps its value or gets the usual one of the material.';

CREATE OR REPLACE FUNCTION odin.add_spool(filament_id bigint, grams numeric DEFAULT 1000, tare_grams numeric DEFAULT 250, code text DEFAULT NULL, price numeric DEFAULT NULL, vendor text DEFAULT NULL, lot_number text DEFAULT NULL, storage_location text DEFAULT NULL,
  low_stock_grams numeric DEFAULT 50, rfid_tag text DEFAULT NULL, purchased_on date DEFAULT NULL, notes text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  org bigint := odin._mine('filament', add_spool.filament_id);
  made bigint;
BEGIN
  INSERT INTO odin.spools(org_id, filament_id, code, initial_mg, tare_mg, low_stock_mg, price, currency, vendor, lot_number, storage_location, rfid_tag, purchased_on, notes)
  VALUES (org, add_spool.filament_id, upper(add_spool.code), round(grams * 1000), round(tare_grams * 1000), round(low_stock_grams * 1000), add_spool.price, odin._currency(org), add_spool.vendor, add_spool.lot_number, add_spool.storage_location,
    add_spool.rfid_tag, add_spool.purchased_on, add_spool.notes) RETURNING id INTO made;
  RETURN (SELECT to_jsonb(v) FROM odin.spool_view v WHERE v.id = made) || jsonb_build_object('spool_id', made);
END $f$;
COMMENT ON FUNCTION odin.add_spool IS 'Adds a spool of a filament, full (grams) or partly used. It gets a label code unless you give one. Load it with assign_spool.';

CREATE OR REPLACE FUNCTION odin.update_spool(spool_id bigint, storage_location text DEFAULT NULL, low_stock_grams numeric DEFAULT NULL, price numeric DEFAULT NULL, vendor text DEFAULT NULL, lot_number text DEFAULT NULL, notes text DEFAULT NULL, rfid_tag text DEFAULT NULL,
  dried boolean DEFAULT false, archived boolean DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
BEGIN
  PERFORM odin._mine('spool', update_spool.spool_id);
  IF archived AND EXISTS (SELECT 1 FROM odin.printer_slots s WHERE s.spool_id = update_spool.spool_id) THEN
    PERFORM odin.fail('spool_in_use', format('spool %s is loaded', update_spool.spool_id), 'Call unload_spool first.');
  END IF;
  UPDATE odin.spools x SET storage_location = coalesce(update_spool.storage_location, x.storage_location), low_stock_mg = coalesce(round(low_stock_grams * 1000), x.low_stock_mg), price = coalesce(update_spool.price, x.price),
    vendor = coalesce(update_spool.vendor, x.vendor), lot_number = coalesce(update_spool.lot_number, x.lot_number), notes = coalesce(update_spool.notes, x.notes), rfid_tag = coalesce(update_spool.rfid_tag, x.rfid_tag),
    last_dried_at = CASE WHEN dried THEN now() ELSE x.last_dried_at END,
    status = CASE WHEN archived THEN 'archived' WHEN NOT archived AND x.status = 'archived' THEN 'active' ELSE x.status END WHERE x.id = update_spool.spool_id;
  RETURN (SELECT to_jsonb(v) FROM odin.spool_view v WHERE v.id = update_spool.spool_id) || jsonb_build_object('spool_id', update_spool.spool_id);
END $f$;
COMMENT ON FUNCTION odin.update_spool IS 'Changes what is known about a spool: place, threshold, price, notes; dried true records a drying; archived true takes it out of the lists.';

CREATE OR REPLACE FUNCTION odin.assign_spool(spool_id bigint, printer_id bigint, ams_slot integer DEFAULT NULL, slot_number integer DEFAULT NULL, confirmed boolean DEFAULT true) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  org bigint := odin._mine('spool', assign_spool.spool_id);
  p odin.printers;
  s record;
  target integer;
  previous bigint;
  moved_from record;
  command bigint;
BEGIN
  PERFORM odin._mine('printer', assign_spool.printer_id);
  SELECT * INTO p FROM odin.printers x WHERE x.id = assign_spool.printer_id;
  IF p.org_id <> org THEN PERFORM odin.fail('printer_not_found', format('printer_id: printer %s is of another org than spool %s', p.id, assign_spool.spool_id), NULL, '{"field":"printer_id"}'); END IF;
  IF assign_spool.ams_slot IS NOT NULL AND assign_spool.slot_number IS NOT NULL AND assign_spool.slot_number <> assign_spool.ams_slot + 1 THEN
    PERFORM odin.fail('validation_failed', format('slot_number: ams_slot %s is slot %s; slot_number says %s', ams_slot, ams_slot + 1, assign_spool.slot_number), 'ams_slot counts from 0, slot_number from 1. Give one of them.', '{"field":"slot_number"}');
  END IF;
  -- Without a slot a spool that sits in this printer already stays where it is.
  target := coalesce(assign_spool.slot_number, assign_spool.ams_slot + 1, (SELECT x.slot_number FROM odin.printer_slots x WHERE x.spool_id = assign_spool.spool_id AND x.printer_id = assign_spool.printer_id));
  IF target IS NULL THEN
    SELECT min(x.slot_number) INTO target FROM odin.printer_slots x WHERE x.printer_id = p.id AND (x.spool_id IS NULL OR p.slot_count = 1);
    IF target IS NULL THEN
      PERFORM odin.fail('validation_failed', format('slot_number: all %s slots of %s are taken; say which one', p.slot_count, p.name), NULL, '{"field":"slot_number"}');
    END IF;
  ELSIF target > p.slot_count AND target < 254 THEN
    PERFORM odin.fail('validation_failed', format('slot_number: %s has slots 1 to %s (ams_slot 0 to %s); external trays are 254 and up', p.name, p.slot_count, p.slot_count - 1), NULL, jsonb_build_object('field', CASE WHEN ams_slot IS NULL THEN 'slot_number' ELSE 'ams_slot' END));
  END IF;
  SELECT x.status, x.code, f.material, f.color_hex, f.nozzle_min_c, f.nozzle_max_c INTO s FROM odin.spools x JOIN odin.filaments f ON f.id = x.filament_id WHERE x.id = assign_spool.spool_id;
  IF s.status <> 'active' THEN
    PERFORM odin.fail('invalid_state_transition', format('spool %s is %s and cannot be loaded', s.code, s.status));
  END IF;
  IF EXISTS (SELECT 1 FROM odin.run_slots rs JOIN odin.runs r ON r.id = rs.run_id WHERE rs.spool_id = assign_spool.spool_id AND r.status IN ('claimed','starting','printing','paused','unknown') AND rs.printer_id <> p.id) THEN
    PERFORM odin.fail('spool_in_use', format('spool %s feeds an active run on another printer', s.code));
  END IF;
  PERFORM 1 FROM odin.printer_slots x WHERE x.spool_id = assign_spool.spool_id OR (x.printer_id = p.id AND x.slot_number = target) ORDER BY x.printer_id, x.slot_number FOR UPDATE;
  SELECT x.printer_id, x.slot_number INTO moved_from FROM odin.printer_slots x WHERE x.spool_id = assign_spool.spool_id AND NOT (x.printer_id = p.id AND x.slot_number = target);
  UPDATE odin.printer_slots x SET spool_id = NULL, loaded_at = NULL, confirmed = false WHERE x.printer_id = moved_from.printer_id AND x.slot_number = moved_from.slot_number;
  SELECT x.spool_id INTO previous FROM odin.printer_slots x WHERE x.printer_id = p.id AND x.slot_number = target;
  INSERT INTO odin.printer_slots AS x (printer_id, slot_number, org_id, spool_id, loaded_at, confirmed) VALUES (p.id, target, p.org_id, assign_spool.spool_id, now(), assign_spool.confirmed)
  ON CONFLICT (printer_id, slot_number) DO UPDATE SET spool_id = excluded.spool_id, loaded_at = excluded.loaded_at, confirmed = excluded.confirmed;
  PERFORM odin.would(jsonb_build_object('action', 'assign_spool', 'printer_id', p.id, 'printer_name', p.name, 'slot_number', target, 'new_spool_id', assign_spool.spool_id, 'previous_spool_id', previous, 'spool_filament_type', s.material));
  PERFORM odin.suggest('get_printer', jsonb_build_object('id', p.id), 'see its slots');
  -- A machine that keeps its own list of spools is told, and what it then reports is the answer.
  IF odin._protocol_can(p.protocol, 'set_slot') AND EXISTS (SELECT 1 FROM odin.printer_state x WHERE x.printer_id = p.id AND x.state NOT IN ('unknown', 'offline')) THEN
    command := odin._command(p.id, 'set_slot', NULL, jsonb_build_object('slot_number', target, 'material', s.material, 'color', coalesce(ltrim(s.color_hex, '#'), 'FFFFFF'), 'low_c', coalesce(s.nozzle_min_c, 190), 'high_c', coalesce(s.nozzle_max_c, 240)), '1 minute');
  END IF;
  RETURN jsonb_build_object('success', true, 'printer_id', p.id, 'slot_number', target, 'spool_id', assign_spool.spool_id, 'previous_spool_id', nullif(previous, assign_spool.spool_id), 'moved_from_printer_id', moved_from.printer_id, 'moved_from_slot', moved_from.slot_number)
    || CASE WHEN command IS NULL THEN '{}' ELSE jsonb_build_object('command_id', command, 'command_state', 'queued', 'confirmed', false) END;
END $f$;
COMMENT ON FUNCTION odin.assign_spool(bigint, bigint, integer, integer, boolean) IS 'Loads a spool into a slot of a printer; a spool that was there comes out, and if this one sat elsewhere it leaves that slot. ams_slot counts from 0, slot_number from 1. Without a slot the first free one is taken. A Bambu Lab printer is told what is in its AMS; confirmed says that it shows it.';

CREATE OR REPLACE FUNCTION odin.unload_spool(spool_id bigint, storage_location text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  s record;
BEGIN
  PERFORM odin._mine('spool', unload_spool.spool_id);
  SELECT x.printer_id, x.slot_number INTO s FROM odin.printer_slots x WHERE x.spool_id = unload_spool.spool_id FOR UPDATE;
  IF s.printer_id IS NULL THEN
    PERFORM odin.fail('invalid_state_transition', format('spool %s is not loaded', unload_spool.spool_id));
  ELSIF EXISTS (SELECT 1 FROM odin.run_slots rs JOIN odin.runs r ON r.id = rs.run_id WHERE rs.spool_id = unload_spool.spool_id AND r.status IN ('claimed','starting','printing')) THEN
    PERFORM odin.fail('spool_in_use', format('spool %s feeds an active run', unload_spool.spool_id), 'Pause or end the run first.');
  END IF;
  UPDATE odin.printer_slots x SET spool_id = NULL, loaded_at = NULL, confirmed = false WHERE x.spool_id = unload_spool.spool_id;
  UPDATE odin.spools x SET storage_location = coalesce(unload_spool.storage_location, x.storage_location) WHERE x.id = unload_spool.spool_id AND unload_spool.storage_location IS NOT NULL;
  RETURN jsonb_build_object('success', true, 'spool_id', unload_spool.spool_id, 'printer_id', s.printer_id, 'slot_number', s.slot_number);
END $f$;
COMMENT ON FUNCTION odin.unload_spool(bigint, text) IS 'Takes a spool out of its slot, back to storage.';

CREATE OR REPLACE FUNCTION odin._spool_answer(spool bigint) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT jsonb_build_object('success', true, 'spool_id', sp.id, 'remaining_weight_g', round(b.balance_mg / 1000.0, 2), 'reserved_g', round(b.reserved_mg / 1000.0, 2),
    'percent_remaining', CASE WHEN sp.initial_mg > 0 THEN round(b.balance_mg * 100.0 / sp.initial_mg, 1) END, 'status', sp.status)
    FROM odin.spools sp JOIN odin.spool_balances b ON b.spool_id = sp.id WHERE sp.id = spool;
$f$;

CREATE OR REPLACE FUNCTION odin.consume_spool(spool_id bigint, grams numeric, job_id bigint DEFAULT NULL, reason text DEFAULT NULL, purge boolean DEFAULT false) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  org bigint := odin._mine('spool', consume_spool.spool_id);
  b odin.spool_balances;
  mg_used bigint := round(consume_spool.grams * 1000);
BEGIN
  IF consume_spool.job_id IS NOT NULL THEN PERFORM odin._mine('job', consume_spool.job_id); END IF;
  IF mg_used < 1 THEN PERFORM odin.fail('validation_failed', 'grams: at least 0.001', NULL, '{"field":"grams"}'); END IF;
  SELECT * INTO b FROM odin.spool_balances x WHERE x.spool_id = consume_spool.spool_id FOR UPDATE;
  IF mg_used > b.balance_mg THEN
    PERFORM odin.fail('spool_short', format('grams: %s g were asked for, the spool holds %s g', trim_scale(round(mg_used / 1000.0, 3)), trim_scale(round(b.balance_mg / 1000.0, 3))), 'If it really held more, weigh it first with weigh_spool.',
      jsonb_build_object('field', 'grams', 'remaining_grams', trim_scale(round(b.balance_mg / 1000.0, 3))));
  END IF;
  INSERT INTO odin.spool_moves(org_id, spool_id, kind, mg, job_id, basis, reason) VALUES (org, consume_spool.spool_id, CASE WHEN purge THEN 'purge' ELSE 'consume' END, -mg_used, consume_spool.job_id, 'person', consume_spool.reason);
  PERFORM odin.would(jsonb_build_object('action', 'consume_spool', 'grams_consumed', trim_scale(round(mg_used / 1000.0, 3)), 'current_remaining_g', round(b.balance_mg / 1000.0, 2), 'new_remaining_g', round((b.balance_mg - mg_used) / 1000.0, 2),
    'would_deplete_to_empty', b.balance_mg = mg_used, 'would_insert_usage_row', true, 'job_id', consume_spool.job_id, 'spool_id', consume_spool.spool_id, 'purge', purge, 'reason', consume_spool.reason));
  RETURN odin._spool_answer(consume_spool.spool_id);
END $f$;
COMMENT ON FUNCTION odin.consume_spool(bigint, numeric, bigint, text, boolean) IS 'Books grams used from a spool by hand. Prints book their own filament: use this only for what the farm did not print. Refused when the spool holds less.';

CREATE OR REPLACE FUNCTION odin.weigh_spool(spool_id bigint, gross_grams numeric, tare_grams numeric DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  org bigint := odin._mine('spool', weigh_spool.spool_id);
  b odin.spool_balances;
  net bigint;
BEGIN
  IF tare_grams IS NOT NULL THEN
    UPDATE odin.spools x SET tare_mg = round(weigh_spool.tare_grams * 1000) WHERE x.id = weigh_spool.spool_id;
  END IF;
  SELECT * INTO b FROM odin.spool_balances x WHERE x.spool_id = weigh_spool.spool_id FOR UPDATE;
  net := round(gross_grams * 1000) - (SELECT x.tare_mg FROM odin.spools x WHERE x.id = weigh_spool.spool_id);
  IF net < 0 THEN
    PERFORM odin.fail('validation_failed', format('gross_grams: less than the empty reel (%s g)', (SELECT trim_scale(round(x.tare_mg / 1000.0, 3)) FROM odin.spools x WHERE x.id = weigh_spool.spool_id)), 'Correct tare_grams, or weigh again.', '{"field":"gross_grams"}');
  END IF;
  INSERT INTO odin.spool_moves(org_id, spool_id, kind, mg, basis, reason) VALUES (org, weigh_spool.spool_id, 'adjust', net - b.balance_mg, 'scale', format('weighed %s g', trim_scale(gross_grams)));
  PERFORM odin.would(jsonb_build_object('action', 'weigh_spool', 'spool_id', weigh_spool.spool_id, 'current_remaining_g', round(b.balance_mg / 1000.0, 2), 'new_remaining_g', round(net / 1000.0, 2)));
  RETURN odin._spool_answer(weigh_spool.spool_id) || jsonb_build_object('difference_grams', round((net - b.balance_mg) / 1000.0, 2));
END $f$;
COMMENT ON FUNCTION odin.weigh_spool(bigint, numeric, numeric) IS 'Records what the scale says (reel included): the difference to the ledger is booked, so the balance is right again. tare_grams sets the weight of the empty reel.';

CREATE OR REPLACE FUNCTION odin.correct_usage(move_id bigint, grams numeric DEFAULT NULL, spool_id bigint DEFAULT NULL, reason text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  m odin.spool_moves;
  target bigint;
  mg_now bigint;
  made bigint;
BEGIN
  SELECT * INTO m FROM odin.spool_moves x WHERE x.id = correct_usage.move_id;
  IF m.id IS NULL OR NOT odin._may(m.org_id, 'odin_viewer') THEN
    PERFORM odin.fail('not_found', format('move_id: there is no move %s', correct_usage.move_id), 'get_spool shows the moves of a spool.', '{"field":"move_id"}');
  END IF;
  PERFORM odin._mine('spool', m.spool_id);
  IF m.kind NOT IN ('consume', 'purge') OR EXISTS (SELECT 1 FROM odin.spool_moves v WHERE v.void_of = m.id) THEN
    PERFORM odin.fail('invalid_state_transition', format('move %s is a %s%s; only a use that was not corrected yet can be corrected', m.id, m.kind, CASE WHEN m.kind IN ('consume', 'purge') THEN ' corrected before' ELSE '' END));
  ELSIF correct_usage.grams IS NULL AND correct_usage.spool_id IS NULL THEN
    PERFORM odin.fail('validation_failed', 'grams: give the right grams, the right spool_id, or both', NULL, '{"field":"grams"}');
  END IF;
  target := coalesce(correct_usage.spool_id, m.spool_id);
  IF odin._mine('spool', target, 'spool_id') <> m.org_id THEN PERFORM odin.fail('spool_not_found', format('spool_id: there is no spool %s', target)); END IF;
  mg_now := coalesce(round(correct_usage.grams * 1000), -m.mg);
  PERFORM 1 FROM odin.spool_balances b WHERE b.spool_id IN (m.spool_id, target) ORDER BY b.spool_id FOR UPDATE;
  INSERT INTO odin.spool_moves(org_id, spool_id, kind, void_of, job_id, run_id, printer_id, slot_number, segment, reason) VALUES (m.org_id, m.spool_id, 'void', m.id, m.job_id, m.run_id, m.printer_id, m.slot_number, m.segment, correct_usage.reason);
  IF mg_now > 0 THEN
    made := odin._consume(target, mg_now, 0, m.job_id, m.run_id, m.printer_id, m.slot_number, m.segment, m.revision + 1, 'person', coalesce(correct_usage.reason, format('corrects move %s', m.id)));
  END IF;
  IF m.run_id IS NOT NULL THEN
    UPDATE odin.runs x SET used_mg = (SELECT coalesce(-sum(u.mg), 0) FROM odin.spool_moves u WHERE u.run_id = m.run_id AND u.kind IN ('consume', 'void')) WHERE x.id = m.run_id;
    PERFORM odin._run_cost(m.run_id);
  END IF;
  RETURN odin._spool_answer(target) || jsonb_build_object('voided_move_id', m.id, 'new_move_id', made, 'grams_before', round(-m.mg / 1000.0, 2), 'grams_now', round(mg_now / 1000.0, 2), 'spool_before', m.spool_id);
END $f$;
COMMENT ON FUNCTION odin.correct_usage(bigint, numeric, bigint, text) IS 'Corrects a past use: other grams, another spool, or both. The old move stays visible and is voided, a new one is written, and the cost of the run follows. get_spool shows move ids.';

CREATE OR REPLACE FUNCTION odin.reserve_spool(spool_id bigint, job_id bigint, grams numeric DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  org bigint := odin._mine('spool', reserve_spool.spool_id);
  j odin.jobs;
  b odin.spool_balances;
  has bigint;
  wanted bigint;
BEGIN
  PERFORM odin._mine('job', reserve_spool.job_id);
  j := odin._waiting_job(reserve_spool.job_id, '{submitted,pending,scheduled}', 'given filament', NULL);
  IF j.org_id <> org THEN PERFORM odin.fail('job_not_found', format('job_id: job %s is of another org', j.id)); END IF;
  SELECT * INTO b FROM odin.spool_balances x WHERE x.spool_id = reserve_spool.spool_id FOR UPDATE;
  has := odin._reserved_for_job(reserve_spool.spool_id, j.id);
  wanted := round(coalesce(reserve_spool.grams * 1000, j.estimated_mg));
  IF wanted > b.balance_mg - b.reserved_mg + has THEN
    PERFORM odin.fail('spool_short', format('grams: %s g were asked for, %s g of the spool are free', round(wanted / 1000.0, 2), round((b.balance_mg - b.reserved_mg + has) / 1000.0, 2)), NULL, '{"field":"grams"}');
  END IF;
  IF wanted <> has THEN
    INSERT INTO odin.spool_moves(org_id, spool_id, kind, reserved_mg, job_id) VALUES (org, reserve_spool.spool_id, CASE WHEN wanted > has THEN 'reserve' ELSE 'release' END, wanted - has, j.id);
  END IF;
  RETURN odin._spool_answer(reserve_spool.spool_id) || jsonb_build_object('job_id', j.id, 'reserved_for_job_g', round(wanted / 1000.0, 2));
END $f$;
COMMENT ON FUNCTION odin.reserve_spool(bigint, bigint, numeric) IS 'Promises grams of a spool to a waiting job, so that no other job takes them; without grams, what the job is estimated to need; 0 lets them go.';
GRANT EXECUTE ON FUNCTION odin.list_spools(text, boolean, boolean, bigint, integer, text), odin.get_spool(bigint), odin.list_filaments(text, text, integer, text) TO odin_viewer;
GRANT EXECUTE ON FUNCTION odin.save_filament, odin.add_spool, odin.update_spool, odin.assign_spool(bigint, bigint, integer, integer, boolean), odin.unload_spool(bigint, text), odin.consume_spool(bigint, numeric, bigint, text, boolean),
  odin.weigh_spool(bigint, numeric, numeric), odin.correct_usage(bigint, numeric, bigint, text), odin.reserve_spool(bigint, bigint, numeric) TO odin_operator;
