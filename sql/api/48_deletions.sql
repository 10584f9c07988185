-- Taking things away: what was never used is deleted, what has a history is archived, and the answer says which. Orders, jobs and quotes end by
-- their own verbs (cancel_order, cancel_job, set_quote); ledgers and logs never end.

CREATE OR REPLACE FUNCTION odin.delete_item(kind text, id bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  rel text;
  gone boolean := false;
BEGIN
  IF delete_item.kind NOT IN ('printer', 'model', 'product', 'customer', 'spool', 'filament', 'consumable', 'maintenance_task') THEN
    PERFORM odin.fail('validation_failed', format('kind: %s is not one of printer, model, product, customer, spool, filament, consumable, maintenance_task', delete_item.kind), NULL, '{"field":"kind"}');
  END IF;
  PERFORM odin._mine(delete_item.kind, delete_item.id, 'id');
  IF delete_item.kind = 'printer' AND EXISTS (SELECT 1 FROM odin.runs r WHERE r.printer_id = delete_item.id AND r.status IN ('claimed','starting','printing','paused','unknown')) THEN
    PERFORM odin.fail('printer_busy', format('printer %s has an active run and cannot be taken away', delete_item.id));
  ELSIF delete_item.kind = 'model' AND EXISTS (SELECT 1 FROM odin.jobs j WHERE j.model_id = delete_item.id AND j.status IN ('submitted','rejected','pending','scheduled','printing','paused')) THEN
    PERFORM odin.fail('invalid_state_transition', format('model %s has open jobs', delete_item.id), 'Cancel them first.');
  ELSIF delete_item.kind = 'customer' AND EXISTS (SELECT 1 FROM odin.orders o WHERE o.customer_id = delete_item.id AND o.status IN ('pending','in_progress','partial')) THEN
    PERFORM odin.fail('invalid_state_transition', format('customer %s has open orders', delete_item.id), 'Ship or cancel them first.');
  ELSIF delete_item.kind = 'spool' AND EXISTS (SELECT 1 FROM odin.printer_slots s WHERE s.spool_id = delete_item.id) THEN
    PERFORM odin.fail('spool_in_use', format('spool %s is loaded', delete_item.id));
  END IF;
  rel := format('odin.%I', delete_item.kind || 's');
  BEGIN
    IF delete_item.kind = 'product' THEN
      DELETE FROM odin.product_parts x WHERE x.product_id = delete_item.id;
      DELETE FROM odin.product_consumables x WHERE x.product_id = delete_item.id;
    ELSIF delete_item.kind = 'model' THEN
      UPDATE odin.models x SET current_revision_id = NULL WHERE x.id = delete_item.id;
      DELETE FROM odin.revision_materials x WHERE x.revision_id IN (SELECT r.id FROM odin.model_revisions r WHERE r.model_id = delete_item.id);
      DELETE FROM odin.model_files x WHERE x.model_id = delete_item.id;
      DELETE FROM odin.model_revisions x WHERE x.model_id = delete_item.id;
    END IF;
    EXECUTE format('DELETE FROM %s WHERE id = $1', rel) USING delete_item.id;
    gone := true;
  EXCEPTION WHEN foreign_key_violation OR SQLSTATE 'OD005' THEN
    -- It has a history (a ledger refuses as well): the row stays, out of the lists.
    IF delete_item.kind = 'spool' THEN
      UPDATE odin.spools x SET status = 'archived' WHERE x.id = delete_item.id AND x.status <> 'archived';
    ELSE
      EXECUTE format('UPDATE %s SET is_active = false WHERE id = $1', rel) USING delete_item.id;
    END IF;
  END;
  PERFORM odin.would(jsonb_build_object('action', 'delete_item', 'kind', delete_item.kind, 'id', delete_item.id, 'would_delete', gone, 'would_archive', NOT gone));
  RETURN jsonb_build_object('success', true, 'kind', delete_item.kind, 'id', delete_item.id, 'deleted', gone, 'archived', NOT gone);
END $f$;
COMMENT ON FUNCTION odin.delete_item(text, bigint) IS 'Takes a printer, model, product, customer, spool, filament, consumable or maintenance task away: deleted for good when nothing refers to it, else archived (its history stays; the update and save tools bring it back). Orders and jobs are cancelled instead.';
GRANT EXECUTE ON FUNCTION odin.delete_item(text, bigint) TO odin_operator;
