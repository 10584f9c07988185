-- Jobs: where they stand in the queue, and which changes only their runs may make. Estimates of time, grams and cost.

CREATE OR REPLACE FUNCTION odin._job_stamp() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  may boolean := current_user = 'odin_owner';
BEGIN
  IF TG_OP = 'INSERT' THEN
    NEW.submitted_by := coalesce(CASE WHEN may THEN odin.actor() END, current_user);
    NEW.created_at := now();
    IF NOT may THEN NEW.good := 0; NEW.scrapped := 0; NEW.started_at := NULL; NEW.finished_at := NULL; END IF;
    SELECT p.customer_id, p.order_line_id, p.model_id INTO NEW.customer_id, NEW.order_line_id, NEW.model_id FROM odin.order_parts p WHERE p.id = NEW.part_id;
  ELSIF NEW.status <> OLD.status THEN
    IF NEW.status IN ('printing', 'paused', 'completed', 'failed') AND NOT may THEN
      PERFORM odin.fail('invalid_state_transition', format('job %s becomes %s through its run only', NEW.id, NEW.status),
        'Use start_job, complete_job, fail_job, or the printer''s own report.', jsonb_build_object('from_status', OLD.status, 'to_status', NEW.status));
    END IF;
    IF NEW.status IN ('completed', 'failed', 'cancelled') THEN
      NEW.finished_at := coalesce(NEW.finished_at, now());
      NEW.scheduled_printer_id := NULL; NEW.scheduled_start := NULL; NEW.scheduled_end := NULL;
    ELSIF NEW.status = 'pending' THEN
      NEW.scheduled_printer_id := NULL; NEW.scheduled_start := NULL; NEW.scheduled_end := NULL;
    END IF;
  END IF;
  IF TG_OP = 'INSERT' OR (NEW.priority, NEW.due_at, NEW.estimated_seconds) IS DISTINCT FROM (OLD.priority, OLD.due_at, OLD.estimated_seconds) THEN
    NEW.start_by := least(NEW.due_at - make_interval(secs => NEW.estimated_seconds), NEW.created_at + (SELECT p.patience FROM odin.priorities p WHERE p.priority = NEW.priority));
  END IF;
  NEW.updated_at := now();
  RETURN NEW;
END $f$;
CREATE OR REPLACE TRIGGER odin_stamp BEFORE INSERT OR UPDATE ON odin.jobs FOR EACH ROW EXECUTE FUNCTION odin._job_stamp();

-- What a plate of a revision takes and costs by the rate card in force: the same figures for a job, a quote and a preview.
CREATE OR REPLACE FUNCTION odin._estimate(of_revision bigint, OUT seconds integer, OUT mg bigint, OUT material numeric, OUT machine numeric, OUT energy numeric, OUT labor numeric,
  OUT failure numeric, OUT cost numeric, OUT currency text, OUT rate_card_id bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  r record;
  card odin.rate_cards;
BEGIN
  SELECT x.org_id, coalesce(x.seconds, 0) AS seconds INTO r FROM odin.model_revisions x WHERE x.id = of_revision;
  IF NOT odin._sees(r.org_id) THEN RETURN; END IF;
  card := odin._rate_card(r.org_id);
  SELECT coalesce(sum(m.mg), 0), coalesce(sum(m.mg / 1000000.0 * coalesce(odin._cost_per_kg(m.org_id, m.filament_id, m.material), card.material_per_kg)), 0)
    INTO _estimate.mg, _estimate.material FROM odin.revision_materials m WHERE m.revision_id = of_revision;
  seconds := r.seconds;
  material := round(material, 4);
  machine := round(seconds / 3600.0 * card.machine_per_hour, 4);
  energy := round(seconds / 3600.0 * card.watts / 1000 * card.electricity_per_kwh, 4);
  labor := round(card.labor_minutes_per_run / 60 * card.labor_per_hour, 4);
  failure := round((material + machine + energy + labor) * card.failure_pct / (100 - card.failure_pct), 4);
  cost := round(material + machine + energy + labor + failure, 2);
  currency := card.currency;
  rate_card_id := card.id;
END $f$;

-- Price of a kilo: the filament's own, else the mean of the org's filaments of that material. NULL = the rate card's.
CREATE OR REPLACE FUNCTION odin._cost_per_kg(org bigint, filament bigint, material text) RETURNS numeric
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  RETURN coalesce((SELECT f.cost_per_kg FROM odin.filaments f WHERE f.id = filament),
                  (SELECT round(avg(f.cost_per_kg), 4) FROM odin.filaments f WHERE f.org_id = org AND f.material = _cost_per_kg.material AND f.is_active));
END $f$;

-- The rate card in force; an org without one gets version 1 with the usual figures.
CREATE OR REPLACE FUNCTION odin._rate_card(org bigint) RETURNS odin.rate_cards
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  card odin.rate_cards;
BEGIN
  SELECT * INTO card FROM odin.rate_cards c WHERE c.org_id = org ORDER BY c.version DESC LIMIT 1;
  RETURN card;
END $f$;

CREATE OR REPLACE FUNCTION odin._org_added() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  INSERT INTO odin.rate_cards(org_id, version, currency, notes) VALUES (NEW.id, 1, NEW.currency, 'The usual figures; add a version with your own.');
  INSERT INTO odin.maintenance_tasks(org_id, name, printer_model_filter, interval_print_hours, interval_days, estimated_downtime_minutes)
  SELECT NEW.id, s.* FROM odin._usual_maintenance() s;
  RETURN NULL;
END $f$;
CREATE OR REPLACE TRIGGER odin_farm_added AFTER INSERT ON odin.orgs FOR EACH ROW EXECUTE FUNCTION odin._org_added();

CREATE OR REPLACE FUNCTION odin._usual_maintenance() RETURNS TABLE(name text, printer_model_filter text, interval_print_hours numeric, interval_days integer, downtime integer)
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $f$
  VALUES ('General cleaning', NULL, 50::numeric, 14, 20), ('Nozzle inspection', NULL, 500, NULL, 30), ('Build plate check', NULL, 1000, 180, 15),
         ('Belt tension', NULL, 500, NULL, 30), ('Firmware check', NULL, NULL, 30, 15), ('Lubricate rods', 'X1', 200, NULL, 20), ('Lubricate rods', 'P1S', 200, NULL, 20),
         ('HEPA filter', 'X1', 500, 90, 10), ('HEPA filter', 'P1S', 500, 90, 10), ('Nozzle wiper', 'X1', 200, NULL, 10), ('Hotend check', 'A1', 300, NULL, 30);
$f$;
