-- For verbs that run with the farm's own rights: does the acting role work in the org of this row, and is it of the group the verb needs?
-- Says not found for what the caller may not see, so that ids of others tell nothing.
CREATE OR REPLACE FUNCTION odin._mine(kind text, row_id bigint, field text DEFAULT NULL, floor name DEFAULT 'odin_operator') RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  org bigint;
  named text := coalesce(field, kind || '_id');
BEGIN
  CASE kind
    WHEN 'job' THEN SELECT org_id INTO org FROM odin.jobs WHERE id = row_id;
    WHEN 'printer' THEN SELECT org_id INTO org FROM odin.printers WHERE id = row_id;
    WHEN 'spool' THEN SELECT org_id INTO org FROM odin.spools WHERE id = row_id;
    WHEN 'run' THEN SELECT org_id INTO org FROM odin.runs WHERE id = row_id;
    WHEN 'order' THEN SELECT org_id INTO org FROM odin.orders WHERE id = row_id;
    WHEN 'order_line' THEN SELECT org_id INTO org FROM odin.order_lines WHERE id = row_id;
    WHEN 'model' THEN SELECT org_id INTO org FROM odin.models WHERE id = row_id;
    WHEN 'product' THEN SELECT org_id INTO org FROM odin.products WHERE id = row_id;
    WHEN 'customer' THEN SELECT org_id INTO org FROM odin.customers WHERE id = row_id;
    WHEN 'filament' THEN SELECT org_id INTO org FROM odin.filaments WHERE id = row_id;
    WHEN 'consumable' THEN SELECT org_id INTO org FROM odin.consumables WHERE id = row_id;
    WHEN 'alert' THEN SELECT org_id INTO org FROM odin.alerts WHERE id = row_id;
    WHEN 'maintenance_task' THEN SELECT org_id INTO org FROM odin.maintenance_tasks WHERE id = row_id;
    WHEN 'quote' THEN SELECT org_id INTO org FROM odin.quotes WHERE id = row_id;
    WHEN 'invoice' THEN SELECT org_id INTO org FROM odin.invoices WHERE id = row_id;
  END CASE;
  IF org IS NULL OR NOT odin._may(org, 'odin_viewer') OR odin._is_hidden('odin.' || kind || 's', row_id) THEN
    PERFORM odin.fail(CASE kind WHEN 'order_line' THEN 'order' ELSE kind END || '_not_found', format('%s: there is no %s %s', named, replace(kind, '_', ' '), row_id), NULL, jsonb_build_object('field', named));
  ELSIF NOT odin._may(org, floor) THEN
    PERFORM odin.fail('permission_denied', format('%s is not of the group %s', odin.actor(), floor), format('An administrator: GRANT %I TO %I;', floor, odin.actor()));
  END IF;
  RETURN org;
END $f$;

-- The org a new row goes to: the acting role's own, and the role must be of the group.
CREATE OR REPLACE FUNCTION odin._new_in(floor name DEFAULT 'odin_operator') RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  org bigint := odin.my_org();
BEGIN
  IF NOT odin._may(org, floor) THEN
    PERFORM odin.fail('permission_denied', format('%s is not of the group %s', odin.actor(), floor), format('An administrator: GRANT %I TO %I;', floor, odin.actor()));
  END IF;
  RETURN org;
END $f$;

-- Exactly one of two spellings of an id has to be there.
CREATE OR REPLACE FUNCTION odin._not_null(value anyelement, field text) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  IF value IS NULL THEN
    PERFORM odin.fail('validation_failed', format('%s: is required', field), NULL, jsonb_build_object('field', field));
  END IF;
END $f$;
GRANT EXECUTE ON FUNCTION odin._visible_orgs() TO odin_viewer, odin_customer;
GRANT EXECUTE ON FUNCTION odin._priority(text), odin._color(text, text), odin._material(text), odin._may(bigint, name), odin._not_null(anyelement, text),
  odin._currency(bigint), odin._mine(text, bigint, text, name), odin._new_in(name), odin._estimate(bigint) TO odin_viewer;
