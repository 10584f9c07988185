-- The farm's own records as passages: failed runs with their reasons, maintenance notes, models. Kept up to date in the transaction that changes them.
-- A passage says what a person would tell a colleague; ids are in it, so that a finder can go on from there.

CREATE OR REPLACE FUNCTION odin._records_collection(org bigint) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT odin._make_collection(org, 'farm records', 'records', 'Failed runs, maintenance and models, kept by the farm itself.');
$f$;

CREATE OR REPLACE FUNCTION odin._know_run(run bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  r record;
BEGIN
  SELECT x.*, m.name AS model, p.name AS printer, p.model AS printer_model, j.fail_notes AS job_notes,
         (SELECT string_agg(DISTINCT f.material, ', ') FROM odin.revision_materials f WHERE f.revision_id = x.revision_id) AS materials
    INTO r FROM odin.runs x JOIN odin.models m ON m.id = x.model_id JOIN odin.printers p ON p.id = x.printer_id JOIN odin.jobs j ON j.id = x.job_id WHERE x.id = run;
  PERFORM odin._put_passages(r.org_id, odin._records_collection(r.org_id), NULL, 'run', r.id, ARRAY[format('Failed run %s: %s on %s', r.id, r.model, r.printer)],
    ARRAY[left(concat_ws(' ', format('%s failed on printer %s%s: %s.', r.model, r.printer, coalesce(' (' || r.printer_model || ')', ''), replace(coalesce(r.fail_reason, 'no reason given'), '_', ' ')),
      nullif(btrim(r.fail_notes), ''), CASE WHEN r.job_notes IS DISTINCT FROM r.fail_notes THEN nullif(btrim(r.job_notes), '') END,
      CASE WHEN r.materials IS NOT NULL THEN format('Material: %s.', r.materials) END, CASE WHEN r.progress_pct IS NOT NULL THEN format('It had printed %s percent.', round(r.progress_pct::numeric)) END), 8000)]);
END $f$;

CREATE OR REPLACE FUNCTION odin._know_maintenance(entry odin.maintenance_log) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT odin._put_passages(entry.org_id, odin._records_collection(entry.org_id), NULL, 'maintenance', entry.id, ARRAY[format('Maintenance %s: %s on %s', entry.id, entry.task_name, entry.printer_name)],
    ARRAY[left(concat_ws(' ', format('%s was done on printer %s on %s.', entry.task_name, entry.printer_name, entry.performed_at::date), nullif(btrim(entry.notes), ''),
      CASE WHEN entry.downtime_minutes > 0 THEN format('Downtime %s minutes.', entry.downtime_minutes) END), 8000)]);
$f$;

CREATE OR REPLACE FUNCTION odin._know_model(m odin.models) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT odin._put_passages(m.org_id, odin._records_collection(m.org_id), NULL, 'model', m.id, ARRAY[format('Model %s: %s', m.id, m.name)],
    CASE WHEN m.is_active THEN ARRAY[left(concat_ws('. ', m.name, 'Category: ' || m.category, 'SKU: ' || m.sku, nullif(btrim(m.notes), '')), 8000)] ELSE '{}'::text[] END);
$f$;

CREATE OR REPLACE FUNCTION odin._know() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  CASE TG_TABLE_NAME
    WHEN 'runs' THEN PERFORM odin._know_run(NEW.id);
    WHEN 'maintenance_log' THEN PERFORM odin._know_maintenance(NEW);
    ELSE
      IF TG_OP = 'DELETE' THEN
        DELETE FROM odin.chunks c WHERE c.source = 'model' AND c.source_id = OLD.id;
      ELSE
        PERFORM odin._know_model(NEW);
      END IF;
  END CASE;
  RETURN NULL;
END $f$;
CREATE OR REPLACE TRIGGER odin_know AFTER UPDATE OF status, fail_reason, fail_notes ON odin.runs FOR EACH ROW WHEN (NEW.status = 'failed') EXECUTE FUNCTION odin._know();
CREATE OR REPLACE TRIGGER odin_know AFTER INSERT ON odin.maintenance_log FOR EACH ROW EXECUTE FUNCTION odin._know();
CREATE OR REPLACE TRIGGER odin_know AFTER INSERT OR UPDATE OF name, category, sku, notes, is_active OR DELETE ON odin.models FOR EACH ROW EXECUTE FUNCTION odin._know();

-- A farm that was there before this was: everything it knows by now.
SELECT odin._know_run(r.id) FROM odin.runs r WHERE r.status = 'failed' AND NOT EXISTS (SELECT 1 FROM odin.chunks c WHERE c.source = 'run' AND c.source_id = r.id);
SELECT odin._know_maintenance(l) FROM odin.maintenance_log l WHERE NOT EXISTS (SELECT 1 FROM odin.chunks c WHERE c.source = 'maintenance' AND c.source_id = l.id);
SELECT odin._know_model(m) FROM odin.models m WHERE m.is_active AND NOT EXISTS (SELECT 1 FROM odin.chunks c WHERE c.source = 'model' AND c.source_id = m.id);
