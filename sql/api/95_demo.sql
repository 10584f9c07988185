-- A farm to look at: 12 printers, 40 spools, 6 customers, 30 orders, a month of work done by the farm's own functions. The same every time: nothing is
-- left to chance, and all times count back from the full hour.
-- Only for an org that has no printers yet; for people in the database.
CREATE OR REPLACE FUNCTION odin.demo_farm(org bigint DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  f bigint := coalesce(demo_farm.org, (SELECT o.id FROM odin.orgs o WHERE o.name = 'Demo Farm'));
BEGIN
  PERFORM odin._humans_only('making a demo farm');
  IF f IS NULL THEN
    INSERT INTO odin.orgs(name) VALUES ('Demo Farm') RETURNING id INTO f;
  END IF;
  PERFORM odin._administers(f);
  IF EXISTS (SELECT 1 FROM odin.printers p WHERE p.org_id = f) THEN
    PERFORM odin.fail('already_exists', format('org %s has printers; the demo farm is for an empty org', f));
  END IF;
  PERFORM odin._demo_things(f);
  PERFORM odin._demo_month(f);
  PERFORM odin._demo_now(f);
  RETURN (SELECT jsonb_build_object('org_id', f, 'printers', (SELECT count(*) FROM odin.printers x WHERE x.org_id = f), 'spools', (SELECT count(*) FROM odin.spools x WHERE x.org_id = f), 'customers', (SELECT count(*) FROM odin.customers x WHERE x.org_id = f),
    'orders', (SELECT count(*) FROM odin.orders x WHERE x.org_id = f AND NOT x.is_stock), 'jobs', (SELECT count(*) FROM odin.jobs x WHERE x.org_id = f), 'runs', (SELECT count(*) FROM odin.runs x WHERE x.org_id = f)));
END $f$;
COMMENT ON FUNCTION odin.demo_farm(bigint) IS 'Fills an empty org (Demo Farm if none is given) with 12 virtual printers, 40 spools, 6 customers, 30 orders and a month of history. People only.';

CREATE OR REPLACE FUNCTION odin._demo_things(f bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  m record;
  id_now bigint;
BEGIN
  INSERT INTO odin.filaments(org_id, brand, name, material, color_name, color_hex, cost_per_kg, nozzle_min_c, nozzle_max_c, bed_min_c, bed_max_c, abrasive)
  SELECT f, v.* FROM (VALUES ('Prusament', 'PLA Galaxy Black', 'PLA', 'black', '#1A1A1A', 29.99, 200, 220, 50, 60, false), ('eSun', 'PLA+ White', 'PLA', 'white', '#FFFFFF', 21.5, 205, 225, 50, 60, false), ('eSun', 'PLA+ Red', 'PLA', 'red', '#C81414', 21.5, 205, 225, 50, 60, false),
    ('Polymaker', 'PolyTerra Blue', 'PLA', 'blue', '#1E4BA0', 19.9, 190, 230, 25, 60, false), ('Prusament', 'PETG Orange', 'PETG', 'orange', '#F26A1B', 29.99, 240, 260, 70, 90, false), ('Overture', 'PETG Black', 'PETG', 'black', '#101010', 20, 230, 250, 70, 80, false),
    ('Polymaker', 'ASA Grey', 'ASA', 'grey', '#8A8D8F', 34.9, 240, 260, 90, 100, false), ('NinjaTek', 'NinjaFlex', 'TPU', 'black', '#0A0A0A', 79, 225, 235, 40, 50, false), ('Bambu Lab', 'PA6-CF', 'NYLON_CF', 'black', '#151515', 89.99, 260, 290, 80, 100, true),
    ('eSun', 'ABS+ Natural', 'ABS', 'natural', '#EFE8D8', 19.5, 230, 270, 95, 110, false)) v;
  INSERT INTO odin.spools(org_id, filament_id, code, initial_mg, price, vendor, lot_number, storage_location, purchased_on)
  SELECT f, x.id, 'DEMO-' || f || '-' || lpad((row_number() OVER (ORDER BY n, x.id))::text, 3, '0'), CASE WHEN n = 4 THEN 750000 ELSE 1000000 END, round(x.cost_per_kg * CASE WHEN n = 4 THEN 0.75 ELSE 1 END, 2), x.brand, format('L%s', 2400 + (x.place * 7 + n) % 97), format('shelf %s', 1 + x.place % 5), current_date - 40
    FROM (SELECT y.*, row_number() OVER (ORDER BY y.id) AS place FROM odin.filaments y WHERE y.org_id = f) x, generate_series(1, 4) n;
  INSERT INTO odin.printers(org_id, name, nickname, model, protocol, slot_count, group_name, location, tags, bed_x_mm, bed_y_mm, bed_z_mm, enclosed, watts, price, life_hours, plate_surface)
  SELECT f, v.* FROM (VALUES ('MK4-1', 'Anna', 'Prusa MK4S', 'virtual', 1, 'prusa', 'room A', '{pla,petg}'::text[], 250, 210, 220, false, 200, 799, 8000, 'smooth'), ('MK4-2', 'Bert', 'Prusa MK4S', 'virtual', 1, 'prusa', 'room A', '{pla,petg}', 250, 210, 220, false, 200, 799, 8000, 'smooth'),
    ('MK4-3', 'Cleo', 'Prusa MK4S', 'virtual', 1, 'prusa', 'room A', '{pla,petg}', 250, 210, 220, false, 200, 799, 8000, 'smooth'), ('MK4-4', 'Dora', 'Prusa MK4S', 'virtual', 1, 'prusa', 'room A', '{pla}', 250, 210, 220, false, 200, 799, 8000, 'smooth'),
    ('X1C-1', 'Emil', 'Bambu Lab X1 Carbon', 'virtual', 4, 'bambu', 'room B', '{pla,petg,engineering}', 256, 256, 256, true, 350, 1199, 5000, 'textured'), ('X1C-2', 'Fips', 'Bambu Lab X1 Carbon', 'virtual', 4, 'bambu', 'room B', '{pla,petg,engineering}', 256, 256, 256, true, 350, 1199, 5000, 'textured'),
    ('P1S-1', 'Gina', 'Bambu Lab P1S', 'virtual', 4, 'bambu', 'room B', '{pla,petg}', 256, 256, 256, true, 350, 699, 5000, 'textured'), ('P1S-2', 'Hugo', 'Bambu Lab P1S', 'virtual', 4, 'bambu', 'room B', '{pla,petg}', 256, 256, 256, true, 350, 699, 5000, 'textured'),
    ('VOR-1', 'Iris', 'Voron 2.4', 'virtual', 1, 'voron', 'room C', '{abs,asa,engineering}', 350, 350, 350, true, 500, 1200, 8000, 'textured'), ('VOR-2', 'Jack', 'Voron 2.4', 'virtual', 1, 'voron', 'room C', '{abs,asa,engineering}', 350, 350, 350, true, 500, 1200, 8000, 'textured'),
    ('MINI-1', 'Kira', 'Prusa MINI+', 'virtual', 1, 'mini', 'room A', '{pla}', 180, 180, 180, false, 160, 429, 6000, 'smooth'), ('MINI-2', 'Leo', 'Prusa MINI+', 'virtual', 1, 'mini', 'room A', '{pla}', 180, 180, 180, false, 160, 429, 6000, 'smooth')) v;
  UPDATE odin.printers p SET created_at = now() - interval '200 days' WHERE p.org_id = f;
  UPDATE odin.nozzles n SET type = 'hardened', installed_at = now() - interval '60 days' FROM odin.printers p WHERE p.id = n.printer_id AND p.org_id = f AND p.name LIKE 'X1C%';
  UPDATE odin.printer_state s SET state = 'idle', raw_state = 'IDLE', reported_at = now(), state_since = now() - interval '1 hour', tool_c = 24, bed_c = 23 FROM odin.printers p WHERE p.id = s.printer_id AND p.org_id = f;
  -- Each printer gets what it usually prints: the first spools of these filaments, in order of slots.
  FOR m IN SELECT p.id AS printer_id, w.slot, w.name FROM odin.printers p JOIN (VALUES ('MK4-1', 1, 'PLA Galaxy Black'), ('MK4-2', 1, 'PLA+ White'), ('MK4-3', 1, 'PETG Orange'), ('MK4-4', 1, 'PLA+ Red'), ('X1C-1', 1, 'PLA Galaxy Black'), ('X1C-1', 2, 'PLA+ White'), ('X1C-1', 3, 'PETG Black'),
      ('X1C-1', 4, 'PA6-CF'), ('X1C-2', 1, 'PLA Galaxy Black'), ('X1C-2', 2, 'PLA+ Red'), ('X1C-2', 3, 'PETG Orange'), ('X1C-2', 4, 'NinjaFlex'), ('P1S-1', 1, 'PLA+ White'), ('P1S-1', 2, 'PLA+ Red'), ('P1S-1', 3, 'PolyTerra Blue'), ('P1S-1', 4, 'PETG Black'), ('P1S-2', 1, 'PLA Galaxy Black'),
      ('P1S-2', 2, 'PLA+ White'), ('P1S-2', 3, 'PolyTerra Blue'), ('P1S-2', 4, 'PETG Orange'), ('VOR-1', 1, 'ASA Grey'), ('VOR-2', 1, 'ABS+ Natural'), ('MINI-1', 1, 'PolyTerra Blue'), ('MINI-2', 1, 'PLA+ Red')) w(printer, slot, name) ON w.printer = p.name WHERE p.org_id = f ORDER BY p.id, w.slot LOOP
    SELECT s.id INTO id_now FROM odin.spools s JOIN odin.filaments x ON x.id = s.filament_id WHERE s.org_id = f AND x.name = m.name AND NOT EXISTS (SELECT 1 FROM odin.printer_slots t WHERE t.spool_id = s.id) ORDER BY s.initial_mg DESC, s.id LIMIT 1;
    UPDATE odin.printer_slots t SET spool_id = id_now, loaded_at = now() - interval '31 days', confirmed = true WHERE t.printer_id = m.printer_id AND t.slot_number = m.slot;
  END LOOP;
  FOR m IN SELECT * FROM (VALUES ('Cable clip', 'CLIP', 12, 1.2, 'PLA', '#1A1A1A', 38.0), ('Drawer handle', 'HANDLE', 2, 2.4, 'PETG', NULL, 61.0), ('Phone stand', 'STAND', 1, 2.1, 'PLA', NULL, 48.0), ('Gear 40T', 'GEAR40', 4, 3.0, 'NYLON_CF', NULL, 55.0), ('Lens cap', 'CAP', 6, 0.8, 'TPU', NULL, 22.0),
      ('Planter', 'PLANT', 1, 5.5, 'PLA', '#C81414', 160.0), ('Sensor housing', 'HOUSE', 1, 3.2, 'ASA', NULL, 74.0), ('Housing lid', 'LID', 2, 1.1, 'ASA', NULL, 30.0), ('Name plate', 'PLATE', 3, 0.9, 'PLA', '#FFFFFF', 19.0), ('Drone arm', 'ARM', 2, 2.6, 'PETG', '#F26A1B', 52.0)) v(name, sku, pieces, hours, material, color, grams) LOOP
    INSERT INTO odin.models(org_id, name, sku, category, license, author) VALUES (f, m.name, m.sku, 'demo', 'CC0-1.0', 'Demo Farm') RETURNING id INTO id_now;
    WITH r AS (INSERT INTO odin.model_revisions(org_id, model_id, revision, pieces_per_plate, seconds, file_name, nozzle_mm, size_x_mm, size_y_mm, size_z_mm, layer_count)
      VALUES (f, id_now, 1, m.pieces, round(m.hours * 3600), lower(m.sku) || '.gcode', 0.4, 120, 120, 60, 300) RETURNING id),
    n AS (INSERT INTO odin.revision_materials(revision_id, org_id, tool, material, color_hex, mg) SELECT r.id, f, 0, m.material, m.color, round(m.grams * 1000) FROM r)
    UPDATE odin.models x SET current_revision_id = (SELECT r.id FROM r) WHERE x.id = id_now;
  END LOOP;
  INSERT INTO odin.consumables(org_id, name, sku, unit, cost_per_unit, min_stock) VALUES (f, 'M3x8 screw', 'M3-8', 'piece', 0.03, 200), (f, 'Heat insert M3', 'INS-M3', 'piece', 0.08, 100), (f, 'Shipping box S', 'BOX-S', 'piece', 0.55, 20), (f, 'Sensor cable', 'CBL', 'piece', 1.9, 10);
  INSERT INTO odin.consumable_moves(org_id, consumable_id, kind, quantity, notes) SELECT f, c.id, 'restock', CASE c.sku WHEN 'CBL' THEN 40 ELSE 600 END, 'opening stock' FROM odin.consumables c WHERE c.org_id = f;
  FOR m IN SELECT * FROM (VALUES ('Sensor kit', 'KIT-S', 34.0, '{"HOUSE":1,"LID":1}'::jsonb, '{"M3-8":4,"INS-M3":4,"CBL":1,"BOX-S":1}'::jsonb), ('Cable clips, bag of 12', 'BAG-12', 9.5, '{"CLIP":12}', '{"BOX-S":1}'), ('Desk set', 'DESK', 42.0, '{"STAND":1,"CLIP":6,"PLATE":1}', '{"BOX-S":1}'), ('Drone frame', 'FRAME', 55.0, '{"ARM":4,"GEAR40":2}', '{"M3-8":16,"BOX-S":1}'),
      ('Planter', 'POT', 24.0, '{"PLANT":1}', '{"BOX-S":1}')) v(name, sku, price, parts, things) LOOP
    INSERT INTO odin.products(org_id, name, sku, price) VALUES (f, m.name, m.sku, m.price) RETURNING id INTO id_now;
    INSERT INTO odin.product_parts(product_id, org_id, model_id, quantity) SELECT id_now, f, x.id, e.value::int FROM jsonb_each_text(m.parts) e JOIN odin.models x ON x.org_id = f AND x.sku = e.key;
    INSERT INTO odin.product_consumables(product_id, org_id, consumable_id, quantity) SELECT id_now, f, x.id, e.value::numeric FROM jsonb_each_text(m.things) e JOIN odin.consumables x ON x.org_id = f AND x.sku = e.key;
  END LOOP;
  INSERT INTO odin.customers(org_id, name, company, email) SELECT f, v.* FROM (VALUES ('Robin Vale', 'Vale Instruments', 'orders@vale.example'), ('Sam Ortega', 'Ortega Drones', 'sam@ortega.example'), ('Kim Larsen', 'Larsen Desk', 'kim@larsen.example'), ('Noor Haddad', NULL, 'noor@haddad.example'), ('Alex Brandt', 'Brandt Garden', 'shop@brandt.example'),
    ('Jo Okafor', 'Okafor Labs', 'jo@okafor.example')) v;
END $f$;

-- Thirty orders over a month; the first two thirds are printed, shipped and billed by the farm's own functions.
CREATE OR REPLACE FUNCTION odin._demo_month(f bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  i integer;
  n integer := 0;
  ordered timestamptz;
  ord bigint;
  skus constant text[] := '{KIT-S,BAG-12,DESK,FRAME,POT}';
  buyers bigint[] := ARRAY(SELECT c.id FROM odin.customers c WHERE c.org_id = f ORDER BY c.id);
  shift timestamptz;
  hour constant timestamptz := date_trunc('hour', now());
  busy jsonb := '{}';
  j record;
  r odin.runs;
  starts timestamptz;
  ends timestamptz;
  bad boolean;
  reasons constant text[] := '{adhesion,spaghetti,clog,layer_shift,warping,filament_runout}';
  inv odin.invoices;
BEGIN
  FOR i IN 1..30 LOOP
    ordered := hour - make_interval(days => 31 - i, hours => (i * 7) % 11);
    INSERT INTO odin.orders(org_id, customer_id, order_number, channel, external_id, ordered_at, due_at, priority, shipping_charged, platform_fees, created_by)
    VALUES (f, buyers[1 + (i * 5) % 6], odin._next_number(f, 'order', 'O-'), CASE WHEN i % 3 = 0 THEN 'etsy' ELSE 'manual' END, CASE WHEN i % 3 = 0 THEN format('ET-%s', 88000 + i) END, ordered, ordered + make_interval(days => 5 + i % 7), (ARRAY[3, 3, 2, 3, 4, 1])[1 + i % 6],
      CASE WHEN i % 3 = 0 THEN 4.9 ELSE 0 END, CASE WHEN i % 3 = 0 THEN 2.1 ELSE 0 END, 'demo') RETURNING id INTO ord;
    PERFORM odin._add_line(ord, jsonb_build_object('product_id', (SELECT p.id FROM odin.products p WHERE p.org_id = f AND p.sku = skus[1 + i % 5]), 'quantity', 1 + (i * 3) % 4), true, false);
    IF i % 4 = 0 THEN
      PERFORM odin._add_line(ord, jsonb_build_object('model_id', (SELECT m.id FROM odin.models m WHERE m.org_id = f AND m.sku = (ARRAY['HANDLE', 'CAP', 'STAND'])[1 + i % 3]), 'quantity', 2 + i % 5), true, false);
    END IF;
    UPDATE odin.orders o SET created_at = ordered WHERE o.id = ord;
    UPDATE odin.jobs x SET created_at = ordered FROM odin.order_lines l WHERE l.id = x.order_line_id AND l.order_id = ord;
    CONTINUE WHEN i > 24;
    FOR pass IN 1..4 LOOP
      FOR j IN SELECT x.id, x.estimated_seconds FROM odin.jobs x JOIN odin.order_lines l ON l.id = x.order_line_id WHERE l.order_id = ord AND x.status = 'pending' ORDER BY x.id LOOP
        n := n + 1;
        CONTINUE WHEN NOT EXISTS (SELECT 1 FROM odin._fit(j.id, NULL, true) t WHERE t.rules IS NULL);
        UPDATE odin.jobs x SET hold = false, hold_reason = NULL WHERE x.id = j.id AND x.hold;
        r := odin._claim_run(j.id, NULL, true);
        starts := greatest(ordered + interval '2 hours', coalesce((busy->>r.printer_id::text)::timestamptz, '-infinity'));
        bad := n % 11 = 0;
        ends := least(starts + make_interval(secs => j.estimated_seconds * CASE WHEN bad THEN 0.4 ELSE 0.95 + (n % 7) * 0.02 END), hour - interval '10 minutes');
        UPDATE odin.runs x SET claimed_at = starts, status = 'printing', started_at = starts WHERE x.id = r.id;
        PERFORM odin.apply_finish(r.id, CASE WHEN bad THEN 'failed' ELSE 'completed' END, CASE WHEN NOT bad AND n % 17 = 0 THEN greatest(r.pieces - 1, 0) END, NULL, CASE WHEN bad OR n % 17 = 0 THEN reasons[1 + n % 6] END, NULL, 'printer', NULL,
          CASE WHEN bad THEN 40 END, NULL, round(j.estimated_seconds / 3600.0 * 110, 1), ends);
        PERFORM odin._bed(r.printer_id, false, 'person');
        busy := busy || jsonb_build_object(r.printer_id::text, ends + interval '20 minutes');
      END LOOP;
    END LOOP;
    UPDATE odin.jobs x SET created_at = ordered FROM odin.order_lines l WHERE l.id = x.order_line_id AND l.order_id = ord;
    IF (SELECT o.status FROM odin.orders o WHERE o.id = ord) = 'fulfilled' AND i <= 22 THEN
      shift := least(ordered + make_interval(days => 3 + i % 5), hour - interval '2 hours');
      PERFORM odin.ship_order(ord, 'DHL', format('JD0146%s', 700000 + i), 4.2, false);
      UPDATE odin.orders o SET shipped_at = shift WHERE o.id = ord;
      PERFORM odin.create_invoice(ord);
      UPDATE odin.invoices v SET issued_on = (shift AT TIME ZONE 'UTC')::date, due_on = (shift AT TIME ZONE 'UTC')::date + 14 WHERE v.order_id = ord;
      IF i % 5 <> 0 THEN
        UPDATE odin.invoices v SET status = 'paid', paid_on = least(v.due_on, (hour AT TIME ZONE 'UTC')::date) WHERE v.order_id = ord;
      END IF;
    END IF;
  END LOOP;
  UPDATE odin.alerts a SET created_at = x.finished_at FROM odin.runs x WHERE x.id = a.run_id AND a.org_id = f;
  UPDATE odin.alerts a SET is_read = true, read_by = 'demo', read_at = now() WHERE a.org_id = f AND a.id NOT IN (SELECT x.id FROM odin.alerts x WHERE x.org_id = f ORDER BY x.id DESC LIMIT 6);
END $f$;

-- How the floor looks at this moment.
CREATE OR REPLACE FUNCTION odin._demo_now(f bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  j record;
  r odin.runs;
  n integer := 0;
BEGIN
  FOR j IN SELECT x.id, x.estimated_seconds FROM odin.jobs x WHERE x.org_id = f AND x.status = 'pending' ORDER BY x.start_by, x.id LOOP
    EXIT WHEN n >= 4;
    CONTINUE WHEN NOT EXISTS (SELECT 1 FROM odin._fit(j.id, NULL, true) t WHERE t.rules IS NULL);
    r := odin._claim_run(j.id, NULL, true);
    n := n + 1;
    UPDATE odin.runs x SET status = 'printing', started_at = now() - make_interval(secs => j.estimated_seconds * (0.15 * n)) WHERE x.id = r.id;
    UPDATE odin.printer_state s SET state = 'printing', raw_state = 'PRINTING', reported_at = now(), state_since = now() - make_interval(secs => j.estimated_seconds * (0.15 * n)), progress_pct = 15 * n, remaining_seconds = round(j.estimated_seconds * (1 - 0.15 * n)), tool_c = 215,
      tool_target_c = 215, bed_c = 60, bed_target_c = 60, layer = 45 * n, total_layers = 300 WHERE s.printer_id = r.printer_id;
    IF n = 4 THEN
      UPDATE odin.runs x SET status = 'paused' WHERE x.id = r.id;
      UPDATE odin.printer_state s SET state = 'paused', raw_state = 'PAUSED' WHERE s.printer_id = r.printer_id;
    END IF;
  END LOOP;
  UPDATE odin.printer_state s SET state = 'offline', raw_state = NULL, reported_at = now() - interval '3 hours', state_since = now() - interval '3 hours' FROM odin.printers p WHERE p.id = s.printer_id AND p.org_id = f AND p.name = 'VOR-2';
  INSERT INTO odin.printer_events(org_id, printer_id, at, kind, severity, message) SELECT f, p.id, now() - interval '3 hours', 'offline', 'warning', 'no answer for 60 s' FROM odin.printers p WHERE p.org_id = f AND p.name = 'VOR-2';
  PERFORM odin._alert(f, 'printer_error', 'VOR-2 does not answer', 'no answer for 3 hours', printer => (SELECT p.id FROM odin.printers p WHERE p.org_id = f AND p.name = 'VOR-2'));
  INSERT INTO odin.maintenance_log(org_id, printer_id, printer_name, task_id, task_name, performed_by, performed_at, notes, downtime_minutes)
  SELECT f, p.id, p.name, t.id, t.name, 'demo', now() - make_interval(days => 3 + length(p.name) * ascii(right(p.name, 1)) % 15), 'as planned', 20 FROM odin.printers p JOIN odin.maintenance_tasks t ON t.org_id = f AND t.name IN ('General cleaning', 'Firmware check') WHERE p.org_id = f AND p.name NOT IN ('MINI-2', 'MK4-4');
  INSERT INTO odin.blackouts(org_id, from_time, until_time, reason) VALUES (f, '22:30', '05:30', 'quiet hours');
  INSERT INTO odin.quotas(org_id, metric, period, limit_value) VALUES (f, 'grams', 'daily', 20000);
END $f$;
GRANT EXECUTE ON FUNCTION odin.demo_farm(bigint) TO odin_admin;
