-- Contract of every tool of the farm, from the registry: each advertised argument changes the answer (or the changes a preview shows), twice the same call is the same answer, hints are true.
-- A tool or argument that is new and not in the cases below fails the test.
CREATE TABLE t.cases(tool text PRIMARY KEY, base jsonb NOT NULL, args jsonb NOT NULL);
-- args: {"argument": another value} on top of base; or {"argument": {"with": {..base for this one..}, "value": ..}}.
CREATE FUNCTION t.plain(answer jsonb) RETURNS jsonb LANGUAGE sql AS $f$
  -- The number of the call is new each time; nothing else may be.
  SELECT regexp_replace((answer - 'preview_token' - 'next_actions')::text, '"call_id": [0-9]+', '"call_id": 0', 'g')::jsonb $f$;
-- Ids are handed out again after a preview, so two previews of the same call are the same text.
CREATE FUNCTION t.rewind() RETURNS void LANGUAGE plpgsql AS $f$
DECLARE
  s record;
BEGIN
  FOR s IN SELECT schemaname, sequencename, coalesce(k.n, 0) AS n FROM pg_sequences q LEFT JOIN t.kept k ON k.seq = q.schemaname || '.' || q.sequencename WHERE q.schemaname = 'odin' AND q.sequencename NOT LIKE 'audit%' LOOP
    PERFORM setval(format('%I.%I', s.schemaname, s.sequencename), greatest(s.n, 1), s.n > 0);
  END LOOP;
END $f$;
CREATE TABLE t.kept(seq text, n bigint);
CREATE FUNCTION t.try(tool text, args jsonb) RETURNS jsonb LANGUAGE plpgsql AS $f$
BEGIN
  PERFORM t.rewind();
  RETURN t.plain(t.as('admin', tool, args || CASE WHEN (SELECT x.read_only FROM odin.tools x WHERE x.name = tool) THEN '{}'::jsonb ELSE '{"dry_run": true}' END));
END $f$;
-- One line for each argument that is advertised.
CREATE FUNCTION t.contract(name text) RETURNS SETOF text LANGUAGE plpgsql AS $f$
DECLARE
  c t.cases;
  a record;
  base jsonb;
  value jsonb;
  one jsonb;
  two jsonb;
BEGIN
  SELECT * INTO c FROM t.cases x WHERE x.tool = name;
  IF NOT FOUND THEN
    RETURN NEXT t.ok(false, name || ' has no case');
    RETURN;
  END IF;
  one := t.try(name, c.base);
  IF one ? 'error' THEN
    RETURN NEXT t.ok(false, format('%s with its base arguments: %s', name, one->'error'));
    RETURN;
  END IF;
  RETURN NEXT t.ok(one = t.try(name, c.base) OR c.args ? '_random', name || ' gives the same answer twice');
  FOR a IN SELECT k FROM odin.tools x, jsonb_object_keys(x.input_schema->'properties') k WHERE x.name = contract.name AND k NOT IN ('dry_run', 'idempotency_key', 'preview_token', 'confirm', 'fields', 'response_format', 'cursor') LOOP
    IF NOT c.args ? a.k THEN
      RETURN NEXT t.ok(false, format('%s.%s has no case', name, a.k));
      CONTINUE;
    END IF;
    base := c.base;
    value := c.args->a.k;
    IF jsonb_typeof(value) = 'object' AND value ? 'value' THEN
      base := (base || coalesce(value->'with', '{}')) - ARRAY(SELECT jsonb_array_elements_text(value->'without'));
      value := value->'value';
    END IF;
    one := t.try(name, base - CASE WHEN base->a.k IS NOT NULL AND NOT coalesce((SELECT x.input_schema->'required' ? a.k FROM odin.tools x WHERE x.name = contract.name), false) AND c.args->a.k ? 'drop' THEN a.k ELSE '' END);
    two := t.try(name, base || jsonb_build_object(a.k, value));
    RETURN NEXT t.ok(NOT two ? 'error' AND one <> two, format('%s.%s changes the answer%s', name, a.k, CASE WHEN two ? 'error' THEN format(' (%s)', two->'error'->>'detail') ELSE '' END));
  END LOOP;
  -- The page after the first is another page.
  IF EXISTS (SELECT 1 FROM odin.tools x WHERE x.name = contract.name AND x.page_by IS NOT NULL) THEN
    one := t.as('admin', name, c.base || '{"limit": 1}');
    two := t.as('admin', name, c.base || jsonb_build_object('limit', 1, 'cursor', one->'next_cursor'));
    RETURN NEXT t.ok(one ? 'next_cursor' AND NOT two ? 'error' AND one <> two, name || '.cursor turns the page');
  END IF;
END $f$;

-- A livelier farm.
SELECT t.op('create_order', '{"customer_id":1,"lines":[{"product_id":1,"quantity":3}],"due_at":"2031-01-01T00:00:00Z"}'), t.op('create_order', '{"customer_id":2,"lines":[{"model_id":3,"quantity":2}]}'), t.op('create_order', '{"lines":[{"model_id":2,"quantity":2}]}') \g /dev/null
SELECT t.op('queue_job', '{"model_id":2,"printer_id":1,"notes":"run me"}')->>'id' AS running \gset
SELECT t.op('start_job', jsonb_build_object('job_id', :running, 'started_by_hand', true)) \g /dev/null
SELECT t.says(1, 'printing', 30) \g /dev/null
SELECT t.op('queue_job', '{"model_id":3,"printer_id":2}')->>'id' AS done \gset
SELECT t.op('start_job', jsonb_build_object('job_id', :done, 'started_by_hand', true)), t.op('complete_job', jsonb_build_object('job_id', :done)) \g /dev/null
SELECT id AS done_run FROM odin.runs WHERE job_id = :done \gset
SELECT t.op('clear_bed', '{"printer_id":2}') \g /dev/null
SELECT t.op('queue_job', '{"model_id":3,"printer_id":2}')->>'id' AS done2 \gset
SELECT t.op('start_job', jsonb_build_object('job_id', :done2, 'started_by_hand', true)), t.op('complete_job', jsonb_build_object('job_id', :done2)) \g /dev/null
SELECT id AS done_run2 FROM odin.runs WHERE job_id = :done2 \gset
-- P3 and P5 can both take a lid; P6 prints, P7 and P8 are paused.
SELECT t.op('create_printer', jsonb_build_object('name', 'P' || n)) FROM generate_series(5, 8) n \g /dev/null
SELECT t.op('add_spool', jsonb_build_object('filament_id', 1, 'code', 'X-00' || n)) FROM generate_series(7, 8) n \g /dev/null
SELECT t.op('assign_spool', '{"spool_id":7,"printer_id":3}'), t.op('assign_spool', '{"spool_id":8,"printer_id":5}') \g /dev/null
SELECT t.op('create_printer', '{"name":"P9"}'), t.op('add_spool', '{"filament_id":1,"code":"X-009"}'), t.op('assign_spool', '{"spool_id":9,"printer_id":9}'), t.says(9, 'offline') \g /dev/null
SELECT t.says(5, 'idle'), t.says(6, 'printing'), t.says(7, 'paused'), t.says(8, 'paused') \g /dev/null
SELECT t.op('queue_job', '{"model_id":2,"quantity":3,"notes":"three"}')->>'id' AS batch \gset
SELECT t.op('queue_job', '{"model_id":2,"hold":true}')->>'id' AS held \gset
UPDATE odin.orgs SET settings = '{"require_job_approval": true}' WHERE id = (SELECT org FROM t.ids);
SELECT t.as('viewer', 'queue_job', '{"model_id":2,"quantity":2}')->>'id' AS submitted \gset
SELECT t.as('viewer', 'queue_job', '{"model_id":2}')->>'id' AS rejected \gset
SELECT t.as('viewer', 'queue_job', '{"model_id":2}')->>'id' AS rejected2 \gset
SELECT t.op('reject_job', jsonb_build_object('job_id', :rejected, 'reason', 'no')), t.op('reject_job', jsonb_build_object('job_id', :rejected2, 'reason', 'no')) \g /dev/null
SELECT t.op('queue_job', '{"model_id":2,"printer_id":3}')->>'id' AS other \gset
SELECT t.op('create_order', '{"customer_id":1,"lines":[{"model_id":2,"quantity":1}]}')->>'id' AS ready \gset
SELECT t.op('update_order_line', jsonb_build_object('order_line_id', (SELECT max(id) FROM odin.order_lines), 'quantity', 2)) \g /dev/null
INSERT INTO odin.stock_moves(org_id, model_id, kind, quantity) SELECT org, 2, 'made', 5 FROM t.ids;
INSERT INTO odin.stock_moves(org_id, model_id, kind, quantity) SELECT org, 1, 'made', 2 FROM t.ids;
SELECT t.op('create_order', '{"customer_id":1,"lines":[{"model_id":2,"quantity":1}],"notes":"from stock"}')->>'id' AS ready2 \gset
SELECT t.op('create_quote', '{"lines":[{"model_id":1,"quantity":3}],"customer_id":1}')->>'quote_id' AS quote, t.op('create_quote', '{"lines":[{"model_id":2,"quantity":1}]}')->>'quote_id' AS quote2 \gset
SELECT t.op('create_invoice', '{"order_id":2}')->>'invoice_id' AS inv, t.op('create_invoice', '{"order_id":3}')->>'invoice_id' AS inv2 \gset
SELECT t.as('admin', 'set_rate_card', '{"watts":120,"machine_per_hour":0.5}') \g /dev/null
-- Half a day away, whatever the hour: what is started below must not fall into it.
SELECT t.op('save_blackout', jsonb_build_object('from_time', to_char(now() AT TIME ZONE 'UTC' + interval '12 hours', 'HH24:00'), 'until_time', to_char(now() AT TIME ZONE 'UTC' + interval '12 hours', 'HH24:59'), 'reason', 'night'))->>'id' AS blackout, t.op('save_blackout', '{"from_at":"2031-01-01T00:00:00Z","until_at":"2031-01-02T00:00:00Z"}')->>'id' AS blackout2 \gset
SELECT t.op('save_maintenance_task', '{"name":"Oil P1","printer_id":1,"interval_days":10}')->>'id' AS task \gset
UPDATE odin.printer_totals SET print_seconds = 3600 * 60 WHERE printer_id = 3;
SELECT t.op('save_consumable', '{"name":"Box"}'), t.op('save_product', '{"name":"Lamp","parts":[{"model_id":2}]}'), t.op('consume_spool', '{"spool_id":5,"grams":980}'), t.op('save_customer', '{"name":"Cy"}') \g /dev/null
SELECT odin._alert(org, 'spool_low', 'low'), odin._alert(org, 'printer_error', 'broken', printer => 1), odin._alert(org, 'queue_added', 'read') FROM t.ids \g /dev/null
SELECT t.op('mark_alert_read', jsonb_build_object('alert_id', (SELECT max(id) FROM odin.alerts))), t.op('dismiss_alert', jsonb_build_object('alert_id', (SELECT max(id) - 1 FROM odin.alerts))) \g /dev/null
SELECT min(id) AS alert, max(id) AS alert2 FROM odin.alerts WHERE NOT is_read \gset
SELECT min(id) AS move, max(id) AS move2 FROM odin.spool_moves WHERE kind = 'consume' \gset
SELECT t.as('admin', 'set_quota', '{"metric":"jobs","period":"daily","limit_value":1000}') \g /dev/null
UPDATE odin.printers SET group_name = 'prusa', tags = '{pla}' WHERE id = 3;
SELECT t.op('update_printer', '{"printer_id":4,"archived":true}') \g /dev/null
SELECT t.op('create_model', '{"name":"Old","material":"PLA","grams":1,"print_hours":1,"category":"toys"}')->>'model_id' AS old, t.op('add_model_revision', '{"model_id":1,"print_hours":1,"material":"PLA","grams":10}') IS NULL AS x \gset
SELECT t.op('update_model', jsonb_build_object('model_id', :old, 'archived', true)) \g /dev/null
SELECT t.op('plan_queue', '{"max_jobs":2}') \g /dev/null
\ir contract_cases.sql
INSERT INTO t.kept SELECT schemaname || '.' || sequencename, coalesce(last_value, 0) FROM pg_sequences WHERE schemaname = 'odin';
SELECT t.contract(x.name) FROM odin.tools x WHERE x.kind = 'tool' AND x.active AND x.function ~ '^odin[.]' AND x.name = ANY (ARRAY(SELECT tool FROM t.cases) || ARRAY(SELECT y.name FROM odin.tools y WHERE y.toolsets && '{reference,jobs,orders,stock,catalog,fleet,money}')) ORDER BY x.name;
-- Hints are true: what says read-only cannot write; what says idempotent changes nothing the second time.
SELECT t.is((SELECT jsonb_agg(x.name) FROM odin.tools x JOIN t.cases c ON c.tool = x.name WHERE x.read_only <> ((x.listing->'annotations'->>'readOnlyHint')::boolean)), NULL, 'read-only hints are true');
CREATE FUNCTION t.twice(name text) RETURNS text LANGUAGE plpgsql AS $f$
DECLARE
  first jsonb;
  again jsonb;
  n bigint;
  base jsonb := (SELECT c.base FROM t.cases c WHERE c.tool = name);
BEGIN
  BEGIN
    first := t.as('admin', name, base);
    again := t.as('admin', name, base || '{"dry_run": true}');
    n := (SELECT count(*) FROM jsonb_array_elements(again->'changes') e WHERE (e->'after') - 'updated_at' - 'made_at' - 'start_by' - 'scheduled_start' - 'scheduled_end' - 'loaded_at' - 'updated_at' <> '{}');
    RAISE EXCEPTION USING ERRCODE = 'TT000', MESSAGE = CASE WHEN first ? 'error' THEN 'NOT OK  ' || name || ' idempotent: ' || (first->'error'->>'detail')
      WHEN again ? 'error' OR n = 0 THEN 'ok      ' || name || ' is idempotent, as its hint says' ELSE format('NOT OK  %s says it is idempotent and changed %s rows again: %s', name, n, left((again->'changes')::text, 300)) END;
  EXCEPTION WHEN SQLSTATE 'TT000' THEN
    PERFORM set_config('role', 'none', true);
    RETURN SQLERRM;
  END;
END $f$;
SELECT t.twice(x.name) FROM odin.tools x JOIN t.cases c ON c.tool = x.name WHERE NOT x.read_only AND (x.listing->'annotations'->>'idempotentHint')::boolean AND x.name NOT IN ('plan_queue') ORDER BY x.name;
-- W22 of the older system: its contract tests read source text. Here each advertised tool was called, and each advertised argument given another value.
SELECT t.is((SELECT jsonb_agg(x.name ORDER BY x.name) FROM odin.tools x WHERE x.kind = 'tool' AND x.active AND x.function ~ '^odin[.]' AND x.toolsets && '{reference,jobs,orders,stock,catalog,fleet,money}' AND x.name NOT IN (SELECT tool FROM t.cases)), NULL, 'W22 no tool of the farm is without a case');
