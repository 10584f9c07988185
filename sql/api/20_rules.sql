-- Rules that hold for every farm table: state changes, who may act in an org, settings, numbers, alerts.
-- Functions named _x are for the farm's own code; a definer function must check the org itself, row security does not hold for it.

CREATE OR REPLACE FUNCTION odin._check_transition() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  was text := CASE WHEN TG_OP = 'UPDATE' THEN OLD.status ELSE '' END;
  allowed text;
BEGIN
  IF was = NEW.status OR EXISTS (SELECT 1 FROM odin.transitions t WHERE t.machine = TG_ARGV[0] AND t.from_state = was AND t.to_state = NEW.status) THEN
    RETURN NEW;
  END IF;
  SELECT string_agg(t.to_state, ', ' ORDER BY t.to_state) INTO allowed FROM odin.transitions t WHERE t.machine = TG_ARGV[0] AND t.from_state = was;
  PERFORM odin.fail('invalid_state_transition',
    format('%s %s is %s and cannot become %s', TG_ARGV[0], NEW.id, CASE was WHEN '' THEN 'new' ELSE was END, NEW.status),
    CASE WHEN allowed IS NULL THEN format('A %s that is %s stays so.', TG_ARGV[0], was) ELSE 'From here it can become: ' || allowed END,
    jsonb_build_object('from_status', nullif(was, ''), 'to_status', NEW.status));
END $f$;
CREATE OR REPLACE TRIGGER odin_transition BEFORE INSERT OR UPDATE OF status ON odin.orders   FOR EACH ROW EXECUTE FUNCTION odin._check_transition('order');
-- A plan schedules ten thousand jobs at once, so the way from pending to scheduled is open without asking the table row by row.
CREATE OR REPLACE TRIGGER odin_transition_new BEFORE INSERT ON odin.jobs FOR EACH ROW EXECUTE FUNCTION odin._check_transition('job');
CREATE OR REPLACE TRIGGER odin_transition BEFORE UPDATE OF status ON odin.jobs FOR EACH ROW WHEN (OLD.status <> NEW.status AND NOT (OLD.status = 'pending' AND NEW.status = 'scheduled')) EXECUTE FUNCTION odin._check_transition('job');
CREATE OR REPLACE TRIGGER odin_transition BEFORE INSERT OR UPDATE OF status ON odin.runs     FOR EACH ROW EXECUTE FUNCTION odin._check_transition('run');
CREATE OR REPLACE TRIGGER odin_transition BEFORE INSERT OR UPDATE OF status ON odin.spools   FOR EACH ROW EXECUTE FUNCTION odin._check_transition('spool');
CREATE OR REPLACE TRIGGER odin_transition BEFORE INSERT OR UPDATE OF status ON odin.quotes   FOR EACH ROW EXECUTE FUNCTION odin._check_transition('quote');
CREATE OR REPLACE TRIGGER odin_transition BEFORE INSERT OR UPDATE OF status ON odin.invoices FOR EACH ROW EXECUTE FUNCTION odin._check_transition('invoice');

CREATE OR REPLACE FUNCTION odin._touch() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  NEW.updated_at := now();
  RETURN NEW;
END $f$;
DO $d$
DECLARE
  t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['customers','orders','order_lines','filaments','models','products','consumables','printers','spools','maintenance_tasks','quotas','quotes'] LOOP
    EXECUTE format('CREATE OR REPLACE TRIGGER odin_touch BEFORE UPDATE ON odin.%I FOR EACH ROW EXECUTE FUNCTION odin._touch()', t);
  END LOOP;
END $d$;

-- Ledgers and histories: a row once written stays. ENABLE ALWAYS, so that replication settings do not lift it.
CREATE OR REPLACE FUNCTION odin._ledger_is_append_only() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  PERFORM odin.fail('permission_denied', format('%s is a ledger: %s is not possible', TG_TABLE_NAME, lower(TG_OP)), 'Write a correcting row instead.');
END $f$;
DO $d$
DECLARE
  t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['spool_moves','stock_moves','consumable_moves','bed_events','maintenance_log'] LOOP
    EXECUTE format('CREATE OR REPLACE TRIGGER odin_append_only BEFORE UPDATE OR DELETE ON odin.%I FOR EACH ROW EXECUTE FUNCTION odin._ledger_is_append_only()', t);
    EXECUTE format('CREATE OR REPLACE TRIGGER odin_no_truncate BEFORE TRUNCATE ON odin.%I FOR EACH STATEMENT EXECUTE FUNCTION odin._ledger_is_append_only()', t);
    EXECUTE format('ALTER TABLE odin.%I ENABLE ALWAYS TRIGGER odin_append_only, ENABLE ALWAYS TRIGGER odin_no_truncate', t);
  END LOOP;
END $d$;

-- Orgs whose rows the acting role works with; a superuser without membership sees all. One call a statement, never one a row.
CREATE OR REPLACE FUNCTION odin._visible_orgs() RETURNS bigint[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  who name := odin.actor();
  orgs bigint[] := ARRAY(SELECT o FROM odin.orgs_of(who) o ORDER BY o);
BEGIN
  IF cardinality(orgs) = 0 THEN
    IF (SELECT rolsuper FROM pg_roles WHERE rolname = who) THEN
      orgs := ARRAY(SELECT id FROM odin.orgs ORDER BY id);
    ELSE
      orgs := ARRAY(SELECT DISTINCT c.org_id FROM odin.customers c WHERE c.id IN (SELECT odin.customers_of(who)));
    END IF;
  END IF;
  RETURN orgs;
END $f$;

-- Is the acting role of this group (or above), and does it work in this org? For definer functions.
CREATE OR REPLACE FUNCTION odin._may(org bigint, floor name DEFAULT 'odin_operator') RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  who name := odin.actor();
BEGIN
  RETURN (SELECT rolsuper FROM pg_roles WHERE rolname = who)
      OR (pg_has_role(who, floor, 'USAGE') AND org IN (SELECT odin.orgs_of(who)));
END $f$;

CREATE OR REPLACE FUNCTION odin._setting(org bigint, key text, fallback text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  RETURN coalesce((SELECT settings->>key FROM odin.orgs WHERE id = org), fallback);
END $f$;

CREATE OR REPLACE FUNCTION odin._currency(org bigint) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT currency FROM odin.orgs WHERE id = org;
$f$;

-- The next number of a kind, under the counter's row lock: no gaps, no doubles.
CREATE OR REPLACE FUNCTION odin._next_number(org bigint, kind text, prefix text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  n bigint;
BEGIN
  INSERT INTO odin.order_counters AS c (org_id, kind, next) VALUES (org, _next_number.kind, 2)
  ON CONFLICT ON CONSTRAINT order_counters_pkey DO UPDATE SET next = c.next + 1 RETURNING c.next - 1 INTO n;
  RETURN prefix || lpad(n::text, 5, '0');
END $f$;

-- Priority as a number or a word.
CREATE OR REPLACE FUNCTION odin._priority(said text) RETURNS smallint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  found_one smallint;
BEGIN
  IF said IS NULL THEN RETURN NULL; END IF;
  SELECT p.priority INTO found_one FROM odin.priorities p WHERE p.priority::text = btrim(said) OR lower(btrim(said)) = ANY (p.words);
  IF found_one IS NULL THEN
    PERFORM odin.fail('validation_failed', format('priority: %s is not a priority', said),
      'A number from 0 to 10 (lower is sooner) or one of: now, urgent, high, normal, medium, low, lowest.', '{"field":"priority"}');
  END IF;
  RETURN found_one;
END $f$;

CREATE OR REPLACE FUNCTION odin._color(said text, field text DEFAULT 'color_hex') RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  hex text := upper(ltrim(btrim(said), '#'));
BEGIN
  IF said IS NULL OR hex = '' THEN RETURN NULL; END IF;
  IF hex ~ '^[0-9A-F]{8}$' THEN hex := left(hex, 6); END IF;
  IF hex !~ '^[0-9A-F]{6}$' THEN
    PERFORM odin.fail('validation_failed', format('%s: %s is not a colour', field, said), 'Six hex digits, as #FF8800.', jsonb_build_object('field', field));
  END IF;
  RETURN '#' || hex;
END $f$;

-- Material names as the farm compares them: capitals, vendor spellings folded, Nylon = PA.
CREATE OR REPLACE FUNCTION odin._material(said text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT CASE m WHEN 'NYLON' THEN 'PA' WHEN 'PA6' THEN 'PA' WHEN 'PA12' THEN 'PA' WHEN 'PA6_CF' THEN 'NYLON_CF' WHEN 'PA_CF' THEN 'NYLON_CF'
              WHEN 'PLA_S' THEN 'PLA_SUPPORT' WHEN 'PLA+' THEN 'PLA_PLUS' ELSE m END
    FROM (SELECT nullif(regexp_replace(upper(btrim(said)), '[\s-]+', '_', 'g'), '') AS m) x;
$f$;

-- Writes an alert unless the org switched the type off. Same transaction as its cause.
CREATE OR REPLACE FUNCTION odin._alert(org bigint, kind text, title text, message text DEFAULT NULL, recipient text DEFAULT NULL, printer bigint DEFAULT NULL,
  job bigint DEFAULT NULL, run bigint DEFAULT NULL, spool bigint DEFAULT NULL, ord bigint DEFAULT NULL, data jsonb DEFAULT '{}') RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  made bigint;
BEGIN
  IF EXISTS (SELECT 1 FROM odin.alert_preferences p WHERE p.org_id = org AND p.type = kind AND NOT p.in_app AND p.role_name = coalesce(_alert.recipient, '*')) THEN
    RETURN NULL;
  END IF;
  INSERT INTO odin.alerts(org_id, recipient, type, severity, title, message, printer_id, job_id, run_id, spool_id, order_id, data)
  SELECT org, _alert.recipient, kind, t.severity, left(_alert.title, 200), left(_alert.message, 2000), printer, job, run, spool, ord, coalesce(_alert.data, '{}')
    FROM odin.alert_types t WHERE t.type = kind
  RETURNING id INTO made;
  RETURN made;
END $f$;

-- The threshold of an alert type for an org: the org's own default row, else the type's.
CREATE OR REPLACE FUNCTION odin._threshold(org bigint, kind text) RETURNS numeric
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT coalesce((SELECT p.threshold FROM odin.alert_preferences p WHERE p.org_id = org AND p.type = kind AND p.role_name = '*'),
                  (SELECT t.threshold FROM odin.alert_types t WHERE t.type = kind));
$f$;
