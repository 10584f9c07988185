-- What the farm's tests share: people, a small farm made through the tools, and assertions that print "ok ..." or "NOT OK ...".
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
DO $d$
DECLARE
  r record;
BEGIN
  FOR r IN SELECT * FROM (VALUES ('ft_viewer', 'odin_viewer'), ('ft_operator', 'odin_operator'), ('ft_other', 'odin_operator'), ('ft_admin', 'odin_admin'), ('ft_customer', 'odin_customer')) v(name, grp) LOOP
    IF to_regrole(r.name) IS NULL THEN EXECUTE format('CREATE ROLE %I LOGIN', r.name); END IF;
    EXECUTE format('GRANT %I TO %I', r.grp, r.name);
  END LOOP;
END $d$;
INSERT INTO odin.orgs(name) VALUES ('Test Farm'), ('Next Door');
CREATE SCHEMA t;
CREATE TABLE t.ids(org bigint, other bigint);
INSERT INTO t.ids SELECT (SELECT id FROM odin.orgs WHERE name = 'Test Farm'), (SELECT id FROM odin.orgs WHERE name = 'Next Door');
SELECT odin.add_member('ft_viewer', org), odin.add_member('ft_operator', org), odin.add_member('ft_admin', org), odin.add_member('ft_other', other) FROM t.ids \g /dev/null

CREATE FUNCTION t.ok(condition boolean, label text) RETURNS text LANGUAGE sql AS $f$ SELECT CASE WHEN condition THEN 'ok      ' ELSE 'NOT OK  ' END || label $f$;
CREATE FUNCTION t.is(got jsonb, want jsonb, label text) RETURNS text LANGUAGE sql AS $f$
  SELECT CASE WHEN got IS NOT DISTINCT FROM want THEN 'ok      ' || label ELSE format('NOT OK  %s: got %s, want %s', label, left(got::text, 300), left(want::text, 300)) END $f$;
-- One call as one of the people.
CREATE FUNCTION t.as(who text, tool text, args jsonb DEFAULT '{}', options jsonb DEFAULT '{}') RETURNS jsonb LANGUAGE plpgsql AS $f$
DECLARE
  answer jsonb;
BEGIN
  PERFORM set_config('role', 'ft_' || who, true);
  answer := odin.call(tool, args, options);
  PERFORM set_config('role', 'none', true);
  RETURN answer;
END $f$;
CREATE FUNCTION t.op(tool text, args jsonb DEFAULT '{}', options jsonb DEFAULT '{}') RETURNS jsonb LANGUAGE sql AS $f$ SELECT t.as('operator', tool, args, options) $f$;
-- What the sidecar would report of a printer.
CREATE FUNCTION t.says(printer bigint, said text, progress real DEFAULT NULL) RETURNS void LANGUAGE sql AS $f$
  UPDATE odin.printer_state SET state = said, raw_state = said, reported_at = now(), progress_pct = progress WHERE printer_id = printer $f$;

-- Two filaments, four printers, six spools, three models, a product: ids from 1 in a fresh database.
SELECT t.op('save_filament', '{"name":"Black","brand":"Acme","material":"PLA","color_hex":"#000000","cost_per_kg":20}') \g /dev/null
SELECT t.op('save_filament', '{"name":"Red","brand":"Bolt","material":"PLA","color_hex":"#FF0000","cost_per_kg":24}') \g /dev/null
SELECT t.op('save_filament', '{"name":"Clear","brand":"Acme","material":"PETG","color_hex":"#EEEEEE","cost_per_kg":30}') \g /dev/null
SELECT t.op('create_printer', '{"name":"P1","model":"Prusa MK4S","group_name":"prusa","tags":["pla"]}') \g /dev/null
SELECT t.op('create_printer', '{"name":"P2","model":"Bambu Lab X1 Carbon","slot_count":4,"group_name":"bambu","tags":["pla","petg"]}') \g /dev/null
SELECT t.op('create_printer', '{"name":"P3","model":"Prusa MINI+","group_name":"prusa"}') \g /dev/null
SELECT t.op('create_printer', '{"name":"P4","model":"Voron 2.4","nozzle_mm":0.6,"group_name":"voron"}') \g /dev/null
SELECT t.op('add_spool', jsonb_build_object('filament_id', f, 'code', 'S-00' || n)) FROM (VALUES (1, 1), (2, 2), (3, 3), (4, 1), (5, 2), (6, 1)) v(n, f) \g /dev/null
SELECT t.op('assign_spool', '{"spool_id":1,"printer_id":1}'), t.op('assign_spool', '{"spool_id":2,"printer_id":2,"ams_slot":0}'), t.op('assign_spool', '{"spool_id":3,"printer_id":2,"ams_slot":1}'), t.op('assign_spool', '{"spool_id":4,"printer_id":4}') \g /dev/null
SELECT t.op('create_model', '{"name":"Bracket","sku":"BRK","print_hours":2,"pieces_per_plate":4,"material":"PLA","grams":80,"color_hex":"#000000"}') \g /dev/null
SELECT t.op('create_model', '{"name":"Lid","sku":"LID","print_hours":1,"material":"PLA","grams":30}') \g /dev/null
SELECT t.op('create_model', '{"name":"Vase","print_hours":3,"material":"PETG","grams":120}') \g /dev/null
SELECT t.op('save_consumable', '{"name":"Screw","cost_per_unit":0.05,"min_stock":10}'), t.op('adjust_consumable', '{"consumable_id":1,"kind":"restock","quantity":100}') \g /dev/null
SELECT t.op('save_product', '{"name":"Box","sku":"BOX","price":25,"parts":[{"model_id":1,"quantity":2},{"model_id":2}],"consumables":[{"consumable_id":1,"quantity":4}]}') \g /dev/null
SELECT t.op('save_customer', '{"name":"Ada","email":"ada@example.com"}'), t.op('save_customer', '{"name":"Bob"}') \g /dev/null
SELECT t.says(id, 'idle') FROM odin.printers \g /dev/null
SELECT odin.add_member('ft_customer', org, 1) FROM t.ids \g /dev/null
