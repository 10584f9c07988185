-- The spool ledger at work: balances follow moves, loading moves slot and spool together, runs consume once.
-- A balance is never negative: what a run used beyond it is recorded as an adjustment first, so the ledger says what it did not know.

CREATE OR REPLACE FUNCTION odin._spool_added() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  INSERT INTO odin.spool_balances(spool_id, org_id) VALUES (NEW.id, NEW.org_id);
  IF NEW.initial_mg > 0 THEN
    INSERT INTO odin.spool_moves(org_id, spool_id, kind, mg, basis, actor, call_id) VALUES (NEW.org_id, NEW.id, 'receive', NEW.initial_mg, 'person', odin.actor(), odin.current_call());
  END IF;
  RETURN NULL;
END $f$;
CREATE OR REPLACE TRIGGER odin_added AFTER INSERT ON odin.spools FOR EACH ROW EXECUTE FUNCTION odin._spool_added();

CREATE OR REPLACE FUNCTION odin._spool_code() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  IF NEW.code IS NULL THEN
    NEW.code := 'SPL-' || upper(substr(encode(sha256(gen_random_uuid()::text::bytea), 'hex'), 1, 8));
  END IF;
  RETURN NEW;
END $f$;
CREATE OR REPLACE TRIGGER odin_code BEFORE INSERT ON odin.spools FOR EACH ROW EXECUTE FUNCTION odin._spool_code();

-- One row in, one balance changed, status and low-stock alert with it.
CREATE OR REPLACE FUNCTION odin._spool_moved() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  s record;
  was bigint;
  left_mg bigint;
  low bigint;
BEGIN
  IF NEW.mg = 0 AND NEW.reserved_mg = 0 THEN RETURN NULL; END IF;
  UPDATE odin.spool_balances b SET balance_mg = b.balance_mg + NEW.mg, reserved_mg = b.reserved_mg + NEW.reserved_mg, updated_at = now()
   WHERE b.spool_id = NEW.spool_id RETURNING b.balance_mg INTO left_mg;
  IF NEW.mg = 0 THEN RETURN NULL; END IF;
  was := left_mg - NEW.mg;
  SELECT sp.status, sp.low_stock_mg, sp.code, f.name, f.material INTO s FROM odin.spools sp JOIN odin.filaments f ON f.id = sp.filament_id WHERE sp.id = NEW.spool_id;
  IF left_mg = 0 AND s.status = 'active' THEN
    UPDATE odin.spools SET status = 'empty' WHERE id = NEW.spool_id;
  ELSIF left_mg > 0 AND s.status = 'empty' THEN
    UPDATE odin.spools SET status = 'active' WHERE id = NEW.spool_id;
  END IF;
  low := greatest(s.low_stock_mg, (odin._threshold(NEW.org_id, 'spool_low') * 1000)::bigint);
  IF NEW.mg < 0 AND left_mg <= low AND was > low THEN
    PERFORM odin._alert(NEW.org_id, 'spool_low', format('Spool %s is low', s.code), format('%s %s: %s g left', s.material, s.name, round(left_mg / 1000.0, 1)),
      spool => NEW.spool_id, data => jsonb_build_object('remaining_grams', round(left_mg / 1000.0, 1)));
  END IF;
  RETURN NULL;
END $f$;
CREATE OR REPLACE TRIGGER odin_balance AFTER INSERT ON odin.spool_moves FOR EACH ROW EXECUTE FUNCTION odin._spool_moved();

-- SQL users' rows carry who wrote them, whatever they say.
CREATE OR REPLACE FUNCTION odin._spool_move_stamp() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  v record;
BEGIN
  NEW.actor := odin.actor();
  NEW.call_id := odin.current_call();
  IF NEW.kind = 'void' THEN
    SELECT * INTO v FROM odin.spool_moves m WHERE m.id = NEW.void_of;
    IF v.id IS NULL OR v.spool_id <> NEW.spool_id OR v.kind = 'void' THEN
      PERFORM odin.fail('validation_failed', format('void_of: move %s is not a move of this spool that can be voided', NEW.void_of));
    END IF;
    NEW.mg := -v.mg;
    NEW.reserved_mg := 0;
  END IF;
  RETURN NEW;
END $f$;
CREATE OR REPLACE TRIGGER odin_stamp BEFORE INSERT ON odin.spool_moves FOR EACH ROW EXECUTE FUNCTION odin._spool_move_stamp();

-- Takes mg off a spool for a run or a person. Fills the gap first when the ledger knew of less.
CREATE OR REPLACE FUNCTION odin._consume(spool bigint, used bigint, release bigint DEFAULT 0, job bigint DEFAULT NULL, run bigint DEFAULT NULL, printer bigint DEFAULT NULL,
  slot smallint DEFAULT NULL, seg integer DEFAULT 0, rev integer DEFAULT 0, told text DEFAULT 'slicer', why text DEFAULT NULL, used_at timestamptz DEFAULT now()) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  b record;
  made bigint;
BEGIN
  IF run IS NOT NULL AND EXISTS (SELECT 1 FROM odin.spool_moves m WHERE m.run_id = run AND m.slot_number = slot AND m.segment = seg AND m.revision = rev AND m.kind = 'consume') THEN
    RETURN NULL;
  END IF;
  SELECT * INTO b FROM odin.spool_balances WHERE spool_id = spool FOR UPDATE;
  IF used > b.balance_mg THEN
    INSERT INTO odin.spool_moves(org_id, spool_id, kind, mg, job_id, run_id, printer_id, slot_number, segment, basis, reason, at)
    VALUES (b.org_id, spool, 'adjust', used - b.balance_mg, job, run, printer, slot, seg, 'ledger', 'more was used than the ledger held', used_at);
  END IF;
  INSERT INTO odin.spool_moves(org_id, spool_id, kind, mg, reserved_mg, job_id, run_id, printer_id, slot_number, segment, revision, basis, reason, at)
  VALUES (b.org_id, spool, 'consume', -used, -least(release, b.reserved_mg), job, run, printer, slot, seg, rev, told, why, used_at)
  RETURNING id INTO made;
  RETURN made;
END $f$;

-- Grams promised to a job on a spool: reserved minus released, and minus what its runs took over.
CREATE OR REPLACE FUNCTION odin._reserved_for_job(spool bigint, job bigint) RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT coalesce(sum(reserved_mg), 0)::bigint FROM odin.spool_moves WHERE job_id = job AND spool_id = spool AND run_id IS NULL AND kind IN ('reserve', 'release');
$f$;

-- A slot's spool changed: write load and unload moves, whoever changed it.
CREATE OR REPLACE FUNCTION odin._slot_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  IF TG_OP = 'UPDATE' AND OLD.spool_id IS NOT DISTINCT FROM NEW.spool_id THEN RETURN NULL; END IF;
  IF TG_OP <> 'INSERT' AND OLD.spool_id IS NOT NULL THEN
    INSERT INTO odin.spool_moves(org_id, spool_id, kind, printer_id, slot_number) VALUES (OLD.org_id, OLD.spool_id, 'unload', OLD.printer_id, OLD.slot_number);
  END IF;
  IF TG_OP <> 'DELETE' AND NEW.spool_id IS NOT NULL THEN
    INSERT INTO odin.spool_moves(org_id, spool_id, kind, printer_id, slot_number) VALUES (NEW.org_id, NEW.spool_id, 'load', NEW.printer_id, NEW.slot_number);
  END IF;
  RETURN NULL;
END $f$;
CREATE OR REPLACE TRIGGER odin_slot AFTER INSERT OR UPDATE OF spool_id OR DELETE ON odin.printer_slots FOR EACH ROW EXECUTE FUNCTION odin._slot_changed();

-- A new printer gets its bed, state, totals, nozzle and slots.
CREATE OR REPLACE FUNCTION odin._printer_added() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  INSERT INTO odin.beds(printer_id, org_id) VALUES (NEW.id, NEW.org_id);
  INSERT INTO odin.printer_state(printer_id, org_id) VALUES (NEW.id, NEW.org_id);
  INSERT INTO odin.printer_totals(printer_id, org_id) VALUES (NEW.id, NEW.org_id);
  INSERT INTO odin.printer_slots(printer_id, slot_number, org_id) SELECT NEW.id, n, NEW.org_id FROM generate_series(1, NEW.slot_count) n;
  IF NEW.machine_type = 'fdm' THEN
    INSERT INTO odin.nozzles(org_id, printer_id, tool) VALUES (NEW.org_id, NEW.id, 0);
  END IF;
  RETURN NULL;
END $f$;
CREATE OR REPLACE TRIGGER odin_added AFTER INSERT ON odin.printers FOR EACH ROW EXECUTE FUNCTION odin._printer_added();

CREATE OR REPLACE FUNCTION odin._printer_slots_follow() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  INSERT INTO odin.printer_slots(printer_id, slot_number, org_id) SELECT NEW.id, n, NEW.org_id FROM generate_series(1, NEW.slot_count) n ON CONFLICT DO NOTHING;
  DELETE FROM odin.printer_slots s WHERE s.printer_id = NEW.id AND s.slot_number BETWEEN NEW.slot_count + 1 AND OLD.slot_count AND s.spool_id IS NULL;
  RETURN NULL;
END $f$;
CREATE OR REPLACE TRIGGER odin_slots_follow AFTER UPDATE OF slot_count ON odin.printers FOR EACH ROW WHEN (OLD.slot_count <> NEW.slot_count) EXECUTE FUNCTION odin._printer_slots_follow();
