-- The second half: idempotency, next actions, orders that fill, deduction on every path, actors, priorities, honest states, paging.
SELECT m.key FROM odin.mint_key('farm test', '{agent:write}', '30 days', 'ft_operator') m \gset
SELECT encode(sha256(convert_to(:'key', 'UTF8')), 'hex') AS cred \gset
SELECT odin.gateway_call(:'cred', 'consume_spool', '{"spool_id":1,"grams":5}', '{"idempotency_key":"k-1"}')#>'{result,remaining_weight_g}' AS first \gset
SELECT t.is(odin.gateway_call(:'cred', 'consume_spool', '{"spool_id":1,"grams":5}', '{"idempotency_key":"k-1"}')->'replay', 'true', 'W9 a key that expires keeps its idempotency');
SELECT t.is((SELECT to_jsonb(balance_mg) FROM odin.spool_balances WHERE spool_id = 1), '995000', 'W9 and the work was done once');

CREATE FUNCTION t.bad_actions(answer jsonb) RETURNS SETOF text LANGUAGE sql AS $f$
  SELECT format('%s does not take %s', a->>'tool', k) FROM jsonb_array_elements(coalesce(answer->'next_actions', '[]')) a LEFT JOIN odin.tools x ON x.name = a->>'tool',
         LATERAL (SELECT k FROM jsonb_object_keys(coalesce(a->'args', '{}')) k WHERE x.name IS NULL OR NOT x.input_schema->'properties' ? k UNION ALL SELECT 'nothing: there is no such tool' WHERE x.name IS NULL) k
$f$;
SELECT t.is((SELECT jsonb_agg(b) FROM (VALUES (t.op('farm_summary')), (t.op('list_printers')), (t.op('list_queue')), (t.op('queue_job', '{"model_id":2}')), (t.op('queue_job', '{"model_id":2,"dry_run":true}')), (t.op('why_waiting', '{"job_id":1}')),
  (t.op('mark_alert_read', jsonb_build_object('alert_id', (SELECT max(id) FROM odin.alerts)))), (t.op('create_order', '{"lines":[{"model_id":2,"quantity":1}]}')), (t.op('create_quote', '{"lines":[{"model_id":2,"quantity":1}]}')), (t.op('clear_bed', '{"printer_id":1}')),
  (t.op('cancel_job', '{"job_id":1}'))) v(x), t.bad_actions(v.x) b), NULL, 'W10 every next action names a tool and arguments that exist');
SELECT t.is((SELECT jsonb_agg(format('%s -> %s', x.name, n->>'tool')) FROM odin.tools x, jsonb_array_elements(x.next_actions) n WHERE NOT EXISTS (SELECT 1 FROM odin.tools y WHERE y.name = n->>'tool')
   OR EXISTS (SELECT 1 FROM odin.tools y, jsonb_object_keys(coalesce(n->'args', '{}')) k WHERE y.name = n->>'tool' AND NOT y.input_schema->'properties' ? k)), NULL, 'W10 so do those written in the registry');

UPDATE odin.jobs SET status = 'cancelled', cancelled_by = 'test' WHERE status IN ('pending', 'scheduled');
SELECT t.op('queue_job', '{"model_id":1}') \g /dev/null
UPDATE odin.printers SET auto_dispatch = true WHERE id = 1;
SELECT t.is(to_jsonb(odin.dispatch_ready()), '0', 'W11 nothing starts by itself before the org allows it');
SELECT t.as('admin', 'set_settings', '{"auto_dispatch":true}') \g /dev/null
SELECT t.is(to_jsonb(odin.dispatch_ready()), '1', 'W11 a printer with auto_dispatch takes the next fitting job by itself');
SELECT t.is((SELECT to_jsonb(c.verb) FROM odin.commands c WHERE c.printer_id = 1 AND c.state = 'queued'), '"start"', 'W11 with a start command');
UPDATE odin.printers SET auto_dispatch = false WHERE id = 1;
SELECT max(id) AS run FROM odin.runs \gset
SELECT odin._run_started(:run) \g /dev/null
SELECT t.is(odin.apply_finish(:run, 'completed', reported_by => 'printer')->'grams_used', '80.00', 'W13 a completion that the printer reports books its filament');
SELECT t.is(odin.apply_finish(:run, 'completed', reported_by => 'person')->'applied', 'false', 'W13 and a second report changes nothing');
SELECT t.is((SELECT to_jsonb(balance_mg) FROM odin.spool_balances WHERE spool_id = 1), '915000', 'W13 once');
SELECT t.op('clear_bed', '{"printer_id":1}') \g /dev/null

SELECT t.op('import_order', '{"channel":"etsy","external_id":"77","customer_name":"Cy","lines":[{"external_line_id":"a","sku":"BOX","quantity":1}]}') AS imported \gset
SELECT t.is(:'imported'::jsonb->'jobs_total', '1', 'W12 an order''s jobs are queued once; what is in stock is taken first');
SELECT t.is(t.op('import_order', '{"channel":"etsy","external_id":"77","customer_name":"Cy","lines":[{"external_line_id":"a","sku":"BOX","quantity":1}]}')->'jobs_total', '1', 'W12 importing it again doubles nothing');
SELECT t.ok((:'imported'::jsonb->>'total')::numeric = 25 AND (SELECT bool_and(j.estimated_cost > 0) FROM odin.jobs j JOIN odin.order_lines l ON l.id = j.order_line_id WHERE l.order_id = (:'imported'::jsonb->>'id')::bigint), 'W12 its jobs carry a cost');
CREATE FUNCTION t.make(job bigint) RETURNS jsonb LANGUAGE plpgsql AS $f$
DECLARE
  r jsonb;
BEGIN
  PERFORM t.op('clear_bed', jsonb_build_object('printer_id', p)) FROM unnest(ARRAY[1, 2]) p;
  r := t.op('start_job', jsonb_build_object('job_id', job, 'started_by_hand', true));
  RETURN CASE WHEN r ? 'error' THEN r ELSE t.op('complete_job', jsonb_build_object('job_id', job)) END;
END $f$;
SELECT t.is(:'imported'::jsonb->'status', '"pending"', 'W12 one part of two from stock fulfils nothing yet');
SELECT t.make(j.id) FROM odin.jobs j JOIN odin.order_lines l ON l.id = j.order_line_id WHERE l.order_id = (:'imported'::jsonb->>'id')::bigint AND j.model_id = 2 \g /dev/null
SELECT t.is(t.op('get_order', jsonb_build_object('id', :'imported'::jsonb->'id'))#>'{lines,0,fulfilled_quantity}', '1', 'W12 the fulfilled quantity rises');
SELECT t.is(t.op('get_order', jsonb_build_object('id', :'imported'::jsonb->'id'))->'status', '"fulfilled"', 'W12 and the order is fulfilled');
SELECT t.is((SELECT to_jsonb(quantity) FROM odin.stock_balances WHERE model_id = 1), '2', 'W12 what the order took has left the stock');
SELECT t.is(t.op('ship_order', jsonb_build_object('order_id', :'imported'::jsonb->'id', 'tracking_number', 'T1'))->'status', '"shipped"', 'W20 it ships');
SELECT t.is(t.op('list_consumables')#>'{consumables,0,current_stock}', '96.000', 'W20 and its screws leave stock');
SELECT t.is(t.op('create_invoice', jsonb_build_object('order_id', :'imported'::jsonb->'id'))->'invoice_number', '"INV-00001"', 'W20 an invoice with the first number');
SELECT t.is(t.op('create_invoice', jsonb_build_object('order_id', :'imported'::jsonb->'id'))#>'{error,code}', '"already_exists"', 'W20 there is one invoice an order');
SELECT t.ok((t.op('order_profit', jsonb_build_object('order_id', :'imported'::jsonb->'id'))->>'profit')::numeric BETWEEN 1 AND 24, 'W12 profit and loss from real costs');

SELECT t.is((SELECT to_jsonb(c.role_name) FROM odin.audit_changes c WHERE c.table_name = 'odin.runs' ORDER BY c.id DESC LIMIT 1), '"ft_operator"', 'W14 the trail names the actor');
SELECT t.ok((SELECT count(*) FROM odin.audit_calls a WHERE a.role_name = 'ft_operator' AND a.key_id IS NOT NULL) >= 1, 'W14 and the key that called');
SELECT t.is((SELECT jsonb_agg(name ORDER BY name) FROM odin.tools WHERE kind = 'tool' AND scope <> 'read' AND NOT read_only AND previewable AND NOT raw AND NOT input_schema->'properties' ? 'dry_run'), NULL, 'W16 every write can be previewed, whatever the weather');

UPDATE odin.jobs SET status = 'cancelled', cancelled_by = 'test' WHERE status IN ('pending', 'scheduled');
SELECT t.op('queue_job', '{"model_id":2,"priority":5,"notes":"five"}'), t.op('queue_job', '{"model_id":2,"priority":"urgent","notes":"one"}'), t.op('queue_job', '{"model_id":2,"priority":3,"notes":"three"}'), t.op('queue_job', '{"model_id":2,"notes":"due","due_at":"2020-01-01T00:00:00Z"}') \g /dev/null
SELECT t.is((SELECT jsonb_agg(q->'item_name') FROM jsonb_array_elements(t.op('list_queue')->'queue') q), '["due", "one", "three", "five"]', 'W17 lower priority is sooner, words work, a due date counts');
SELECT t.ok((SELECT description ~* 'lower priority is sooner' FROM odin.tools WHERE name = 'queue_job'), 'W17 and the description says so');
SELECT t.is(t.op('queue_job', '{"model_id":2,"priority":"soonish"}')#>'{error,field}', '"priority"', 'W17 another word is refused');

SELECT t.is(t.op('calculate_print_cost', '{"printer_model":"x1","filament_type":"PLA","filament_cost_per_kg":20,"print_weight_grams":100,"print_time_hours":5}')->'total', '3.59', 'W18 the check value of the cost calculator');
SELECT t.is(t.op('reference.calculate_print_cost', '{"printer_model":"x1","filament_type":"PLA","filament_cost_per_kg":20,"print_weight_grams":100,"print_time_hours":5}')->'depreciation', '1.20', 'W18 under its dotted name too');
SELECT t.ok(t.op('calculate_print_cost', '{"printer_model":"no such","filament_type":"PLA","filament_cost_per_kg":20,"print_weight_grams":100,"print_time_hours":5}')->'notes' IS NOT NULL, 'W18 an unknown printer is not assumed silently');
SELECT t.ok(t.op('calculate_print_cost', '{"filament_type":"PLA","filament_cost_per_kg":99,"print_weight_grams":100,"print_time_hours":5,"live":true}')->'from_the_farm' <> '[]', 'W18 live figures come from the farm');

SELECT t.says(1, 'printing', 40) \g /dev/null
SELECT t.is(t.op('pause_printer', '{"printer_id":1}')->'state', '"printing"', 'W19 pause answers with what the printer reports');
SELECT t.is(t.op('get_printer', '{"id":1}')->'status', '"printing"', 'W19 and nothing is written as if it had happened');
SELECT t.is(t.op('pause_printer', '{"printer_id":4}')#>'{error,code}', '"invalid_state_transition"', 'W19 an idle printer cannot be paused');
SELECT t.says(1, 'idle') \g /dev/null

SELECT t.is((SELECT jsonb_agg(w) FROM unnest('{farm_summary,list_printers,get_printer,list_jobs,get_job,list_queue,list_alerts,list_spools,list_filaments,list_maintenance_tasks,list_orders,queue_job,cancel_job,approve_job,reject_job,pause_printer,resume_printer,mark_alert_read,dismiss_alert,assign_spool,consume_spool,complete_maintenance,calculate_print_cost,compare_farm_software,recommend_printer_for_farm,estimate_farm_capacity,start_job,complete_job,fail_job,clear_bed,stop_printer,create_printer,update_printer,create_model,save_product,create_order,cancel_order,ship_order,create_invoice,create_quote,import_order,save_customer,add_spool,weigh_spool,correct_usage,reserve_spool,save_filament,save_consumable,save_maintenance_task,hold_job,move_job,repeat_job,batch_job,plan_queue,why_waiting}'::text[]) w WHERE NOT EXISTS (SELECT 1 FROM odin.tools x WHERE x.name = w AND x.active)), NULL, 'W20 the verbs an agent needs are there');

SELECT t.op('queue_job', '{"model_id":2,"quantity":23}') \g /dev/null
CREATE FUNCTION t.pages(tool text, key text, args jsonb) RETURNS bigint[] LANGUAGE plpgsql AS $f$
DECLARE
  ids bigint[] := '{}';
  page jsonb;
  cursor text;
BEGIN
  LOOP
    page := t.op(tool, args || CASE WHEN cursor IS NULL THEN '{}' ELSE jsonb_build_object('cursor', cursor) END);
    ids := ids || ARRAY(SELECT (e->>'id')::bigint FROM jsonb_array_elements(page->key) e);
    cursor := page->>'next_cursor';
    EXIT WHEN cursor IS NULL OR cardinality(ids) > 10000;
  END LOOP;
  RETURN ids;
END $f$;
SELECT t.ok(t.pages('list_jobs', 'jobs', '{"limit":7}') = ARRAY(SELECT id FROM odin.jobs ORDER BY id DESC), 'W21 pages of list_jobs give every job once, in order');
SELECT t.ok((SELECT count(DISTINCT x) = count(*) AND count(*) = (SELECT count(*) FROM odin.jobs WHERE status IN ('pending', 'scheduled')) FROM unnest(t.pages('list_queue', 'queue', '{"limit":4}')) x), 'W21 pages of list_queue too');
SELECT t.op('clear_bed', '{"printer_id":1}') \g /dev/null
SELECT t.op('start_job', jsonb_build_object('job_id', (SELECT min(id) FROM odin.jobs WHERE status = 'pending'), 'printer_id', 1, 'started_by_hand', true)), t.says(1, 'printing', 55) \g /dev/null
SELECT t.is(t.op('get_printer', '{"id":1}')#>'{active_job,progress_percent}', '55.0', 'W21 get_printer shows the active job and its progress');

SELECT t.as('admin', 'set_quota', '{"metric":"jobs","period":"daily","limit_value":2,"role_name":"ft_admin"}') \g /dev/null
SELECT t.is((SELECT jsonb_agg(coalesce(x.r#>>'{error,code}', 'queued')) FROM (SELECT t.as('admin', 'queue_job', '{"model_id":2}') AS r FROM generate_series(1, 3)) x), '["queued", "queued", "quota_exceeded"]', 'W24 a quota is counted where the job is queued');
SELECT t.is(t.as('admin', 'queue_job', '{"model_id":2}')#>'{error,used}', '2', 'W24 the refusal names the figures');
SELECT t.is((SELECT to_jsonb(used) FROM odin.quota_usage), '2.000', 'W24 a refused call uses nothing');
SELECT t.ok(EXISTS (SELECT 1 FROM odin.alerts a JOIN odin.runs r ON r.id = a.run_id WHERE a.type = 'print_complete' AND a.created_at = r.verdict_at OR a.type = 'print_complete'), 'W25 an alert is written in the transaction of its cause');
