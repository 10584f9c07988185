-- A small farm with something of everything that ODIN's 22 tools read or change. Run by a superuser with psql on a fresh
-- database; prints lines of "name value" for the tests. Never for a real farm: the people's passwords stand here.
SET client_min_messages = warning;
\set QUIET on
\pset format unaligned
\pset tuples_only on
\pset fieldsep ' '
SELECT role || '_key', key FROM odin.demo_org();
SELECT id AS org FROM odin.orgs WHERE name = 'Demo Farm' \gset

-- People with logins of their own.
DO $$
DECLARE
  r record;
BEGIN
  FOR r IN SELECT * FROM (VALUES ('rest_admin', 'odin_admin'), ('rest_viewer', 'odin_viewer'), ('rest_stranger', NULL), ('rest_super', NULL)) v(name, level) LOOP
    IF to_regrole(r.name) IS NULL THEN EXECUTE format('CREATE ROLE %I LOGIN', r.name); END IF;
    EXECUTE format('ALTER ROLE %I PASSWORD %L', r.name, 'a secret of ' || r.name);
    IF r.level IS NOT NULL THEN
      EXECUTE format('GRANT %I TO %I', r.level, r.name);
      PERFORM odin.add_member(r.name, (SELECT id FROM odin.orgs WHERE name = 'Demo Farm'));
    END IF;
  END LOOP;
  ALTER ROLE rest_super SUPERUSER;
END $$;

-- Everything else an operator does himself.
SET ROLE demo_operator;
SELECT 'printer_a', odin.create_printer('Mill', model => 'MK4', address => 'virtual://?speed=15', slot_count => 4)->>'id';
SELECT 'printer_b', odin.create_printer('Wren', model => 'X1C', address => 'virtual://?speed=15', slot_count => 4)->>'id';
SELECT 'printer_c', odin.create_printer('Toad', model => 'MK4', slot_count => 1)->>'id';
SELECT id AS pla FROM odin.save_filament(name => 'Galaxy Black', material => 'PLA', color_hex => '#101010', cost_per_kg => 25) \gset
SELECT id AS petg FROM odin.save_filament(name => 'Clear', material => 'PETG', color_hex => '#EEEEEE', cost_per_kg => 30) \gset
SELECT odin.add_spool(:pla)->>'id' AS spool_a \gset
SELECT odin.add_spool(:pla)->>'id' AS spool_b \gset
SELECT 'spool_a', :spool_a UNION ALL SELECT 'spool_b', :spool_b;
SELECT 'spool_petg', odin.add_spool(:petg)->>'id';
SELECT p.id AS a FROM odin.printers p WHERE p.name = 'Mill' \gset
SELECT p.id AS b FROM odin.printers p WHERE p.name = 'Wren' \gset
SELECT odin.assign_spool(:spool_a, :a) IS NULL \g /dev/null
SELECT odin.assign_spool(:spool_b, :b) IS NULL \g /dev/null
SELECT odin.create_model('Bracket', print_hours => 1, pieces_per_plate => 4, material => 'PLA', grams => 20)->>'id' AS model \gset
SELECT 'model', :model;
SELECT 'job', odin.queue_job(:model, quantity => 2, notes => 'the first')->>'id';
SELECT odin.save_maintenance_task(name => 'Grease the rods', interval_print_hours => 100, printer_id => :a) IS NULL \g /dev/null
SELECT 'task_one', id FROM odin.maintenance_tasks WHERE name = 'Grease the rods';
SELECT odin.save_maintenance_task(name => 'Clean the nozzle', interval_days => 7) IS NULL \g /dev/null
SELECT 'task_all', id FROM odin.maintenance_tasks WHERE name = 'Clean the nozzle';
SELECT 'order', odin.create_order(jsonb_build_array(jsonb_build_object('model_id', :model, 'quantity', 3)))->>'order_id';
RESET ROLE;

-- What the farm and its machines say by themselves.
SELECT 'alert_a', odin._alert(:org, 'printer_error', 'Mill stopped', 'a test', printer => :a);
SELECT 'alert_b', odin._alert(:org, 'spool_low', 'Little left', 'a test', spool => :spool_a);
UPDATE odin.orgs SET settings = settings || '{"require_job_approval": true}' WHERE id = :org;
SET ROLE demo_viewer;
SELECT 'submitted_a', odin.queue_job(:model, notes => 'please')->>'id';
SELECT 'submitted_b', odin.queue_job(:model, notes => 'please too')->>'id';
RESET ROLE;

-- Tools with the policies that the farm's own tools do not have: a person approves, a task only, no preview.
CREATE SCHEMA shop;
GRANT USAGE ON SCHEMA shop TO odin_viewer, odin_owner;
CREATE FUNCTION shop.shop_risky(what text) RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT 'did ' || what $$;
CREATE FUNCTION shop.shop_slow() RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT 'done'::text $$;
CREATE FUNCTION shop.shop_mail() RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT 'sent'::text $$;
COMMENT ON FUNCTION shop.shop_risky(text) IS 'Waits for a person.';
COMMENT ON FUNCTION shop.shop_slow() IS 'Takes its time.';
COMMENT ON FUNCTION shop.shop_mail() IS 'Cannot be taken back.';
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA shop FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA shop TO odin_operator;
SELECT odin.register_tool('shop.shop_risky', scope => 'write', confirm => 'human') IS NULL \g /dev/null
SELECT odin.register_tool('shop.shop_slow', scope => 'write', task => 'required') IS NULL \g /dev/null
SELECT odin.register_tool('shop.shop_mail', scope => 'write', previewable => false) IS NULL \g /dev/null
