-- Rules a farm adds itself, what people may learn of each other, automatic start, and the verbs that end things.
-- Guards hold for verbs
INSERT INTO odin.access_rules(name, table_name, role_name, kind, operations, filter, comment) VALUES
  ('no_rush', 'odin.jobs', 'ft_operator', 'guard', 'cu', 'priority >= 2', 'Urgent jobs are for the shift lead.'),
  ('own_room', 'odin.printers', 'ft_operator', 'guard', 'r', 'coalesce(group_name, '''') <> ''voron''', NULL),
  ('keep_spools', 'odin.spools', 'ft_operator', 'guard', 'u', 'created_by = current_user OR status <> ''archived''', NULL);
SELECT t.as('admin', 'queue_job', '{"model_id":2,"priority":1}')->>'id' AS urgent \gset
SELECT odin.apply_access() \g /dev/null
SELECT t.is(t.op('queue_job', '{"model_id":2,"priority":1}')#>'{error,rule}', '"no_rush"', 'a guard on jobs holds for queue_job');
SELECT t.is(t.op('queue_job', '{"model_id":2,"priority":1}')#>'{error,hint}', '"Urgent jobs are for the shift lead."', 'and says why in the rule''s own words');
SELECT t.op('queue_job', '{"model_id":2}')->>'id' AS calm \gset
SELECT t.is(t.op('update_job', jsonb_build_object('job_id', :calm, 'priority', 1))#>'{error,code}', '"permission_denied"', 'for update_job');
SELECT t.is(t.op('cancel_job', jsonb_build_object('job_id', :urgent))#>'{error,code}', '"permission_denied"', 'for cancel_job');
SELECT t.is(t.op('hold_job', jsonb_build_object('job_id', :urgent))#>'{error,code}', '"permission_denied"', 'for hold_job');
SELECT t.is(t.as('admin', 'cancel_job', jsonb_build_object('job_id', :urgent))->'status', '"cancelled"', 'not for whom the rule does not name');
SELECT t.is(t.op('start_job', jsonb_build_object('job_id', :calm, 'printer_id', 4, 'started_by_hand', true))#>'{error,code}', '"printer_not_found"', 'a printer hidden by a guard is not found by a verb');
SELECT t.is((SELECT jsonb_agg(p->'printer_id' ORDER BY p->'printer_id') FROM jsonb_array_elements(t.op('why_waiting', jsonb_build_object('job_id', :calm))->'printers') p), '[1, 2, 3]', 'nor named by why_waiting');
SELECT t.is((SELECT to_jsonb(count(*)) FROM jsonb_array_elements(t.as('admin', 'why_waiting', jsonb_build_object('job_id', :calm))->'printers') p), '4', 'others see it');
UPDATE odin.spools SET created_by = 'somebody' WHERE id = 6;
SELECT t.is(t.op('update_spool', '{"spool_id":6,"archived":true}')#>'{error,code}', '"permission_denied"', 'a filter with current_user means who acts');
SELECT t.is(t.op('start_job', jsonb_build_object('job_id', :calm, 'printer_id', 1, 'started_by_hand', true))->'run_status', '"printing"', 'what no rule forbids goes on');
DELETE FROM odin.access_rules WHERE name IN ('no_rush', 'own_room', 'keep_spools');
SELECT odin.apply_access() \g /dev/null
SELECT t.is((SELECT to_jsonb(count(*)) FROM pg_trigger WHERE tgname LIKE 'odin\_guard\_%'), '0', 'rules that are gone leave no trigger');
SELECT t.ok(NOT t.op('queue_job', '{"model_id":2,"priority":1}') ? 'error', 'and bind nobody');

-- What people may learn of each other
GRANT USAGE ON SCHEMA t TO odin_viewer, odin_customer;
SET ROLE ft_other;
SELECT t.is((SELECT to_jsonb(count(*)) FROM odin.orgs_of('ft_operator')), '0', 'orgs of somebody of another org are not told');
SELECT t.is((SELECT to_jsonb(count(*)) FROM odin.colleagues_of('ft_operator')), '0', 'nor his colleagues');
SELECT t.is((SELECT to_jsonb(count(*)) FROM odin.customers_of('ft_customer')), '0', 'nor whose customer somebody is');
SELECT t.is((SELECT to_jsonb(count(*)) FROM odin.orgs_of('ft_other')), '1', 'one''s own are');
SET ROLE ft_viewer;
SELECT t.is((SELECT to_jsonb(count(*)) FROM odin.orgs_of('ft_operator')), '1', 'of a colleague the org you share');
SET ROLE ft_customer;
SELECT t.is((SELECT to_jsonb(count(*)) FROM odin.orgs_of('ft_operator')), '0', 'a customer learns nothing of the staff');
SELECT t.is((SELECT to_jsonb(count(*)) FROM odin.customers_of('ft_customer')), '1', 'and itself');
RESET ROLE;
SELECT t.ok(NOT has_function_privilege('odin_admin', 'odin._memberships(name)', 'EXECUTE'), 'nobody reads memberships past that');
SELECT t.ok(NOT has_table_privilege('odin_admin', 'odin.reference_' || x, 'INSERT, UPDATE, DELETE'), format('one org''s administrator cannot change reference_%s of all', x)) FROM unnest('{printers,filaments,platforms}'::text[]) x;

-- Who decided about a waiting call, and how
INSERT INTO odin.consents(org_id, role_name, tool, arguments, arguments_hash, expires_at) SELECT org, 'ft_operator', 'cancel_job', '{}', sha256(convert_to('h' || n, 'UTF8')), now() + interval '1 hour' FROM t.ids, generate_series(1, 2) n;
SELECT min(id) AS c1, max(id) AS c2 FROM odin.consents \gset
SET SESSION AUTHORIZATION ft_admin;
SELECT odin.approve_call(:c1), odin.person_call('approve_call', jsonb_build_object('id', :c2)) \g /dev/null
RESET SESSION AUTHORIZATION;
SELECT t.is((SELECT jsonb_object_agg(id - :c1, decided_via) FROM odin.consents), '{"0": "sql", "1": "rest"}', 'a decision says which way it came') WHERE :c2 = :c1 + 1;

-- Automatic start
SELECT t.op('clear_bed', '{"printer_id":1}'), t.op('complete_job', jsonb_build_object('job_id', :calm)), t.op('clear_bed', '{"printer_id":1}') \g /dev/null
UPDATE odin.jobs SET status = 'cancelled', cancelled_by = 'test' WHERE status IN ('pending', 'scheduled');
SELECT t.op('update_printer', '{"printer_id":1,"auto_dispatch":true}'), t.op('update_printer', '{"printer_id":3,"auto_dispatch":true}') \g /dev/null
SELECT t.as('admin', 'set_settings', '{"auto_dispatch":true}') \g /dev/null
SELECT t.op('queue_job', '{"model_id":3,"quantity":5}') \g /dev/null
SELECT t.is(to_jsonb(odin.dispatch_ready()), '0', 'no printer takes what it has no filament for');
SELECT t.ok((SELECT bool_and(dispatch_tried_at IS NOT NULL) FROM odin.printer_state WHERE printer_id IN (1, 3)), 'and each waits its turn to look again');
SELECT t.op('queue_job', '{"model_id":2,"required_tags":["pla"]}')->>'id' AS auto \gset
UPDATE odin.printer_state SET dispatch_tried_at = now() - interval '1 minute' WHERE printer_id = 1;
SELECT t.is(to_jsonb(odin.dispatch_ready(1)), '1', 'the first job that fits starts, though others are before it');
SELECT t.is((SELECT to_jsonb(r.printer_id) FROM odin.runs r WHERE r.job_id = :auto), '1', 'on the printer that can take it');
SELECT t.is(to_jsonb(odin.dispatch_ready()), '0', 'and not twice');
SELECT t.ok(has_function_privilege('odin_worker', 'odin.dispatch_ready(integer)', 'EXECUTE') AND NOT has_function_privilege('odin_operator', 'odin.dispatch_ready(integer)', 'EXECUTE'), 'the clock is the worker''s');

-- Things end
SELECT t.is(t.op('delete_item', '{"kind":"consumable","id":1}')->'archived', 'true', 'what has a history is archived');
SELECT t.op('save_customer', '{"name":"Never ordered"}')->>'id' AS stranger \gset
SELECT t.is(t.op('delete_item', jsonb_build_object('kind', 'customer', 'id', :stranger))->'deleted', 'true', 'what has none is deleted');
SELECT t.op('create_model', '{"name":"Never printed","material":"PLA","grams":1,"print_hours":1}')->>'model_id' AS plain \gset
SELECT t.is(t.op('delete_item', jsonb_build_object('kind', 'model', 'id', :plain))->'deleted', 'true', 'a model with its revisions');
SELECT t.is(t.op('delete_item', '{"kind":"model","id":1}')->'archived', 'true', 'a printed model stays in the books');
SELECT t.ok((SELECT current_revision_id IS NOT NULL AND NOT is_active FROM odin.models WHERE id = 1), 'whole, and out of the lists');
SELECT t.is(t.op('delete_item', '{"kind":"spool","id":6}')->'archived', 'true', 'a spool''s ledger stays');
SELECT t.is(t.op('delete_item', '{"kind":"spool","id":1}')#>'{error,code}', '"spool_in_use"', 'a loaded spool is not taken away');
SELECT t.is(t.op('delete_item', '{"kind":"printer","id":1}')#>'{error,code}', '"printer_busy"', 'nor a printer at work');
SELECT t.is(t.op('delete_item', '{"kind":"printer","id":2}')->'success', 'true', 'an idle one is');
SELECT t.is(t.as('other', 'delete_item', '{"kind":"printer","id":3}')#>'{error,code}', '"printer_not_found"', 'never another org''s');
SELECT t.is(t.as('viewer', 'delete_item', '{"kind":"printer","id":3}')#>'{error,code}', '"permission_denied"', 'and not by a viewer');

-- Quotes through their states
SELECT t.op('create_quote', '{"lines":[{"model_id":2,"quantity":4}],"customer_id":1}')->>'quote_id' AS q1, t.op('create_quote', '{"lines":[{"model_id":2,"quantity":4}],"customer_id":1}')->>'quote_id' AS q2, t.op('create_quote', '{"lines":[{"model_id":2,"quantity":4}],"valid_days":0}')->>'quote_id' AS q3 \gset
SELECT t.is(t.op('set_quote', jsonb_build_object('quote_id', :q1, 'status', 'sent'))->'status', '"sent"', 'a quote is sent');
SELECT t.is(t.op('accept_quote', jsonb_build_object('quote_id', :q1))->'customer_id', '1', 'and accepted: an order of that customer');
SELECT t.is(t.op('set_quote', jsonb_build_object('quote_id', :q1, 'status', 'declined'))#>'{error,code}', '"invalid_state_transition"', 'what is accepted is not declined');
SELECT t.is(t.op('set_quote', jsonb_build_object('quote_id', :q2, 'status', 'declined', 'notes', 'too dear'))->'notes', '"too dear"', 'one is declined, with the reason');
SELECT t.is(t.op('accept_quote', jsonb_build_object('quote_id', :q2))#>'{error,code}', '"invalid_state_transition"', 'and cannot be accepted any more');
UPDATE odin.quotes SET valid_until = current_date - 1 WHERE id = :q3;
DELETE FROM odin.clock;
SELECT odin.tick() \g /dev/null
SELECT t.is((SELECT to_jsonb(status) FROM odin.quotes WHERE id = :q3), '"expired"', 'one that ran out expires by the clock');

-- A customer's own login
SELECT t.op('create_order', '{"customer_id":2,"lines":[{"model_id":2,"quantity":1}]}')->>'id' AS theirs \gset
SELECT t.op('create_invoice', jsonb_build_object('order_id', (SELECT max(order_id) FROM odin.quotes)))->>'invoice_id' AS inv \gset
SELECT t.ok((SELECT bool_and((j->>'order_id')::bigint <> :theirs) AND count(*) > 0 FROM jsonb_array_elements(t.as('customer', 'list_order_jobs', '{"fields":["id","order_id"]}')->'jobs') j), 'a customer sees the jobs of its own orders');
SELECT t.is(t.as('customer', 'list_order_jobs', jsonb_build_object('order_id', :theirs))->'jobs', '[]', 'and none of others');
SELECT t.ok(NOT t.as('customer', 'list_order_jobs')::text ~ 'cost|printer', 'without the farm''s own figures');
SELECT t.is(t.as('customer', 'list_quotes')->'count', '2', 'its quotes');
SELECT t.ok(t.as('customer', 'invoice_html', jsonb_build_object('invoice_id', :inv))->>'result' LIKE '%Test Farm%', 'its bill, with who sent it');
SELECT t.is(t.as('customer', 'list_jobs')#>'{error,code}', '"permission_denied"', 'not the farm''s own lists');

-- Settings
SELECT t.is(t.op('set_settings', '{"max_attempts":5}')#>'{error,code}', '"permission_denied"', 'rules of the org are for administrators');
SELECT t.is(t.as('admin', 'set_settings', '{"require_job_approval":"all","timezone":"Europe/Berlin"}') - 'org_id', '{"org_name": "Test Farm", "currency": "USD", "timezone": "Europe/Berlin", "require_job_approval": "all", "auto_dispatch": true, "max_attempts": 3, "printer_stale_seconds": 300, "printer_stall_seconds": 900}', 'and hold from then on');
SELECT t.is(t.op('queue_job', '{"model_id":2}')->'status', '"submitted"', 'an operator''s job waits for approval where everybody''s do');
SELECT t.is(t.as('admin', 'set_settings', '{"timezone":"Nowhere/Land"}')#>'{error,field}', '"timezone"', 'a time zone has to exist');

-- Every number has a range and every text a length; ids have the range of their type.
SELECT t.is((SELECT jsonb_agg(x.name || '.' || p.key ORDER BY 1) FROM odin.tools x, jsonb_each(x.input_schema->'properties') p
  WHERE x.kind = 'tool' AND x.function ~ '^odin[.]' AND NOT x.spec->'control' ? p.key AND p.key !~ '(^|_)ids?$'
    AND ((p.value->>'type' IN ('integer', 'number') AND NOT (p.value ?| '{minimum,exclusiveMinimum}' AND p.value ?| '{maximum,exclusiveMaximum}'))
      OR (p.value->>'type' = 'string' AND NOT p.value ?| '{maxLength,enum,format,pattern}') OR (p.value->>'type' = 'array' AND NOT p.value ? 'maxItems'))), NULL, 'every argument of every tool has its bounds');
SELECT t.is(t.op(tool, args)#>'{error,field}', to_jsonb(field), format('%s: too much in %s is refused by name', tool, field)) FROM (VALUES
  ('search_records', jsonb_build_object('model', 'jobs', 'fields', (SELECT jsonb_agg('id'::text) FROM generate_series(1, 201))), 'fields'), ('aggregate_records', jsonb_build_object('model', 'jobs', 'group_by', (SELECT jsonb_agg('status'::text) FROM generate_series(1, 21))), 'group_by'),
  ('list_files', jsonb_build_object('cursor', repeat('a', 4001)), 'cursor'), ('home_printer', '{"axes":["x","x","x","x","x","x","x"]}', 'axes'), ('list_jobs', jsonb_build_object('fields', (SELECT jsonb_agg('id'::text) FROM generate_series(1, 201))), 'fields')) v(tool, args, field);
SELECT t.is(t.op('create_model', '{"name":"N","material":"PLA","grams":1,"print_hours":1,"customer_id":9223372036854775808}')#>'{error,field}', '"customer_id"', 'an id beyond any id is refused by name');
SELECT t.is(t.op('save_product', '{"name":"N","price":12345678901}')#>'{error,field}', '"price"', 'so is an amount beyond any amount');
CREATE FUNCTION t.echo(amount numeric, big bigint, more jsonb) RETURNS jsonb LANGUAGE sql STABLE AS 'SELECT jsonb_build_object(''amount'', amount, ''big'', big, ''more'', more)';
COMMENT ON FUNCTION t.echo(numeric, bigint, jsonb) IS 'Gives back what it got.';
REVOKE EXECUTE ON FUNCTION t.echo FROM PUBLIC;
GRANT EXECUTE ON FUNCTION t.echo TO odin_viewer;
GRANT USAGE ON SCHEMA t TO odin_viewer;
SELECT odin.register_tool('t.echo') \g /dev/null
SELECT t.is(t.op('echo', '{"amount":12345678901234567.890123,"big":9007199254740993,"more":{"a":[0.12345678901234567890,123456789012345678901234567890]}}'),
  '{"amount":12345678901234567.890123,"big":9007199254740993,"more":{"a":[0.12345678901234567890,123456789012345678901234567890]}}', 'numbers keep every digit on their way to a tool');
